//! A view does not outlive the slice that it is of.

use std::sync::Arc;

use cudarc::driver::{CudaStream, DriverError};
use mivc::cuda::max_mean::Outputs;

fn outputs(stream: &Arc<CudaStream>) -> Result<Outputs<'static, f32>, DriverError> {
    let mut mean = stream.alloc_zeros::<f32>(8)?;
    Ok(Outputs { mean: Some(mean.as_view_mut()), ..Default::default() })
}

fn main() {}
