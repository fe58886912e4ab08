//! `bar.sync`, `bar.arrive` and `bar.red`: the named barriers of a block.

use crate::registers::Reg;

/// What arriving at a barrier means.
#[derive(Debug, Clone, Copy)]
pub enum BarrierKind {
    Sync,
    /// Does not wait.
    Arrive,
    /// Also tells every thread how many, whether any or whether all had a predicate set.
    Count {
        to: Reg<u32>,
        predicate: Reg<bool>,
        negated: bool,
    },
    Any {
        to: Reg<bool>,
        predicate: Reg<bool>,
        negated: bool,
    },
    All {
        to: Reg<bool>,
        predicate: Reg<bool>,
        negated: bool,
    },
}

impl BarrierKind {
    /// The predicate that is counted, and whether it is negated.
    pub fn predicate(self) -> Option<(Reg<bool>, bool)> {
        match self {
            BarrierKind::Sync | BarrierKind::Arrive => None,
            BarrierKind::Count { predicate, negated, .. }
            | BarrierKind::Any { predicate, negated, .. }
            | BarrierKind::All { predicate, negated, .. } => Some((predicate, negated)),
        }
    }
}

/// Barriers of a block, by their id.
pub const BARRIERS: usize = 16;

/// Who has come to one barrier since it last opened.
#[derive(Debug, Clone, Default)]
pub struct NamedBarrier {
    /// Threads that do not wait.
    pub arrived: Vec<u16>,
    pub waiting: Vec<u16>,
    /// Those of them with the predicate set.
    pub set: u32,
    /// Threads that it waits for; None for all that live.
    pub expected: Option<u32>,
}

impl NamedBarrier {
    pub fn is_idle(&self) -> bool {
        self.arrived.is_empty() && self.waiting.is_empty()
    }

    pub fn is_complete(&self, live: u32) -> bool {
        !self.is_idle() && (self.arrived.len() + self.waiting.len()) as u32 >= self.expected.unwrap_or(live)
    }
}
