//! `Order::Exact`: which kernels it launches, and what it refuses.

use mivc::cuda::backward::{scores::ScoresBackward, softmax::SoftmaxBackward};
use mivc::cuda::{Capacity, Kernels, context};
use mivc::{
    AttentionParams, AttentionShape, AttentionTensors, Bags, Device, Dtype, Features, Order, PoolState, Pooler, Pooling,
};

use crate::Run;
use crate::driver::Driver;

pub const TRIALS: &[(&str, Run)] = &[
    ("exact::launches_its_own_kernels", launches_its_own_kernels),
    ("exact::has_no_backward_that_sums", has_no_backward_that_sums),
    ("exact::has_no_state", has_no_state),
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
        let log = driver.take_log();
        let launches: Vec<_> = log.iter().filter(|line| line.starts_with("cuLaunchKernel")).collect();
        assert_eq!(launches.len(), kernels.len(), "{launches:#?}");
        for (launch, kernel) in launches.iter().zip(kernels) {
            assert!(launch.contains(kernel), "{launch} is not of {kernel}");
        }
    }
}

fn has_no_backward_that_sums(_: &Driver) {
    let context = context(0).unwrap();
    let kernels = Kernels::load(&context).unwrap().with_order(Order::Exact);
    let stream = context.new_stream().unwrap();
    let says =
        |error: mivc::Error| assert!(error.to_string().starts_with("kernels: expected Order::Rounding"), "{error}");
    says(SoftmaxBackward::plan(&kernels, 1, Capacity { instances: 5, bags: 1 }).map(drop).unwrap_err());
    let packed = kernels.pack_backward(&stream, &params(), Dtype::F32).unwrap();
    says(ScoresBackward::plan(&packed, Dtype::F32, 5).map(drop).unwrap_err());
}

fn has_no_state(_: &Driver) {
    let bags = Bags::from_lengths(&[3]).unwrap();
    let images = [1.0_f32; 3 * DIM];
    let features = Features::new(&images, DIM).unwrap();
    for (pooling, heads) in [(Pooling::Attention(params()), 2), (Pooling::Mean, 1)] {
        let mut state = PoolState::empty_in(Order::Exact, 1, heads, DIM).unwrap();
        let error = pooler(pooling).pool_onto(&mut state, &features, &bags).unwrap_err().to_string();
        assert!(error.starts_with("device: expected the CPU for a state of Order::Exact"), "{error}");
    }
}
