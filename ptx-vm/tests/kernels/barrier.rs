use ptx_vm::FaultKind::{Deadlock, DivergentBarrier};

use crate::Case;
use crate::inputs::small_f32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "divergent_warp", run: reverse, bugs: &[(1, &[DivergentBarrier])] },
    Case { kernel: "half_the_warps", run: reverse, bugs: &[(2, &[Deadlock])] },
    Case { kernel: "wrong_count", run: reverse, bugs: &[(3, &[Deadlock])] },
    Case { kernel: "different_ids", run: reverse, bugs: &[(4, &[Deadlock])] },
    Case { kernel: "different_counts", run: reverse, bugs: &[(5, &[DivergentBarrier])] },
    Case { kernel: "early_exit", run: reverse, bugs: &[] },
];

fn reverse(machine: &mut Machine) -> Outcome {
    let mut values = small_f32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    values.reverse();
    same("out", &machine.read::<f32>(out)?, &values)
}
