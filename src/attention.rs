//! The parameters of attention and gated attention, whatever file they come from.

use half::{bf16, f16};

use crate::element::Dtype;
use crate::error::{Error, Result, expect_len};

/// The sizes of [`AttentionParams`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// `D`, the features of an instance.
    pub dim: usize,
    /// `L`, the rows of V and U.
    pub hidden: usize,
    /// `K`, the attention distributions over a bag.
    pub heads: usize,
    /// `G`, how many different V and U there are: 1 where all heads share them, `K` where each has
    /// its own. Head `k` uses number `k / (K / G)`.
    pub groups: usize,
}

impl AttentionShape {
    /// `Ok` exactly when no size is 0 and the heads can be divided among the groups.
    pub(crate) fn expect(&self) -> Result<()> {
        let AttentionShape { dim, hidden, heads, groups } = *self;
        for (name, size) in [("dim", dim), ("hidden", hidden), ("heads", heads), ("groups", groups)] {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", size));
            }
        }
        if !heads.is_multiple_of(groups) {
            return Err(Error::argument("groups", format!("a divisor of heads = {heads}"), groups));
        }
        Ok(())
    }
}

/// Borrowed tensors to make [`AttentionParams`] of, row-major.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionTensors<'a> {
    /// V, `[G, L, D]`.
    pub v: &'a [f32],
    /// Bias of V, `[G, L]`.
    pub v_bias: Option<&'a [f32]>,
    /// U, `[G, L, D]`; with it the attention is gated.
    pub u: Option<&'a [f32]>,
    /// Bias of U, `[G, L]`.
    pub u_bias: Option<&'a [f32]>,
    /// w, `[K, L]`.
    pub w: &'a [f32],
    /// Bias of w, `[K]`: moves the scores, not the weights.
    pub w_bias: Option<&'a [f32]>,
}

/// A Linear+ReLU that a checkpoint holds in front of its attention: `h = max(0, W x + b)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    input: usize,
    output: usize,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Projection {
    /// A projection from `weight` `[P, D]` and, optionally, `bias` `[P]`, where `D` is `input`.
    ///
    /// # Errors
    /// Where `input` is 0, there is no row, or a length does not fit.
    pub fn new(input: usize, weight: Vec<f32>, bias: Option<Vec<f32>>) -> Result<Self> {
        if input == 0 || weight.is_empty() || !weight.len().is_multiple_of(input) {
            let expected = format!("[P, {input}] with P and D at least 1");
            return Err(Error::argument("projection weight", expected, format!("{} elements", weight.len())));
        }
        let output = weight.len() / input;
        if let Some(bias) = &bias {
            expect_len("projection bias", "[P]", output, bias.len())?;
        }
        Ok(Projection { input, output, weight, bias })
    }

    /// The same projection with W rounded to `dtype`.
    pub(crate) fn rounded(&self, dtype: Dtype) -> Self {
        let mut rounded = self.clone();
        round(&mut rounded.weight, dtype);
        rounded
    }

    /// `D`, what goes in.
    pub fn input(&self) -> usize {
        self.input
    }

    /// `P`, what comes out.
    pub fn output(&self) -> usize {
        self.output
    }

    /// W, `[P, D]`.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// b, `[P]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }
}

/// Learned parameters of attention pooling.
///
/// The score of an instance `h` for head `k` is
///
/// ```text
/// ungated  s[k] = w[k] · tanh(V h + b_v) + c[k]
/// gated    s[k] = w[k] · (tanh(V h + b_v) ⊙ σ(U h + b_u)) + c[k]
/// ```
///
/// after Ilse, Tomczak and Welling, *Attention-based Deep Multiple Instance Learning* (ICML 2018).
/// It is gated exactly when there is a U.
///
/// ```
/// use mivc::{AttentionParams, AttentionShape, AttentionTensors};
///
/// let shape = AttentionShape { dim: 3, hidden: 2, heads: 1, groups: 1 };
/// let tensors = AttentionTensors { v: &[0.1; 6], u: Some(&[0.2; 6]), w: &[1.0, -1.0], ..Default::default() };
/// let params = AttentionParams::new(shape, tensors)?;
/// assert!(params.is_gated());
/// # Ok::<(), mivc::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionParams {
    shape: AttentionShape,
    v: Vec<f32>,
    v_bias: Option<Vec<f32>>,
    u: Option<Vec<f32>>,
    u_bias: Option<Vec<f32>>,
    w: Vec<f32>,
    w_bias: Option<Vec<f32>>,
    projection: Option<Projection>,
}

impl AttentionParams {
    /// Parameters from slices.
    ///
    /// # Errors
    /// [`Error::Argument`] where a size is 0, `groups` does not divide `heads`, a slice is not of the
    /// length its shape asks for, or there is a bias of U without a U.
    pub fn new(shape: AttentionShape, tensors: AttentionTensors<'_>) -> Result<Self> {
        let AttentionShape { dim, hidden, heads, groups } = shape;
        shape.expect()?;
        let units = product("groups * hidden", &[groups, hidden])?;
        let matrix = product("groups * hidden * dim", &[units, dim])?;
        let scorers = product("heads * hidden", &[heads, hidden])?;

        expect_len("v", "[G, L, D]", matrix, tensors.v.len())?;
        expect_len("w", "[K, L]", scorers, tensors.w.len())?;
        let optional = [
            ("v_bias", "[G, L]", units, tensors.v_bias),
            ("u", "[G, L, D]", matrix, tensors.u),
            ("u_bias", "[G, L]", units, tensors.u_bias),
            ("w_bias", "[K]", heads, tensors.w_bias),
        ];
        for (name, shape, expected, slice) in optional {
            if let Some(slice) = slice {
                expect_len(name, shape, expected, slice.len())?;
            }
        }
        if tensors.u_bias.is_some() && tensors.u.is_none() {
            return Err(Error::argument("u_bias", "none, as there is no u", "one"));
        }
        let owned = |slice: Option<&[f32]>| slice.map(<[f32]>::to_vec);
        Ok(AttentionParams {
            shape,
            v: tensors.v.to_vec(),
            v_bias: owned(tensors.v_bias),
            u: owned(tensors.u),
            u_bias: owned(tensors.u_bias),
            w: tensors.w.to_vec(),
            w_bias: owned(tensors.w_bias),
            projection: None,
        })
    }

    /// The same parameters with a Linear+ReLU in front, which is applied only where asked for.
    ///
    /// # Errors
    /// Where its output is not the `D` of the attention.
    pub fn with_projection(mut self, projection: Projection) -> Result<Self> {
        if projection.output() != self.shape.dim {
            let expected = format!("output {}, the dim of the attention", self.shape.dim);
            return Err(Error::argument("projection", expected, projection.output()));
        }
        self.projection = Some(projection);
        Ok(self)
    }

    /// All sizes.
    pub fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// Whether there is a U.
    pub fn is_gated(&self) -> bool {
        self.u.is_some()
    }

    /// The tensors, borrowed.
    pub fn tensors(&self) -> AttentionTensors<'_> {
        AttentionTensors {
            v: &self.v,
            v_bias: self.v_bias.as_deref(),
            u: self.u.as_deref(),
            u_bias: self.u_bias.as_deref(),
            w: &self.w,
            w_bias: self.w_bias.as_deref(),
        }
    }

    /// The same parameters with V and U rounded to `dtype`, as they are packed for such features.
    pub(crate) fn rounded(&self, dtype: Dtype) -> Self {
        let mut rounded = self.clone();
        round(&mut rounded.v, dtype);
        if let Some(u) = &mut rounded.u {
            round(u, dtype);
        }
        rounded
    }

    /// The Linear+ReLU in front of the attention, where there is one.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }
}

/// Rounds to the nearest values of a type, kept as f32.
fn round(values: &mut [f32], dtype: Dtype) {
    let round: fn(f32) -> f32 = match dtype {
        Dtype::F32 => return,
        Dtype::F16 => |x| f16::from_f32(x).to_f32(),
        Dtype::Bf16 => |x| bf16::from_f32(x).to_f32(),
    };
    for value in values {
        *value = round(*value);
    }
}

fn product(what: &'static str, factors: &[usize]) -> Result<usize> {
    let overflow = || Error::argument(what, "a size that fits the address space", format!("{factors:?}"));
    factors.iter().try_fold(1_usize, |size, &factor| size.checked_mul(factor)).ok_or_else(overflow)
}
