//! One slice cannot take the maxima and the means.

use cudarc::driver::CudaSlice;
use mivc::cuda::max_mean::Outputs;

fn outputs(both: &mut CudaSlice<f32>) -> Outputs<'_, f32> {
    Outputs { max: Some(both.as_view_mut()), mean: Some(both.as_view_mut()), ..Outputs::default() }
}

fn main() {}
