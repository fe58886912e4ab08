//! `Order::Exact`: which kernels it launches, and what it refuses.

use mivc::cuda::backward::Gradient;
use mivc::cuda::backward::scores::{self, ParamGradients, ScoresBackward};
use mivc::cuda::backward::softmax::{self, SoftmaxBackward};
use mivc::cuda::state::Merge;
use mivc::cuda::{Capacity, Kernels, context};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Device, Dtype, Features, Order, Pooler, Pooling};

use crate::Run;
use crate::driver::{Driver, count};

pub const TRIALS: &[(&str, Run)] = &[
    ("exact::launches_its_own_kernels", launches_its_own_kernels),
    ("exact::launches_its_own_backwards", launches_its_own_backwards),
    ("exact::brings_the_sums_of_a_state", brings_the_sums_of_a_state),
];

const DIM: usize = 4;

fn params() -> AttentionParams {
    let shape = AttentionShape { dim: DIM, hidden: 3, heads: 2, groups: 1 };
    let tensors = AttentionTensors { v: &[0.1; 3 * DIM], u: Some(&[0.1; 3 * DIM]), w: &[0.1; 6], ..Default::default() };
    AttentionParams::new(shape, tensors).unwrap()
}

fn pooler(pooling: Pooling) -> Pooler {
    let pooler = Pooler::new(pooling, Device::Cuda(0)).unwrap().with_order(Order::Exact);
    assert_eq!(pooler.order(), Order::Exact);
    pooler
}

fn launches_its_own_kernels(driver: &Driver) {
    let bags = Bags::from_lengths(&[2, 0, 1]).unwrap();
    let images = [1.0_f32; 3 * DIM];
    let features = Features::new(&images, DIM).unwrap();
    let expected: [(Pooling, &[&str]); 4] = [
        (Pooling::Mean, &["mivc_prepare", "mivc_exact_weighted_sum_f32"]),
        (Pooling::Max, &["mivc_prepare", "mivc_max_mean_argmax_f32_vector"]),
        (
            Pooling::MaxMean,
            &["mivc_prepare", "mivc_max_mean_f32_vector", "mivc_prepare", "mivc_exact_weighted_sum_f32"],
        ),
        (
            Pooling::Attention(params()),
            &[
                "mivc_pack_f32",
                "mivc_scores_f32_split_small",
                "mivc_prepare",
                "mivc_exact_softmax",
                "mivc_prepare",
                "mivc_exact_weighted_sum_f32",
            ],
        ),
    ];
    for (pooling, kernels) in expected {
        let pooler = pooler(pooling);
        driver.take_log();
        pooler.pool(&features, &bags).unwrap();
        expect_launches(driver, kernels);
    }
}

/// Since the log was last taken.
fn expect_launches(driver: &Driver, kernels: &[&str]) {
    let log = driver.take_log();
    let launches: Vec<_> = log.iter().filter(|line| line.starts_with("cuLaunchKernel")).collect();
    assert_eq!(launches.len(), kernels.len(), "{launches:#?}");
    for (launch, kernel) in launches.iter().zip(kernels) {
        assert!(launch.contains(kernel), "{launch} is not of {kernel}");
    }
}

fn launches_its_own_backwards(driver: &Driver) {
    const N: usize = 300;
    let context = context(0).unwrap();
    let kernels = Kernels::load(&context).unwrap().with_order(Order::Exact);
    let stream = context.new_stream().unwrap();
    let floats = |len: usize| stream.clone_htod(&vec![0.5_f32; len]).unwrap();
    let (weights, d_weights) = (floats(N), floats(N));
    let offsets = stream.clone_htod(&[0_i64, N as i64]).unwrap();
    let mut d_scores = floats(N);
    let operation = SoftmaxBackward::plan(&kernels, 1, Capacity { instances: N, bags: 1 }).unwrap();
    let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
    let inputs = softmax::Inputs {
        weights: weights.as_view(),
        d_weights: Some(d_weights.as_view()),
        d_lse: None,
        offsets: offsets.as_view(),
        mask: None,
    };
    driver.take_log();
    operation.run(&stream, inputs, Gradient::Set(d_scores.as_view_mut()), scratch.as_view_mut()).unwrap();
    let of_softmax = ["mivc_prepare", "mivc_exact_softmax_backward", "mivc_exact_softmax_backward_long"];
    expect_launches(driver, &of_softmax);

    let packed = kernels.pack_backward(&stream, &params(), Dtype::F32).unwrap();
    let operation = ScoresBackward::plan(&packed, Dtype::F32, N).unwrap();
    let mut scratch = stream.alloc_zeros::<u8>(operation.scratch_bytes()).unwrap();
    let (features, d_scores) = (floats(N * DIM), floats(N * 2));
    let (mut d_features, mut d_w) = (floats(N * DIM), floats(6));
    let (order, gather) = (["mivc_exact_order_b32", "mivc_exact_merge_b32"], "mivc_exact_gather_b32");
    let (scores, d_w_kernel) = ("mivc_scores_f32_split_small", "mivc_scores_d_w_f32");
    let of_features = [scores, "mivc_scores_d_columns_f32", "mivc_scores_d_features_f32_split"];
    let of_w = [order[0], order[1], gather, scores, d_w_kernel];
    for (wants_w, expected) in
        [(false, of_features.to_vec()), (true, [&of_w[..], &of_features, &["mivc_sum_parts"]].concat())]
    {
        let inputs = scores::Inputs {
            features: features.as_view(),
            row_stride: DIM,
            mask: None,
            activations: None,
            d_scores: d_scores.as_view(),
        };
        let params = ParamGradients { w: wants_w.then(|| Gradient::Set(d_w.as_view_mut())), ..Default::default() };
        let gradients = scores::Gradients { features: Some(Gradient::Set(d_features.as_view_mut())), params };
        driver.take_log();
        operation.run(&stream, inputs, gradients, scratch.as_view_mut()).unwrap();
        expect_launches(driver, &expected);
    }
}

/// The sums come to the host. This driver computes nothing: what it leaves is no kernel's, and the state stays as it was.
fn brings_the_sums_of_a_state(driver: &Driver) {
    let bags = Bags::from_lengths(&[3]).unwrap();
    let images = [1.0_f32; 3 * DIM];
    let features = Features::new(&images, DIM).unwrap();
    let positions = Features::per_position(&images[..2 * DIM], 2, DIM).unwrap();
    let one = Bags::from_lengths(&[1]).unwrap();
    let attention = || pooler(Pooling::Attention(params()));
    for (pooler, features, bags, downloads) in [
        (pooler(Pooling::Mean), &features, &bags, 1),
        (attention(), &features, &bags, 2),
        (attention(), &positions, &one, 2),
    ] {
        let empty = pooler.empty_state(features, 1).unwrap();
        let mut state = empty.clone();
        // What is packed stays.
        pooler.pool(features, bags).unwrap();
        driver.take_log();
        let error = pooler.pool_onto(&mut state, features, bags).unwrap_err().to_string();
        assert!(error.starts_with("sum: expected a positive"), "{error}");
        assert_eq!(state, empty);
        let log = driver.take_log();
        assert_eq!(count(&log, "cuMemcpyDtoHAsync_v2"), downloads, "{log:#?}");
        assert_eq!(count(&log, "cuMemAllocAsync"), count(&log, "cuMemFreeAsync"));
    }
    let kernels = Kernels::load(&context(0).unwrap()).unwrap().with_order(Order::Exact);
    let error = Merge::plan(&kernels, 3).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("kernels: expected Order::Rounding, as exact sums merge"), "{error}");
}
