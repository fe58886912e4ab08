//! CUDA graphs: a captured call, replayed on other numbers, gives what a call of its own gives.

use cudarc::driver::DevicePtr;
use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
use half::bf16;
use libtest_mimic::{Completion, Trial};
use mivc::cuda::attention_pool::{AttentionPool, Inputs, Outputs, Shape};
use mivc::cuda::raw::{self, AttentionPoolAddresses, Offsets};
use mivc::cuda::{Capacity, Kernels, OnePass, context};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Dtype, Element};

use crate::backends::gpu::expect_gpu;
use crate::support::Outcome;

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, run: fn() -> Outcome| {
        Trial::ignorable_test(name, move || match expect_gpu() {
            Ok(()) => run().map(|()| Completion::Completed),
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    };
    vec![
        trial("graphs::attention_pool::f32::gpu", || replays::<f32>(None)),
        trial("graphs::attention_pool::bf16::gpu", || replays::<bf16>(None)),
        trial("graphs::attention_pool::bf16::gpu-one-pass", || replays::<bf16>(Some(OnePass::Portable))),
    ]
}

const CALL: Capacity = Capacity { instances: 3000, bags: 4 };
const DIM: usize = 256;
const HIDDEN: usize = 64;

/// Offsets of short bags and of long ones, of all instances and of fewer.
const OFFSETS: [[i64; 5]; 3] = [[0, 5, 1000, 1000, 3000], [0, 3000, 3000, 3000, 3000], [7, 8, 300, 2000, 2001]];

fn replays<E: Element>(one_pass: Option<OnePass>) -> Outcome {
    let context = context(0)?;
    let kernels = match one_pass {
        None => Kernels::load(&context)?,
        Some(one_pass) => Kernels::load_with(&context, one_pass)?,
    };
    let stream = context.new_stream()?;
    let numbers = |len: usize, seed: usize| {
        (0..len).map(|i| ((i * 37 + seed * 101) % 257) as f32 / 257.0 - 0.5).collect::<Vec<f32>>()
    };
    let shape = AttentionShape { dim: DIM, hidden: HIDDEN, heads: 1, groups: 1 };
    let (v, w) = (numbers(HIDDEN * DIM, 1), numbers(HIDDEN, 2));
    let params = AttentionParams::new(shape, AttentionTensors { v: &v, u: Some(&v), w: &w, ..Default::default() })?;
    let packed = kernels.pack(&stream, &params, E::DTYPE)?;
    let operation = AttentionPool::plan(&packed, Shape { value_dim: DIM, outputs: Dtype::F32 }, CALL)?;

    let features = |seed| numbers(CALL.instances * DIM, seed).into_iter().map(E::from_f32).collect::<Vec<E>>();
    let mut keys = stream.clone_htod(&features(0))?;
    let mut offsets = stream.clone_htod(&OFFSETS[0])?;
    let mut pooled = stream.alloc_zeros::<f32>(CALL.bags * DIM)?;
    let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes())?;
    let keys_at = keys.device_ptr(&stream).0;
    let addresses = AttentionPoolAddresses {
        packed: packed.address(),
        keys: keys_at,
        key_stride: DIM,
        values: keys_at,
        value_stride: DIM,
        offsets: Offsets::I64(offsets.device_ptr(&stream).0),
        mask: 0,
        pooled: pooled.device_ptr(&stream).0,
        scores: 0,
        weights: 0,
        lse: 0,
        activations: 0,
        max: 0,
        sum: 0,
        exact: 0,
        scratch: scratch.device_ptr(&stream).0,
    };
    // Nothing that a capture waits for may come from outside.
    context.synchronize()?;
    stream.begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED)?;
    // SAFETY: the addresses are of buffers of these shapes, on this stream, that live as long as the graph.
    unsafe { raw::attention_pool(&operation, stream.cu_stream(), CALL, addresses) }?;
    let graph = stream
        .end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)?
        .ok_or("nothing was captured")?;

    for (seed, new_offsets) in OFFSETS.iter().enumerate() {
        stream.memcpy_htod(&features(seed), &mut keys)?;
        stream.memcpy_htod(new_offsets, &mut offsets)?;
        stream.memset_zeros(&mut pooled)?;
        graph.launch()?;
        let replayed = stream.clone_dtoh(&pooled)?;
        stream.memset_zeros(&mut pooled)?;
        let inputs =
            Inputs { keys: keys.as_view(), key_stride: DIM, values: None, offsets: offsets.as_view(), mask: None };
        operation.run(&stream, inputs, Outputs::of(pooled.as_view_mut()), scratch.as_view_mut())?;
        let called = stream.clone_dtoh(&pooled)?;
        if replayed.iter().zip(&called).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Err(format!("offsets {new_offsets:?}: the replayed call gives other bits").into());
        }
        if called.iter().all(|&z| z == 0.0) {
            return Err(format!("offsets {new_offsets:?}: nothing was pooled").into());
        }
    }
    Ok(())
}
