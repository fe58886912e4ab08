//! The CPU backend: every operation, on every machine.
//!
//! [`Cpu`] stands for one instruction set; its methods are the operations, one file each. They check
//! their arguments, write outputs that the caller owns, and run on the threads of the current rayon
//! pool. What they promise, whatever the number of threads:
//!
//! * **Run to run**: the same call gives the same bits.
//! * **Batch**: a bag's bits do not depend on what else is in the call. An instance's score is a chain
//!   of multiply-adds that no other instance touches; a bag is split into chunks of 126 rows counted
//!   from its own first row, summed row by row, and chunks merge in a fixed tree of radix 32.
//! * **Order**: permuting the instances of a bag changes a result within rounding, and no bit
//!   [`with_order`](Cpu::with_order) [`Order::Exact`].
//!
//! Every operation has its backward, with the formulas and edge cases of [`mod@crate::reference`]. Gradients of features,
//! values, scores and weights keep these promises. Those of parameters sum over all instances, in an order that depends
//! on their number alone: they promise the same bits from run to run, and in [`Order::Exact`] for any order of the
//! instances of the call. Sums are taken in f32, and what is written in
//! another type, or added to what is there, is rounded once.
//!
//! Bits do differ between instruction sets.

mod aligned;
mod attention_pool;
mod backward;
mod chunks;
mod exact;
mod gate;
mod kernels;
mod max_mean;
mod product;
mod projection;
mod scores;
mod simd;
mod softmax;
mod source;
mod tile;
mod weighted_sum;
mod workspace;

pub use attention_pool::AttentionOutputs;
pub use backward::{
    AttentionPoolGradients, AttentionPoolUpstream, MaxMeanUpstream, PackedBackward, ParamGradients, Saved,
    ScoresGradients, SoftmaxUpstream, WeightedSumGradients,
};
pub use max_mean::MaxMeanOutputs;
pub use weighted_sum::Values;

pub(crate) use kernels::Kernels;

use projection::PackedProjection;
use scores::{PackedScores, Units};
#[cfg(target_arch = "x86_64")]
use simd::{Avx2, Avx512, Bf16Dot};
use simd::{Fma, Portable};

use crate::attention::{AttentionParams, AttentionShape, Projection};
use crate::element::{Dtype, Element};
use crate::error::{Error, Result};
use crate::order::Order;
use crate::rows::Rows;

/// An instruction set that the kernels are compiled for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, any processor.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 and its bf16 dot product, which bf16 features are then multiplied with.
    Avx512Bf16,
}

/// The tokens that prove an instruction set is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512, Bf16Dot),
}

/// The CPU backend for one instruction set.
///
/// ```
/// use mivc::cpu::{Cpu, MaxMeanOutputs};
/// use mivc::{Bags, Rows};
///
/// let features = Rows::new(&[1.0_f32, 5.0, 3.0, 1.0], 2)?;
/// let mut max = [0.0_f32; 2];
/// let outputs = MaxMeanOutputs { max: Some(&mut max), ..Default::default() };
/// Cpu::detect().max_mean(features, &Bags::from_lengths(&[2])?, outputs)?;
/// assert_eq!(max, [3.0, 5.0]);
/// # Ok::<(), mivc::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    backend: Backend,
    order: Order,
}

impl Cpu {
    /// The best instruction set of this processor.
    pub fn detect() -> Cpu {
        let best_first = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2];
        let best = best_first.into_iter().find_map(Cpu::with_isa);
        best.unwrap_or(Cpu { backend: Backend::Portable(Portable), order: Order::default() })
    }

    /// A given instruction set, where this processor has it.
    pub fn with_isa(isa: Isa) -> Option<Cpu> {
        let backend = match isa {
            Isa::Portable => Backend::Portable(Portable),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Backend::Avx2(Avx2::detect()?),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Backend::Avx512(Avx512::detect()?),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Backend::Avx512Bf16(Avx512::detect()?, Bf16Dot::detect()?),
            #[cfg(not(target_arch = "x86_64"))]
            _ => return None,
        };
        Some(Cpu { backend, order: Order::default() })
    }

    /// The same, in the given [`Order`]. Parameters that are packed for either serve both.
    ///
    /// ```
    /// use mivc::cpu::{Cpu, MaxMeanOutputs};
    /// use mivc::{Bags, Order, Rows};
    ///
    /// let cpu = Cpu::detect().with_order(Order::Exact);
    /// let mean_of = |features: [f32; 3]| -> mivc::Result<f32> {
    ///     let mut mean = [0.0_f32];
    ///     let outputs = MaxMeanOutputs { mean: Some(&mut mean), ..Default::default() };
    ///     cpu.max_mean(Rows::new(&features, 1)?, &Bags::from_lengths(&[3])?, outputs)?;
    ///     Ok(mean[0])
    /// };
    /// assert_eq!(mean_of([1e8, 1.0, -1e8])?, mean_of([1e8, -1e8, 1.0])?);
    /// # Ok::<(), mivc::Error>(())
    /// ```
    pub fn with_order(self, order: Order) -> Cpu {
        Cpu { order, ..self }
    }

    /// What the order of a bag's instances may change.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        match self.backend {
            Backend::Portable(_) => Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512Bf16(..) => Isa::Avx512Bf16,
        }
    }

    /// Packs parameters for features of type `dtype`: V and U rounded to it, w and the biases in f32.
    pub fn pack(&self, params: &AttentionParams, dtype: Dtype) -> PackedAttention {
        self.pack_behind(None, params, dtype)
    }

    /// As [`pack`](Self::pack), with the projection that the parameters hold applied to the features
    /// first. The projection is rounded to `dtype` as well; what it puts out stays in f32, and so do V
    /// and U.
    ///
    /// # Errors
    /// Where the parameters hold none.
    pub fn pack_projected(&self, params: &AttentionParams, dtype: Dtype) -> Result<PackedAttention> {
        let projection = params.projection().ok_or_else(|| {
            Error::argument("params", "parameters with a projection (Linear+ReLU)", "parameters without one")
        })?;
        Ok(self.pack_behind(Some(projection), params, dtype))
    }

    fn pack_behind(&self, projection: Option<&Projection>, params: &AttentionParams, dtype: Dtype) -> PackedAttention {
        let scored = if projection.is_some() { Dtype::F32 } else { dtype };
        let params = params.rounded(scored);
        let scorer = match (self.backend, scored) {
            #[cfg(target_arch = "x86_64")]
            (Backend::Avx512Bf16(_, dot), Dtype::Bf16) => Scorer::Bf16Dot(dot, PackedScores::new(dot, &params)),
            _ => Scorer::Fma(with_simd!(*self, |simd| PackedScores::new(Fma(simd), &params))),
        };
        let projection = projection.map(|projection| {
            let projection = projection.rounded(dtype);
            with_simd!(*self, |simd| PackedProjection::new(simd, &projection))
        });
        PackedAttention { cpu: *self, dtype, shape: params.shape(), scorer, projection }
    }
}

/// Attention parameters as the kernels of one instruction set read them; see [`Cpu::pack`].
#[derive(Clone)]
pub struct PackedAttention {
    cpu: Cpu,
    dtype: Dtype,
    shape: AttentionShape,
    scorer: Scorer,
    projection: Option<PackedProjection>,
}

#[derive(Clone)]
enum Scorer {
    Fma(PackedScores<f32>),
    #[cfg(target_arch = "x86_64")]
    Bf16Dot(Bf16Dot, PackedScores<half::bf16>),
}

impl PackedAttention {
    /// The sizes of the attention, behind a projection where there is one.
    pub fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// `D` of the features that go in.
    pub fn input_dim(&self) -> usize {
        self.projection.as_ref().map_or(self.shape.dim, PackedProjection::input)
    }

    fn projection(&self) -> Option<&PackedProjection> {
        self.projection.as_ref()
    }

    /// Elements that the activations of an instance have: `G·L`, and twice that where the attention is gated.
    pub fn activations(&self) -> usize {
        self.units().activations()
    }

    fn units(&self) -> &Units {
        match &self.scorer {
            Scorer::Fma(scorer) => scorer.units(),
            #[cfg(target_arch = "x86_64")]
            Scorer::Bf16Dot(_, scorer) => scorer.units(),
        }
    }

    /// `Ok` exactly when these parameters are packed for `cpu` and for such features.
    fn expect<E: Element>(&self, cpu: Cpu, argument: &'static str, features: &Rows<'_, E>) -> Result<()> {
        expect_packed((self.cpu, self.dtype, self.input_dim()), cpu, argument, features)
    }
}

/// `Ok` exactly when what is packed for a backend, a type and a dimension is packed for `cpu` and such features.
fn expect_packed<E: Element>(
    (packed_for, dtype, dim): (Cpu, Dtype, usize),
    cpu: Cpu,
    argument: &'static str,
    features: &Rows<'_, E>,
) -> Result<()> {
    if packed_for.backend != cpu.backend {
        let packed = |cpu: Cpu| format!("parameters packed for {:?}", cpu.isa());
        return Err(Error::argument("packed", packed(cpu), packed(packed_for)));
    }
    if dtype != E::DTYPE {
        return Err(Error::argument(argument, format!("{dtype}, as the parameters are packed for"), E::DTYPE));
    }
    if dim != features.dim() {
        return Err(Error::argument(argument, format!("rows of {dim}, the dim of the parameters"), features.dim()));
    }
    Ok(())
}

impl std::fmt::Debug for PackedAttention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedAttention")
            .field("isa", &self.cpu.isa())
            .field("dtype", &self.dtype)
            .field("shape", &self.shape)
            .field("projected", &self.projection.is_some())
            .finish_non_exhaustive()
    }
}

/// `body` with `simd` bound to the token of a [`Cpu`].
macro_rules! with_simd {
    ($cpu:expr, |$simd:ident| $body:expr) => {
        match $cpu.backend {
            $crate::cpu::Backend::Portable($simd) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Backend::Avx2($simd) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Backend::Avx512($simd) | $crate::cpu::Backend::Avx512Bf16($simd, _) => $body,
        }
    };
}

/// `body` with `m` bound to the [`Multiply`](simd::Multiply) that parameters are packed for, and
/// `scorer` to them.
macro_rules! with_multiply {
    ($packed:expr, |$m:ident, $scorer:ident| $body:expr) => {
        match &$packed.scorer {
            $crate::cpu::Scorer::Fma($scorer) => $crate::cpu::with_simd!($packed.cpu, |simd| {
                let $m = $crate::cpu::simd::Fma(simd);
                $body
            }),
            #[cfg(target_arch = "x86_64")]
            $crate::cpu::Scorer::Bf16Dot(dot, $scorer) => {
                let $m = *dot;
                $body
            }
        }
    };
}

use {with_multiply, with_simd};
