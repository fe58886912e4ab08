//! Attention pool by one launch: where it was asked for, on keys that the kernels can read.

use half::{bf16, f16};
use mivc::cuda::attention_pool::{AttentionPool, Inputs, Outputs, Shape};
use mivc::cuda::{Capacity, Kernels, OnePass, PackedAttention, context};
use mivc::error::CudaError;
use mivc::launch::attention_pool::{self as launch, Addresses, Path};
use mivc::launch::{Hardware, Offsets, Step};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Dtype, Element};

use crate::Run;
use crate::driver::{Driver, address, count};

pub const TRIALS: &[(&str, Run)] = &[
    ("one_pass::every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("one_pass::maps_of_keys_and_columns_are_encoded", maps_of_keys_and_columns_are_encoded),
    ("one_pass::other_devices_are_refused", other_devices_are_refused),
];

const CALL: Capacity = Capacity { instances: 5, bags: 2 };
const DIM: usize = 256;
/// As the fake device says, besides.
const HARDWARE: Hardware = Hardware { one_pass: Some(OnePass::Sm90), ..Hardware::A100 };

fn packed(kernels: &Kernels, dim: usize, dtype: Dtype) -> PackedAttention {
    let shape = AttentionShape { dim, hidden: 256, heads: 1, groups: 1 };
    let (v, w) = (vec![0.1; 256 * dim], vec![0.1; 256]);
    let params = AttentionParams::new(shape, AttentionTensors { v: &v, w: &w, ..Default::default() }).unwrap();
    kernels.pack(&kernels.context().default_stream(), &params, dtype).unwrap()
}

/// Of every type and product, and either tile. The fake driver refuses a launch with more shared memory than its kernel
/// was given.
fn every_kernel_is_in_the_images(driver: &Driver) {
    for capability in [(8, 6), (8, 0)] {
        driver.set_capability(capability.0, capability.1);
        pool_keys::<f32>(driver, &[256]);
        pool_keys::<f16>(driver, &[256, 768]);
        pool_keys::<bf16>(driver, &[256, 768]);
    }
}

fn pool_keys<E: Element>(driver: &Driver, dims: &[usize]) {
    let context = context(0).unwrap();
    let stream = context.new_stream().unwrap();
    let kernels = Kernels::load_with(&context, OnePass::Portable).unwrap();
    for &dim in dims {
        let packed = packed(&kernels, dim, E::DTYPE);
        let operation = AttentionPool::plan(&packed, Shape { value_dim: dim, outputs: Dtype::F32 }, CALL).unwrap();
        let keys = stream.clone_htod(&vec![E::default(); CALL.instances * dim]).unwrap();
        let offsets = stream.clone_htod(&[0_i64, 2, 5]).unwrap();
        let mut pooled = stream.alloc_zeros::<f32>(CALL.bags * dim).unwrap();
        let mut weights = stream.alloc_zeros::<f32>(CALL.instances).unwrap();
        let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
        driver.take_log();
        let inputs =
            Inputs { keys: keys.as_view(), key_stride: dim, values: None, offsets: offsets.as_view(), mask: None };
        let outputs = Outputs { weights: Some(weights.as_view_mut()), ..Outputs::of(pooled.as_view_mut()) };
        operation.run(&stream, inputs, outputs, scratch.as_view_mut()).unwrap();
        let log = driver.take_log();
        assert_eq!(count(&log, "cuLaunchKernel"), 3, "the work list, attention pool and its weights: {log:#?}");
        assert!(log.iter().any(|line| line.contains("mivc_attention_pool_")), "{log:#?}");
    }
}

fn maps_of_keys_and_columns_are_encoded(driver: &Driver) {
    driver.set_capability(9, 0);
    let context = context(0).unwrap();
    let stream = context.new_stream().unwrap();
    let kernels = Kernels::load_with(&context, OnePass::Sm90).unwrap();
    let packed = packed(&kernels, DIM, Dtype::F16);
    let shape = Shape { value_dim: DIM, outputs: Dtype::F32 };
    let operation = AttentionPool::plan(&packed, shape, CALL).unwrap();
    let path = Path::of(&packed.plan(), HARDWARE);
    assert!(matches!(path, Path::Sm90(_)) && operation.path() == path, "{path:?}");

    let keys = stream.clone_htod(&[f16::ONE; (CALL.instances + 1) * DIM]).unwrap();
    let offsets = stream.clone_htod(&[0_i64, 2, 5]).unwrap();
    let mut pooled = stream.alloc_zeros::<f32>(CALL.bags * DIM).unwrap();
    let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
    let plan = launch::Shape { pack: packed.plan(), value_dim: DIM, outputs: Dtype::F32, path };
    let plan = launch::AttentionPool::plan(plan, CALL).unwrap();

    // Rows at multiples of 16 bytes, and rows at others, which take two passes.
    for (first, kernel) in [(0, "mivc_attention_pool_sm90_f16_128"), (1, "mivc_scores_f16_large")] {
        let at = address(&keys) + (first * size_of::<f16>()) as u64;
        let steps = plan.steps(
            CALL,
            Addresses {
                exact: 0,
                packed: packed.address(),
                keys: at,
                key_stride: DIM,
                values: at,
                value_stride: DIM,
                offsets: Offsets::I64(address(&offsets)),
                mask: 0,
                pooled: address(&pooled),
                scores: 0,
                weights: 0,
                lse: 0,
                activations: 0,
                max: 0,
                sum: 0,
                scratch: address(&scratch),
            },
        );
        let steps = steps.unwrap();
        let names = |step: &Step| matches!(step, Step::Launch(launch) if launch.kernel == kernel);
        assert!(steps.iter().any(names), "{steps:?}");
        let expected = driver.lines(&steps, &stream);
        driver.expect_guarded(3, 2, &expected, || {
            let (keys, offsets) = (keys.slice(first..first + CALL.instances * DIM), offsets.as_view());
            let inputs = Inputs { keys, key_stride: DIM, values: None, offsets, mask: None };
            operation.run(&stream, inputs, Outputs::of(pooled.as_view_mut()), scratch.as_view_mut())
        });
    }
}

fn other_devices_are_refused(driver: &Driver) {
    let context = context(0).unwrap();
    let without = Kernels::load(&context).unwrap();
    let plan =
        AttentionPool::plan(&packed(&without, DIM, Dtype::F16), Shape { value_dim: DIM, outputs: Dtype::F32 }, CALL)
            .unwrap();
    assert_eq!(plan.path(), Path::TwoPasses, "one pass was not asked for");
    // CUDA_ERROR_NO_BINARY_FOR_GPU, as a device of another architecture has it.
    driver.fail(c"cuModuleLoadData", 209);
    let error = Kernels::load_with(&context, OnePass::Sm90).unwrap_err();
    assert!(matches!(error, CudaError::NoImage { .. }), "{error}");
}
