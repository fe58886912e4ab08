//! Random calls.

use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Element};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::Matrix;

/// A call, small enough to print: all numbers follow from the seed.
#[derive(Debug, Clone)]
pub struct Case {
    pub seed: u64,
    /// Rows of each bag.
    pub lengths: Vec<i64>,
    /// D of features and keys.
    pub dim: usize,
    /// D of values, where they are not the keys.
    pub value_dim: Option<usize>,
    pub hidden: usize,
    pub heads: usize,
    pub groups: usize,
    pub gated: bool,
    /// Whether there are biases of V, of U and of w.
    pub biases: [bool; 3],
    pub masked: bool,
    /// Elements between the rows of features and values.
    pub padding: usize,
    /// How far scores lie apart: from nearly equal weights to one that takes all.
    pub spread: f32,
}

/// Multiplications for the scores of one case, above which bags are cut short.
const WORK: usize = 6_000_000;

/// Calls of every kind: few bags about as long as a tile or chunk, many tiny ones, and rarely one of
/// more chunks than a node of the merge tree has children.
pub fn cases() -> BoxedStrategy<Case> {
    let length = prop_oneof![
        2 => Just(0_i64),
        2 => Just(1),
        6 => 2..=9_i64,
        3 => 10..=70_i64,
        4 => select(vec![125_i64, 126, 127]),
        1 => select(vec![251_i64, 252, 253]),
        // As chunks of the CUDA kernels are.
        2 => select(vec![255_i64, 256, 257, 511, 513]),
    ];
    let few = (prop::collection::vec(length, 0..6), shapes());
    let tiny = (prop::collection::vec(0..=9_i64, 20..60), shapes());
    let long = prop_oneof![4030..4040_i64, 8190..8195_i64];
    let long = ((long, 0..=9_i64).prop_map(|(long, short)| vec![short, long, 1]), slim_shapes());
    prop_oneof![16 => few, 4 => tiny, 1 => long]
        .prop_map(|(lengths, shape)| Case { lengths, ..shape }.cut_to(WORK))
        .boxed()
}

/// As [`cases`], with bags of a few rows alone.
pub fn small_cases() -> BoxedStrategy<Case> {
    (prop::collection::vec(0..=9_i64, 0..5), slim_shapes())
        .prop_map(|(lengths, shape)| Case { lengths, ..shape })
        .boxed()
}

fn shapes() -> BoxedStrategy<Case> {
    let heads = prop_oneof![
        6 => Just((1, 1)),
        4 => select(vec![(2, 1), (2, 2), (5, 1), (5, 5), (6, 3)]),
        1 => select(vec![(64, 1), (64, 64)]),
    ];
    cases_of(vec![1, 3, 8, 31, 32, 33, 100, 128, 500], vec![1, 5, 16, 17, 64], heads)
}

fn slim_shapes() -> BoxedStrategy<Case> {
    cases_of(vec![1, 3, 8, 17], vec![1, 5], select(vec![(1, 1), (2, 1), (2, 2), (5, 1)]))
}

fn cases_of(
    dims: Vec<usize>,
    hidden: Vec<usize>,
    heads_and_groups: impl Strategy<Value = (usize, usize)> + 'static,
) -> BoxedStrategy<Case> {
    let sizes = (select(dims.clone()), prop::option::of(select(dims)), select(hidden), heads_and_groups);
    let kind = (any::<bool>(), any::<[bool; 3]>(), any::<bool>());
    let values = (any::<u64>(), select(vec![0, 1, 7]), select(vec![0.25_f32, 1.0, 6.0]));
    (sizes, kind, values)
        .prop_map(|((dim, value_dim, hidden, (heads, groups)), (gated, biases, masked), (seed, padding, spread))| {
            Case {
                seed,
                lengths: Vec::new(),
                dim,
                value_dim,
                hidden,
                heads,
                groups,
                gated,
                biases,
                masked,
                padding,
                spread,
            }
        })
        .boxed()
}

impl Case {
    fn cut_to(mut self, work: usize) -> Self {
        let mut rows = (work / (self.dim * self.hidden * self.groups * if self.gated { 2 } else { 1 })) as i64;
        for length in &mut self.lengths {
            *length = rows.min(*length);
            rows -= *length;
        }
        self
    }

    pub fn instances(&self) -> usize {
        self.lengths.iter().sum::<i64>() as usize
    }

    /// The bags, one in ten masked as a whole where there is a mask, and one row in five of the others.
    pub fn bags(&self) -> Bags<'static> {
        let bags = Bags::from_lengths(&self.lengths).unwrap();
        if !self.masked {
            return bags;
        }
        let mut rng = self.rng("mask");
        let mut mask = Vec::with_capacity(self.instances());
        for &length in &self.lengths {
            let present = if rng.random_ratio(1, 10) { 0.0 } else { 0.8 };
            mask.extend((0..length).map(|_| u8::from(rng.random_bool(present))));
        }
        bags.with_mask(mask).unwrap()
    }

    /// Features or keys `[N, D]`; NaN in the rows that are masked.
    pub fn features<E: Element>(&self) -> Matrix<E> {
        self.matrix("features", self.dim)
    }

    /// Values `[N, D]`, where they are not the keys.
    pub fn values<E: Element>(&self) -> Option<Matrix<E>> {
        self.value_dim.map(|dim| self.matrix("values", dim))
    }

    /// Values `[N, K · D]`.
    pub fn values_per_head<E: Element>(&self) -> Matrix<E> {
        self.matrix("values per head", self.heads * self.dim.min(33))
    }

    fn matrix<E: Element>(&self, what: &str, dim: usize) -> Matrix<E> {
        let mut matrix = Matrix::from_f32(dim, &self.uniform(what, self.instances() * dim, 2.0));
        for (n, &present) in self.bags().mask().unwrap_or_default().iter().enumerate() {
            if present == 0 {
                matrix.row_mut(n).fill(E::from_f32(f32::NAN));
            }
        }
        matrix.padded(self.padding)
    }

    /// V and U are not of any type narrower than f32.
    pub fn params(&self) -> AttentionParams {
        let &Case { dim, hidden, heads, groups, spread, .. } = self;
        let matrix = |what| self.uniform(what, groups * hidden * dim, 2.0 / (dim as f32).sqrt());
        let (v, u) = (matrix("v"), matrix("u"));
        let (v_bias, u_bias) =
            (self.uniform("v bias", groups * hidden, 1.0), self.uniform("u bias", groups * hidden, 1.0));
        let (w, w_bias) = (self.uniform("w", heads * hidden, spread), self.uniform("w bias", heads, spread));
        let tensors = AttentionTensors {
            v: &v,
            v_bias: self.biases[0].then_some(&v_bias),
            u: self.gated.then_some(&u),
            u_bias: (self.gated && self.biases[1]).then_some(&u_bias),
            w: &w,
            w_bias: self.biases[2].then_some(&w_bias),
        };
        AttentionParams::new(AttentionShape { dim, hidden, heads, groups }, tensors).unwrap()
    }

    /// x and y of the gate, `[N, L]`.
    pub fn gate_arguments<E: Element>(&self) -> (Vec<E>, Vec<E>) {
        let argument = |what| {
            let data = self.uniform(what, self.instances() * self.hidden, 8.0 * self.spread);
            data.into_iter().map(E::from_f32).collect()
        };
        (argument("x"), argument("y"))
    }

    /// Scores `[N, K]`, one in ten −inf.
    pub fn scores(&self) -> Vec<f32> {
        let scores = self.uniform("scores", self.instances() * self.heads, 10.0 * self.spread);
        self.one_in_ten("no score", scores, f32::NEG_INFINITY)
    }

    /// Weights `[N, K]` of either sign, one in ten 0.
    pub fn weights(&self) -> Vec<f32> {
        let weights = self.uniform("weights", self.instances() * self.heads, 1.0);
        self.one_in_ten("no weight", weights, 0.0)
    }

    fn one_in_ten(&self, what: &str, mut data: Vec<f32>, other: f32) -> Vec<f32> {
        let mut rng = self.rng(what);
        for x in &mut data {
            if rng.random_ratio(1, 10) {
                *x = other;
            }
        }
        data
    }

    /// Numbers between −`bound` and `bound`.
    pub fn uniform(&self, what: &str, len: usize, bound: f32) -> Vec<f32> {
        let mut rng = self.rng(what);
        (0..len).map(|_| rng.random_range(-bound..bound)).collect()
    }

    /// Random numbers of their own for each purpose, whose name has up to 24 bytes.
    pub fn rng(&self, what: &str) -> TestRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..8 + what.len()].copy_from_slice(what.as_bytes());
        TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
    }
}
