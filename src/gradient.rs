//! Where gradients go.

use crate::error::{Result, expect_len};

/// Where a backward writes a gradient.
///
/// ```
/// use mivc::cpu::Cpu;
/// use mivc::Gradient;
///
/// let (x, y, d_g) = ([0.0_f32], [0.0_f32], [1.0_f32]);
/// let mut d_x = [10.0];
/// Cpu::detect().gate_backward(&x, &y, &d_g, Some(Gradient::Add(&mut d_x)), None)?;
/// assert_eq!(d_x, [10.5]);
/// # Ok::<(), mivc::Error>(())
/// ```
#[derive(Debug)]
pub enum Gradient<'a, T> {
    /// In place of what is there.
    Set(&'a mut [T]),
    /// Added to what is there, as where a parameter is used more than once, or a batch comes in parts.
    Add(&'a mut [T]),
}

impl<'a, T> Gradient<'a, T> {
    /// What it is written to.
    pub(crate) fn slice(&self) -> &[T] {
        match self {
            Gradient::Set(to) | Gradient::Add(to) => to,
        }
    }

    /// `Ok` exactly when there is none or it is as long as it should be.
    pub(crate) fn expect_len(this: &Option<Self>, what: &'static str, shape: &'static str, len: usize) -> Result<()> {
        this.as_ref().map_or(Ok(()), |gradient| expect_len(what, shape, len, gradient.slice().len()))
    }

    /// The slice, and whether it is added to.
    pub(crate) fn into_parts(self) -> (&'a mut [T], bool) {
        match self {
            Gradient::Set(to) => (to, false),
            Gradient::Add(to) => (to, true),
        }
    }
}
