//! Devices that are not there, and images that do not fit.

use mivc::cuda::{Kernels, context, device_count};
use mivc::error::CudaError;
use mivc::{Device, Pooler, Pooling};

use crate::Run;
use crate::driver::Driver;

pub const TRIALS: &[(&str, Run)] = &[
    ("devices::an_image_that_does_not_fit", an_image_that_does_not_fit),
    ("devices::devices_that_are_not_there", devices_that_are_not_there),
];

fn an_image_that_does_not_fit(driver: &Driver) {
    let context = context(0).unwrap();
    driver.fail(c"cuModuleLoadData", 209);
    let error = Kernels::load(&context).unwrap_err();
    let message = error.to_string();
    let CudaError::NoImage { capability, driver: version, .. } = error else { panic!("{message}") };
    assert_eq!((capability.as_str(), version.as_str()), ("8.0", "12.4"));
    for part in ["driver 580", "capability 8.0", "CUDA 12.4", "CUDA_ERROR_NO_BINARY_FOR_GPU"] {
        assert!(message.contains(part), "{message}");
    }
    driver.fail(c"cuModuleLoadData", 2);
    let out_of_memory = CudaError::Driver { name: "CUDA_ERROR_OUT_OF_MEMORY".into(), code: 2 };
    assert_eq!(Kernels::load(&context).unwrap_err(), out_of_memory);
}

fn devices_that_are_not_there(driver: &Driver) {
    assert_eq!(device_count().unwrap(), 1);
    assert_eq!(context(1).unwrap_err(), CudaError::NoDevice { ordinal: 1, count: 1 });
    driver.fail(c"cuInit", 100);
    assert_eq!(context(0).unwrap_err(), CudaError::NoDevice { ordinal: 0, count: 0 });
    let error = Pooler::new(Pooling::Mean, Device::Cuda(3)).unwrap_err();
    assert_eq!(error.to_string(), "device: expected one of the 1 CUDA devices, counted from 0, got 3");
}
