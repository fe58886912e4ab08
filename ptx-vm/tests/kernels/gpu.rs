//! The same kernels on a GPU, where there is one: the virtual machine must not be alone with its opinion.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};
use ptx_vm::{Parameters, Swizzle, TensorMap};

pub struct Gpu {
    context: Arc<CudaContext>,
    module: sys::CUmodule,
    function: sys::CUfunction,
    /// Addresses and bytes.
    buffers: Vec<(sys::CUdeviceptr, usize)>,
}

/// Whether there is a driver and a device.
pub fn is_there() -> bool {
    // SAFETY: it opens the library by name and closes it again.
    let has_driver = unsafe { sys::is_culib_present() };
    has_driver && CudaContext::device_count().is_ok_and(|devices| devices > 0)
}

/// Whether the device is of the architecture that the kernels of `hopper_*.cu` are for.
pub fn is_hopper() -> bool {
    CudaContext::new(0).and_then(|context| context.compute_capability()).is_ok_and(|(major, _)| major == 9)
}

/// A tensor map as the driver encodes it.
pub fn encode(map: &TensorMap) -> Result<[u8; 128], DriverError> {
    use sys::{CUtensorMapDataType_enum as Type, CUtensorMapSwizzle_enum as DriverSwizzle};
    let ty = match map.element_bytes {
        1 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
        2 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT16,
        _ => Type::CU_TENSOR_MAP_DATA_TYPE_UINT32,
    };
    let swizzle = match map.swizzle {
        Swizzle::None => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::B32 => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::B64 => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => DriverSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let mut encoded = sys::CUtensorMap { opaque: [0; 16] };
    let element_strides = vec![1; map.dims.len()];
    // SAFETY: every array has an entry for each dimension, strides for all but the first.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            ty,
            map.dims.len() as u32,
            ptr::with_exposed_provenance_mut(map.address as usize),
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.block.as_ptr(),
            element_strides.as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()?;
    let mut bytes = [0; 128];
    for (bytes, word) in bytes.chunks_mut(8).zip(encoded.opaque) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}

impl Gpu {
    pub fn new(ptx: &str, kernel: &str) -> Result<Self, DriverError> {
        let context = CudaContext::new(0)?;
        let [image, name] = [ptx, kernel].map(|text| CString::new(text).expect("no NUL in PTX"));
        // SAFETY: the image ends with NUL and outlives the call; the context is current on this thread.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }?;
        // SAFETY: the module has just been loaded.
        let function = unsafe { result::module::get_function(module, name) }?;
        Ok(Gpu { context, module, function, buffers: Vec::new() })
    }

    pub fn upload(&mut self, bytes: &[u8]) -> Result<u64, DriverError> {
        // SAFETY: the new buffer is as long as what is copied to it.
        unsafe {
            let address = result::malloc_sync(bytes.len().max(1))?;
            self.buffers.push((address, bytes.len()));
            result::memcpy_htod_sync(address, bytes)?;
            Ok(address)
        }
    }

    /// The contents of the buffer that begins at `address`; none where no buffer does.
    pub fn read(&self, address: u64) -> Result<Vec<u8>, DriverError> {
        let len = self.buffers.iter().find(|(start, _)| *start == address).map_or(0, |(_, len)| *len);
        let mut bytes = vec![0; len];
        // SAFETY: the buffer has that many bytes, and all launches have ended.
        unsafe { result::memcpy_dtoh_sync(&mut bytes, address) }?;
        Ok(bytes)
    }

    /// Runs the kernel to its end.
    ///
    /// Its parameters are given one by one: where one is aligned more than others, as a tensor map is, the driver's
    /// layout is not that of C.
    pub fn launch(
        &self,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        parameters: &Parameters,
    ) -> Result<(), DriverError> {
        let mut addresses: Vec<*mut c_void> = parameters.each().map(|one| one.as_ptr().cast_mut().cast()).collect();
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the virtual machine has found that the kernel takes as many bytes of parameters, and it takes as many
        // parameters; the kernels that run here have been found free of faults there, and everything that is pointed to
        // outlives the launch.
        unsafe {
            result::function::set_function_attribute(self.function, attribute, dynamic_shared as i32)?;
            let ([x, y, z], [bx, by, bz]) = (grid, block);
            let (stream, none) = (ptr::null_mut(), ptr::null_mut());
            let parameters = addresses.as_mut_ptr();
            sys::cuLaunchKernel(self.function, x, y, z, bx, by, bz, dynamic_shared, stream, parameters, none)
                .result()?;
        }
        self.context.synchronize()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        for &(address, _) in &self.buffers {
            // SAFETY: nothing runs any more, and each is freed once. A context that a fault has ended refuses.
            let _ = unsafe { result::free_sync(address) };
        }
        // SAFETY: as above.
        let _ = unsafe { result::module::unload(self.module) };
    }
}
