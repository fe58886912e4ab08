//! Where gradients go.

use crate::attention::{AttentionParams, AttentionShape, AttentionTensors};
use crate::error::{Error, Result, expect_len};

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

/// The shape of activations that a forward keeps.
pub(crate) const ACTIVATIONS: &str = "[N, G, L], twice that if gated";

/// Which parameters there are, for gradients that are asked for of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParamsThere {
    shape: AttentionShape,
    gated: bool,
    /// Of V, of U and of w.
    has_bias: [bool; 3],
}

impl ParamsThere {
    pub(crate) fn of(params: &AttentionParams) -> Self {
        let AttentionTensors { v_bias, u_bias, w_bias, .. } = params.tensors();
        let has_bias = [v_bias, u_bias, w_bias].map(|bias| bias.is_some());
        ParamsThere { shape: params.shape(), gated: params.is_gated(), has_bias }
    }

    /// `Ok` exactly when all that is asked for is there and fits: the lengths of the gradients of V, its bias, U, its
    /// bias, w and its bias.
    pub(crate) fn expect(&self, lens: [Option<usize>; 6]) -> Result<()> {
        let AttentionShape { dim, hidden, heads, groups } = self.shape;
        let (units, [v_has_bias, u_has_bias, w_has_bias]) = (groups * hidden, self.has_bias);
        let params = [
            ("d_v", "[G, L, D]", units * dim, true),
            ("d_v_bias", "[G, L]", units, v_has_bias),
            ("d_u", "[G, L, D]", units * dim, self.gated),
            ("d_u_bias", "[G, L]", units, u_has_bias),
            ("d_w", "[K, L]", heads * hidden, true),
            ("d_w_bias", "[K]", heads, w_has_bias),
        ];
        for ((name, shape, expected, is_there), len) in params.into_iter().zip(lens) {
            let Some(len) = len else { continue };
            if !is_there {
                return Err(Error::argument(name, "none, as the parameters have no such tensor", "one"));
            }
            expect_len(name, shape, expected, len)?;
        }
        Ok(())
    }
}
