//! How the matrix units of Hopper add: all products of a row and a column and the accumulator in one step, aligned to
//! the greatest exponent among them and cut off 25 bits below it (MMA-Sim, arXiv 2511.10909).

use super::tensor::{aligned_sum, exponent, to_f32_towards_zero};

/// Bits that addends keep below the greatest exponent.
const ALIGNED_BITS: i32 = 25;
/// Exponent of a product with 0: below that of every other.
const OF_ZERO: i16 = -8192;
/// No product of two f32 has a lower exponent.
const LOWEST: i16 = -600;

/// Columns of a matrix side by side, row after row: `n` columns of `k` elements.
pub struct Columns {
    n: usize,
    values: Vec<f64>,
    exponents: Vec<i16>,
    is_finite: bool,
}

impl Columns {
    /// `value(row, column)`
    pub fn new(k: usize, n: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        let values: Vec<f64> = (0..k)
            .flat_map(|row| (0..n).map(move |column| (row, column)))
            .map(|(row, column)| value(row, column))
            .collect();
        let exponents = values.iter().map(|&x| exponent_or_lowest(x)).collect();
        let is_finite = values.iter().all(|x| x.is_finite());
        Columns { n, values, exponents, is_finite }
    }

    /// Adds the products of a row and each column to `sums`, one for each column.
    pub fn add_products(&self, row: &[f64], sums: &mut [f32]) {
        let is_finite = self.is_finite && row.iter().all(|x| x.is_finite()) && sums.iter().all(|x| x.is_finite());
        if is_finite { self.add_finite(row, sums) } else { self.add_any(row, sums) }
    }

    /// Loops over columns, which lie side by side, so that the compiler makes vectors of them.
    fn add_finite(&self, row: &[f64], sums: &mut [f32]) {
        let mut greatest: Vec<i16> = sums.iter().map(|&sum| exponent_or_lowest(sum as f64)).collect();
        for (&a, exponents) in row.iter().zip(self.exponents.chunks_exact(self.n)) {
            let of_a = exponent_or_lowest(a);
            for (greatest, of_b) in greatest.iter_mut().zip(exponents) {
                *greatest = (*greatest).max(of_a + of_b);
            }
        }
        let scales: Vec<f64> = greatest.iter().map(|&exponent| scale(exponent)).collect();
        let mut totals: Vec<f64> = sums.iter().zip(&scales).map(|(&sum, scale)| cut_off(sum as f64 * scale)).collect();
        for (&a, values) in row.iter().zip(self.values.chunks_exact(self.n)) {
            for ((total, b), scale) in totals.iter_mut().zip(values).zip(&scales) {
                *total += cut_off(a * b * scale);
            }
        }
        for ((sum, total), scale) in sums.iter_mut().zip(totals).zip(scales) {
            *sum = to_f32_towards_zero(total / scale);
        }
    }

    /// The same, one by one, with what IEEE arithmetic says of infinities and NaN.
    fn add_any(&self, row: &[f64], sums: &mut [f32]) {
        for (column, sum) in sums.iter_mut().enumerate() {
            let values: Vec<f64> = self.values.iter().skip(column).step_by(self.n).copied().collect();
            let total = aligned_sum(*sum as f64, row, &values, ALIGNED_BITS);
            *sum = if total.is_nan() { f32::from_bits(0x7fff_ffff) } else { to_f32_towards_zero(total) };
        }
    }
}

fn exponent_or_lowest(x: f64) -> i16 {
    if x == 0.0 { OF_ZERO } else { exponent(x) as i16 }
}

/// What makes the last bit that addends keep a 1.
fn scale(greatest: i16) -> f64 {
    let exponent = ALIGNED_BITS - greatest.max(LOWEST) as i32;
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// Towards zero; scaled addends are below 2²⁷.
#[inline(always)]
fn cut_off(x: f64) -> f64 {
    x as i32 as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of some different magnitudes, exact in bf16.
    fn numbers(count: usize, mut state: u64) -> Vec<f64> {
        let next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let bits = (state >> 48) as u16 & 0x87ff | 0x3c00;
            if state >> 40 & 7 == 0 { 0.0 } else { half::bf16::from_bits(bits).to_f64() }
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn flat_loops_add_as_one_by_one() {
        for seed in 0..50 {
            let (row, values) = (numbers(16, seed), numbers(16 * 24, seed + 1000));
            let columns = Columns::new(16, 24, |k, n| values[k * 24 + n]);
            let sums: Vec<f32> = numbers(24, seed + 2000).iter().map(|&x| x as f32 * 1.000_123).collect();
            let (mut flat, mut single) = (sums.clone(), sums);
            columns.add_finite(&row, &mut flat);
            columns.add_any(&row, &mut single);
            assert_eq!(flat, single);
        }
    }

    #[test]
    fn addends_lose_what_is_25_bits_below_the_greatest() {
        let sum_of = |row: &[f64], sum: f32| {
            let mut sums = [sum];
            Columns::new(row.len(), 1, |_, _| 1.0).add_products(row, &mut sums);
            sums[0]
        };
        let tiny = 2f64.powi(-25);
        // Two halves of the last bit of an f32 in [1, 2) make one, four quarters too, and eighths are lost.
        assert_eq!(sum_of(&[1.0, 2.0 * tiny, 2.0 * tiny], 0.0), 1.0 + 2f32.powi(-23));
        assert_eq!(sum_of(&[1.0, tiny, tiny, tiny, tiny], 0.0), 1.0 + 2f32.powi(-23));
        assert_eq!(sum_of(&[tiny / 2.0; 8], 1.0), 1.0);
        assert_eq!(sum_of(&[0.0; 4], 0.0), 0.0);
        assert_eq!(sum_of(&[f64::INFINITY, 1.0], 0.0), f32::INFINITY);
        assert!(sum_of(&[f64::INFINITY, f64::NEG_INFINITY], 0.0).is_nan());
    }
}
