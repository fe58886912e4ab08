//! `cp.async` and `cp.async.bulk`: asynchronous copies between global and shared memory.

use super::{Row, row};
use crate::decode::{Operands, lanewise};
use crate::exec::{BulkLoad, BulkStore, Copy, Operation, Source};
use crate::memory::Space;
use crate::registers::{LANES, Reg};

pub(super) const ROWS: &[Row] = &[
    row("cp.async{.ca,.cg}.shared{,::cta}.global{,.L2::64B,.L2::128B,.L2::256B}", |o| {
        let (to, from, bytes) = (o.address(0, Space::Shared)?, o.address(1, Space::Global)?, o.immediate(2)?);
        let sizes: &[u64] = if o.has("cg") { &[16] } else { &[4, 8, 16] };
        if !sizes.contains(&bytes) {
            return Err(format!("copies of {bytes} bytes"));
        }
        let from_bytes = if o.len() > 3 { Some(o.reg(3)?) } else { None };
        Ok(Operation::Copy(Box::new(Copy { to, from, bytes: bytes as u32, from_bytes })))
    }),
    row("cp.async.commit_group", |_| Ok(Operation::CommitCopies)),
    row("cp.async.wait_group", |o| {
        let groups = u32::try_from(o.immediate(0)?).map_err(|_| "too many groups")?;
        Ok(Operation::WaitForCopies(Some(groups)))
    }),
    row("cp.async.wait_all", |_| Ok(Operation::WaitForCopies(None))),
    row("cp.async.bulk.commit_group", |_| Ok(Operation::CommitBulk)),
    row("cp.async.bulk.wait_group{,.read}", wait_bulk),
    row("cp.async.bulk.tensor.*", tensor_load),
    row("cp.async.bulk.shared*", bulk),
    row("cp.async.bulk.global.shared*", bulk),
    row("cp.async.bulk.prefetch.L2.global", |_| Ok(Operation::Nothing)),
    // What a cache does with a line is not looked at.
    row("createpolicy.fractional.L2::{evict_last,evict_normal,evict_first,evict_unchanged}.b64", |o| {
        let to = o.destination::<u64>(0)?;
        lanewise(move |registers, mask| to.write(registers, [0; LANES], mask))
    }),
    row("prefetch{,.param,.global,.const}.tensormap", |_| Ok(Operation::Nothing)),
];

/// Modifiers of a bulk load besides its spaces and the dimensions of a tensor.
const LOAD: [&str; 9] = [
    "async",
    "bulk",
    "tensor",
    "tile",
    "mbarrier::complete_tx::bytes",
    "multicast::cluster",
    "L2::cache_hint",
    "global",
    "shared::cluster",
];

/// `cp.async.bulk.dst.src…`
fn bulk(o: &mut Operands<'_>) -> Result<Operation, String> {
    let spaces: Vec<String> = o.modifiers().skip(2).take(2).map(str::to_owned).collect();
    match [&*spaces[0], spaces.get(1).map_or("", String::as_str)] {
        ["shared::cluster" | "shared::cta", "global"] => bulk_load(o),
        ["global", "shared::cta"] => bulk_store(o),
        _ => Err("a bulk copy between these spaces".to_owned()),
    }
}

/// Multicast and a cache hint follow in this order.
fn multicast(o: &mut Operands<'_>, next: usize) -> Result<Option<Reg<u32>>, String> {
    let mask = if o.has("multicast::cluster") { Some(o.reg(next)?) } else { None };
    o.expect_operands(next + usize::from(mask.is_some()) + usize::from(o.has("L2::cache_hint")))?;
    Ok(mask)
}

fn destination(o: &Operands<'_>) -> Space {
    if o.has("shared::cluster") { Space::SharedCluster } else { Space::Shared }
}

fn bulk_load(o: &mut Operands<'_>) -> Result<Operation, String> {
    o.expect_modifiers(&[&LOAD[..], &["shared::cta"]].concat())?;
    let space = destination(o);
    let (to, barrier) = (o.address(0, space)?, o.address(3, space)?);
    let from = Source::Range { from: o.address(1, Space::Global)?, bytes: o.reg(2)? };
    let multicast = multicast(o, 4)?;
    Ok(Operation::BulkLoad(Box::new(BulkLoad { to, from, barrier, multicast })))
}

fn bulk_store(o: &mut Operands<'_>) -> Result<Operation, String> {
    o.expect_modifiers(&["async", "bulk", "global", "shared::cta", "bulk_group", "L2::cache_hint"])?;
    o.expect_operands(3 + usize::from(o.has("L2::cache_hint")))?;
    let (to, from, bytes) = (o.address(0, Space::Global)?, o.address(1, Space::Shared)?, o.reg(2)?);
    Ok(Operation::BulkStore(Box::new(BulkStore { to, from, bytes })))
}

/// `cp.async.bulk.tensor.2d.shared::cluster.global…`
fn tensor_load(o: &mut Operands<'_>) -> Result<Operation, String> {
    let dimensions = o.modifiers().nth(3).and_then(|modifier| modifier.strip_suffix('d')?.parse().ok());
    let dimensions: usize = dimensions.filter(|d| (1..=5).contains(d)).ok_or("no number of dimensions")?;
    let name = format!("{dimensions}d");
    o.expect_modifiers(&[&LOAD[..], &["shared::cta", &name]].concat())?;
    if !o.has("mbarrier::complete_tx::bytes") || o.modifiers().nth(5) != Some("global") {
        return Err("only copies from global to shared memory that an mbarrier counts".to_owned());
    }
    let space = destination(o);
    let (to, barrier) = (o.address(0, space)?, o.address(2, space)?);
    let (map, coordinates) = o.tensor(1)?;
    if coordinates.len() != dimensions {
        return Err(format!("expected {dimensions} coordinates, got {}", coordinates.len()));
    }
    let multicast = multicast(o, 3)?;
    let from = Source::Tensor { map, coordinates };
    Ok(Operation::BulkLoad(Box::new(BulkLoad { to, from, barrier, multicast })))
}

fn wait_bulk(o: &mut Operands<'_>) -> Result<Operation, String> {
    let groups = u32::try_from(o.immediate(0)?).map_err(|_| "too many groups")?;
    Ok(Operation::WaitForBulk { groups, read: o.has("read") })
}
