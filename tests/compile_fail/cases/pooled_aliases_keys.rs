//! One slice cannot be read as the keys and written as what is pooled.

use cudarc::driver::{CudaSlice, CudaStream};
use mivc::cuda::attention_pool::{AttentionPool, Inputs, Outputs};

fn pool(
    operation: &AttentionPool,
    stream: &CudaStream,
    keys: &mut CudaSlice<f32>,
    offsets: &CudaSlice<i64>,
    scratch: &mut CudaSlice<u8>,
) -> mivc::Result<()> {
    operation.run(
        stream,
        Inputs { keys: keys.as_view(), key_stride: 8, values: None, offsets: offsets.as_view(), mask: None },
        Outputs::of(keys.as_view_mut()),
        scratch.as_view_mut(),
    )
}

fn main() {}
