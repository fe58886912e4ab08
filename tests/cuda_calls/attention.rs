//! What attention is made of.

use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, CudaViewMut, DriverError};
use half::{bf16, f16};
use mivc::cuda::attention_pool::{self, AttentionPool, Values};
use mivc::cuda::gate::{self, Gate};
use mivc::cuda::raw::{
    self, AttentionPoolAddresses, GateAddresses, Offsets, PackAddresses, ScoresAddresses, SoftmaxAddresses,
    WeightedSumAddresses,
};
use mivc::cuda::scores::{self, Scores};
use mivc::cuda::softmax::{self, Softmax};
use mivc::cuda::weighted_sum::{self, WeightedSum};
use mivc::cuda::{Capacity, Kernels, PackedAttention, context};
use mivc::error::CudaError;
use mivc::launch::pack::F32Product;
use mivc::launch::{self, Step};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Dtype, Element, Error, Result};

use crate::Run;
use crate::driver::{Driver, address, count};

pub const TRIALS: &[(&str, Run)] = &[
    ("attention::packing_waits_for_nothing", packing_waits_for_nothing),
    ("attention::packing_on_another_context_is_refused", packing_on_another_context_is_refused),
    ("attention::packed_parameters_survive", packed_parameters_survive),
    ("attention::packed_parameters_wait_beside_an_error", packed_parameters_wait_beside_an_error),
    ("attention::packed_parameters_that_cannot_wait_stay", packed_parameters_that_cannot_wait_stay),
    ("attention::an_error_from_before_launches_nothing", an_error_from_before_launches_nothing),
    ("attention::queues_the_steps_between_waits_and_records", queues_the_steps_between_waits_and_records),
    ("attention::outputs_may_be_left_out", outputs_may_be_left_out),
    ("attention::raw_queues_the_steps_alone", raw_queues_the_steps_alone),
    ("attention::every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("attention::another_context_is_refused", another_context_is_refused),
    ("attention::malformed_scores_queue_nothing", malformed_scores_queue_nothing),
    ("attention::malformed_gate_queues_nothing", malformed_gate_queues_nothing),
    ("attention::malformed_softmax_queues_nothing", malformed_softmax_queues_nothing),
    ("attention::malformed_weighted_sum_queues_nothing", malformed_weighted_sum_queues_nothing),
    ("attention::malformed_attention_pool_queues_nothing", malformed_attention_pool_queues_nothing),
];

const CALL: Capacity = Capacity { instances: 5, bags: 2 };
const DIM: usize = 8;
const HEADS: usize = 2;
const VALUE_DIM: usize = 4;

fn params(hidden: usize, gated: bool) -> AttentionParams {
    let shape = AttentionShape { dim: DIM, hidden, heads: HEADS, groups: 1 };
    let (matrix, w) = (vec![0.1; hidden * DIM], vec![0.1; HEADS * hidden]);
    let u = gated.then_some(&matrix[..]);
    AttentionParams::new(shape, AttentionTensors { v: &matrix, u, w: &w, ..Default::default() }).unwrap()
}

/// Packed parameters and every buffer that an operation can have.
struct Case<E = f32> {
    stream: Arc<CudaStream>,
    kernels: Kernels,
    packed: PackedAttention,
    /// One more than there are, so that views can begin at odd places.
    keys: CudaSlice<E>,
    values: CudaSlice<E>,
    gated: CudaSlice<E>,
    offsets: CudaSlice<i64>,
    mask: CudaSlice<u8>,
    scores: CudaSlice<f32>,
    weights: CudaSlice<f32>,
    lse: CudaSlice<f32>,
    max: CudaSlice<f32>,
    sum: CudaSlice<f32>,
    pooled: CudaSlice<f32>,
    scratch: CudaSlice<u8>,
}

impl<E: Element> Case<E> {
    fn new(context: &Arc<CudaContext>) -> Self {
        Self::with_params(context, &params(4, true))
    }

    fn with_params(context: &Arc<CudaContext>, params: &AttentionParams) -> Self {
        let kernels = Kernels::load(context).unwrap();
        let stream = context.new_stream().unwrap();
        Case {
            packed: kernels.pack(&stream, params, E::DTYPE).unwrap(),
            keys: stream.clone_htod(&[E::default(); CALL.instances * DIM + 1]).unwrap(),
            values: stream.clone_htod(&[E::default(); CALL.instances * HEADS * VALUE_DIM + 1]).unwrap(),
            gated: stream.clone_htod(&[E::default(); CALL.instances * DIM + 1]).unwrap(),
            offsets: stream.clone_htod(&[0, 2, 5]).unwrap(),
            mask: stream.clone_htod(&[1; CALL.instances]).unwrap(),
            scores: stream.alloc_zeros(CALL.instances * HEADS).unwrap(),
            weights: stream.alloc_zeros(CALL.instances * HEADS).unwrap(),
            lse: stream.alloc_zeros(CALL.bags * HEADS).unwrap(),
            max: stream.alloc_zeros(CALL.bags * HEADS).unwrap(),
            sum: stream.alloc_zeros(CALL.bags * HEADS).unwrap(),
            pooled: stream.alloc_zeros(CALL.bags * HEADS * VALUE_DIM).unwrap(),
            scratch: stream.alloc_zeros(1 << 16).unwrap(),
            kernels,
            stream,
        }
    }

    fn pool_plan(&self) -> AttentionPool {
        let shape = attention_pool::Shape { value_dim: VALUE_DIM, outputs: Dtype::F32 };
        AttentionPool::plan(&self.packed, shape, CALL).unwrap()
    }

    fn softmax_plan(&self) -> Softmax {
        Softmax::plan(&self.kernels, HEADS, CALL).unwrap()
    }

    fn sum_plan(&self) -> WeightedSum {
        WeightedSum::plan(&self.kernels, sum_shape(E::DTYPE, true), CALL).unwrap()
    }

    // Each runs an operation with arguments that `change` has changed.

    fn scores<'a>(
        &'a mut self,
        change: impl FnOnce(&mut scores::Inputs<'a, E>, &mut CudaViewMut<'a, f32>),
    ) -> Result<()> {
        let mut inputs = scores::Inputs {
            features: self.keys.slice(..CALL.instances * DIM),
            row_stride: DIM,
            mask: Some(self.mask.as_view()),
        };
        let mut scores = self.scores.as_view_mut();
        change(&mut inputs, &mut scores);
        Scores::plan(&self.packed).run(&self.stream, inputs, scores)
    }

    fn gate<'a>(&'a mut self, change: impl FnOnce(&mut gate::Inputs<'a, E>, &mut CudaViewMut<'a, E>)) -> Result<()> {
        let mut inputs = gate::Inputs { x: self.keys.as_view(), y: self.values.as_view() };
        let mut g = self.gated.as_view_mut();
        change(&mut inputs, &mut g);
        Gate::plan(&self.kernels, E::DTYPE).run(&self.stream, inputs, g)
    }

    fn softmax<'a>(
        &'a mut self,
        change: impl FnOnce(&mut softmax::Inputs<'a>, &mut softmax::Outputs<'a>),
    ) -> Result<()> {
        let operation = self.softmax_plan();
        let mut inputs = softmax::Inputs {
            scores: self.scores.as_view(),
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut outputs =
            softmax::Outputs { weights: Some(self.weights.as_view_mut()), lse: Some(self.lse.as_view_mut()) };
        change(&mut inputs, &mut outputs);
        operation.run(&self.stream, inputs, outputs, self.scratch.as_view_mut())
    }

    fn weighted_sum<'a>(
        &'a mut self,
        change: impl FnOnce(&mut weighted_sum::Inputs<'a, E>, &mut CudaViewMut<'a, f32>),
    ) -> Result<()> {
        let operation = self.sum_plan();
        let mut inputs = weighted_sum::Inputs {
            weights: self.weights.as_view(),
            values: self.values.slice(..CALL.instances * HEADS * VALUE_DIM),
            row_stride: HEADS * VALUE_DIM,
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut pooled = self.pooled.as_view_mut();
        change(&mut inputs, &mut pooled);
        operation.run(&self.stream, inputs, pooled, self.scratch.as_view_mut())
    }

    fn attention_pool<'a>(
        &'a mut self,
        change: impl FnOnce(&mut attention_pool::Inputs<'a, E>, &mut attention_pool::Outputs<'a, f32>),
    ) -> Result<()> {
        let operation = self.pool_plan();
        let mut inputs = attention_pool::Inputs {
            keys: self.keys.slice(..CALL.instances * DIM),
            key_stride: DIM,
            values: Some(Values { rows: self.values.slice(..CALL.instances * VALUE_DIM), row_stride: VALUE_DIM }),
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
        };
        let mut outputs = attention_pool::Outputs {
            exact: None,
            pooled: self.pooled.as_view_mut(),
            scores: Some(self.scores.as_view_mut()),
            weights: Some(self.weights.as_view_mut()),
            lse: Some(self.lse.as_view_mut()),
            max: Some(self.max.as_view_mut()),
            sum: Some(self.sum.as_view_mut()),
        };
        change(&mut inputs, &mut outputs);
        operation.run(&self.stream, inputs, outputs, self.scratch.as_view_mut())
    }

    // Where those find their arguments, unchanged.

    fn scores_addresses(&self) -> ScoresAddresses {
        ScoresAddresses {
            packed: self.packed.address(),
            features: address(&self.keys),
            row_stride: DIM,
            mask: address(&self.mask),
            scores: address(&self.scores),
            activations: 0,
        }
    }

    fn gate_addresses(&self) -> GateAddresses {
        GateAddresses { x: address(&self.keys), y: address(&self.values), g: address(&self.gated) }
    }

    fn softmax_addresses(&self) -> SoftmaxAddresses {
        SoftmaxAddresses {
            scores: address(&self.scores),
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            weights: address(&self.weights),
            lse: address(&self.lse),
            scratch: address(&self.scratch),
        }
    }

    fn sum_addresses(&self) -> WeightedSumAddresses {
        WeightedSumAddresses {
            weights: address(&self.weights),
            values: address(&self.values),
            row_stride: HEADS * VALUE_DIM,
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            pooled: address(&self.pooled),
            scratch: address(&self.scratch),
        }
    }

    fn pool_addresses(&self) -> AttentionPoolAddresses {
        AttentionPoolAddresses {
            exact: 0,
            packed: self.packed.address(),
            keys: address(&self.keys),
            key_stride: DIM,
            values: address(&self.values),
            value_stride: VALUE_DIM,
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            pooled: address(&self.pooled),
            scores: address(&self.scores),
            weights: address(&self.weights),
            lse: address(&self.lse),
            activations: 0,
            max: address(&self.max),
            sum: address(&self.sum),
            scratch: address(&self.scratch),
        }
    }

    fn scores_steps(&self) -> Vec<Step> {
        let plan = launch::scores::Scores::plan(self.packed.plan());
        plan.steps(CALL.instances, self.scores_addresses()).unwrap().unwrap().to_vec()
    }

    fn gate_steps(&self) -> Vec<Step> {
        let plan = launch::gate::Gate::plan(E::DTYPE);
        plan.steps(self.keys.len(), self.gate_addresses()).unwrap().unwrap().to_vec()
    }

    fn softmax_steps(&self) -> Vec<Step> {
        let plan = launch::softmax::Softmax::plan(HEADS, CALL).unwrap();
        plan.steps(CALL, self.softmax_addresses()).unwrap().unwrap()
    }

    fn sum_steps(&self) -> Vec<Step> {
        let plan = launch::weighted_sum::WeightedSum::plan(sum_shape(E::DTYPE, true), CALL).unwrap();
        plan.steps(CALL, self.sum_addresses()).unwrap().unwrap().to_vec()
    }

    fn pool_steps(&self, addresses: AttentionPoolAddresses) -> Vec<Step> {
        pool_steps(&self.packed, VALUE_DIM, addresses)
    }
}

fn pool_steps(packed: &PackedAttention, value_dim: usize, addresses: AttentionPoolAddresses) -> Vec<Step> {
    let (pack, outputs) = (packed.plan(), Dtype::F32);
    let path = launch::attention_pool::Path::of(&pack, launch::Hardware::A100);
    let shape = launch::attention_pool::Shape { pack, value_dim, outputs, path };
    let plan = launch::attention_pool::AttentionPool::plan(shape, CALL).unwrap();
    plan.steps(CALL, addresses).unwrap()
}

fn sum_shape(values: Dtype, per_head: bool) -> weighted_sum::Shape {
    weighted_sum::Shape { dim: VALUE_DIM, heads: HEADS, per_head, values, outputs: Dtype::F32 }
}

// ---- trials ----

fn packing_waits_for_nothing(driver: &Driver) {
    let context = context(0).unwrap();
    let kernels = Kernels::load(&context).unwrap();
    let stream = context.new_stream().unwrap();
    driver.take_log();
    let packed = kernels.pack(&stream, &params(4, true), Dtype::Bf16).unwrap();
    let log = driver.take_log();
    let launches: Vec<_> = log.iter().filter(|line| line.starts_with("cuLaunchKernel")).collect();
    assert!(matches!(launches[..], [launch] if launch.contains("mivc_pack_bf16")), "{log:#?}");
    // V, U and w; of these the packed parameters alone stay.
    assert_eq!(count(&log, "cuMemcpyHtoDAsync_v2"), 3);
    assert_eq!((count(&log, "cuMemAllocAsync"), count(&log, "cuMemFreeAsync")), (4, 3));
    assert_eq!(count(&log, "cuStreamSynchronize") + count(&log, "cuCtxSynchronize"), 0, "{log:#?}");

    assert_eq!((packed.shape(), packed.is_gated(), packed.dtype()), (params(4, true).shape(), true, Dtype::Bf16));
    assert_eq!(packed.plan().shape().f32_product, F32Product::Split);
    assert!(!format!("{packed:?}").is_empty());
}

fn packing_on_another_context_is_refused(driver: &Driver) {
    let kernels = Kernels::load(&context(0).unwrap()).unwrap();
    let stream = context(0).unwrap().new_stream().unwrap();
    driver.take_log();
    driver.expect_other_context("stream", kernels.pack(&stream, &params(4, false), Dtype::F32).map(drop));
}

fn packed_parameters_survive(driver: &Driver) {
    let Case { stream, packed, keys, mut scores, .. } = Case::<f32>::new(&context(0).unwrap());
    let (operation, other) = (Scores::plan(&packed), packed.clone());
    driver.take_log();
    drop(packed);
    drop(other);
    assert_eq!(driver.take_log(), [""; 0]);
    let features = keys.slice(..CALL.instances * DIM);
    let inputs = scores::Inputs { features, row_stride: DIM, mask: None };
    operation.run(&stream, inputs, scores.as_view_mut()).unwrap();
    driver.take_log();
    drop(operation);
    // Streams that nobody remembers may be reading them.
    let log = driver.take_log();
    let at = |call: &str| log.iter().position(|line| line == call).unwrap_or_else(|| panic!("{log:#?}"));
    assert!(at("cuCtxSynchronize") < at("cuMemFreeAsync"));
}

/// An error that waits to be given neither keeps the end of packed parameters from waiting, nor gets lost by it.
fn packed_parameters_wait_beside_an_error(driver: &Driver) {
    let Case { stream, packed, .. } = Case::<f32>::new(&context(0).unwrap());
    stream.context().record_err(Err::<(), _>(DriverError(CUresult::CUDA_ERROR_NOT_READY)));
    driver.take_log();
    let handle = packed.clone();
    drop((packed, handle));
    let log = driver.take_log();
    let at = |call: &str| log.iter().position(|line| line == call).unwrap_or_else(|| panic!("{log:#?}"));
    assert!(at("cuCtxSynchronize") < at("cuMemFreeAsync"));
    assert_eq!(stream.context().check_err(), Err(DriverError(CUresult::CUDA_ERROR_NOT_READY)));
}

/// What cannot be waited for may still be read.
fn packed_parameters_that_cannot_wait_stay(driver: &Driver) {
    let Case { stream, packed, .. } = Case::<f32>::new(&context(0).unwrap());
    driver.take_log();
    driver.fail(c"cuCtxSynchronize", 900);
    drop(packed);
    assert_eq!(count(&driver.take_log(), "cuMemFreeAsync"), 0);
    let error = stream.context().check_err().unwrap_err();
    assert_eq!(error.0, CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
}

/// cudarc waits for nothing while it keeps an error.
fn an_error_from_before_launches_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    case.stream.context().record_err(Err::<(), _>(DriverError(CUresult::CUDA_ERROR_NOT_READY)));
    driver.take_log();
    let inputs = scores::Inputs { features: case.keys.slice(..CALL.instances * DIM), row_stride: DIM, mask: None };
    let result = Scores::plan(&case.packed).run(&case.stream, inputs, case.scores.as_view_mut());
    assert!(matches!(result, Err(Error::Cuda(CudaError::Driver { code: 600, .. }))), "{result:?}");
    assert_eq!(driver.take_log(), [""; 0]);
}

fn queues_the_steps_between_waits_and_records(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let lines = |case: &Case, steps: Vec<Step>| driver.lines(&steps, &case.stream);

    let expected = lines(&case, case.scores_steps());
    assert_eq!(expected.len(), 1);
    driver.expect_guarded(3, 1, &expected, || case.scores(|_, _| ()));

    let expected = lines(&case, case.gate_steps());
    assert_eq!(expected.len(), 1);
    driver.expect_guarded(2, 1, &expected, || case.gate(|_, _| ()));

    let expected = lines(&case, case.softmax_steps());
    assert_eq!(expected.len(), 4);
    driver.expect_guarded(3, 3, &expected, || case.softmax(|_, _| ()));

    let expected = lines(&case, case.sum_steps());
    assert_eq!(expected.len(), 3);
    driver.expect_guarded(4, 2, &expected, || case.weighted_sum(|_, _| ()));

    let expected = lines(&case, case.pool_steps(case.pool_addresses()));
    assert_eq!(expected.len(), 5, "a clearing and four launches");
    driver.expect_guarded(5, 7, &expected, || case.attention_pool(|_, _| ()));
}

fn outputs_may_be_left_out(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let addresses =
        AttentionPoolAddresses { mask: 0, scores: 0, weights: 0, lse: 0, max: 0, sum: 0, ..case.pool_addresses() };
    let expected = driver.lines(&case.pool_steps(addresses), &case.stream);
    driver.expect_guarded(4, 2, &expected, || {
        case.attention_pool(|inputs, outputs| {
            inputs.mask = None;
            (outputs.scores, outputs.weights, outputs.lse) = (None, None, None);
            (outputs.max, outputs.sum) = (None, None);
        })
    });

    // Without values, the keys.
    let shape = attention_pool::Shape { value_dim: DIM, outputs: Dtype::F32 };
    let operation = AttentionPool::plan(&case.packed, shape, CALL).unwrap();
    let mut pooled = case.stream.alloc_zeros::<f32>(CALL.bags * HEADS * DIM).unwrap();
    let addresses = AttentionPoolAddresses {
        values: address(&case.keys),
        value_stride: DIM,
        pooled: address(&pooled),
        ..addresses
    };
    let expected = driver.lines(&pool_steps(&case.packed, DIM, addresses), &case.stream);
    driver.expect_guarded(3, 2, &expected, || {
        let keys = case.keys.slice(..CALL.instances * DIM);
        let offsets = case.offsets.as_view();
        let inputs = attention_pool::Inputs { keys, key_stride: DIM, values: None, offsets, mask: None };
        let outputs = attention_pool::Outputs::of(pooled.as_view_mut());
        operation.run(&case.stream, inputs, outputs, case.scratch.as_view_mut())
    });
}

fn raw_queues_the_steps_alone(driver: &Driver) {
    let case = Case::<f32>::new(&context(0).unwrap());
    let stream = case.stream.cu_stream();
    let lines = |steps: &[Step]| driver.lines(steps, &case.stream);
    let floats = case.stream.alloc_zeros::<f32>(100).unwrap();

    let plan = case.packed.plan();
    let addresses = PackAddresses {
        v: address(&floats),
        v_bias: 0,
        u: address(&floats),
        u_bias: 0,
        w: address(&floats),
        w_bias: 0,
        packed: case.packed.address(),
    };
    let expected = lines(&plan.steps(addresses).unwrap());
    // SAFETY: here and below: the addresses are of buffers of these shapes, on the stream that they were allocated on.
    driver.expect_steps_alone(&expected, || unsafe { raw::pack(&case.kernels, &plan, stream, addresses) });

    let (operation, addresses, expected) =
        (Scores::plan(&case.packed), case.scores_addresses(), lines(&case.scores_steps()));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::scores(&operation, stream, CALL.instances, addresses) });

    let (operation, addresses, expected) =
        (Gate::plan(&case.kernels, Dtype::F32), case.gate_addresses(), lines(&case.gate_steps()));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::gate(&operation, stream, case.keys.len(), addresses) });

    let (operation, addresses, expected) =
        (case.softmax_plan(), case.softmax_addresses(), lines(&case.softmax_steps()));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::softmax(&operation, stream, CALL, addresses) });

    let (operation, addresses, expected) = (case.sum_plan(), case.sum_addresses(), lines(&case.sum_steps()));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::weighted_sum(&operation, stream, CALL, addresses) });

    let (operation, addresses) = (case.pool_plan(), case.pool_addresses());
    let expected = lines(&case.pool_steps(addresses));
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe { raw::attention_pool(&operation, stream, CALL, addresses) });
}

/// Of every type, tile, product and alignment. The fake driver refuses a launch with more shared memory than its
/// kernel was given.
fn every_kernel_is_in_the_images(driver: &Driver) {
    for capability in [(8, 6), (8, 0)] {
        driver.set_capability(capability.0, capability.1);
        run_all::<f32>();
        run_all::<f16>();
        run_all::<bf16>();
    }
}

fn run_all<E: Element>() {
    let context = context(0).unwrap();
    // Columns of the small, the medium and the large tile.
    for (hidden, gated) in [(4, false), (16, true), (40, true), (256, false)] {
        let mut case = Case::<E>::with_params(&context, &params(hidden, gated));
        case.scores(|_, _| ()).unwrap();
        case.attention_pool(|_, _| ()).unwrap();
    }
    let mut case = Case::<E>::new(&context);
    case.softmax(|_, _| ()).unwrap();
    for elements in [CALL.instances * DIM, CALL.instances * DIM + 1] {
        let inputs = gate::Inputs { x: case.keys.slice(..elements), y: case.values.slice(..elements) };
        let operation = Gate::plan(&case.kernels, E::DTYPE);
        operation.run(&case.stream, inputs, case.gated.slice_mut(..elements)).unwrap();
    }
    for (heads, per_head, start) in [(1, false, 0), (1, false, 1), (2, false, 0), (2, false, 1), (2, true, 0)] {
        let shape = weighted_sum::Shape { dim: 8, heads, per_head, values: E::DTYPE, outputs: Dtype::F32 };
        let operation = WeightedSum::plan(&case.kernels, shape, Capacity { instances: 2, bags: 2 }).unwrap();
        let row = if per_head { 16 } else { 8 };
        let inputs = weighted_sum::Inputs {
            weights: case.weights.slice(..2 * heads),
            values: case.keys.slice(start..start + 2 * row),
            row_stride: row,
            offsets: case.offsets.as_view(),
            mask: None,
        };
        let mut pooled = case.stream.alloc_zeros::<f32>(2 * heads * 8).unwrap();
        operation.run(&case.stream, inputs, pooled.as_view_mut(), case.scratch.as_view_mut()).unwrap();
    }
}

fn another_context_is_refused(driver: &Driver) {
    // On the same device, and equal for cudarc.
    let (ours, other) = (context(0).unwrap(), context(0).unwrap());
    let (mut case, mut theirs) = (Case::<f32>::new(&ours), Case::<f32>::new(&other));
    driver.take_log();
    let refused = |argument: &str, result| driver.expect_other_context(argument, result);

    refused("features", case.scores(|inputs, _| inputs.features = theirs.keys.slice(..CALL.instances * DIM)));
    refused("mask", case.scores(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("scores", case.scores(|_, scores| *scores = theirs.scores.as_view_mut()));

    refused("x", case.gate(|inputs, _| inputs.x = theirs.keys.as_view()));
    refused("y", case.gate(|inputs, _| inputs.y = theirs.values.as_view()));
    refused("g", case.gate(|_, g| *g = theirs.gated.as_view_mut()));

    refused("scores", case.softmax(|inputs, _| inputs.scores = theirs.scores.as_view()));
    refused("offsets", case.softmax(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.softmax(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("weights", case.softmax(|_, outputs| outputs.weights = Some(theirs.weights.as_view_mut())));
    refused("lse", case.softmax(|_, outputs| outputs.lse = Some(theirs.lse.as_view_mut())));

    refused("weights", case.weighted_sum(|inputs, _| inputs.weights = theirs.weights.as_view()));
    refused("values", case.weighted_sum(|inputs, _| inputs.values = theirs.values.slice(..40)));
    refused("offsets", case.weighted_sum(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.weighted_sum(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("pooled", case.weighted_sum(|_, pooled| *pooled = theirs.pooled.as_view_mut()));

    refused("keys", case.attention_pool(|inputs, _| inputs.keys = theirs.keys.slice(..CALL.instances * DIM)));
    let values = || Values { rows: theirs.values.slice(..CALL.instances * VALUE_DIM), row_stride: VALUE_DIM };
    refused("values", case.attention_pool(|inputs, _| inputs.values = Some(values())));
    refused("offsets", case.attention_pool(|inputs, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.attention_pool(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("pooled", case.attention_pool(|_, outputs| outputs.pooled = theirs.pooled.as_view_mut()));
    refused("scores", case.attention_pool(|_, outputs| outputs.scores = Some(theirs.scores.as_view_mut())));
    refused("weights", case.attention_pool(|_, outputs| outputs.weights = Some(theirs.weights.as_view_mut())));
    refused("lse", case.attention_pool(|_, outputs| outputs.lse = Some(theirs.lse.as_view_mut())));

    std::mem::swap(&mut case.scratch, &mut theirs.scratch);
    refused("scratch", case.softmax(|_, _| ()));
    refused("scratch", case.weighted_sum(|_, _| ()));
    refused("scratch", case.attention_pool(|_, _| ()));
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    refused("stream", case.scores(|_, _| ()));
    refused("stream", case.gate(|_, _| ()));
    refused("stream", case.softmax(|_, _| ()));
    refused("stream", case.weighted_sum(|_, _| ()));
    refused("stream", case.attention_pool(|_, _| ()));
    // Their parameters bring their kernels, and so their context.
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    std::mem::swap(&mut case.packed, &mut theirs.packed);
    refused("stream", case.scores(|_, _| ()));
    refused("stream", case.attention_pool(|_, _| ()));
}

fn malformed_scores_queue_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    let halves = case.stream.alloc_zeros::<f16>(100).unwrap();
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("features: expected (N - 1) * 8 + 8", case.scores(|inputs, _| inputs.features = long.slice(..39)));
    refused("row_stride: expected at least D = 8", case.scores(|inputs, _| inputs.row_stride = 7));
    refused("mask: expected [N] = 1 ", case.scores(|inputs, _| inputs.features = long.slice(..8)));
    refused("scores: expected [N, K] = 10", case.scores(|_, scores| *scores = wide.slice_mut(..11)));
    let inputs = scores::Inputs { features: halves.slice(..40), row_stride: 8, mask: None };
    let result = Scores::plan(&case.packed).run(&case.stream, inputs, case.scores.as_view_mut());
    refused("features: expected f32, as planned", result);
}

fn malformed_gate_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("y: expected the length of x = 41", case.gate(|inputs, _| inputs.y = long.slice(..40)));
    refused("g: expected the length of x = 41", case.gate(|_, g| *g = wide.slice_mut(..42)));
    let inputs = gate::Inputs { x: case.keys.as_view(), y: case.values.as_view() };
    let result = Gate::plan(&case.kernels, Dtype::F16).run(&case.stream, inputs, case.gated.as_view_mut());
    refused("x: expected f16, as planned", result);
}

fn malformed_softmax_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    assert!(Softmax::plan(&case.kernels, 0, CALL).unwrap_err().to_string().starts_with("heads: "));
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("scores: expected [N, K], a multiple", case.softmax(|inputs, _| inputs.scores = long.slice(..9)));
    refused("mask: expected [N] = 4 ", case.softmax(|inputs, _| inputs.scores = long.slice(..8)));
    refused("offsets: expected at least one", case.softmax(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)));
    refused("weights: expected [N, K] = 10", case.softmax(|_, outputs| outputs.weights = Some(wide.slice_mut(..9))));
    refused("lse: expected [B, K] = 4", case.softmax(|_, outputs| outputs.lse = Some(wide.slice_mut(..5))));
    shorten_scratch(&mut case, |case| case.softmax_plan().scratch_bytes());
    driver.take_log();
    refused("scratch: expected at least", case.softmax(|_, _| ()));
}

fn malformed_weighted_sum_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let short = case.stream.alloc_zeros::<u8>(4).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    let shape = weighted_sum::Shape { outputs: Dtype::F16, ..sum_shape(Dtype::F32, false) };
    let error = WeightedSum::plan(&case.kernels, shape, CALL).unwrap_err();
    assert!(error.to_string().starts_with("outputs: "), "{error}");
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("values: expected (N - 1) * 8 + 8", case.weighted_sum(|inputs, _| inputs.values = long.slice(..39)));
    refused("row_stride: expected at least D = 8", case.weighted_sum(|inputs, _| inputs.row_stride = 7));
    refused("weights: expected [N, K] = 10", case.weighted_sum(|inputs, _| inputs.weights = long.slice(..9)));
    refused(
        "offsets: expected at least one",
        case.weighted_sum(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)),
    );
    refused("mask: expected [N] = 5", case.weighted_sum(|inputs, _| inputs.mask = Some(short.as_view())));
    refused("pooled: expected [B, K, D] = 16", case.weighted_sum(|_, pooled| *pooled = wide.slice_mut(..15)));
    shorten_scratch(&mut case, |case| case.sum_plan().scratch_bytes());
    driver.take_log();
    refused("scratch: expected at least", case.weighted_sum(|_, _| ()));
}

fn malformed_attention_pool_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let short = case.stream.alloc_zeros::<u8>(4).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    let shape = attention_pool::Shape { value_dim: VALUE_DIM, outputs: Dtype::Bf16 };
    let error = AttentionPool::plan(&case.packed, shape, CALL).unwrap_err();
    assert!(error.to_string().starts_with("outputs: "), "{error}");
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    let values = |len, row_stride| Some(Values { rows: long.slice(..len), row_stride });
    refused("keys: expected (N - 1) * 8 + 8", case.attention_pool(|inputs, _| inputs.keys = long.slice(..39)));
    refused("key_stride: expected at least D = 8", case.attention_pool(|inputs, _| inputs.key_stride = 7));
    refused("values: expected (N - 1) * 4 + 4", case.attention_pool(|inputs, _| inputs.values = values(19, 4)));
    refused("values: expected 5 rows", case.attention_pool(|inputs, _| inputs.values = values(24, 4)));
    refused("values.row_stride: expected", case.attention_pool(|inputs, _| inputs.values = values(20, 3)));
    refused("values: expected rows of D = 4", case.attention_pool(|inputs, _| inputs.values = None));
    refused("mask: expected [N] = 5", case.attention_pool(|inputs, _| inputs.mask = Some(short.as_view())));
    refused("offsets: expected at", case.attention_pool(|inputs, _| inputs.offsets = inputs.offsets.slice(..0)));
    refused("pooled: expected [B, K, D] = 16", case.attention_pool(|_, outputs| outputs.pooled = wide.slice_mut(..17)));
    refused("scores: expected [N, K] = 10", case.attention_pool(|_, out| out.scores = Some(wide.slice_mut(..9))));
    refused("weights: expected [N, K] = 10", case.attention_pool(|_, out| out.weights = Some(wide.slice_mut(..9))));
    refused("lse: expected [B, K] = 4", case.attention_pool(|_, outputs| outputs.lse = Some(wide.slice_mut(..5))));
    refused("max: expected [B, K] = 4", case.attention_pool(|_, outputs| outputs.max = Some(wide.slice_mut(..5))));
    refused("sum: expected [B, K] = 4", case.attention_pool(|_, outputs| outputs.sum = Some(wide.slice_mut(..5))));
    shorten_scratch(&mut case, |case| case.pool_plan().scratch_bytes());
    driver.take_log();
    refused("scratch: expected at least", case.attention_pool(|_, _| ()));
}

/// One byte less than an operation asks for.
fn shorten_scratch(case: &mut Case, bytes: impl Fn(&Case) -> usize) {
    let len = bytes(case) - 1;
    case.scratch = case.stream.alloc_zeros(len).unwrap();
}
