//! The same rules without any economy, and random programs on which both must agree: each thread has a clock
//! over all threads of the launch that every step advances, and every access is remembered.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// The threads that take part, in each block.
const THREADS: [u16; 4] = [0, 1, 32, 64];
const THREADS_PER_BLOCK: usize = 65;
const BLOCKS: usize = 3;

type Vector = [u32; BLOCKS * THREADS.len()];

/// What one thread of `THREADS`, by its index, or some of them, by mask, do next.
#[derive(Debug, Clone)]
enum Step {
    Access {
        thread: usize,
        place: Place,
        offset: u64,
        size: u64,
        kind: Kind,
    },
    Fence {
        thread: usize,
        scope: Scope,
    },
    Arrive {
        barrier: u32,
        thread: usize,
    },
    SyncBlock {
        barrier: u32,
        threads: u8,
    },
    /// The first two threads share a warp.
    SyncWarp,
}

/// A remembered access to a word.
struct Event {
    actor: usize,
    time: u32,
    variable: (Place, u64),
    bytes: u16,
    kind: Kind,
    /// Who read what this one wrote: actor and time.
    observers: Vec<(usize, u32)>,
}

/// Something that a read can learn.
#[derive(Clone)]
struct Released {
    block: usize,
    scope: Scope,
    known: Vector,
}

#[derive(Default)]
struct Naive {
    events: Vec<Event>,
    chains: HashMap<(Place, u64), Chain>,
    arrivals: HashMap<u32, Vec<Vector>>,
    actors: Vec<Actor>,
}

/// Strong writes of a location that a read now would observe.
#[derive(Default)]
struct Chain {
    events: Vec<usize>,
    released: Vec<Released>,
}

#[derive(Default)]
struct Actor {
    clock: Vector,
    fences: Vec<Released>,
    /// Released by this thread, by location.
    released: Vec<((Place, u64), Released)>,
    /// Seen by its relaxed reads, by location.
    pending: Vec<((Place, u64), Released)>,
}

impl Released {
    fn reaches(&self, block: usize, scope: Scope) -> bool {
        self.block == block || self.scope == Scope::Device && scope == Scope::Device
    }
}

fn raise(clock: &mut Vector, known: &Vector) {
    for (time, known) in clock.iter_mut().zip(known) {
        *time = (*time).max(*known);
    }
}

fn block_of(actor: usize) -> usize {
    actor / THREADS.len()
}

fn atomic(kind: Kind) -> Option<Atomic> {
    match kind {
        Kind::Atomic(atomic) => Some(atomic),
        _ => None,
    }
}

fn writes(kind: Kind) -> bool {
    match kind {
        Kind::Read => false,
        Kind::Write { .. } => true,
        Kind::Atomic(atomic) => atomic.writes(),
    }
}

impl Naive {
    fn new() -> Self {
        Naive { actors: (0..BLOCKS * THREADS.len()).map(|_| Actor::default()).collect(), ..Naive::default() }
    }

    fn step(&mut self, actor: usize) -> &mut Actor {
        let actor_state = &mut self.actors[actor];
        actor_state.clock[actor] += 1;
        actor_state
    }

    /// The events that an access to a word conflicts with.
    fn conflicts(&self, actor: usize, variable: (Place, u64), bytes: u16, kind: Kind) -> Vec<usize> {
        let knows = |(other, time): (usize, u32)| self.actors[actor].clock[other] >= time;
        let agree = |event: &Event| match (atomic(event.kind), atomic(kind)) {
            (Some(a), Some(b)) => {
                block_of(event.actor) == block_of(actor) || a.scope == Scope::Device && b.scope == Scope::Device
            }
            _ => false,
        };
        let is_conflict = |event: &Event| {
            let in_reach = variable.0 != Place::Shared || block_of(event.actor) == block_of(actor);
            let ordered = knows((event.actor, event.time)) || event.observers.iter().any(|observer| knows(*observer));
            let touches = event.variable == variable && event.bytes & bytes != 0 && in_reach;
            touches && (writes(event.kind) || writes(kind)) && !agree(event) && !ordered
        };
        (0..self.events.len()).filter(|event| is_conflict(&self.events[*event])).collect()
    }

    /// The reading half of an atomic, before its access is checked.
    fn acquire(&mut self, actor: usize, variable: (Place, u64), atomic: Atomic) {
        let block = block_of(actor);
        let chain = self.chains.entry(variable).or_default();
        let visible: Vec<Released> =
            chain.released.iter().filter(|released| released.reaches(block, atomic.scope)).cloned().collect();
        let state = &mut self.actors[actor];
        if atomic.order.acquires() {
            let before = state.pending.iter().filter(|(of, _)| *of == variable).map(|(_, released)| released);
            for released in visible.iter().chain(before).filter(|released| released.reaches(block, atomic.scope)) {
                raise(&mut state.clock, &released.known);
            }
        } else {
            state.pending.extend(visible.into_iter().map(|released| (variable, released)));
        }
    }

    fn record(&mut self, actor: usize, variable: (Place, u64), bytes: u16, kind: Kind) {
        let time = self.actors[actor].clock[actor];
        let index = self.events.len();
        self.events.push(Event { actor, time, variable, bytes, kind, observers: Vec::new() });
        let chain = self.chains.entry(variable).or_default();
        if atomic(kind).is_some_and(Atomic::reads) {
            for event in &chain.events {
                self.events[*event].observers.push((actor, time));
            }
        }
        if writes(kind) {
            if !atomic(kind).is_some_and(|atomic| atomic.action == Action::Update) {
                *chain = Chain::default();
            }
            if atomic(kind).is_some() {
                chain.events.push(index);
            }
        }
    }

    /// The writing half of an atomic, after its access was recorded.
    fn release(&mut self, actor: usize, variable: (Place, u64), atomic: Atomic) {
        let block = block_of(actor);
        let state = &mut self.actors[actor];
        if atomic.order.releases() {
            let released = Released { block, scope: atomic.scope, known: state.clock };
            state.released.push((variable, released));
        }
        let own = state.released.iter().filter(|(of, _)| *of == variable).map(|(_, released)| released);
        let published = own.chain(&state.fences).map(|released| {
            let scope = if released.scope == Scope::Device { atomic.scope } else { Scope::Block };
            Released { scope, ..released.clone() }
        });
        self.chains.entry(variable).or_default().released.extend(published);
    }

    fn fence(&mut self, actor: usize, scope: Scope) {
        let block = block_of(actor);
        let state = self.step(actor);
        for (_, released) in state.pending.iter().filter(|(_, released)| released.reaches(block, scope)) {
            raise(&mut state.clock, &released.known);
        }
        let known = state.clock;
        state.fences.push(Released { block, scope, known });
    }

    fn arrive(&mut self, barrier: u32, actor: usize) {
        let known = self.step(actor).clock;
        self.arrivals.entry(barrier).or_default().push(known);
    }

    fn sync(&mut self, actors: &[usize], arrived: Vec<Vector>) {
        let mut joined = Vector::default();
        for actor in actors {
            raise(&mut joined, &self.step(*actor).clock);
        }
        for known in &arrived {
            raise(&mut joined, known);
        }
        for actor in actors {
            raise(&mut self.actors[*actor].clock, &joined);
        }
    }

    /// Whether the shadow memory promises to find the conflict of an event with an access.
    fn is_kept(&self, event: usize, kind: Kind) -> bool {
        let kept = &self.events[event];
        let class = |kind: Kind| (writes(kind), writes(kind) && atomic(kind).is_some());
        let mates = |events: std::ops::Range<usize>, of: (bool, bool)| {
            events.filter(|i| self.events[*i].variable == kept.variable && class(self.events[*i].kind) == of).count()
        };
        let own = class(kept.kind);
        let after = mates(event + 1..self.events.len(), own);
        let reads = mates(event + 1..self.events.len(), (false, false));
        let before = mates(0..event, own);
        let is_strong_write = own == (true, true);
        // Then the write stands for it, and is found if it is kept itself.
        let is_overwritten = self.events[event + 1..].iter().any(|later| {
            let touches = later.variable == kept.variable && later.bytes & kept.bytes != 0;
            touches && class(later.kind) == (true, false)
        });
        let is_of_scopes = atomic(kept.kind).and(atomic(kind)).is_some();
        !is_overwritten
            && (after == 0 || after == 1 && before == 0 && !is_of_scopes)
            && (!is_strong_write || reads == 0 || reads == 1 && after == 0)
    }
}

struct Both {
    races: Races,
    naive: Naive,
    conflicts: u32,
    missed: bool,
}

impl Both {
    fn run(&mut self, block: usize, pc: u32, step: &Step) -> Result<(), TestCaseError> {
        let actor = |thread: usize| block * THREADS.len() + thread;
        match *step {
            Step::Access { thread, place, offset, size, kind } => {
                self.access(actor(thread), place, (offset, size), Access { thread: THREADS[thread], pc, kind })?;
            }
            Step::Fence { thread, scope } => {
                self.races.fence(THREADS[thread], scope);
                self.naive.fence(actor(thread), scope);
            }
            Step::Arrive { barrier, thread } => {
                self.races.arrive(barrier, THREADS[thread]);
                self.naive.arrive(barrier, actor(thread));
            }
            Step::SyncBlock { barrier, threads } => {
                let members = (0..THREADS.len()).filter(move |thread| threads >> thread & 1 != 0);
                self.races.sync_block(barrier, members.clone().map(|thread| THREADS[thread]));
                let arrived = if threads == 0 { None } else { self.naive.arrivals.remove(&barrier) };
                self.naive.sync(&members.map(actor).collect::<Vec<_>>(), arrived.unwrap_or_default());
            }
            Step::SyncWarp => {
                self.races.sync_warp(0, 0b11);
                self.naive.sync(&[actor(0), actor(1)], Vec::new());
            }
        }
        Ok(())
    }

    fn access(
        &mut self,
        actor: usize,
        place: Place,
        (offset, size): (u64, u64),
        access: Access,
    ) -> Result<(), TestCaseError> {
        let found = self.races.access(place, offset, size, access);
        self.naive.step(actor);
        let variable = (place, offset / 4);
        if let Some(atomic) = atomic(access.kind).filter(|atomic| atomic.reads()) {
            self.naive.acquire(actor, variable, atomic);
        }
        for (word, bytes) in words(offset, size) {
            let variable = (place, word as u64);
            let conflicts = self.naive.conflicts(actor, variable, bytes, access.kind);
            match found {
                Err(conflict) if conflict.offset == word as u64 * 4 => {
                    let is_earlier = |event: &usize| {
                        let event = &self.naive.events[*event];
                        let thread = THREADS[event.actor % THREADS.len()];
                        (block_of(event.actor) as u64, thread) == (conflict.earlier.block, conflict.earlier.thread)
                    };
                    prop_assert!(conflicts.iter().any(is_earlier), "false alarm: {access:?}, {conflict:?}");
                    self.conflicts += 1;
                    return Ok(());
                }
                _ => {}
            }
            let kept = conflicts.iter().find(|event| self.naive.is_kept(**event, access.kind));
            prop_assert!(kept.is_none(), "missed: {access:?}, conflicts with event {kept:?}");
            self.missed |= !conflicts.is_empty();
            self.naive.record(actor, variable, bytes, access.kind);
        }
        if let Some(atomic) = atomic(access.kind).filter(|atomic| atomic.writes()) {
            self.naive.release(actor, variable, atomic);
        }
        Ok(())
    }
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![1 => Just(Scope::Block), 3 => Just(Scope::Device)]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![3 => Just(Place::Global { buffer: 0 }), 1 => Just(Place::Shared)]
}

fn plain_access() -> impl Strategy<Value = Step> {
    let bytes = prop::sample::select(vec![(0, 4), (0, 4), (4, 4), (0, 2), (2, 2), (0, 8), (3, 1)]);
    (0..THREADS.len(), place(), bytes, any::<bool>()).prop_map(|(thread, place, (offset, size), is_write)| {
        let kind = if is_write { Kind::Write { repeats: false } } else { Kind::Read };
        Step::Access { thread, place, offset, size, kind }
    })
}

fn strong_access() -> impl Strategy<Value = Step> {
    let action = prop::sample::select(vec![Action::Load, Action::Store, Action::Update, Action::Update]);
    let order = prop::sample::select(vec![Order::Relaxed, Order::Acquire, Order::Release, Order::AcquireRelease]);
    (0..THREADS.len(), place(), any::<bool>(), action, order, scope()).prop_map(
        |(thread, place, second, action, order, scope)| {
            let kind = Kind::Atomic(Atomic { action, order, scope });
            Step::Access { thread, place, offset: if second { 4 } else { 0 }, size: 4, kind }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => plain_access(),
        5 => strong_access(),
        3 => (0..THREADS.len(), scope()).prop_map(|(thread, scope)| Step::Fence { thread, scope }),
        1 => (0..2_u32, 0..THREADS.len()).prop_map(|(barrier, thread)| Step::Arrive { barrier, thread }),
        2 => (0..2_u32, 1..16_u8).prop_map(|(barrier, threads)| Step::SyncBlock { barrier, threads }),
        1 => Just(Step::SyncWarp),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// No false alarm, and no race missed that the shadow memory promises to find. After a conflict both go
    /// on as if the access had not been made; after one that may be missed nothing more is promised.
    #[test]
    fn agrees_with_the_naive_model(launches in vec(vec(vec(step(), 0..24), 1..=BLOCKS), 2)) {
        let mut races = Races::default();
        races.allocate(0, 8);
        let mut both = Both { races, naive: Naive::new(), conflicts: 0, missed: false };
        for launch in launches {
            both.races.begin_launch(THREADS_PER_BLOCK, 0);
            both.naive = Naive::new();
            for (block, steps) in launch.iter().enumerate() {
                both.races.begin_block(block as u64, 8);
                both.naive.arrivals.clear();
                both.naive.chains.retain(|(place, _), _| *place != Place::Shared);
                for (pc, step) in steps.iter().enumerate() {
                    both.run(block, pc as u32, step)?;
                    if both.missed {
                        return Ok(());
                    }
                }
            }
        }
    }
}
