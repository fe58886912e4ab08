//! Synchronisation through memory: atomics, and fences beside them.
//!
//! A write releases what its thread knew, and a read of it acquires that, by the patterns of the PTX memory
//! model ("Release and Acquire Patterns"):
//!
//! | releases | acquires |
//! | --- | --- |
//! | `st.release [m]` | `ld.acquire [m]` |
//! | `fence; st.relaxed [m]`, what was known at the fence | `ld.relaxed [m]; fence` |
//! | `st.release [m]; st.relaxed [m]`, what was known at the first | `ld.relaxed [m]; ld.acquire [m]` |
//!
//! Read-modify-writes continue what the writes before them released, any other write ends it. Each side must
//! have the other within its scope. The order of `fence.sc` among each other is not used: it is that of one
//! run only.

use std::collections::HashMap;

use super::clock::Clock;
use super::knowledge::Knowledge;
use super::{Atomic, Place, Scope};

/// A location by its word. Two 16-bit variables in a word are taken for one.
pub type Variable = (Place, u64);

/// Who synchronises: a thread of the running block.
pub struct Member<'a> {
    pub block: u32,
    pub thread: u16,
    pub clock: &'a mut Clock,
}

#[derive(Debug, Default)]
pub struct Synchronisation {
    released: HashMap<Variable, Released>,
    /// Of the threads of the running block.
    fences: Vec<Fences>,
    /// What threads of the running block did with a variable before.
    own: HashMap<(u16, Variable), Own>,
}

/// What a read of a variable may learn.
#[derive(Debug, Default)]
struct Released {
    reach: Reach,
    /// The block that `reach.block` is for.
    block: u32,
}

#[derive(Debug, Clone, Default)]
struct Fences {
    /// What the thread knew at its last fences: the next relaxed writes release it.
    known: Reach,
    /// What relaxed reads could have learnt: the next fence does.
    pending: Reach,
}

#[derive(Debug, Default)]
struct Own {
    released: Reach,
    pending: Reach,
}

/// Knowledge by who may learn it.
#[derive(Debug, Clone, Default)]
struct Reach {
    /// Threads of the same block.
    block: Knowledge,
    /// All.
    device: Knowledge,
}

impl Reach {
    fn new(known: Knowledge, scope: Scope) -> Self {
        Reach { block: known.clone(), device: known }.within(scope)
    }

    fn within(mut self, scope: Scope) -> Self {
        if scope == Scope::Block {
            self.device = Knowledge::default();
        }
        self
    }

    fn join(&mut self, other: &Reach) {
        self.block.join(&other.block);
        self.device.join(&other.device);
    }

    fn is_empty(&self) -> bool {
        self.block.is_empty() && self.device.is_empty()
    }
}

impl Member<'_> {
    fn learn(&mut self, reach: &Reach) {
        self.clock.learn(self.block, &reach.block);
        self.clock.learn(self.block, &reach.device);
    }

    fn publish(&mut self, scope: Scope) -> Reach {
        Reach::new(self.clock.publish(self.block, self.thread), scope)
    }
}

impl Synchronisation {
    pub fn begin_launch(&mut self) {
        self.released.clear();
    }

    pub fn begin_block(&mut self, threads: usize) {
        self.own.clear();
        self.fences.clear();
        self.fences.resize(threads, Fences::default());
    }

    pub fn fence(&mut self, mut member: Member<'_>, scope: Scope) {
        let fences = &mut self.fences[member.thread as usize];
        member.learn(&fences.pending.clone().within(scope));
        if scope == Scope::Device {
            fences.pending = Reach::default();
        }
        let known = member.publish(scope);
        fences.known.join(&known);
    }

    /// The reading half of an atomic.
    pub fn read(&mut self, mut member: Member<'_>, variable: Variable, atomic: Atomic) {
        let visible = self.released.get(&variable).map(|released| released.to(member.block)).unwrap_or_default();
        let visible = visible.within(atomic.scope);
        if atomic.order.acquires() {
            member.learn(&visible);
            if let Some(own) = self.own.get(&(member.thread, variable)) {
                member.learn(&own.pending.clone().within(atomic.scope));
            }
        } else if !visible.is_empty() {
            self.fences[member.thread as usize].pending.join(&visible);
            self.own.entry((member.thread, variable)).or_default().pending.join(&visible);
        }
    }

    /// The writing half of an atomic; a store has ended what was released before.
    pub fn write(&mut self, mut member: Member<'_>, variable: Variable, atomic: Atomic) {
        let published = if atomic.order.releases() {
            let published = member.publish(atomic.scope);
            self.own.entry((member.thread, variable)).or_default().released.join(&published);
            published
        } else {
            let mut published = self.fences[member.thread as usize].known.clone();
            if let Some(own) = self.own.get(&(member.thread, variable)) {
                published.join(&own.released);
            }
            published.within(atomic.scope)
        };
        if !published.is_empty() {
            self.released.entry(variable).or_default().add(member.block, &published);
        }
    }

    /// A write that is not a read-modify-write took the place of those before.
    pub fn end(&mut self, variable: Variable) {
        self.released.remove(&variable);
    }
}

impl Released {
    fn to(&self, block: u32) -> Reach {
        let same = if self.block == block { self.reach.block.clone() } else { Knowledge::default() };
        Reach { block: same, device: self.reach.device.clone() }
    }

    fn add(&mut self, block: u32, published: &Reach) {
        if self.block != block {
            self.block = block;
            self.reach.block = Knowledge::default();
        }
        self.reach.join(published);
    }
}
