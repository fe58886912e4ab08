//! The operations on addresses, for CUDA graphs, other languages and other libraries' tensors.
//!
//! Nothing here is ordered with other streams, and nothing kept: a call queues its steps on the stream and returns.
//! That is what a stream in capture needs, where no event from outside may be waited for. A captured call can be
//! replayed on other values, offsets and fewer instances included: put them where the first ones were, and let
//! `offsets[B]` be the number of instances.
//!
//! # Safety
//!
//! Every function here asks the same of its caller:
//!
//! 1. `stream` is of the context that the kernels were loaded in.
//! 2. Every address that is not 0 is one of that context's, a multiple of its element's size, with room for the
//!    shape that the operation's `Addresses` give; only those may be 0 that they say may be left out. The elements are
//!    of the types that were planned. Rows end with the last one. What the offsets are does not matter.
//! 3. From the call until the stream has done it, nothing else writes what it reads, or reads or writes what it
//!    writes, and none of it is freed. What it writes overlaps nothing else of it; what it adds to has been written.
//! 4. The operation, or another handle of its kernels, lives as long.
//! 5. Where the stream captures, 3 and 4 hold for the graph instead: from each replay until it has run.
//!
//! Where parameters are read they are, by [`PackedAttention::address`](super::PackedAttention::address) or [`pack`], and
//! for a backward by [`PackedBackward::address`](super::PackedBackward::address) or [`pack_backward`], packed as the operation was planned for, and the stream comes behind the one that packed them.

use cudarc::driver::sys::CUstream;

use super::Kernels;
use super::attention_pool::AttentionPool;
use super::backward::attention_pool::AttentionPoolBackward;
use super::backward::gate::GateBackward;
use super::backward::max_mean::MaxMeanBackward;
use super::backward::scores::ScoresBackward;
use super::backward::softmax::SoftmaxBackward;
use super::backward::weighted_sum::WeightedSumBackward;
use super::executor::execute;
use super::gate::Gate;
use super::max_mean::MaxMean;
use super::scores::Scores;
use super::softmax::Softmax;
use super::state::Merge;
use super::weighted_sum::WeightedSum;
use crate::error::Result;
use crate::launch::Capacity;
use crate::launch::backward::pack::PackBackward;
use crate::launch::pack::Pack;

pub use crate::launch::Offsets;
pub use crate::launch::attention_pool::Addresses as AttentionPoolAddresses;
pub use crate::launch::backward::Gradient;
pub use crate::launch::backward::attention_pool::Addresses as AttentionPoolBackwardAddresses;
pub use crate::launch::backward::gate::Addresses as GateBackwardAddresses;
pub use crate::launch::backward::max_mean::Addresses as MaxMeanBackwardAddresses;
pub use crate::launch::backward::scores::{Addresses as ScoresBackwardAddresses, ParamGradients};
pub use crate::launch::backward::softmax::Addresses as SoftmaxBackwardAddresses;
pub use crate::launch::backward::weighted_sum::Addresses as WeightedSumBackwardAddresses;
pub use crate::launch::gate::Addresses as GateAddresses;
pub use crate::launch::max_mean::Addresses as MaxMeanAddresses;
pub use crate::launch::pack::Addresses as PackAddresses;
pub use crate::launch::scores::Addresses as ScoresAddresses;
pub use crate::launch::softmax::Addresses as SoftmaxAddresses;
pub use crate::launch::state::Addresses as StateMergeAddresses;
pub use crate::launch::weighted_sum::Addresses as WeightedSumAddresses;

/// As [`Kernels::pack`], of parameters that are on the device, into memory of [`Pack::bytes`].
///
/// With the plan and the address of a [`PackedAttention`](super::PackedAttention) it replaces the parameters there.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where U is not as planned;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn pack(kernels: &Kernels, plan: &Pack, stream: CUstream, addresses: PackAddresses) -> Result<()> {
    let steps = plan.steps(addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    unsafe { execute(kernels, stream, &steps) }?;
    Ok(())
}

/// As [`Kernels::pack_backward`], of parameters that are on the device, into memory of [`PackBackward::bytes`].
///
/// # Errors
/// As of [`pack`].
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn pack_backward(
    kernels: &Kernels,
    plan: &PackBackward,
    stream: CUstream,
    addresses: PackAddresses,
) -> Result<()> {
    let steps = plan.steps(addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    unsafe { execute(kernels, stream, &steps) }?;
    Ok(())
}

/// As [`Scores::run`], or [`Scores::run_keeping`] where activations have a place, on so many instances.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where there are more instances than a launch can have;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn scores(operation: &Scores, stream: CUstream, instances: usize, addresses: ScoresAddresses) -> Result<()> {
    if let Some(steps) = operation.plan.steps(instances, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(operation.packed.kernels(), stream, &steps) }?;
    }
    Ok(())
}

/// As [`Gate::run`], on so many elements.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where there are more elements than a launch can have;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn gate(operation: &Gate, stream: CUstream, elements: usize, addresses: GateAddresses) -> Result<()> {
    if let Some(steps) = operation.plan.steps(elements, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}

/// As [`Softmax::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned, or nothing is to be written;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn softmax(
    operation: &Softmax,
    stream: CUstream,
    call: Capacity,
    addresses: SoftmaxAddresses,
) -> Result<()> {
    let steps = operation.plan.steps(call, addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    Ok(unsafe { execute(&operation.kernels, stream, &steps) }?)
}

/// As [`WeightedSum::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn weighted_sum(
    operation: &WeightedSum,
    stream: CUstream,
    call: Capacity,
    addresses: WeightedSumAddresses,
) -> Result<()> {
    let steps = operation.plan.steps(call, addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    Ok(unsafe { execute(&operation.kernels, stream, &steps) }?)
}

/// As [`MaxMean::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned, nothing is to be written or
/// argmax is not as planned; [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn max_mean(
    operation: &MaxMean,
    stream: CUstream,
    call: Capacity,
    addresses: MaxMeanAddresses,
) -> Result<()> {
    let steps = operation.plan.steps(call, addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    Ok(unsafe { execute(&operation.kernels, stream, &steps) }?)
}

/// As [`AttentionPool::run`], or [`AttentionPool::run_keeping`] where activations have a place, on `call` instances and
/// bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says. Here values may be the keys.
pub unsafe fn attention_pool(
    operation: &AttentionPool,
    stream: CUstream,
    call: Capacity,
    addresses: AttentionPoolAddresses,
) -> Result<()> {
    let steps = operation.plan.steps(call, addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    unsafe { execute(operation.packed.kernels(), stream, &steps) }?;
    Ok(())
}

/// As [`Merge::run`], on so many rows: bags times heads.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where there are more rows than a launch can have;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says; the state that is merged into is read, too.
pub unsafe fn state_merge(
    operation: &Merge,
    stream: CUstream,
    rows: usize,
    addresses: StateMergeAddresses,
) -> Result<()> {
    if let Some(steps) = operation.plan.steps(rows, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}

/// As [`GateBackward::run`], on so many elements.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where there are more elements than a launch can have;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn gate_backward(
    operation: &GateBackward,
    stream: CUstream,
    elements: usize,
    addresses: GateBackwardAddresses,
) -> Result<()> {
    if let Some(steps) = operation.plan.steps(elements, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}

/// As [`SoftmaxBackward::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn softmax_backward(
    operation: &SoftmaxBackward,
    stream: CUstream,
    call: Capacity,
    addresses: SoftmaxBackwardAddresses,
) -> Result<()> {
    if let Some(steps) = operation.plan.steps(call, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}

/// As [`WeightedSumBackward::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn weighted_sum_backward(
    operation: &WeightedSumBackward,
    stream: CUstream,
    call: Capacity,
    addresses: WeightedSumBackwardAddresses,
) -> Result<()> {
    if let Some(steps) = operation.plan.steps(call, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}

/// As [`MaxMeanBackward::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned, or neither max nor
/// mean has a gradient;
/// [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn max_mean_backward(
    operation: &MaxMeanBackward,
    stream: CUstream,
    call: Capacity,
    addresses: MaxMeanBackwardAddresses,
) -> Result<()> {
    if let Some(steps) = operation.plan.steps(call, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}

/// As [`ScoresBackward::run`], on so many instances.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where there are more instances than planned, or a gradient is asked for
/// of what is not there; [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says.
pub unsafe fn scores_backward(
    operation: &ScoresBackward,
    stream: CUstream,
    instances: usize,
    addresses: ScoresBackwardAddresses,
) -> Result<()> {
    let steps = operation.plan.steps(instances, addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    unsafe { execute(operation.packed.kernels(), stream, &steps) }?;
    Ok(())
}

/// As [`AttentionPoolBackward::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned, or a gradient is asked for of what
/// is not there; [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// As the [module](self#safety) says. Here values may be the keys.
pub unsafe fn attention_pool_backward(
    operation: &AttentionPoolBackward,
    stream: CUstream,
    call: Capacity,
    addresses: AttentionPoolBackwardAddresses,
) -> Result<()> {
    let steps = operation.plan.steps(call, addresses)?;
    // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
    unsafe { execute(operation.packed.kernels(), stream, &steps) }?;
    Ok(())
}
