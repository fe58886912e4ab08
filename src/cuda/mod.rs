//! The CUDA backend: operations on streams and memory that the caller has.
//!
//! 1. A context: the engine's own, or [`context`] of a device, which is an error rather than a panic where there is
//!    no driver.
//! 2. [`Kernels::load`] loads the kernels into the context, once.
//! 3. For attention, [`Kernels::pack`] lays the parameters out on the device, once for each type of features.
//! 4. An operation is planned, for certain shapes and a capacity: [`MaxMean::plan`](max_mean::MaxMean::plan) of the
//!    kernels, [`AttentionPool::plan`](attention_pool::AttentionPool::plan) of the packed parameters.
//! 5. The caller allocates the scratch memory that the plan asks for, and the outputs.
//! 6. [`run`](attention_pool::AttentionPool::run) takes views of them and a stream. It checks every argument, queues
//!    a few launches and, where there are offsets, a clearing of 16 bytes, and returns; it allocates nothing on the
//!    device and waits for nothing.
//!
//! | operation | reads | writes | launches at most |
//! | --- | --- | --- | --- |
//! | [`max_mean`] | features `[N, D]` | max, mean, argmax `[B, D]` | 2 |
//! | [`attention_pool`] | keys `[N, D']`, values `[N, D]` | pooled `[B, K, D]`, scores, weights `[N, K]`, lse, m, l `[B, K]` | 3 where features are read once: the work list, all in one, weights; else 4: the work list, scores, softmax, weighted sum |
//! | [`scores`] | features `[N, D]` | scores `[N, K]` | 1 |
//! | [`softmax`] | scores `[N, K]` | weights `[N, K]`, lse `[B, K]` | 3 |
//! | [`weighted_sum`] | weights `[N, K]`, values `[N, D]` or `[N, K, D]` | pooled `[B, K, D]` | 2 |
//! | [`gate`] | x, y `[N, L]` | g `[N, L]` | 1 |
//! | [`state`] | m, l `[B, K]` and pooled `[B, K, D]` of two states | those of the first | 1 |
//! | [`backward`] | what the operation read, and gradients of what it wrote | gradients of what it read | 3 |
//!
//! In [`Order::Exact`](crate::Order::Exact), by [`Kernels::with_order`], attention pool takes five launches, and max and mean
//! together four. A backward that gives gradients of parameters first puts all instances in order, by a launch and another for
//! each doubling of 256 instances, copies what it reads of them, and then does the features' share by itself. States are
//! [`state::ExactSums`].
//!
//! Attention pool, its parameters from a checkpoint:
//!
//! ```no_run
//! use mivc::cuda::attention_pool::{AttentionPool, Inputs, Outputs, Shape};
//! use mivc::cuda::{Capacity, Kernels, context};
//! use mivc::{AttentionParams, Dtype};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//! let stream = context.new_stream()?;
//!
//! let params = AttentionParams::load("attention_gated.safetensors")?;
//! let packed = kernels.pack(&stream, &params, Dtype::F32)?;
//! let (dim, heads) = (packed.shape().dim, packed.shape().heads);
//!
//! let shape = Shape { value_dim: dim, outputs: Dtype::F32 };
//! let operation = AttentionPool::plan(&packed, shape, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let features = stream.clone_htod(&vec![0.5_f32; 5 * dim])?;
//! let offsets = stream.clone_htod(&[0_i64, 2, 5])?;
//! let mut pooled = stream.alloc_zeros::<f32>(2 * heads * dim)?;
//! let mut weights = stream.alloc_zeros::<f32>(5 * heads)?;
//!
//! operation.run(
//!     &stream,
//!     Inputs { keys: features.as_view(), key_stride: dim, values: None, offsets: offsets.as_view(), mask: None },
//!     Outputs { weights: Some(weights.as_view_mut()), ..Outputs::of(pooled.as_view_mut()) },
//!     scratch.as_view_mut(),
//! )?;
//! assert_eq!(stream.clone_dtoh(&weights)?[0], 0.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Tokens
//!
//! Where an image is `T` tokens, `[N, T, D]`, the same operations pool them in three ways, without a copy:
//!
//! * One weight per image: the tokens are values `[N, T·D]` beside keys `[N, D']`.
//! * One weight per image and token position: a call for each position `t`, of features that begin at `t·D`, in rows
//!   `T·D` apart.
//! * One weight per token: every token is an instance, so offsets are `T` times as great, and a mask has each entry
//!   `T` times.
//!
//! Max and mean treat each feature by itself: there the first two are rows `[N, T·D]`.
//!
//! # Bags in pieces, and on several devices
//!
//! What attention pool has seen of a bag is a state: m, l and what is pooled in f32, which merge in any grouping (see
//! [`PoolState`](crate::PoolState)). A bag that does not fit the memory streams through in pieces:
//!
//! 1. The first piece is pooled with `max` and `sum` among the outputs, `pooled` in f32: the state so far.
//! 2. Each further piece is pooled the same way into buffers of its own. Its offsets have as many bags as the first
//!    piece; those of which it holds nothing are empty.
//! 3. [`state::Merge`] merges it into the first, after which its buffers are free for the next piece. `pooled` is the
//!    answer at any time.
//! 4. Weights come last: of scores that were kept, with m and l downloaded, by
//!    [`PoolState::weights`](crate::PoolState::weights).
//!
//! Devices that have pooled different instances of the same bags need exchange nothing but their states: copy the
//! other device's over and merge it there, or download both with [`PoolState::from_parts`](crate::PoolState::from_parts)
//! and merge them on the host. A state that was saved is uploaded by its parts.
//!
//! # Streams and threads
//!
//! Kernels, packed parameters and operations can be shared by threads, and used on any stream of their context. Calls
//! on different streams run side by side where they share no buffer that is written, so give each its own scratch
//! memory. A buffer that one stream writes and another reads is ordered by cudarc's events, as anywhere in cudarc. Of
//! several streams that read a buffer cudarc knows the last alone: join them before it is written or freed. Kernels
//! must outlive what they have queued. Kernels, stream and views must be of one [`CudaContext`](cudarc::driver::CudaContext), the very same `Arc`; what is of
//! another is an error.
//!
//! # CUDA graphs
//!
//! A stream in capture must not wait for events from before the capture, which is what views with cudarc's event
//! tracking make it do: such a call fails. Two ways to capture a call:
//!
//! * [`raw`] takes addresses and a stream's handle, and does nothing but to queue.
//! * Views of slices that were allocated after
//!   [`disable_event_tracking`](cudarc::driver::CudaContext::disable_event_tracking) carry no events; the order
//!   between streams, and what is freed when, is then the caller's to keep.

mod arguments;
pub mod attention_pool;
pub mod backward;
mod executor;
pub mod gate;
mod guards;
mod image;
pub mod max_mean;
mod pack;
mod probe;
pub mod raw;
pub mod scores;
pub mod softmax;
pub mod state;
pub mod weighted_sum;

pub use crate::launch::{Capacity, OnePass};
pub use arguments::Offset;
pub use image::Kernels;
pub use pack::{PackedAttention, PackedBackward};
pub use probe::{context, device_count};
