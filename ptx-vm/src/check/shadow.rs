//! The last accesses of each word, and whether a new access conflicts with one of them.
//!
//! Kept of a word are:
//!
//! - plain writes, the two last ones that wrote different bytes;
//! - reads and strong writes, two each: the last one, and of those not ordered before it the one that was
//!   made farthest away (in another block rather than in another warp, in another warp rather than in this one).
//!
//! What is kept stands for what was dropped wherever the dropped access is ordered before the kept one. So a
//! race can be missed only
//!
//! - where three accesses of one of these kinds, none ordered before another, meet in a word: with the one that
//!   is dropped;
//! - with a strong write that was read before the next strong write, or of whose reads one is dropped: it may
//!   be ordered before the access by what that read saw;
//! - between strong accesses of too narrow a scope, where blocks have used wider and narrower ones on the word.
//!
//! There are no false alarms.

use super::clock::Clock;
use super::knowledge::Sense;
use crate::registers::LANES;

/// An access as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Counted over all launches, from 1, so that stamps need not be cleared.
    pub block: u32,
    /// Of the thread's clock.
    pub time: u32,
    pub pc: u32,
    pub thread: u16,
    /// The bytes of the word, one bit each, and the flags below.
    pub bits: u16,
}

const BYTES: u16 = 0b1111;
pub const WRITE: u16 = 1 << 4;
/// An atomic or volatile access.
pub const STRONG: u16 = 1 << 5;
/// A strong access whose scope is its block.
pub const IN_BLOCK: u16 = 1 << 6;
/// A strong write that also reads. Of new accesses only.
pub const UPDATE: u16 = 1 << 7;
/// A write of what the other lanes of the same instruction write here too. Of new accesses only.
pub const REPEATS: u16 = 1 << 8;
/// The write of an asynchronous copy that is under way.
pub const COPY: u16 = 1 << 9;
/// An access of an engine: by the asynchronous proxy.
pub const ASYNC: u16 = 1 << 14;
/// A read before the last strong write.
const STALE: u16 = 1 << 10;
/// A strong write whose value was read by a read that was dropped.
const SEEN: u16 = 1 << 11;
/// On the plain write in front: there is something behind.
const MORE: u16 = 1 << 12;
/// On the plain write in front: there is something other than a read behind.
const MORE_WRITES: u16 = 1 << 13;

/// As stored: zeroes, which are no access, come from the operating system without being written.
type Packed = [u32; 4];

impl Stamp {
    const NONE: Stamp = Stamp { block: 0, time: 0, pc: 0, thread: 0, bits: 0 };

    #[inline(always)]
    fn pack(self) -> Packed {
        [self.block, self.time, self.pc, (self.thread as u32) << 16 | self.bits as u32]
    }

    #[inline(always)]
    fn unpack([block, time, pc, rest]: Packed) -> Self {
        Stamp { block, time, pc, thread: (rest >> 16) as u16, bits: rest as u16 }
    }

    #[inline(always)]
    pub fn has(self, flag: u16) -> bool {
        self.bits & flag != 0
    }

    #[inline(always)]
    fn bytes(self) -> u16 {
        self.bits & BYTES
    }

    #[inline(always)]
    fn overlaps(self, other: Stamp) -> bool {
        self.bits & other.bits & BYTES != 0
    }

    /// Without what matters of new accesses only.
    #[inline(always)]
    fn kept(self) -> Self {
        self.without(UPDATE | REPEATS)
    }

    #[inline(always)]
    fn without(self, bytes: u16) -> Self {
        Stamp { bits: self.bits & !bytes, ..self }
    }

    /// Whether both are strong and within each other's scope ("morally strong").
    fn agrees(self, other: Stamp) -> bool {
        let in_scope = self.block == other.block || !(self.has(IN_BLOCK) || other.has(IN_BLOCK));
        self.has(STRONG) && other.has(STRONG) && in_scope
    }

    /// Whether every access that conflicts with `old` would also conflict with this one, were both unordered
    /// with it; both are reads or both are writes. (Another block's strong access has its own reach; that is
    /// not looked at.)
    #[inline(always)]
    fn covers(self, old: Stamp) -> bool {
        let as_strict = !self.has(STRONG) || old.has(STRONG) && (self.has(IN_BLOCK) || !old.has(IN_BLOCK));
        old.bytes() & !self.bytes() == 0 && as_strict
    }

    #[inline(always)]
    fn is_published_with(self, other: Stamp) -> bool {
        let kind = WRITE | STRONG | IN_BLOCK | COPY;
        (self.block, self.thread, self.time) == (other.block, other.thread, other.time)
            && self.bits & kind == other.bits & kind
    }

    /// Whether another lane of the same instruction wrote the same.
    fn repeats(self, old: Stamp) -> bool {
        let place = |stamp: Stamp| (stamp.block, stamp.pc, stamp.thread as usize / LANES);
        self.has(REPEATS) && place(self) == place(old)
    }

    #[inline(always)]
    fn distance(self, other: Stamp) -> u32 {
        match (self.block == other.block, self.thread as usize / LANES == other.thread as usize / LANES) {
            (false, _) => 2,
            (true, false) => 1,
            (true, true) => 0,
        }
    }
}

/// The thread that makes an access.
pub struct Observer<'a> {
    pub clock: &'a Clock,
    pub block: u32,
    /// The first block whose accesses count; all before it are over.
    pub since: u32,
}

impl Observer<'_> {
    /// An access that the thread makes now.
    #[inline(always)]
    pub fn stamp(&self, thread: u16, pc: u32, bits: u16) -> Stamp {
        Stamp { block: self.block, time: self.clock.of_thread(thread), pc, thread, bits }
    }

    /// Whether the thread knows that an access of a block that counts was made.
    #[inline(always)]
    fn knows(&self, stamp: Stamp) -> bool {
        if stamp.block == self.block {
            self.clock.of_thread(stamp.thread) >= stamp.time
        } else {
            self.clock.of_other(stamp.block, stamp.thread) >= stamp.time
        }
    }

    /// Whether an access is known in that sense.
    pub fn knows_in(&self, sense: Sense, stamp: Stamp) -> bool {
        self.clock.in_sense(sense, stamp.block, stamp.thread) >= stamp.time
    }

    #[inline(always)]
    fn load(&self, packed: Packed) -> Stamp {
        let stamp = Stamp::unpack(packed);
        if stamp.block >= self.since { stamp } else { Stamp { bits: stamp.bits & (MORE | MORE_WRITES), ..Stamp::NONE } }
    }
}

/// The last accesses of each word of a buffer or of shared memory.
#[derive(Debug, Default)]
pub struct Shadow {
    /// A plain write and a read: all there is of most words.
    front: Vec<[Packed; 2]>,
    /// Another plain write, another read and two strong writes; of meaning only where the plain write in front
    /// has [`MORE`].
    back: Vec<[Packed; 4]>,
}

/// Where the other read is behind.
const OTHER_READ: usize = 1;

/// The last accesses of one word.
#[derive(Debug, Clone, Copy)]
struct Word {
    writes: [Stamp; 2],
    reads: [Stamp; 2],
    /// The first one is the last that was made.
    strong: [Stamp; 2],
}

impl Shadow {
    pub fn new(bytes: usize) -> Self {
        let words = bytes.div_ceil(4);
        Shadow { front: vec![[[0; 4]; 2]; words], back: vec![[[0; 4]; 4]; words] }
    }

    pub fn bytes(&self) -> usize {
        self.front.len() * 4
    }

    /// Checks an access to a word against those before, and keeps it. Says whether it is a write that took the
    /// place of a strong one without continuing it; the error is the access that it conflicts with.
    #[inline(always)]
    pub fn access(&mut self, at: usize, new: Stamp, observer: &Observer<'_>) -> Result<bool, Stamp> {
        let is_done =
            if new.has(WRITE) { self.quick_write(at, new, observer) } else { self.quick_read(at, new, observer) };
        if is_done { Ok(false) } else { self.any_access(at, new, observer) }
    }

    /// Keeps the write of a copy that has landed, in place of its mark.
    pub fn landed(&mut self, at: usize, new: Stamp) {
        self.front[at] = [new.pack(), Stamp::NONE.pack()];
    }

    /// Of what was written to the bytes of `new`, which engines read or write next, something that they may not see.
    pub fn unfenced(&self, at: usize, new: Stamp, sense: Sense, observer: &Observer<'_>) -> Option<Stamp> {
        let front = observer.load(self.front[at][0]);
        if front.has(ASYNC) && !front.has(MORE_WRITES) || front.bits == 0 {
            return None;
        }
        let Word { writes, strong, .. } = self.load(at, observer);
        let is_unseen = |old: &Stamp| old.overlaps(new) && !old.has(ASYNC) && !observer.knows_in(sense, *old);
        writes.into_iter().chain(strong).find(is_unseen)
    }

    fn any_access(&mut self, at: usize, new: Stamp, observer: &Observer<'_>) -> Result<bool, Stamp> {
        let word = self.load(at, observer);
        if let Some(old) = word.conflict(new, observer) {
            return Err(old);
        }
        let (word, ends) = word.with(new, observer);
        self.store(at, word);
        Ok(ends)
    }

    /// A plain read of a word with one plain write at most, which does what `any_access` would; false where
    /// there may be more to it.
    #[inline(always)]
    fn quick_read(&mut self, at: usize, new: Stamp, observer: &Observer<'_>) -> bool {
        let [mut write, read] = self.front[at].map(|packed| observer.load(packed));
        let is_unordered = write.overlaps(new) && !observer.knows(write);
        if is_unordered || write.has(MORE_WRITES | COPY) || new.has(STRONG) {
            return false;
        }
        let other = if write.has(MORE) { observer.load(self.back[at][OTHER_READ]) } else { Stamp::NONE };
        let ([first, second], _) = keep([read, other], new, observer);
        if second != other {
            if !write.has(MORE) {
                write.bits |= MORE;
                self.back[at] = [[0; 4]; 4];
                self.front[at][0] = write.pack();
            }
            self.back[at][OTHER_READ] = second.pack();
        }
        self.front[at][1] = first.pack();
        true
    }

    /// A plain write to all bytes that were accessed before, likewise.
    #[inline(always)]
    fn quick_write(&mut self, at: usize, new: Stamp, observer: &Observer<'_>) -> bool {
        let [write, read] = self.front[at].map(|packed| observer.load(packed));
        if write.has(MORE_WRITES | COPY) || new.has(STRONG) {
            return false;
        }
        let other = if write.has(MORE) { observer.load(self.back[at][OTHER_READ]) } else { Stamp::NONE };
        if ![write, read, other].into_iter().all(|old| is_replaced(old, new, observer)) {
            return false;
        }
        self.front[at] = [new.kept().pack(), Stamp::NONE.pack()];
        true
    }

    #[inline(always)]
    fn load(&self, at: usize, observer: &Observer<'_>) -> Word {
        let [write, read] = self.front[at].map(|packed| observer.load(packed));
        let [other_write, other_read, last, strong] =
            if write.has(MORE) { self.back[at].map(|packed| observer.load(packed)) } else { [Stamp::NONE; 4] };
        Word {
            writes: [write.without(MORE | MORE_WRITES), other_write],
            reads: [read, other_read],
            strong: [last, strong],
        }
    }

    #[inline(always)]
    fn store(&mut self, at: usize, word: Word) {
        let Word { writes: [mut write, other_write], reads: [read, other_read], strong: [last, strong] } = word;
        let rest = [other_write, other_read, last, strong];
        if rest.iter().any(|stamp| stamp.bytes() != 0) {
            write.bits |= MORE;
            self.back[at] = rest.map(Stamp::pack);
        }
        if [other_write, last, strong].iter().any(|stamp| stamp.bytes() != 0) {
            write.bits |= MORE_WRITES;
        }
        self.front[at] = [write.pack(), read.pack()];
    }
}

impl Word {
    fn conflict(&self, new: Stamp, observer: &Observer<'_>) -> Option<Stamp> {
        let unordered = |old: Stamp| old.overlaps(new) && !observer.knows(old);
        let with_write = |old: &&Stamp| old.overlaps(new) && old.has(COPY) || unordered(**old) && !new.repeats(**old);
        let with_strong = |old: &&Stamp| unordered(**old) && !old.agrees(new);
        let with_read = |old: &&Stamp| new.has(WRITE) && unordered(**old) && !old.agrees(new);

        let [last, strong] = &self.strong;
        let past_last = || last.has(SEEN) || self.has_read(*last, new, observer);
        None.or_else(|| self.writes.iter().find(with_write))
            .or_else(|| Some(last).filter(with_strong).filter(|_| !past_last()))
            .or_else(|| Some(strong).filter(with_strong))
            .or_else(|| self.reads.iter().find(with_read))
            .copied()
    }

    /// Whether the thread knows of a read that saw the last strong write. That alone orders the write (and
    /// nothing that its thread did before it) before the thread's next access: "causality order" begins with a
    /// step of "observation order".
    fn has_read(&self, last: Stamp, new: Stamp, observer: &Observer<'_>) -> bool {
        let is_witness = |read: &Stamp| read.overlaps(last) && read.overlaps(new) && !read.has(STALE);
        self.reads.iter().any(|read| is_witness(read) && observer.knows(*read))
    }

    /// The word after an access that conflicts with nothing, and whether that ended a chain of strong writes.
    fn with(mut self, new: Stamp, observer: &Observer<'_>) -> (Word, bool) {
        let kept = new.kept();
        let ends = new.has(WRITE) && !new.has(UPDATE) && self.strong[0].overlaps(new);
        match (new.has(WRITE), new.has(STRONG)) {
            (false, _) => self.add_read(kept, observer),
            (true, false) => self.add_write(kept, observer),
            (true, true) => self.add_strong(kept, new.has(UPDATE), observer),
        }
        (self, ends)
    }

    fn add_read(&mut self, new: Stamp, observer: &Observer<'_>) {
        let (reads, dropped) = keep(self.reads, new, observer);
        self.reads = reads;
        if self.strong[0].bytes() != 0 && dropped.bytes() != 0 && !dropped.has(STALE) {
            self.strong[0].bits |= SEEN;
        }
    }

    /// All that was done to the bytes is ordered before the write, and conflicts with no more than it does.
    fn add_write(&mut self, new: Stamp, observer: &Observer<'_>) {
        let without = |stamp: Stamp| stamp.without(new.bytes());
        self.writes = keep(self.writes.map(without), new, observer).0;
        self.reads = self.reads.map(without);
        self.strong = self.strong.map(without);
    }

    fn add_strong(&mut self, new: Stamp, is_update: bool, observer: &Observer<'_>) {
        let [last, other] = self.strong;
        // Whoever comes after an update comes after what it read.
        let continued = is_update && new.overlaps(last);
        // Once read, it may be ordered before later accesses in ways that are not kept once it is not the last.
        let read = self.reads.iter().any(|read| read.overlaps(last) && !read.has(STALE));
        let last = if continued || read { Stamp::NONE } else { last };
        self.strong = keep([last, other], new, observer).0;
        for read in &mut self.reads {
            read.bits |= STALE;
        }
    }
}

/// Whether every access that conflicts with `old` conflicts with the new one, which is ordered after it.
#[inline(always)]
fn is_replaced(old: Stamp, new: Stamp, observer: &Observer<'_>) -> bool {
    old.bytes() == 0 || new.covers(old) && observer.knows(old)
}

/// Of two accesses and a new one of the same kind the two to keep, the new one first, and the one dropped.
#[inline(always)]
fn keep([first, second]: [Stamp; 2], new: Stamp, observer: &Observer<'_>) -> ([Stamp; 2], Stamp) {
    if first.is_published_with(new) {
        ([Stamp { bits: new.bits | first.bytes(), ..new }, second], Stamp::NONE)
    } else if is_replaced(first, new, observer) {
        ([new, second], first)
    } else if is_replaced(second, new, observer) || first.distance(new) >= second.distance(new) {
        ([new, first], second)
    } else {
        ([new, second], first)
    }
}
