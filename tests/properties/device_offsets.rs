//! What only the device knows: offsets that no host has seen, and what a kernel reads and how.

use half::{bf16, f16};
use libtest_mimic::{Failed, Trial};
use mivc::cpu::{AttentionPoolUpstream, MaxMeanOutputs, MaxMeanUpstream, Saved, SoftmaxUpstream, Values};
use mivc::launch::attention_pool::Path;
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Dtype, Element, Rows};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use ptx_vm::{Checks, Statistics};

use crate::backends::Backend;
use crate::backends::vm::{
    Call, DeviceBags, Machine, Parts, PoolBackwardCall, SumCall, Target, VM, VM_ONE_PASS, VM_PLAIN, VM_SM90, VmBackend,
};
use crate::support::{Case, Outcome, small_cases};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("device_offsets::any_values::vm", any_values),
        Trial::test("device_offsets::each_feature_is_read_once::vm", each_feature_is_read_once),
        Trial::test("device_offsets::scores_read_whole_sectors::f32::vm", scores_read_whole_sectors::<f32>),
        Trial::test("device_offsets::scores_read_whole_sectors::f16::vm", scores_read_whole_sectors::<f16>),
        Trial::test("device_offsets::scores_read_whole_sectors::bf16::vm", scores_read_whole_sectors::<bf16>),
        Trial::test("device_offsets::attention_pool_reads_keys_once::f32::vm-one-pass", || {
            pool_reads_keys_once::<f32>(&VM_ONE_PASS)
        }),
        Trial::test("device_offsets::attention_pool_reads_keys_once::f16::vm-one-pass", || {
            pool_reads_keys_once::<f16>(&VM_ONE_PASS)
        }),
        Trial::test("device_offsets::attention_pool_reads_keys_once::bf16::vm-one-pass", || {
            pool_reads_keys_once::<bf16>(&VM_ONE_PASS)
        }),
        Trial::test("device_offsets::attention_pool_reads_keys_once::f16::vm-sm90", || {
            pool_reads_keys_once::<f16>(&VM_SM90)
        }),
        Trial::test("device_offsets::attention_pool_reads_keys_once::bf16::vm-sm90", || {
            pool_reads_keys_once::<bf16>(&VM_SM90)
        }),
        Trial::test("device_offsets::any_values_of_backwards::vm", any_values_of_backwards),
        Trial::test("device_offsets::any_values_of_attention_pool_backward::vm", any_values_of_attention_pool_backward),
        Trial::test("device_offsets::backwards_move_their_bytes_once::vm", backwards_move_their_bytes_once),
        Trial::test("device_offsets::states_of_any_numbers::vm", states_of_any_numbers),
        Trial::test("device_offsets::states_are_read_once::vm", states_are_read_once),
    ]
}

/// As `prepare` makes them: within 0 and N, each at least the one before.
fn mended(offsets: &[i64], instances: usize) -> Vec<i64> {
    let clamped = offsets.iter().map(|&offset| offset.clamp(0, instances as i64));
    clamped.scan(0, |greatest, offset| Some(std::mem::replace(greatest, offset.max(*greatest)).max(offset))).collect()
}

/// What a kernel that gets i32 sees: other offsets, but any will do.
fn narrowed(offsets: &[i64]) -> Vec<i64> {
    offsets.iter().map(|&offset| i64::from(offset as i32)).collect()
}

/// Any offsets give what mended ones give; the machine finds every access out of bounds.
fn any_values() -> Outcome {
    of_any_offsets(check_offsets)
}

fn of_any_offsets(check: impl Fn(&Case, &[i64]) -> Result<(), TestCaseError>) -> Outcome {
    let offset = prop_oneof![4 => -2..40_i64, 1 => any::<i32>().prop_map(i64::from), 1 => any::<i64>()];
    let strategy = (small_cases(), prop::collection::vec(offset, 1..12));
    let config = Config { cases: 96, rng_seed: RngSeed::Fixed(0), failure_persistence: None, ..Config::default() };
    Ok(TestRunner::new(config).run(&strategy, |(case, offsets)| check(&case, &offsets)).map_err(|e| e.to_string())?)
}

fn check_offsets(case: &Case, offsets: &[i64]) -> Result<(), TestCaseError> {
    let features = case.features::<f32>();
    let (instances, dim) = (features.len(), features.dim());
    let mask = vec![1; instances];
    let pooled = |offsets: &[i64], wide| {
        let len = (offsets.len() - 1) * dim;
        let (mut max, mut mean, mut argmax) = (vec![7.0_f32; len], vec![7.0_f32; len], vec![7; len]);
        let outputs = MaxMeanOutputs { max: Some(&mut max), mean: Some(&mut mean), argmax: Some(&mut argmax) };
        let call = Call { features: features.rows(), offsets, mask: Some(&mask), wide };
        let results = VM.max_mean_under(&call, &outputs, ptx_vm::Checks::Full, 1).expect("the plan");
        results.outputs
    };
    let narrow = narrowed(offsets);
    prop_assert_eq!(pooled(offsets, true), pooled(&mended(offsets, instances), true));
    prop_assert_eq!(pooled(&narrow, false), pooled(&mended(&narrow, instances), false));
    Ok(())
}

/// The same of backwards; and what is in no bag has no gradient written.
fn any_values_of_backwards() -> Outcome {
    of_any_offsets(|case, offsets| {
        for (offsets, wide) in [(offsets, true), (&narrowed(offsets), false)] {
            let mended = mended(offsets, case.instances());
            let gradients = backwards(case, offsets, wide);
            // As text, in which a NaN is as another.
            prop_assert_eq!(format!("{:?}", gradients), format!("{:?}", backwards(case, &mended, true)));
            let (first, last) = (mended[0] as usize, mended[mended.len() - 1] as usize);
            for gradient in gradients {
                let row = gradient.len() / case.instances().max(1);
                let outside = gradient[..first * row].iter().chain(&gradient[last * row..]);
                prop_assert!(outside.copied().all(|x| x == BEFORE));
            }
        }
        Ok(())
    })
}

/// What gradients hold before a call.
const BEFORE: f32 = 7.0;

/// Of scores, weights, values and features.
fn backwards(case: &Case, offsets: &[i64], wide: bool) -> [Vec<f32>; 4] {
    let (weights, features, heads) = (case.weights(), case.features::<f32>(), case.heads);
    let d_pooled = vec![0.5; (offsets.len() - 1) * heads * case.dim];
    let bags = DeviceBags { offsets, wide, mask: None };
    let before = vec![BEFORE; case.instances() * heads.max(case.dim)];
    let target = |row: usize| Target { data: &before[..case.instances() * row], adds: false };
    let machine = || Machine::new(Checks::Full, 1);
    let upstream = SoftmaxUpstream { weights: Some(&weights), lse: None };
    let d_scores = machine().softmax_backward(&weights, heads, bags, upstream, target(heads)).expect("the plan");
    let call = SumCall { weights: &weights, heads, values: features.shared(), d_pooled: &d_pooled };
    let of_sum = machine().weighted_sum_backward(&call, bags, Some(target(heads)), Some(target(case.dim)));
    let (d_weights, d_values) = of_sum.expect("the plan");
    let d_pooled = &d_pooled[..(offsets.len() - 1) * case.dim];
    let upstream = MaxMeanUpstream { max: Some(d_pooled), mean: Some(d_pooled) };
    let d_features = machine().max_mean_backward(features.rows(), bags, upstream, target(case.dim)).expect("the plan");
    [d_scores, d_weights.expect("asked for"), d_values.expect("asked for"), d_features]
}

/// The same of attention pool, whose parameters have gradients of all instances that are in a bag.
fn any_values_of_attention_pool_backward() -> Outcome {
    of_any_offsets(|case, offsets| {
        for (offsets, wide) in [(offsets, true), (&narrowed(offsets), false)] {
            let mended = mended(offsets, case.instances());
            let (d_keys, params) = pool_backward(case, offsets, wide);
            prop_assert_eq!(format!("{:?}", (&d_keys, params)), format!("{:?}", pool_backward(case, &mended, true)));
            let (first, last) = (mended[0] as usize * case.dim, mended[mended.len() - 1] as usize * case.dim);
            prop_assert!(d_keys[..first].iter().chain(&d_keys[last..]).all(|&x| x == BEFORE));
        }
        Ok(())
    })
}

/// Of keys that are pooled themselves, and of the parameters.
fn pool_backward(case: &Case, offsets: &[i64], wide: bool) -> (Vec<f32>, [Option<Vec<f32>>; 6]) {
    let (params, weights, features) = (case.params(), case.weights(), case.features::<f32>());
    let bags = DeviceBags { offsets, wide, mask: None };
    let d_pooled = vec![0.5; (offsets.len() - 1) * case.heads * case.dim];
    let d_lse = vec![0.25; (offsets.len() - 1) * case.heads];
    let tensors = params.tensors();
    let lens = [Some(tensors.v), tensors.v_bias, tensors.u, tensors.u_bias, Some(tensors.w), tensors.w_bias];
    let before = lens.map(|tensor| tensor.map(|tensor| vec![BEFORE; tensor.len()]));
    let d_keys = vec![BEFORE; case.instances() * case.dim];
    let call = PoolBackwardCall {
        packed: &VM.pack_backward(&params, Dtype::F32),
        keys: features.rows(),
        values: None,
        bags,
        saved: Saved { weights: &weights, activations: None },
        upstream: AttentionPoolUpstream { pooled: Some(&d_pooled), scores: None, weights: None, lse: Some(&d_lse) },
    };
    let to_params = before.each_ref().map(|before| before.as_ref().map(|data| Target { data, adds: false }));
    let to_keys = Some(Target { data: &d_keys, adds: false });
    let results = Machine::new(Checks::Full, 1).attention_pool_backward(&call, (to_keys, None, to_params));
    let (d_keys, _, d_params) = results.expect("the plan");
    (d_keys.expect("asked for"), d_params)
}

/// Values are read once for the gradient of the weights and not for their own, features once where the maximum is known
/// and not for the mean; what is written is the gradient. Gradients of what was pooled come from cache, again for every
/// few rows.
fn backwards_move_their_bytes_once() -> Outcome {
    let (bags, dim) = (Bags::from_lengths(&[300, 256, 7, 997])?, 512);
    let data: Vec<f32> = (0..bags.instances() * dim).map(|i| (i % 1000) as f32).collect();
    let (rows, weights, d_pooled) =
        (Rows::new(&data, dim)?, vec![0.5; bags.instances()], vec![1.0_f32; bags.len() * dim]);
    let bytes = 4 * data.len() as u64;
    let expect = |what: &str, counted: Statistics, [read, more]: [u64; 2], written: u64| {
        let fetched = 32 * counted.global_loads.sectors;
        let is_right = (read..=read + more).contains(&fetched) && counted.global_stores.bytes == written;
        if is_right { Ok(()) } else { Err(Failed::from(format!("{what}: {bytes} bytes, {counted:?}"))) }
    };
    let all = Target { data: &data[..], adds: false };
    let of_weights = Target { data: &weights[..], adds: false };

    let call = SumCall { weights: &weights, heads: 1, values: Values::Shared(rows), d_pooled: &d_pooled };
    let mut machine = Machine::new(Checks::Bounds, 0);
    machine.weighted_sum_backward(&call, (&bags).into(), Some(of_weights), None)?;
    expect("d_weights", machine.last(), [bytes, bytes / 5], 4 * weights.len() as u64)?;
    machine.weighted_sum_backward(&call, (&bags).into(), None, Some(all))?;
    expect("d_values", machine.last(), [0, bytes / 3], bytes)?;

    let upstream = |max, mean| MaxMeanUpstream { max, mean };
    machine.max_mean_backward(rows, (&bags).into(), upstream(Some(&d_pooled[..]), None), all)?;
    let of_long = (300 + 997) * dim as u64 * 4;
    expect("d_features of max", machine.last(), [of_long, of_long / 10], of_long)?;
    machine.max_mean_backward(rows, (&bags).into(), upstream(None, Some(&d_pooled[..])), all)?;
    expect("d_features of mean", machine.last(), [0, bytes / 20], bytes)
}

/// Loads of 16 bytes, whole sectors of 32, each once; beside the features there are only a few offsets.
fn each_feature_is_read_once() -> Outcome {
    let (bags, dim) = (Bags::from_lengths(&[300, 256, 7, 997])?, 512);
    let data: Vec<f32> = (0..bags.instances() * dim).map(|i| (i % 1000) as f32).collect();
    let features = Rows::new(&data, dim)?;
    let mut mean = vec![0.0_f32; bags.len() * dim];
    let outputs = MaxMeanOutputs { mean: Some(&mut mean), ..MaxMeanOutputs::default() };
    let call = Call { features, offsets: bags.offsets(), mask: None, wide: true };
    let results = VM.max_mean_under(&call, &outputs, ptx_vm::Checks::Bounds, 0)?;
    let loads = results.work.global_loads;
    let bytes = 4 * data.len() as u64;
    let fetched = 32 * loads.sectors;
    if fetched < bytes || fetched > bytes + bytes / 20 {
        return Err(format!("{fetched} bytes in sectors for {bytes} bytes of features").into());
    }
    if loads.bytes / loads.requests < 16 * 30 {
        return Err(format!("{} bytes in {} requests", loads.bytes, loads.requests).into());
    }
    Ok(())
}

/// What the loop over D adds for 256 features more: whole sectors of features and of V and U, each once for a tile,
/// and no bank conflict. With each size of tile, on both products of f32.
fn scores_read_whole_sectors<E: Element>() -> Outcome {
    const MORE: usize = 256;
    // Whole tiles; and such a number of rows is laid out with nothing between them.
    for (hidden, gated, columns) in [(32, false, 32), (64, true, 128), (128, true, 256), (256, true, 512)] {
        let rows = 384;
        for vm in [VM, VM_PLAIN] {
            let run = |dim: usize| {
                let packed = vm.pack(&params(dim, hidden, gated)?, E::DTYPE);
                let data = vec![E::from_f32(0.5); rows * dim];
                vm.statistics_of_scores(&packed, Rows::new(&data, dim)?).map(|counted| (counted, packed.plan.tile()))
            };
            let ((less, _), (more, [tile_rows, tile_columns])) = (run(MORE)?, run(2 * MORE)?);
            // Each tile of rows reads all columns, each tile of columns all rows.
            let lines = rows * (columns / tile_columns) + columns * (rows / tile_rows);
            let sectors = (lines * MORE * E::DTYPE.size() / 32) as u64;
            let got = more.global_loads.sectors - less.global_loads.sectors;
            let conflicts =
                |counted: &Statistics| counted.shared_loads.bank_conflicts + counted.shared_stores.bank_conflicts;
            if got != sectors || conflicts(&more) != conflicts(&less) {
                return Err(format!(
                    "L {hidden}, gated {gated}: {got} sectors rather than {sectors}, {} conflicts",
                    conflicts(&more) - conflicts(&less)
                )
                .into());
            }
        }
    }
    Ok(())
}

/// What a call does for 128 features more: it reads those of each instance once, and V and U once for each tile, or
/// cluster of tiles, in whole sectors; it keeps nothing of `[N, L]`; and no bank conflict comes of it. Bags share tiles,
/// fill one, or take several.
fn pool_reads_keys_once<E: Element>(vm: &VmBackend) -> Outcome {
    const MORE: usize = 128;
    const CHUNKS: usize = 10;
    let (hidden, columns) = (128, 256);
    let run = |dim: usize| {
        let packed = vm.pack(&params(dim, hidden, true)?, E::DTYPE);
        let (rows, cluster) = match packed.path {
            Path::OnePass(tile) => (tile.rows(), 1),
            Path::Sm90(tile) => (tile.rows(), tile.cluster()),
            Path::TwoPasses => panic!("two passes of {dim} features"),
        };
        let mut lengths = vec![rows as i64 / 4; 16];
        lengths.extend([0, rows as i64, (CHUNKS * rows) as i64]);
        let bags = Bags::from_lengths(&lengths)?;
        // Such a number of rows is laid out with nothing between them.
        assert_eq!(bags.instances() % 6, 0);
        let data = vec![E::from_f32(0.5); bags.instances() * dim];
        let counted = vm.statistics_of_attention_pool(&packed, Rows::new(&data, dim)?, &bags)?;
        let readers = (bags.instances() / rows).div_ceil(cluster);
        Ok::<_, Failed>((counted, bags, readers))
    };
    let ((less, ..), (more, bags, readers)) = (run(MORE)?, run(2 * MORE)?);
    // The sums of the chunks are written once and read once.
    let (instances, sums) = (bags.instances(), 4 * MORE * CHUNKS);
    let read = (instances + readers * columns) * MORE * E::DTYPE.size() + sums;
    let written = 4 * MORE * bags.len() + sums;
    let got = more.global_loads.sectors - less.global_loads.sectors;
    if got < (read / 32) as u64 || got > (read / 32 + read / 32 / 50) as u64 {
        return Err(format!("{got} sectors rather than {}", read / 32).into());
    }
    let stored = more.global_stores.bytes - less.global_stores.bytes;
    if stored != written as u64 {
        return Err(format!("{stored} bytes written rather than {written}").into());
    }
    let conflicts = |counted: &Statistics| counted.shared_loads.bank_conflicts + counted.shared_stores.bank_conflicts;
    // Bags that threads of one warp sum lie in the same banks: of fewer features, more bags.
    if conflicts(&more) > conflicts(&less) {
        return Err(format!("{} conflicts", conflicts(&more) - conflicts(&less)).into());
    }
    Ok(())
}

/// Parts that no state has: what is beyond reach is not touched, a score of +inf is as one of NaN, and each row comes to
/// what it comes to alone.
fn states_of_any_numbers() -> Outcome {
    const ANY: [f32; 10] = [0.0, -0.0, 1.0, -3.5, 1e38, -1e38, 1e-40, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let rows = ANY.len() * ANY.len();
    for dim in [1, 3, 4, 516] {
        // Every pair of scores, with sums and embeddings that go round at other paces.
        let any = |len: usize, step: usize| (0..len).map(|i| ANY[i * step % 11 % 10]).collect::<Vec<_>>();
        let one: Parts = [(0..rows).map(|i| ANY[i % 10]).collect(), any(rows, 3), any(rows * dim, 7)];
        let other: Parts = [(0..rows).map(|i| ANY[i / 10]).collect(), any(rows, 5), any(rows * dim, 2)];
        let [max, sum, pooled] = VM.merge_parts(dim, &one, &other)?;
        for row in 0..rows {
            let of_row = |parts: &Parts| -> Parts {
                [vec![parts[0][row]], vec![parts[1][row]], parts[2][row * dim..][..dim].to_vec()]
            };
            let alone = VM.merge_parts(dim, &of_row(&one), &of_row(&other))?;
            let in_all = [vec![max[row]], vec![sum[row]], pooled[row * dim..][..dim].to_vec()];
            // As text, in which a NaN is as another.
            if format!("{alone:?}") != format!("{in_all:?}") {
                return Err(format!("D {dim}, row {row}: {alone:?} alone, {in_all:?}").into());
            }
            let is_broken = |m: f32| m.is_nan() || m == f32::INFINITY;
            if is_broken(other[0][row]) && other[1][row] != 0.0 && !(max[row].is_nan() && sum[row].is_nan()) {
                return Err(format!("D {dim}, row {row}: {in_all:?}").into());
            }
        }
    }
    Ok(())
}

/// Both states once and in whole sectors, 16 bytes at a time; where the other has seen nothing, nothing is written, and
/// of what is pooled nothing read.
fn states_are_read_once() -> Outcome {
    let (rows, dim) = (6, 1024);
    let state = |m: f32, l: f32| [vec![m; rows], vec![l; rows], vec![l; rows * dim]];
    let (one, nothing) = (state(0.5, 1.0), state(f32::NEG_INFINITY, 0.0));
    let bytes = (4 * rows * dim) as u64;
    for (mine, other, read, written) in
        [(&one, &one, 2 * bytes, bytes), (&nothing, &one, bytes, bytes), (&one, &nothing, 0, 0)]
    {
        let counted = VM.statistics_of_merge(dim, mine, other)?;
        let [loads, stores] = [counted.global_loads, counted.global_stores];
        // Beside them m and l, which every thread of the row's block reads: four sectors for each of four warps.
        let of_rows = (rows * 4 * 4) as u64;
        if loads.sectors != read / 32 + of_rows
            || stores.bytes != written + if written > 0 { 8 * rows as u64 } else { 0 }
        {
            return Err(format!("{read} and {written} bytes: {counted:?}").into());
        }
        if loads.requests != read / (16 * 32) + of_rows {
            return Err(format!("{} requests for {read} bytes", loads.requests).into());
        }
    }
    Ok(())
}

fn params(dim: usize, hidden: usize, gated: bool) -> mivc::Result<AttentionParams> {
    let (v, w) = (vec![0.01; hidden * dim], vec![1.0; hidden]);
    let tensors = AttentionTensors { v: &v, u: gated.then_some(&v), w: &w, ..Default::default() };
    AttentionParams::new(AttentionShape { dim, hidden, heads: 1, groups: 1 }, tensors)
}
