// What kernels and host share, written once: sizes and launch parameters. Plain C without implicit padding; Rust
// gets it through bindgen (src/launch/abi.rs). Addresses are uint64_t, 0 where an argument is left out; strides
// are in elements, sizes in elements unless they say bytes.
#pragma once
#include <stdint.h>

// Rows of a bag that one block takes, if the work list does not say otherwise. A bag no longer than this is never split.
#define MIVC_CHUNK_ROWS 256
// Children of a node of the tree in which the chunks of a bag are merged.
#define MIVC_MERGE_RADIX 32

// Threads of a block of `prepare`, and the neighbouring bags that each takes: more of them share items better, fewer
// are done sooner.
#define MIVC_PREPARE_THREADS 256
#define MIVC_PREPARE_LEAST_BAGS_PER_THREAD 4
#define MIVC_PREPARE_MOST_BAGS_PER_THREAD 64

// Columns of a block are these threads times the elements of a vector.
#define MIVC_MAX_MEAN_THREADS 128
// Bytes that a thread loads at once where alignment allows.
#define MIVC_VECTOR_BYTES 16

// Threads of a block of the kernels that are not named here.
#define MIVC_THREADS 128
// Heads that a block of `weighted_sum` takes, where values are shared by more than one.
#define MIVC_WEIGHTED_SUM_HEADS 8

// Tiles of `scores`: rows by columns, warps side by side, and the threads of a block.
#define MIVC_SMALL_TILE_ROWS 64
#define MIVC_SMALL_TILE_COLUMNS 32
#define MIVC_SMALL_TILE_ACROSS 1
#define MIVC_SMALL_TILE_THREADS 128
#define MIVC_MEDIUM_TILE_ROWS 128
#define MIVC_MEDIUM_TILE_COLUMNS 128
#define MIVC_MEDIUM_TILE_ACROSS 2
#define MIVC_MEDIUM_TILE_THREADS 128
#define MIVC_MEDIUM_F32_TILE_ROWS 64
#define MIVC_MEDIUM_F32_TILE_COLUMNS 128
#define MIVC_MEDIUM_F32_TILE_ACROSS 2
#define MIVC_MEDIUM_F32_TILE_THREADS 128
#define MIVC_LARGE_TILE_ROWS 128
#define MIVC_LARGE_TILE_COLUMNS 256
#define MIVC_LARGE_TILE_ACROSS 4
#define MIVC_LARGE_TILE_THREADS 256
// Bytes of each row and column of a tile that are in shared memory at once, as many times as there are stages.
#define MIVC_TILE_DEPTH_BYTES 64
#define MIVC_TILE_STAGES 3
// Heads whose parts of the scores warps exchange at once, in `scores`.
#define MIVC_SCORES_HEADS_AT_ONCE 8

// Rows of a block of `scores_backward`, which leaves a part of each sum over them.
#define MIVC_SCORES_BACKWARD_ROWS 128
// Heads of which it makes the gradients of w at once.
#define MIVC_SCORES_BACKWARD_HEADS 8
// Tiles of `scores_matrices_backward`, units by features; the rows that are in shared memory at once, and those in a run
// that a block takes before it goes on to the next of its own.
#define MIVC_MATRICES_TILE_UNITS 64
#define MIVC_MATRICES_TILE_FEATURES 128
#define MIVC_MATRICES_STEP_ROWS 16
#define MIVC_MATRICES_RUN_ROWS 128

// Tiles of `attention_pool`: their rows, which are the chunks of a bag, and lie in shared memory whole.
#define MIVC_POOL_ROWS 128
#define MIVC_POOL_ROWS_HALF 64
#define MIVC_POOL_COLUMNS 128
#define MIVC_POOL_THREADS 256
// Bytes between one slice of MIVC_TILE_DEPTH_BYTES of all rows and the next: neighbouring slices begin in different
// banks.
#define MIVC_POOL_SLICE_GAP 64
// Bytes of rows that a block has under way in its first pass: twice what memory brings to a multiprocessor within its
// latency.
#define MIVC_POOL_ROW_BYTES_AHEAD 49152
#define MIVC_POOL_HEADS_AT_ONCE 2
// That a thread sums at once, where there are several.
#define MIVC_POOL_SUM_HEADS 4
// Shared memory that a kernel may have beside what it asks for at launch.
#define MIVC_STATIC_SHARED_BYTES 256
// Heads at most: factors of MIVC_MERGE_RADIX nodes for each fit the stages.
#define MIVC_POOL_HEADS 64

// The same for sm_90a: threads, of which the last 128 copy; bytes of a stage of columns, and of a row that the copy
// engine brings at once; blocks that share columns, where a tile has all rows and where it has half of them.
#define MIVC_POOL_SM90_THREADS 384
#define MIVC_POOL_SM90_STAGE_BYTES 8192
#define MIVC_POOL_SM90_MOST_STAGES 8
#define MIVC_POOL_SM90_SLAB_BYTES 128
#define MIVC_POOL_SM90_MOST_SLABS 24
#define MIVC_POOL_SM90_CLUSTER 2
#define MIVC_POOL_SM90_CLUSTER_HALF 4
// Registers of a thread, as far as there are 65536.
#define MIVC_POOL_SM90_PRODUCER_REGISTERS 40
#define MIVC_POOL_SM90_CONSUMER_REGISTERS 232
// Shared memory that is not asked for at launch: barriers. What is begins at a multiple of it.
#define MIVC_POOL_SM90_STATIC_BYTES 1024

// Columns of a group, whose terms of a row have one exponent, in exact sums; the threads of a block that takes one, the
// bytes of the rows that it has in shared memory at once, and the rows of a chunk.
#define MIVC_EXACT_COLUMNS 256
#define MIVC_EXACT_THREADS 64
#define MIVC_EXACT_TILE_BYTES 65536
#define MIVC_EXACT_CHUNK_ROWS 1024
// Shared memory of the block: the rows, gaps between them, and its sums.
#define MIVC_EXACT_SHARED_BYTES 89088
// Instances that a block puts in the order of their content, a thread each, and the key of those that add nothing.
#define MIVC_EXACT_RUN_ROWS 256
#define MIVC_EXACT_NOTHING 4294967296

// Part of the work: a chunk of a bag, or where bags are packed, neighbouring bags of no more rows than a chunk.
typedef struct {
    int64_t bag;
    int64_t chunk;
    int64_t bags;
} MivcItem;

// Entries used of the work list; cleared before `prepare`.
typedef struct {
    uint64_t items;
    uint64_t nodes;
} MivcCounters;

// The work list: what `prepare` makes of the offsets.
//
// A bag of one chunk needs no entry, and the first chunk of a longer one needs none; where bags are packed, all that is
// to be done is listed. A bag of c > 1 chunks has nodes of a tree for its partial results: c leaves, then
// ceil(c / MIVC_MERGE_RADIX) nodes above them, and so on to one root.
typedef struct {
    uint64_t ranges;         // int64_t [bags + 1]: offsets that never fall, within 0 and instances
    uint64_t items;          // MivcItem [item_capacity], in any order
    uint64_t first_nodes;    // int64_t [bags]: a bag's first leaf, where it has more than one chunk
    uint64_t tickets;        // uint32_t [node_capacity * tiles]: children that have finished; 0 between launches
    uint64_t counters;       // MivcCounters
    int64_t bags;
    int64_t item_capacity;
    int64_t node_capacity;
    int64_t tiles;           // at most so many teams share a chunk, each with a ticket of its own
    int64_t chunk_rows;
} MivcWorkList;

// prepare(offsets) -> work list
typedef struct {
    MivcWorkList list;
    uint64_t offsets;        // int32_t or int64_t [bags + 1]; any values
    int64_t instances;
    int64_t bags_per_thread;
    uint32_t offsets_bytes;  // 4 or 8, of one offset
    uint32_t packs_bags;
} MivcPrepare;

// max_mean(features, work list) -> max, mean, argmax
typedef struct {
    MivcWorkList list;
    uint64_t features;         // [instances, dim]
    uint64_t mask;             // uint8_t [instances], 0 = not there
    uint64_t max;              // [bags, dim], f32 or as the features
    uint64_t mean;             // [bags, dim], f32 or as the features
    uint64_t argmax;           // int64_t [bags, dim]
    uint64_t partial_max;      // float [node_capacity, dim]
    uint64_t partial_sum;      // float [node_capacity, dim]
    uint64_t partial_argmax;   // int64_t [node_capacity, dim]
    uint64_t partial_count;    // int64_t [node_capacity, tiles]: rows that are there
    int64_t dim;
    int64_t row_stride;
    uint32_t outputs_are_f32;
    uint32_t unused;
} MivcMaxMean;

// The parameters of attention, as `pack` makes them for `scores`: V and U in the type of the features, column after
// column of the product, each padded to whole MIVC_TILE_DEPTH_BYTES. A gated column of V stands before its column of
// U. Each group is padded to whole tiles.
typedef struct {
    uint64_t matrix;          // [groups * group_columns, padded_dim]
    uint64_t column_bias;     // float [groups * group_columns]
    uint64_t column_weights;  // float [heads, group_columns]: w, at the columns of V
    uint64_t score_bias;      // float [heads]: c
    int64_t dim;
    int64_t padded_dim;
    int64_t columns;          // of a group: L, or 2 L where gated
    int64_t group_columns;    // the same, padded
    int64_t heads;
    int64_t groups;
    uint32_t is_gated;
    uint32_t unused;
} MivcPacked;

// pack(parameters) -> packed
typedef struct {
    MivcPacked packed;
    uint64_t v;       // float [groups, hidden, dim]
    uint64_t v_bias;  // float [groups, hidden]
    uint64_t u;       // float [groups, hidden, dim]
    uint64_t u_bias;  // float [groups, hidden]
    uint64_t w;       // float [heads, hidden]
    uint64_t w_bias;  // float [heads]
} MivcPack;

// Activations of hidden units, [instances, matrices, groups, hidden]: tanh of those of V, and sigma of those of U where
// there is a gate.
typedef struct {
    uint64_t at;           // f32, or of the type of the features; 0 where there are none
    int64_t row_stride;
    int64_t group_stride;  // from the units of a group to those of the next; those of U lie behind all of V
    uint32_t are_f32;
    uint32_t unused;
} MivcActivations;

// What is scored.
typedef struct {
    uint64_t rows;        // [instances, dim]
    uint64_t mask;        // uint8_t [instances], 0 = not there
    int64_t instances;
    int64_t row_stride;
    uint32_t is_aligned;  // whether rows and row stride are multiples of 16 bytes
    uint32_t unused;
} MivcFeatures;

// scores(features, packed) -> scores, activations
typedef struct {
    MivcPacked packed;
    MivcFeatures features;
    uint64_t scores;              // float [instances, heads]
    MivcActivations activations;
} MivcScores;

// gate(x, y) -> g
typedef struct {
    uint64_t x;
    uint64_t y;
    uint64_t g;
    int64_t elements;
} MivcGate;

// softmax(scores, work list) -> weights, lse
typedef struct {
    MivcWorkList list;
    uint64_t scores;       // float [instances, heads]
    uint64_t mask;         // uint8_t [instances], 0 = not there
    uint64_t weights;      // float [instances, heads]
    uint64_t lse;          // float [bags, heads]
    uint64_t max;          // float [bags, heads]: the greatest score m
    uint64_t sum;          // float [bags, heads]: sum of exp(s - m)
    uint64_t partial_max;  // float [node_capacity, heads]
    uint64_t partial_sum;  // float [node_capacity, heads]
    int64_t heads;
} MivcSoftmax;

// weighted_sum(weights, values, work list) -> pooled
typedef struct {
    MivcWorkList list;
    uint64_t weights;      // float [instances, heads]: read, or written where they come from the softmax
    uint64_t scores;       // float [instances, heads]; without them the weights are given
    uint64_t max;          // float [bags, heads], as `softmax` leaves them
    uint64_t sum;          // float [bags, heads]
    uint64_t mask;         // uint8_t [instances], 0 = not there
    uint64_t values;       // [instances, dim] or [instances, heads, dim]
    uint64_t pooled;       // [bags, heads, dim], f32 or as the values
    uint64_t partial_sums; // float [node_capacity, heads, dim]
    int64_t dim;
    int64_t row_stride;
    int64_t head_stride;   // from the values of a head to those of the next: 0 where they are shared
    int64_t heads;
    uint32_t outputs_are_f32;
    uint32_t unused;
} MivcWeightedSum;

// What a sum of exponentials comes to: sum 2^exponent.
typedef struct {
    double sum;
    int64_t exponent;
    float max;               // the greatest score; NaN where one is NaN or +inf
    uint32_t unused;
} MivcExactTotal;

// A bin of an exact sum: low + high 2^48.
typedef struct {
    int64_t low;   // below 2^48
    int64_t high;
} MivcExactWord;

// The sum of exponentials of a chunk, or of a bag: bins from the greatest down.
typedef struct {
    MivcExactWord bins[3];
    int64_t top;             // the greatest bin
    float max;
    uint32_t unused;
} MivcExactMassNode;

// The weighted sum of a group of columns of a chunk, or of a bag: bins from the greatest down.
typedef struct {
    MivcExactWord bins[3][MIVC_EXACT_COLUMNS];
    int32_t specials[3][MIVC_EXACT_COLUMNS];  // the greatest scores of +inf, -inf and NaN, in the order of integers
    int64_t top;                              // the greatest bin
    int64_t count;                            // rows that are there
} MivcExactSumNode;

// The sum of a da of a chunk, in the backward of the softmax: bins from the greatest down.
typedef struct {
    MivcExactWord bins[3];
    int64_t top;
    uint32_t specials;       // which of +inf, -inf and NaN are among the products
    uint32_t unused;
} MivcExactMeanNode;

// exact_softmax(scores, work list) -> totals, weights, lse
typedef struct {
    MivcWorkList list;
    uint64_t scores;    // float [instances, heads]
    uint64_t mask;      // uint8_t [instances], 0 = not there
    uint64_t weights;   // float [instances, heads]
    uint64_t lse;       // float [bags, heads]
    uint64_t max;       // float [bags, heads]
    uint64_t sum;       // float [bags, heads]
    uint64_t totals;    // MivcExactTotal [bags, heads]
    uint64_t masses;    // MivcExactMassNode [bags, heads], what the totals come from
    uint64_t partials;  // MivcExactMassNode [node_capacity, heads]
    int64_t heads;
} MivcExactSoftmax;

// exact_weighted_sum(weights, values, work list) -> pooled
typedef struct {
    MivcWorkList list;
    uint64_t weights;      // float [instances, heads]: read, or written where they come from scores
    uint64_t scores;       // float [instances, heads]; without them the weights are given, or the mean is asked for
    uint64_t totals;       // MivcExactTotal [bags, heads], where there are scores
    uint64_t mask;         // uint8_t [instances], 0 = not there
    uint64_t values;       // [instances, dim] or [instances, heads, dim]
    uint64_t pooled;       // [bags, heads, dim], f32 or as the values
    uint64_t masses;       // MivcExactMassNode [bags, heads], of a mean
    uint64_t sums;         // MivcExactSumNode [bags, heads, groups], what is pooled comes from
    uint64_t partials;     // MivcExactSumNode [node_capacity, heads, groups]
    int64_t dim;
    int64_t row_stride;
    int64_t head_stride;   // from the values of a head to those of the next: 0 where they are shared
    int64_t heads;
    uint32_t outputs_are_f32;
    uint32_t is_mean;
    uint32_t is_aligned;   // whether all columns of all rows can be read 16 bytes at a time
    uint32_t unused;
} MivcExactWeightedSum;

// attention_pool(features, packed, packed work list) -> pooled, scores, weights, lse, in one pass
typedef struct {
    MivcPacked packed;
    MivcFeatures features;
    MivcWorkList list;
    uint64_t scores;          // float [instances, heads]: of bags of several chunks, and all where `keeps_scores`
    uint64_t weights;         // float [instances, heads], of `attention_pool_weights`
    uint64_t lse;             // float [bags, heads]
    uint64_t max;             // float [bags, heads]: the greatest score m
    uint64_t sum;             // float [bags, heads]: sum of exp(s - m)
    uint64_t pooled;          // [bags, heads, dim], f32 or as the features
    uint64_t partial_max;     // float [node_capacity, heads]
    uint64_t partial_sum;     // float [node_capacity, heads]
    uint64_t partial_pooled;  // float [node_capacity, heads, dim]: sum of exp(s - m) h
    uint32_t keeps_scores;
    uint32_t outputs_are_f32;
    uint32_t has_vectors;     // whether pooled and its rows are multiples of 16 bytes
    uint32_t unused;
} MivcAttentionPool;

// Where a gradient goes.
typedef struct {
    uint64_t to;      // 0 where it is not asked for
    uint32_t adds;    // to what is there, rather than writing over it
    uint32_t is_f32;  // rather than of the type of what it is the gradient of
} MivcGradient;

// gate_backward(x, y, gradient of g) -> gradients of x and y
typedef struct {
    uint64_t x;
    uint64_t y;
    uint64_t d_g;
    MivcGradient d_x;
    MivcGradient d_y;
    int64_t elements;
} MivcGateBackward;

// softmax_backward(weights, gradients of weights and lse, work list) -> gradient of the scores
typedef struct {
    MivcWorkList list;
    uint64_t weights;        // float [instances, heads]
    uint64_t mask;           // uint8_t [instances], 0 = not there
    uint64_t d_weights;      // float [instances, heads]
    uint64_t d_lse;          // float [bags, heads]
    MivcGradient d_scores;   // float [instances, heads]
    uint64_t partial_means;  // float, or MivcExactMeanNode, [node_capacity, heads]: sum of a da
    int64_t heads;
} MivcSoftmaxBackward;

// weighted_sum_backward(weights, values, gradient of pooled, work list) -> gradients of weights and values
typedef struct {
    MivcWorkList list;
    uint64_t weights;        // float [instances, heads]
    uint64_t mask;           // uint8_t [instances], 0 = not there
    uint64_t values;         // [instances, dim] or [instances, heads, dim]; read for d_weights alone
    uint64_t d_pooled;       // [bags, heads, dim], f32 or as the values
    MivcGradient d_weights;  // float [instances, heads]
    MivcGradient d_values;   // [instances, dim] or [instances, heads, dim], as the values are
    int64_t dim;
    int64_t row_stride;      // of the values; their gradient has nothing between its rows
    int64_t head_stride;     // from the values of a head to those of the next: 0 where they are shared
    int64_t heads;
    uint32_t upstream_is_f32;
    uint32_t unused;
} MivcWeightedSumBackward;

// pack_backward(parameters) -> V and U by feature, as the backward of the scores multiplies with them
typedef struct {
    uint64_t by_feature;      // float [padded_dim, padded_depth], in the order of d_columns, rounded to the features' type
    uint64_t v;               // float [groups, hidden, dim]
    uint64_t u;               // float [groups, hidden, dim]; 0 where there is no gate
    int64_t dim;
    int64_t padded_dim;
    int64_t padded_depth;
    int64_t groups;
    int64_t hidden;
    int64_t group_stride;     // hidden, padded
} MivcPackBackward;

// Some rows of a call, as the backward of the scores takes them: what lies in [instances, ...] begins with the first of
// them.
typedef struct {
    uint64_t mask;        // uint8_t [instances], 0 = not there
    uint64_t ranges;      // int64_t [bags + 1], as of the work list; 0 where all rows are there, in bags or not
    int64_t bags;
    int64_t first;        // of the rows, counted from the first of the call
    int64_t rows;
    uint64_t flows;       // uint8_t [rows, groups]: whether any score of the group has a gradient
} MivcSlice;

// scores_backward(gradient of the scores, activations) -> gradients of what went into tanh and sigma, and parts of those
// of w and the biases
typedef struct {
    MivcPacked packed;            // for w
    MivcSlice slice;
    MivcActivations activations;
    MivcActivations d_columns;    // float, laid out as the activations, whose place it may take
    uint64_t d_scores;            // float [instances, heads]
    uint64_t partial_bias;        // float [blocks, matrices, groups, hidden]
    uint64_t partial_w;           // float [blocks, heads, hidden + 1]: of w, and behind it of c
    uint32_t adds;                // to the parts
    uint32_t unused;
} MivcScoresBackward;

// An instance in the order of its own content.
typedef struct {
    uint64_t key;  // the bits of the gradient of its first score; MIVC_EXACT_NOTHING where nothing flows to it
    int64_t row;
} MivcExactEntry;

// exact_order(gradient of the scores, features) -> entries: puts them in order, or merges runs that are
typedef struct {
    MivcSlice slice;      // all rows of the call
    uint64_t d_scores;    // float [instances, heads]
    uint64_t features;    // [instances, dim]
    uint64_t from;        // MivcExactEntry [instances], in runs of run_rows; none where they are yet to be made
    uint64_t to;          // MivcExactEntry [instances], in runs of MIVC_EXACT_RUN_ROWS, or twice run_rows
    int64_t heads;
    int64_t dim;
    int64_t row_stride;
    int64_t run_rows;
} MivcExactOrder;

// exact_gather(entries) -> what the backward of the scores reads of them
typedef struct {
    uint64_t entries;         // MivcExactEntry [rows]
    uint64_t d_scores;        // float [instances, heads]
    uint64_t features;        // [instances, dim]
    uint64_t activations;     // [instances, activation_count], as the features; may be left out
    uint64_t to_mask;         // uint8_t [rows]
    uint64_t to_d_scores;     // float [rows, heads]
    uint64_t to_features;     // [rows, dim]
    uint64_t to_activations;  // [rows, activation_count]
    int64_t heads;
    int64_t dim;
    int64_t row_stride;
    int64_t activation_count;
} MivcExactGather;

// scores_features_backward(d_columns, V and U by feature) -> gradient of the features
typedef struct {
    MivcPacked by_feature;        // as if features were columns, and columns features
    MivcFeatures d_columns;
    MivcSlice slice;
    uint64_t weights;             // float [instances, heads]; 0 where the features are not pooled themselves
    uint64_t d_pooled;            // [bags, heads, dim], f32 or as the features
    MivcGradient d_features;      // [instances, dim]
    int64_t heads;
    int64_t groups;
    uint32_t upstream_is_f32;
    uint32_t unused;
} MivcScoresFeaturesBackward;

// scores_matrices_backward(d_columns, features) -> parts of the gradients of V and U
typedef struct {
    MivcFeatures features;
    MivcSlice slice;
    MivcActivations d_columns;
    uint64_t partials;            // float [splits, matrices, groups, hidden, dim]
    int64_t dim;
    int64_t hidden;
    int64_t groups;
    int64_t matrices;
    int64_t first_matrix;         // that is asked for
    uint32_t adds;                // to the parts
    uint32_t unused;
} MivcScoresMatricesBackward;

// A gradient that is the sum of parts.
typedef struct {
    uint64_t parts;           // float [count, ...]
    int64_t count;
    int64_t part_stride;
    int64_t rows;             // of one part
    int64_t row_elements;
    int64_t row_stride;       // nothing lies between the rows of the gradient
    MivcGradient gradient;    // float
} MivcParts;

// sum_parts: those of V, its bias, U, its bias, w and its bias
typedef struct {
    MivcParts of[6];
} MivcSumParts;

// max_mean_backward(features, gradients of max and mean, work list) -> gradient of the features
typedef struct {
    MivcWorkList list;
    uint64_t features;        // [instances, dim]; read for the gradient of max alone
    uint64_t mask;            // uint8_t [instances], 0 = not there
    uint64_t d_max;           // [bags, dim], f32 or as the features
    uint64_t d_mean;          // [bags, dim], f32 or as the features
    MivcGradient d_features;  // [instances, dim]
    uint64_t partial_max;     // float [node_capacity, dim]
    uint64_t partial_ties;    // int64_t [node_capacity, dim]: rows that hold it
    uint64_t partial_count;   // int64_t [node_capacity, tiles]: rows that are there
    int64_t dim;
    int64_t row_stride;
    uint32_t upstream_is_f32;
    uint32_t unused;
} MivcMaxMeanBackward;

// A tensor map as the driver encodes it, which the executor of a launch fills in.
typedef struct {
    uint64_t words[16];
} __attribute__((aligned(64))) MivcTensorMap;

// attention_pool for sm_90a
typedef struct {
    MivcTensorMap features;  // [instances, dim], boxes of 64 rows of 128 bytes
    MivcTensorMap matrix;    // [groups * group_columns, padded_dim], boxes of 64 bytes of a block's part of 128 columns
    MivcAttentionPool pool;
    uint64_t stages;
    uint64_t unused[2];
} MivcAttentionPoolSm90;

// state_merge(state, other) -> state, where a state is (m, l, z) and a row a bag and head
typedef struct {
    uint64_t max;           // float [rows]: the greatest score m
    uint64_t sum;           // float [rows]: sum of exp(s - m)
    uint64_t pooled;        // float [rows, dim]: sum of exp(s - m) h / l
    uint64_t other_max;     // float [rows]
    uint64_t other_sum;     // float [rows]
    uint64_t other_pooled;  // float [rows, dim]
    int64_t dim;
} MivcStateMerge;
