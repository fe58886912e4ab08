//! A libcuda that logs each call and does nearly nothing: one device, of compute capability 8.0 unless told otherwise, whose
//! memory is the host's, all zeros, and whose kernels do nothing.
//!
//! The tests load it in the place of the real one, and speak to it through [`fake_cuda_take_log`],
//! [`fake_cuda_fail`], [`fake_cuda_parameter_bytes`] and [`fake_cuda_capability`]. It has the calls that the tests make, and no others.

#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the contracts are the driver's")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex};

const SUCCESS: u32 = 0;
const INVALID_VALUE: u32 = 1;
const INVALID_DEVICE: u32 = 101;

/// Dynamic shared memory that a kernel has without being asked for more, in bytes.
const SHARED_BYTES: u32 = 48 << 10;

/// Alignment of the real driver's allocations.
const ALIGN: usize = 256;

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);

thread_local! {
    static CURRENT_CONTEXT: Cell<u64> = const { Cell::new(0) };
}

#[derive(Default)]
struct State {
    log: Vec<String>,
    /// The call that fails next, and its result.
    failing: Option<(String, u32)>,
    /// Of a kernel, which the real driver knows from its image.
    parameter_bytes: HashMap<String, usize>,
    /// Dynamic shared memory that a kernel was given more of.
    shared_bytes: HashMap<usize, u32>,
    /// Where it is not 8.0.
    capability: Option<(c_int, c_int)>,
    allocations: HashMap<u64, Layout>,
    /// Handles that were given out.
    handles: u64,
}

impl State {
    fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    fn allocate(&mut self, bytes: usize) -> u64 {
        let layout = Layout::from_size_align(bytes, ALIGN).expect("a size that can be had");
        assert!(bytes > 0, "the driver refuses allocations of 0 bytes");
        // SAFETY: the size is not 0.
        let address = unsafe { alloc_zeroed(layout) } as u64;
        self.allocations.insert(address, layout);
        address
    }

    fn free(&mut self, address: u64) {
        let layout = self.allocations.remove(&address).expect("an allocation that has not been freed");
        // SAFETY: it was allocated with this layout, and is freed once.
        unsafe { dealloc(address as *mut u8, layout) };
    }

    /// A kernel's handle is its name. The parameter is logged in hexadecimal.
    unsafe fn parameter(&self, function: *const c_char, parameters: *const *const u8) -> String {
        // SAFETY: the handle came from cuModuleGetFunction.
        let kernel = unsafe { CStr::from_ptr(function) }.to_str().expect("names are ASCII");
        let bytes = self.parameter_bytes.get(kernel).copied().unwrap_or(0);
        // SAFETY: every kernel has one parameter, of this size.
        let parameter = unsafe { std::slice::from_raw_parts(*parameters, bytes) };
        let hex: String = parameter.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kernel} [{hex}]")
    }
}

/// All lines since the last time: a call's name, and what follows `as` below.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_take_log() -> *const c_char {
    let lines = std::mem::take(&mut STATE.lock().unwrap().log).join("\n");
    CString::new(lines).expect("no line holds a 0").into_raw()
}

/// Makes the next call of this name fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_fail(call: *const c_char, result: u32) {
    // SAFETY: the caller gives a string that ends with 0.
    let call = unsafe { CStr::from_ptr(call) }.to_str().expect("names are ASCII");
    STATE.lock().unwrap().failing = Some((call.into(), result));
}

/// Says how large a kernel's parameter is, for the log.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fake_cuda_parameter_bytes(kernel: *const c_char, bytes: usize) {
    // SAFETY: the caller gives a string that ends with 0.
    let kernel = unsafe { CStr::from_ptr(kernel) }.to_str().expect("names are ASCII");
    STATE.lock().unwrap().parameter_bytes.insert(kernel.into(), bytes);
}

/// Makes the device one of this compute capability.
#[unsafe(no_mangle)]
pub extern "C" fn fake_cuda_capability(major: c_int, minor: c_int) {
    STATE.lock().unwrap().capability = Some((major, minor));
}

/// Calls of the driver: logged, failed where that was asked for, else done. Handles and addresses are u64.
macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty),*) as $format:literal, |$state:ident| $body:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_uint {
            let mut state = STATE.lock().unwrap();
            let line = format!("{} {}", stringify!($name), format_args!($format));
            state.log.push(line.trim_end().to_owned());
            if let Some((_, result)) = state.failing.take_if(|(call, _)| call == stringify!($name)) {
                return result;
            }
            let $state = &mut *state;
            #[allow(unused_unsafe, reason = "some do nothing")]
            // SAFETY: the arguments are as the driver's documentation asks for.
            unsafe {
                $body
            }
            SUCCESS
        }
    )*};
}

calls! {
    cuInit(_flags: c_uint) as "", |_state| {};
    cuDriverGetVersion(version: *mut c_int) as "", |_state| *version = 12_040;
    cuDeviceGetCount(count: *mut c_int) as "", |_state| *count = 1;
    cuDeviceGet(device: *mut c_int, ordinal: c_int) as "{ordinal}", |_state| {
        if ordinal != 0 {
            return INVALID_DEVICE;
        }
        *device = ordinal;
    };
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, _device: c_int) as "{attribute}", |state| {
        const MULTIPROCESSOR_COUNT: c_uint = 16;
        const COMPUTE_CAPABILITY_MAJOR: c_uint = 75;
        const COMPUTE_CAPABILITY_MINOR: c_uint = 76;
        const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: c_uint = 97;
        const MEMORY_POOLS_SUPPORTED: c_uint = 115;
        let (major, minor) = state.capability.unwrap_or((8, 0));
        *value = match attribute {
            // As on an A100.
            MULTIPROCESSOR_COUNT => 108,
            MAX_SHARED_MEMORY_PER_BLOCK_OPTIN => 163 << 10,
            COMPUTE_CAPABILITY_MAJOR => major,
            COMPUTE_CAPABILITY_MINOR => minor,
            MEMORY_POOLS_SUPPORTED => 1,
            _ => 0,
        };
    };

    cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int) as "", |_state| *context = 0xc0 + device as u64;
    cuDevicePrimaryCtxRelease_v2(_device: c_int) as "", |_state| {};
    cuCtxGetCurrent(context: *mut u64) as "", |_state| *context = CURRENT_CONTEXT.get();
    cuCtxSetCurrent(context: u64) as "", |_state| CURRENT_CONTEXT.set(context);
    cuCtxSynchronize() as "", |_state| {};

    cuStreamCreate(stream: *mut u64, _flags: c_uint) as "", |state| *stream = state.handle();
    cuStreamDestroy_v2(_stream: u64) as "", |_state| {};
    cuStreamSynchronize(stream: u64) as "{stream:#x}", |_state| {};
    cuStreamWaitEvent(stream: u64, event: u64, _flags: c_uint) as "{stream:#x} {event:#x}", |_state| {};
    cuEventCreate(event: *mut u64, _flags: c_uint) as "", |state| *event = state.handle();
    cuEventRecord(event: u64, stream: u64) as "{event:#x} {stream:#x}", |_state| {};
    cuEventDestroy_v2(_event: u64) as "", |_state| {};

    cuMemAlloc_v2(address: *mut u64, bytes: usize) as "{bytes}", |state| *address = state.allocate(bytes);
    cuMemAllocAsync(address: *mut u64, bytes: usize, _stream: u64) as "{bytes}", |state| {
        *address = state.allocate(bytes)
    };
    cuMemFree_v2(address: u64) as "", |state| state.free(address);
    cuMemFreeAsync(address: u64, _stream: u64) as "", |state| state.free(address);
    cuMemcpyHtoDAsync_v2(to: *mut u8, from: *const u8, bytes: usize, _stream: u64) as "{bytes}", |_state| {
        to.copy_from(from, bytes)
    };
    cuMemcpyDtoHAsync_v2(to: *mut u8, from: *const u8, bytes: usize, _stream: u64) as "{bytes}", |_state| {
        to.copy_from(from, bytes)
    };
    cuMemcpyDtoDAsync_v2(to: *mut u8, from: *const u8, bytes: usize, stream: u64) as "{to:?} {from:?} {bytes} {stream:#x}",
        |_state| to.copy_from(from, bytes);
    cuMemsetD8Async(to: *mut u8, value: u8, bytes: usize, stream: u64) as "{to:?} {value} {bytes} {stream:#x}",
        |_state| to.write_bytes(value, bytes);

    // Not as a driver encodes it: what it was given.
    cuTensorMapEncodeTiled(
        map: *mut u64, elements: c_uint, rank: c_uint, address: u64, dims: *const u64, strides: *const u64,
        block: *const c_uint, _steps: *const c_uint, _interleave: c_uint, swizzle: c_uint, _promotion: c_uint,
        _fill: c_uint
    ) as "{rank}", |_state| {
        let words = [
            u64::from(elements), address, *dims, *dims.add(1), *strides, u64::from(*block), u64::from(*block.add(1)),
            u64::from(swizzle),
        ];
        map.copy_from(words.as_ptr(), words.len())
    };

    cuModuleLoadData(module: *mut u64, _image: *const c_void) as "", |state| *module = state.handle();
    cuModuleUnload(_module: u64) as "", |_state| {};
    cuModuleGetFunction(function: *mut *const c_char, _module: u64, name: *const c_char) as "", |_state| {
        *function = CStr::from_ptr(name).to_owned().into_raw()
    };
    cuFuncSetAttribute(function: *const c_char, attribute: c_uint, value: c_int) as "{attribute} {value}", |state| {
        const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_uint = 8;
        if attribute == MAX_DYNAMIC_SHARED_SIZE_BYTES {
            state.shared_bytes.insert(function as usize, value as u32);
        }
    };
    cuLaunchKernel(
        function: *const c_char, x: c_uint, y: c_uint, z: c_uint, i: c_uint, j: c_uint, k: c_uint,
        shared_bytes: c_uint, stream: u64, parameters: *const *const u8, _extra: *const c_void
    ) as "[{x}, {y}, {z}] [{i}, {j}, {k}] {shared_bytes} {stream:#x}", |state| {
        let parameter = state.parameter(function, parameters);
        state.log.last_mut().expect("the launch").push_str(&format!(" {parameter}"));
        if shared_bytes > state.shared_bytes.get(&(function as usize)).copied().unwrap_or(SHARED_BYTES) {
            return INVALID_VALUE;
        }
    };
}
