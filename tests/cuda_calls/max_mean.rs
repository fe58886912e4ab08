//! What `mivc::cuda` asks of the driver, against a libcuda that logs its calls (`fake-cuda/`).
//!
//! A process loads libcuda once, so this one starts itself again where the fake one lies first in the search path.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::{env, fs};

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr};
use half::{bf16, f16};
use libloading::Library;
use libtest_mimic::{Arguments, Failed, Trial};
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs, Shape};
use mivc::cuda::raw::{self, MaxMeanAddresses, Offsets};
use mivc::cuda::{Capacity, Kernels, context, device_count};
use mivc::error::CudaError;
use mivc::launch::{self, Step};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Error, Features, Pooler, Pooling};

const FAKE: &str = "MIVC_FAKE_CUDA";
type Run = fn(&Driver);

const TRIALS: &[(&str, Run)] = &[
    ("queues_the_steps_between_waits_and_records", queues_the_steps_between_waits_and_records),
    ("rows_may_lie_apart_and_offsets_be_i32", rows_may_lie_apart_and_offsets_be_i32),
    ("raw_queues_the_steps_alone", raw_queues_the_steps_alone),
    ("views_without_events_are_not_tracked", views_without_events_are_not_tracked),
    ("every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("another_context_is_refused", another_context_is_refused),
    ("malformed_arguments_queue_nothing", malformed_arguments_queue_nothing),
    ("a_failed_wait_launches_nothing", a_failed_wait_launches_nothing),
    ("a_failed_launch_still_guards", a_failed_launch_still_guards),
    ("an_image_that_does_not_fit", an_image_that_does_not_fit),
    ("devices_that_are_not_there", devices_that_are_not_there),
    ("the_front_door_frees_what_it_allocates", the_front_door_frees_what_it_allocates),
    ("attention_is_not_there_yet", attention_is_not_there_yet),
];

/// With the feature `cli`.
const TOOL: Option<&str> = option_env!("CARGO_BIN_EXE_mivc");

fn main() -> ExitCode {
    if env::var_os(FAKE).is_none() {
        return run_with_fake();
    }
    let mut arguments = Arguments::from_args();
    // There is one log.
    arguments.test_threads = Some(1);
    let mut trials: Vec<_> = TRIALS.iter().map(|&(name, run)| trial(name, run)).collect();
    let tool = trial("the_tool_pools_on_the_device", the_tool_pools_on_the_device);
    trials.push(tool.with_ignored_flag(TOOL.is_none()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, run: Run) -> Trial {
    Trial::test(name, move || {
        let driver = Driver::load();
        driver.take_log();
        run(&driver);
        Ok::<(), Failed>(())
    })
}

/// Cargo puts the cdylib of a dependency beside the tests.
fn run_with_fake() -> ExitCode {
    let program = env::current_exe().unwrap();
    let built = program.with_file_name("libfake_cuda.so");
    let folder = tempfile::tempdir().unwrap();
    let [library, linked] = ["libcuda.so.1", "libcuda.so"].map(|name| folder.path().join(name));
    fs::copy(&built, &library).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    // One file, so that both names are one library with one log.
    fs::hard_link(&library, &linked).unwrap();
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let path = [folder.path().as_os_str(), &path].join(OsStr::new(":"));
    let status =
        Command::new(program).args(env::args_os().skip(1)).env("LD_LIBRARY_PATH", path).env(FAKE, "1").status();
    if status.unwrap().success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// ---- the fake driver ----

struct Driver(Library);

impl Driver {
    fn load() -> Self {
        // SAFETY: the fake has no initialisers.
        let library = unsafe { Library::new("libcuda.so.1") }.unwrap();
        Driver(library)
    }

    /// The calls since the last time, but for which context is the thread's.
    fn take_log(&self) -> Vec<String> {
        // SAFETY: this is its type; the text lives as long as the process.
        let text = unsafe {
            let take = self.0.get::<extern "C" fn() -> *const c_char>(b"fake_cuda_take_log").unwrap();
            CStr::from_ptr(take())
        };
        let is_of_interest = |line: &&str| !["cuCtxGetCurrent", "cuCtxSetCurrent"].contains(line);
        text.to_str().unwrap().lines().filter(is_of_interest).map(String::from).collect()
    }

    /// Makes the next call of this name fail.
    fn fail(&self, call: &CStr, code: u32) {
        // SAFETY: this is its type, and `call` ends with 0.
        unsafe {
            let fail = self.0.get::<unsafe extern "C" fn(*const c_char, u32)>(b"fake_cuda_fail").unwrap();
            fail(call.as_ptr(), code);
        }
    }

    /// What the log will say of the steps.
    fn lines(&self, steps: &[Step], stream: &CudaStream) -> Vec<String> {
        let stream = stream.cu_stream() as u64;
        let line = |step: &Step| match step {
            Step::Clear { address, bytes } => format!("cuMemsetD8Async {address:#x} 0 {bytes} {stream:#x}"),
            Step::Launch(launch) => {
                let bytes = launch.parameters.bytes();
                self.expect_parameter(launch.kernel, bytes.len());
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let (grid, block, kernel) = (launch.grid, launch.block, launch.kernel);
                format!("cuLaunchKernel {grid:?} {block:?} 0 {stream:#x} {kernel} [{hex}]")
            }
        };
        steps.iter().map(line).collect()
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

fn count(log: &[String], call: &str) -> usize {
    log.iter().filter(|line| line.split(' ').next() == Some(call)).count()
}

// ---- a call ----

const CALL: Capacity = Capacity { instances: 5, bags: 2 };
const DIM: usize = 8;
const SHAPE: Shape = Shape { dim: DIM, features: Dtype::F32, outputs: Dtype::F32, argmax: true };

/// An operation and every buffer that it can have.
struct Case<E = f32> {
    stream: Arc<CudaStream>,
    operation: MaxMean,
    features: CudaSlice<E>,
    offsets: CudaSlice<i64>,
    mask: CudaSlice<u8>,
    max: CudaSlice<f32>,
    mean: CudaSlice<f32>,
    argmax: CudaSlice<i64>,
    scratch: CudaSlice<u8>,
}

impl<E: Element> Case<E> {
    fn new(context: &Arc<CudaContext>) -> Self {
        let kernels = Kernels::load(context).unwrap();
        let stream = context.new_stream().unwrap();
        let shape = Shape { features: E::DTYPE, ..SHAPE };
        let operation = MaxMean::plan(&kernels, shape, CALL).unwrap();
        Case {
            // One more than there are, so that views can begin at odd places.
            features: stream.clone_htod(&[E::default(); CALL.instances * DIM + 1]).unwrap(),
            offsets: stream.clone_htod(&[0, 2, 5]).unwrap(),
            mask: stream.clone_htod(&[1; CALL.instances]).unwrap(),
            max: stream.alloc_zeros(CALL.bags * DIM).unwrap(),
            mean: stream.alloc_zeros(CALL.bags * DIM).unwrap(),
            argmax: stream.alloc_zeros(CALL.bags * DIM).unwrap(),
            scratch: stream.alloc_zeros(operation.scratch_bytes()).unwrap(),
            stream,
            operation,
        }
    }

    fn addresses(&self) -> MaxMeanAddresses {
        MaxMeanAddresses {
            features: address(&self.features),
            row_stride: DIM,
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            max: address(&self.max),
            mean: address(&self.mean),
            argmax: address(&self.argmax),
            scratch: address(&self.scratch),
        }
    }

    /// Runs with arguments that `change` has changed.
    fn run<'a>(&'a mut self, change: impl FnOnce(&mut Inputs<'a, E>, &mut Outputs<'a, f32>)) -> mivc::Result<()> {
        let mut inputs = Inputs {
            features: self.features.slice(..CALL.instances * DIM),
            row_stride: DIM,
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut outputs = Outputs {
            max: Some(self.max.as_view_mut()),
            mean: Some(self.mean.as_view_mut()),
            argmax: Some(self.argmax.as_view_mut()),
        };
        change(&mut inputs, &mut outputs);
        self.operation.run(&self.stream, inputs, outputs, self.scratch.as_view_mut())
    }
}

fn address<T>(slice: &CudaSlice<T>) -> u64 {
    slice.device_ptr(slice.stream()).0
}

fn steps(addresses: MaxMeanAddresses) -> [Step; 3] {
    launch::max_mean::MaxMean::plan(SHAPE, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap()
}

// ---- trials ----

fn queues_the_steps_between_waits_and_records(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let expected = driver.lines(&steps(case.addresses()), &case.stream);
    driver.take_log();
    case.run(|_, _| ()).unwrap();

    // Three inputs wait for their last write; three outputs and the scratch memory for their last read, too.
    let log = driver.take_log();
    let (waits, rest) = log.split_at(3 + 2 * 4);
    let (queued, records) = rest.split_at(expected.len());
    assert_eq!(count(waits, "cuStreamWaitEvent"), waits.len(), "{log:#?}");
    assert_eq!(queued, expected);
    assert_eq!(count(records, "cuEventRecord"), 7, "{log:#?}");
    assert_eq!(records.len(), 7, "nothing else is asked of the driver: {log:#?}");
    let mut distinct = records.to_vec();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 7, "each buffer has an event of its own: {log:#?}");
}

fn rows_may_lie_apart_and_offsets_be_i32(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    // Two rows, the second of which ends with the features.
    let row_stride = CALL.instances * DIM + 1 - DIM;
    let offsets = case.stream.clone_htod(&[0_i32, 2]).unwrap();
    let operation = launch::max_mean::MaxMean::plan(Shape { argmax: false, ..SHAPE }, CALL).unwrap();
    let addresses = MaxMeanAddresses {
        offsets: Offsets::I32(address(&offsets)),
        row_stride,
        mask: 0,
        mean: 0,
        argmax: 0,
        ..case.addresses()
    };
    let steps = operation.steps(Capacity { instances: 2, bags: 1 }, addresses).unwrap().unwrap();
    let expected = driver.lines(&steps, &case.stream);
    let kernels = Kernels::load(case.stream.context()).unwrap();
    let operation = MaxMean::plan(&kernels, Shape { argmax: false, ..SHAPE }, CALL).unwrap();
    driver.take_log();

    let inputs = Inputs { features: case.features.as_view(), row_stride, offsets: offsets.as_view(), mask: None };
    let outputs = Outputs { max: Some(case.max.slice_mut(..DIM)), ..Default::default() };
    operation.run(&case.stream, inputs, outputs, case.scratch.as_view_mut()).unwrap();
    let log = driver.take_log();
    let queued: Vec<_> = log.iter().filter(|line| expected.contains(line)).collect();
    assert_eq!(queued, expected.iter().collect::<Vec<_>>(), "{log:#?}");
}

fn raw_queues_the_steps_alone(driver: &Driver) {
    let case = Case::<f32>::new(&context(0).unwrap());
    let addresses = case.addresses();
    let expected = driver.lines(&steps(addresses), &case.stream);
    driver.take_log();
    // SAFETY: the addresses are of buffers of these shapes, on the stream that they were allocated on.
    unsafe { raw::max_mean(&case.operation, case.stream.cu_stream(), CALL, addresses) }.unwrap();
    assert_eq!(driver.take_log(), expected);
}

fn views_without_events_are_not_tracked(driver: &Driver) {
    let context = context(0).unwrap();
    // SAFETY: everything happens on one stream.
    unsafe { context.disable_event_tracking() };
    let mut case = Case::<f32>::new(&context);
    let expected = driver.lines(&steps(case.addresses()), &case.stream);
    driver.take_log();
    case.run(|_, _| ()).unwrap();
    assert_eq!(driver.take_log(), expected);
}

fn every_kernel_is_in_the_images(_: &Driver) {
    fn run<E: Element>() {
        let mut case = Case::<E>::new(&context(0).unwrap());
        case.run(|_, _| ()).unwrap();
        let kernels = Kernels::load(case.stream.context()).unwrap();
        for argmax in [false, true] {
            let shape = Shape { features: E::DTYPE, argmax, ..SHAPE };
            let operation = MaxMean::plan(&kernels, shape, CALL).unwrap();
            for features in [case.features.slice(..CALL.instances * DIM), case.features.slice(1..)] {
                let inputs = Inputs { features, row_stride: DIM, offsets: case.offsets.as_view(), mask: None };
                let outputs = Outputs {
                    max: Some(case.max.as_view_mut()),
                    mean: None,
                    argmax: argmax.then(|| case.argmax.as_view_mut()),
                };
                operation.run(&case.stream, inputs, outputs, case.scratch.as_view_mut()).unwrap();
            }
        }
    }
    run::<f32>();
    run::<f16>();
    run::<bf16>();
}

fn another_context_is_refused(driver: &Driver) {
    // On the same device, and equal for cudarc.
    let (ours, other) = (context(0).unwrap(), context(0).unwrap());
    let (mut case, mut theirs) = (Case::<f32>::new(&ours), Case::<f32>::new(&other));
    driver.take_log();
    let refused = |argument: &str, result: mivc::Result<()>| {
        let Err(Error::Cuda(CudaError::Context { argument: named })) = result else { panic!("{argument}: {result:?}") };
        assert_eq!(named, argument);
        assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);
    };
    refused("features", case.run(|inputs, _| inputs.features = theirs.features.slice(..CALL.instances * DIM)));
    refused("offsets", case.run(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.run(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("max", case.run(|_, outputs| outputs.max = Some(theirs.max.as_view_mut())));
    refused("mean", case.run(|_, outputs| outputs.mean = Some(theirs.mean.as_view_mut())));
    refused("argmax", case.run(|_, outputs| outputs.argmax = Some(theirs.argmax.as_view_mut())));
    std::mem::swap(&mut case.scratch, &mut theirs.scratch);
    refused("scratch", case.run(|_, _| ()));
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    refused("stream", case.run(|_, _| ()));
}

fn malformed_arguments_queue_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    driver.take_log();
    let refused = |argument: &str, result: mivc::Result<()>| {
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with(argument), "{message}");
        assert_eq!(driver.take_log(), [""; 0], "{message}");
    };
    refused("features: expected (N - 1) * 8 + 8", case.run(|inputs, _| inputs.features = long.slice(..39)));
    refused("row_stride: expected at least D = 8", case.run(|inputs, _| inputs.row_stride = 7));
    refused("mask: expected [N] = 1 ", case.run(|inputs, _| inputs.features = long.slice(..8)));
    refused("instances: expected at most the 5", {
        let result = case.run(|inputs, _| (inputs.features, inputs.mask) = (long.slice(..48), None));
        driver.take_log();
        result
    });
    refused("offsets: expected at least one", case.run(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)));
    refused("max: expected [B, D] = 16", case.run(|_, outputs| outputs.max = Some(wide.slice_mut(..17))));
    refused("max: expected [B, D] = 8 ", case.run(|inputs, _| inputs.offsets = inputs.offsets.slice(..2)));
    case.scratch = case.stream.alloc_zeros(case.operation.scratch_bytes() - 1).unwrap();
    driver.take_log();
    refused("scratch: expected at least", case.run(|_, _| ()));
}

fn a_failed_wait_launches_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    driver.take_log();
    driver.fail(c"cuStreamWaitEvent", 700);
    let Err(Error::Cuda(CudaError::Driver { name, code })) = case.run(|_, _| ()) else { panic!("it failed") };
    assert_eq!((name.as_str(), code), ("CUDA_ERROR_ILLEGAL_ADDRESS", 700));
    assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);
}

fn a_failed_launch_still_guards(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    driver.take_log();
    driver.fail(c"cuLaunchKernel", 701);
    let Err(Error::Cuda(CudaError::Driver { name, code })) = case.run(|_, _| ()) else { panic!("it failed") };
    assert_eq!((name.as_str(), code), ("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", 701));
    let log = driver.take_log();
    assert_eq!(count(&log, "cuLaunchKernel"), 1, "none follows one that failed");
    assert_eq!(count(&log, "cuEventRecord"), 7);
}

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

fn the_front_door_frees_what_it_allocates(driver: &Driver) {
    let bags = Bags::from_lengths(&[2, 0, 1]).unwrap().with_mask(vec![1, 1, 0]).unwrap();
    for pooling in [Pooling::Mean, Pooling::Max, Pooling::MaxMean] {
        let pooler = Pooler::new(pooling, Device::Cuda(0)).unwrap();
        driver.take_log();
        pooler.pool(&Features::new(&[f16::ONE; 3 * 4], 4).unwrap(), &bags).unwrap();
        let log = driver.take_log();
        assert_eq!(count(&log, "cuLaunchKernel"), 2);
        assert_eq!(count(&log, "cuMemAllocAsync"), count(&log, "cuMemFreeAsync"));
        assert!(count(&log, "cuStreamSynchronize") > 0, "results are there when it returns");

        let none = Bags::from_lengths(&[]).unwrap();
        pooler.pool(&Features::new(&[0.0_f32; 0], 4).unwrap(), &none).unwrap();
        assert_eq!(driver.take_log(), [""; 0]);
        let empty = Bags::from_lengths(&[0]).unwrap();
        pooler.pool(&Features::new(&[0.0_f32; 0], 4).unwrap(), &empty).unwrap();
    }
}

fn attention_is_not_there_yet(_: &Driver) {
    let params = AttentionParams::load("examples/data/attention_gated.safetensors").unwrap();
    let error = Pooler::new(Pooling::Attention(params), Device::Cuda(0)).unwrap_err();
    assert!(error.to_string().starts_with("pooling: expected mean, max"), "{error}");
}

/// Nothing is computed; that it runs at all is what is asked here.
fn the_tool_pools_on_the_device(_: &Driver) {
    let arguments = ["pool", "examples/data/bags_gated.safetensors", "--pooling", "max-mean", "--device", "cuda"];
    let output = Command::new(TOOL.unwrap()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
