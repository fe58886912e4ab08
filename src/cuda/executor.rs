//! Does the steps of an operation on a stream.

use std::ffi::c_void;

use cudarc::driver::result;
use cudarc::driver::sys::CUstream;

use super::Kernels;
use crate::error::CudaError;
use crate::launch::{Launch, Step};

/// Queues the steps behind what the stream has to do already. Allocates nothing, waits for nothing.
///
/// # Safety
/// `stream` belongs to the kernels' context. Whatever the steps read and write is there until the stream has done
/// them, and nothing else writes it, or reads what they write, meanwhile.
pub(super) unsafe fn execute(kernels: &Kernels, stream: CUstream, steps: &[Step]) -> Result<(), CudaError> {
    // Also gives the errors that cudarc kept while it could not return them.
    kernels.context().bind_to_thread()?;
    for step in steps {
        match step {
            // SAFETY: as the caller promises.
            Step::Clear { address, bytes } => unsafe { result::memset_d8_async(*address, 0, *bytes, stream) }?,
            // SAFETY: as the caller promises.
            Step::Launch(launch) => unsafe { execute_launch(kernels, stream, launch) }?,
        }
    }
    Ok(())
}

/// # Safety
/// As of [`execute`].
unsafe fn execute_launch(kernels: &Kernels, stream: CUstream, launch: &Launch) -> Result<(), CudaError> {
    let function = kernels.function(launch);
    let mut parameters = [launch.parameters.bytes().as_ptr().cast_mut().cast::<c_void>()];
    let (grid, block) = (launch.grid.into(), launch.block.into());
    // SAFETY: the kernel takes one parameter, this struct, which the driver copies before it returns and does not
    // write to; `kernels` keeps the function loaded. The rest is as the caller promises.
    unsafe { result::launch_kernel(function, grid, block, launch.shared_bytes, stream, &mut parameters) }?;
    Ok(())
}
