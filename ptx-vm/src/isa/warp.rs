//! Shuffles, votes, matches and reductions among the lanes of a warp.

use super::{Row, row};
use crate::decode::Operands;
use crate::exec::{Collective, Operation, Reduction, Shuffle, Vote};

type Decoded = Result<Operation, String>;

pub(super) const ROWS: &[Row] = &[
    row("bar.warp.sync", |o| collective(o, 0, Collective::SyncWarp)),
    row("shfl.sync.up.b32", |o| shuffle(o, Shuffle::Up)),
    row("shfl.sync.down.b32", |o| shuffle(o, Shuffle::Down)),
    row("shfl.sync.bfly.b32", |o| shuffle(o, Shuffle::Butterfly)),
    row("shfl.sync.idx.b32", |o| shuffle(o, Shuffle::Index)),
    row("vote.sync.all.pred", |o| vote(o, |o| Ok(Vote::All(o.reg(0)?)))),
    row("vote.sync.any.pred", |o| vote(o, |o| Ok(Vote::Any(o.reg(0)?)))),
    row("vote.sync.uni.pred", |o| vote(o, |o| Ok(Vote::Uniform(o.reg(0)?)))),
    row("vote.sync.ballot.b32", |o| vote(o, |o| Ok(Vote::Ballot(o.reg(0)?)))),
    row("match.any.sync.b32", |o| match_lanes(o, false, 4)),
    row("match.any.sync.b64", |o| match_lanes(o, false, 8)),
    row("match.all.sync.b32", |o| match_lanes(o, true, 4)),
    row("match.all.sync.b64", |o| match_lanes(o, true, 8)),
    row("redux.sync.add{.u32,.s32}", |o| reduce(o, Reduction::Add)),
    row("redux.sync.min.u32", |o| reduce(o, Reduction::Min)),
    row("redux.sync.max.u32", |o| reduce(o, Reduction::Max)),
    row("redux.sync.min.s32", |o| reduce(o, Reduction::MinSigned)),
    row("redux.sync.max.s32", |o| reduce(o, Reduction::MaxSigned)),
    row("redux.sync.and.b32", |o| reduce(o, Reduction::And)),
    row("redux.sync.or.b32", |o| reduce(o, Reduction::Or)),
    row("redux.sync.xor.b32", |o| reduce(o, Reduction::Xor)),
    row("elect.sync", |o| {
        let (to, elected) = o.pair(0)?;
        let elected = elected.ok_or("no predicate")?;
        collective(o, 1, Collective::Elect { to, elected })
    }),
    row("activemask.b32", |o| Ok(Operation::ActiveMask(o.reg(0)?))),
];

/// A collective of the lanes that operand `members` names.
fn collective(o: &mut Operands<'_>, members: usize, action: Collective) -> Decoded {
    o.expect_operands(members + 1)?;
    Ok(Operation::Collective { members: Some(o.reg(members)?), action: Box::new(action) })
}

fn shuffle(o: &mut Operands<'_>, kind: Shuffle) -> Decoded {
    let (to, within) = o.pair(0)?;
    let action = Collective::Shuffle { kind, to, within, from: o.reg(1)?, lane: o.reg(2)?, clamp: o.reg(3)? };
    collective(o, 4, action)
}

fn vote(o: &mut Operands<'_>, kind: fn(&mut Operands<'_>) -> Result<Vote, String>) -> Decoded {
    let (kind, (predicate, negated)) = (kind(o)?, o.predicate(1)?);
    collective(o, 2, Collective::Vote { kind, predicate, negated })
}

fn match_lanes(o: &mut Operands<'_>, agree: bool, size: usize) -> Decoded {
    let (to, all) = o.pair(0)?;
    let action = Collective::Match { to, all, agree, value: o.slot(1, size)? };
    collective(o, 2, action)
}

fn reduce(o: &mut Operands<'_>, kind: Reduction) -> Decoded {
    let action = Collective::Reduce { kind, to: o.reg(0)?, from: o.reg(1)? };
    collective(o, 2, action)
}
