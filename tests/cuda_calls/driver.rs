//! The fake driver: what it was asked for, and what it is to answer.

use std::ffi::{CStr, CString, c_char};

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use libloading::Library;
use mivc::error::CudaError;
use mivc::launch::{Step, Swizzle, TENSOR_MAP_BYTES, TensorMap};
use mivc::{Dtype, Error, Result};

pub struct Driver(Library);

impl Driver {
    pub fn load() -> Self {
        // SAFETY: the fake has no initialisers.
        let library = unsafe { Library::new("libcuda.so.1") }.unwrap();
        Driver(library)
    }

    /// The calls since the last time, but for which context is the thread's, and how tensor maps are encoded.
    pub fn take_log(&self) -> Vec<String> {
        // SAFETY: this is its type; the text lives as long as the process.
        let text = unsafe {
            let take = self.0.get::<extern "C" fn() -> *const c_char>(b"fake_cuda_take_log").unwrap();
            CStr::from_ptr(take())
        };
        let others = ["cuCtxGetCurrent", "cuCtxSetCurrent", "cuTensorMapEncodeTiled"];
        let is_of_interest = |line: &&str| !others.contains(&line.split(' ').next().unwrap_or_default());
        text.to_str().unwrap().lines().filter(is_of_interest).map(String::from).collect()
    }

    /// Makes the next call of this name fail.
    pub fn fail(&self, call: &CStr, code: u32) {
        // SAFETY: this is its type, and `call` ends with 0.
        unsafe {
            let fail = self.0.get::<unsafe extern "C" fn(*const c_char, u32)>(b"fake_cuda_fail").unwrap();
            fail(call.as_ptr(), code);
        }
    }

    /// What the log will say of the steps.
    pub fn lines(&self, steps: &[Step], stream: &CudaStream) -> Vec<String> {
        let stream = stream.cu_stream() as u64;
        let line = |step: &Step| match step {
            Step::Clear { address, bytes } => format!("cuMemsetD8Async {address:#x} 0 {bytes} {stream:#x}"),
            Step::Copy { from, to, bytes } => format!("cuMemcpyDtoDAsync_v2 {to:#x} {from:#x} {bytes} {stream:#x}"),
            Step::Launch(launch) => {
                let mut bytes = launch.parameters.bytes().to_vec();
                for (place, map) in bytes.chunks_exact_mut(TENSOR_MAP_BYTES).zip(launch.tensor_maps.iter().flatten()) {
                    encode(map, place);
                }
                self.expect_parameter(launch.kernel, bytes.len());
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let (grid, block, shared, kernel) = (launch.grid, launch.block, launch.shared_bytes, launch.kernel);
                format!("cuLaunchKernel {grid:?} {block:?} {shared} {stream:#x} {kernel} [{hex}]")
            }
        };
        steps.iter().map(line).collect()
    }

    /// The call queues these steps, behind waits for each of its buffers and before a record for each, and asks
    /// nothing else of the driver. What is read waits for its last write; what is written for its last read, too.
    pub fn expect_guarded(&self, reads: usize, writes: usize, expected: &[String], call: impl FnOnce() -> Result<()>) {
        self.take_log();
        call().unwrap();
        let log = self.take_log();
        let (waits, rest) = log.split_at(reads + 2 * writes);
        let (queued, records) = rest.split_at(expected.len());
        assert_eq!(count(waits, "cuStreamWaitEvent"), waits.len(), "{log:#?}");
        assert_eq!(queued, expected);
        assert_eq!(count(records, "cuEventRecord"), reads + writes, "{log:#?}");
        assert_eq!(records.len(), reads + writes, "nothing else is asked of the driver: {log:#?}");
        let mut distinct = records.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), reads + writes, "each buffer has an event of its own: {log:#?}");
    }

    /// The call queues these steps and does nothing else.
    pub fn expect_steps_alone(&self, expected: &[String], call: impl FnOnce() -> Result<()>) {
        self.take_log();
        call().unwrap();
        assert_eq!(self.take_log(), expected);
    }

    /// The call was refused for the context of an argument, and launched nothing.
    pub fn expect_other_context(&self, argument: &str, result: Result<()>) {
        let Err(Error::Cuda(CudaError::Context { argument: named })) = result else { panic!("{argument}: {result:?}") };
        assert_eq!(named, argument);
        assert_eq!(count(&self.take_log(), "cuLaunchKernel"), 0);
    }

    /// The call was refused with a message that begins so, and asked nothing of the driver.
    pub fn expect_refused(&self, beginning: &str, result: Result<()>) {
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with(beginning), "expected {beginning}, got {message}");
        assert_eq!(self.take_log(), [""; 0], "{message}");
    }

    /// Makes the device another.
    pub fn set_capability(&self, major: i32, minor: i32) {
        // SAFETY: this is its type.
        unsafe {
            let set = self.0.get::<extern "C" fn(i32, i32)>(b"fake_cuda_capability").unwrap();
            set(major, minor);
        }
    }

    fn expect_parameter(&self, kernel: &str, bytes: usize) {
        let kernel = CString::new(kernel).unwrap();
        // SAFETY: this is its type, and `kernel` ends with 0.
        unsafe {
            let set = self.0.get::<unsafe extern "C" fn(*const c_char, usize)>(b"fake_cuda_parameter_bytes").unwrap();
            set(kernel.as_ptr(), bytes);
        }
    }
}

pub fn count(log: &[String], call: &str) -> usize {
    log.iter().filter(|line| line.split(' ').next() == Some(call)).count()
}

pub fn address<T>(slice: &CudaSlice<T>) -> u64 {
    slice.device_ptr(slice.stream()).0
}

/// As the fake driver does.
fn encode(map: &TensorMap, to: &mut [u8]) {
    let elements = match map.elements {
        Dtype::F16 => 6,
        Dtype::F32 => 7,
        Dtype::Bf16 => 9,
    };
    let swizzle = match map.swizzle {
        Swizzle::B64 => 2,
        Swizzle::B128 => 3,
    };
    let [dim, rows] = map.dims;
    let [block, block_rows] = map.block.map(u64::from);
    let words = [elements, map.address, dim, rows, map.row_bytes, block, block_rows, swizzle];
    for (word, at) in words.iter().zip(to.chunks_exact_mut(8)) {
        at.copy_from_slice(&word.to_le_bytes());
    }
}
