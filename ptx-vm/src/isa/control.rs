//! Branches, returns and barriers of a block.

use super::{Row, row};
use crate::decode::Operands;
use crate::exec::{Barrier, BarrierKind, Operation};

type Decoded = Result<Operation, String>;

pub(super) const ROWS: &[Row] = &[
    row("bra{.uni,}", |o| Ok(Operation::Branch(o.target(0)?))),
    row("brx.idx{.uni,}", |o| {
        let (index, targets) = (o.reg(0)?, o.targets(1)?.into());
        Ok(Operation::BranchTable { index, targets })
    }),
    row("ret{.uni,}", |_| Ok(Operation::Exit)),
    row("exit", |_| Ok(Operation::Exit)),
    row("trap", |_| Ok(Operation::Trap)),
    row("nanosleep.u32", |_| Ok(Operation::Nothing)),
    row("setmaxnreg{.inc,.dec}.sync.aligned.u32", |o| match o.immediate(0)? {
        24..=256 if o.immediate(0)?.is_multiple_of(8) => Ok(Operation::Nothing),
        count => Err(format!("{count} registers; a multiple of 8 from 24 to 256 is possible")),
    }),
    row("bar{.cta,}.sync", |o| barrier(o, BarrierKind::Sync, 0)),
    row("barrier{.cta,}.sync{.aligned,}", |o| barrier(o, BarrierKind::Sync, 0)),
    row("bar{.cta,}.arrive", |o| barrier(o, BarrierKind::Arrive, 0)),
    row("barrier{.cta,}.arrive{.aligned,}", |o| barrier(o, BarrierKind::Arrive, 0)),
    row("{bar,barrier}{.cta,}.red{.aligned,}.popc{.aligned,}.u32", |o| {
        let (to, (predicate, negated)) = (o.reg(0)?, o.predicate(o.len() - 1)?);
        barrier(o, BarrierKind::Count { to, predicate, negated }, 1)
    }),
    row("{bar,barrier}{.cta,}.red{.aligned,}.or{.aligned,}.pred", |o| {
        let (to, (predicate, negated)) = (o.reg(0)?, o.predicate(o.len() - 1)?);
        barrier(o, BarrierKind::Any { to, predicate, negated }, 1)
    }),
    row("{bar,barrier}{.cta,}.red{.aligned,}.and{.aligned,}.pred", |o| {
        let (to, (predicate, negated)) = (o.reg(0)?, o.predicate(o.len() - 1)?);
        barrier(o, BarrierKind::All { to, predicate, negated }, 1)
    }),
];

/// A barrier whose number is operand `id`; the number of threads may follow it. A reduction has its
/// predicate behind them.
fn barrier(o: &mut Operands<'_>, kind: BarrierKind, id: usize) -> Decoded {
    let behind = usize::from(kind.predicate().is_some());
    let threads = if o.len() > id + 1 + behind { Some(o.reg(id + 1)?) } else { None };
    // `bar` is `barrier` with `.aligned`.
    let aligned = o.is("bar") || o.has("aligned");
    Ok(Operation::Barrier(Box::new(Barrier { kind, id: o.reg(id)?, threads, aligned })))
}
