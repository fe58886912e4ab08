//! A warp: lanes that stand at different instructions, and how they meet again.

use super::bulk_store::BulkGroups;
use super::copies::Copies;
use super::under_way::Products;
use crate::check::Knowledge;
use crate::registers::{LANES, Mask, Registers};

/// Lanes at the same instruction.
#[derive(Debug, Clone, Copy)]
pub struct Fragment {
    pub pc: u32,
    pub mask: Mask,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    /// For other lanes of the warp to reach the same instruction.
    Gathering,
    /// For something to happen at an mbarrier or at the cluster's barrier: looks again then.
    Waiting,
    /// At the barrier of that number.
    AtBarrier(u32),
}

#[derive(Debug, Default)]
pub struct Warp {
    pub registers: Registers,
    pub fragments: Vec<Fragment>,
    /// Lanes that have not exited.
    pub live: Mask,
    pub copies: [Copies; LANES],
    pub bulk: [BulkGroups; LANES],
    /// Lanes that have arrived at the cluster's barrier and not waited yet, and the round that they arrived in.
    pub in_cluster_barrier: Mask,
    pub cluster_round: [u32; LANES],
    /// In a cluster: what lanes knew at their last fence for the cluster.
    pub fenced: [Knowledge; LANES],
    pub products: Products,
    pub instructions: u64,
}

impl Warp {
    pub fn new(registers: Registers, live: Mask) -> Self {
        let start = Fragment { pc: 0, mask: live, state: State::Running };
        Warp { registers, fragments: vec![start], live, ..Warp::default() }
    }

    pub fn is_runnable(&self) -> bool {
        self.fragments.iter().any(|fragment| fragment.state == State::Running)
    }

    /// The running fragment that is furthest behind: so that lanes which went different ways meet again
    /// where the ways do.
    pub fn furthest_behind(&self) -> Option<usize> {
        let running = self.fragments.iter().enumerate().filter(|(_, fragment)| fragment.state == State::Running);
        running.min_by_key(|(_, fragment)| fragment.pc).map(|(i, _)| i)
    }

    /// The lowest instruction at which another fragment than `this` stands.
    pub fn others_at(&self, this: usize) -> u32 {
        let others =
            self.fragments.iter().enumerate().filter(|&(i, f)| i != this && !matches!(f.state, State::AtBarrier(_)));
        others.map(|(_, fragment)| fragment.pc).min().unwrap_or(u32::MAX)
    }

    /// Joins the fragments that stand at the same instruction. What was gathering runs again, to see
    /// whether all are there.
    pub fn merge(&mut self) {
        let at_barrier = |fragment: &Fragment| matches!(fragment.state, State::AtBarrier(_));
        self.fragments.sort_by_key(|fragment| (fragment.pc, at_barrier(fragment)));
        self.fragments.dedup_by(|later, earlier| {
            let same = later.pc == earlier.pc && !at_barrier(later) && !at_barrier(earlier);
            if same {
                earlier.mask |= later.mask;
                earlier.state = State::Running;
            }
            same
        });
    }

    /// After an exit: who waited for all that live may not have to any more.
    pub fn gather_again(&mut self) {
        for fragment in &mut self.fragments {
            if fragment.state == State::Gathering {
                fragment.state = State::Running;
            }
        }
    }

    /// What waits looks again.
    pub fn look_again(&mut self) {
        for fragment in &mut self.fragments {
            if fragment.state == State::Waiting {
                fragment.state = State::Running;
            }
        }
    }

    /// Takes the lanes of `mask` out of fragment `i`, to stand at `pc`.
    pub fn split(&mut self, i: usize, mask: Mask, pc: u32, state: State) {
        self.fragments[i].mask &= !mask;
        self.fragments.push(Fragment { pc, mask, state });
        self.fragments.retain(|fragment| fragment.mask != 0);
        self.merge();
    }
}
