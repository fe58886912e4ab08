//! The CUDA backend: operations on streams and memory that the caller has.
//!
//! 1. A context: the engine's own, or [`context`] of a device, which is an error rather than a panic where there is
//!    no driver.
//! 2. [`Kernels::load`] loads the kernels into the context, once.
//! 3. An operation is planned, for certain shapes and a capacity: [`MaxMean::plan`](max_mean::MaxMean::plan).
//! 4. The caller allocates the scratch memory that the plan asks for, and the outputs.
//! 5. [`run`](max_mean::MaxMean::run) takes views of them and a stream. It checks every argument, queues at most three
//!    launches and returns; it allocates nothing on the device and waits for nothing.
//!
//! ```no_run
//! use mivc::Dtype;
//! use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs, Shape};
//! use mivc::cuda::{Capacity, Kernels, context};
//!
//! let context = context(0)?;
//! let kernels = Kernels::load(&context)?;
//!
//! let shape = Shape { dim: 768, features: Dtype::F32, outputs: Dtype::F32, argmax: false };
//! let operation = MaxMean::plan(&kernels, shape, Capacity { instances: 1 << 16, bags: 512 })?;
//!
//! let stream = context.new_stream()?;
//! let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
//! let features = stream.clone_htod(&vec![0.5_f32; 5 * 768])?;
//! let offsets = stream.clone_htod(&[0_i64, 2, 5])?;
//! let mut mean = stream.alloc_zeros::<f32>(2 * 768)?;
//!
//! operation.run(
//!     &stream,
//!     Inputs { features: features.as_view(), row_stride: 768, offsets: offsets.as_view(), mask: None },
//!     Outputs { mean: Some(mean.as_view_mut()), ..Default::default() },
//!     scratch.as_view_mut(),
//! )?;
//! assert_eq!(stream.clone_dtoh(&mean)?, [0.5; 2 * 768]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Streams and threads
//!
//! Kernels and operations can be shared by threads, and used on any stream of their context. Calls on different
//! streams run side by side where they share no buffer that is written, so give each its own scratch memory. A
//! buffer that one stream writes and another reads is ordered by cudarc's events, as anywhere in cudarc. Kernels,
//! stream and views must be of one [`CudaContext`](cudarc::driver::CudaContext), the very same `Arc`; what is of
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

mod executor;
mod guards;
mod image;
pub mod max_mean;
mod probe;
pub mod raw;

pub use crate::launch::Capacity;
pub use image::Kernels;
pub use probe::{context, device_count};
