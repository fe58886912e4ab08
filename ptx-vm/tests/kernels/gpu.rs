//! The same kernels on a GPU, where there is one: the virtual machine must not be alone with its opinion.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};

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
    pub fn launch(
        &self,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: u32,
        parameters: &[u8],
    ) -> Result<(), DriverError> {
        let mut bytes = parameters.len();
        // As cuda.h spells it: a buffer, its size, the end of the list.
        let mut extra: [*mut c_void; 5] = [
            ptr::without_provenance_mut(1),
            parameters.as_ptr().cast_mut().cast(),
            ptr::without_provenance_mut(2),
            (&raw mut bytes).cast(),
            ptr::null_mut(),
        ];
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the parameters are as long as the virtual machine has found them to be, the kernels that run
        // here have been found free of faults there, and everything that is pointed to outlives the launch.
        unsafe {
            result::function::set_function_attribute(self.function, attribute, dynamic_shared as i32)?;
            let ([x, y, z], [bx, by, bz]) = (grid, block);
            let stream = ptr::null_mut();
            let (none, extra) = (ptr::null_mut(), extra.as_mut_ptr());
            sys::cuLaunchKernel(self.function, x, y, z, bx, by, bz, dynamic_shared, stream, none, extra).result()?;
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
