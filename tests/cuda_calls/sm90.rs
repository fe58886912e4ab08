//! The kernels for sm_90a: used where they were asked for, on keys that the copy engine can read.

use half::f16;
use mivc::cuda::attention_pool::{AttentionPool, Inputs, Outputs, Shape};
use mivc::cuda::{Capacity, Kernels, PackedAttention, context};
use mivc::error::CudaError;
use mivc::launch::attention_pool::{self as launch, Addresses, Path};
use mivc::launch::{Hardware, Offsets, Step};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Dtype};

use crate::Run;
use crate::driver::{Driver, address};

pub const TRIALS: &[(&str, Run)] = &[
    ("sm90::maps_of_keys_and_columns_are_encoded", maps_of_keys_and_columns_are_encoded),
    ("sm90::other_devices_are_refused", other_devices_are_refused),
];

const CALL: Capacity = Capacity { instances: 5, bags: 2 };
const DIM: usize = 256;
/// As the fake device says, besides.
const HARDWARE: Hardware = Hardware { has_sm90: true, ..Hardware::A100 };

fn packed(kernels: &Kernels) -> PackedAttention {
    let shape = AttentionShape { dim: DIM, hidden: 256, heads: 1, groups: 1 };
    let (v, w) = (vec![0.1; 256 * DIM], vec![0.1; 256]);
    let params = AttentionParams::new(shape, AttentionTensors { v: &v, w: &w, ..Default::default() }).unwrap();
    kernels.pack(&kernels.context().default_stream(), &params, Dtype::F16).unwrap()
}

fn maps_of_keys_and_columns_are_encoded(driver: &Driver) {
    driver.set_capability(9, 0);
    let context = context(0).unwrap();
    let stream = context.new_stream().unwrap();
    let kernels = Kernels::load_with_sm90(&context).unwrap();
    let packed = packed(&kernels);
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
    let plan = AttentionPool::plan(&packed(&without), Shape { value_dim: DIM, outputs: Dtype::F32 }, CALL).unwrap();
    assert!(!matches!(plan.path(), Path::Sm90(_)), "it was not asked for");
    // CUDA_ERROR_NO_BINARY_FOR_GPU, as a device of another architecture has it.
    driver.fail(c"cuModuleLoadData", 209);
    let error = Kernels::load_with_sm90(&context).unwrap_err();
    assert!(matches!(error, CudaError::NoImage { .. }), "{error}");
}
