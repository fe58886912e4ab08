//! Fuses the embeddings of many images (or any instances) into one embedding per set, whatever their
//! order: mean, max, attention and gated attention, after MIVC (Wu, Li, Zhong and Huang, *MIVC: Multiple
//! Instance Visual Component for Visual-Language Models*, WACV 2024) and the attention-based multiple
//! instance learning it rests on (Ilse, Tomczak and Welling, ICML 2018).
//!
//! A **bag** is a set of **instances**: rows of a feature matrix `[N, D]` in f32, f16 or bf16, told apart
//! by offsets. Pooling makes one embedding of each bag:
//!
//! 1. [`Bags`] says which rows belong together, from lengths or offsets, optionally with a mask.
//! 2. [`Features`] borrows the features: one embedding per image, or images of several tokens.
//! 3. [`Pooling`] names the fusion; [`AttentionParams`] holds what attention has learned, from slices or
//!    from a checkpoint.
//! 4. [`Pooler`] runs it on a [`Device`].
//!
//! ```
//! use mivc::{AttentionParams, Bags, Device, Features, Pooler, Pooling};
//!
//! let params = AttentionParams::load("examples/data/attention_gated.safetensors")?;
//! let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu)?;
//!
//! let features = vec![0.1_f32; (12 + 7 + 31) * 128];
//! let bags = Bags::from_lengths(&[12, 7, 31])?;
//! let out = pooler.pool(&Features::new(&features, 128)?, &bags)?;
//! assert_eq!(out.embeddings.shape, [3, 1, 128]);
//! # Ok::<(), mivc::Error>(())
//! ```
//!
//! A bag that does not fit the memory, or that several devices share, is pooled in pieces onto a [`PoolState`].
//!
//! Beneath the front door, [`cpu`] has each operation by itself, over borrowed rows and outputs that the
//! caller owns. [`mod@reference`] is the oracle that everything is tested against: plain loops in f64, forward
//! and backward. With the feature `cuda`, `cuda` runs operations on a GPU, on streams and memory that one already
//! has, and the front door has `Device::Cuda`.
//!
//! # What holds everywhere
//!
//! * An empty bag, or one that is masked whole, pools to 0 with weights 0; never NaN, never a neighbour's
//!   value. A masked instance is not read. A NaN stays in its own bag.
//! * The same call gives the same bits, on any number of threads, and a bag's bits do not depend on what
//!   else is in the call. The order of a bag's instances changes a result within rounding.
//! * Bad arguments are errors that name the argument, what was expected and what came.

#![warn(missing_docs, unreachable_pub, clippy::undocumented_unsafe_blocks)]

mod attention;
mod bags;
mod checkpoint;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod element;
pub mod error;
pub mod exact;
mod features;
mod gradient;
#[cfg(feature = "cuda")]
pub mod launch;
mod order;
mod pooling;
pub mod reference;
mod rows;
mod state;

pub use attention::{AttentionParams, AttentionShape, AttentionTensors, Projection};
pub use bags::Bags;
pub use element::{Dtype, Element};
pub use error::{Error, Result};
pub use features::Features;
pub use gradient::Gradient;
pub use order::Order;
pub use pooling::{Device, Pooled, Pooler, Pooling, Tensor};
pub use rows::Rows;
pub use state::PoolState;
