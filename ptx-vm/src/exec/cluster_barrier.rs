//! `barrier.cluster`: the barrier of all threads of a cluster, in two steps.

use super::cluster::{At, Cluster, Outcome};
use super::warp::{State, Warp};
use crate::check::Knowledge;
use crate::error::FaultKind;
use crate::registers::{Mask, lanes};

#[derive(Debug, Default)]
pub struct ClusterBarrier {
    /// Threads that have arrived in this round.
    arrived: u32,
    /// Rounds that are complete.
    round: u32,
    /// What they published in this round, and in those before.
    arriving: Knowledge,
    known: Knowledge,
}

impl Cluster<'_> {
    pub(super) fn arrive_at_cluster(&mut self, warp: &mut Warp, at: At, mask: Mask, releases: bool) -> Outcome {
        let twice = mask & warp.in_cluster_barrier;
        if twice != 0 {
            let detail = "arrives at the cluster's barrier twice without waiting".to_owned();
            return Err(self.fault(FaultKind::Undefined, at, twice.trailing_zeros() as usize, detail));
        }
        warp.in_cluster_barrier |= mask;
        for lane in lanes(mask) {
            warp.cluster_round[lane] = self.barrier.round;
            if let Some(races) = self.races.as_mut().filter(|_| releases) {
                self.barrier.arriving.join(&races.publish(at.thread(lane)));
            }
            // A fence before a relaxed arrival releases what was before the fence.
            self.barrier.arriving.join(&warp.fenced[lane]);
        }
        self.barrier.arrived += mask.count_ones();
        self.open_cluster_barrier();
        Ok(())
    }

    pub(super) fn wait_for_cluster(
        &mut self,
        warp: &mut Warp,
        at: At,
        i: usize,
        mask: Mask,
        acquires: bool,
    ) -> Outcome {
        let strangers = mask & !warp.in_cluster_barrier;
        if strangers != 0 {
            let detail = "waits at the cluster's barrier, at which it has not arrived".to_owned();
            return Err(self.fault(FaultKind::Undefined, at, strangers.trailing_zeros() as usize, detail));
        }
        let is_open = |&lane: &usize| warp.cluster_round[lane] < self.barrier.round;
        let passing: Mask = lanes(mask).filter(is_open).fold(0, |mask, lane| mask | 1 << lane);
        warp.in_cluster_barrier &= !passing;
        self.met[at.warp] |= passing;
        if let Some(races) = self.races.as_mut().filter(|_| acquires) {
            lanes(passing).for_each(|lane| races.learn(at.thread(lane), &self.barrier.known));
        }
        warp.fragments[i].pc = at.pc + 1;
        if passing == mask {
            warp.merge();
        } else {
            warp.split(i, mask & !passing, at.pc, State::Waiting);
        }
        Ok(())
    }

    /// Nobody waits for threads that have exited.
    pub(super) fn leave_cluster(&mut self, warp: &Warp, mask: Mask) {
        // Who has arrived and exits is not waited for twice.
        self.barrier.arrived -= lanes(mask & warp.in_cluster_barrier)
            .filter(|&lane| warp.cluster_round[lane] == self.barrier.round)
            .count() as u32;
        self.open_cluster_barrier();
    }

    fn open_cluster_barrier(&mut self) {
        let live: u32 = self.blocks.iter().map(|block| block.live).sum();
        let barrier = &mut self.barrier;
        if barrier.arrived == live && live > 0 {
            barrier.arrived = 0;
            barrier.round += 1;
            barrier.known.join(&std::mem::take(&mut barrier.arriving));
            self.changed = true;
        }
    }

    /// For the report of a deadlock.
    pub(super) fn cluster_barrier_waits(&self) -> Option<String> {
        let live: u32 = self.blocks.iter().map(|block| block.live).sum();
        let arrived = self.barrier.arrived;
        (arrived > 0).then(|| format!("{arrived} of {live} threads are at the cluster's barrier"))
    }
}
