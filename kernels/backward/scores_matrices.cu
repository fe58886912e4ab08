// Backward of the scores, of V and U: dV[l] = sum over n of dx[n, l] h[n], dU[l] = sum over n of dy[n, l] h[n].
//
// A product over the instances. A block has a tile of units by features, and of the rows every so many-th run of
// MIVC_MATRICES_RUN_ROWS; what it has summed it leaves as a part, so that the sums are taken in the same order every
// time. Rows come MIVC_MATRICES_STEP_ROWS at a time, three steps in shared memory. dx and dy are f32, split into two
// TF32 each; so are f32 features, while f16 and bf16 are TF32 as they are. Bound by the matrix units, as the backward of
// the features.
//
// Here both factors have their sums' index along a row, for which ldmatrix has no form of 32 bits: lanes read elements,
// from rows that begin 8 banks apart.
#include "../product.cuh"
#include "slice.cuh"

namespace mivc {

using Block = Tile<2, 2, 2, 8>;
constexpr int UNITS = MIVC_MATRICES_TILE_UNITS, FEATURES = MIVC_MATRICES_TILE_FEATURES;
constexpr int STEP_ROWS = MIVC_MATRICES_STEP_ROWS, RUN_STEPS = MIVC_MATRICES_RUN_ROWS / STEP_ROWS;
static_assert(Block::ROWS == UNITS && Block::COLUMNS == FEATURES && Block::THREADS == MIVC_THREADS, "a tile of a block");
constexpr int GAP_BYTES = 32;

template <typename T, int ELEMENTS>
using Line = T[ELEMENTS + GAP_BYTES / sizeof(T)];

template <typename T>
struct MatrixStage {
    Line<float, UNITS> columns[STEP_ROWS];
    Line<T, FEATURES> features[STEP_ROWS];
};

// Which units a block has, and which rows.
struct Task {
    int64_t matrix;
    int64_t group;
    int64_t unit;
    int64_t feature;
    int64_t split;
    int64_t splits;
    int64_t steps;

    __device__ __forceinline__ Task(const MivcScoresMatricesBackward& p) {
        const int64_t tiles = (p.hidden + UNITS - 1) / UNITS;
        matrix = p.first_matrix + blockIdx.x / (tiles * p.groups);
        group = blockIdx.x / tiles % p.groups;
        unit = blockIdx.x % tiles * UNITS;
        feature = int64_t(blockIdx.y) * FEATURES;
        split = blockIdx.z;
        splits = gridDim.z;
        const int64_t runs = (p.slice.rows + MIVC_MATRICES_RUN_ROWS - 1) / MIVC_MATRICES_RUN_ROWS, last = runs - 1;
        steps = (runs - split + splits - 1) / splits * RUN_STEPS;
        // Of the last run there may be a part.
        const int64_t last_rows = p.slice.rows - last * MIVC_MATRICES_RUN_ROWS;
        if (last % splits == split) steps -= RUN_STEPS - (last_rows + STEP_ROWS - 1) / STEP_ROWS;
    }

    // The first row of a step.
    __device__ __forceinline__ int64_t row(int64_t step) const {
        return (step / RUN_STEPS * splits + split) * MIVC_MATRICES_RUN_ROWS + step % RUN_STEPS * STEP_ROWS;
    }
};

// Fills a step of lines with ELEMENTS elements each: those of row n from `from(n)` on, of which `count(n)` are there.
template <int ELEMENTS, typename T, typename From, typename Count>
__device__ __forceinline__ void fetch_lines(Line<T, ELEMENTS>* lines, int64_t first_row, bool is_aligned, const From& from,
                                            const Count& count) {
    constexpr int OF_CHUNK = CHUNK_BYTES / sizeof(T), CHUNKS_OF_LINE = ELEMENTS / OF_CHUNK;
#pragma unroll
    for (int i = 0; i < STEP_ROWS * CHUNKS_OF_LINE / MIVC_THREADS; i++) {
        const int index = threadIdx.x + i * MIVC_THREADS;
        const int line = index / CHUNKS_OF_LINE, element = index % CHUNKS_OF_LINE * OF_CHUNK;
        const int64_t row = first_row + line;
        const int elements = int(min(max(count(row) - element, int64_t(0)), int64_t(OF_CHUNK)));
        // Nothing is read where there is nothing, but an address must be one.
        const T* at = elements > 0 ? from(row) + element : from(0);
        auto* to = reinterpret_cast<uint4*>(&lines[line][element]);
        if (is_aligned) {
            copy_async(to, at, elements * sizeof(T));
        } else {
            *to = RowLoader<UNITS, MIVC_THREADS, T>::gather(at, elements);
        }
    }
}

template <typename T>
__device__ __forceinline__ void fetch(const MivcScoresMatricesBackward& p, const Task& task, int64_t step,
                                      MatrixStage<T>& stage) {
    const int64_t first_row = task.row(step);
    const MivcActivations& columns = p.d_columns;
    const auto* units = pointer<const float>(columns.at) +
                        (task.matrix * p.groups + task.group) * columns.group_stride + task.unit;
    fetch_lines<UNITS, float>(
        stage.columns, first_row, true, [&](int64_t row) { return units + row * columns.row_stride; },
        [&](int64_t row) { return row < p.slice.rows ? columns.group_stride - task.unit : 0; });
    const auto* features = pointer<const T>(p.features.rows) + task.feature;
    const auto* flows = pointer<const uint8_t>(p.slice.flows) + task.group;
    // 0 times infinity is not there.
    fetch_lines<FEATURES, T>(
        stage.features, first_row, p.features.is_aligned,
        [&](int64_t row) { return features + row * p.features.row_stride; },
        [&](int64_t row) { return row < p.slice.rows && flows[row * p.groups] ? p.dim - task.feature : 0; });
}

// The column, within its tile, of fragment j's sum e. Two neighbouring elements of f16 or bf16 are a word, of which the
// even fragment has the first and the odd one the second.
template <typename T>
__device__ __forceinline__ int column_of(int j, int e) {
    const int across = threadIdx.x % 4 * 2 + e;
    if constexpr (sizeof(T) == sizeof(float)) return Block::first_column() + 8 * j + across;
    return Block::first_column() + 16 * (j / 2) + 2 * across + j % 2;
}

// Element lane / 4 of fragments j and j + 1 of a row of features.
template <typename T>
__device__ __forceinline__ void load_pair(const Line<T, FEATURES>& line, int j, float (&pair)[2]) {
    const int across = threadIdx.x % 32 / 4;
    const T* first = &line[Block::first_column() + 8 * j];
    if constexpr (sizeof(T) == sizeof(float)) {
        pair[0] = first[across];
        pair[1] = first[8 + across];
    } else {
        const uint32_t word = reinterpret_cast<const uint32_t*>(first)[across];
        pair[0] = element_f32(word, false, T());
        pair[1] = element_f32(word, true, T());
    }
}

// By the matrix units, 8 rows at once.
template <typename T>
struct SplitProduct {
    using Product = SplitInto<(sizeof(T) < sizeof(float))>;

    __device__ __forceinline__ static void multiply(const MatrixStage<T>& stage, Block::Sums& sums) {
        const int down = threadIdx.x % 32 / 4, depth = threadIdx.x % 4;
#pragma unroll 1
        for (int first = 0; first < STEP_ROWS; first += 8) {
            uint32_t upper[Block::DOWN_FRAGMENTS][4], lower[Block::DOWN_FRAGMENTS][4];
#pragma unroll
            for (int i = 0; i < Block::DOWN_FRAGMENTS; i++) {
                uint32_t a[4];
#pragma unroll
                for (int part = 0; part < 4; part++) {
                    const auto& line = stage.columns[first + depth + part / 2 * 4];
                    a[part] = __float_as_uint(line[Block::row(i) + down + part % 2 * 8]);
                }
                Product::split(a, upper[i], lower[i]);
            }
#pragma unroll
            for (int j = 0; j < Block::ACROSS_FRAGMENTS; j += 2) {
                float near[2], far[2];
                load_pair<T>(stage.features[first + depth], j, near);
                load_pair<T>(stage.features[first + depth + 4], j, far);
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    const uint32_t b[2] = {__float_as_uint(near[k]), __float_as_uint(far[k])};
                    uint32_t above[2], below[2];
                    Product::split(b, above, below);
#pragma unroll
                    for (int i = 0; i < Block::DOWN_FRAGMENTS; i++) {
                        Product::add_products(sums.at[i][j + k], upper[i], lower[i], above, below);
                    }
                }
            }
        }
    }
};

// By multiply-adds.
template <typename T>
struct PlainProduct {
    __device__ __forceinline__ static void multiply(const MatrixStage<T>& stage, Block::Sums& sums) {
        const int down = threadIdx.x % 32 / 4;
#pragma unroll 1
        for (int row = 0; row < STEP_ROWS; row++) {
            float a[Block::DOWN_FRAGMENTS][2];
#pragma unroll
            for (int i = 0; i < Block::DOWN_FRAGMENTS; i++) {
#pragma unroll
                for (int k = 0; k < 2; k++) a[i][k] = stage.columns[row][Block::row(i) + 8 * k + down];
            }
#pragma unroll
            for (int j = 0; j < Block::ACROSS_FRAGMENTS; j++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const float b = to_f32(stage.features[row][column_of<T>(j, e)]);
#pragma unroll
                    for (int i = 0; i < Block::DOWN_FRAGMENTS; i++) {
                        sums.at[i][j][e] = fmaf(a[i][0], b, sums.at[i][j][e]);
                        sums.at[i][j][2 + e] = fmaf(a[i][1], b, sums.at[i][j][2 + e]);
                    }
                }
            }
        }
    }
};

template <typename T>
__device__ __forceinline__ void write_part(const MivcScoresMatricesBackward& p, const Task& task,
                                           const Block::Sums& sums) {
    const int64_t units = p.groups * p.hidden;
    const int64_t first_unit = (task.split * p.matrices + task.matrix) * units + task.group * p.hidden;
#pragma unroll
    for (int i = 0; i < Block::DOWN_FRAGMENTS; i++) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const int64_t unit = task.unit + Block::row(i) + 8 * k + threadIdx.x % 32 / 4;
            if (unit >= p.hidden) continue;
            float* part = pointer<float>(p.partials) + (first_unit + unit) * p.dim;
#pragma unroll
            for (int j = 0; j < Block::ACROSS_FRAGMENTS; j++) {
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int64_t d = task.feature + column_of<T>(j, e);
                    const float sum = sums.at[i][j][2 * k + e];
                    if (d < p.dim) part[d] = p.adds ? part[d] + sum : sum;
                }
            }
        }
    }
}

template <typename T, typename Product>
__device__ __forceinline__ void d_matrices(const MivcScoresMatricesBackward& p) {
    __shared__ __align__(CHUNK_BYTES) MatrixStage<T> stages[STAGES];
    const Task task(p);
    int64_t next_step = 0;
    int next_stage = 0, stage = 0;
    const auto fetch_next = [&] {
        if (next_step < task.steps) fetch(p, task, next_step++, stages[next_stage]);
        // Empty at the end, so that the waits can count groups.
        copy_async_commit();
        next_stage = next_stage + 1 == STAGES ? 0 : next_stage + 1;
    };
    for (int i = 0; i < STAGES - 1; i++) fetch_next();
    Block::Sums sums = {};
    for (int64_t step = 0; step < task.steps; step++) {
        copy_async_wait<STAGES - 2>();
        // All threads' copies have arrived, and all threads have multiplied what the next copies overwrite.
        __syncthreads();
        fetch_next();
        Product::multiply(stages[stage], sums);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    copy_async_wait<0>();
    write_part<T>(p, task, sums);
}

#define MIVC_KERNEL(name, T, Product)                                      \
    extern "C" __global__ void __launch_bounds__(MIVC_THREADS, 2)          \
        name(const __grid_constant__ MivcScoresMatricesBackward p) {       \
        d_matrices<T, Product<T>>(p);                                      \
    }
#define MIVC_KERNELS(suffix, T)                                \
    MIVC_KERNEL(mivc_scores_d_matrices_##suffix, T, PlainProduct)     \
    MIVC_KERNEL(mivc_scores_d_matrices_##suffix##_split, T, SplitProduct)

MIVC_KERNELS(f32, float)
MIVC_KERNELS(f16, __half)
MIVC_KERNELS(bf16, __nv_bfloat16)

}  // namespace mivc
