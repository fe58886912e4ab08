//! One cluster of blocks, mostly a single one: its warps take turns until all threads have exited.
//!
//! Threads and warps are numbered through the whole cluster; each block begins a warp of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::barrier::{BARRIERS, NamedBarrier};
use super::block::Block;
use super::cluster_barrier::ClusterBarrier;
use super::mbarrier::MbarrierState;
use super::random::Random;
use super::under_way::Products;
use super::warp::{Fragment, State, Warp};
use super::wgmma::Trace;
use super::{Barrier, BarrierKind, Operation};
use crate::check::Races;
use crate::decode::{Kernel, Special};
use crate::error::{Fault, FaultKind};
use crate::memory::{Arena, Global, Layout};
use crate::registers::{LANES, Mask, Registers, each_lane, lanes};
use crate::statistics::Statistics;

/// Instructions that a warp may run before another gets its turn: so that one which waits for another by
/// reading memory does not wait for ever.
const TURN: u64 = 20_000;

/// What all blocks of a launch share.
pub struct Grid<'a> {
    pub kernel: &'a Kernel,
    pub global: &'a Global,
    pub parameters: &'a [u32],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Blocks of a cluster.
    pub cluster: [u32; 3],
    pub dynamic_shared: u32,
    pub seed: u64,
    pub instruction_limit: u64,
    pub count: bool,
    /// Of shared and of local memory.
    pub layouts: [Arc<Layout>; 2],
    /// Constants, as every warp finds them.
    pub registers: Registers,
    /// Warp instructions of all blocks, for the limit.
    pub instructions: AtomicU64,
}

impl Grid<'_> {
    /// Of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Of a block.
    pub fn warps(&self) -> usize {
        self.threads().div_ceil(LANES as u32) as usize
    }

    /// Blocks of a cluster.
    pub fn cluster_size(&self) -> usize {
        self.cluster.iter().product::<u32>() as usize
    }

    /// Whether the kernel or the launch asks for a cluster.
    pub fn is_explicit_cluster(&self) -> bool {
        self.kernel.cluster.is_some() || self.cluster != [1; 3]
    }

    /// Threads of a cluster as they are numbered: each block begins a warp.
    pub fn cluster_threads(&self) -> usize {
        self.cluster_size() * self.warps() * LANES
    }

    /// Where the block of that rank in a cluster lies in the grid.
    pub fn index(&self, cluster: u64, rank: usize) -> [u32; 3] {
        let clusters: [u32; 3] = std::array::from_fn(|axis| self.grid[axis] / self.cluster[axis]);
        let (of_cluster, of_block) = (position(cluster, clusters), position(rank as u64, self.cluster));
        std::array::from_fn(|axis| of_cluster[axis] * self.cluster[axis] + of_block[axis])
    }
}

/// The place of number `i` in a box of that size, x fastest.
fn position(i: u64, size: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = size.map(u64::from);
    [(i % x) as u32, (i / x % y) as u32, (i / (x * y)) as u32]
}

pub type Outcome<T = ()> = Result<T, Box<Fault>>;

/// A place in the kernel, for faults: warp and lanes.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub pc: u32,
    pub warp: usize,
}

impl At {
    pub fn thread(self, lane: usize) -> u16 {
        (self.warp * LANES + lane) as u16
    }
}

pub struct Cluster<'a> {
    pub(super) grid: &'a Grid<'a>,
    /// In the order of their ranks.
    pub(super) blocks: Vec<Block>,
    /// Of each thread; empty where the kernel has none.
    pub(super) local: Vec<Arena>,
    pub(super) races: Option<&'a mut Races>,
    pub(super) statistics: Statistics,
    pub(super) warps: Vec<Warp>,
    /// Those that are initialised, by the rank of their block and the offset in its shared memory.
    pub(super) mbarriers: HashMap<(usize, usize), MbarrierState>,
    pub(super) barrier: ClusterBarrier,
    /// The lanes of each warp that have waited at the cluster's barrier: they know that all blocks have begun.
    pub(super) met: Vec<Mask>,
    /// Of each warp.
    pub(super) traces: Vec<Trace>,
    /// Whether something has happened that those in [`State::Waiting`] may wait for.
    pub(super) changed: bool,
    /// Number of the cluster in the grid.
    pub(super) number: u64,
    pub(super) random: Random,
}

impl<'a> Cluster<'a> {
    pub fn new(grid: &'a Grid<'a>, races: Option<&'a mut Races>) -> Self {
        let [shared, local] = grid.layouts.clone();
        let local_arenas = if local.len() == 0 { 0 } else { grid.cluster_threads() };
        Cluster {
            grid,
            blocks: (0..grid.cluster_size()).map(|_| Block::new(Arena::new(shared.clone()))).collect(),
            local: (0..local_arenas).map(|_| Arena::new(local.clone())).collect(),
            races,
            statistics: Statistics::default(),
            warps: Vec::new(),
            mbarriers: HashMap::new(),
            barrier: ClusterBarrier::default(),
            met: Vec::new(),
            traces: Vec::new(),
            changed: false,
            number: 0,
            random: Random(0),
        }
    }

    pub fn into_statistics(self) -> Statistics {
        self.statistics
    }

    /// Runs cluster `number` of the grid.
    pub fn run(&mut self, number: u64) -> Outcome {
        self.begin(number);
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        self.random.shuffle(&mut order);
        while self.blocks.iter().any(|block| block.live > 0) {
            if self.open_barriers() {
                self.random.shuffle(&mut order);
            }
            if std::mem::take(&mut self.changed) {
                self.warps.iter_mut().for_each(Warp::look_again);
            }
            let Some(position) = order.iter().position(|&w| self.warps[w].is_runnable()) else {
                return Err(self.deadlock());
            };
            let w = order[position];
            let mut warp = std::mem::take(&mut self.warps[w]);
            let outcome = self.run_warp(&mut warp, w);
            self.warps[w] = warp;
            outcome?;
            if self.warps[w].is_runnable() {
                order.remove(position);
                order.push(w);
            }
        }
        Ok(())
    }

    fn begin(&mut self, number: u64) {
        self.number = number;
        self.random = Random(self.grid.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (grid, threads) = (self.grid, self.grid.threads());
        for (rank, block) in self.blocks.iter_mut().enumerate() {
            block.begin(grid.index(number, rank), threads);
        }
        self.local.iter_mut().for_each(Arena::clear);
        self.mbarriers.clear();
        self.barrier = ClusterBarrier::default();
        self.met = vec![0; self.blocks.len() * grid.warps()];
        self.traces = vec![Trace::default(); self.blocks.len() * grid.warps()];
        self.changed = false;
        self.warps = (0..self.blocks.len() * grid.warps()).map(|w| self.new_warp(w)).collect();
        let shared = self.blocks.iter().map(|block| block.shared.len()).sum();
        if let Some(races) = &mut self.races {
            races.begin_block(number, shared);
        }
    }

    /// The rank of the block that a warp belongs to.
    #[inline(always)]
    pub(super) fn rank(&self, warp: usize) -> usize {
        if self.blocks.len() == 1 { 0 } else { warp / self.grid.warps() }
    }

    /// The warps of a block.
    pub(super) fn warps_of(&self, rank: usize) -> std::ops::Range<usize> {
        rank * self.grid.warps()..(rank + 1) * self.grid.warps()
    }

    /// The threads of a block, as they are numbered in the cluster.
    pub(super) fn threads_of(&self, rank: usize) -> std::ops::Range<u16> {
        let first = (rank * self.grid.warps() * LANES) as u16;
        first..first + self.grid.threads() as u16
    }

    fn new_warp(&self, w: usize) -> Warp {
        let (rank, w) = (self.rank(w), (w % self.grid.warps()) as u32);
        let mut registers = self.grid.registers.clone();
        for &(register, special) in &self.grid.kernel.specials {
            let values = each_lane(|lane| self.special(special, rank, w, lane as u32));
            register.write(&mut registers, values, Mask::MAX);
        }
        for register in &self.grid.kernel.explicit_cluster {
            register.set(&mut registers, if self.grid.is_explicit_cluster() { Mask::MAX } else { 0 }, Mask::MAX);
        }
        let threads = self.grid.threads() - w * LANES as u32;
        let live = if threads >= LANES as u32 { Mask::MAX } else { (1 << threads) - 1 };
        let products =
            if self.grid.kernel.has_engines { Products::new(registers.words.len()) } else { Products::default() };
        Warp { products, ..Warp::new(registers, live) }
    }

    fn special(&self, special: Special, rank: usize, warp: u32, lane: u32) -> u32 {
        let thread = warp * LANES as u32 + lane;
        let [x, y, _] = self.grid.block;
        match special {
            Special::Thread(0) => thread % x,
            Special::Thread(1) => thread / x % y,
            Special::Thread(_) => thread / (x * y),
            Special::Block(axis) => self.blocks[rank].index[axis],
            Special::BlockSize(axis) => self.grid.block[axis],
            Special::GridSize(axis) => self.grid.grid[axis],
            Special::Lane => lane,
            Special::Warp => warp,
            Special::Warps => self.grid.threads().div_ceil(LANES as u32),
            Special::LanesEqual => 1 << lane,
            Special::LanesBelow => (1 << lane) - 1,
            Special::LanesUpTo => u32::MAX >> (31 - lane),
            Special::LanesAbove => !(u32::MAX >> (31 - lane)),
            Special::LanesFrom => !((1 << lane) - 1),
            Special::DynamicShared => self.grid.dynamic_shared,
            Special::BlockInCluster(axis) => self.blocks[rank].index[axis] % self.grid.cluster[axis],
            Special::ClusterSize(axis) => self.grid.cluster[axis],
            Special::Rank => rank as u32,
            Special::Ranks => self.blocks.len() as u32,
            Special::Cluster(axis) => self.blocks[rank].index[axis] / self.grid.cluster[axis],
            Special::Clusters(axis) => self.grid.grid[axis] / self.grid.cluster[axis],
            Special::IsExplicitCluster => u32::from(self.grid.is_explicit_cluster()),
        }
    }

    /// Runs a warp until it waits, has exited or has had its turn.
    fn run_warp(&mut self, warp: &mut Warp, w: usize) -> Outcome {
        let before = warp.instructions;
        while let Some(fragment) = warp.furthest_behind() {
            self.run_fragment(warp, w, fragment, before + TURN)?;
            if warp.instructions - before >= TURN {
                break;
            }
        }
        self.statistics.warp_instructions += warp.instructions - before;
        let limit = self.grid.instruction_limit;
        if limit < u64::MAX {
            let run = warp.instructions - before;
            let total = self.grid.instructions.fetch_add(run, std::sync::atomic::Ordering::Relaxed) + run;
            if total > limit && warp.is_runnable() {
                let pc = warp.furthest_behind().map_or(0, |i| warp.fragments[i].pc);
                let lane = warp.live.trailing_zeros() as usize;
                let detail = format!("more than {limit} warp instructions");
                return Err(self.fault(FaultKind::InstructionLimit, At { pc, warp: w }, lane, detail));
            }
        }
        Ok(())
    }

    /// Runs fragment `i` until it waits, splits, exits or meets another.
    fn run_fragment(&mut self, warp: &mut Warp, w: usize, i: usize, until: u64) -> Outcome {
        let kernel = self.grid.kernel;
        let others_at = warp.others_at(i);
        let mut pc = warp.fragments[i].pc;
        let here = warp.fragments[i].mask;
        while warp.instructions < until {
            let instruction = &kernel.instructions[pc as usize];
            let mask = match instruction.guard {
                None => here,
                Some((guard, negated)) => {
                    let guard = guard.mask(&warp.registers);
                    here & if negated { !guard } else { guard }
                }
            };
            warp.instructions += 1;
            self.statistics.lane_instructions += mask.count_ones() as u64;
            let at = At { pc, warp: w };
            if let Some(touched) = instruction.touched.as_ref().filter(|_| mask != 0) {
                self.touch(warp, at, mask, touched)?;
            }
            match &instruction.operation {
                _ if mask == 0 => {}
                Operation::Lanewise(f) => f(&mut warp.registers, mask),
                Operation::Nothing => {}
                Operation::Load(load) => self.load(&mut warp.registers, at, mask, load)?,
                Operation::Store(store) => self.store(&warp.registers, at, mask, store)?,
                Operation::Atomic(atomic) => self.atomic(&mut warp.registers, at, mask, atomic)?,
                Operation::Fence(scope) => self.fence(warp, at, mask, *scope),
                Operation::ActiveMask(to) => to.write(&mut warp.registers, [mask; LANES], mask),
                Operation::Copy(copy) => self.start_copy(warp, at, mask, copy)?,
                Operation::CommitCopies => lanes(mask).for_each(|lane| warp.copies[lane].commit()),
                Operation::WaitForCopies(groups) => self.wait_for_copies(warp, at, mask, *groups)?,
                Operation::Mbarrier(mbarrier) => self.mbarrier(warp, at, mask, mbarrier)?,
                Operation::BulkLoad(load) => self.start_bulk_load(warp, at, mask, load)?,
                Operation::BulkStore(store) => self.start_bulk_store(warp, at, mask, store)?,
                Operation::CommitBulk => lanes(mask).for_each(|lane| warp.bulk[lane].commit()),
                Operation::WaitForBulk { groups, read } => self.wait_for_bulk(warp, at, mask, *groups, *read)?,
                Operation::FenceProxy(senses) => self.fence_proxy(warp, at, mask, senses),
                Operation::ClusterArrive { releases } => self.arrive_at_cluster(warp, at, mask, *releases)?,
                Operation::Branch(target) if mask == here => {
                    pc = *target;
                    if pc >= others_at || warp.fragments.len() > 1 {
                        break;
                    }
                    continue;
                }
                _ => {
                    // What moves lanes apart or brings them together works on the fragments themselves.
                    warp.fragments[i].pc = pc;
                    return self.divert(warp, at, i, mask, &instruction.operation);
                }
            }
            pc += 1;
            if pc >= others_at {
                break;
            }
        }
        warp.fragments[i].pc = pc;
        warp.merge();
        Ok(())
    }

    /// An operation after which not all lanes of fragment `i` go on to the next instruction.
    fn divert(&mut self, warp: &mut Warp, at: At, i: usize, mask: Mask, operation: &Operation) -> Outcome {
        let next = at.pc + 1;
        match operation {
            Operation::Branch(target) => {
                warp.fragments[i].pc = next;
                warp.split(i, mask, *target, State::Running);
            }
            Operation::BranchTable { index, targets } => {
                warp.fragments[i].pc = next;
                let index = index.read(&warp.registers);
                let mut left = mask;
                while left != 0 {
                    let case = index[left.trailing_zeros() as usize];
                    let same: Mask =
                        lanes(left).filter(|&lane| index[lane] == case).fold(0, |mask, lane| mask | 1 << lane);
                    let Some(&target) = targets.get(case as usize) else {
                        let detail = format!("case {case} of a branch table of {}", targets.len());
                        return Err(self.fault(FaultKind::Undefined, at, same.trailing_zeros() as usize, detail));
                    };
                    left &= !same;
                    warp.fragments[i].mask &= !same;
                    warp.fragments.push(Fragment { pc: target, mask: same, state: State::Running });
                }
                warp.fragments.retain(|fragment| fragment.mask != 0);
                warp.merge();
            }
            Operation::Exit => {
                for lane in lanes(mask) {
                    let landing = warp.copies[lane].wait_for_all();
                    self.land(at, lane, landing)?;
                }
                warp.live &= !mask;
                self.exit(warp, at, mask)?;
                warp.fragments[i].pc = next;
                warp.fragments[i].mask &= !mask;
                warp.fragments.retain(|fragment| fragment.mask != 0);
                warp.gather_again();
            }
            Operation::Trap => {
                return Err(self.fault(FaultKind::Trap, at, mask.trailing_zeros() as usize, "trap".to_owned()));
            }
            Operation::MbarrierWait(wait) => self.wait_at_mbarrier(warp, at, i, mask, wait)?,
            Operation::ClusterWait { acquires } => self.wait_for_cluster(warp, at, i, mask, *acquires)?,
            Operation::Barrier(barrier) => self.arrive(warp, at, i, mask, barrier)?,
            Operation::Collective { members, action } => self.collect(warp, at, i, mask, *members, action)?,
            _ => unreachable!("runs within a fragment"),
        }
        Ok(())
    }

    /// Threads leave; the last one takes the block's shared memory with it.
    fn exit(&mut self, warp: &mut Warp, at: At, mask: Mask) -> Outcome {
        for lane in lanes(mask) {
            self.leave_bulk(warp, at, lane)?;
            self.leave_products(warp, at, lane)?;
        }
        let rank = self.rank(at.warp);
        self.blocks[rank].live -= mask.count_ones();
        self.leave_cluster(warp, mask);
        if self.blocks[rank].live > 0 {
            return Ok(());
        }
        let lane = mask.trailing_zeros() as usize;
        self.expect_no_landing(at, lane, rank)?;
        self.compare_warpgroups(at, lane, rank)?;
        let used = self.races.as_ref().and_then(|races| races.still_uses(rank, self.threads_of(rank)));
        match used {
            None => Ok(()),
            Some(conflict) => {
                let detail = format!("the block of rank {rank} may exit before another has used its shared memory");
                let mut fault = self.fault(FaultKind::AbsentBlock, at, lane, detail);
                let earlier = conflict.earlier;
                fault.earlier = Some(self.site(earlier.pc, earlier.block, earlier.thread));
                Err(fault)
            }
        }
    }

    fn arrive(&mut self, warp: &mut Warp, at: At, i: usize, mask: Mask, barrier: &Barrier) -> Outcome {
        let first = mask.trailing_zeros() as usize;
        if barrier.aligned && mask != warp.live {
            warp.fragments[i].pc = at.pc + 1;
            warp.split(i, mask, at.pc, State::Gathering);
            return Ok(());
        }
        let id = barrier.id.lane(&warp.registers, first);
        let expected = barrier.threads.map(|threads| threads.lane(&warp.registers, first));
        let rank = self.rank(at.warp);
        let Block { live, barriers, .. } = &mut self.blocks[rank];
        let live = *live;
        let Some(named) = barriers.get_mut(id as usize) else {
            return Err(self.fault(FaultKind::Undefined, at, first, format!("barrier {id}; there are {BARRIERS}")));
        };
        if named.is_idle() {
            named.expected = expected;
        } else if named.expected.unwrap_or(live) != expected.unwrap_or(live) {
            let before = named.expected.unwrap_or(live);
            let detail =
                format!("barrier {id} is for {} threads here, for {before} elsewhere", expected.unwrap_or(live));
            return Err(self.fault(FaultKind::DivergentBarrier, at, first, detail));
        }
        if let Some((predicate, negated)) = barrier.kind.predicate() {
            let set = predicate.mask(&warp.registers);
            named.set += (mask & if negated { !set } else { set }).count_ones();
        }
        let threads = || lanes(mask).map(|lane| at.thread(lane));
        warp.fragments[i].pc = at.pc + 1;
        if matches!(barrier.kind, BarrierKind::Arrive) {
            named.arrived.extend(threads());
            if let Some(races) = &mut self.races {
                threads().for_each(|thread| races.arrive(named_barrier(rank, id), thread));
            }
            warp.merge();
        } else {
            named.waiting.extend(threads());
            warp.split(i, mask, at.pc, State::AtBarrier(id));
        }
        Ok(())
    }

    /// Lets the threads go on that wait at a complete barrier; false where none is.
    fn open_barriers(&mut self) -> bool {
        let mut opened = false;
        for (rank, id) in (0..self.blocks.len()).flat_map(|rank| (0..BARRIERS).map(move |id| (rank, id))) {
            let Block { barriers, live, .. } = &mut self.blocks[rank];
            if !barriers[id].is_complete(*live) || barriers[id].waiting.is_empty() {
                continue;
            }
            let barrier = std::mem::take(&mut barriers[id]);
            if let Some(races) = &mut self.races {
                races.sync_block(named_barrier(rank, id as u32), barrier.waiting.iter().copied());
            }
            let warps = self.warps_of(rank);
            for warp in &mut self.warps[warps] {
                leave_barrier(warp, id as u32, &barrier, self.grid.kernel);
            }
            opened = true;
        }
        opened
    }
}

/// A barrier of a block among those of its cluster.
fn named_barrier(rank: usize, id: u32) -> u32 {
    rank as u32 * BARRIERS as u32 + id
}

fn leave_barrier(warp: &mut Warp, id: u32, barrier: &NamedBarrier, kernel: &Kernel) {
    let Warp { fragments, registers, .. } = warp;
    for fragment in fragments.iter_mut().filter(|fragment| fragment.state == State::AtBarrier(id)) {
        if let Operation::Barrier(operation) = &kernel.instructions[fragment.pc as usize].operation {
            let mask = fragment.mask;
            match operation.kind {
                BarrierKind::Sync | BarrierKind::Arrive => {}
                BarrierKind::Count { to, .. } => to.write(registers, [barrier.set; LANES], mask),
                BarrierKind::Any { to, .. } => to.write(registers, [barrier.set > 0; LANES], mask),
                BarrierKind::All { to, .. } => {
                    to.write(registers, [barrier.set as usize == barrier.waiting.len(); LANES], mask);
                }
            }
        }
        fragment.pc += 1;
        fragment.state = State::Running;
    }
    warp.merge();
}
