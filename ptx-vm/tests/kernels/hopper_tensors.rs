use ptx_vm::FaultKind::{Deadlock, Misaligned, Race, UnfinishedCopy, Uninitialised};
use ptx_vm::{Swizzle, TensorMap};

use crate::Case;
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case {
        kernel: "boxes",
        run: boxes,
        bugs: &[
            (1, &[Misaligned]),
            (2, &[Deadlock]),
            (3, &[UnfinishedCopy, Race, Uninitialised]),
            (4, &[UnfinishedCopy, Race]),
        ],
    },
    Case { kernel: "box_and_line", run: box_and_line, bugs: &[] },
];

/// Where a byte of a box comes to lie.
fn swizzled(swizzle: Swizzle, byte: usize) -> usize {
    let mask = match swizzle {
        Swizzle::None => 0,
        Swizzle::B32 => 1,
        Swizzle::B64 => 3,
        Swizzle::B128 => 7,
    };
    byte ^ (((byte / 128) & mask) << 4)
}

fn boxes(machine: &mut Machine) -> Outcome {
    let (columns, rows, pitch) = (100, 20, 104);
    let values: Vec<u16> = (1..=pitch * rows).map(|i| i as u16).collect();
    let input = machine.buffer("in", &values)?;
    let places = [[0, 0], [64, 16], [-8, -3], [36, 5], [100, 0], [7, 19]];
    let places_in = machine.buffer("places", &places.concat())?;
    for (swizzle, width, height) in
        [(Swizzle::B128, 64, 8), (Swizzle::B64, 32, 16), (Swizzle::B32, 16, 32), (Swizzle::None, 256, 2)]
    {
        let block = vec![width as u32, height as u32];
        let map = TensorMap {
            element_bytes: 2,
            address: 0,
            dims: vec![columns as u64, rows as u64],
            strides: vec![2 * pitch as u64],
            block,
            swizzle,
        };
        let map = machine.tensor_map(input, map)?;
        let out = machine.output::<u16>("out", 512 * places.len())?;
        machine.launch(1, 32, 0, args![map, places_in, out, places.len() as i32])?;
        let mut expected = vec![0; 512 * places.len()];
        for (place, expected) in places.iter().zip(expected.chunks_mut(512)) {
            for (i, j) in (0..height).flat_map(|i| (0..width).map(move |j| (i, j))) {
                let (x, y) = (place[0] + j, place[1] + i);
                if (0..columns).contains(&x) && (0..rows).contains(&y) {
                    let to = swizzled(swizzle, 2 * (i * width + j) as usize) / 2;
                    expected[to] = values[(y * pitch + x) as usize];
                }
            }
        }
        same("out", &machine.read::<u16>(out)?, &expected)?;
    }
    Ok(())
}

fn box_and_line(machine: &mut Machine) -> Outcome {
    let (sides, strides) = ([10, 5, 3], [1, 12, 60]);
    let values: Vec<f32> = (1..=180).map(|i| i as f32).collect();
    let bytes: Vec<u8> = (0..48).map(|i| i + 1).collect();
    let (input, bytes_in) = (machine.buffer("in", &values)?, machine.buffer("bytes", &bytes)?);
    let map = TensorMap {
        element_bytes: 4,
        address: 0,
        dims: sides.map(|side| side as u64).to_vec(),
        strides: vec![48, 240],
        block: vec![8, 4, 2],
        swizzle: Swizzle::None,
    };
    let line = TensorMap { element_bytes: 1, dims: vec![48], strides: vec![], block: vec![64], ..map.clone() };
    let (map, line) = (machine.tensor_map(input, map)?, machine.tensor_map(bytes_in, line)?);
    for (x, y, z) in [(0, 0, 0), (4, 3, 2), (-1, -2, -1)] {
        let out = machine.output::<f32>("out", 64)?;
        let line_out = machine.output::<u8>("line_out", 64)?;
        machine.launch(1, 32, 0, args![args![z, map, line], x, y, out, line_out])?;
        let element = |i: i32| {
            let at = [x + i % 8, y + i / 8 % 4, z + i / 32];
            let inside = at.iter().zip(sides).all(|(at, side)| (0..side).contains(at));
            if inside {
                values[at.iter().zip(strides).map(|(at, stride)| at * stride).sum::<i32>() as usize]
            } else {
                0.0
            }
        };
        same("out", &machine.read::<f32>(out)?, &(0..64).map(element).collect::<Vec<_>>())?;
        let byte = |i: i32| usize::try_from(x + i).ok().and_then(|i| bytes.get(i).copied()).unwrap_or(0);
        same("line_out", &machine.read::<u8>(line_out)?, &(0..64).map(byte).collect::<Vec<_>>())?;
    }
    Ok(())
}
