//! Gated sigmoid weighting: `g = tanh(x) ⊙ σ(y)`.

use super::term::Term;
use super::{Bounded, Real, expect_len};

/// `g = tanh(x) ⊙ σ(y)`, element by element; x, y and g are of one length.
pub fn gate<R: Real>(x: &[R], y: &[R]) -> Bounded<R> {
    expect_len("y", y, x.len());
    x.iter().zip(y).map(|(&x, &y)| Term::exact(x).tanh() * Term::exact(y).sigmoid()).collect()
}

/// What [`gate_backward`] returns.
#[derive(Debug, Clone, PartialEq)]
pub struct GateGradients<R> {
    /// Of x.
    pub x: Bounded<R>,
    /// Of y.
    pub y: Bounded<R>,
}

/// x, y, and the gradient of g → the gradients of x and y, all of one length.
///
/// ```text
/// dx = dg ⊙ (1 − tanh²(x)) ⊙ σ(y)
/// dy = dg ⊙ tanh(x) ⊙ σ(y) ⊙ (1 − σ(y))
/// ```
pub fn gate_backward<R: Real>(x: &[R], y: &[R], d_g: &Bounded<R>) -> GateGradients<R> {
    expect_len("y", y, x.len());
    d_g.expect_len("d_g", x.len());
    let mut gradients = GateGradients { x: Bounded::zeros(x.len()), y: Bounded::zeros(x.len()) };
    for i in 0..x.len() {
        let slopes = gate_slopes(Term::exact(x[i]).tanh(), Term::exact(y[i]).sigmoid());
        gradients.x.set(i, d_g.get(i) * slopes.x);
        gradients.y.set(i, d_g.get(i) * slopes.y);
    }
    gradients
}

/// The derivatives of one `tanh(x) · σ(y)`.
pub(super) struct GateSlopes<R> {
    pub(super) x: Term<R>,
    pub(super) y: Term<R>,
}

/// From `tanh(x)` and `σ(y)`.
pub(super) fn gate_slopes<R: Real>(tanh: Term<R>, sigmoid: Term<R>) -> GateSlopes<R> {
    GateSlopes { x: (Term::ONE - tanh * tanh) * sigmoid, y: tanh * sigmoid * (Term::ONE - sigmoid) }
}
