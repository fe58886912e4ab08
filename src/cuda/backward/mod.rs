//! The backward of operations, as the operations themselves: planned for shapes, and run on views.
//!
//! Formulas and edge cases are those of [`mod@crate::reference`]. Sums are taken in f32; a gradient of features or values
//! is of their type or f32, as planned, and rounded once. What is not asked for is not computed. The gradients of a
//! bag's instances depend on nothing but the bag; those of instances in no bag, before `offsets[0]` or from `offsets[B]`
//! on, are left as they are.
//!
//! | operation | reads | writes | launches at most |
//! | --- | --- | --- | --- |
//! | [`gate`] | x, y, d_g `[N, L]` | d_x, d_y `[N, L]` | 1 |
//! | [`softmax`] | weights, d_weights `[N, K]`, d_lse `[B, K]` | d_scores `[N, K]` | 3 |
//! | [`weighted_sum`] | weights `[N, K]`, values `[N, D]` or `[N, K, D]`, d_pooled `[B, K, D]` | d_weights, d_values | 3 |
//! | [`max_mean`] | features `[N, D]`, d_max, d_mean `[B, D]` | d_features `[N, D]` | 3 |
//! | [`scores`] | features `[N, D]`, d_scores `[N, K]` | d_features, and d_v, d_u `[G, L, D]`, their biases `[G, L]`, d_w `[K, L]`, its bias `[K]` | 1, and 5 for each slice of some thousand instances |
//! | [`attention_pool`] | keys `[N, D']`, values `[N, D]`, weights `[N, K]`, d_pooled `[B, K, D]`, d_scores, d_weights `[N, K]`, d_lse `[B, K]` | d_keys, d_values, and as of the scores | those of the weighted sum, the softmax and the scores |

pub mod attention_pool;
pub mod gate;
pub mod max_mean;
pub mod scores;
pub mod softmax;
pub mod weighted_sum;

use cudarc::driver::CudaViewMut;

use super::guards::Guards;
use crate::error::{Result, expect_len};
use crate::launch::backward as launch;

/// Where a backward writes a gradient.
#[derive(Debug)]
pub enum Gradient<'a, T> {
    /// In place of what is there.
    Set(CudaViewMut<'a, T>),
    /// Added to what is there, as where a parameter is used more than once, or a batch comes in parts: the gradient is
    /// summed first, then added and rounded once.
    Add(CudaViewMut<'a, T>),
}

impl<T> Gradient<'_, T> {
    fn len(&self) -> usize {
        let (Gradient::Set(to) | Gradient::Add(to)) = self;
        to.len()
    }

    /// `Ok` exactly when there is none or it has the length that a shape asks for.
    fn expect_len(this: &Option<Self>, argument: &'static str, shape: &str, expected: usize) -> Result<()> {
        expect_len(argument, shape, expected, this.as_ref().map_or(expected, Self::len))
    }

    /// Where it goes. What is added to is read, too, for which a call waits no less than to write it.
    fn write<'a>(&'a mut self, guards: &mut Guards<'a>, argument: &'static str) -> Result<launch::Gradient> {
        Ok(match self {
            Gradient::Set(to) => launch::Gradient::Set(guards.write(argument, to)?),
            Gradient::Add(to) => launch::Gradient::Add(guards.write(argument, to)?),
        })
    }

    /// The same, where there is one.
    fn write_some<'a>(
        this: &'a mut Option<Self>,
        guards: &mut Guards<'a>,
        argument: &'static str,
    ) -> Result<Option<launch::Gradient>> {
        this.as_mut().map(|gradient| gradient.write(guards, argument)).transpose()
    }
}
