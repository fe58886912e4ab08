//! Does the steps of an operation on a stream.

use std::ffi::c_void;

use std::mem::MaybeUninit;

use cudarc::driver::result;
use cudarc::driver::sys::{
    self, CUstream, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};

use super::Kernels;
use crate::element::Dtype;
use crate::error::CudaError;
use crate::launch::{Launch, Step, Swizzle, TENSOR_MAP_BYTES, TensorMap};

/// Queues the steps behind what the stream has to do already. Allocates nothing, waits for nothing.
///
/// # Safety
/// `stream` belongs to the kernels' context. Whatever the steps read and write is there until the stream has done
/// them, and nothing else writes it, or reads what they write, meanwhile.
pub(super) unsafe fn execute(kernels: &Kernels, stream: CUstream, steps: &[Step]) -> Result<(), CudaError> {
    // Also gives the errors that cudarc kept while it could not return them.
    kernels.context().bind_to_thread()?;
    for step in steps {
        match step {
            // SAFETY: as the caller promises.
            Step::Clear { address, bytes } => unsafe { result::memset_d8_async(*address, 0, *bytes, stream) }?,
            // SAFETY: as the caller promises.
            Step::Copy { from, to, bytes } => unsafe { result::memcpy_dtod_async(*to, *from, *bytes, stream) }?,
            // SAFETY: as the caller promises.
            Step::Launch(launch) => unsafe { execute_launch(kernels, stream, launch) }?,
        }
    }
    Ok(())
}

/// # Safety
/// As of [`execute`].
unsafe fn execute_launch(kernels: &Kernels, stream: CUstream, launch: &Launch) -> Result<(), CudaError> {
    let function = kernels.function(launch);
    let mut encoded;
    let bytes = match &launch.tensor_maps {
        None => launch.parameters.bytes(),
        Some(maps) => {
            encoded = Parameters([0; MOST_PARAMETER_BYTES]);
            encoded.fill(launch.parameters.bytes(), maps)?
        }
    };
    let mut parameters = [bytes.as_ptr().cast_mut().cast::<c_void>()];
    let (grid, block) = (launch.grid.into(), launch.block.into());
    // SAFETY: the kernel takes one parameter, this struct, which the driver copies before it returns and does not
    // write to; `kernels` keeps the function loaded. The rest is as the caller promises.
    unsafe { result::launch_kernel(function, grid, block, launch.shared_bytes, stream, &mut parameters) }?;
    Ok(())
}

const MOST_PARAMETER_BYTES: usize = 1024;

/// Parameters with encoded maps in them, aligned as those.
#[repr(align(64))]
struct Parameters([u8; MOST_PARAMETER_BYTES]);

impl Parameters {
    /// The parameters, the maps in place of what they begin with.
    fn fill(&mut self, parameters: &[u8], maps: &[TensorMap]) -> Result<&[u8], CudaError> {
        let bytes = &mut self.0[..parameters.len()];
        bytes.copy_from_slice(parameters);
        for (place, map) in bytes.chunks_exact_mut(TENSOR_MAP_BYTES).zip(maps) {
            for (word, at) in encode(map)?.opaque.iter().zip(place.chunks_exact_mut(size_of::<u64>())) {
                at.copy_from_slice(&word.to_ne_bytes());
            }
        }
        Ok(bytes)
    }
}

fn encode(map: &TensorMap) -> Result<CUtensorMap, CudaError> {
    let elements = match map.elements {
        Dtype::F32 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        Dtype::F16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        Dtype::Bf16 => CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let swizzle = match map.swizzle {
        Swizzle::B64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let mut encoded = MaybeUninit::<CUtensorMap>::zeroed();
    // SAFETY: two dimensions, one stride between them, and as many sizes of a box and steps within it, all of which the
    // driver reads before it returns; it writes the map alone. The address is not followed.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            encoded.as_mut_ptr(),
            elements,
            2,
            map.address as *mut c_void,
            map.dims.as_ptr(),
            [map.row_bytes].as_ptr(),
            map.block.as_ptr(),
            [1, 1].as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()?;
    // SAFETY: it was zeroed, and any bits are a map.
    Ok(unsafe { encoded.assume_init() })
}
