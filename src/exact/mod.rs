//! Sums that no order changes, of [`Order::Exact`](crate::Order::Exact).
//!
//! Adding in floating point rounds every partial sum, and another order has other partial sums. Here a row of a bag is
//! rounded once, to an integer with an exponent, and everything that decides how is in that row and its own weight; the
//! integers are then added without rounding. So order, chunks, threads, batches and the grouping of merged
//! [`PoolState`](crate::PoolState)s cannot change a bit. No running maximum rescales anything.
//!
//! # The sum
//!
//! 1. The weight of row i is fᵢ·2^nᵢ. For a softmax, y = s·log₂ e, n the integer nearest to y and f = 2^(y − n), rounded
//!    to f32: a polynomial in f64, each product and each sum rounded by itself, which gives the same bits everywhere. A
//!    given weight is split without rounding; for the mean, f = 1 and n = 0. Scores of 2³¹ and more, which lie at least
//!    2⁸ apart, get exponents that keep unequal ones out of each other's reach.
//! 2. Columns are taken in groups of 256, each by itself. The row's exponent in a group is e = ⌊log₂(f·max |x|)⌋ over its
//!    columns, at least −105, and its scale p = f·2^(21 − e), so that |p·x| < 2²².
//! 3. p·x is split in two: `t = fma(p, x, 1.5·2²³)` holds the nearest integer A in its last places, and
//!    `fma(p, x, (1.5·2²³ + 3) − t)`, which is 3 + (p·x − A), the multiple B·2⁻²² nearest to what is left. The bits of both
//!    are added as integers: in 32 bits, up to 256 rows do not overflow.
//! 4. Rows of one exponent R = n + e are summed together; A·2²² + B, shifted by R mod 32, is then added to bin ⌊R / 32⌋, an
//!    integer of 111 bits per column, in two words. The three greatest bins are kept. What would be in lower ones is at
//!    least 2⁶⁴ times smaller than the greatest row and is dropped, whenever it comes.
//! 5. Σ f·2^n is summed likewise. At the end the bins become f64, are multiplied with the reciprocal of that sum, and rounded
//!    to f32. All of that depends on the bins alone.
//!
//! # How exactly
//!
//! With aᵢ the final weights as they are after 1, N the rows, hᵢ a row's features in the group of the column, and z the sum:
//!
//! > |result − z| ≤ (1.01·2⁻⁴⁴ + N·2⁻⁶³)·Σ aᵢ·max(‖hᵢ‖∞, 2⁻¹⁰⁵) + ½ ulp
//!
//! In 3, what is left of p·x is rounded once, to a multiple of 2⁻²²: by at most 2⁻²³ beside a greatest |p·x| of at least 2²¹.
//! In 4, N rows of 2⁻⁶⁴ each, beside a row that is within a factor 2 of its power of two. In 5, roundings of 2⁻⁵². So a feature
//! that is 2²⁰ times below the greatest of its group, in every row, has 24 bits; one that is 2⁴⁴ times below counts as 0.
//! Where rows cancel, the error is that of the rows.
//!
//! # What does not overflow
//!
//! |p·x| < 2²² because f·max |x| < 2^(e + 1); p itself because e ≥ −105. The sum of 256 rows is below 2³⁰ in either half. A term
//! is below 2⁵³, shifted below 2⁸⁴; the upper word of a bin has room for 2²⁷ such sums beside 2³⁶ rows that are each
//! summed by themselves, and the lower word hands on its carries every 2¹⁴ additions. So 2³⁶ rows is the longest bag.
//!
//! # What is not a number
//!
//! A row with an infinity or a NaN is summed without it; per column, the greatest score is kept that each of +∞, −∞ and NaN
//! came with. They decide the column in the end, as in the arithmetic of f32: but where their weight has come to be 0, the
//! row takes no part, as everywhere in this library. A NaN or +∞ among the scores makes the bag and head NaN.
//!
//! # What it does not promise
//!
//! Scores are the same in both orders of instances because each is computed from its own row; but other instruction sets
//! and devices round dot products differently, and have another tanh. From equal scores, pooled results and weights are
//! equal on all of them, and so are states; but log Σ exp goes through a logarithm of the backend's own, and a NaN that is
//! computed has the bits that its processor gives it. Which of equal instances has the maximum (`argmax`) depends on the order
//! by its definition.

pub(crate) mod bins;
pub(crate) mod sum;
pub(crate) mod terms;
