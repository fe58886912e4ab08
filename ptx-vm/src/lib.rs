#![doc = include_str!("../README.md")]

mod check;
mod decode;
mod device;
mod error;
mod exec;
mod isa;
mod memory;
pub mod parse;
mod registers;
mod statistics;
mod tensor_map;

pub use device::{Checks, Device, Launch, Module, Parameters, Pointer};
pub use error::{Error, Fault, FaultKind, Result, Site};
pub use statistics::{Requests, Statistics};
pub use tensor_map::{Swizzle, TensorMap};
