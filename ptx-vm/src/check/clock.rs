//! What a thread knows of the others: a vector clock.
//!
//! A thread's own time goes on whenever it publishes what it did (at barriers, fences and releases), so
//! `(thread, time)` names a stretch of accesses that are published together.

use std::rc::Rc;

use super::knowledge::{Knowledge, Sense, Times, later};
use crate::registers::{LANES, Mask, lanes};

/// Split by how often the parts change, so that a barrier or a warp's synchronisation touches little.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The first thread of this thread's warp.
    first: u16,
    /// Of the lanes of this warp.
    warp: [u32; LANES],
    /// Of the threads of this block in other warps; what it says of this warp is out of date.
    block: Times,
    /// Of other blocks.
    others: Knowledge,
}

impl Clock {
    /// Of a thread before its first access; it is at time 1, so that the others do not know of it.
    pub fn new(thread: u16, unknown: &Times) -> Self {
        let lane = thread as usize % LANES;
        let mut warp = [0; LANES];
        warp[lane] = 1;
        Clock { first: thread - lane as u16, warp, block: unknown.clone(), others: Knowledge::default() }
    }

    /// Until when a thread of this block is known.
    #[inline(always)]
    pub fn of_thread(&self, thread: u16) -> u32 {
        let lane = thread.wrapping_sub(self.first) as usize;
        self.warp.get(lane).copied().unwrap_or_else(|| self.block[thread as usize])
    }

    /// Until when a thread of another block is known.
    pub fn of_other(&self, block: u32, thread: u16) -> u32 {
        self.others.of_block(block).map_or(0, |times| times[thread as usize])
    }

    /// Until when a thread of any block is known in that sense.
    pub fn in_sense(&self, sense: Sense, block: u32, thread: u16) -> u32 {
        self.of_other(sense.of_block(block), thread)
    }

    /// All that the thread knows is known in that sense from now on.
    pub fn fence(&mut self, block: u32, thread: u16, sense: Sense) {
        let known = self.publish(block, thread).in_sense(sense);
        self.others.join(&known);
    }

    /// An engine of the block, which is no thread, has come to a time.
    pub fn learn_engine(&mut self, engine: u16, time: u32) {
        if self.block[engine as usize] < time {
            let mut times = self.block.to_vec();
            times[engine as usize] = time;
            self.block = times.into();
        }
    }

    /// All that a thread of `block` knows; after that it is at its next time.
    pub fn publish(&mut self, block: u32, thread: u16) -> Knowledge {
        let mut times = self.block.to_vec();
        times[self.of_warp()].copy_from_slice(&self.warp);
        let mut known = Knowledge::of(block, times.into());
        known.join(&self.others);
        self.tick(thread);
        known
    }

    /// Adds what was published, to a thread of `block`.
    pub fn learn(&mut self, block: u32, known: &Knowledge) {
        if let Some(times) = known.of_block(block) {
            raise(&mut self.warp, &times[self.first as usize..][..LANES]);
            self.block = later(&self.block, times);
        }
        self.others.join(known);
    }

    fn tick(&mut self, thread: u16) {
        self.warp[(thread - self.first) as usize] += 1;
    }

    fn of_warp(&self) -> std::ops::Range<usize> {
        self.first as usize..self.first as usize + LANES
    }
}

/// Threads of `block` that wait for each other: all learn what any of them knows, and what was published to
/// them.
pub fn meet(clocks: &mut [Clock], threads: impl Iterator<Item = u16> + Clone, block: u32, published: &Knowledge) {
    let Some(first) = threads.clone().next() else { return };
    let mut seen = clocks[first as usize].block.clone();
    let mut times = seen.to_vec();
    let mut others = published.clone();
    if let Some(published) = published.of_block(block) {
        raise(&mut times, published);
    }
    for thread in threads.clone() {
        let clock = &clocks[thread as usize];
        // Since their last barrier they mostly share it.
        if !Rc::ptr_eq(&seen, &clock.block) {
            seen = clock.block.clone();
            raise(&mut times, &seen);
        }
        raise(&mut times[clock.of_warp()], &clock.warp);
        others.join(&clock.others);
    }
    let times: Times = times.into();
    for thread in threads {
        let clock = &mut clocks[thread as usize];
        let of_warp = clock.of_warp();
        clock.warp.copy_from_slice(&times[of_warp]);
        clock.block = times.clone();
        clock.others = others.clone();
        clock.tick(thread);
    }
}

/// The same for lanes of one warp, given the warp's clocks: cheap, as the rest of the block is mostly known
/// to all lanes alike.
pub fn meet_in_warp(clocks: &mut [Clock], members: Mask) {
    let Some(first) = lanes(members).next() else { return };
    let Clock { mut warp, mut block, mut others, .. } = clocks[first].clone();
    for lane in lanes(members) {
        let clock = &clocks[lane];
        raise(&mut warp, &clock.warp);
        block = later(&block, &clock.block);
        others.join(&clock.others);
    }
    for lane in lanes(members) {
        let clock = &mut clocks[lane];
        clock.warp = warp;
        clock.warp[lane] += 1;
        if !Rc::ptr_eq(&clock.block, &block) {
            clock.block = block.clone();
        }
        clock.others = others.clone();
    }
}

fn raise(times: &mut [u32], to: &[u32]) {
    for (time, to) in times.iter_mut().zip(to) {
        *time = (*time).max(*to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 7;

    fn clocks() -> Vec<Clock> {
        let unknown: Times = Rc::new([0; 3 * LANES]);
        (0..3 * LANES as u16).map(|thread| Clock::new(thread, &unknown)).collect()
    }

    #[test]
    fn nobody_knows_of_the_others_at_first() {
        let clocks = clocks();
        assert_eq!(clocks[40].of_thread(40), 1);
        for other in [0, 39, 95] {
            assert_eq!(clocks[40].of_thread(other), 0);
        }
    }

    #[test]
    fn a_meeting_tells_all_to_its_members_only() {
        let mut clocks = clocks();
        meet(&mut clocks, [0, 33].into_iter(), BLOCK, &Knowledge::default());
        meet(&mut clocks, [33, 70].into_iter(), BLOCK, &Knowledge::default());
        assert_eq!([0, 33, 70].map(|other| clocks[70].of_thread(other)), [1, 2, 2]);
        assert_eq!([0, 33, 70].map(|other| clocks[0].of_thread(other)), [2, 1, 0]);
        assert_eq!(clocks[34].of_thread(33), 0);
    }

    #[test]
    fn a_warp_shares_what_a_lane_has_learnt() {
        let mut clocks = clocks();
        let known = clocks[70].publish(BLOCK, 70);
        clocks[1].learn(BLOCK, &known);
        meet_in_warp(&mut clocks[..LANES], 0b111);
        assert_eq!([0, 1, 2, 70].map(|other| clocks[2].of_thread(other)), [1, 1, 2, 1]);
        assert_eq!([0, 1, 2, 70].map(|other| clocks[3].of_thread(other)), [0; 4]);
        assert_eq!(clocks[70].of_thread(70), 2);
    }

    #[test]
    fn knowledge_of_other_blocks_is_handed_on() {
        let mut clocks = clocks();
        let known = clocks[5].publish(BLOCK, 5);
        let mut next = self::clocks();
        next[0].learn(BLOCK + 1, &known);
        meet(&mut next, 0..96, BLOCK + 1, &Knowledge::default());
        assert_eq!(next[95].of_other(BLOCK, 5), 1);
        assert_eq!(next[95].of_other(BLOCK, 6), 0);
        assert_eq!(next[95].of_thread(5), 1);
    }
}
