//! Offsets are i32 or i64.

use cudarc::driver::{CudaStream, CudaView, CudaViewMut};
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs};

fn pool(
    operation: &MaxMean,
    stream: &CudaStream,
    features: CudaView<'_, f32>,
    offsets: CudaView<'_, u32>,
    outputs: Outputs<'_, f32>,
    scratch: CudaViewMut<'_, u8>,
) -> mivc::Result<()> {
    operation.run(stream, Inputs { features, row_stride: 8, offsets, mask: None }, outputs, scratch)
}

fn main() {}
