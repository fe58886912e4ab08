//! Where gradients of features are written, whatever their type.

use std::ops::Range;

use super::super::kernels::Output;
use crate::element::Element;
use crate::gradient::Gradient;

/// A [`Gradient`] of elements of some type.
pub struct Target<'a> {
    to: Output<'a>,
    adds: bool,
}

impl<'a> Target<'a> {
    pub(super) fn new<G: Element>(gradient: Gradient<'a, G>) -> Self {
        let (to, adds) = gradient.into_parts();
        Target { to: G::output(to), adds }
    }

    /// Cuts off the first `n` elements.
    pub(super) fn take(&mut self, n: usize) -> Target<'a> {
        Target { to: self.to.take(n), adds: self.adds }
    }

    /// Writes the elements `at`, or adds to them; rounds once.
    pub(super) fn write(&mut self, at: Range<usize>, from: &[f32]) {
        if self.adds {
            self.to.add(at, from);
        } else {
            self.to.write(at, from);
        }
    }

    /// Writes zeros to the elements `at`, or adds nothing to them.
    pub(super) fn write_zeros(&mut self, at: Range<usize>) {
        if !self.adds {
            self.to.fill(at, 0.0);
        }
    }
}
