//! `mbarrier`: barriers in shared memory; the barrier of a cluster; fences of proxies.

use super::{Row, row};
use crate::decode::Operands;
use crate::exec::{Address, Mbarrier, MbarrierAction, MbarrierWait, Operation, Phase, Sense};
use crate::memory::{SHARED, Space, mapped, unmapped};
use crate::parse::ast::Operand;

type Decoded = Result<Operation, String>;

/// What a proxy fence without a space is for.
const ALL: &[Sense] = &[Sense::AsyncShared, Sense::AsyncGlobal];

pub(super) const ROWS: &[Row] = &[
    row("mbarrier.init{,.shared,.shared::cta}.b64", |o| {
        o.expect_operands(2)?;
        let count = o.reg(1)?;
        mbarrier(o, 0, MbarrierAction::Init { count })
    }),
    row("mbarrier.inval{,.shared,.shared::cta}.b64", |o| {
        o.expect_operands(1)?;
        mbarrier(o, 0, MbarrierAction::Invalidate)
    }),
    row("mbarrier.arrive*", arrive),
    row("mbarrier.expect_tx*", |o| {
        o.expect_modifiers(&[
            "expect_tx",
            "relaxed",
            "cta",
            "cluster",
            "shared",
            "shared::cta",
            "shared::cluster",
            "b64",
        ])?;
        let bytes = o.reg(1)?;
        mbarrier(o, 0, MbarrierAction::ExpectBytes(bytes))
    }),
    row("mbarrier.complete_tx*", |o| {
        let known = ["complete_tx", "relaxed", "cta", "cluster", "shared", "shared::cta", "shared::cluster", "b64"];
        o.expect_modifiers(&known)?;
        let bytes = o.reg(1)?;
        mbarrier(o, 0, MbarrierAction::CompleteBytes(bytes))
    }),
    row("mbarrier.test_wait*", wait),
    row("mbarrier.try_wait*", wait),
    row("cp.async.mbarrier.arrive{,.noinc}{,.shared,.shared::cta}.b64", |o| {
        let counted = o.has("noinc");
        mbarrier(o, 0, MbarrierAction::ArriveAfterCopies { counted })
    }),
    row("fence.mbarrier_init.release.cluster", |_| Ok(Operation::FenceProxy(&[Sense::Initialised]))),
    row("fence.proxy.async", |_| Ok(Operation::FenceProxy(ALL))),
    row("fence.proxy.async.global", |_| Ok(Operation::FenceProxy(&[Sense::AsyncGlobal]))),
    row("fence.proxy.async.shared{::cta,::cluster}", |_| Ok(Operation::FenceProxy(&[Sense::AsyncShared]))),
    row("barrier.cluster.arrive{,.release}{,.aligned}", |_| Ok(Operation::ClusterArrive { releases: true })),
    row("barrier.cluster.arrive.relaxed{,.aligned}", |_| Ok(Operation::ClusterArrive { releases: false })),
    row("barrier.cluster.wait{,.acquire}{,.aligned}", |_| Ok(Operation::ClusterWait { acquires: true })),
    row("mapa{,.shared::cluster}.u32", |o| {
        o.binary(|address: u32, rank: u32| mapped(rank as usize, unmapped(address as u64).1) as u32)
    }),
    row("mapa.shared::cluster.u64", |o| o.binary(|address: u64, rank: u32| mapped(rank as usize, unmapped(address).1))),
    row("mapa.u64", |o| {
        o.binary(|address: u64, rank: u32| SHARED + mapped(rank as usize, unmapped(address.wrapping_sub(SHARED)).1))
    }),
];

/// The space of a barrier: generic where none is named.
fn space(o: &Operands<'_>) -> Space {
    match () {
        () if o.has("shared::cluster") => Space::SharedCluster,
        () if o.has("shared") || o.has("shared::cta") => Space::Shared,
        () => Space::Generic,
    }
}

fn mbarrier(o: &mut Operands<'_>, i: usize, action: MbarrierAction) -> Decoded {
    let address: Address = o.address(i, space(o))?;
    Ok(Operation::Mbarrier(Box::new(Mbarrier { address, action })))
}

/// `mbarrier.arrive state, [barrier], count` and `.expect_tx` with bytes in place of the count.
fn arrive(o: &mut Operands<'_>) -> Decoded {
    let known = [
        "arrive",
        "expect_tx",
        "release",
        "relaxed",
        "cta",
        "cluster",
        "shared",
        "shared::cta",
        "shared::cluster",
        "b64",
    ];
    o.expect_modifiers(&known)?;
    let has_state = !matches!(o.operand(0)?, Operand::Address(..));
    let barrier = usize::from(has_state);
    let to = match o.operand(0)? {
        Operand::Register(_) => Some(o.destination(0)?),
        _ => None,
    };
    if to.is_some() && o.has("shared::cluster") {
        return Err("an arrival at a barrier of the cluster has no state".to_owned());
    }
    let operand = if o.len() > barrier + 1 { Some(o.reg(barrier + 1)?) } else { None };
    let (count, bytes) = if o.has("expect_tx") { (None, operand) } else { (operand, None) };
    if o.has("expect_tx") && bytes.is_none() {
        return Err("the number of bytes is missing".to_owned());
    }
    let releases = !o.has("relaxed");
    mbarrier(o, barrier, MbarrierAction::Arrive { to, count, bytes, releases })
}

/// The third operand of `try_wait`, how long it may wait, is a hint.
fn wait(o: &mut Operands<'_>) -> Decoded {
    let known =
        ["test_wait", "try_wait", "parity", "acquire", "relaxed", "cta", "cluster", "shared", "shared::cta", "b64"];
    o.expect_modifiers(&known)?;
    let phase = if o.has("parity") { Phase::Parity(o.reg(2)?) } else { Phase::State(o.reg(2)?) };
    let (to, address) = (o.destination(0)?, o.address(1, space(o))?);
    let (blocks, acquires) = (o.has("try_wait"), !o.has("relaxed"));
    Ok(Operation::MbarrierWait(Box::new(MbarrierWait { to, address, phase, blocks, acquires })))
}
