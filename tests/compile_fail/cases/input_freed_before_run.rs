//! A slice cannot be freed while a call is still to read it.

use cudarc::driver::{CudaSlice, CudaStream};
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs};

fn pool(
    operation: &MaxMean,
    stream: &CudaStream,
    features: CudaSlice<f32>,
    offsets: &CudaSlice<i64>,
    outputs: Outputs<'_, f32>,
    scratch: &mut CudaSlice<u8>,
) -> mivc::Result<()> {
    let inputs = Inputs { features: features.as_view(), row_stride: 8, offsets: offsets.as_view(), mask: None };
    drop(features);
    operation.run(stream, inputs, outputs, scratch.as_view_mut())
}

fn main() {}
