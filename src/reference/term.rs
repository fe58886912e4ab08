//! Arithmetic that carries S along.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

use super::Real;

/// A number in a formula, and beside it S: what the formula gives with absolute values.
///
/// A formula written in these gives both at once. No value depends on an S.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term<R> {
    pub(super) value: R,
    pub(super) scale: R,
}

impl<R: Real> Term<R> {
    pub(super) const ZERO: Self = Term { value: R::ZERO, scale: R::ZERO };
    pub(super) const ONE: Self = Term { value: R::ONE, scale: R::ONE };

    /// A number known exactly, as inputs are.
    pub(super) fn exact(value: R) -> Self {
        Term { value, scale: value.abs() }
    }

    /// A learned parameter.
    pub(super) fn param(value: f32) -> Self {
        Term::exact(R::from_f32(value))
    }

    pub(super) fn tanh(self) -> Self {
        Term { value: self.value.tanh(), scale: self.scale.tanh() }
    }

    pub(super) fn sigmoid(self) -> Self {
        Term { value: self.value.sigmoid(), scale: self.scale.sigmoid() }
    }

    /// Whether this is 0 as an f32: such a factor is left out rather than multiplied by, and 0·NaN does
    /// not arise.
    pub(super) fn vanishes(self) -> bool {
        self.value.to_f32() == 0.0
    }
}

impl<R: Real> Add for Term<R> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Term { value: self.value + other.value, scale: self.scale + other.scale }
    }
}

impl<R: Real> Sub for Term<R> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Term { value: self.value - other.value, scale: self.scale + other.scale }
    }
}

impl<R: Real> Mul for Term<R> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Term { value: self.value * other.value, scale: self.scale * other.scale }
    }
}

/// By an exact, positive number: a count.
impl<R: Real> Div<R> for Term<R> {
    type Output = Self;
    fn div(self, count: R) -> Self {
        Term { value: self.value / count, scale: self.scale / count }
    }
}

impl<R: Real> AddAssign for Term<R> {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl<R: Real> Sum for Term<R> {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Term::ZERO, Add::add)
    }
}

impl<R: Real> FromIterator<Term<R>> for super::Bounded<R> {
    fn from_iter<I: IntoIterator<Item = Term<R>>>(terms: I) -> Self {
        let (value, scale) = terms.into_iter().map(|term| (term.value, term.scale)).unzip();
        super::Bounded { value, scale }
    }
}
