//! The operations on addresses, for CUDA graphs, other languages and other libraries' tensors.
//!
//! Nothing here is ordered with other streams, and nothing kept: a call queues its steps on the stream and returns.
//! That is what a stream in capture needs, where no event from outside may be waited for. A captured call can be
//! replayed on other values, offsets and fewer instances included: put them where the first ones were, and let
//! `offsets[B]` be the number of instances.

use cudarc::driver::sys::CUstream;

use super::executor::execute;
use super::max_mean::MaxMean;
use crate::error::Result;
use crate::launch::Capacity;

pub use crate::launch::Offsets;
pub use crate::launch::max_mean::Addresses as MaxMeanAddresses;

/// As [`MaxMean::run`], on `call` instances and bags.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) where the call is larger than planned, nothing is to be written or
/// argmax is not as planned; [`CudaError::Driver`](crate::error::CudaError::Driver) where the driver fails.
///
/// # Safety
/// 1. `stream` is of the context that the kernels were loaded in.
/// 2. Every address that is not 0 is one of that context's, a multiple of its element's size, with room for the
///    shape that [`MaxMeanAddresses`] gives; the elements are of the types that were planned. The features end with
///    the last row. What the offsets are does not matter.
/// 3. From the call until the stream has done it, nothing else writes what it reads, or reads or writes what it
///    writes, and none of it is freed. What it writes overlaps nothing else of it.
/// 4. `operation`, or another handle of its kernels, lives as long.
/// 5. Where the stream captures, 3 and 4 hold for the graph instead: from each replay until it has run.
pub unsafe fn max_mean(
    operation: &MaxMean,
    stream: CUstream,
    call: Capacity,
    addresses: MaxMeanAddresses,
) -> Result<()> {
    if let Some(steps) = operation.plan.steps(call, addresses)? {
        // SAFETY: the stream and the memory are as the caller promises, and the steps stay within the shapes.
        unsafe { execute(&operation.kernels, stream, &steps) }?;
    }
    Ok(())
}
