//! What kernels do: the patterns that must pass, and the same with a step missing, which must not.

use super::*;

const THREADS: u16 = 64;
const PARTIALS: Place = Place::Global { buffer: 0 };
const TICKET: (Place, u64) = (Place::Global { buffer: 1 }, 4);
/// Program counters of atomics, and of the plain store that sets the ticket back.
const DRAW: u32 = 10;
const RESET: u32 = 20;

fn races() -> Races {
    let mut races = Races::default();
    races.allocate(0, 1 << 20);
    races.allocate(1, 64);
    races.begin_launch(THREADS as usize, 0);
    races.begin_block(0, 256);
    races
}

type Found = Result<(), Conflict>;

fn plain(races: &mut Races, place: Place, offset: u64, size: u64, thread: u16, is_write: bool) -> Found {
    let kind = if is_write { Kind::Write { repeats: false } } else { Kind::Read };
    races.access(place, offset, size, Access { thread, pc: thread as u32, kind })
}

fn read(races: &mut Races, place: Place, offset: u64, thread: u16) -> Found {
    plain(races, place, offset, 4, thread, false)
}

fn write(races: &mut Races, place: Place, offset: u64, thread: u16) -> Found {
    plain(races, place, offset, 4, thread, true)
}

fn strong(races: &mut Races, at: (Place, u64), thread: u16, action: Action, order: Order, scope: Scope) -> Found {
    let kind = Kind::Atomic(Atomic { action, order, scope });
    races.access(at.0, at.1, 4, Access { thread, pc: DRAW, kind })
}

fn draw(races: &mut Races, thread: u16, order: Order) -> Found {
    strong(races, TICKET, thread, Action::Update, order, Scope::Device)
}

fn all() -> impl Iterator<Item = u16> + Clone {
    0..THREADS
}

fn earlier(found: Found) -> (u64, u16, PartyKind) {
    let earlier = found.unwrap_err().earlier;
    (earlier.block, earlier.thread, earlier.kind)
}

#[test]
fn write_and_read_need_a_barrier() {
    let mut races = races();
    for thread in all() {
        write(&mut races, Place::Shared, thread as u64 * 4, thread).unwrap();
    }
    assert_eq!(earlier(read(&mut races, Place::Shared, 4 * 40, 3)), (0, 40, PartyKind::Write));
    assert_eq!(earlier(read(&mut races, Place::Shared, 4 * 2, 3)), (0, 2, PartyKind::Write));
    races.sync_block(0, all());
    for thread in all() {
        for word in 0..THREADS as u64 {
            read(&mut races, Place::Shared, word * 4, thread).unwrap();
        }
    }
    assert_eq!(write(&mut races, Place::Shared, 0, 0).unwrap_err().earlier.kind, PartyKind::Read);
    races.sync_block(0, all());
    write(&mut races, Place::Shared, 0, 0).unwrap();
}

#[test]
fn a_warp_synchronises_itself_and_nobody_else() {
    let mut races = races();
    write(&mut races, Place::Shared, 0, 0).unwrap();
    write(&mut races, Place::Shared, 4, 1).unwrap();
    races.sync_warp(0, 0b101);
    read(&mut races, Place::Shared, 0, 2).unwrap();
    assert!(read(&mut races, Place::Shared, 0, 1).is_err());
    assert!(read(&mut races, Place::Shared, 4, 2).is_err());
    races.sync_warp(1, u32::MAX);
    assert!(read(&mut races, Place::Shared, 0, 33).is_err());
}

#[test]
fn parts_of_a_word_are_apart() {
    let mut races = races();
    for half in [0_u16, 1] {
        plain(&mut races, Place::Shared, half as u64 * 2, 2, half, true).unwrap();
    }
    for half in [0_u16, 1] {
        plain(&mut races, Place::Shared, half as u64 * 2, 2, half, false).unwrap();
    }
    assert_eq!(earlier(plain(&mut races, Place::Shared, 0, 2, 5, false)), (0, 0, PartyKind::Write));
    assert_eq!(earlier(plain(&mut races, Place::Shared, 2, 2, 5, false)), (0, 1, PartyKind::Write));
    races.sync_block(0, all());
    plain(&mut races, Place::Shared, 0, 16, 9, true).unwrap();
    let conflict = plain(&mut races, Place::Shared, 13, 1, 10, false).unwrap_err();
    assert_eq!((conflict.offset, conflict.earlier.thread, conflict.earlier.pc), (12, 9, 9));
}

#[test]
fn of_many_readers_one_in_another_warp_is_kept() {
    for readers in [all().collect(), vec![32, 0, 33, 34]] {
        let mut races = races();
        for thread in readers {
            read(&mut races, Place::Shared, 0, thread).unwrap();
        }
        races.sync_warp(1, u32::MAX);
        let (_, thread, kind) = earlier(write(&mut races, Place::Shared, 0, 63));
        assert!(thread < 32 && kind == PartyKind::Read);
    }
}

#[test]
fn lanes_of_an_instruction_may_write_the_same() {
    let mut races = races();
    let access = |thread, pc, repeats| Access { thread, pc, kind: Kind::Write { repeats } };
    races.access(Place::Shared, 0, 4, access(0, 1, true)).unwrap();
    races.access(Place::Shared, 0, 4, access(1, 1, true)).unwrap();
    assert!(races.access(Place::Shared, 0, 4, access(2, 1, false)).is_err());
    assert!(races.access(Place::Shared, 0, 4, access(2, 3, true)).is_err());
    assert!(races.access(Place::Shared, 0, 4, access(32, 1, true)).is_err());
}

#[test]
fn producers_arrive_and_consumers_wait() {
    let mut races = races();
    let (producers, consumers) = (0..32, 32..64);
    for thread in producers {
        write(&mut races, Place::Shared, thread as u64 * 4, thread).unwrap();
        races.arrive(1, thread);
    }
    write(&mut races, Place::Shared, 128, 5).unwrap();
    races.sync_block(2, consumers.clone());
    assert!(read(&mut races, Place::Shared, 0, 32).is_err());
    races.sync_block(1, consumers);
    read(&mut races, Place::Shared, 4, 32).unwrap();
    assert!(read(&mut races, Place::Shared, 128, 32).is_err(), "written after the arrival");
    assert!(read(&mut races, Place::Shared, 4, 6).is_err(), "arriving is not waiting");
}

#[test]
fn nobody_touches_a_copy_under_way() {
    let mut races = races();
    races.copy_issued(Place::Shared, 16, 16, 7, 1).unwrap();
    assert_eq!(earlier(read(&mut races, Place::Shared, 28, 7)), (0, 7, PartyKind::Copy));
    races.sync_block(0, all());
    assert_eq!(earlier(write(&mut races, Place::Shared, 16, 8)), (0, 7, PartyKind::Copy));
    assert!(races.copy_issued(Place::Shared, 16, 16, 7, 2).is_err());
    races.copy_landed(Place::Shared, 16, 16, 7, 1);
    read(&mut races, Place::Shared, 28, 7).unwrap();
    assert_eq!(earlier(read(&mut races, Place::Shared, 28, 8)), (0, 7, PartyKind::Write));
    races.sync_block(0, all());
    read(&mut races, Place::Shared, 28, 8).unwrap();
    assert!(races.copy_issued(Place::Shared, 16, 16, 7, 1).is_err(), "read since, without a barrier after it");
}

#[test]
fn blocks_do_not_know_each_other_but_launches_do() {
    let mut races = races();
    write(&mut races, PARTIALS, 0, 0).unwrap();
    write(&mut races, Place::Shared, 0, 0).unwrap();
    races.begin_block(5, 256);
    assert_eq!(earlier(read(&mut races, PARTIALS, 0, 0)), (0, 0, PartyKind::Write));
    write(&mut races, Place::Shared, 0, 1).unwrap();
    races.begin_launch(THREADS as usize, 0);
    races.begin_block(3, 256);
    write(&mut races, PARTIALS, 0, 1).unwrap();
    races.begin_block(2, 256);
    assert_eq!(earlier(read(&mut races, PARTIALS, 0, 0)), (3, 1, PartyKind::Write));
    races.allocate(0, 4);
    read(&mut races, PARTIALS, 0, 0).unwrap();
    races.free(0);
}

#[test]
fn atomics_race_with_plain_accesses_and_out_of_scope() {
    let mut races = races();
    let add = |races: &mut Races, word: u64, thread, scope| {
        strong(races, (PARTIALS, word * 4), thread, Action::Update, Order::Relaxed, scope)
    };
    for thread in all() {
        add(&mut races, 0, thread, Scope::Device).unwrap();
        add(&mut races, 1, thread, Scope::Block).unwrap();
    }
    assert_eq!(earlier(write(&mut races, PARTIALS, 0, 3)).2, PartyKind::StrongWrite);
    write(&mut races, PARTIALS, 8, 3).unwrap();
    assert_eq!(earlier(add(&mut races, 2, 4, Scope::Device)).2, PartyKind::Write);
    races.begin_block(1, 256);
    add(&mut races, 0, 0, Scope::Device).unwrap();
    assert_eq!(earlier(add(&mut races, 1, 0, Scope::Device)), (0, 63, PartyKind::StrongWrite));
}

/// Steps of a "last block done" pattern that can be left out.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    Nothing,
    BarrierBefore,
    FenceBefore,
    FenceAfter,
    BarrierAfter,
    /// The fences are of block scope.
    Scope,
}

/// Every block writes partials, draws a ticket and, if it is the last, reads all partials and takes the ticket
/// back.
fn last_block_done(blocks: u64, missing: Missing) -> Found {
    let mut races = races();
    races.begin_launch(THREADS as usize, 0);
    let scope = if missing == Missing::Scope { Scope::Block } else { Scope::Device };
    for block in 0..blocks {
        races.begin_block(block, 256);
        for thread in all() {
            write(&mut races, PARTIALS, (block * THREADS as u64 + thread as u64) * 4, thread)?;
        }
        if missing != Missing::BarrierBefore {
            races.sync_block(0, all());
        }
        if missing != Missing::FenceBefore {
            races.fence(0, scope);
        }
        draw(&mut races, 0, Order::Relaxed)?;
        if missing != Missing::FenceAfter {
            races.fence(0, scope);
        }
        if missing != Missing::BarrierAfter {
            races.sync_block(0, all());
        }
    }
    for word in 0..blocks * THREADS as u64 {
        read(&mut races, PARTIALS, word * 4, (word % 7) as u16)?;
    }
    let reset = Access { thread: 0, pc: RESET, kind: Kind::Write { repeats: false } };
    races.access(TICKET.0, TICKET.1, 4, reset)
}

#[test]
fn the_last_block_may_read_all_partials() {
    assert_eq!(last_block_done(9, Missing::Nothing), Ok(()));
    assert_eq!(last_block_done(1, Missing::Nothing), Ok(()));
}

#[test]
fn the_last_block_needs_every_step() {
    use Missing::*;
    for missing in [BarrierBefore, FenceBefore, FenceAfter, BarrierAfter, Scope] {
        assert!(last_block_done(9, missing).is_err());
    }
}

#[test]
fn many_blocks_may_draw_tickets() {
    assert_eq!(last_block_done(4000, Missing::Nothing), Ok(()));
}

#[test]
fn an_update_that_acquires_and_releases_does_what_fences_do() {
    let mut races = races();
    write(&mut races, PARTIALS, 0, 0).unwrap();
    draw(&mut races, 0, Order::Release).unwrap();
    write(&mut races, PARTIALS, 4, 0).unwrap();
    races.begin_block(1, 256);
    draw(&mut races, 0, Order::Relaxed).unwrap();
    assert!(read(&mut races, PARTIALS, 0, 0).is_err());
    races.begin_block(2, 256);
    draw(&mut races, 0, Order::Acquire).unwrap();
    read(&mut races, PARTIALS, 0, 0).unwrap();
    assert!(read(&mut races, PARTIALS, 4, 0).is_err(), "written after the release");
    assert!(read(&mut races, PARTIALS, 0, 1).is_err(), "another thread");
}

#[test]
fn a_store_ends_what_was_released_before_it() {
    for (action, is_ordered) in [(Action::Update, true), (Action::Store, false)] {
        let mut races = races();
        write(&mut races, PARTIALS, 0, 0).unwrap();
        draw(&mut races, 0, Order::Release).unwrap();
        strong(&mut races, TICKET, 40, action, Order::Relaxed, Scope::Device).unwrap();
        draw(&mut races, 50, Order::Acquire).unwrap();
        assert_eq!(read(&mut races, PARTIALS, 0, 50).is_ok(), is_ordered);
    }
    let mut races = races();
    write(&mut races, PARTIALS, 0, 0).unwrap();
    draw(&mut races, 0, Order::Release).unwrap();
    write(&mut races, TICKET.0, TICKET.1, 0).unwrap();
    races.sync_block(0, [0, 50].into_iter());
    draw(&mut races, 50, Order::Relaxed).unwrap();
    strong(&mut races, TICKET, 51, Action::Load, Order::Acquire, Scope::Device).unwrap_err();
    assert!(read(&mut races, PARTIALS, 0, 51).is_err());
}

#[test]
fn patterns_of_two_accesses_to_one_location() {
    let mut races = races();
    write(&mut races, PARTIALS, 0, 0).unwrap();
    strong(&mut races, TICKET, 0, Action::Store, Order::Release, Scope::Device).unwrap();
    strong(&mut races, TICKET, 0, Action::Store, Order::Relaxed, Scope::Device).unwrap();
    strong(&mut races, TICKET, 40, Action::Load, Order::Relaxed, Scope::Device).unwrap();
    strong(&mut races, TICKET, 33, Action::Store, Order::Relaxed, Scope::Device).unwrap();
    assert!(read(&mut races, PARTIALS, 0, 40).is_err());
    strong(&mut races, TICKET, 40, Action::Load, Order::Acquire, Scope::Device).unwrap();
    read(&mut races, PARTIALS, 0, 40).unwrap();
}

#[test]
fn who_saw_a_strong_write_may_go_on_with_plain_accesses() {
    let mut races = races();
    strong(&mut races, TICKET, 0, Action::Store, Order::Relaxed, Scope::Device).unwrap();
    assert!(write(&mut races, TICKET.0, TICKET.1, 40).is_err());
    strong(&mut races, TICKET, 40, Action::Load, Order::Relaxed, Scope::Device).unwrap();
    assert!(write(&mut races, TICKET.0, TICKET.1, 41).is_err());
    write(&mut races, TICKET.0, TICKET.1, 40).unwrap();
}

#[test]
fn block_scope_is_enough_within_a_block() {
    let mut races = races();
    write(&mut races, PARTIALS, 0, 0).unwrap();
    races.fence(0, Scope::Block);
    draw(&mut races, 0, Order::Relaxed).unwrap();
    draw(&mut races, 40, Order::Relaxed).unwrap();
    races.fence(40, Scope::Block);
    read(&mut races, PARTIALS, 0, 40).unwrap();
    races.begin_block(1, 256);
    draw(&mut races, 0, Order::Acquire).unwrap();
    assert!(read(&mut races, PARTIALS, 0, 0).is_err());
}

#[test]
fn nothing_is_released_through_shared_memory_to_the_next_block() {
    let mut races = races();
    write(&mut races, PARTIALS, 0, 0).unwrap();
    strong(&mut races, (Place::Shared, 0), 0, Action::Update, Order::Release, Scope::Device).unwrap();
    strong(&mut races, (Place::Shared, 0), 40, Action::Update, Order::Acquire, Scope::Device).unwrap();
    read(&mut races, PARTIALS, 0, 40).unwrap();
    races.begin_block(1, 256);
    strong(&mut races, (Place::Shared, 0), 40, Action::Update, Order::Acquire, Scope::Device).unwrap();
    assert!(read(&mut races, PARTIALS, 0, 40).is_err());
}

/// A machine with two engines.
fn with_engines() -> Races {
    let mut races = Races::default();
    races.allocate(0, 1 << 20);
    races.begin_launch(THREADS as usize, 2);
    races.begin_block(0, 256);
    races
}

#[test]
fn an_engine_is_known_by_who_waited_for_it() {
    let mut races = with_engines();
    let [first, second] = [0, 8].map(|offset| races.start(Owner::Barrier(offset), 5));
    races.engine_will_write(Place::Shared, 0, 16, first, (5, 1)).unwrap();
    races.engine_will_write(Place::Shared, 16, 16, second, (5, 2)).unwrap();
    assert_eq!(earlier(read(&mut races, Place::Shared, 4, 5)), (0, 5, PartyKind::Copy));
    races.engine_wrote(Place::Shared, 0, 16, first, 1, Proxy::Async);
    races.engine_wrote(Place::Shared, 16, 16, second, 2, Proxy::Async);
    // Not even by who has started it.
    assert_eq!(earlier(read(&mut races, Place::Shared, 4, 5)), (0, 5, PartyKind::AsyncWrite));
    let known = races.of_ticket(first);
    races.learn(40, &known);
    read(&mut races, Place::Shared, 4, 40).unwrap();
    assert!(read(&mut races, Place::Shared, 16, 40).is_err(), "the other copy");
    races.sync_block(0, all());
    read(&mut races, Place::Shared, 8, 3).unwrap();
    write(&mut races, Place::Shared, 0, 40).unwrap();
}

#[test]
fn what_an_engine_reads_is_not_overwritten() {
    let mut races = with_engines();
    let work = races.start(Owner::Multiply(0), 0);
    races.engine_reads(Place::Shared, 32, 16, work, (0, 7)).unwrap();
    read(&mut races, Place::Shared, 36, 0).unwrap();
    assert_eq!(earlier(write(&mut races, Place::Shared, 40, 0)), (0, 0, PartyKind::AsyncRead));
    races.learn_ticket(0, work);
    write(&mut races, Place::Shared, 40, 0).unwrap();
}

#[test]
fn engines_see_what_was_fenced() {
    let mut races = with_engines();
    write(&mut races, Place::Shared, 0, 1).unwrap();
    write(&mut races, Place::Shared, 4, 2).unwrap();
    races.fence_proxy(1, Sense::AsyncShared);
    races.fence_proxy(2, Sense::AsyncGlobal);
    races.sync_block(0, all());
    write(&mut races, Place::Shared, 8, 0).unwrap();
    let is_seen = |races: &mut Races, offset| {
        let work = races.start(Owner::Multiply(0), 0);
        match races.engine_reads(Place::Shared, offset, 4, work, (0, 7)) {
            Ok(()) => true,
            Err(conflict) => {
                assert!(conflict.is_unfenced);
                false
            }
        }
    };
    assert!(is_seen(&mut races, 0));
    assert!(!is_seen(&mut races, 4), "another fence");
    assert!(!is_seen(&mut races, 8), "written after the fence");
    // Whoever reads may fence for all that it knows of.
    races.fence_proxy(0, Sense::AsyncShared);
    assert!(is_seen(&mut races, 4) && is_seen(&mut races, 8));
}
