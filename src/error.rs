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
