//! Each family of arithmetic instructions against Rust's arithmetic: edge values crossed, and random ones.

mod approximate;
mod bits;
mod compare;
mod convert;
mod float;
mod integer;
mod packed;
mod support;
