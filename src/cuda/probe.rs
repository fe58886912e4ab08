//! Whether there is a GPU, without a panic where there is none.
//!
//! cudarc loads libcuda at its first call and panics where it is missing. So a process that may run on any machine
//! makes its first context here. Programs that have a [`CudaContext`] already need none of this.

use std::error::Error;
use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, DriverError};
use libloading::Library;

use crate::error::CudaError;

/// As the driver installs it; cudarc tries this name among others.
const DRIVER: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// The number of CUDA devices; 0 where there is a driver and nothing for it to drive.
///
/// # Errors
/// [`CudaError::NoDriver`] where there is no libcuda, [`CudaError::Driver`] where it does not start.
pub fn device_count() -> Result<usize, CudaError> {
    expect_driver()?;
    match CudaContext::device_count() {
        Ok(count) => Ok(count as usize),
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The primary context of a device, counted from 0.
///
/// # Errors
/// As of [`device_count`]; [`CudaError::NoDevice`] where there are fewer.
pub fn context(ordinal: usize) -> Result<Arc<CudaContext>, CudaError> {
    let count = device_count()?;
    if ordinal >= count {
        return Err(CudaError::NoDevice { ordinal, count });
    }
    Ok(CudaContext::new(ordinal)?)
}

fn expect_driver() -> Result<(), CudaError> {
    // SAFETY: loading runs the initialisers of the driver's library, which ask nothing of the process.
    let library = unsafe { Library::new(DRIVER) };
    // The error itself says no more than that loading failed.
    let reason = |error: libloading::Error| error.source().map_or(error.to_string(), ToString::to_string);
    library.map_err(|error| CudaError::NoDriver { reason: reason(error) })?;
    Ok(())
}
