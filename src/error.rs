//! What can go wrong, as types.
//!
//! Every message names the argument, what was expected of it and what came.

use std::path::PathBuf;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument has the wrong length, shape or value.
    #[error("{argument}: expected {expected}, got {got}")]
    Argument {
        /// The argument's name, as in the documentation of the function that was called.
        argument: &'static str,
        /// What the function needs.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// The offsets or lengths of the bags do not describe bags.
    #[error(transparent)]
    Bags(#[from] BagsError),
    /// A checkpoint could not be read as attention parameters.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A saved state could not be written or read.
    #[error(transparent)]
    State(#[from] StateError),
    /// A GPU could not be used.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

impl Error {
    pub(crate) fn argument(argument: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Error::Argument { argument, expected: expected.to_string(), got: got.to_string() }
    }
}

/// `Ok` exactly when a slice has the length that a shape asks for.
pub(crate) fn expect_len(argument: &'static str, shape: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::argument(argument, format!("{shape} = {expected} elements"), got))
}

/// Offsets, lengths or a mask that do not describe bags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BagsError {
    /// There is not even the leading 0.
    #[error("offsets: expected at least one entry, the leading 0, got none")]
    Empty,
    /// The first offset is not 0.
    #[error("offsets[0]: expected 0, got {got}")]
    First {
        /// The first offset.
        got: i64,
    },
    /// An offset is below the one before it.
    #[error("offsets[{index}]: expected at least {previous}, the offset before it, got {got}")]
    Falling {
        /// Index of the offending offset.
        index: usize,
        /// The offset before it.
        previous: i64,
        /// The offending offset.
        got: i64,
    },
    /// The last offset is not the number of instances.
    #[error("offsets[{index}]: expected {instances}, the number of instances, got {got}")]
    Last {
        /// Index of the last offset.
        index: usize,
        /// The number of instances.
        instances: usize,
        /// The last offset.
        got: i64,
    },
    /// A length is below 0.
    #[error("lengths[{index}]: expected 0 or more, got {got}")]
    NegativeLength {
        /// Index of the offending length.
        index: usize,
        /// The offending length.
        got: i64,
    },
    /// The lengths add up to more than an i64 or a `usize` can hold.
    #[error("lengths[{index}]: expected a sum that fits the address space, got more up to here")]
    Overflow {
        /// Index of the length at which the sum overflows.
        index: usize,
    },
    /// The mask does not have one entry per instance.
    #[error("mask: expected [N] = {instances} elements, got {got}")]
    MaskLength {
        /// The number of instances.
        instances: usize,
        /// Entries in the mask.
        got: usize,
    },
}

/// A checkpoint that could not be read as attention parameters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be opened or read.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The bytes are no safetensors file. What the parser says may quote them, line breaks included.
    #[error("checkpoint: expected a safetensors file, got: {}", .0.to_string().replace(char::is_control, " "))]
    Format(#[from] safetensors::SafeTensorError),
    /// The keys belong to none of the known layouts.
    #[error("checkpoint: expected one of the layouts {known}, got the keys {found}")]
    UnknownLayout {
        /// The layouts that are known.
        known: String,
        /// The keys in the file, shortened where there are many.
        found: String,
    },
    /// There is more than one attention, in different layouts or under different prefixes.
    #[error("checkpoint: expected one attention, got {found}")]
    Ambiguous {
        /// Key of each one's V, without `.weight`, and its layout.
        found: String,
    },
    /// A layout was recognised, but a tensor it needs is not there.
    #[error("checkpoint ({layout}): expected the key {key}, got none of that name")]
    MissingKey {
        /// The layout that was recognised.
        layout: &'static str,
        /// The missing key.
        key: String,
    },
    /// A tensor is not of the shape that the others ask for.
    #[error("{key}: expected shape {expected}, got {got}")]
    Shape {
        /// The tensor's key.
        key: String,
        /// The shape that was expected.
        expected: String,
        /// The shape in the file.
        got: String,
    },
    /// A tensor's numbers are not floating point.
    #[error("{key}: expected f64, f32, f16 or bf16, got {got}")]
    Dtype {
        /// The tensor's key.
        key: String,
        /// The type in the file.
        got: String,
    },
}

/// A saved [`PoolState`](crate::PoolState) that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file could not be opened, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The bytes are no safetensors file. What the parser says may quote them, line breaks included.
    #[error("state: expected a safetensors file, got: {}", .0.to_string().replace(char::is_control, " "))]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor is not there, or not of the shape or type that it must be.
    #[error("{name}: expected {expected}, got {got}")]
    Tensor {
        /// The tensor's name.
        name: &'static str,
        /// The type and shape that were expected.
        expected: String,
        /// Those in the file.
        got: String,
    },
}

/// A GPU that could not be used.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no libcuda to load.
    #[error("device: expected a CUDA driver, got no libcuda ({reason})")]
    NoDriver {
        /// What the dynamic loader said.
        reason: String,
    },
    /// The driver has fewer devices.
    #[error("device: expected one of the {count} CUDA devices, counted from 0, got {ordinal}")]
    NoDevice {
        /// The device that was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The kernels were compiled for other devices, or with a compiler that is too new for the driver.
    #[error(
        "device: expected compute capability {architectures}, or {ptx} or later where the driver reads the kernels' \
         PTX (kernels compiled with CUDA 13 need driver 580 or later), got compute capability {capability} and a \
         driver for CUDA {driver}: {reason}"
    )]
    NoImage {
        /// Those that the kernels were compiled for, as nvcc names them: `80, 90a`.
        architectures: String,
        /// The one that their PTX is for.
        ptx: &'static str,
        /// The device's: `8.6`.
        capability: String,
        /// The newest CUDA that the driver knows: `12.4`.
        driver: String,
        /// The driver's name for the error.
        reason: String,
    },
    /// A view or a stream is not of the context that the kernels were loaded in.
    #[error("{argument}: expected the very CudaContext that the kernels were loaded in, got another")]
    Context {
        /// The argument's name.
        argument: &'static str,
    },
    /// The driver refused a call, or reports that earlier work has failed.
    #[error("CUDA driver: {name} ({code})")]
    Driver {
        /// The driver's name for the error: `CUDA_ERROR_OUT_OF_MEMORY`.
        name: String,
        /// Its number.
        code: i32,
    },
}

#[cfg(feature = "cuda")]
impl From<cudarc::driver::DriverError> for CudaError {
    fn from(error: cudarc::driver::DriverError) -> Self {
        // The error's own text comes from the driver, and asking for it panics where there is none.
        CudaError::Driver { name: format!("{:?}", error.0), code: error.0 as i32 }
    }
}
