//! Scratch memory is written: a shared view of it will not do.

use cudarc::driver::{CudaSlice, CudaStream};
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs};

fn pool(
    operation: &MaxMean,
    stream: &CudaStream,
    inputs: Inputs<'_, f32>,
    outputs: Outputs<'_, f32>,
    scratch: &CudaSlice<u8>,
) -> mivc::Result<()> {
    operation.run(stream, inputs, outputs, scratch.as_view())
}

fn main() {}
