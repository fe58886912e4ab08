//! One slice cannot be read as the features and written as the means.

use cudarc::driver::{CudaSlice, CudaStream};
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs};

fn pool(
    operation: &MaxMean,
    stream: &CudaStream,
    features: &mut CudaSlice<f32>,
    offsets: &CudaSlice<i64>,
    scratch: &mut CudaSlice<u8>,
) -> mivc::Result<()> {
    operation.run(
        stream,
        Inputs { features: features.as_view(), row_stride: 8, offsets: offsets.as_view(), mask: None },
        Outputs { mean: Some(features.as_view_mut()), ..Default::default() },
        scratch.as_view_mut(),
    )
}

fn main() {}
