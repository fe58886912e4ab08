//! The kernels, as compiled, and as loaded on a device.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
};
use cudarc::driver::sys::{self, CUfunction, CUfunction_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, DriverError};
use cudarc::nvrtc::Ptx;

use crate::error::{CudaError, Result};
use crate::launch::pack::F32Product;
use crate::launch::{Hardware, Launch, OnePass};
use crate::order::Order;

/// A `.cu`, compiled.
pub(crate) struct Image {
    /// Its name, without `.cu`.
    pub(crate) name: &'static str,
    /// Machine code for several architectures, and PTX.
    pub(crate) fatbin: &'static [u8],
    /// The kernels in it.
    pub(crate) kernels: &'static [&'static str],
    #[expect(dead_code, reason = "for tests of what was compiled")]
    pub(crate) architectures: &'static [&'static str],
    /// Whether it is for an architecture alone, and not used unless that is asked for.
    pub(crate) is_special: bool,
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// All kernels of this crate, loaded in a context. A clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Kernels {
    context: Arc<CudaContext>,
    /// The faster one on the device.
    f32_product: F32Product,
    hardware: Hardware,
    order: Order,
    /// By image and name.
    functions: Arc<HashMap<(&'static str, &'static str), CudaFunction>>,
}

impl Kernels {
    /// Loads the machine code that fits the device, or compiles the PTX for it where none does. Attention is pooled in two
    /// passes, which were the faster ones wherever that was measured.
    ///
    /// # Errors
    /// [`CudaError::NoImage`] where neither works, [`CudaError::Driver`] where the driver fails otherwise.
    pub fn load(context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        Self::load_images(context, None)
    }

    /// As [`load`](Self::load); but attention is pooled in one pass, by the kernels that are named, where a
    /// [tile](crate::launch::attention_pool::Path::of) fits.
    ///
    /// # Errors
    /// As of [`load`](Self::load); [`CudaError::NoImage`] of [`OnePass::Sm90`] where the compute capability is not 9.0.
    pub fn load_with(context: &Arc<CudaContext>, one_pass: OnePass) -> Result<Self, CudaError> {
        Self::load_images(context, Some(one_pass))
    }

    fn load_images(context: &Arc<CudaContext>, one_pass: Option<OnePass>) -> Result<Self, CudaError> {
        let (major, minor) = context.compute_capability()?;
        let f32_product = F32Product::of_capability(major, minor);
        let attribute = |which| Ok::<_, DriverError>(context.attribute(which)?.max(0) as usize);
        let hardware = Hardware {
            shared_bytes: attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessors: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            one_pass,
        };
        let mut functions = HashMap::new();
        for image in IMAGES.iter().filter(|image| !image.is_special || one_pass == Some(OnePass::Sm90)) {
            let module = context.load_module(Ptx::from_binary(image.fatbin.to_vec()));
            let module = module.map_err(|error| why_not_loaded(context, error))?;
            for name in image.kernels {
                let function = module.load_function(name)?;
                if let Some(bytes) = hardware.dynamic_shared_bytes_of(image.name) {
                    // Without it a launch can have 48 KiB.
                    let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    function.set_attribute(most, bytes as i32)?;
                }
                functions.insert((image.name, *name), function);
            }
        }
        let (context, order, functions) = (context.clone(), Order::default(), Arc::new(functions));
        Ok(Kernels { context, f32_product, hardware, order, functions })
    }

    /// The same kernels, for operations in the given [`Order`]. What is packed by the one serves attention pool and its
    /// backward in its order alone.
    pub fn with_order(&self, order: Order) -> Self {
        Kernels { order, ..self.clone() }
    }

    /// What the order of a bag's instances may change.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The context that they were loaded in.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// How f32 features are multiplied here.
    pub(super) fn f32_product(&self) -> F32Product {
        self.f32_product
    }

    /// What launches depend on of the device.
    pub(super) fn hardware(&self) -> Hardware {
        self.hardware
    }

    /// `Ok` exactly when an argument is of the context that the kernels were loaded in.
    pub(super) fn expect_context(&self, argument: &'static str, context: &Arc<CudaContext>) -> Result<(), CudaError> {
        if Arc::ptr_eq(context, &self.context) { Ok(()) } else { Err(CudaError::Context { argument }) }
    }

    /// The kernel of a launch; the images hold every one that a launch can name.
    pub(super) fn function(&self, launch: &Launch) -> CUfunction {
        self.functions[&(launch.image, launch.kernel)].cu_function()
    }
}

/// Tells images that do not fit from other failures.
fn why_not_loaded(context: &CudaContext, error: DriverError) -> CudaError {
    let is_misfit = matches!(
        error.0,
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_INVALID_IMAGE
            | CUresult::CUDA_ERROR_INVALID_PTX
            | CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED
    );
    match (is_misfit, context.compute_capability(), driver_version()) {
        (true, Ok((major, minor)), Ok(version)) => CudaError::NoImage {
            architectures: ARCHITECTURES.join(", "),
            ptx: PTX_ARCHITECTURE,
            capability: format!("{major}.{minor}"),
            driver: format!("{}.{}", version / 1000, version % 1000 / 10),
            reason: format!("{:?}", error.0),
        },
        _ => error.into(),
    }
}

/// 1000 times the major version, and 10 times the minor one.
fn driver_version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: there is a driver, for there is a context, and `version` takes what it writes.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}
