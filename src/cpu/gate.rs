//! Gated sigmoid weighting: `g = tanh(x) ⊙ σ(y)`.

use super::chunks::for_each;
use super::simd::{Simd, math};
use super::{Cpu, with_simd};
use crate::element::Element;
use crate::error::{Result, expect_len};

/// Elements that one task takes; a multiple of every vector length.
pub(super) const TASK: usize = 1 << 14;

impl Cpu {
    /// `g = tanh(x) ⊙ σ(y)`, element by element; all three are of one length.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where they are not.
    pub fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        expect_len("y", "the length of x", x.len(), y.len())?;
        expect_len("g", "the length of x", x.len(), g.len())?;
        E::gate(*self, x, y, g);
        Ok(())
    }
}

pub(super) fn run<E: Element>(cpu: Cpu, x: &[E], y: &[E], g: &mut [E]) {
    with_simd!(cpu, |simd| {
        let tasks = g.chunks_mut(TASK).zip(x.chunks(TASK)).zip(y.chunks(TASK)).collect();
        for_each(tasks, &|((g, x), y)| {
            simd.vectorize(
                #[inline(always)]
                || gate(simd, x, y, g),
            )
        });
    });
}

#[inline(always)]
fn gate<S: Simd, E: Element>(simd: S, x: &[E], y: &[E], g: &mut [E]) {
    let lanes = x.chunks(S::LANES).zip(y.chunks(S::LANES)).zip(g.chunks_mut(S::LANES));
    for ((x, y), g) in lanes {
        simd.store_slice(g, math::gate(simd, simd.load_slice(x), simd.load_slice(y)));
    }
}
