//! `ldmatrix` and `mma.sync`: matrices spread over the lanes of a warp.
//!
//! The matrix units do not add as f32 does. As measured on Ampere and Ada (MMA-Sim, arXiv 2511.10909), the
//! products of 8 columns (4 of TF32) and the accumulator are aligned to the greatest exponent among them, cut
//! off 24 bits below it, added exactly, and the sum is cut off to f32; sums to f16 are rounded.

use half::{bf16, f16};

use super::Address;
use super::access::addresses;
use super::cluster::{At, Cluster, Outcome};
use crate::check::Kind;
use crate::registers::{Mask, Reg, Registers, each_lane};

/// Bits that addends of `mma.sync` keep below the greatest exponent.
const ALIGNED_BITS: i32 = 24;

/// Type of the elements of A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Factor {
    F16,
    Bf16,
    Tf32,
}

/// Type of the elements of C and D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulator {
    F32,
    F16,
}

/// `mma.sync.m16n8kK`: D = A·B + C, A row-major, B column-major.
#[derive(Debug)]
pub struct Multiply {
    pub factor: Factor,
    pub accumulator: Accumulator,
    /// Columns of A.
    pub k: usize,
    pub d: Vec<Reg<u32>>,
    pub a: Vec<Reg<u32>>,
    pub b: Vec<Reg<u32>>,
    pub c: Vec<Reg<u32>>,
}

const ROWS: usize = 16;
const COLUMNS: usize = 8;
/// The largest K.
const DEPTH: usize = 16;

impl Factor {
    /// Elements in a register.
    fn packed(self) -> usize {
        if self == Factor::Tf32 { 1 } else { 2 }
    }

    /// Columns whose products are added in one step.
    fn step(self) -> usize {
        4 * self.packed()
    }

    pub fn element(self, word: u32, i: usize) -> f64 {
        let half = (word >> (16 * i)) as u16;
        match self {
            Factor::F16 => f16::from_bits(half).to_f64(),
            Factor::Bf16 => bf16::from_bits(half).to_f64(),
            // The unit does not see the lower bits.
            Factor::Tf32 => f32::from_bits(word & !0x1fff) as f64,
        }
    }
}

impl Multiply {
    /// Registers of A, B and of C or D.
    pub fn registers(factor: Factor, accumulator: Accumulator, k: usize) -> (usize, usize, usize) {
        let of_b = k / factor.step();
        (2 * of_b, of_b, if accumulator == Accumulator::F32 { 4 } else { 2 })
    }

    pub(super) fn run(&self, registers: &mut Registers) {
        let (mut a, mut b) = ([[0.0; DEPTH]; ROWS], [[0.0; DEPTH]; COLUMNS]);
        let packed = self.factor.packed();
        for (i, register) in self.a.iter().enumerate() {
            let words = register.read(registers);
            for (lane, word) in words.into_iter().enumerate() {
                for element in 0..packed {
                    let column = i / 2 * self.factor.step() + lane % 4 * packed + element;
                    a[lane / 4 + i % 2 * 8][column] = self.factor.element(word, element);
                }
            }
        }
        for (i, register) in self.b.iter().enumerate() {
            let words = register.read(registers);
            for (lane, word) in words.into_iter().enumerate() {
                for element in 0..packed {
                    let row = i * self.factor.step() + lane % 4 * packed + element;
                    b[lane / 4][row] = self.factor.element(word, element);
                }
            }
        }
        let c: Vec<_> = self.c.iter().map(|c| c.read(registers)).collect();
        for (i, (c, d)) in c.iter().zip(&self.d).enumerate() {
            d.write(registers, each_lane(|lane| self.sums(i, lane, c[lane], &a, &b)), Mask::MAX);
        }
    }

    /// What lane `lane` has in register `i` of D, given the same of C.
    fn sums(&self, i: usize, lane: usize, c: u32, a: &[[f64; DEPTH]; ROWS], b: &[[f64; DEPTH]; COLUMNS]) -> u32 {
        let column = lane % 4 * 2;
        match self.accumulator {
            Accumulator::F32 => {
                let (row, column) = (lane / 4 + i / 2 * 8, column + i % 2);
                let sum =
                    self.dot(&a[row], &b[column], f32::from_bits(c) as f64, |sum| to_f32_towards_zero(sum) as f64);
                if sum.is_nan() { 0x7fff_ffff } else { (sum as f32).to_bits() }
            }
            Accumulator::F16 => {
                let row = lane / 4 + i * 8;
                let half = |j: usize| {
                    let c = f16::from_bits((c >> (16 * j)) as u16).to_f64();
                    let sum = self.dot(&a[row], &b[column + j], c, |sum| f16::from_f64(sum).to_f64());
                    if sum.is_nan() { 0x7fff } else { f16::from_f64(sum).to_bits() as u32 }
                };
                half(0) | half(1) << 16
            }
        }
    }

    fn dot(&self, a: &[f64], b: &[f64], c: f64, round: impl Fn(f64) -> f64) -> f64 {
        let step = self.factor.step();
        let pairs = a[..self.k].chunks(step).zip(b[..self.k].chunks(step));
        pairs.fold(c, |sum, (a, b)| round(aligned_sum(sum, a, b, ALIGNED_BITS)))
    }
}

/// c + Σ a·b as a matrix unit adds that keeps so many bits below the greatest exponent, before the result is rounded.
pub fn aligned_sum(c: f64, a: &[f64], b: &[f64], bits: i32) -> f64 {
    let exact = || a.iter().zip(b).map(|(a, b)| a * b);
    let special = c + exact().sum::<f64>();
    if !c.is_finite() || !exact().all(f64::is_finite) {
        return special;
    }
    // The product of two significands in [1, 2) is not brought back to that range before it is aligned.
    let exponents = a.iter().zip(b).filter(|(a, b)| **a != 0.0 && **b != 0.0).map(|(a, b)| exponent(*a) + exponent(*b));
    let Some(greatest) = exponents.chain((c != 0.0).then(|| exponent(c))).max() else { return special };
    let unit = 2.0_f64.powi(greatest - bits);
    let sum: f64 = exact().chain([c]).map(|addend| (addend / unit).trunc()).sum();
    sum * unit
}

/// ⌊log2 |x|⌋ of a normal f64; every f32, f16 and bf16 is one there.
pub fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

pub fn to_f32_towards_zero(x: f64) -> f32 {
    let nearest = x as f32;
    if nearest.is_infinite() && x.is_finite() {
        return f32::MAX.copysign(nearest);
    }
    if (nearest as f64).abs() > x.abs() { f32::from_bits(nearest.to_bits() - 1) } else { nearest }
}

impl Cluster<'_> {
    /// Each 8 lanes name the rows, of 16 bytes, of one 8×8 matrix of 16-bit elements.
    pub(super) fn load_matrix(
        &mut self,
        registers: &mut Registers,
        at: At,
        to: &[Reg<u32>],
        transposed: bool,
        address: &Address,
    ) -> Outcome {
        let rows = addresses(registers, address);
        self.count_rows(&rows[..8 * to.len()]);
        for (matrix, to) in to.iter().enumerate() {
            let mut elements = [[0_u16; 8]; 8];
            for (row, elements) in elements.iter_mut().enumerate() {
                let lane = 8 * matrix + row;
                let location = self.locate(at, lane, address.space, rows[lane], 16)?;
                let value = self.read(at, lane, location, 16, Kind::Read)?;
                *elements = std::array::from_fn(|i| (value[i / 2] >> (i % 2 * 16)) as u16);
            }
            let element =
                |row: usize, column: usize| if transposed { elements[column][row] } else { elements[row][column] };
            let words = each_lane(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                element(row, column) as u32 | (element(row, column + 1) as u32) << 16
            });
            to.write(registers, words, Mask::MAX);
        }
        Ok(())
    }

    /// The reverse of [`load_matrix`](Self::load_matrix).
    pub(super) fn store_matrix(
        &mut self,
        registers: &Registers,
        at: At,
        from: &[Reg<u32>],
        transposed: bool,
        address: &Address,
    ) -> Outcome {
        let rows = addresses(registers, address);
        for (matrix, from) in from.iter().enumerate() {
            let words = from.read(registers);
            let element = |row: usize, column: usize| words[row * 4 + column / 2] >> (column % 2 * 16) & 0xffff;
            for row in 0..8 {
                let lane = 8 * matrix + row;
                let location = self.locate(at, lane, address.space, rows[lane], 16)?;
                let pair = |i: usize| match transposed {
                    false => element(row, 2 * i) | element(row, 2 * i + 1) << 16,
                    true => element(2 * i, row) | element(2 * i + 1, row) << 16,
                };
                let value = std::array::from_fn(pair);
                self.write(at, lane, location, 16, value, Kind::Write { repeats: false })?;
            }
        }
        Ok(())
    }
}
