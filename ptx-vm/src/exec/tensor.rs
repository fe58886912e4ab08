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
/// The largest K, and the most steps of it.
const DEPTH: usize = 16;
const STEPS: usize = DEPTH / 4;

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
        let [of_a, of_b, of_c] =
            [&self.a, &self.b, &self.c].map(|all| all.iter().map(|it| it.read(registers)).collect::<Vec<_>>());
        if self.adds_nothing(&of_a, &of_b, &of_c) {
            for (c, d) in of_c.into_iter().zip(&self.d) {
                d.write(registers, c, Mask::MAX);
            }
            return;
        }
        let (mut a, mut b) = ([Line::default(); ROWS], [Line::default(); COLUMNS]);
        let packed = self.factor.packed();
        for (i, words) in of_a.into_iter().enumerate() {
            for (lane, word) in words.into_iter().enumerate() {
                for element in 0..packed {
                    let column = i / 2 * self.factor.step() + lane % 4 * packed + element;
                    a[lane / 4 + i % 2 * 8].values[column] = self.factor.element(word, element);
                }
            }
        }
        for (i, words) in of_b.into_iter().enumerate() {
            for (lane, word) in words.into_iter().enumerate() {
                for element in 0..packed {
                    let row = i * self.factor.step() + lane % 4 * packed + element;
                    b[lane / 4].values[row] = self.factor.element(word, element);
                }
            }
        }
        a.iter_mut().chain(&mut b).for_each(|line| line.find_zeros(self.factor.step()));
        for (i, (c, d)) in of_c.iter().zip(&self.d).enumerate() {
            d.write(registers, each_lane(|lane| self.sums(i, lane, c[lane], &a, &b)), Mask::MAX);
        }
    }

    /// Whether D is C, bit for bit: one factor is 0, as where a matrix is padded, and the other is finite. −0 would become
    /// +0, and a NaN another one.
    fn adds_nothing(&self, a: &[[u32; 32]], b: &[[u32; 32]], c: &[[u32; 32]]) -> bool {
        let all = |words: &[[u32; 32]], is: &dyn Fn(u32) -> bool| words.as_flattened().iter().all(|&word| is(word));
        let is_finite = |word| (0..self.factor.packed()).all(|i| self.factor.element(word, i).is_finite());
        let stays = |word| word != (-0.0_f32).to_bits() && !f32::from_bits(word).is_nan();
        let (a_is_zero, b_is_zero) = (all(a, &|word| word == 0), all(b, &|word| word == 0));
        self.accumulator == Accumulator::F32
            && (a_is_zero || b_is_zero)
            && (a_is_zero || all(a, &is_finite))
            && (b_is_zero || all(b, &is_finite))
            && all(c, &stays)
    }

    /// What lane `lane` has in register `i` of D, given the same of C.
    fn sums(&self, i: usize, lane: usize, c: u32, a: &[Line; ROWS], b: &[Line; COLUMNS]) -> u32 {
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

    fn dot(&self, a: &Line, b: &Line, c: f64, round: impl Fn(f64) -> f64) -> f64 {
        let step = self.factor.step();
        let mut sum = c;
        for (i, first) in (0..self.k).step_by(step).enumerate() {
            // What is padded is 0, and most of a small matrix is padded. Only −0 is changed by adding 0.
            let adds_nothing = a.is_zero[i] && b.is_finite[i] || b.is_zero[i] && a.is_finite[i];
            if adds_nothing && sum.to_bits() != (-0.0_f64).to_bits() {
                continue;
            }
            let steps = first..first + step;
            sum = round(aligned_sum(sum, &a.values[steps.clone()], &b.values[steps], ALIGNED_BITS));
        }
        sum
    }
}

/// A row of A or a column of B.
#[derive(Clone, Copy, Default)]
struct Line {
    values: [f64; DEPTH],
    /// Of each step.
    is_zero: [bool; STEPS],
    is_finite: [bool; STEPS],
}

impl Line {
    fn find_zeros(&mut self, step: usize) {
        for (i, values) in self.values.chunks(step).enumerate() {
            self.is_zero[i] = values.iter().all(|&x| x == 0.0);
            self.is_finite[i] = values.iter().all(|x| x.is_finite());
        }
    }
}

/// c + Σ a·b as a matrix unit adds that keeps so many bits below the greatest exponent, before the result is rounded.
pub fn aligned_sum(c: f64, a: &[f64], b: &[f64], bits: i32) -> f64 {
    let mut greatest = if c == 0.0 { i32::MIN } else { exponent(c) };
    for (&a, &b) in a.iter().zip(b) {
        if exponent(a).max(exponent(b)) == NOT_FINITE {
            greatest = NOT_FINITE;
            break;
        }
        // The product of two significands in [1, 2) is not brought back to that range before it is aligned.
        if a * b != 0.0 {
            greatest = greatest.max(exponent(a) + exponent(b));
        }
    }
    if greatest == i32::MIN || greatest >= NOT_FINITE {
        return c + a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    }
    // Products of two f32 reach from 2^-298 to 2^256, so that neither is beyond f64.
    let (unit, of_unit) = (power_of_2(greatest - bits), power_of_2(bits - greatest));
    let aligned = |addend: f64| (addend * of_unit) as i64;
    let sum = a.iter().zip(b).map(|(a, b)| aligned(a * b)).sum::<i64>() + aligned(c);
    sum as f64 * unit
}

/// What [`exponent`] gives of infinities and NaN.
const NOT_FINITE: i32 = 1024;

/// ⌊log2 |x|⌋ of a normal f64; every f32, f16 and bf16 is one there.
pub fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// 2ⁿ for n in −1022 ..= 1023.
fn power_of_2(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
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
