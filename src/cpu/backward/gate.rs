//! Backward of the gate: `dx = dg ⊙ (1 − tanh²(x)) ⊙ σ(y)`, `dy = dg ⊙ tanh(x) ⊙ σ(y) ⊙ (1 − σ(y))`.

use super::super::chunks::for_each;
use super::super::gate::TASK;
use super::super::simd::{Simd, math};
use super::super::{Cpu, with_simd};
use super::target::Target;
use crate::element::Element;
use crate::error::{Result, expect_len};
use crate::gradient::Gradient;

impl Cpu {
    /// Backward of [`gate`](Self::gate): x, y and the gradient of g → the gradients of x and y, all of one length.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) where they are not.
    pub fn gate_backward<E: Element>(
        &self,
        x: &[E],
        y: &[E],
        d_g: &[E],
        d_x: Option<Gradient<'_, E>>,
        d_y: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        const SHAPE: &str = "the length of x";
        expect_len("y", SHAPE, x.len(), y.len())?;
        expect_len("d_g", SHAPE, x.len(), d_g.len())?;
        Gradient::expect_len(&d_x, "d_x", SHAPE, x.len())?;
        Gradient::expect_len(&d_y, "d_y", SHAPE, x.len())?;
        E::gate_backward(*self, x, y, d_g, [d_x.map(Target::new), d_y.map(Target::new)]);
        Ok(())
    }
}

pub(in crate::cpu) fn run<E: Element>(cpu: Cpu, x: &[E], y: &[E], d_g: &[E], mut targets: [Option<Target<'_>>; 2]) {
    let arguments = x.chunks(TASK).zip(y.chunks(TASK)).zip(d_g.chunks(TASK));
    let jobs: Vec<_> = arguments
        .map(|((x, y), d_g)| {
            let mut take = |i: usize| targets[i].as_mut().map(|target| target.take(x.len()));
            (x, y, d_g, [take(0), take(1)])
        })
        .collect();
    with_simd!(cpu, |simd| for_each(jobs, &|(x, y, d_g, targets)| {
        let mut gradients = [vec![0.0; x.len()], vec![0.0; x.len()]];
        simd.vectorize(
            #[inline(always)]
            || gate(simd, x, y, d_g, &mut gradients),
        );
        for (target, gradient) in targets.into_iter().zip(&mut gradients) {
            if let Some(mut target) = target {
                target.write(0..x.len(), gradient);
            }
        }
    }));
}

#[inline(always)]
fn gate<S: Simd, E: Element>(simd: S, x: &[E], y: &[E], d_g: &[E], [d_x, d_y]: &mut [Vec<f32>; 2]) {
    let arguments = x.chunks(S::LANES).zip(y.chunks(S::LANES)).zip(d_g.chunks(S::LANES));
    let gradients = d_x.chunks_mut(S::LANES).zip(d_y.chunks_mut(S::LANES));
    for (((x, y), d_g), (d_x, d_y)) in arguments.zip(gradients) {
        let (tanh, sigmoid) = (math::tanh(simd, simd.load_slice(x)), math::sigmoid(simd, simd.load_slice(y)));
        let [of_x, of_y] = math::gate_slopes(simd, tanh, sigmoid);
        let d_g = simd.load_slice(d_g);
        simd.store_slice(d_x, simd.mul(d_g, of_x));
        simd.store_slice(d_y, simd.mul(d_g, of_y));
    }
}
