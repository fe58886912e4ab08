//! The sums that kernels leave of bags and heads, which a [`PoolState`] of [`Order::Exact`](crate::Order::Exact) is made of.

use super::super::abi::{self, MivcExactMassNode, MivcExactSumNode};
use crate::error::{Error, Result, expect_len};
use crate::exact::bins::{Bins, NO_BIN};
use crate::exact::sum::{Head, Mass, Special, Sum, column_groups};
use crate::state::{PoolState, sizes};

/// i64 words of a node, of a bag and head or of a group of its columns.
const MASS_WORDS: usize = size_of::<MivcExactMassNode>() / size_of::<i64>();
const SUM_WORDS: usize = size_of::<MivcExactSumNode>() / size_of::<i64>();
const COLUMNS: usize = abi::MIVC_EXACT_COLUMNS as usize;
/// As kernels have it, of a special that has not come up.
const NO_SCORE: i32 = i32::MIN;

/// How the exact sums of `[B, K, D]` lie in device memory: i64 words, of each bag and head first Σ exp(score), then
/// Σ exp(score)·x of each 256 columns. The last of these are as many words whatever is left of D: it is 64 bytes and 15,376
/// for each 256 features begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactSums {
    bags: usize,
    heads: usize,
    dim: usize,
    words: usize,
}

impl ExactSums {
    /// Of `bags` bags, `heads` heads and embeddings of `dim` features; those of a mean have one head.
    ///
    /// # Errors
    /// Where `heads` or `dim` is 0, or they do not fit the address space.
    pub fn new(bags: usize, heads: usize, dim: usize) -> Result<Self> {
        let (rows, _) = sizes(bags, heads, dim)?;
        let of_row = column_groups(dim).len().checked_mul(SUM_WORDS).and_then(|words| words.checked_add(MASS_WORDS));
        let words = of_row.and_then(|words| words.checked_mul(rows));
        let words = words.filter(|&words| words <= isize::MAX as usize / size_of::<i64>()).ok_or_else(|| {
            let got = format!("{:?}", [bags, heads, dim]);
            Error::argument("bags", "[B, K, D] of which exact sums fit the address space", got)
        })?;
        Ok(ExactSums { bags, heads, dim, words })
    }

    /// The words, of 8 bytes each.
    #[expect(clippy::len_without_is_empty, reason = "of no container")]
    pub fn len(&self) -> usize {
        self.words
    }

    /// Where the sums of exponentials are and those of columns, of words at `exact` of a call that was planned; nowhere
    /// where they are left out.
    pub(super) fn parts(exact: u64, bags: usize, heads: usize) -> [u64; 2] {
        match exact {
            0 => [0, 0],
            _ => [exact, exact + (bags * heads * size_of::<MivcExactMassNode>()) as u64],
        }
    }

    fn mass_words(&self) -> usize {
        self.bags * self.heads * MASS_WORDS
    }

    /// The state that a call has left in `words`, once they are on the host.
    ///
    /// # Errors
    /// Where they are not [`len`](Self::len) words, or none that a kernel leaves.
    pub fn state(&self, words: &[i64]) -> Result<PoolState> {
        PoolState::from_heads(self.bags, self.heads, self.dim, self.of_heads(words)?)
    }

    /// What that state is made of.
    pub(crate) fn of_heads(&self, words: &[i64]) -> Result<Vec<Head>> {
        expect_len("exact", "ExactSums::len", self.words, words.len())?;
        let (masses, sums) = words.split_at(self.mass_words());
        let sums_of_head = sums.chunks_exact(column_groups(self.dim).len() * SUM_WORDS);
        let heads = masses.chunks_exact(MASS_WORDS).zip(sums_of_head).enumerate();
        let head = |(i, (mass, sums)): (usize, (&[i64], _))| {
            let head = mass_of(mass).zip(self.sum_of(sums)).and_then(|(mass, sum)| Head::from_parts(mass, sum));
            head.ok_or_else(|| {
                Error::argument("exact", "sums as kernels leave them", format!("others at [{i}] of [B, K]"))
            })
        };
        heads.map(head).collect()
    }

    fn sum_of(&self, nodes: &[i64]) -> Option<Sum> {
        let mut specials = Vec::with_capacity(self.dim);
        let mut group = |(columns, node): (std::ops::Range<usize>, &[i64])| {
            let (bins, rest) = node.split_at(3 * 2 * COLUMNS);
            let (of_specials, rest) = rest.split_at(3 * COLUMNS / 2);
            let scores: Vec<f32> = of_specials.iter().flat_map(|word| halves(*word)).map(score_of).collect();
            specials.extend((0..columns.len()).map(|column| Special {
                infinity: scores[column],
                minus_infinity: scores[COLUMNS + column],
                nan: scores[2 * COLUMNS + column],
            }));
            bins_of(rest[0], bins, COLUMNS, columns.len())
        };
        let groups = column_groups(self.dim).zip(nodes.chunks_exact(SUM_WORDS));
        let groups = groups.map(&mut group).collect::<Option<Vec<_>>>()?;
        Some(Sum::from_parts(groups, Some(specials)))
    }
}

/// The bins of the first `columns` columns, of `padded` of each that is kept, from the greatest down.
fn bins_of(top: i64, words: &[i64], padded: usize, columns: usize) -> Option<Bins> {
    let top = (top != NO_BIN).then_some(top);
    let mut bins = vec![0; Bins::words_len(columns)];
    for (below, words) in words.chunks_exact(2 * padded).enumerate() {
        let slot = Bins::slot_of(top.unwrap_or(0).checked_sub(below as i64)?);
        let (low, high) = bins[slot * 2 * columns..][..2 * columns].split_at_mut(columns);
        for ((low, high), word) in low.iter_mut().zip(high).zip(words.chunks_exact(2)) {
            (*low, *high) = (word[0], word[1]);
        }
    }
    Bins::from_parts(columns, top, bins)
}

fn mass_of(node: &[i64]) -> Option<Mass> {
    let (bins, rest) = node.split_at(3 * 2);
    let [max, _] = halves(rest[1]);
    let max = f32::from_bits(max as u32);
    let max = if max.is_nan() { f32::NAN } else { max };
    Some(Mass { max, exponentials: bins_of(rest[0], bins, 1, 1)? })
}

/// The two 32-bit halves of a word, as they lie in memory.
fn halves(word: i64) -> [i32; 2] {
    let bytes = word.to_ne_bytes();
    let (halves, _) = bytes.as_chunks();
    [i32::from_ne_bytes(halves[0]), i32::from_ne_bytes(halves[1])]
}

/// Of an integer in the order of the scores.
fn score_of(ordered: i32) -> f32 {
    match ordered {
        NO_SCORE => f32::NEG_INFINITY,
        0.. => f32::from_bits(ordered as u32),
        _ => f32::from_bits((ordered ^ i32::MAX) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing seen, as kernels leave it.
    fn nothing(sums: ExactSums) -> Vec<i64> {
        let mut words = vec![0; sums.len()];
        let (masses, of_columns) = words.split_at_mut(sums.mass_words());
        let none = i64::from_ne_bytes([NO_SCORE.to_ne_bytes(), NO_SCORE.to_ne_bytes()].concat().try_into().unwrap());
        let max = [f32::NEG_INFINITY.to_ne_bytes(), [0; 4]].concat();
        for mass in masses.chunks_exact_mut(MASS_WORDS) {
            (mass[6], mass[7]) = (NO_BIN, i64::from_ne_bytes(max.clone().try_into().unwrap()));
        }
        for node in of_columns.chunks_exact_mut(SUM_WORDS) {
            node[6 * COLUMNS..][..3 * COLUMNS / 2].fill(none);
            node[SUM_WORDS - 2] = NO_BIN;
        }
        words
    }

    #[test]
    fn nothing_seen_is_an_empty_state() {
        let sums = ExactSums::new(2, 3, 300).unwrap();
        assert_eq!(sums.len(), 2 * 3 * (8 + 2 * 1922));
        let expected = PoolState::empty_in(crate::Order::Exact, 2, 3, 300).unwrap();
        assert_eq!(sums.state(&nothing(sums)).unwrap(), expected);
    }

    #[test]
    fn words_that_no_kernel_leaves() {
        let sums = ExactSums::new(1, 1, 300).unwrap();
        let says = |words: &[i64], start: &str| {
            let error = sums.state(words).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}");
        };
        says(&[0; 7], "exact: expected ExactSums::len = ");
        // A greatest score of 0 whose exponentials add up to nothing.
        says(&vec![0; sums.len()], "sum: ");
        let with = |at: usize, word: i64| {
            let mut words = nothing(sums);
            words[at] = word;
            words
        };
        let others = "exact: expected sums as kernels leave them, got others at [0]";
        says(&with(0, 1), others);
        says(&with(6, i64::MIN + 1), others);
        says(&with(8, -1), others);
        says(&with(8 + 6 * COLUMNS, 0x7f80_0000), others);
    }

    #[test]
    fn sizes_that_do_not_fit() {
        assert!(ExactSums::new(1, 0, 3).unwrap_err().to_string().starts_with("heads: "));
        assert!(ExactSums::new(usize::MAX / 4096, 1, 4).unwrap_err().to_string().starts_with("bags: "));
        assert_eq!(ExactSums::new(0, 1, 3).unwrap().len(), 0);
    }
}
