//! What the lanes of a warp do together: they wait for each other, exchange and vote.

use super::Collective;
use super::access::get;
use super::cluster::{At, Cluster, Outcome};
use super::warp::{State, Warp};
use crate::error::FaultKind;
use crate::registers::{LANES, Mask, Reg, Registers, Slot, lanes};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Debug, Clone, Copy)]
pub enum Vote {
    All(Reg<bool>),
    Any(Reg<bool>),
    /// Whether all have the same.
    Uniform(Reg<bool>),
    Ballot(Reg<u32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    Add,
    Min,
    Max,
    MinSigned,
    MaxSigned,
    And,
    Or,
    Xor,
}

impl Cluster<'_> {
    /// Runs a collective for the lanes whose members have all come; the others wait for theirs.
    pub(super) fn collect(
        &mut self,
        warp: &mut Warp,
        at: At,
        i: usize,
        mask: Mask,
        members: Option<Reg<u32>>,
        action: &Collective,
    ) -> Outcome {
        let whole_warp = members.is_none();
        let members = members.map_or([Mask::MAX; LANES], |members| members.read(&warp.registers));
        let mut complete = 0;
        let mut left = mask;
        while left != 0 {
            let first = left.trailing_zeros() as usize;
            let group = members[first];
            let agreeing = lanes(left).filter(|&lane| members[lane] == group).fold(0, |mask, lane| mask | 1 << lane);
            left &= !agreeing;
            let strangers = agreeing & !group;
            if strangers != 0 {
                let detail = format!("lanes {strangers:#010x} are not in the mask {group:#010x} that they name");
                return Err(self.fault(FaultKind::MissingLane, at, strangers.trailing_zeros() as usize, detail));
            }
            // Nobody waits for a lane that has exited, but the matrix units need the whole warp.
            let present = group & warp.live;
            if whole_warp && present != Mask::MAX {
                let detail = format!("lanes {:#010x} have exited", !present);
                return Err(self.fault(FaultKind::MissingLane, at, first, detail));
            }
            if let Collective::WaitForMultiply(groups) = action
                && agreeing == present
                && !self.are_issued(warp, at, *groups)
            {
                warp.fragments[i].pc = at.pc + 1;
                warp.split(i, mask, at.pc, State::Waiting);
                return Ok(());
            }
            if agreeing == present {
                self.act(warp, at, present, action)?;
                complete |= present;
            }
        }
        warp.fragments[i].pc = at.pc + 1;
        if complete != mask {
            warp.split(i, mask & !complete, at.pc, State::Gathering);
        } else {
            warp.merge();
        }
        Ok(())
    }

    /// `group` does it, all there.
    fn act(&mut self, warp: &mut Warp, at: At, group: Mask, action: &Collective) -> Outcome {
        let registers = &mut warp.registers;
        match action {
            Collective::SyncWarp => {
                if let Some(races) = &mut self.races {
                    races.sync_warp(at.warp, group);
                }
            }
            Collective::Shuffle { kind, to, within, from, lane, clamp } => {
                let (values, lane, clamp) = (from.read(registers), lane.read(registers), clamp.read(registers));
                let (mut out, mut inside) = (values, 0);
                for me in lanes(group) {
                    let (source, is_inside) = kind.source(me as u32, lane[me], clamp[me]);
                    if group >> source & 1 == 0 {
                        let detail =
                            format!("reads lane {source}, which is not among those that take part, {group:#010x}");
                        return Err(self.fault(FaultKind::MissingLane, at, me, detail));
                    }
                    out[me] = values[source as usize];
                    inside |= (is_inside as Mask) << me;
                }
                to.write(registers, out, group);
                if let Some(within) = within {
                    within.set(registers, inside, group);
                }
            }
            Collective::Vote { kind, predicate, negated } => {
                let set = predicate.mask(registers);
                let ballot = group & if *negated { !set } else { set };
                match kind {
                    Vote::All(to) => to.write(registers, [ballot == group; LANES], group),
                    Vote::Any(to) => to.write(registers, [ballot != 0; LANES], group),
                    Vote::Uniform(to) => to.write(registers, [ballot == group || ballot == 0; LANES], group),
                    Vote::Ballot(to) => to.write(registers, [ballot; LANES], group),
                }
            }
            Collective::Elect { to, elected } => {
                let leader = group.trailing_zeros();
                to.write(registers, [leader; LANES], group);
                elected.set(registers, 1 << leader, group);
            }
            Collective::Match { to, all, agree, value } => match_lanes(registers, group, *to, *all, *agree, *value),
            Collective::Reduce { kind, to, from } => {
                let values = from.read(registers);
                let result = lanes(group).map(|lane| values[lane]).reduce(|a, b| kind.apply(a, b)).unwrap_or(0);
                to.write(registers, [result; LANES], group);
            }
            Collective::LoadMatrix { to, transposed, address } => {
                self.load_matrix(registers, at, to, *transposed, address)?;
            }
            Collective::StoreMatrix { from, transposed, address } => {
                self.store_matrix(registers, at, from, *transposed, address)?;
            }
            Collective::Multiply(multiply) => multiply.run(registers),
            Collective::MultiplyAsync(multiply) => self.multiply_async(warp, at, multiply)?,
            Collective::FenceMultiply => self.fence_products(warp),
            Collective::CommitMultiply => self.commit_products(warp),
            Collective::WaitForMultiply(groups) => self.wait_for_products(warp, at, *groups),
        }
        Ok(())
    }
}

impl Shuffle {
    /// The lane that `me` reads, and whether it is within the segment; it reads itself if not. `clamp` holds
    /// the segment's mask in bits 8 to 12 and its last lane in bits 0 to 4.
    fn source(self, me: u32, operand: u32, clamp: u32) -> (u32, bool) {
        let (segment, last, operand) = (clamp >> 8 & 31, clamp & 31, operand & 31);
        let highest = me & segment | last & !segment;
        let lowest = me & segment;
        let source = match self {
            Shuffle::Up => me.wrapping_sub(operand),
            Shuffle::Down => me + operand,
            Shuffle::Butterfly => me ^ operand,
            Shuffle::Index => lowest | operand & !segment,
        };
        let inside = match self {
            // The last lane of an upward shuffle is its lowest.
            Shuffle::Up => source as i32 >= highest as i32,
            _ => source <= highest,
        };
        if inside { (source, true) } else { (me, false) }
    }
}

impl Reduction {
    fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            Reduction::Add => a.wrapping_add(b),
            Reduction::Min => a.min(b),
            Reduction::Max => a.max(b),
            Reduction::MinSigned => (a as i32).min(b as i32) as u32,
            Reduction::MaxSigned => (a as i32).max(b as i32) as u32,
            Reduction::And => a & b,
            Reduction::Or => a | b,
            Reduction::Xor => a ^ b,
        }
    }
}

/// `match`: the lanes that hold the same value, or where all must `agree` the whole group or 0.
fn match_lanes(registers: &mut Registers, group: Mask, to: Reg<u32>, all: Option<Reg<bool>>, agree: bool, value: Slot) {
    let equal = |me: usize| {
        let mine = get(registers, value, me);
        lanes(group).filter(|&other| get(registers, value, other) == mine).fold(0, |mask, lane| mask | 1 << lane)
    };
    let mut same = [0; LANES];
    lanes(group).for_each(|me| same[me] = equal(me));
    let agreed = lanes(group).all(|me| same[me] == group);
    if agree {
        same = [if agreed { group } else { 0 }; LANES];
    }
    to.write(registers, same, group);
    if let Some(all) = all {
        all.write(registers, [agreed; LANES], group);
    }
}
