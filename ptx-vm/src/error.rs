//! What can go wrong: with the text of a module, with a launch, and in a kernel.

use std::fmt;

use crate::parse::ParseError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("not PTX: {0}")]
    Parse(#[from] ParseError),
    /// Found before anything runs.
    #[error("{function}: not supported: `{instruction}` on line {line} of the PTX: {reason}")]
    Unsupported { function: String, line: u32, instruction: String, reason: String },
    /// A module, a launch or a buffer is not what was expected.
    #[error("{argument}: expected {expected}, got {got}")]
    Argument { argument: &'static str, expected: String, got: String },
    /// A kernel does what it must not do.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

impl Error {
    pub(crate) fn argument(argument: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Argument { argument, expected: expected.to_string(), got: got.to_string() }
    }

    /// The fault, if it is one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// Outside of every buffer or variable.
    OutOfBounds,
    Misaligned,
    /// A read of what nobody has written.
    Uninitialised,
    /// Two accesses of which no order is known, one of them a write.
    Race,
    /// An access to the destination of an asynchronous copy that is under way.
    UnfinishedCopy,
    /// A register of an asynchronous matrix product that is under way.
    UnfinishedMultiply,
    /// What one proxy wrote is used by another, or registers by the matrix units, with no fence between.
    MissingFence,
    /// Shared memory of another block of the cluster, which is not known to have begun or may have exited.
    AbsentBlock,
    /// Threads of a warp at different barriers, or barriers of different sizes.
    DivergentBarrier,
    /// Threads wait for each other.
    Deadlock,
    /// A lane of a member mask that does not come, or a calling lane that is not in the mask.
    MissingLane,
    /// More instructions than the launch allows.
    InstructionLimit,
    /// The kernel stopped itself (`trap`).
    Trap,
    /// Operands that the instruction set leaves undefined.
    Undefined,
}

/// Where in a kernel something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Of the `.cu` file or header, without its folder; empty where the PTX has no line information.
    pub file: String,
    /// Of that file, from 1.
    pub line: u32,
    /// As it stands in the PTX.
    pub instruction: String,
    pub block: [u32; 3],
    /// Number in the block, `x + y·ntid.x + z·ntid.x·ntid.y`.
    pub thread: u32,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { file, line, instruction, block: [x, y, z], thread } = self;
        write!(f, "{file}:{line} `{instruction}`, block ({x}, {y}, {z}), thread {thread}")
    }
}

/// What a kernel did that it must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub kernel: String,
    /// The buffer or variable, the distance, the bytes; or who waits for whom.
    pub detail: String,
    pub site: Site,
    /// The other side of a race.
    pub earlier: Option<Site>,
    /// As a generic pointer.
    pub address: Option<u64>,
}

impl std::error::Error for Fault {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}: {}\n    at {}", self.kind, self.kernel, self.detail, self.site)?;
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        if let Some(earlier) = &self.earlier {
            write!(f, "\n    after {earlier}")?;
        }
        Ok(())
    }
}
