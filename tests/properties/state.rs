//! Pieces of bags, pooled onto states, come to what the whole bags come to, however they were cut and merged.

use mivc::{AttentionParams, Bags, Element, PoolState};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::backends::Backend;
use crate::support::{Bits, Case, Check, Matrix, Outcome, Subject, cases, oracle, same, small_cases};

tests![merge; any_grouping, one_piece, nothing_new, nan_in_one_piece];

const CASES: u32 = 32;

impl Bits for PoolState {
    fn bits(&self) -> Vec<u64> {
        [self.max(), self.sum(), self.pooled()].concat().bits()
    }
}

/// Some instances of every bag.
pub struct Piece {
    /// Their numbers in the whole, in the order of the bags.
    pub rows: Vec<usize>,
    pub bags: Bags<'static>,
}

impl Piece {
    fn new(whole: &Bags<'_>, rows: Vec<usize>) -> Self {
        let of_bag = |bag: std::ops::Range<usize>| rows.iter().filter(|row| bag.contains(row)).count() as i64;
        let bags = Bags::from_lengths(&whole.ranges().map(of_bag).collect::<Vec<_>>()).unwrap();
        let bags = match whole.mask() {
            Some(mask) => bags.with_mask(rows.iter().map(|&row| mask[row]).collect::<Vec<_>>()).unwrap(),
            None => bags,
        };
        Piece { rows, bags }
    }

    /// Each instance in a piece of its own choice; some of the pieces may be empty.
    pub fn any(case: &Case, count: usize) -> Vec<Piece> {
        let (bags, mut rng) = (case.bags(), case.rng("pieces"));
        let mut rows = vec![Vec::new(); count];
        (0..case.instances()).for_each(|row| rows[rng.random_range(0..count)].push(row));
        rows.into_iter().map(|rows| Piece::new(&bags, rows)).collect()
    }
}

/// The whole that pieces are of.
struct Whole<'a, B: Backend, E> {
    subject: &'a Subject<B>,
    params: &'a AttentionParams,
    packed: B::Packed,
    keys: &'a Matrix<E>,
    values: Option<&'a Matrix<E>>,
    bags: &'a Bags<'a>,
}

impl<'a, B: Backend, E: Element> Whole<'a, B, E> {
    fn new(
        subject: &'a Subject<B>,
        params: &'a AttentionParams,
        keys: &'a Matrix<E>,
        values: Option<&'a Matrix<E>>,
        bags: &'a Bags<'a>,
    ) -> Self {
        Whole { subject, params, packed: subject.backend().pack(params, E::DTYPE), keys, values, bags }
    }

    fn empty(&self) -> PoolState {
        let (order, dim) = (self.subject.backend().order(), self.values.unwrap_or(self.keys).dim());
        PoolState::empty_in(order, self.bags.len(), self.heads(), dim).unwrap()
    }

    fn heads(&self) -> usize {
        self.params.shape().heads
    }

    /// Pools a piece onto a state, and writes its scores among those of the whole, `[N, K]`.
    fn onto(&self, state: &mut PoolState, piece: &Piece, scores: &mut [f32]) -> Check {
        let rows = |matrix: &Matrix<E>| matrix.select(piece.rows.iter().copied());
        let (keys, values, heads) = (rows(self.keys), self.values.map(rows), self.heads());
        let mut of_piece = vec![f32::NAN; piece.rows.len() * heads];
        self.subject.backend().attention_pool_onto(
            &self.packed,
            keys.rows(),
            values.as_ref().map(Matrix::rows),
            &piece.bags,
            state,
            Some(&mut of_piece),
        )?;
        for (&row, of_row) in piece.rows.iter().zip(of_piece.chunks(heads)) {
            scores[row * heads..][..heads].copy_from_slice(of_row);
        }
        Ok(())
    }

    /// The state of all pieces: each goes onto a state that is there or a new one, and the states merge in any order.
    fn of_pieces(&self, pieces: &[Piece], case: &Case) -> Check<(PoolState, Vec<f32>)> {
        let (mut states, mut rng) = (vec![self.empty()], case.rng("merges"));
        let mut scores = vec![f32::NAN; self.bags.instances() * self.heads()];
        for piece in pieces {
            if rng.random_bool(0.5) {
                states.push(self.empty());
            }
            let at = rng.random_range(0..states.len());
            self.onto(&mut states[at], piece, &mut scores)?;
        }
        while states.len() > 1 {
            let other = states.swap_remove(rng.random_range(0..states.len()));
            let at = rng.random_range(0..states.len());
            let mut turned = other.clone();
            turned.merge(&states[at])?;
            states[at].merge(&other)?;
            if !states[at].bits().iter().any(|&x| f32::from_bits(x as u32).is_nan()) {
                same("the sides of a merge, exchanged", &turned, &states[at])?;
            }
        }
        Ok((states.remove(0), scores))
    }
}

fn any_grouping<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (cases(), 1..7_usize), |(case, count)| {
        let (params, keys, values, bags) = (case.params(), case.features::<E>(), case.values::<E>(), case.bags());
        let whole = Whole::new(subject, &params, &keys, values.as_ref(), &bags);
        let (state, scores) = whole.of_pieces(&Piece::any(&case, count), &case)?;

        let expected = oracle::attention_pool(&params, keys.rows(), values.as_ref().map(Matrix::rows), &bags);
        expected.scores.check("scores", &scores)?;
        expected.lse.check("lse", &state.lse())?;
        expected.pooled.check("pooled", state.pooled())?;
        let mut weights = vec![f32::NAN; scores.len()];
        state.weights(&scores, &bags, &mut weights)?;
        expected.weights.check("weights", &weights)?;
        same("saved", &PoolState::from_safetensors(&state.to_safetensors()?)?, &state)
    })
}

/// All instances at once, onto a state that has seen nothing: the operation itself, bit for bit, but for the logarithm,
/// which the state takes on the host.
fn one_piece<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases(), |case| {
        let (params, keys, values, bags) = (case.params(), case.features::<E>(), case.values::<E>(), case.bags());
        let whole = Whole::new(subject, &params, &keys, values.as_ref(), &bags);
        let (mut state, mut scores) = (whole.empty(), vec![f32::NAN; bags.instances() * case.heads]);
        whole.onto(&mut state, &Piece::new(&bags, (0..bags.instances()).collect()), &mut scores)?;

        let values = values.as_ref().map(Matrix::rows);
        let pool = subject.attention_pool::<E, f32>(&params, keys.rows(), values, &bags)?;
        same("pooled", state.pooled(), &pool.pooled)?;
        same("scores", &scores, &pool.scores)?;
        for (lse, (&m, expected)) in state.lse().into_iter().zip(state.max().iter().zip(pool.lse)) {
            let size = 1.0 + m.abs().max(expected.abs());
            prop_assert!(alike(lse, expected) || (lse - expected).abs() <= 1e-6 * size, "{lse:e}, not {expected:e}");
        }
        Ok(())
    })
}

/// Bags that get no instance, or only masked ones, are as they were, bit for bit.
fn nothing_new<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let whole = Whole::new(subject, &params, &keys, None, &bags);
        let all: Vec<usize> = (0..bags.instances()).collect();
        let (mut state, mut scores) = (whole.empty(), vec![f32::NAN; bags.instances() * case.heads]);
        whole.onto(&mut state, &Piece::new(&bags, all.clone()), &mut scores)?;
        let before = state.clone();

        whole.onto(&mut state, &Piece::new(&bags, Vec::new()), &mut scores)?;
        same("no instances", &state, &before)?;
        let mut piece = Piece::new(&bags, all);
        piece.bags = piece.bags.with_mask(vec![0; bags.instances()])?;
        whole.onto(&mut state, &piece, &mut scores)?;
        same("masked instances", &state, &before)
    })
}

/// A NaN in one piece makes all of its bag NaN, and no other.
fn nan_in_one_piece<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, (small_cases(), any::<prop::sample::Index>()), |(case, at)| {
        let (params, mut keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let there: Vec<usize> =
            (0..bags.instances()).filter(|&n| bags.mask().is_none_or(|mask| mask[n] != 0)).collect();
        if there.is_empty() {
            return Ok(());
        }
        let pieces = Piece::any(&case, 3);
        let (clean, _) = Whole::new(subject, &params, &keys, None, &bags).of_pieces(&pieces, &case)?;
        let broken = there[at.index(there.len())];
        keys.row_mut(broken).fill(E::from_f32(f32::NAN));
        let (state, _) = Whole::new(subject, &params, &keys, None, &bags).of_pieces(&pieces, &case)?;

        for (b, range) in bags.ranges().enumerate() {
            let of_bag = |part: &[f32]| part.chunks((part.len() / bags.len()).max(1)).nth(b).unwrap().to_vec();
            for (part, clean) in
                [(state.max(), clean.max()), (state.sum(), clean.sum()), (state.pooled(), clean.pooled())]
            {
                if range.contains(&broken) {
                    prop_assert!(of_bag(part).iter().all(|x| x.is_nan()));
                } else {
                    same("another bag", &of_bag(part), &of_bag(clean))?;
                }
            }
        }
        Ok(())
    })
}

/// Some bags of which two sides have seen any instances.
#[derive(Debug, Clone)]
struct Sides {
    seed: u64,
    bags: usize,
    heads: usize,
    dim: usize,
}

fn sides() -> impl Strategy<Value = Sides> {
    let dims = select(vec![1, 2, 3, 4, 7, 8, 16, 33, 128, 129, 508, 600]);
    (any::<u64>(), 0..5_usize, 1..4_usize, dims).prop_map(|(seed, bags, heads, dim)| Sides { seed, bags, heads, dim })
}

impl Sides {
    /// Rows in every condition, of all that rounding, overflow and signs could go wrong with. Scores of the sides lie less
    /// than 90 apart or so far that the lesser weigh nothing: between, a share that is a denormal here may be 0 there.
    fn states(&self) -> [PoolState; 2] {
        const MAX: [f32; 8] = [0.0, -0.0, 0.7, 60.0, -20.0, -200.0, 1e30, -1e30];
        const POOLED: [f32; 8] = [0.0, -0.0, 1e-40, -1e-40, 1e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let Sides { bags, heads, dim, .. } = *self;
        [(); 2].map(|()| {
            let (mut max, mut sum, mut pooled) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..bags * heads {
                let specials = rng.random_bool(0.5);
                let (m, l) = match rng.random_range(0..8) {
                    0 => (f32::NEG_INFINITY, 0.0),
                    1 => (f32::NAN, f32::NAN),
                    2..5 => (MAX[rng.random_range(0..MAX.len())], rng.random_range(1..4) as f32),
                    _ => (rng.random_range(-20.0..20.0), rng.random_range(1.0..1e4)),
                };
                let mut z = |_| match m {
                    _ if m.is_nan() => m,
                    f32::NEG_INFINITY => 0.0,
                    _ if specials && rng.random_bool(0.3) => POOLED[rng.random_range(0..POOLED.len())],
                    _ => rng.random_range(-2.0..2.0),
                };
                pooled.extend((0..dim).map(&mut z));
                max.push(m);
                sum.push(l);
            }
            PoolState::from_parts(bags, heads, dim, max, sum, pooled).unwrap()
        })
    }
}

/// The same bits, NaNs alike.
fn alike(x: f32, y: f32) -> bool {
    x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
}

/// As the host merges them: within what an exponential is off by, and bit for bit where there is none.
fn merge<B: Backend>(subject: &Subject<B>) -> Outcome {
    subject.forall(4 * CASES, sides(), |case| {
        let [one, other] = case.states();
        let merged = |one: &PoolState, other: &PoolState| {
            let mut state = one.clone();
            subject.backend().merge_state(&mut state, other).map(|()| state)
        };
        let state = merged(&one, &other)?;
        let mut expected = one.clone();
        expected.merge(&other)?;

        for i in 0..one.max().len() {
            let row = i * case.dim..(i + 1) * case.dim;
            let (m, others_m) = (one.max()[i], other.max()[i]);
            let exact = m == others_m || [m, others_m].contains(&f32::NEG_INFINITY) || (m - others_m).abs() > 110.0;
            let close = |got: f32, expected: f32, size: f32| match exact || !expected.is_finite() {
                true => alike(got, expected),
                false => (got - expected).abs() <= 2e-6 * size + f32::MIN_POSITIVE,
            };
            prop_assert!(alike(state.max()[i], expected.max()[i]));
            let (l, expected_l) = (state.sum()[i], expected.sum()[i]);
            prop_assert!(close(l, expected_l, expected_l), "l [{}]: {:e}, on the host {:e}", i, l, expected_l);
            for at in row {
                let (z, expected) = (state.pooled()[at], expected.pooled()[at]);
                let size = one.pooled()[at].abs().max(other.pooled()[at].abs());
                prop_assert!(close(z, expected, size), "z [{}]: {:e}, on the host {:e}", at, z, expected);
            }
        }

        let all = |state: &PoolState| [state.max(), state.sum(), state.pooled()].concat();
        let are_alike = |one: &PoolState, other: &PoolState| all(one).iter().zip(all(other)).all(|(&x, y)| alike(x, y));
        prop_assert!(are_alike(&merged(&other, &one)?, &state), "the sides of a merge, exchanged");
        let nothing = PoolState::empty(case.bags, case.heads, case.dim)?;
        prop_assert!(are_alike(&merged(&nothing, &one)?, &one), "onto a state that has seen nothing");
        same("a side that has seen nothing", &merged(&one, &nothing)?, &one)
    })
}
