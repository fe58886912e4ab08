//! Runs decoded kernels: an operation of one warp at a time.

mod access;
mod atomic;
mod barrier;
mod block;
mod bulk;
mod bulk_store;
mod cluster;
mod cluster_barrier;
mod collective;
mod copies;
mod fence;
mod location;
mod matrix_descriptor;
mod mbarrier;
mod products;
mod random;
mod report;
mod tensor;
mod under_way;
mod warp;
mod wgmma;

pub use crate::check::{Order, Scope, Sense};
use crate::memory::Space;
use crate::registers::{Mask, Reg, Registers, Slot};

pub use atomic::AtomicKind;
pub use barrier::BarrierKind;
pub use bulk::{BulkLoad, Source};
pub use bulk_store::BulkStore;
pub use cluster::{Cluster, Grid};
pub use collective::{Reduction, Shuffle, Vote};
pub use mbarrier::{Mbarrier, MbarrierAction, MbarrierWait, Phase};
pub use tensor::{Accumulator, Factor, Multiply};
pub use under_way::Touched;
pub use wgmma::{MatrixA, MultiplyAsync};

/// Engines of a block ([`crate::check`]): the mbarriers, threads and warps that most kernels have at work at once.
pub const ENGINES: usize = 64;

/// Changes the registers of the lanes in a mask.
pub type Lanewise = Box<dyn Fn(&mut Registers, Mask) + Send + Sync>;

/// What one instruction does to a warp.
pub enum Operation {
    /// Touches nothing but registers.
    Lanewise(Lanewise),
    /// To the instruction of that number.
    Branch(u32),
    BranchTable {
        index: Reg<u32>,
        targets: Box<[u32]>,
    },
    Exit,
    Trap,
    /// A hint.
    Nothing,
    Load(Box<Load>),
    Store(Box<Store>),
    Atomic(Box<Atomic>),
    Fence(Scope),
    Barrier(Box<Barrier>),
    ActiveMask(Reg<u32>),
    /// Waits for the lanes of `members`, or for the whole warp where there are none.
    Collective {
        members: Option<Reg<u32>>,
        action: Box<Collective>,
    },
    Copy(Box<Copy>),
    CommitCopies,
    /// Until at most so many groups are under way; None waits for what is not in a group too.
    WaitForCopies(Option<u32>),
    Mbarrier(Box<Mbarrier>),
    MbarrierWait(Box<MbarrierWait>),
    BulkLoad(Box<BulkLoad>),
    BulkStore(Box<BulkStore>),
    CommitBulk,
    /// Until at most so many groups of bulk copies are under way, or only have not been read.
    WaitForBulk {
        groups: u32,
        read: bool,
    },
    /// For what was done before, as far as the asynchronous proxy is concerned.
    FenceProxy(&'static [Sense]),
    ClusterArrive {
        releases: bool,
    },
    ClusterWait {
        acquires: bool,
    },
}

/// `[base+offset]` in a space.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    pub space: Space,
    /// A word or a double.
    pub base: Slot,
    pub offset: i64,
}

#[derive(Debug)]
pub struct Load {
    pub address: Address,
    pub to: Vec<Slot>,
    /// Bytes of an element.
    pub size: usize,
    /// Whether narrow elements are sign-extended.
    pub signed: bool,
    /// None for a plain load.
    pub order: Option<Order>,
    pub scope: Scope,
}

#[derive(Debug)]
pub struct Store {
    pub address: Address,
    pub from: Vec<Slot>,
    /// Bytes of an element.
    pub size: usize,
    /// None for a plain store.
    pub order: Option<Order>,
    pub scope: Scope,
}

/// Reads, applies `kind` and writes, in one step.
#[derive(Debug)]
pub struct Atomic {
    pub address: Address,
    pub kind: AtomicKind,
    /// Bytes.
    pub size: usize,
    /// The old value; None for `red`.
    pub to: Option<Slot>,
    pub operand: Slot,
    /// The new value of a compare-and-swap.
    pub swap: Option<Slot>,
    pub order: Order,
    pub scope: Scope,
}

#[derive(Debug)]
pub struct Barrier {
    pub kind: BarrierKind,
    pub id: Reg<u32>,
    /// Threads that take part; None for all of the block.
    pub threads: Option<Reg<u32>>,
    /// Whether the threads of a warp must come together.
    pub aligned: bool,
}

/// What lanes do together.
#[derive(Debug)]
pub enum Collective {
    SyncWarp,
    Shuffle {
        kind: Shuffle,
        to: Reg<u32>,
        within: Option<Reg<bool>>,
        from: Reg<u32>,
        lane: Reg<u32>,
        clamp: Reg<u32>,
    },
    Vote {
        kind: Vote,
        predicate: Reg<bool>,
        negated: bool,
    },
    /// One of them, always the first.
    Elect {
        to: Reg<u32>,
        elected: Reg<bool>,
    },
    /// `all`: whether all agree, and the mask if they do.
    Match {
        to: Reg<u32>,
        all: Option<Reg<bool>>,
        agree: bool,
        value: Slot,
    },
    Reduce {
        kind: Reduction,
        to: Reg<u32>,
        from: Reg<u32>,
    },
    LoadMatrix {
        to: Vec<Reg<u32>>,
        transposed: bool,
        address: Address,
    },
    StoreMatrix {
        from: Vec<Reg<u32>>,
        transposed: bool,
        address: Address,
    },
    Multiply(Multiply),
    MultiplyAsync(Box<MultiplyAsync>),
    FenceMultiply,
    CommitMultiply,
    /// Until at most so many groups of products are under way.
    WaitForMultiply(u32),
}

/// `cp.async`: `bytes` at `to`, of which the first `from_bytes` are copied and the rest set to 0.
#[derive(Debug)]
pub struct Copy {
    pub to: Address,
    pub from: Address,
    pub bytes: u32,
    pub from_bytes: Option<Reg<u32>>,
}
