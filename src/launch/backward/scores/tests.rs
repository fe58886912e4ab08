use super::*;
use crate::launch::pack;

/// 512 columns, of which a slice has 16384 rows.
fn plan(instances: usize) -> ScoresBackward {
    plan_in(Order::Rounding, instances)
}

fn plan_in(order: Order, instances: usize) -> ScoresBackward {
    let attention = AttentionShape { dim: 768, hidden: 256, heads: 1, groups: 1 };
    let shape = pack::Shape { attention, gated: true, features: Dtype::Bf16, f32_product: F32Product::Split };
    let shape = Shape { pack: PackBackward::plan(shape).unwrap(), gradients: Dtype::F32 };
    ScoresBackward::plan(order, shape, instances).unwrap()
}

const V: ParamGradients =
    ParamGradients { v: Some(Gradient::Set(0x7000_0000)), v_bias: None, u: None, u_bias: None, w: None, w_bias: None };
const ADDRESSES: Addresses = Addresses {
    packed: 0x1000_0000,
    features: 0x2000_0000,
    row_stride: 768,
    mask: 0x3000_0000,
    activations: 0x4000_0000,
    d_scores: 0x5000_0000,
    d_features: Some(Gradient::Set(0x6000_0000)),
    params: V,
    scratch: 0x1_0000_0000,
};

fn launches(instances: usize, addresses: Addresses) -> Vec<Launch> {
    let steps = plan(instances).steps(instances, addresses).unwrap();
    steps.iter().map(|step| *step.as_launch().unwrap()).collect()
}

fn kernels(instances: usize, addresses: Addresses) -> Vec<&'static str> {
    launches(instances, addresses).iter().map(|launch| launch.kernel).collect()
}

#[test]
fn what_is_asked_for_has_its_launches() {
    let [columns, features, matrices, sum] = [
        "mivc_scores_d_columns_bf16",
        "mivc_scores_d_features_bf16_split",
        "mivc_scores_d_matrices_bf16_split",
        "mivc_sum_parts",
    ];
    assert_eq!(kernels(100, ADDRESSES), [columns, features, matrices, sum]);
    let recomputed = kernels(100, Addresses { activations: 0, ..ADDRESSES });
    assert_eq!(recomputed, ["mivc_scores_bf16_large", columns, features, matrices, sum]);
    // A frozen encoder costs the product with V and U nothing.
    assert_eq!(kernels(100, Addresses { d_features: None, ..ADDRESSES }), [columns, matrices, sum]);
    let no_params = Addresses { params: ParamGradients::default(), ..ADDRESSES };
    assert_eq!(kernels(100, no_params), [columns, features]);
    let of_w = ParamGradients { v: None, w: V.v, ..V };
    let of_w = Addresses { params: of_w, d_features: None, ..ADDRESSES };
    assert_eq!(kernels(100, of_w), ["mivc_scores_d_w_bf16", sum]);
    assert_eq!(kernels(100, Addresses { d_features: None, ..no_params }), [""; 0]);
    // No instance has a part; the gradients are 0, or stay.
    assert_eq!(kernels(0, ADDRESSES), [sum]);
}

#[test]
fn slices_follow_each_other_and_parts_are_summed_once() {
    const ROWS: usize = 16384;
    let work = launches(2 * ROWS + 1, ADDRESSES);
    assert_eq!(work.len(), 3 * 3 + 1);
    let slice = |launch: &Launch| match &launch.parameters {
        Parameters::ScoresBackward(parameters) => (parameters.slice, parameters.d_scores, parameters.adds),
        other => panic!("{other:?}"),
    };
    for (number, rows) in [ROWS, ROWS, 1].into_iter().enumerate() {
        let first = number * ROWS;
        let (at, d_scores, adds) = slice(&work[3 * number]);
        assert_eq!((at.first, at.rows, adds), (first as i64, rows as i64, u32::from(number > 0)));
        assert_eq!((at.mask, d_scores), (0x3000_0000 + first as u64, 0x5000_0000 + 4 * first as u64));
        let Parameters::ScoresFeaturesBackward(features) = &work[3 * number + 1].parameters else { panic!() };
        assert_eq!(features.d_features.to, 0x6000_0000 + (4 * 768 * first) as u64);
        let Parameters::ScoresMatricesBackward(matrices) = &work[3 * number + 2].parameters else { panic!() };
        assert_eq!(matrices.features.rows, 0x2000_0000 + (2 * 768 * first) as u64);
        assert_eq!(matrices.adds, u32::from(number > 0));
    }
    assert_eq!(work.last().unwrap().kernel, "mivc_sum_parts");
}

#[test]
fn in_exact_order_parameters_are_of_slices_in_order_and_features_of_those_as_they_come() {
    const ROWS: usize = 16384;
    let steps = plan_in(Order::Exact, 2 * ROWS + 1).steps(2 * ROWS + 1, ADDRESSES).unwrap();
    let work: Vec<Launch> = steps.iter().map(|step| *step.as_launch().unwrap()).collect();
    let kernels: Vec<_> = work.iter().map(|launch| launch.kernel).collect();
    let (order, gather) = ("mivc_exact_order_b16", "mivc_exact_gather_b16");
    let [columns, matrices, features] =
        ["mivc_scores_d_columns_bf16", "mivc_scores_d_matrices_bf16_split", "mivc_scores_d_features_bf16_split"];
    let of_params = [gather, columns, matrices].repeat(3);
    let of_features = [columns, features].repeat(3);
    let expected =
        [vec![order], vec!["mivc_exact_merge_b16"; 8], of_params, of_features, vec!["mivc_sum_parts"]].concat();
    assert_eq!(kernels, expected);

    let Parameters::ExactOrder(last_merge) = &work[8].parameters else { panic!() };
    assert_eq!(last_merge.run_rows, 256 << 7);
    for (number, rows) in [ROWS, ROWS, 1].into_iter().enumerate() {
        let [gather, columns, matrices] = &work[9 + 3 * number..][..3] else { panic!() };
        let Parameters::ExactGather(gather_of) = &gather.parameters else { panic!() };
        assert_eq!(gather_of.entries, last_merge.to + (16 * number * ROWS) as u64);
        assert_eq!(gather.grid, [rows as u32, 1, 1]);
        let Parameters::ScoresBackward(columns) = &columns.parameters else { panic!() };
        assert_eq!((columns.d_scores, columns.slice.mask), (gather_of.to_d_scores, gather_of.to_mask));
        assert_eq!(columns.activations.at, gather_of.to_activations);
        let Parameters::ScoresMatricesBackward(matrices) = &matrices.parameters else { panic!() };
        assert_eq!((matrices.features.rows, matrices.slice.rows), (gather_of.to_features, rows as i64));
        assert_eq!((columns.adds, matrices.adds), (u32::from(number > 0), u32::from(number > 0)));
    }
}

#[test]
fn scratch_has_an_end() {
    assert_eq!(plan(1 << 20).scratch_bytes(), plan(16384).scratch_bytes());
    assert!(plan(16384).scratch_bytes() < 2 * SLICE_BYTES, "{}", plan(16384).scratch_bytes());
    assert!(plan(100).scratch_bytes() < plan(16384).scratch_bytes());
}

#[test]
fn no_more_than_planned_and_of_what_is_there() {
    let error = plan(100).steps(101, ADDRESSES).unwrap_err();
    assert!(error.to_string().starts_with("instances: expected at most the 100"), "{error}");
    let attention = AttentionShape { dim: 8, hidden: 4, heads: 1, groups: 1 };
    let shape = pack::Shape { attention, gated: false, features: Dtype::F32, f32_product: F32Product::Plain };
    let shape = Shape { pack: PackBackward::plan(shape).unwrap(), gradients: Dtype::F32 };
    let of_u = ParamGradients { u: V.v, ..V };
    let error =
        ScoresBackward::plan(Order::Rounding, shape, 9).unwrap().steps(9, Addresses { params: of_u, ..ADDRESSES });
    assert!(error.unwrap_err().to_string().starts_with("params.u: expected none"));
    let error = ScoresBackward::plan(Order::Rounding, Shape { gradients: Dtype::F16, ..shape }, 9).unwrap_err();
    assert!(error.to_string().starts_with("gradients: "), "{error}");
}
