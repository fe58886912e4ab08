//! Operations as values: what is to be launched, with which parameters.
//!
//! A plan knows shapes and no address. Given addresses it yields [`Step`]s, which the CUDA backend and the virtual
//! machine of the tests execute alike: everything but the driver's own call is tested on any machine.
//!
//! 1. [`MaxMean::plan`](max_mean::MaxMean::plan) checks shapes and fixes the layout of the scratch memory.
//! 2. The caller allocates [`scratch_bytes`](max_mean::MaxMean::scratch_bytes).
//! 3. [`steps`](max_mean::MaxMean::steps) gives what to clear and to launch, in order.

#[allow(dead_code, unreachable_pub, reason = "made by bindgen, of what kernels and host share")]
mod abi;
pub mod attention_pool;
pub mod backward;
pub mod exact;
pub mod gate;
mod hardware;
pub mod in_order;
pub mod max_mean;
pub mod pack;
pub mod scores;
mod scratch;
pub mod softmax;
pub mod state;
mod tensor_map;
pub mod weighted_sum;
mod work_list;

use crate::element::Dtype;
use crate::error::{Error, Result};

pub use hardware::{Hardware, OnePass};
pub use scratch::SCRATCH_ALIGN;
pub use tensor_map::{Swizzle, TENSOR_MAP_BYTES, TensorMap};
pub use work_list::{Capacity, Offsets};

/// Where the build has left the kernels' PTX and what ptxas said of them: for tests.
#[doc(hidden)]
pub const KERNELS: &str = env!("MIVC_KERNELS");

/// One thing to do on a stream, after those before it.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::large_enum_variant, reason = "there are a few per call, and a box would be an allocation")]
pub enum Step {
    /// Sets bytes to 0.
    Clear {
        /// Device address.
        address: u64,
        /// How many.
        bytes: usize,
    },
    /// Copies bytes that do not overlap.
    Copy {
        /// Device address of what is copied.
        from: u64,
        /// Where to.
        to: u64,
        /// How many.
        bytes: usize,
    },
    /// Runs a kernel.
    Launch(Launch),
}

#[cfg(test)]
impl Step {
    fn as_launch(&self) -> Option<&Launch> {
        match self {
            Step::Launch(launch) => Some(launch),
            Step::Clear { .. } | Step::Copy { .. } => None,
        }
    }
}

/// A kernel and everything that it gets.
#[derive(Debug, Clone, Copy)]
pub struct Launch {
    /// The file that it is in, without `.cu`.
    pub image: &'static str,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// Its only parameter, a struct by value.
    pub parameters: Parameters,
    /// What stands at its beginning in place of zeros, each encoded in [`TENSOR_MAP_BYTES`].
    pub tensor_maps: Option<[TensorMap; 2]>,
}

/// The parameter of a kernel, as `kernels/abi.h` declares it.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "named after the kernels")]
pub enum Parameters {
    Prepare(abi::MivcPrepare),
    MaxMean(abi::MivcMaxMean),
    Pack(abi::MivcPack),
    Scores(abi::MivcScores),
    Gate(abi::MivcGate),
    Softmax(abi::MivcSoftmax),
    WeightedSum(abi::MivcWeightedSum),
    AttentionPool(abi::MivcAttentionPool),
    AttentionPoolSm90(abi::MivcAttentionPoolSm90),
    StateMerge(abi::MivcStateMerge),
    PackBackward(abi::MivcPackBackward),
    ScoresBackward(abi::MivcScoresBackward),
    ScoresFeaturesBackward(abi::MivcScoresFeaturesBackward),
    ScoresMatricesBackward(abi::MivcScoresMatricesBackward),
    SumParts(abi::MivcSumParts),
    GateBackward(abi::MivcGateBackward),
    SoftmaxBackward(abi::MivcSoftmaxBackward),
    WeightedSumBackward(abi::MivcWeightedSumBackward),
    MaxMeanBackward(abi::MivcMaxMeanBackward),
    ExactSoftmax(abi::MivcExactSoftmax),
    ExactWeightedSum(abi::MivcExactWeightedSum),
    ExactOrder(abi::MivcExactOrder),
    ExactGather(abi::MivcExactGather),
}

impl Parameters {
    /// As the kernel gets it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Parameters::Prepare(parameters) => bytes_of(parameters),
            Parameters::MaxMean(parameters) => bytes_of(parameters),
            Parameters::Pack(parameters) => bytes_of(parameters),
            Parameters::Scores(parameters) => bytes_of(parameters),
            Parameters::Gate(parameters) => bytes_of(parameters),
            Parameters::Softmax(parameters) => bytes_of(parameters),
            Parameters::WeightedSum(parameters) => bytes_of(parameters),
            Parameters::AttentionPool(parameters) => bytes_of(parameters),
            Parameters::AttentionPoolSm90(parameters) => bytes_of(parameters),
            Parameters::StateMerge(parameters) => bytes_of(parameters),
            Parameters::PackBackward(parameters) => bytes_of(parameters),
            Parameters::ScoresBackward(parameters) => bytes_of(parameters),
            Parameters::ScoresFeaturesBackward(parameters) => bytes_of(parameters),
            Parameters::ScoresMatricesBackward(parameters) => bytes_of(parameters),
            Parameters::SumParts(parameters) => bytes_of(parameters),
            Parameters::GateBackward(parameters) => bytes_of(parameters),
            Parameters::SoftmaxBackward(parameters) => bytes_of(parameters),
            Parameters::WeightedSumBackward(parameters) => bytes_of(parameters),
            Parameters::MaxMeanBackward(parameters) => bytes_of(parameters),
            Parameters::ExactSoftmax(parameters) => bytes_of(parameters),
            Parameters::ExactWeightedSum(parameters) => bytes_of(parameters),
            Parameters::ExactOrder(parameters) => bytes_of(parameters),
            Parameters::ExactGather(parameters) => bytes_of(parameters),
        }
    }
}

/// Structs of `abi.h`: plain C without padding.
///
/// # Safety
/// Every byte of the type is initialised in every value.
unsafe trait Plain: Copy {}

// SAFETY: the members are integers, and their sizes add up to that of the struct (`no_padding` below).
unsafe impl Plain for abi::MivcPrepare {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcMaxMean {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcPack {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcScores {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcGate {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcSoftmax {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcWeightedSum {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcAttentionPool {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcAttentionPoolSm90 {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcStateMerge {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcPackBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcScoresBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcScoresFeaturesBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcScoresMatricesBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcSumParts {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcGateBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcSoftmaxBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcWeightedSumBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcMaxMeanBackward {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcExactSoftmax {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcExactWeightedSum {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcExactOrder {}
// SAFETY: as above.
unsafe impl Plain for abi::MivcExactGather {}

/// Whether all addresses and sizes in bytes are multiples of those of a vector.
fn are_aligned(all: &[u64]) -> bool {
    all.iter().all(|at| at.is_multiple_of(u64::from(abi::MIVC_VECTOR_BYTES)))
}

/// Bytes of so many elements; what overflows is dropped, which changes no division by a power of two.
fn wrapping_bytes(elements: usize, dtype: Dtype) -> u64 {
    (elements as u64).wrapping_mul(dtype.size() as u64)
}

/// Elements of a vector.
fn vector_elements(dtype: Dtype) -> usize {
    abi::MIVC_VECTOR_BYTES as usize / dtype.size()
}

/// `Ok` exactly when what goes with features or values of a type is f32, or of their type.
fn expect_f32_or(features: Dtype, argument: &'static str, got: Dtype) -> Result<()> {
    if got == Dtype::F32 || got == features {
        return Ok(());
    }
    Err(Error::argument(argument, format!("F32 or {features:?}"), format!("{got:?}")))
}

/// `Ok` exactly when the sums of [`Order::Exact`](crate::Order::Exact) are left out, as in the other order there are none.
fn expect_no_exact(exact: u64) -> Result<()> {
    if exact == 0 {
        return Ok(());
    }
    Err(Error::argument("exact", "none in Order::Rounding", "one"))
}

/// Blocks across `dim` columns, each of which takes `columns`, the fewest that it may take.
fn expect_tiles(dim: usize, columns: usize) -> Result<usize> {
    match dim.div_ceil(columns) {
        tiles @ 1..=MAX_GRID_Y => Ok(tiles),
        _ => Err(Error::argument("dim", format!("1 to {}", MAX_GRID_Y * columns), dim)),
    }
}

/// The greatest number of blocks along y and along z.
const MAX_GRID_Y: usize = 65_535;
/// The greatest number of blocks along x.
const MAX_GRID_X: usize = i32::MAX as usize;

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: the bytes are those of `value`, all initialised, as the trait says.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::abi::*;

    #[test]
    fn no_padding() {
        assert_eq!(size_of::<MivcWorkList>(), 10 * 8);
        assert_eq!(size_of::<MivcPrepare>(), size_of::<MivcWorkList>() + 3 * 8 + 2 * 4);
        assert_eq!(size_of::<MivcMaxMean>(), size_of::<MivcWorkList>() + 11 * 8 + 2 * 4);
        assert_eq!(size_of::<MivcPacked>(), 10 * 8 + 2 * 4);
        assert_eq!(size_of::<MivcPack>(), size_of::<MivcPacked>() + 6 * 8);
        assert_eq!(size_of::<MivcFeatures>(), 4 * 8 + 2 * 4);
        let activations = size_of::<MivcActivations>();
        assert_eq!(activations, 3 * 8 + 2 * 4);
        assert_eq!(size_of::<MivcScores>(), size_of::<MivcPacked>() + size_of::<MivcFeatures>() + 8 + activations);
        assert_eq!(size_of::<MivcGate>(), 4 * 8);
        assert_eq!(size_of::<MivcSoftmax>(), size_of::<MivcWorkList>() + 9 * 8);
        assert_eq!(size_of::<MivcWeightedSum>(), size_of::<MivcWorkList>() + 12 * 8 + 2 * 4);
        let shared = size_of::<MivcPacked>() + size_of::<MivcFeatures>() + size_of::<MivcWorkList>();
        assert_eq!(size_of::<MivcAttentionPool>(), shared + 9 * 8 + 4 * 4);
        assert_eq!(size_of::<MivcTensorMap>(), super::TENSOR_MAP_BYTES);
        let maps = 2 * super::TENSOR_MAP_BYTES;
        assert_eq!(size_of::<MivcAttentionPoolSm90>(), maps + size_of::<MivcAttentionPool>() + 3 * 8);
        assert_eq!(size_of::<MivcStateMerge>(), 7 * 8);
        let gradient = size_of::<MivcGradient>();
        assert_eq!(gradient, 8 + 2 * 4);
        assert_eq!(size_of::<MivcPackBackward>(), 9 * 8);
        let (packed, features, slice) = (size_of::<MivcPacked>(), size_of::<MivcFeatures>(), size_of::<MivcSlice>());
        assert_eq!(slice, 6 * 8);
        assert_eq!(size_of::<MivcScoresBackward>(), packed + slice + 2 * activations + 3 * 8 + 2 * 4);
        let of_features = packed + features + slice + 2 * 8 + gradient + 2 * 8 + 2 * 4;
        assert_eq!(size_of::<MivcScoresFeaturesBackward>(), of_features);
        assert_eq!(size_of::<MivcScoresMatricesBackward>(), features + slice + activations + 6 * 8 + 2 * 4);
        assert_eq!(size_of::<MivcSumParts>(), 6 * (6 * 8 + gradient));
        assert_eq!(size_of::<MivcGateBackward>(), 3 * 8 + 2 * gradient + 8);
        assert_eq!(size_of::<MivcSoftmaxBackward>(), size_of::<MivcWorkList>() + 4 * 8 + gradient + 2 * 8);
        let of_sum = size_of::<MivcWorkList>() + 4 * 8 + 2 * gradient + 4 * 8 + 2 * 4;
        assert_eq!(size_of::<MivcWeightedSumBackward>(), of_sum);
        let of_max_mean = size_of::<MivcWorkList>() + 4 * 8 + gradient + 5 * 8 + 2 * 4;
        assert_eq!(size_of::<MivcMaxMeanBackward>(), of_max_mean);
        assert_eq!(size_of::<MivcExactTotal>(), 3 * 8);
        assert_eq!(size_of::<MivcExactMassNode>(), 8 * 8);
        assert_eq!(size_of::<MivcExactSumNode>(), (6 * 8 + 3 * 4) * MIVC_EXACT_COLUMNS as usize + 2 * 8);
        assert_eq!(size_of::<MivcExactMeanNode>(), 8 * 8);
        assert_eq!(size_of::<MivcExactEntry>(), 2 * 8);
        assert_eq!(size_of::<MivcExactOrder>(), size_of::<MivcSlice>() + 8 * 8);
        assert_eq!(size_of::<MivcExactGather>(), 12 * 8);
        assert_eq!(size_of::<MivcExactSoftmax>(), size_of::<MivcWorkList>() + 10 * 8);
        assert_eq!(size_of::<MivcExactWeightedSum>(), size_of::<MivcWorkList>() + 13 * 8 + 4 * 4);
    }
}
