//! The backward of scores and attention pool, and the forwards that keep activations for it.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use half::{bf16, f16};
use mivc::cuda::attention_pool::{self, AttentionPool, Values};
use mivc::cuda::backward::Gradient;
use mivc::cuda::backward::attention_pool::{self as pool, AttentionPoolBackward};
use mivc::cuda::backward::scores::{self as of_scores, ParamGradients, ScoresBackward};
use mivc::cuda::raw::{
    self, AttentionPoolAddresses, AttentionPoolBackwardAddresses, Offsets, PackAddresses, ScoresAddresses,
    ScoresBackwardAddresses,
};
use mivc::cuda::scores::{self, Scores};
use mivc::cuda::{Capacity, Kernels, PackedAttention, PackedBackward, context};
use mivc::launch::backward as launch;
use mivc::launch::{self as forward, Step};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Dtype, Element, Order, Result};

use crate::Run;
use crate::driver::{Driver, address, count};

pub const TRIALS: &[(&str, Run)] = &[
    ("attention_backward::keeping_queues_the_steps", keeping_queues_the_steps),
    ("attention_backward::queues_the_steps_between_waits_and_records", queues_the_steps_between_waits_and_records),
    ("attention_backward::arguments_may_be_left_out", arguments_may_be_left_out),
    ("attention_backward::raw_queues_the_steps_alone", raw_queues_the_steps_alone),
    ("attention_backward::every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("attention_backward::another_context_is_refused", another_context_is_refused),
    ("attention_backward::malformed_scores_queue_nothing", malformed_scores_queue_nothing),
    ("attention_backward::malformed_attention_pool_queues_nothing", malformed_attention_pool_queues_nothing),
];

const CALL: Capacity = Capacity { instances: 5, bags: 2 };
const DIM: usize = 8;
const VALUE_DIM: usize = 4;
const HIDDEN: usize = 4;
const HEADS: usize = 2;

/// With every bias.
fn params(hidden: usize, gated: bool) -> AttentionParams {
    let shape = AttentionShape { dim: DIM, hidden, heads: HEADS, groups: 1 };
    let (matrix, w) = (vec![0.1; hidden * DIM], vec![0.1; HEADS * hidden]);
    let (u, u_bias) = (gated.then_some(&matrix[..]), gated.then_some(&matrix[..hidden]));
    let tensors =
        AttentionTensors { v: &matrix, v_bias: Some(&matrix[..hidden]), u, u_bias, w: &w, w_bias: Some(&[0.1; HEADS]) };
    AttentionParams::new(shape, tensors).unwrap()
}

/// Lengths of the gradients of V, its bias, U, its bias, w and its bias.
fn lens(hidden: usize) -> [usize; 6] {
    [hidden * DIM, hidden, hidden * DIM, hidden, HEADS * hidden, HEADS]
}

/// Packed parameters and every buffer that an operation can have.
struct Case<E = f32> {
    stream: Arc<CudaStream>,
    kernels: Kernels,
    gated: bool,
    forward: PackedAttention,
    packed: PackedBackward,
    /// One more than there are, so that views can begin at odd places.
    keys: CudaSlice<E>,
    values: CudaSlice<E>,
    offsets: CudaSlice<i64>,
    mask: CudaSlice<u8>,
    weights: CudaSlice<f32>,
    activations: CudaSlice<E>,
    upstream_pooled: CudaSlice<f32>,
    upstream_scores: CudaSlice<f32>,
    upstream_weights: CudaSlice<f32>,
    upstream_lse: CudaSlice<f32>,
    d_keys: CudaSlice<E>,
    d_values: CudaSlice<E>,
    d_params: [CudaSlice<f32>; 6],
    pooled: CudaSlice<f32>,
    scores: CudaSlice<f32>,
    scratch: CudaSlice<u8>,
}

impl<E: Element> Case<E> {
    fn new(context: &Arc<CudaContext>) -> Self {
        Self::with_params(context, HIDDEN, true)
    }

    fn with_params(context: &Arc<CudaContext>, hidden: usize, gated: bool) -> Self {
        let kernels = Kernels::load(context).unwrap();
        let stream = context.new_stream().unwrap();
        let (params, floats) = (params(hidden, gated), |len| stream.alloc_zeros::<f32>(len).unwrap());
        let elements = |len| stream.clone_htod(&vec![E::default(); len]).unwrap();
        let forward = kernels.pack(&stream, &params, E::DTYPE).unwrap();
        Case {
            packed: kernels.pack_backward(&stream, &params, E::DTYPE).unwrap(),
            keys: elements(CALL.instances * DIM + 1),
            values: elements(CALL.instances * VALUE_DIM),
            offsets: stream.clone_htod(&[0, 2, 5]).unwrap(),
            mask: stream.clone_htod(&[1; CALL.instances]).unwrap(),
            weights: floats(CALL.instances * HEADS),
            activations: elements(CALL.instances * forward.activations()),
            upstream_pooled: floats(CALL.bags * HEADS * VALUE_DIM),
            upstream_scores: floats(CALL.instances * HEADS),
            upstream_weights: floats(CALL.instances * HEADS),
            upstream_lse: floats(CALL.bags * HEADS),
            d_keys: elements(CALL.instances * DIM + 1),
            d_values: elements(CALL.instances * VALUE_DIM),
            d_params: lens(hidden).map(floats),
            pooled: floats(CALL.bags * HEADS * VALUE_DIM),
            scores: floats(CALL.instances * HEADS),
            scratch: stream.alloc_zeros(1 << 20).unwrap(),
            gated,
            forward,
            kernels,
            stream,
        }
    }

    fn scores_plan(&self) -> ScoresBackward {
        ScoresBackward::plan(&self.packed, E::DTYPE, CALL.instances).unwrap()
    }

    fn pool_plan(&self) -> AttentionPoolBackward {
        AttentionPoolBackward::plan(&self.packed, pool_shape(E::DTYPE), CALL).unwrap()
    }

    // Each runs an operation with arguments that `change` has changed.

    fn scores<'a>(
        &'a mut self,
        change: impl FnOnce(&mut of_scores::Inputs<'a, E>, &mut of_scores::Gradients<'a, E>),
    ) -> Result<()> {
        let operation = self.scores_plan();
        let mut inputs = of_scores::Inputs {
            features: self.keys.slice(..CALL.instances * DIM),
            row_stride: DIM,
            mask: Some(self.mask.as_view()),
            activations: Some(self.activations.as_view()),
            d_scores: self.upstream_scores.as_view(),
        };
        let mut gradients = of_scores::Gradients {
            features: Some(Gradient::Set(self.d_keys.slice_mut(..CALL.instances * DIM))),
            params: views(&mut self.d_params, self.gated),
        };
        change(&mut inputs, &mut gradients);
        operation.run(&self.stream, inputs, gradients, self.scratch.as_view_mut())
    }

    fn attention_pool<'a>(
        &'a mut self,
        change: impl FnOnce(&mut pool::Inputs<'a, E>, &mut pool::Upstream<'a, f32>, &mut pool::Gradients<'a, E>),
    ) -> Result<()> {
        let operation = self.pool_plan();
        let mut inputs = pool::Inputs {
            keys: self.keys.slice(..CALL.instances * DIM),
            key_stride: DIM,
            values: Some(Values { rows: self.values.as_view(), row_stride: VALUE_DIM }),
            offsets: self.offsets.as_view(),
            mask: Some(self.mask.as_view()),
            weights: self.weights.as_view(),
            activations: Some(self.activations.as_view()),
        };
        let mut upstream = pool::Upstream {
            pooled: Some(self.upstream_pooled.as_view()),
            scores: Some(self.upstream_scores.as_view()),
            weights: Some(self.upstream_weights.as_view()),
            lse: Some(self.upstream_lse.as_view()),
        };
        let mut gradients = pool::Gradients {
            keys: Some(Gradient::Set(self.d_keys.slice_mut(..CALL.instances * DIM))),
            params: views(&mut self.d_params, self.gated),
            values: Some(Gradient::Add(self.d_values.as_view_mut())),
        };
        change(&mut inputs, &mut upstream, &mut gradients);
        operation.run(&self.stream, inputs, upstream, gradients, self.scratch.as_view_mut())
    }

    // Where those find their arguments, unchanged.

    fn params_addresses(&self) -> raw::ParamGradients {
        let [v, v_bias, u, u_bias, w, w_bias] = self.d_params.each_ref().map(|d| Some(raw::Gradient::Set(address(d))));
        raw::ParamGradients { v, v_bias, u, u_bias, w, w_bias }
    }

    fn scores_addresses(&self) -> ScoresBackwardAddresses {
        ScoresBackwardAddresses {
            packed: self.packed.address(),
            features: address(&self.keys),
            row_stride: DIM,
            mask: address(&self.mask),
            activations: address(&self.activations),
            d_scores: address(&self.upstream_scores),
            d_features: Some(raw::Gradient::Set(address(&self.d_keys))),
            params: self.params_addresses(),
            scratch: address(&self.scratch),
        }
    }

    fn pool_addresses(&self) -> AttentionPoolBackwardAddresses {
        AttentionPoolBackwardAddresses {
            packed: self.packed.address(),
            keys: address(&self.keys),
            key_stride: DIM,
            values: address(&self.values),
            value_stride: VALUE_DIM,
            offsets: Offsets::I64(address(&self.offsets)),
            mask: address(&self.mask),
            weights: address(&self.weights),
            activations: address(&self.activations),
            d_pooled: address(&self.upstream_pooled),
            d_scores: address(&self.upstream_scores),
            d_weights: address(&self.upstream_weights),
            d_lse: address(&self.upstream_lse),
            d_keys: Some(raw::Gradient::Set(address(&self.d_keys))),
            d_values: Some(raw::Gradient::Add(address(&self.d_values))),
            params: self.params_addresses(),
            scratch: address(&self.scratch),
        }
    }

    fn scores_steps(&self, addresses: ScoresBackwardAddresses) -> Vec<Step> {
        let shape = launch::scores::Shape { pack: self.packed.plan(), gradients: E::DTYPE };
        launch::scores::ScoresBackward::plan(Order::Rounding, shape, CALL.instances)
            .unwrap()
            .steps(CALL.instances, addresses)
            .unwrap()
    }

    fn pool_steps(&self, addresses: AttentionPoolBackwardAddresses) -> Vec<Step> {
        let pool::Shape { value_dim, upstream, gradients } = pool_shape(E::DTYPE);
        let shape = launch::attention_pool::Shape { pack: self.packed.plan(), value_dim, upstream, gradients };
        launch::attention_pool::AttentionPoolBackward::plan(Order::Rounding, shape, CALL)
            .unwrap()
            .steps(CALL, addresses)
            .unwrap()
    }
}

fn pool_shape(gradients: Dtype) -> pool::Shape {
    pool::Shape { value_dim: VALUE_DIM, upstream: Dtype::F32, gradients }
}

fn views(d_params: &mut [CudaSlice<f32>; 6], gated: bool) -> ParamGradients<'_> {
    let [v, v_bias, u, u_bias, w, w_bias] = d_params.each_mut().map(|d| Some(Gradient::Set(d.as_view_mut())));
    let [u, u_bias] = [u, u_bias].map(|gradient| gradient.filter(|_| gated));
    ParamGradients { v, v_bias, u, u_bias, w, w_bias }
}

const PARAMS: [&str; 6] = ["d_v", "d_v_bias", "d_u", "d_u_bias", "d_w", "d_w_bias"];

/// The one that [`PARAMS`] has at this place.
fn param_mut<'a, 'b>(params: &'b mut ParamGradients<'a>, at: usize) -> &'b mut Option<Gradient<'a, f32>> {
    let ParamGradients { v, v_bias, u, u_bias, w, w_bias } = params;
    [v, v_bias, u, u_bias, w, w_bias].into_iter().nth(at).expect("six parameters")
}

// ---- trials ----

fn keeping_queues_the_steps(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let addresses = ScoresAddresses {
        packed: case.forward.address(),
        features: address(&case.keys),
        row_stride: DIM,
        mask: address(&case.mask),
        scores: address(&case.scores),
        activations: address(&case.activations),
    };
    let steps = forward::scores::Scores::plan(case.forward.plan()).steps(CALL.instances, addresses).unwrap().unwrap();
    let expected = driver.lines(&steps, &case.stream);
    driver.expect_guarded(3, 2, &expected, || {
        let features = case.keys.slice(..CALL.instances * DIM);
        let inputs = scores::Inputs { features, row_stride: DIM, mask: Some(case.mask.as_view()) };
        let (scores, activations) = (case.scores.as_view_mut(), case.activations.as_view_mut());
        Scores::plan(&case.forward).run_keeping(&case.stream, inputs, scores, activations)
    });

    let shape = attention_pool::Shape { value_dim: VALUE_DIM, outputs: Dtype::F32 };
    let operation = AttentionPool::plan(&case.forward, shape, CALL).unwrap();
    let addresses = AttentionPoolAddresses {
        exact: 0,
        packed: case.forward.address(),
        keys: address(&case.keys),
        key_stride: DIM,
        values: address(&case.values),
        value_stride: VALUE_DIM,
        offsets: Offsets::I64(address(&case.offsets)),
        mask: 0,
        pooled: address(&case.pooled),
        scores: 0,
        weights: address(&case.weights),
        lse: 0,
        activations: address(&case.activations),
        max: 0,
        sum: 0,
        scratch: address(&case.scratch),
    };
    let (pack, path) = (case.forward.plan(), operation.path());
    let plan = forward::attention_pool::Shape { pack, value_dim: VALUE_DIM, outputs: Dtype::F32, path };
    let steps = forward::attention_pool::AttentionPool::plan(plan, CALL).unwrap().steps(CALL, addresses).unwrap();
    let expected = driver.lines(&steps, &case.stream);
    driver.expect_guarded(4, 4, &expected, || {
        let inputs = attention_pool::Inputs {
            keys: case.keys.slice(..CALL.instances * DIM),
            key_stride: DIM,
            values: Some(Values { rows: case.values.as_view(), row_stride: VALUE_DIM }),
            offsets: case.offsets.as_view(),
            mask: None,
        };
        let outputs = attention_pool::Outputs {
            weights: Some(case.weights.as_view_mut()),
            ..attention_pool::Outputs::of(case.pooled.as_view_mut())
        };
        let (activations, scratch) = (case.activations.as_view_mut(), case.scratch.as_view_mut());
        operation.run_keeping(&case.stream, inputs, outputs, activations, scratch)
    });

    let features = case.keys.slice(..CALL.instances * DIM);
    let inputs = scores::Inputs { features, row_stride: DIM, mask: None };
    let short = case.activations.slice_mut(1..);
    let operation = Scores::plan(&case.forward);
    driver.take_log();
    let result = operation.run_keeping(&case.stream, inputs, case.scores.as_view_mut(), short);
    driver.expect_refused("activations: expected [N, G, L], twice that if gated = 40", result);
}

fn queues_the_steps_between_waits_and_records(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let expected = driver.lines(&case.scores_steps(case.scores_addresses()), &case.stream);
    assert_eq!(expected.len(), 5, "those of w, columns, features and matrices, and a sum");
    driver.expect_guarded(5, 8, &expected, || case.scores(|_, _| ()));

    let expected = driver.lines(&case.pool_steps(case.pool_addresses()), &case.stream);
    // The gradients of weights and scores begin with those of the caller.
    assert_eq!(count(&expected, "cuMemcpyDtoDAsync_v2"), 2);
    driver.expect_guarded(11, 9, &expected, || case.attention_pool(|_, _, _| ()));
}

fn arguments_may_be_left_out(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let addresses = ScoresBackwardAddresses {
        mask: 0,
        activations: 0,
        params: raw::ParamGradients::default(),
        ..case.scores_addresses()
    };
    let expected = driver.lines(&case.scores_steps(addresses), &case.stream);
    assert_eq!(expected.len(), 3, "activations again, columns and features");
    driver.expect_guarded(3, 2, &expected, || {
        case.scores(|inputs, gradients| {
            (inputs.mask, inputs.activations) = (None, None);
            gradients.params = ParamGradients::default();
        })
    });

    // A frozen encoder: keys that are pooled themselves, and have no gradient.
    let shape = pool::Shape { value_dim: DIM, ..pool_shape(Dtype::F32) };
    let operation = AttentionPoolBackward::plan(&case.packed, shape, CALL).unwrap();
    let d_pooled = case.stream.alloc_zeros::<f32>(CALL.bags * HEADS * DIM).unwrap();
    let addresses = AttentionPoolBackwardAddresses {
        values: address(&case.keys),
        value_stride: DIM,
        mask: 0,
        d_pooled: address(&d_pooled),
        d_scores: 0,
        d_weights: 0,
        d_lse: 0,
        d_keys: None,
        d_values: None,
        ..case.pool_addresses()
    };
    let plan = launch::attention_pool::Shape {
        pack: case.packed.plan(),
        value_dim: DIM,
        upstream: Dtype::F32,
        gradients: Dtype::F32,
    };
    let plan = launch::attention_pool::AttentionPoolBackward::plan(Order::Rounding, plan, CALL).unwrap();
    let expected = driver.lines(&plan.steps(CALL, addresses).unwrap(), &case.stream);
    assert!(!expected.iter().any(|line| line.contains("scores_backward_features")), "{expected:#?}");
    driver.expect_guarded(6, 7, &expected, || {
        let inputs = pool::Inputs {
            keys: case.keys.slice(..CALL.instances * DIM),
            key_stride: DIM,
            values: None,
            offsets: case.offsets.as_view(),
            mask: None,
            weights: case.weights.as_view(),
            activations: Some(case.activations.as_view()),
        };
        let gradients = pool::Gradients::<f32> { keys: None, params: views(&mut case.d_params, true), values: None };
        let upstream = pool::Upstream::of(d_pooled.as_view());
        operation.run(&case.stream, inputs, upstream, gradients, case.scratch.as_view_mut())
    });

    // Without a gradient, nothing is done.
    case.scores(|_, gradients| *gradients = of_scores::Gradients { features: None, params: Default::default() })
        .unwrap();
    case.attention_pool(|_, _, gradients| {
        *gradients = pool::Gradients { keys: None, params: Default::default(), values: None };
    })
    .unwrap();
    assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);
}

fn raw_queues_the_steps_alone(driver: &Driver) {
    let case = Case::<f32>::new(&context(0).unwrap());
    let stream = case.stream.cu_stream();
    let floats = case.stream.alloc_zeros::<f32>(100).unwrap();
    let plan = case.packed.plan();
    let at = address(&floats);
    let addresses =
        PackAddresses { v: at, v_bias: at, u: at, u_bias: at, w: at, w_bias: at, packed: case.packed.address() };
    let expected = driver.lines(&plan.steps(addresses).unwrap(), &case.stream);
    // SAFETY: here and below: the addresses are of buffers of these shapes, on the stream that they were allocated on.
    driver.expect_steps_alone(&expected, || unsafe { raw::pack_backward(&case.kernels, &plan, stream, addresses) });

    let (operation, addresses) = (case.scores_plan(), case.scores_addresses());
    let expected = driver.lines(&case.scores_steps(addresses), &case.stream);
    // SAFETY: as above.
    driver.expect_steps_alone(&expected, || unsafe {
        raw::scores_backward(&operation, stream, CALL.instances, addresses)
    });

    let (operation, addresses) = (case.pool_plan(), case.pool_addresses());
    let expected = driver.lines(&case.pool_steps(addresses), &case.stream);
    // SAFETY: as above.
    driver
        .expect_steps_alone(&expected, || unsafe { raw::attention_pool_backward(&operation, stream, CALL, addresses) });
}

/// Of every type, product, number of columns and alignment. The fake driver refuses a launch with more shared memory
/// than its kernel was given.
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
    for (hidden, gated) in [(4, false), (16, true), (64, true), (256, false)] {
        let mut case = Case::<E>::with_params(&context, hidden, gated);
        for keeps in [true, false] {
            case.scores(|inputs, _| inputs.activations = inputs.activations.take().filter(|_| keeps)).unwrap();
            case.attention_pool(|_, _, _| ()).unwrap();
        }
        // Rows at other places, and gradients of f32.
        let operation = ScoresBackward::plan(&case.packed, Dtype::F32, CALL.instances).unwrap();
        let inputs = of_scores::Inputs {
            features: case.keys.slice(1..=CALL.instances * DIM),
            row_stride: DIM,
            mask: None,
            activations: None,
            d_scores: case.upstream_scores.as_view(),
        };
        let mut d_features = case.stream.alloc_zeros::<f32>(CALL.instances * DIM).unwrap();
        let gradients = of_scores::Gradients {
            features: Some(Gradient::Add(d_features.as_view_mut())),
            params: views(&mut case.d_params, gated),
        };
        operation.run(&case.stream, inputs, gradients, case.scratch.as_view_mut()).unwrap();
    }
}

fn another_context_is_refused(driver: &Driver) {
    // On the same device, and equal for cudarc.
    let (ours, other) = (context(0).unwrap(), context(0).unwrap());
    let (mut case, mut theirs) = (Case::<f32>::new(&ours), Case::<f32>::new(&other));
    let packing = case.kernels.pack_backward(&theirs.stream, &params(HIDDEN, true), Dtype::F32).map(drop);
    driver.take_log();
    driver.expect_other_context("stream", packing);
    let refused = |argument: &str, result| driver.expect_other_context(argument, result);
    let rows = ..CALL.instances * DIM;

    refused("features", case.scores(|inputs, _| inputs.features = theirs.keys.slice(rows)));
    refused("mask", case.scores(|inputs, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("activations", case.scores(|inputs, _| inputs.activations = Some(theirs.activations.as_view())));
    refused("d_scores", case.scores(|inputs, _| inputs.d_scores = theirs.upstream_scores.as_view()));
    refused("d_features", case.scores(|_, to| to.features = Some(Gradient::Set(theirs.d_keys.slice_mut(rows)))));
    for (at, name) in PARAMS.into_iter().enumerate() {
        let to = Some(Gradient::Add(theirs.d_params[at].as_view_mut()));
        let result = case.scores(|_, gradients| *param_mut(&mut gradients.params, at) = to);
        refused(name, result);
    }

    refused("keys", case.attention_pool(|inputs, _, _| inputs.keys = theirs.keys.slice(rows)));
    let values = || Values { rows: theirs.values.as_view(), row_stride: VALUE_DIM };
    refused("values", case.attention_pool(|inputs, _, _| inputs.values = Some(values())));
    refused("offsets", case.attention_pool(|inputs, _, _| inputs.offsets = theirs.offsets.as_view()));
    refused("mask", case.attention_pool(|inputs, _, _| inputs.mask = Some(theirs.mask.as_view())));
    refused("weights", case.attention_pool(|inputs, _, _| inputs.weights = theirs.weights.as_view()));
    refused("activations", case.attention_pool(|inputs, _, _| inputs.activations = Some(theirs.activations.as_view())));
    let d_pooled = || theirs.upstream_pooled.as_view();
    refused("d_pooled", case.attention_pool(|_, upstream, _| upstream.pooled = Some(d_pooled())));
    refused("d_scores", case.attention_pool(|_, from, _| from.scores = Some(theirs.upstream_scores.as_view())));
    refused("d_weights", case.attention_pool(|_, from, _| from.weights = Some(theirs.upstream_weights.as_view())));
    refused("d_lse", case.attention_pool(|_, from, _| from.lse = Some(theirs.upstream_lse.as_view())));
    let d_keys = Some(Gradient::Set(theirs.d_keys.slice_mut(rows)));
    refused("d_keys", case.attention_pool(|_, _, to| to.keys = d_keys));
    let d_values = Some(Gradient::Set(theirs.d_values.as_view_mut()));
    refused("d_values", case.attention_pool(|_, _, to| to.values = d_values));

    std::mem::swap(&mut case.scratch, &mut theirs.scratch);
    refused("scratch", case.scores(|_, _| ()));
    refused("scratch", case.attention_pool(|_, _, _| ()));
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    refused("stream", case.scores(|_, _| ()));
    refused("stream", case.attention_pool(|_, _, _| ()));
    // Their parameters bring their kernels, and so their context.
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    std::mem::swap(&mut case.packed, &mut theirs.packed);
    refused("stream", case.scores(|_, _| ()));
    refused("stream", case.attention_pool(|_, _, _| ()));
}

fn malformed_scores_queue_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    let halves = case.stream.alloc_zeros::<f16>(100).unwrap();
    for gradients in [Dtype::F16, Dtype::Bf16] {
        let error = ScoresBackward::plan(&case.packed, gradients, 5).unwrap_err();
        assert!(error.to_string().starts_with("gradients: "), "{error}");
    }
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("features: expected (N - 1) * 8 + 8", case.scores(|inputs, _| inputs.features = long.slice(..39)));
    refused("row_stride: expected at least D = 8", case.scores(|inputs, _| inputs.row_stride = 7));
    refused("mask: expected [N] = 1 ", case.scores(|inputs, _| inputs.features = long.slice(..8)));
    let kept = "activations: expected [N, G, L], twice that if gated = 40";
    refused(kept, case.scores(|inputs, _| inputs.activations = Some(long.slice(..39))));
    refused("d_scores: expected [N, K] = 10", case.scores(|inputs, _| inputs.d_scores = long.slice(..11)));
    let d_features = Some(Gradient::Set(wide.slice_mut(..41)));
    refused("d_features: expected [N, D] = 40", case.scores(|_, to| to.features = d_features));
    for (at, name) in PARAMS.into_iter().enumerate() {
        let to = Some(Gradient::Set(wide.slice_mut(..lens(HIDDEN)[at] + 1)));
        let result = case.scores(|_, gradients| *param_mut(&mut gradients.params, at) = to);
        refused(&format!("{name}: expected ["), result);
    }

    // Of another type than the parameters are packed for, and more than planned.
    let inputs = of_scores::Inputs {
        features: halves.slice(..40),
        row_stride: DIM,
        mask: None,
        activations: None,
        d_scores: case.upstream_scores.as_view(),
    };
    let none = of_scores::Gradients::<f32> { features: None, params: ParamGradients::default() };
    let result = case.scores_plan().run(&case.stream, inputs, none, case.scratch.as_view_mut());
    refused("features: expected f32, as planned", result);
    let small = ScoresBackward::plan(&case.packed, Dtype::F32, 4).unwrap();
    let inputs = of_scores::Inputs {
        features: case.keys.slice(..40),
        row_stride: DIM,
        mask: None,
        activations: None,
        d_scores: case.upstream_scores.as_view(),
    };
    let gradients = of_scores::Gradients {
        features: Some(Gradient::Set(case.d_keys.slice_mut(..40))),
        params: ParamGradients::default(),
    };
    let error = small.run(&case.stream, inputs, gradients, case.scratch.as_view_mut()).unwrap_err();
    assert!(error.to_string().starts_with("instances: expected at most the 4"), "{error}");
    assert_eq!(count(&driver.take_log(), "cuLaunchKernel"), 0);

    // Of what the parameters do not have.
    let mut ungated = Case::<f32>::with_params(case.stream.context(), HIDDEN, false);
    driver.take_log();
    let result = ungated.scores(|_, to| to.params.u = Some(Gradient::Set(wide.slice_mut(..32))));
    refused("d_u: expected none", result);

    let bytes = case.scores_plan().scratch_bytes();
    case.scratch = case.stream.alloc_zeros(bytes - 1).unwrap();
    driver.take_log();
    refused("scratch: expected at least", case.scores(|_, _| ()));
}

fn malformed_attention_pool_queues_nothing(driver: &Driver) {
    let mut case = Case::<f32>::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    for shape in [
        pool::Shape { upstream: Dtype::F16, ..pool_shape(Dtype::F32) },
        pool::Shape { gradients: Dtype::Bf16, ..pool_shape(Dtype::F32) },
        pool::Shape { value_dim: 0, ..pool_shape(Dtype::F32) },
    ] {
        assert!(AttentionPoolBackward::plan(&case.packed, shape, CALL).is_err());
    }
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("keys: expected (N - 1) * 8 + 8", case.attention_pool(|inputs, _, _| inputs.keys = long.slice(..39)));
    refused("key_stride: expected at least D = 8", case.attention_pool(|inputs, _, _| inputs.key_stride = 7));
    let values = Some(Values { rows: long.slice(..16), row_stride: VALUE_DIM });
    refused("values: expected", case.attention_pool(|inputs, _, _| inputs.values = values));
    refused(
        "offsets: expected at least one",
        case.attention_pool(|inputs, _, _| inputs.offsets = inputs.offsets.slice(..0)),
    );
    refused("weights: expected [N, K] = 10", case.attention_pool(|inputs, _, _| inputs.weights = long.slice(..9)));
    let kept = "activations: expected [N, G, L], twice that if gated = 40";
    refused(kept, case.attention_pool(|inputs, _, _| inputs.activations = Some(long.slice(..39))));
    let pooled = "d_pooled: expected [B, K, D] = 16";
    refused(pooled, case.attention_pool(|_, upstream, _| upstream.pooled = Some(long.slice(..15))));
    let scores = "d_scores: expected [N, K] = 10";
    refused(scores, case.attention_pool(|_, upstream, _| upstream.scores = Some(long.slice(..11))));
    let weights = "d_weights: expected [N, K] = 10";
    refused(weights, case.attention_pool(|_, upstream, _| upstream.weights = Some(long.slice(..9))));
    refused("d_lse: expected [B, K] = 4", case.attention_pool(|_, upstream, _| upstream.lse = Some(long.slice(..5))));
    let to_keys = Some(Gradient::Set(wide.slice_mut(..41)));
    refused("d_keys: expected [N, D'] = 40", case.attention_pool(|_, _, to| to.keys = to_keys));
    let to_values = Some(Gradient::Set(wide.slice_mut(..19)));
    refused("d_values: expected [N, D] = 20", case.attention_pool(|_, _, to| to.values = to_values));
    let to_w = Some(Gradient::Set(wide.slice_mut(..9)));
    refused("d_w: expected [K, L] = 8", case.attention_pool(|_, _, to| to.params.w = to_w));

    // Keys that are pooled have the gradient of both.
    let shape = pool::Shape { value_dim: DIM, ..pool_shape(Dtype::F32) };
    let operation = AttentionPoolBackward::plan(&case.packed, shape, CALL).unwrap();
    let inputs = pool::Inputs {
        keys: case.keys.slice(..CALL.instances * DIM),
        key_stride: DIM,
        values: None,
        offsets: case.offsets.as_view(),
        mask: None,
        weights: case.weights.as_view(),
        activations: None,
    };
    let upstream = pool::Upstream::of(long.slice(..CALL.bags * HEADS * DIM));
    let values = Some(Gradient::Set(wide.slice_mut(..40)));
    let gradients = pool::Gradients { keys: None, params: ParamGradients::default(), values };
    let result = operation.run(&case.stream, inputs, upstream, gradients, case.scratch.as_view_mut());
    refused("d_values: expected none, as the keys are pooled", result);

    let bytes = case.pool_plan().scratch_bytes();
    case.scratch = case.stream.alloc_zeros(bytes - 1).unwrap();
    driver.take_log();
    refused("scratch: expected at least", case.attention_pool(|_, _, _| ()));
}
