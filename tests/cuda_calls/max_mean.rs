//! Max and mean.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use half::{bf16, f16};
use mivc::cuda::max_mean::{Inputs, MaxMean, Outputs, Shape};
use mivc::cuda::raw::{self, MaxMeanAddresses, Offsets};
use mivc::cuda::{Capacity, Kernels, context};
use mivc::error::CudaError;
use mivc::launch::{self, Step};
use mivc::{Dtype, Element, Error};

use crate::Run;
use crate::driver::{Driver, address, count};

pub const TRIALS: &[(&str, Run)] = &[
    ("max_mean::queues_the_steps_between_waits_and_records", queues_the_steps_between_waits_and_records),
    ("max_mean::rows_may_lie_apart_and_offsets_be_i32", rows_may_lie_apart_and_offsets_be_i32),
    ("max_mean::raw_queues_the_steps_alone", raw_queues_the_steps_alone),
    ("max_mean::views_without_events_are_not_tracked", views_without_events_are_not_tracked),
    ("max_mean::every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("max_mean::another_context_is_refused", another_context_is_refused),
    ("max_mean::malformed_arguments_queue_nothing", malformed_arguments_queue_nothing),
    ("max_mean::a_failed_wait_launches_nothing", a_failed_wait_launches_nothing),
    ("max_mean::a_failed_launch_still_guards", a_failed_launch_still_guards),
];

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
            exact: 0,
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
            exact: None,
            max: Some(self.max.as_view_mut()),
            mean: Some(self.mean.as_view_mut()),
            argmax: Some(self.argmax.as_view_mut()),
        };
        change(&mut inputs, &mut outputs);
        self.operation.run(&self.stream, inputs, outputs, self.scratch.as_view_mut())
    }
}

fn steps(addresses: MaxMeanAddresses) -> [Step; 3] {
    launch::max_mean::MaxMean::plan(SHAPE, CALL).unwrap().steps(CALL, addresses).unwrap().unwrap()
}

fn queues_the_steps_between_waits_and_records(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let expected = driver.lines(&steps(case.addresses()), &case.stream);
    driver.expect_guarded(3, 4, &expected, || case.run(|_, _| ()));
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
    let (operation, stream) = (&case.operation, case.stream.cu_stream());
    // SAFETY: the addresses are of buffers of these shapes, on the stream that they were allocated on.
    driver.expect_steps_alone(&expected, || unsafe { raw::max_mean(operation, stream, CALL, addresses) });
}

fn views_without_events_are_not_tracked(driver: &Driver) {
    let context = context(0).unwrap();
    // SAFETY: everything happens on one stream.
    unsafe { context.disable_event_tracking() };
    let mut case = Case::<f32>::new(&context);
    let expected = driver.lines(&steps(case.addresses()), &case.stream);
    driver.expect_steps_alone(&expected, || case.run(|_, _| ()));
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
                    exact: None,
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
    let refused = |argument: &str, result| driver.expect_other_context(argument, result);
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
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
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
