//! The mergeable state of attention pool: (m, l, z) of each bag and head.

mod file;

use crate::bags::{Bags, present};
use crate::error::{Error, Result, expect_len};
use crate::exact::sum::{Head, Total};
use crate::order::Order;

/// What attention pool has seen of each of `B` bags so far, for `K` heads and embeddings of `D` features.
///
/// ```text
/// max     m[b,k] = max_n s[n,k]
/// sum     l[b,k] = Σ_n exp(s[n,k] − m[b,k])
/// pooled  z[b,k] = Σ_n exp(s[n,k] − m[b,k]) x[n] / l[b,k]
/// ```
///
/// The sums run over the instances seen. `pooled` is the answer at any time; nothing is left to be
/// divided, and nothing in it overflows that would not in the answer. States of disjoint parts of the
/// same bags [`merge`](Self::merge) into the state of all of them, in any grouping. So a bag that does not
/// fit the memory streams through in pieces, several devices share a bag, and a bag that gets another
/// instance is not pooled anew; see [`Pooler::pool_onto`](crate::Pooler::pool_onto) and
/// [`Cpu::attention_pool_onto`](crate::cpu::Cpu::attention_pool_onto).
///
/// Each bag and head is in one of three conditions, which every constructor checks:
///
/// | | `max` | `sum` | `pooled` |
/// | --- | --- | --- | --- |
/// | nothing seen, or only what is masked or at score −∞ | −∞ | 0 | 0 |
/// | something seen | finite | positive, finite | any |
/// | a score of NaN or +∞ seen | NaN | NaN | NaN |
///
/// ```
/// use mivc::PoolState;
///
/// // One bag and head, D = 1; in one part scores 0 and 0 of the values 1 and 3, in the other score 0 of 5.
/// let mut state = PoolState::from_parts(1, 1, 1, vec![0.0], vec![2.0], vec![2.0])?;
/// let other = PoolState::from_parts(1, 1, 1, vec![0.0], vec![1.0], vec![5.0])?;
/// state.merge(&other)?;
/// assert_eq!((state.max(), state.sum(), state.pooled()), (&[0.0][..], &[3.0][..], &[3.0][..]));
/// # Ok::<(), mivc::Error>(())
/// ```
///
/// The running maximum and its sum are the online softmax of M. Milakov and N. Gimelshein, *Online normalizer
/// calculation for softmax* (arXiv 1805.02867, 2018); carrying the weighted sum along, and merging parts, is in
/// M. N. Rabe and C. Staats, *Self-attention Does Not Need O(n²) Memory* (arXiv 2112.05682, 2021).
#[derive(Debug, Clone, PartialEq)]
pub struct PoolState {
    bags: usize,
    heads: usize,
    dim: usize,
    /// `[B, K]`.
    max: Vec<f32>,
    /// `[B, K]`.
    sum: Vec<f32>,
    /// `[B, K, D]`.
    pooled: Vec<f32>,
    /// In [`Order::Exact`], `[B, K]`: what the other parts are made of.
    exact: Option<Vec<Head>>,
}

impl PoolState {
    /// The state in which nothing has been seen: merging with it changes no bit.
    ///
    /// # Errors
    /// Where `heads` or `dim` is 0, or `[B, K, D]` does not fit the address space.
    pub fn empty(bags: usize, heads: usize, dim: usize) -> Result<Self> {
        let (rows, elements) = sizes(bags, heads, dim)?;
        let (max, sum) = (vec![f32::NEG_INFINITY; rows], vec![0.0; rows]);
        Ok(PoolState { bags, heads, dim, max, sum, pooled: vec![0.0; elements], exact: None })
    }

    /// As [`empty`](Self::empty), in the given order. In [`Order::Exact`], what is pooled onto it and merged with it has to
    /// be of that order too; any grouping and any order of the same instances then gives the same bits. It takes 48 bytes
    /// for each feature of a bag and head beside the 4 of `pooled`.
    ///
    /// # Errors
    /// As [`empty`](Self::empty).
    pub fn empty_in(order: Order, bags: usize, heads: usize, dim: usize) -> Result<Self> {
        let state = Self::empty(bags, heads, dim)?;
        let exact = (order == Order::Exact).then(|| vec![Head::new(dim); bags * heads]);
        Ok(PoolState { exact, ..state })
    }

    /// A state from its parts: `max` and `sum` `[B, K]`, `pooled` `[B, K, D]`.
    ///
    /// # Errors
    /// As [`empty`](Self::empty); where a part is of another length; where a bag and head is in none of the
    /// three conditions that the type describes.
    pub fn from_parts(
        bags: usize,
        heads: usize,
        dim: usize,
        max: Vec<f32>,
        sum: Vec<f32>,
        pooled: Vec<f32>,
    ) -> Result<Self> {
        let (rows, elements) = sizes(bags, heads, dim)?;
        expect_len("max", "[B, K]", rows, max.len())?;
        expect_len("sum", "[B, K]", rows, sum.len())?;
        expect_len("pooled", "[B, K, D]", elements, pooled.len())?;
        for (i, ((&m, &l), z)) in max.iter().zip(&sum).zip(pooled.chunks_exact(dim)).enumerate() {
            expect_condition(i, m, l, z)?;
        }
        Ok(PoolState { bags, heads, dim, max, sum, pooled, exact: None })
    }

    /// A state in [`Order::Exact`] from the sums of each bag and head, `[B, K]`.
    pub(crate) fn from_heads(bags: usize, heads: usize, dim: usize, exact: Vec<Head>) -> Result<Self> {
        let mut state = PoolState { exact: Some(exact), ..Self::empty(bags, heads, dim)? };
        state.finish();
        for (i, ((&m, &l), z)) in state.max.iter().zip(&state.sum).zip(state.pooled.chunks_exact(dim)).enumerate() {
            expect_condition(i, m, l, z)?;
        }
        Ok(state)
    }

    /// Whether merging it with others may round.
    pub fn order(&self) -> Order {
        if self.exact.is_some() { Order::Exact } else { Order::Rounding }
    }

    /// The number of bags, `B`.
    pub fn bags(&self) -> usize {
        self.bags
    }

    /// The number of heads, `K`.
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// The features of an embedding, `D`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The greatest scores, `[B, K]`.
    pub fn max(&self) -> &[f32] {
        &self.max
    }

    /// `Σ exp(s − m)`, `[B, K]`.
    pub fn sum(&self) -> &[f32] {
        &self.sum
    }

    /// The pooled embeddings of what has been seen, `[B, K, D]`.
    pub fn pooled(&self) -> &[f32] {
        &self.pooled
    }

    /// The logarithm of `Σ exp(s)`, `[B, K]`: m + ln l, −∞ where nothing has been seen.
    pub fn lse(&self) -> Vec<f32> {
        self.max.iter().zip(&self.sum).map(|(&m, &l)| lse(m, l)).collect()
    }

    /// Joins what `other` has seen of the same bags, which must be other instances.
    ///
    /// ```text
    /// m  = max(m₁, m₂)
    /// fᵢ = exp(mᵢ − m)           0 where mᵢ is −∞
    /// l  = l₁ f₁ + l₂ f₂
    /// aᵢ = lᵢ fᵢ / l
    /// z  = a₁ z₁ + a₂ z₂         a side whose a is 0 is left out, not multiplied
    /// ```
    ///
    /// It is commutative bit for bit, and associative within rounding. A NaN stays in its bag and head.
    /// What weighs nothing beside the other side, though it may hold infinities or NaNs, takes no part; but a
    /// row that weighed something within its own part is in its z for good.
    ///
    /// In [`Order::Exact`] it adds the integers of both sides, and is associative bit for bit too.
    ///
    /// # Errors
    /// Where `other` is of another shape or order; this state is then as it was.
    pub fn merge(&mut self, other: &PoolState) -> Result<()> {
        other.expect_shape("other", self.bags, self.heads, self.dim)?;
        other.expect_order("other", self.order())?;
        if let (Some(mine), Some(theirs)) = (&mut self.exact, &other.exact) {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.merge(theirs));
            self.finish();
            return Ok(());
        }
        let rows = self.pooled.chunks_exact_mut(self.dim).zip(other.pooled.chunks_exact(self.dim));
        for (i, (mine, theirs)) in rows.enumerate() {
            let joined = join((self.max[i], self.sum[i]), (other.max[i], other.sum[i]));
            let [a, b] = joined.shares((self.sum[i], other.sum[i]));
            (self.max[i], self.sum[i]) = (joined.max, joined.sum);
            if b == 0.0 {
                continue;
            }
            if a == 0.0 {
                mine.copy_from_slice(theirs);
                continue;
            }
            for (z, &other) in mine.iter_mut().zip(theirs) {
                *z = a * *z + b * other;
            }
        }
        Ok(())
    }

    /// Final weights of some instances, from the scores `[n, K]` that were kept when they were pooled: exp(s − m) / l,
    /// and 0 for what is masked or at score −∞. Those of all instances of a bag and head add up to 1. `weights` is
    /// `[n, K]`.
    ///
    /// ```
    /// use mivc::{Bags, PoolState};
    ///
    /// let state = PoolState::from_parts(1, 1, 1, vec![1e30], vec![2.0], vec![5.0])?;
    /// let mut weights = [0.0; 3];
    /// state.weights(&[1e30, -1e30, 1e30], &Bags::from_lengths(&[3])?, &mut weights)?;
    /// assert_eq!(weights, [0.5, 0.0, 0.5]);
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// Where the bags are not as many as the state's, or a slice does not have `n·K` elements.
    pub fn weights(&self, scores: &[f32], bags: &Bags<'_>, weights: &mut [f32]) -> Result<()> {
        if bags.len() != self.bags {
            return Err(Error::argument("bags", format!("{} bags, as in the state", self.bags), bags.len()));
        }
        let expected = bags.instances().saturating_mul(self.heads);
        expect_len("scores", "[n, K]", expected, scores.len())?;
        expect_len("weights", "[n, K]", expected, weights.len())?;
        let totals: Vec<Total> = self.exact.iter().flatten().map(|head| head.mass.clone().total()).collect();
        for (b, n) in bags.ranges().enumerate().flat_map(|(b, range)| range.map(move |n| (b, n))) {
            let present = present(bags.mask(), n);
            for k in 0..self.heads {
                let (of_bag, of_instance) = (b * self.heads + k, n * self.heads + k);
                let score = if present { scores[of_instance] } else { f32::NEG_INFINITY };
                weights[of_instance] = match totals.get(of_bag) {
                    Some(total) => total.weight(score),
                    None => weight(score, self.max[of_bag], self.sum[of_bag]),
                };
            }
        }
        Ok(())
    }

    pub(crate) fn expect_shape(&self, argument: &'static str, bags: usize, heads: usize, dim: usize) -> Result<()> {
        let (expected, got) = ([bags, heads, dim], [self.bags, self.heads, self.dim]);
        if expected == got {
            return Ok(());
        }
        Err(Error::argument(argument, format!("a state [B, K, D] = {expected:?}"), format!("{got:?}")))
    }

    pub(crate) fn expect_order(&self, argument: &'static str, order: Order) -> Result<()> {
        if self.order() == order {
            return Ok(());
        }
        Err(Error::argument(
            argument,
            format!("a state of Order::{order:?}"),
            format!("one of Order::{:?}", self.order()),
        ))
    }

    /// The outputs of a pool that will write all of them.
    pub(crate) fn parts_mut(&mut self) -> StateParts<'_> {
        let PoolState { max, sum, pooled, exact, .. } = self;
        StateParts { max, sum, pooled, exact: exact.as_deref_mut() }
    }

    /// Makes the other parts of the integers.
    fn finish(&mut self) {
        let pooled = self.pooled.chunks_exact_mut(self.dim);
        let parts = self.max.iter_mut().zip(&mut self.sum).zip(pooled);
        for (head, ((max, sum), pooled)) in self.exact.iter_mut().flatten().zip(parts) {
            let total = head.finish(pooled);
            (*max, *sum) = (total.max, total.relative() as f32);
        }
    }

    /// Of a state of `[T·B, K, D]`, that of `[B, T·K, D]`.
    pub(crate) fn position_second(&self, tokens: usize) -> Self {
        let (bags, of_position) = (self.bags / tokens, self.heads);
        PoolState {
            bags,
            heads: tokens * of_position,
            dim: self.dim,
            max: position_second(&self.max, tokens, of_position),
            sum: position_second(&self.sum, tokens, of_position),
            pooled: position_second(&self.pooled, tokens, of_position * self.dim),
            exact: self.exact.as_ref().map(|exact| position_second(exact, tokens, of_position)),
        }
    }
}

/// Where a pool writes a state.
pub(crate) struct StateParts<'a> {
    /// `[B, K]`.
    pub(crate) max: &'a mut [f32],
    /// `[B, K]`.
    pub(crate) sum: &'a mut [f32],
    /// `[B, K, D]`.
    pub(crate) pooled: &'a mut [f32],
    /// `[B, K]`, in [`Order::Exact`].
    pub(crate) exact: Option<&'a mut [Head]>,
}

impl StateParts<'_> {
    /// The other parts of a mean: scores of 0.
    pub(crate) fn count_instances(self, bags: &Bags<'_>) {
        for ((bag, max), sum) in bags.ranges().zip(self.max).zip(self.sum) {
            let count = bag.filter(|&n| present(bags.mask(), n)).count();
            (*max, *sum) = if count == 0 { (f32::NEG_INFINITY, 0.0) } else { (0.0, count as f32) };
        }
    }
}

/// `[T, rows, width]` → `[rows, T, width]`.
pub(crate) fn position_second<T: Clone>(data: &[T], tokens: usize, width: usize) -> Vec<T> {
    let rows = data.len() / (tokens * width);
    let mut turned = Vec::with_capacity(data.len());
    for row in 0..rows {
        for token in 0..tokens {
            turned.extend_from_slice(&data[(token * rows + row) * width..][..width]);
        }
    }
    turned
}

/// m and l of two parts of a bag and head together, and the factors of what was summed with the m of either.
pub(crate) struct Joined {
    pub(crate) max: f32,
    pub(crate) sum: f32,
    pub(crate) factors: [f32; 2],
}

/// (m, l) of one part and of the other. Which comes first decides no bit.
pub(crate) fn join(one: (f32, f32), other: (f32, f32)) -> Joined {
    let max = greater(one.0, other.0);
    let factor = |m: f32| if m == f32::NEG_INFINITY { 0.0 } else { (m - max).exp() };
    let factors = [factor(one.0), factor(other.0)];
    let sum = if max.is_nan() { max } else { one.1 * factors[0] + other.1 * factors[1] };
    Joined { max, sum, factors }
}

impl Joined {
    /// How much of l each part has, from the l of each.
    fn shares(&self, sums: (f32, f32)) -> [f32; 2] {
        let share = |sum: f32, factor: f32| {
            let scaled = sum * factor;
            if scaled == 0.0 { 0.0 } else { scaled / self.sum }
        };
        [share(sums.0, self.factors[0]), share(sums.1, self.factors[1])]
    }
}

/// NaN where either is; +0 of +0 and −0.
fn greater(a: f32, b: f32) -> f32 {
    use std::cmp::Ordering;
    match a.partial_cmp(&b) {
        None => f32::NAN,
        Some(Ordering::Less) => b,
        Some(Ordering::Greater) => a,
        Some(Ordering::Equal) => {
            if a.is_sign_negative() {
                b
            } else {
                a
            }
        }
    }
}

/// m + ln l, −∞ where l is 0.
pub(crate) fn lse(m: f32, l: f32) -> f32 {
    if l == 0.0 { f32::NEG_INFINITY } else { m + l.ln() }
}

/// Not exp(s − lse): ln l would be lost beside an m of 1e30.
fn weight(score: f32, m: f32, l: f32) -> f32 {
    if score == f32::NEG_INFINITY {
        return 0.0;
    }
    let p = (score - m).exp();
    if p == 0.0 { 0.0 } else { p / l }
}

/// `B·K` and `B·K·D`.
pub(crate) fn sizes(bags: usize, heads: usize, dim: usize) -> Result<(usize, usize)> {
    for (name, size) in [("heads", heads), ("dim", dim)] {
        if size == 0 {
            return Err(Error::argument(name, "at least 1", size));
        }
    }
    let rows = bags.checked_mul(heads);
    let elements = rows.and_then(|rows| rows.checked_mul(dim));
    let fits = elements.filter(|&elements| elements <= isize::MAX as usize / size_of::<f32>());
    rows.zip(fits).ok_or_else(|| {
        Error::argument("bags", "[B, K, D] that fits the address space", format!("{:?}", [bags, heads, dim]))
    })
}

/// `Ok` exactly when row `i` of `[B, K]` is in one of the conditions that [`PoolState`] describes.
fn expect_condition(i: usize, m: f32, l: f32, z: &[f32]) -> Result<()> {
    let row = |value: f32| format!("{value} at [{i}] of [B, K], where max is {m}");
    let (sum_is_right, expected, pooled_is_right, expected_pooled): (_, _, fn(&f32) -> bool, _) = if m.is_nan() {
        (l.is_nan(), "NaN where max is", |z| z.is_nan(), "NaN where max is")
    } else if m == f32::NEG_INFINITY {
        (l == 0.0, "0 where max is -inf", |&z| z == 0.0, "0 where max is -inf")
    } else if m.is_finite() {
        (l > 0.0 && l.is_finite(), "a positive, finite number where max is finite", |_| true, "any")
    } else {
        return Err(Error::argument("max", "finite numbers, -inf or NaN", format!("{m} at [{i}] of [B, K]")));
    };
    if !sum_is_right {
        return Err(Error::argument("sum", expected, row(l)));
    }
    match z.iter().find(|z| !pooled_is_right(z)) {
        Some(&z) => Err(Error::argument("pooled", expected_pooled, row(z))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
