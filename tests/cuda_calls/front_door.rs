//! The front door and the tool.

use std::process::Command;

use half::f16;
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Device, Features, Pooler, Pooling, Projection};

use crate::driver::{Driver, count};
use crate::{Run, TOOL};

pub const TRIALS: &[(&str, Run)] = &[
    ("front_door::frees_what_it_allocates", frees_what_it_allocates),
    ("front_door::attention_packs_once_and_uploads_once", attention_packs_once_and_uploads_once),
    ("front_door::pools_onto_a_state", pools_onto_a_state),
    ("front_door::attention_that_does_not_fit", attention_that_does_not_fit),
    ("front_door::a_projection_is_refused", a_projection_is_refused),
];

fn frees_what_it_allocates(driver: &Driver) {
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

const DIM: usize = 4;

/// Two heads.
fn params() -> AttentionParams {
    let shape = AttentionShape { dim: DIM, hidden: 3, heads: 2, groups: 1 };
    let tensors = AttentionTensors { v: &[0.1; 3 * DIM], u: Some(&[0.1; 3 * DIM]), w: &[0.1; 6], ..Default::default() };
    AttentionParams::new(shape, tensors).unwrap()
}

fn attention_packs_once_and_uploads_once(driver: &Driver) {
    let pooler = Pooler::new(Pooling::Attention(params()), Device::Cuda(0)).unwrap();
    let bags = Bags::from_lengths(&[2, 0, 1]).unwrap().with_mask(vec![1, 1, 0]).unwrap();
    let (images, tokens) = ([f16::ONE; 3 * DIM], [f16::ONE; 3 * 2 * DIM]);
    let image = Features::new(&images, DIM).unwrap();
    driver.take_log();
    pooler.pool(&image, &bags).unwrap();
    let first = driver.take_log();
    assert_eq!(count(&first, "cuLaunchKernel"), 5, "packing and the four of attention pool");
    assert_eq!(count(&first, "cuMemAllocAsync"), count(&first, "cuMemFreeAsync") + 1, "the packed parameters stay");

    // Keys, offsets and mask, and values where there are some.
    let all = [
        (image, 4, 3),
        (Features::per_image(&images, DIM, &tokens, 2, DIM).unwrap(), 4, 4),
        (Features::per_position(&tokens, 2, DIM).unwrap(), 2 * 4, 3),
        (Features::all_tokens(&tokens, 2, DIM).unwrap(), 4, 3),
    ];
    for (features, launches, uploads) in all {
        let pooled = pooler.pool(&features, &bags).unwrap();
        assert_eq!(pooled.embeddings.data.len(), pooled.embeddings.shape.iter().product::<usize>());
        let log = driver.take_log();
        assert_eq!(count(&log, "cuLaunchKernel"), launches, "{log:#?}");
        assert_eq!(count(&log, "cuMemcpyHtoDAsync_v2"), uploads, "{log:#?}");
        assert_eq!(count(&log, "cuMemAllocAsync"), count(&log, "cuMemFreeAsync"));
        assert!(count(&log, "cuStreamSynchronize") > 0, "results are there when it returns");
    }

    // No bag, and bags of nothing.
    let none = Features::new(&images[..0], DIM).unwrap();
    pooler.pool(&none, &Bags::from_lengths(&[]).unwrap()).unwrap();
    assert_eq!(driver.take_log(), [""; 0]);
    pooler.pool(&none, &Bags::from_lengths(&[0]).unwrap()).unwrap();
    let none = Features::per_position(&tokens[..0], 2, DIM).unwrap();
    pooler.pool(&none, &Bags::from_lengths(&[0, 0]).unwrap()).unwrap();
    driver.take_log();
    drop(pooler);
    assert_eq!(count(&driver.take_log(), "cuMemFreeAsync"), 1, "the packed parameters");
}

fn pools_onto_a_state(driver: &Driver) {
    let pooler = Pooler::new(Pooling::Attention(params()), Device::Cuda(0)).unwrap();
    let bags = Bags::from_lengths(&[2, 0, 1]).unwrap().with_mask(vec![1, 1, 0]).unwrap();
    let (images, tokens) = ([f16::ONE; 3 * DIM], [f16::ONE; 3 * 2 * DIM]);
    pooler.pool(&Features::new(&images, DIM).unwrap(), &bags).unwrap();
    // Scores, the work list, softmax and weighted sum: no weights. Keys, offsets and mask,
    // and values where there are some. Embeddings, scores, m and l come back.
    let all = [
        (Features::new(&images, DIM).unwrap(), 4, 3),
        (Features::per_image(&images, DIM, &tokens, 2, DIM).unwrap(), 4, 4),
        (Features::per_position(&tokens, 2, DIM).unwrap(), 2 * 4, 3),
        (Features::all_tokens(&tokens, 2, DIM).unwrap(), 4, 3),
    ];
    for (features, launches, uploads) in all {
        driver.take_log();
        let mut state = pooler.empty_state(&features, 3).unwrap();
        let scores = pooler.pool_onto(&mut state, &features, &bags).unwrap();
        assert_eq!(scores.data.len(), scores.shape.iter().product::<usize>());
        let log = driver.take_log();
        assert_eq!(count(&log, "cuLaunchKernel"), launches, "{log:#?}");
        assert_eq!(count(&log, "cuMemcpyHtoDAsync_v2"), uploads, "{log:#?}");
        assert_eq!(count(&log, "cuMemcpyDtoHAsync_v2"), 4, "{log:#?}");
        assert_eq!(count(&log, "cuMemAllocAsync"), count(&log, "cuMemFreeAsync"));
        assert!(count(&log, "cuStreamSynchronize") > 0, "results are there when it returns");
    }

    // No bag, bags of nothing, and a state of others.
    let none = Features::new(&images[..0], DIM).unwrap();
    let mut state = pooler.empty_state(&none, 0).unwrap();
    pooler.pool_onto(&mut state, &none, &Bags::from_lengths(&[]).unwrap()).unwrap();
    assert_eq!(driver.take_log(), [""; 0]);
    let error = pooler.pool_onto(&mut state, &none, &Bags::from_lengths(&[0]).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("state: expected a state [B, K, D] = [1, 2, 4], got"), "{error}");
    assert_eq!(driver.take_log(), [""; 0]);
    let none = Features::per_position(&tokens[..0], 2, DIM).unwrap();
    let mut state = pooler.empty_state(&none, 2).unwrap();
    let scores = pooler.pool_onto(&mut state, &none, &Bags::from_lengths(&[0, 0]).unwrap()).unwrap();
    assert_eq!(scores.shape, [0, 2, 2]);
}

fn attention_that_does_not_fit(driver: &Driver) {
    let pooler = Pooler::new(Pooling::Attention(params()), Device::Cuda(0)).unwrap();
    driver.take_log();
    for rows in [0, 2] {
        let (data, bags) = (vec![0.0_f32; rows * 5], Bags::from_lengths(&[rows as i64]).unwrap());
        let error = pooler.pool(&Features::new(&data, 5).unwrap(), &bags).unwrap_err();
        assert_eq!(error.to_string(), "keys: expected rows of 4, the dim of the parameters, got 5");
    }
    assert_eq!(driver.take_log(), [""; 0]);
}

fn a_projection_is_refused(_: &Driver) {
    let params = params().with_projection(Projection::new(7, vec![0.0; 7 * DIM], None).unwrap()).unwrap();
    let error = Pooler::new(Pooling::Attention(params), Device::Cuda(0)).unwrap().project().unwrap_err();
    assert_eq!(
        error.to_string(),
        "device: expected the CPU for a projection, got a CUDA device, where there is none yet"
    );
}

/// Nothing is computed; that it runs at all is what is asked here.
pub fn the_tool_pools_on_the_device(_: &Driver) {
    let attention = ["gated-attention", "--params", "examples/data/attention_gated.safetensors"];
    // Of the bags some have more rows than fit, and are pooled in pieces.
    for (pooling, memory) in [(&["max-mean"][..], "8KiB"), (&attention, "140KiB")] {
        for memory in [&[][..], &["--memory", memory]] {
            let mut tool = Command::new(TOOL.unwrap());
            tool.args(["pool", "examples/data/bags_gated.safetensors", "--device", "cuda", "--pooling"]);
            let output = tool.args(pooling).args(memory).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
