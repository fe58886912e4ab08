//! The backward of gate, softmax, weighted sum, and max and mean.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use half::{bf16, f16};
use mivc::cuda::backward::Gradient;
use mivc::cuda::backward::gate::{self, GateBackward};
use mivc::cuda::backward::max_mean::{self, MaxMeanBackward};
use mivc::cuda::backward::softmax::{self, SoftmaxBackward};
use mivc::cuda::backward::weighted_sum::{self, WeightedSumBackward};
use mivc::cuda::raw::{
    self, GateBackwardAddresses, MaxMeanBackwardAddresses, Offsets, SoftmaxBackwardAddresses,
    WeightedSumBackwardAddresses,
};
use mivc::cuda::{Capacity, Kernels, context};
use mivc::launch::backward as launch;
use mivc::launch::{SCRATCH_ALIGN, Step};
use mivc::{Dtype, Element, Order, Result};

use crate::Run;
use crate::driver::{Driver, address, count};

pub const TRIALS: &[(&str, Run)] = &[
    ("backward::queues_the_steps_between_waits_and_records", queues_the_steps_between_waits_and_records),
    ("backward::arguments_may_be_left_out", arguments_may_be_left_out),
    ("backward::raw_queues_the_steps_alone", raw_queues_the_steps_alone),
    ("backward::every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("backward::another_context_is_refused", another_context_is_refused),
    ("backward::malformed_gate_queues_nothing", malformed_gate_queues_nothing),
    ("backward::malformed_softmax_queues_nothing", malformed_softmax_queues_nothing),
    ("backward::malformed_weighted_sum_queues_nothing", malformed_weighted_sum_queues_nothing),
    ("backward::malformed_max_mean_queues_nothing", malformed_max_mean_queues_nothing),
];

/// So many instances that a bag may have several chunks.
const CALL: Capacity = Capacity { instances: 300, bags: 2 };
const DIM: usize = 8;
const HEADS: usize = 2;

/// Every buffer that an operation can have.
struct Case<E = f32> {
    stream: Arc<CudaStream>,
    kernels: Kernels,
    /// One more than there are, so that views can begin at odd places.
    rows: CudaSlice<E>,
    other_rows: CudaSlice<E>,
    upstream_rows: CudaSlice<E>,
    offsets: CudaSlice<i64>,
    mask: CudaSlice<u8>,
    weights: CudaSlice<f32>,
    upstream_weights: CudaSlice<f32>,
    upstream_lse: CudaSlice<f32>,
    upstream_pooled: CudaSlice<f32>,
    upstream_mean: CudaSlice<f32>,
    d_weights: CudaSlice<f32>,
    d_rows: CudaSlice<E>,
    other_d_rows: CudaSlice<E>,
    scratch: CudaSlice<u8>,
}

impl<E: Element> Case<E> {
    fn new(context: &Arc<CudaContext>) -> Self {
        let kernels = Kernels::load(context).unwrap();
        let stream = context.new_stream().unwrap();
        let rows = || stream.clone_htod(&vec![E::default(); CALL.instances * DIM + 1]).unwrap();
        let floats = |len| stream.alloc_zeros::<f32>(len).unwrap();
        Case {
            rows: rows(),
            other_rows: rows(),
            upstream_rows: rows(),
            offsets: stream.clone_htod(&[0, 2, 300]).unwrap(),
            mask: stream.clone_htod(&[1; CALL.instances]).unwrap(),
            weights: floats(CALL.instances * HEADS),
            upstream_weights: floats(CALL.instances * HEADS),
            upstream_lse: floats(CALL.bags * HEADS),
            upstream_pooled: floats(CALL.bags * HEADS * DIM),
            upstream_mean: floats(CALL.bags * DIM),
            d_weights: floats(CALL.instances * HEADS),
            d_rows: rows(),
            other_d_rows: rows(),
            scratch: stream.alloc_zeros(1 << 16).unwrap(),
            kernels,
            stream,
        }
    }

    fn gate_plan(&self) -> GateBackward {
        GateBackward::plan(&self.kernels, E::DTYPE)
    }

    fn softmax_plan(&self) -> SoftmaxBackward {
        SoftmaxBackward::plan(&self.kernels, HEADS, CALL).unwrap()
    }

    fn sum_plan(&self) -> WeightedSumBackward {
        WeightedSumBackward::plan(&self.kernels, sum_shape(E::DTYPE), CALL).unwrap()
    }

    fn max_mean_plan(&self) -> MaxMeanBackward {
        MaxMeanBackward::plan(&self.kernels, max_mean_shape(E::DTYPE), CALL).unwrap()
    }

    // Each runs an operation with arguments that `change` has changed.

    fn gate<'a>(
        &'a mut self,
        change: impl FnOnce(&mut gate::Inputs<'a, E>, &mut gate::Gradients<'a, E>),
    ) -> Result<()> {
        let operation = self.gate_plan();
        let mut inputs =
            gate::Inputs { x: self.rows.as_view(), y: self.other_rows.as_view(), d_g: self.upstream_rows.as_view() };
        let mut gradients = gate::Gradients {
            x: Some(Gradient::Set(self.d_rows.as_view_mut())),
            y: Some(Gradient::Add(self.other_d_rows.as_view_mut())),
        };
        change(&mut inputs, &mut gradients);
        operation.run(&self.stream, inputs, gradients)
    }

    fn softmax<'a>(&'a mut self, change: impl FnOnce(&mut softmax::Inputs<'a>, &mut Gradient<'a, f32>)) -> Result<()> {
        let operation = self.softmax_plan();
        let mut inputs = softmax::Inputs {
            weights: self.weights.as_view(),
            d_weights: Some(self.upstream_weights.as_view()),
            d_lse: Some(self.upstream_lse.as_view()),
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut d_scores = Gradient::Set(self.d_weights.as_view_mut());
        change(&mut inputs, &mut d_scores);
        operation.run(&self.stream, inputs, d_scores, self.scratch.as_view_mut())
    }

    fn weighted_sum<'a>(
        &'a mut self,
        change: impl FnOnce(&mut weighted_sum::Inputs<'a, E, f32>, &mut weighted_sum::Gradients<'a, E>),
    ) -> Result<()> {
        let operation = self.sum_plan();
        let mut inputs = weighted_sum::Inputs {
            weights: self.weights.as_view(),
            values: self.rows.slice(..CALL.instances * DIM),
            row_stride: DIM,
            d_pooled: self.upstream_pooled.as_view(),
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut gradients = weighted_sum::Gradients {
            weights: Some(Gradient::Add(self.d_weights.as_view_mut())),
            values: Some(Gradient::Set(self.d_rows.slice_mut(..CALL.instances * DIM))),
        };
        change(&mut inputs, &mut gradients);
        operation.run(&self.stream, inputs, gradients, self.scratch.as_view_mut())
    }

    fn max_mean<'a>(
        &'a mut self,
        change: impl FnOnce(&mut max_mean::Inputs<'a, E, f32>, &mut Gradient<'a, E>),
    ) -> Result<()> {
        let operation = self.max_mean_plan();
        let mut inputs = max_mean::Inputs {
            features: self.rows.slice(..CALL.instances * DIM),
            row_stride: DIM,
            d_max: Some(self.upstream_pooled.slice(..CALL.bags * DIM)),
            d_mean: Some(self.upstream_mean.as_view()),
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut d_features = Gradient::Add(self.d_rows.slice_mut(..CALL.instances * DIM));
        change(&mut inputs, &mut d_features);
        operation.run(&self.stream, inputs, d_features, self.scratch.as_view_mut())
    }

    // Where those find their arguments, unchanged.

    fn gate_addresses(&self) -> GateBackwardAddresses {
        GateBackwardAddresses {
            x: address(&self.rows),
            y: address(&self.other_rows),
            d_g: address(&self.upstream_rows),
            d_x: Some(raw::Gradient::Set(address(&self.d_rows))),
            d_y: Some(raw::Gradient::Add(address(&self.other_d_rows))),
        }
    }

    fn softmax_addresses(&self) -> SoftmaxBackwardAddresses {
        SoftmaxBackwardAddresses {
            weights: address(&self.weights),
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            d_weights: address(&self.upstream_weights),
            d_lse: address(&self.upstream_lse),
            d_scores: raw::Gradient::Set(address(&self.d_weights)),
            scratch: address(&self.scratch),
        }
    }

    fn sum_addresses(&self) -> WeightedSumBackwardAddresses {
        WeightedSumBackwardAddresses {
            weights: address(&self.weights),
            values: address(&self.rows),
            row_stride: DIM,
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            d_pooled: address(&self.upstream_pooled),
            d_weights: Some(raw::Gradient::Add(address(&self.d_weights))),
            d_values: Some(raw::Gradient::Set(address(&self.d_rows))),
            scratch: address(&self.scratch),
        }
    }

    fn max_mean_addresses(&self) -> MaxMeanBackwardAddresses {
        MaxMeanBackwardAddresses {
            features: address(&self.rows),
            row_stride: DIM,
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            d_max: address(&self.upstream_pooled),
            d_mean: address(&self.upstream_mean),
            d_features: raw::Gradient::Add(address(&self.d_rows)),
            scratch: address(&self.scratch),
        }
    }
}

fn gate_steps(elements: usize, addresses: GateBackwardAddresses) -> Vec<Step> {
    launch::gate::GateBackward::plan(Dtype::F32).steps(elements, addresses).unwrap().unwrap().to_vec()
}

fn softmax_steps(addresses: SoftmaxBackwardAddresses) -> Vec<Step> {
    launch::softmax::SoftmaxBackward::plan(Order::Rounding, HEADS, CALL)
        .unwrap()
        .steps(CALL, addresses)
        .unwrap()
        .unwrap()
}

fn sum_steps(addresses: WeightedSumBackwardAddresses) -> Vec<Step> {
    let plan = launch::weighted_sum::WeightedSumBackward::plan(sum_shape(Dtype::F32), CALL).unwrap();
    plan.steps(CALL, addresses).unwrap().unwrap()
}

fn max_mean_steps(addresses: MaxMeanBackwardAddresses) -> Vec<Step> {
    let plan = launch::max_mean::MaxMeanBackward::plan(max_mean_shape(Dtype::F32), CALL).unwrap();
    plan.steps(CALL, addresses).unwrap().unwrap()
}

fn sum_shape(dtype: Dtype) -> weighted_sum::Shape {
    let (values, gradients) = (dtype, dtype);
    weighted_sum::Shape { dim: DIM, heads: HEADS, per_head: false, values, upstream: Dtype::F32, gradients }
}

fn max_mean_shape(dtype: Dtype) -> max_mean::Shape {
    max_mean::Shape { dim: DIM, features: dtype, upstream: Dtype::F32, gradients: dtype }
}

// ---- trials ----

fn queues_the_steps_between_waits_and_records(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let lines = |case: &Case, steps: Vec<Step>| driver.lines(&steps, &case.stream);

    let expected = lines(&case, gate_steps(case.rows.len(), case.gate_addresses()));
    assert_eq!(expected.len(), 1);
    driver.expect_guarded(3, 2, &expected, || case.gate(|_, _| ()));

    let expected = lines(&case, softmax_steps(case.softmax_addresses()));
    assert_eq!(expected.len(), 4, "a clearing and three launches");
    driver.expect_guarded(5, 2, &expected, || case.softmax(|_, _| ()));

    let expected = lines(&case, sum_steps(case.sum_addresses()));
    assert_eq!(expected.len(), 4, "a clearing and three launches");
    driver.expect_guarded(5, 3, &expected, || case.weighted_sum(|_, _| ()));

    let expected = lines(&case, max_mean_steps(case.max_mean_addresses()));
    assert_eq!(expected.len(), 4, "a clearing and three launches");
    driver.expect_guarded(5, 2, &expected, || case.max_mean(|_, _| ()));
}

fn arguments_may_be_left_out(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let lines = |case: &Case, steps: Vec<Step>| driver.lines(&steps, &case.stream);

    let addresses = GateBackwardAddresses { d_y: None, ..case.gate_addresses() };
    let expected = lines(&case, gate_steps(case.rows.len(), addresses));
    driver.expect_guarded(3, 1, &expected, || case.gate(|_, gradients| gradients.y = None));

    let addresses = SoftmaxBackwardAddresses { mask: 0, d_weights: 0, ..case.softmax_addresses() };
    let expected = lines(&case, softmax_steps(addresses));
    assert_eq!(expected.len(), 3);
    driver.expect_guarded(3, 2, &expected, || case.softmax(|inputs, _| (inputs.mask, inputs.d_weights) = (None, None)));

    let addresses = WeightedSumBackwardAddresses { mask: 0, d_weights: None, ..case.sum_addresses() };
    let expected = lines(&case, sum_steps(addresses));
    assert_eq!(expected.len(), 3);
    driver.expect_guarded(4, 2, &expected, || {
        case.weighted_sum(|inputs, gradients| (inputs.mask, gradients.weights) = (None, None))
    });
    // Without a gradient, nothing is done.
    case.weighted_sum(|_, gradients| (gradients.weights, gradients.values) = (None, None)).unwrap();
    case.gate(|_, gradients| (gradients.x, gradients.y) = (None, None)).unwrap();
    assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);

    let addresses = MaxMeanBackwardAddresses { mask: 0, d_max: 0, ..case.max_mean_addresses() };
    let expected = lines(&case, max_mean_steps(addresses));
    assert_eq!(expected.len(), 3);
    driver.expect_guarded(3, 2, &expected, || case.max_mean(|inputs, _| (inputs.mask, inputs.d_max) = (None, None)));
}

fn raw_queues_the_steps_alone(driver: &Driver) {
    let case = Case::<f32>::new(&context(0).unwrap());
    let (stream, elements) = (case.stream.cu_stream(), case.rows.len());
    let lines = |steps: &[Step]| driver.lines(steps, &case.stream);

    let (operation, addresses) = (case.gate_plan(), case.gate_addresses());
    let expected = lines(&gate_steps(elements, addresses));
    // SAFETY: here and below: the addresses are of buffers of these shapes, on the stream that they were allocated on.
    driver.expect_steps_alone(&expected, || unsafe { raw::gate_backward(&operation, stream, elements, addresses) });

    let (operation, addresses) = (case.softmax_plan(), case.softmax_addresses());
    let expected = lines(&softmax_steps(addresses));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::softmax_backward(&operation, stream, CALL, addresses) });

    let (operation, addresses) = (case.sum_plan(), case.sum_addresses());
    let expected = lines(&sum_steps(addresses));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::weighted_sum_backward(&operation, stream, CALL, addresses) });

    let (operation, addresses) = (case.max_mean_plan(), case.max_mean_addresses());
    let expected = lines(&max_mean_steps(addresses));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::max_mean_backward(&operation, stream, CALL, addresses) });
}

/// Of every type, number of heads and alignment.
fn every_kernel_is_in_the_images(_: &Driver) {
    run_all::<f32>();
    run_all::<f16>();
    run_all::<bf16>();
}

fn run_all<E: Element>() {
    let mut case = Case::<E>::new(&context(0).unwrap());
    case.softmax(|_, _| ()).unwrap();
    for elements in [CALL.instances * DIM, CALL.instances * DIM + 1] {
        let inputs = gate::Inputs {
            x: case.rows.slice(..elements),
            y: case.other_rows.slice(..elements),
            d_g: case.upstream_rows.slice(..elements),
        };
        let operation = GateBackward::plan(&case.kernels, E::DTYPE);
        let x = Some(Gradient::Set(case.d_rows.slice_mut(..elements)));
        operation.run(&case.stream, inputs, gate::Gradients { x, y: None }).unwrap();
    }
    for start in [0, 1] {
        let rows = start..start + CALL.instances * DIM;
        let inputs = max_mean::Inputs {
            features: case.rows.slice(rows.clone()),
            row_stride: DIM,
            d_max: Some(case.upstream_pooled.slice(..CALL.bags * DIM)),
            d_mean: None,
            offsets: case.offsets.as_view(),
            mask: None,
        };
        let operation = MaxMeanBackward::plan(&case.kernels, max_mean_shape(E::DTYPE), CALL).unwrap();
        let to = Gradient::Set(case.d_rows.slice_mut(rows.clone()));
        operation.run(&case.stream, inputs, to, case.scratch.as_view_mut()).unwrap();

        for heads in [1, HEADS] {
            let shape = weighted_sum::Shape { heads, ..sum_shape(E::DTYPE) };
            let operation = WeightedSumBackward::plan(&case.kernels, shape, CALL).unwrap();
            let inputs = weighted_sum::Inputs {
                weights: case.weights.slice(..CALL.instances * heads),
                values: case.rows.slice(rows.clone()),
                row_stride: DIM,
                d_pooled: case.upstream_pooled.slice(..CALL.bags * heads * DIM),
                offsets: case.offsets.as_view(),
                mask: None,
            };
            let gradients = weighted_sum::Gradients {
                weights: Some(Gradient::Set(case.d_weights.slice_mut(..CALL.instances * heads))),
                values: Some(Gradient::Set(case.d_rows.slice_mut(rows.clone()))),
            };
            operation.run(&case.stream, inputs, gradients, case.scratch.as_view_mut()).unwrap();
        }
    }
}

fn another_context_is_refused(driver: &Driver) {
    // On the same device, and equal for cudarc.
    let (ours, other) = (context(0).unwrap(), context(0).unwrap());
    let (mut case, mut theirs) = (Case::<f32>::new(&ours), Case::<f32>::new(&other));
    driver.take_log();
    let refused = |argument: &str, result| driver.expect_other_context(argument, result);
    let rows = ..CALL.instances * DIM;

    refused("x", case.gate(|inputs, _| inputs.x = theirs.rows.as_view()));
    refused("y", case.gate(|inputs, _| inputs.y = theirs.rows.as_view()));
    refused("d_g", case.gate(|inputs, _| inputs.d_g = theirs.rows.as_view()));
    refused("d_x", case.gate(|_, to| to.x = Some(Gradient::Set(theirs.d_rows.as_view_mut()))));
    refused("d_y", case.gate(|_, to| to.y = Some(Gradient::Add(theirs.d_rows.as_view_mut()))));

    refused("weights", case.softmax(|inputs, _| inputs.weights = theirs.weights.as_view()));
    refused("offsets", case.softmax(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.softmax(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("d_weights", case.softmax(|inputs, _| inputs.d_weights = Some(theirs.weights.as_view())));
    refused("d_lse", case.softmax(|inputs, _| inputs.d_lse = Some(theirs.upstream_lse.as_view())));
    refused("d_scores", case.softmax(|_, to| *to = Gradient::Add(theirs.d_weights.as_view_mut())));

    refused("weights", case.weighted_sum(|inputs, _| inputs.weights = theirs.weights.as_view()));
    refused("values", case.weighted_sum(|inputs, _| inputs.values = theirs.rows.slice(rows)));
    refused("offsets", case.weighted_sum(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.weighted_sum(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("d_pooled", case.weighted_sum(|inputs, _| inputs.d_pooled = theirs.upstream_pooled.as_view()));
    refused("d_weights", case.weighted_sum(|_, to| to.weights = Some(Gradient::Set(theirs.d_weights.as_view_mut()))));
    refused("d_values", case.weighted_sum(|_, to| to.values = Some(Gradient::Set(theirs.d_rows.slice_mut(rows)))));

    refused("features", case.max_mean(|inputs, _| inputs.features = theirs.rows.slice(rows)));
    refused("offsets", case.max_mean(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.max_mean(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("d_max", case.max_mean(|inputs, _| inputs.d_max = Some(theirs.upstream_mean.as_view())));
    refused("d_mean", case.max_mean(|inputs, _| inputs.d_mean = Some(theirs.upstream_mean.as_view())));
    refused("d_features", case.max_mean(|_, to| *to = Gradient::Set(theirs.d_rows.slice_mut(rows))));

    std::mem::swap(&mut case.scratch, &mut theirs.scratch);
    refused("scratch", case.softmax(|_, _| ()));
    refused("scratch", case.weighted_sum(|_, _| ()));
    refused("scratch", case.max_mean(|_, _| ()));
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    refused("stream", case.gate(|_, _| ()));
    refused("stream", case.softmax(|_, _| ()));
    refused("stream", case.weighted_sum(|_, _| ()));
    refused("stream", case.max_mean(|_, _| ()));
}

fn malformed_gate_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(3000).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(3000).unwrap();
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("y: expected the length of x = 2401", case.gate(|inputs, _| inputs.y = long.slice(..2400)));
    refused("d_g: expected the length of x = 2401", case.gate(|inputs, _| inputs.d_g = long.slice(..2402)));
    refused("d_x: expected", case.gate(|_, to| to.x = Some(Gradient::Set(wide.slice_mut(..2402)))));
    refused("d_y: expected", case.gate(|_, to| to.y = Some(Gradient::Add(wide.slice_mut(..2400)))));
    let inputs = gate::Inputs { x: case.rows.as_view(), y: case.rows.as_view(), d_g: case.rows.as_view() };
    let operation = GateBackward::plan(&case.kernels, Dtype::F16);
    let result = operation.run(&case.stream, inputs, gate::Gradients { x: None, y: None });
    refused("x: expected f16, as planned", result);
}

fn malformed_softmax_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(3000).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(3000).unwrap();
    assert!(SoftmaxBackward::plan(&case.kernels, 0, CALL).unwrap_err().to_string().starts_with("heads: "));
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("weights: expected [N, K], a multiple", case.softmax(|inputs, _| inputs.weights = long.slice(..9)));
    refused("mask: expected [N] = 4 ", case.softmax(|inputs, _| inputs.weights = long.slice(..8)));
    refused("offsets: expected at least one", case.softmax(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)));
    refused("d_weights: expected [N, K] = 600", case.softmax(|inputs, _| inputs.d_weights = Some(long.slice(..599))));
    refused("d_lse: expected [B, K] = 4", case.softmax(|inputs, _| inputs.d_lse = Some(long.slice(..5))));
    refused("d_scores: expected [N, K] = 600", case.softmax(|_, to| *to = Gradient::Set(wide.slice_mut(..601))));
    shorten_scratch(&mut case, |case| case.softmax_plan().scratch_bytes());
    driver.take_log();
    refused("scratch: expected at least", case.softmax(|_, _| ()));
}

fn malformed_weighted_sum_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(3000).unwrap();
    let short = case.stream.alloc_zeros::<u8>(4).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(3000).unwrap();
    let mut wider = case.stream.alloc_zeros::<f32>(3000).unwrap();
    for shape in [
        weighted_sum::Shape { upstream: Dtype::F16, ..sum_shape(Dtype::F32) },
        weighted_sum::Shape { gradients: Dtype::Bf16, ..sum_shape(Dtype::F32) },
    ] {
        assert!(WeightedSumBackward::plan(&case.kernels, shape, CALL).is_err());
    }
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("values: expected (N - 1) * 8 + 8", case.weighted_sum(|inputs, _| inputs.values = long.slice(..2399)));
    refused("row_stride: expected at least D = 8", case.weighted_sum(|inputs, _| inputs.row_stride = 7));
    refused("weights: expected [N, K] = 600", case.weighted_sum(|inputs, _| inputs.weights = long.slice(..599)));
    refused(
        "offsets: expected at least one",
        case.weighted_sum(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)),
    );
    refused("mask: expected [N] = 300", case.weighted_sum(|inputs, _| inputs.mask = Some(short.as_view())));
    refused("d_pooled: expected [B, K, D] = 32", case.weighted_sum(|inputs, _| inputs.d_pooled = long.slice(..31)));
    let to_weights = Gradient::Set(wide.slice_mut(..599));
    refused("d_weights: expected [N, K] = 600", case.weighted_sum(|_, to| to.weights = Some(to_weights)));
    let to_values = Gradient::Add(wider.slice_mut(..2401));
    refused("d_values: expected [N, D] = 2400", case.weighted_sum(|_, to| to.values = Some(to_values)));
    shorten_scratch(&mut case, |case| case.sum_plan().scratch_bytes());
    driver.take_log();
    refused("scratch: expected at least", case.weighted_sum(|_, _| ()));
}

fn malformed_max_mean_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(3000).unwrap();
    let short = case.stream.alloc_zeros::<u8>(4).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(3000).unwrap();
    let shape = max_mean::Shape { gradients: Dtype::F16, ..max_mean_shape(Dtype::F32) };
    let error = MaxMeanBackward::plan(&case.kernels, shape, CALL).unwrap_err();
    assert!(error.to_string().starts_with("gradients: "), "{error}");
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("features: expected (N - 1) * 8 + 8", case.max_mean(|inputs, _| inputs.features = long.slice(..2399)));
    refused("row_stride: expected at least D = 8", case.max_mean(|inputs, _| inputs.row_stride = 7));
    refused("offsets: expected at least one", case.max_mean(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)));
    refused("mask: expected [N] = 300", case.max_mean(|inputs, _| inputs.mask = Some(short.as_view())));
    refused("d_max: expected [B, D] = 16", case.max_mean(|inputs, _| inputs.d_max = Some(long.slice(..17))));
    refused("d_mean: expected [B, D] = 16", case.max_mean(|inputs, _| inputs.d_mean = Some(long.slice(..15))));
    refused("d_features: expected [N, D] = 2400", case.max_mean(|_, to| *to = Gradient::Set(wide.slice_mut(..2401))));
    shorten_scratch(&mut case, |case| case.max_mean_plan().scratch_bytes());
    driver.take_log();
    refused("scratch: expected at least", case.max_mean(|_, _| ()));

    // What the launches ask for is asked behind the views' waits.
    case.scratch = case.stream.alloc_zeros(1 << 16).unwrap();
    driver.take_log();
    let result = case.max_mean(|inputs, _| (inputs.d_max, inputs.d_mean) = (None, None));
    assert!(result.unwrap_err().to_string().starts_with("upstream: expected max or mean"));
    assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);
    let operation = case.max_mean_plan();
    let inputs = max_mean::Inputs {
        features: case.rows.slice(..CALL.instances * DIM),
        row_stride: DIM,
        d_max: Some(case.upstream_mean.as_view()),
        d_mean: None,
        offsets: case.offsets.as_view(),
        mask: None,
    };
    let to = Gradient::Set(case.d_rows.slice_mut(..CALL.instances * DIM));
    let result = operation.run(&case.stream, inputs, to, case.scratch.slice_mut(1..));
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with(&format!("scratch: expected an address that is a multiple of {SCRATCH_ALIGN}")));
    assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);
}

/// One byte less than an operation asks for.
fn shorten_scratch(case: &mut Case, bytes: impl Fn(&Case) -> usize) {
    let len = bytes(case) - 1;
    case.scratch = case.stream.alloc_zeros(len).unwrap();
}
