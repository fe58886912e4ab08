//! Faults: what a kernel did, and where.

use super::Operation;
use super::barrier::NamedBarrier;
use super::block::Block;
use super::cluster::{At, Cluster};
use super::warp::{State, Warp};
use crate::error::{Fault, FaultKind, Site};
use crate::registers::LANES;

impl Cluster<'_> {
    /// Nobody can go on: says who waits where.
    pub(super) fn deadlock(&self) -> Box<Fault> {
        let waiting = |state: fn(&State) -> bool| {
            let of_warp = |(w, warp): (usize, &Warp)| {
                warp.fragments.iter().find(|f| state(&f.state)).map(|f| (At { pc: f.pc, warp: w }, *f, warp.live))
            };
            self.warps.iter().enumerate().find_map(of_warp)
        };
        if let Some((at, fragment, _)) = waiting(|state| *state == State::Waiting) {
            let lane = fragment.mask.trailing_zeros() as usize;
            return self.fault(FaultKind::Deadlock, at, lane, self.who_waits());
        }
        if let Some((at, fragment, live)) = waiting(|state| *state == State::Gathering) {
            let lane = fragment.mask.trailing_zeros() as usize;
            let elsewhere = live & !fragment.mask;
            let kind = match self.grid.kernel.instructions[at.pc as usize].operation {
                Operation::Barrier(_) => FaultKind::DivergentBarrier,
                _ => FaultKind::MissingLane,
            };
            let detail = format!("lanes {:#010x} wait here, lanes {elsewhere:#010x} do not come", fragment.mask);
            return self.fault(kind, at, lane, detail);
        }
        let at_barrier = waiting(|state| matches!(state, State::AtBarrier(_)));
        let (at, lane) =
            at_barrier.map_or((At { pc: 0, warp: 0 }, 0), |(at, f, _)| (at, f.mask.trailing_zeros() as usize));
        let Block { barriers, live, .. } = &self.blocks[self.rank(at.warp)];
        let missing = |(id, barrier): (usize, &NamedBarrier)| {
            let come = barrier.arrived.len() + barrier.waiting.len();
            let expected = barrier.expected.unwrap_or(*live);
            (!barrier.is_idle()).then(|| format!("{come} of {expected} threads are at barrier {id}"))
        };
        let detail: Vec<_> = barriers.iter().enumerate().filter_map(missing).collect();
        self.fault(FaultKind::Deadlock, at, lane, detail.join(", "))
    }

    #[cold]
    pub(super) fn fault(&self, kind: FaultKind, at: At, lane: usize, detail: String) -> Box<Fault> {
        let kernel = self.grid.kernel.name.clone();
        let site = self.site(at.pc, self.number, at.thread(lane));
        Box::new(Fault { kind, kernel, detail, site, earlier: None, address: None })
    }

    /// An instruction of a thread of a cluster.
    pub(super) fn site(&self, pc: u32, cluster: u64, thread: u16) -> Site {
        let threads = self.grid.warps() * LANES;
        let (rank, thread) = (thread as usize / threads, (thread as usize % threads) as u32);
        let block = self.grid.index(cluster, rank);
        let instruction = &self.grid.kernel.instructions[pc as usize];
        let path = self.grid.kernel.files.get(&instruction.source.file).map_or("", String::as_str);
        let file = path.rsplit('/').next().unwrap_or_default().to_owned();
        Site { file, line: instruction.source.line, instruction: instruction.text.clone(), block, thread }
    }

    /// Who waits where, and what for.
    fn who_waits(&self) -> String {
        let mut places: Vec<(u32, u32)> = Vec::new();
        for fragment in self.warps.iter().flat_map(|warp| &warp.fragments) {
            match places.iter_mut().find(|(pc, _)| *pc == fragment.pc) {
                Some((_, threads)) => *threads += fragment.mask.count_ones(),
                None => places.push((fragment.pc, fragment.mask.count_ones())),
            }
        }
        let place = |&(pc, threads): &(u32, u32)| {
            let site = self.site(pc, self.number, 0);
            format!("{threads} threads wait at {}:{} `{}`", site.file, site.line, site.instruction)
        };
        let mut keys: Vec<_> = self.mbarriers.keys().copied().collect();
        keys.sort();
        let missing = |&key: &(usize, usize)| {
            let missing = self.mbarriers[&key].missing()?;
            Some(format!("the mbarrier at {} {missing}", self.describe(self.address_in(key), 8)))
        };
        let parts = places.iter().map(place).chain(keys.iter().filter_map(missing));
        parts.chain(self.cluster_barrier_waits()).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn undefined(&self, at: At, lane: usize, detail: String) -> Box<Fault> {
        self.fault(FaultKind::Undefined, at, lane, detail)
    }
}
