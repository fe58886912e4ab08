//! Merging states: what two calls of attention pool, or two devices, have seen of the same bags.
//!
//! The outputs `max`, `sum` and `pooled` of [`attention_pool`](super::attention_pool) in f32 are a state, of bags of
//! any length. A second call writes a state of further instances elsewhere, and [`Merge`] makes one of both:
//!
//! ```no_run
//! use mivc::PoolState;
//! use mivc::cuda::state::{Merge, StateMut, StateRef};
//! use mivc::cuda::{Kernels, context};
//!
//! let context = context(0)?;
//! let (kernels, stream) = (Kernels::load(&context)?, context.new_stream()?);
//!
//! // Two bags, one head, D = 3: on this device, and as another machine has saved them.
//! let (mut max, mut sum) = (stream.clone_htod(&[0.0_f32; 2])?, stream.clone_htod(&[1.0_f32; 2])?);
//! let mut pooled = stream.clone_htod(&[0.5_f32; 6])?;
//! let other = PoolState::load("from_another_machine.safetensors")?;
//! let other_max = stream.clone_htod(other.max())?;
//! let other_sum = stream.clone_htod(other.sum())?;
//! let other_pooled = stream.clone_htod(other.pooled())?;
//!
//! Merge::plan(&kernels, 3)?.run(
//!     &stream,
//!     StateMut { max: max.as_view_mut(), sum: sum.as_view_mut(), pooled: pooled.as_view_mut() },
//!     StateRef { max: other_max.as_view(), sum: other_sum.as_view(), pooled: other_pooled.as_view() },
//! )?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In [`Order::Exact`] a state is made of integers, the output `exact` of
//! [`attention_pool`](super::attention_pool) and [`max_mean`](super::max_mean). [`ExactSums`] says how many there are, and
//! makes a [`PoolState`](crate::PoolState) of them on the host, where it merges and is saved:
//!
//! ```no_run
//! use mivc::PoolState;
//! use mivc::cuda::state::ExactSums;
//! # use mivc::cuda::attention_pool::{AttentionPool, Inputs, Outputs};
//! # use cudarc::driver::{CudaStream, CudaViewMut};
//! # fn piece(operation: &AttentionPool, stream: &std::sync::Arc<CudaStream>, inputs: Inputs<'_, f32>,
//! #     pooled: CudaViewMut<'_, f32>, scratch: CudaViewMut<'_, u8>, state: &mut PoolState,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let sums = ExactSums::new(state.bags(), state.heads(), state.dim())?;
//! let mut exact = stream.alloc_zeros::<i64>(sums.len())?;
//! let outputs = Outputs { exact: Some(exact.as_view_mut()), ..Outputs::of(pooled) };
//! operation.run(stream, inputs, outputs, scratch)?;
//! state.merge(&sums.state(&stream.clone_dtoh(&exact)?)?)?;
//! # Ok(())
//! # }
//! ```

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};

use super::Kernels;
use super::guards::Guards;
use crate::error::{Error, Result, expect_len};
use crate::launch::state::{self as launch, Addresses};
use crate::order::Order;

pub use crate::launch::exact::state::ExactSums;

/// The merge of states of certain embeddings, for any number of calls.
#[derive(Debug, Clone)]
pub struct Merge {
    pub(super) kernels: Kernels,
    pub(super) plan: launch::Merge,
}

/// The state that a call merges into. Each bag and head is in one of the conditions of
/// [`PoolState`](crate::PoolState); [`PoolState::empty`](crate::PoolState::empty) holds one of nothing seen.
#[derive(Debug)]
pub struct StateMut<'a> {
    /// `[B, K]`: m, the greatest score.
    pub max: CudaViewMut<'a, f32>,
    /// `[B, K]`: l, the sum of exp(s − m).
    pub sum: CudaViewMut<'a, f32>,
    /// `[B, K, D]`: the embeddings of what has been seen.
    pub pooled: CudaViewMut<'a, f32>,
}

/// The state that a call merges into another.
#[derive(Debug)]
pub struct StateRef<'a> {
    /// `[B, K]`: m, the greatest score.
    pub max: CudaView<'a, f32>,
    /// `[B, K]`: l, the sum of exp(s − m).
    pub sum: CudaView<'a, f32>,
    /// `[B, K, D]`: the embeddings of what has been seen.
    pub pooled: CudaView<'a, f32>,
}

impl Merge {
    /// Prepares for calls on any number of bags and heads, of embeddings of `dim` features.
    ///
    /// # Errors
    /// [`Error::Argument`] where `dim` is 0, or the kernels are of [`Order::Exact`], whose states have other parts.
    pub fn plan(kernels: &Kernels, dim: usize) -> Result<Self> {
        if kernels.order() == Order::Exact {
            let expected = "Order::Rounding, as exact sums merge as a PoolState";
            return Err(Error::argument("kernels", expected, "Order::Exact"));
        }
        Ok(Merge { kernels: kernels.clone(), plan: launch::Merge::plan(dim)? })
    }

    /// Joins what `other` has seen of the same bags, which must be other instances, as
    /// [`PoolState::merge`](crate::PoolState::merge) does: max and sum `[B, K]` and pooled `[B, K, D]` of both →
    /// those of `state`.
    ///
    /// Queues the work and returns; it needs no scratch memory. It is commutative bit for bit, a NaN excepted, which
    /// may become another. A bag and head of which `other` has seen nothing is as it was, bit for bit. A NaN, or a
    /// score of +inf, stays in its bag and head.
    ///
    /// # Errors
    /// [`Error::Argument`] where a buffer is not of the length or alignment that the shapes
    /// ask for, or there are more bags and heads than a launch can have;
    /// [`CudaError`](crate::error::CudaError) where a buffer or the stream is of another context, or the driver fails.
    pub fn run(&self, stream: &CudaStream, mut state: StateMut<'_>, other: StateRef<'_>) -> Result<()> {
        let rows = state.max.len();
        let elements = rows.saturating_mul(self.plan.dim());
        expect_len("sum", "[B, K]", rows, state.sum.len())?;
        expect_len("pooled", "[B, K, D]", elements, state.pooled.len())?;
        expect_len("other.max", "[B, K]", rows, other.max.len())?;
        expect_len("other.sum", "[B, K]", rows, other.sum.len())?;
        expect_len("other.pooled", "[B, K, D]", elements, other.pooled.len())?;

        let mut guards = Guards::new(&self.kernels, stream)?;
        let addresses = Addresses {
            max: guards.write("max", &mut state.max)?,
            sum: guards.write("sum", &mut state.sum)?,
            pooled: guards.write("pooled", &mut state.pooled)?,
            other_max: guards.read("other.max", &other.max)?,
            other_sum: guards.read("other.sum", &other.sum)?,
            other_pooled: guards.read("other.pooled", &other.pooled)?,
        };
        if let Some(steps) = self.plan.steps(rows, addresses)? {
            // SAFETY: the views are of the lengths that the steps take: as many rows of either state, and as many
            // times D elements.
            unsafe { guards.launch(&steps) }?;
        }
        Ok(())
    }
}
