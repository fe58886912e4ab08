use ptx_vm::FaultKind::{AbsentBlock, Deadlock, Race, Undefined, UnfinishedCopy, Uninitialised};

use crate::Case;
use crate::inputs::small_i32;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case {
        kernel: "exchange",
        run: exchange,
        bugs: &[(1, &[AbsentBlock]), (2, &[AbsentBlock, Race]), (3, &[Race]), (4, &[Race])],
    },
    Case {
        kernel: "multicast",
        run: multicast,
        bugs: &[
            (11, &[Deadlock]),
            (12, &[Undefined]),
            (13, &[AbsentBlock]),
            (14, &[UnfinishedCopy, Race, Uninitialised]),
        ],
    },
    Case { kernel: "through_groups", run: through_groups, bugs: &[(31, &[AbsentBlock])] },
    Case {
        kernel: "signal",
        run: signal,
        bugs: &[(21, &[Race, Uninitialised]), (22, &[Race, Uninitialised]), (23, &[Deadlock])],
    },
];

fn through_groups(machine: &mut Machine) -> Outcome {
    let values = small_i32(2 * 64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 2 * 64)?;
    machine.launch(2, 64, 0, args![input, out])?;
    same("out", &machine.read::<i32>(out)?, &[&values[64..], &values[..64]].concat())
}

fn exchange(machine: &mut Machine) -> Outcome {
    let values = small_i32(4 * 64);
    let input = machine.buffer("in", &values)?;
    let (out, sums) = (machine.output::<i32>("out", 4 * 64)?, machine.output::<i32>("sums", 2)?);
    machine.launch(4, 64, 0, args![input, out, sums])?;
    let expected: Vec<i32> = (0..4 * 64).map(|i| values[i ^ 64]).collect();
    same("out", &machine.read::<i32>(out)?, &expected)?;
    let expected: Vec<i32> = values.chunks(128).map(|of_cluster| of_cluster.iter().sum()).collect();
    same("sums", &machine.read::<i32>(sums)?, &expected)
}

fn multicast(machine: &mut Machine) -> Outcome {
    let values = small_i32(2 * 64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 4 * 64)?;
    machine.launch(4, 64, 0, args![input, out])?;
    let expected: Vec<i32> = values.chunks(64).flat_map(|tile| [tile, tile].concat()).collect();
    same("out", &machine.read::<i32>(out)?, &expected)
}

fn signal(machine: &mut Machine) -> Outcome {
    let mut values = small_i32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 64)?;
    machine.launch(2, 64, 0, args![input, out])?;
    values.reverse();
    same("out", &machine.read::<i32>(out)?, &values)
}
