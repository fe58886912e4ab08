//! `cp.async`: asynchronous copies from global to shared memory.

use super::{Row, row};
use crate::exec::{Copy, Operation};
use crate::memory::Space;

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
];
