use ptx_vm::FaultKind::{
    Deadlock, InstructionLimit, Misaligned, MissingFence, OutOfBounds, Race, Undefined, UnfinishedCopy, Uninitialised,
};

use crate::Case;
use crate::inputs::{small_f32, small_i32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case {
        kernel: "ring",
        run: ring,
        bugs: &[
            (1, &[UnfinishedCopy, Race, Uninitialised]),
            (2, &[UnfinishedCopy, Race, Undefined]),
            (3, &[Deadlock]),
            (4, &[Deadlock]),
            // Where the first copy has landed before anybody looks, the wrong phase never comes.
            (5, &[UnfinishedCopy, Race, Uninitialised, Deadlock]),
            (6, &[Race, Undefined]),
            (7, &[MissingFence]),
            (13, &[Undefined, Race]),
        ],
    },
    Case {
        kernel: "halves",
        run: halves,
        bugs: &[
            (21, &[UnfinishedCopy, Race]),
            (22, &[Misaligned]),
            (23, &[OutOfBounds]),
            (24, &[OutOfBounds]),
            (25, &[Misaligned]),
            (26, &[Undefined]),
        ],
    },
    Case {
        kernel: "store_back",
        run: store_back,
        bugs: &[
            (31, &[MissingFence]),
            (32, &[Race]),
            (33, &[UnfinishedCopy]),
            (34, &[Race, MissingFence, Uninitialised]),
            (35, &[UnfinishedCopy]),
        ],
    },
    Case {
        kernel: "by_state",
        run: by_state,
        bugs: &[
            (41, &[Undefined]),
            (42, &[Undefined]),
            (43, &[Undefined]),
            (44, &[Race, Uninitialised]),
            (45, &[InstructionLimit]),
            (46, &[Race]),
        ],
    },
    Case { kernel: "by_cp_async", run: by_cp_async, bugs: &[(51, &[UnfinishedCopy, Race, Uninitialised])] },
];

fn ring(machine: &mut Machine) -> Outcome {
    let tiles = 5;
    let values = small_f32(tiles * 256);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", tiles * 256)?;
    machine.launch(1, 96, 0, args![input, out, tiles as i32])?;
    same("out", &machine.read::<f32>(out)?, &values.iter().map(|x| 2.0 * x).collect::<Vec<_>>())
}

fn halves(machine: &mut Machine) -> Outcome {
    let mut values = small_f32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    values.reverse();
    same("out", &machine.read::<f32>(out)?, &values)
}

fn store_back(machine: &mut Machine) -> Outcome {
    let values = small_i32(4 * 64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 4 * 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    same("out", &machine.read::<i32>(out)?, &values.iter().map(|x| x + 1).collect::<Vec<_>>())
}

fn by_state(machine: &mut Machine) -> Outcome {
    let values = small_i32(64);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<i32>("out", 64)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let expected: Vec<i32> = (0..64).map(|t| values[t ^ 1] + 2).collect();
    same("out", &machine.read::<i32>(out)?, &expected)
}

fn by_cp_async(machine: &mut Machine) -> Outcome {
    let values = small_f32(256);
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<f32>("out", 256)?;
    machine.launch(1, 64, 0, args![input, out])?;
    let expected: Vec<f32> = values.chunks(4).rev().flatten().copied().collect();
    same("out", &machine.read::<f32>(out)?, &expected)
}
