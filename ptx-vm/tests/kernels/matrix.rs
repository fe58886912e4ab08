use half::{bf16, f16};

use crate::Case;
use crate::inputs::{random_u32, small_f32};
use crate::machine::{Machine, Outcome, args, same};

pub const CASES: &[Case] = &[
    Case { kernel: "load_fragments", run: load_fragments, bugs: &[] },
    Case { kernel: "multiply_f16", run: |machine| multiply(machine, |x| f16::from_f32(x).to_bits()), bugs: &[] },
    Case { kernel: "multiply_bf16", run: |machine| multiply(machine, |x| bf16::from_f32(x).to_bits()), bugs: &[] },
    Case { kernel: "multiply_f16_f16", run: multiply_f16_f16, bugs: &[] },
    Case { kernel: "multiply_tf32", run: multiply_tf32, bugs: &[] },
];

fn load_fragments(machine: &mut Machine) -> Outcome {
    let values: Vec<u16> = random_u32(256).into_iter().map(|x| x as u16).collect();
    let input = machine.buffer("in", &values)?;
    let out = machine.output::<u32>("out", 3 * 4 * 32)?;
    machine.launch(1, 32, 0, args![input, out])?;

    // Element (row, column) of the 8 x 8 matrix i.
    let element = |i: usize, row: usize, column: usize| values[(i % 2 * 8 + row) * 16 + i / 2 * 8 + column] as u32;
    let plain = |i: usize, lane: usize| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        element(i, row, column) | element(i, row, column + 1) << 16
    };
    let transposed = |i: usize, lane: usize| {
        let (row, column) = (lane % 4 * 2, lane / 4);
        element(i, row, column) | element(i, row + 1, column) << 16
    };
    let rest = |i: usize, lane: usize| [plain(0, lane), plain(1, lane), plain(0, lane), 0][i];
    let registers = |of: &dyn Fn(usize, usize) -> u32| (0..128).map(|i| of(i / 32, i % 32)).collect::<Vec<u32>>();
    let out = machine.read::<u32>(out)?;
    same("x4", &out[..128], &registers(&plain))?;
    same("x4.trans", &out[128..256], &registers(&transposed))?;
    same("x2 and x1", &out[256..], &registers(&rest))
}

/// a bᵀ + c of whole numbers, exact; b: [8, k].
fn product(a: &[f32], b: &[f32], c: &[f32], k: usize) -> Vec<f32> {
    let dot = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum::<f32>();
    (0..128).map(|i| dot(i / 8, i % 8) + c[i]).collect()
}

fn multiply(machine: &mut Machine, bits: fn(f32) -> u16) -> Outcome {
    let numbers = small_f32(256 + 128 + 128);
    let (a, rest) = numbers.split_at(256);
    let (b, c) = rest.split_at(128);
    let bits = |values: &[f32]| values.iter().map(|&x| bits(x)).collect::<Vec<_>>();
    let (a_in, b_in) = (machine.buffer("a", &bits(a))?, machine.buffer("b", &bits(b))?);
    let (c_in, d) = (machine.buffer("c", c)?, machine.output::<f32>("d", 128)?);
    machine.launch(1, 32, 0, args![a_in, b_in, c_in, d])?;
    same("d", &machine.read::<f32>(d)?, &product(a, b, c, 16))?;

    // A factor of 0, as where a matrix is padded, hides nothing of the other, and makes −0 +0.
    let mut odd = c.to_vec();
    (odd[3], odd[40], odd[77]) = (-0.0, f32::NAN, f32::INFINITY);
    let mut infinite = b.to_vec();
    infinite[5 * 16 + 9] = f32::INFINITY;
    let zeros = [0.0; 256];
    for (a, b) in [(&zeros[..], b), (&zeros, &infinite), (a, &zeros[..128])] {
        let (a_in, b_in) = (machine.buffer("a", &bits(a))?, machine.buffer("b", &bits(b))?);
        let (c_in, d) = (machine.buffer("c", &odd)?, machine.output::<f32>("d", 128)?);
        machine.launch(1, 32, 0, args![a_in, b_in, c_in, d])?;
        let to_bits = |x: f32| if x.is_nan() { 0x7fff_ffff } else { x.to_bits() };
        let got: Vec<u32> = machine.read::<f32>(d)?.into_iter().map(f32::to_bits).collect();
        same("d of padding", &got, &product(a, b, &odd, 16).into_iter().map(to_bits).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn multiply_f16_f16(machine: &mut Machine) -> Outcome {
    // Sums below 2048 are exact in f16.
    let numbers: Vec<f32> = small_f32(256 + 128 + 128).into_iter().map(|x| (x / 6.0).round()).collect();
    let (a, rest) = numbers.split_at(256);
    let (b, c) = rest.split_at(128);
    let bits = |values: &[f32]| values.iter().map(|&x| f16::from_f32(x).to_bits()).collect::<Vec<_>>();
    let (a_in, b_in) = (machine.buffer("a", &bits(a))?, machine.buffer("b", &bits(b))?);
    let (c_in, d) = (machine.buffer("c", &bits(c))?, machine.output::<u16>("d", 128)?);
    machine.launch(1, 32, 0, args![a_in, b_in, c_in, d])?;
    same("d", &machine.read::<u16>(d)?, &bits(&product(a, b, c, 16)))
}

fn multiply_tf32(machine: &mut Machine) -> Outcome {
    // 2⁻¹¹ is half a unit of TF32 at 1 and 2; it goes away from zero.
    let numbers: Vec<f32> = small_f32(128 + 64 + 128).into_iter().map(|x| (x / 10.0).round()).collect();
    let (whole, rest) = numbers.split_at(128);
    let (b, c) = rest.split_at(64);
    let a: Vec<f32> = whole.iter().map(|&x| if x == 1.0 { x + 1.0 / 2048.0 } else { x }).collect();
    let (a_in, b_in) = (machine.buffer("a", &a)?, machine.buffer("b", b)?);
    let (c_in, d) = (machine.buffer("c", c)?, machine.output::<f32>("d", 128)?);
    machine.launch(1, 32, 0, args![a_in, b_in, c_in, d])?;
    let rounded: Vec<f32> = whole.iter().map(|&x| if x == 1.0 { x + 1.0 / 1024.0 } else { x }).collect();
    same("d", &machine.read::<f32>(d)?, &product(&rounded, b, c, 8))
}
