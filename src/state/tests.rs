use super::*;
use crate::error::{Error, StateError};
use crate::exact::terms::{LIMB, Scale};

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

/// One bag and head of one feature.
fn one(max: f32, sum: f32, pooled: f32) -> PoolState {
    PoolState::from_parts(1, 1, 1, vec![max], vec![sum], vec![pooled]).unwrap()
}

fn merged(a: &PoolState, b: &PoolState) -> PoolState {
    let mut state = a.clone();
    state.merge(b).unwrap();
    state
}

/// NaNs are alike.
fn bits(state: &PoolState) -> Vec<u32> {
    let canonical = |x: &f32| if x.is_nan() { NAN.to_bits() } else { x.to_bits() };
    [state.max(), state.sum(), state.pooled()].concat().iter().map(canonical).collect()
}

/// Every condition of a bag and head, and values that rounding, overflow and signs could go wrong with.
fn states() -> Vec<PoolState> {
    vec![
        PoolState::empty(1, 1, 1).unwrap(),
        one(0.0, 1.0, -0.0),
        one(-0.0, 3.0, 0.1),
        one(0.7, 1.3, f32::MAX),
        one(0.7, 7.1, -f32::MAX),
        one(-3.3, 1e7, 1e-40),
        one(1e30, 2.0, 5.0),
        one(-1e30, 3.0, 7.0),
        one(88.0, 1.5, INF),
        one(-20.0, 1.5, -INF),
        one(-200.0, 1.5, NAN),
        one(NAN, NAN, NAN),
    ]
}

#[test]
fn an_empty_side_changes_no_bit() {
    let empty = PoolState::empty(1, 1, 1).unwrap();
    for state in states() {
        assert_eq!(bits(&merged(&state, &empty)), bits(&state));
        assert_eq!(bits(&merged(&empty, &state)), bits(&state));
    }
}

#[test]
fn merging_is_commutative_bit_for_bit() {
    for a in states() {
        for b in states() {
            assert_eq!(bits(&merged(&a, &b)), bits(&merged(&b, &a)), "{a:?} {b:?}");
        }
    }
}

#[test]
fn merging_is_the_softmax_of_all() {
    // Scores 0 and ln 3 of the values 1 and 5: weights 1/4 and 3/4.
    let state = merged(&one(0.0, 1.0, 1.0), &one(3.0_f32.ln(), 1.0, 5.0));
    assert!((state.pooled()[0] - 4.0).abs() < 1e-6);
    assert!((state.lse()[0] - 4.0_f32.ln()).abs() < 1e-6);
}

#[test]
fn huge_scores_stay_finite() {
    let state = merged(&one(1e30, 1.0, 2.0), &one(1e30, 3.0, 4.0));
    assert_eq!((state.max(), state.sum(), state.pooled()), (&[1e30][..], &[4.0][..], &[3.5][..]));
    let state = merged(&one(-1e30, 1.0, 2.0), &one(1e30, 3.0, 4.0));
    assert_eq!((state.max(), state.sum(), state.pooled()), (&[1e30][..], &[3.0][..], &[4.0][..]));
    assert_eq!(state.lse(), [1e30]);
}

#[test]
fn what_weighs_nothing_is_left_out() {
    for nothing in [one(-200.0, 1.0, NAN), one(-200.0, 1.0, INF)] {
        assert_eq!(merged(&nothing, &one(0.0, 2.0, 3.0)), one(0.0, 2.0, 3.0));
        assert_eq!(merged(&one(0.0, 2.0, 3.0), &nothing), one(0.0, 2.0, 3.0));
    }
}

#[test]
fn nan_stays_in_its_bag_and_head() {
    // Two bags of two heads; the second head of the first bag is NaN in one part.
    let parts = |max: &[f32], sum: &[f32], pooled: &[f32]| {
        PoolState::from_parts(2, 2, 1, max.to_vec(), sum.to_vec(), pooled.to_vec()).unwrap()
    };
    let broken = parts(&[0.0, NAN, 0.0, -INF], &[1.0, NAN, 1.0, 0.0], &[1.0, NAN, 3.0, 0.0]);
    let whole = parts(&[0.0; 4], &[1.0; 4], &[3.0, 4.0, 5.0, 6.0]);
    let expected = parts(&[0.0, NAN, 0.0, 0.0], &[2.0, NAN, 2.0, 1.0], &[2.0, NAN, 4.0, 6.0]);
    assert_eq!(bits(&merged(&broken, &whole)), bits(&expected));
    assert_eq!(bits(&merged(&whole, &broken)), bits(&expected));
    assert!(expected.lse()[1].is_nan() && expected.lse()[0].is_finite());
}

#[test]
fn weights_of_kept_scores() {
    let state = PoolState::from_parts(
        3,
        2,
        1,
        vec![1.0, 1e30, -INF, -INF, NAN, 0.0],
        vec![2.0, 4.0, 0.0, 0.0, NAN, 1.0],
        vec![0.0, 0.0, 0.0, 0.0, NAN, 0.0],
    );
    let state = state.unwrap();
    let bags = Bags::from_lengths(&[2, 1, 2]).unwrap().with_mask(vec![1, 1, 1, 1, 0]).unwrap();
    let scores = [1.0, 1e30, -200.0, -INF, -INF, -INF, 0.0, 0.0, 5.0, 5.0];
    let mut weights = [7.0; 10];
    state.weights(&scores, &bags, &mut weights).unwrap();
    assert!(weights[6].is_nan());
    weights[6] = 0.0;
    assert_eq!(weights, [0.5, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
}

/// What an error says of an argument.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T>, argument: &str, part: &str) {
    let error = result.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("{argument}: expected ")) && text.contains(part), "{text}");
}

#[test]
fn shapes_that_do_not_fit() {
    assert_refused(PoolState::empty(1, 0, 1), "heads", "got 0");
    assert_refused(PoolState::empty(1, 1, 0), "dim", "got 0");
    for sizes in [[usize::MAX, 2, 1], [1 << 40, 1 << 20, 1 << 20], [1 << 61, 1, 1]] {
        assert_refused(PoolState::empty(sizes[0], sizes[1], sizes[2]), "bags", "address space");
    }
    let parts = |max, sum, pooled| PoolState::from_parts(1, 2, 3, vec![0.0; max], vec![1.0; sum], vec![0.0; pooled]);
    assert_refused(parts(1, 2, 6), "max", "[B, K] = 2");
    assert_refused(parts(2, 3, 6), "sum", "got 3");
    assert_refused(parts(2, 2, 5), "pooled", "[B, K, D] = 6");

    let mut state = parts(2, 2, 6).unwrap();
    let before = state.clone();
    for sizes in [[2, 2, 3], [1, 3, 3], [1, 2, 4]] {
        let other = PoolState::empty(sizes[0], sizes[1], sizes[2]).unwrap();
        assert_refused(state.merge(&other), "other", "[1, 2, 3]");
    }
    assert_eq!(state, before);

    let bags = |lengths: &[i64]| Bags::from_lengths(lengths).unwrap();
    assert_refused(state.weights(&[0.0; 4], &bags(&[1, 1]), &mut [0.0; 4]), "bags", "got 2");
    assert_refused(state.weights(&[0.0; 3], &bags(&[2]), &mut [0.0; 4]), "scores", "got 3");
    assert_refused(state.weights(&[0.0; 4], &bags(&[2]), &mut [0.0; 5]), "weights", "got 5");
}

#[test]
fn values_that_no_pool_gives() {
    let one = |max, sum, pooled| PoolState::from_parts(1, 1, 1, vec![max], vec![sum], vec![pooled]);
    assert_refused(one(INF, 1.0, 0.0), "max", "got inf");
    for sum in [0.0, -1.0, INF, NAN] {
        assert_refused(one(1.0, sum, 0.0), "sum", "positive");
    }
    assert_refused(one(-INF, 1.0, 0.0), "sum", "0 where max is -inf");
    assert_refused(one(-INF, 0.0, 1.0), "pooled", "0 where max is -inf");
    assert_refused(one(NAN, 1.0, NAN), "sum", "NaN");
    assert_refused(one(NAN, NAN, 1.0), "pooled", "NaN");
}

#[test]
fn a_file_holds_every_bit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    for state in states().into_iter().chain([PoolState::empty(0, 3, 2).unwrap(), PoolState::empty(2, 3, 4).unwrap()]) {
        state.save(&path).unwrap();
        let loaded = PoolState::load(&path).unwrap();
        assert_eq!(bits(&loaded), bits(&state));
        assert_eq!((loaded.bags(), loaded.heads(), loaded.dim()), (state.bags(), state.heads(), state.dim()));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing but the state");
}

#[test]
fn files_that_cannot_be_written_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("taken")).unwrap();
    let state = PoolState::empty(1, 1, 1).unwrap();
    for name in ["taken", "missing/state", ".."] {
        let error = state.save(directory.path().join(name)).unwrap_err();
        assert!(matches!(error, Error::State(StateError::Io { .. })), "{error}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(matches!(PoolState::load(directory.path().join("missing")), Err(Error::State(StateError::Io { .. }))));
}

#[test]
fn malformed_files() {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    let whole = one(0.0, 1.0, 2.0).to_safetensors().unwrap();
    for length in 0..whole.len() {
        let error = PoolState::from_safetensors(&whole[..length]).unwrap_err();
        assert!(matches!(error, Error::State(StateError::Format(_))), "{length}: {error}");
    }
    let file = |max: (Dtype, &[usize]), sum: (Dtype, &[usize]), pooled: (Dtype, &[usize])| {
        let zeros = [0; 256];
        let view = |(dtype, shape): (Dtype, &[usize])| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            TensorView::new(dtype, shape.to_vec(), &zeros[..bytes]).unwrap()
        };
        PoolState::from_safetensors(
            &serialize([("max", view(max)), ("sum", view(sum)), ("pooled", view(pooled))], None).unwrap(),
        )
    };
    let f32 = Dtype::F32;
    assert_refused(file((f32, &[1, 2]), (f32, &[1, 2]), (f32, &[2, 3])), "pooled", "[B, K, D], got f32 [2, 3]");
    assert_refused(file((f32, &[2, 1]), (f32, &[1, 2]), (f32, &[1, 2, 3])), "max", "[B, K] = [1, 2], got f32 [2, 1]");
    assert_refused(file((f32, &[1, 2]), (f32, &[2]), (f32, &[1, 2, 3])), "sum", "got f32 [2]");
    assert_refused(file((f32, &[1, 2]), (f32, &[1, 2]), (Dtype::F16, &[1, 2, 3])), "pooled", "got f16 [1, 2, 3]");
    assert_refused(file((f32, &[1, 0]), (f32, &[1, 0]), (f32, &[1, 0, 3])), "heads", "at least 1");
    assert_refused(file((f32, &[1, 2]), (f32, &[1, 2]), (f32, &[1, 2, 3])), "sum", "positive");

    let other = serialize([("a", TensorView::new(f32, vec![0], &[]).unwrap())], None).unwrap();
    assert_refused(PoolState::from_safetensors(&other), "pooled", "none of that name");
}

/// One bag, one head, two features, of these scores and rows.
fn exact(rows: &[(f32, [f32; 2])]) -> PoolState {
    let mut head = Head::new(2);
    for &(score, row) in rows {
        let Some(power) = head.mass.add(score) else { continue };
        for (column, x) in row.into_iter().enumerate() {
            if !x.is_finite() {
                head.sum.add_special(column, x, score);
            } else if x != 0.0 {
                let scale = Scale::of(power, x.abs());
                let term = f64::from(scale.scale) * f64::from(x) * f64::from(1 << LIMB);
                head.sum.groups[0].at(scale.exponent).unwrap().add(column, [term.round_ties_even() as i64].into_iter());
            }
        }
    }
    head.carry();
    PoolState::from_heads(1, 1, 2, vec![head]).unwrap()
}

#[test]
fn exact_states_merge_in_any_grouping() {
    let parts = [
        exact(&[(0.0, [1.0, 2.0])]),
        exact(&[(3.0, [-1e20, 1.0])]),
        exact(&[(-200.0, [INF, 1.0]), (1.0, [1e20, 5.0])]),
    ];
    let [a, b, c] = &parts;
    let whole = merged(&merged(a, b), c);
    for (x, y, z) in [(a, c, b), (c, b, a), (b, a, c)] {
        assert_eq!(merged(x, &merged(y, z)), whole);
    }
    // Rows of 1e20 do not hide what is beside them, and an infinity whose weight is 0 takes no part.
    let e = f64::exp;
    let expected = (1.0 - 1e20 * e(3.0) + 1e20 * e(1.0)) / (1.0 + e(3.0) + e(1.0));
    assert!((f64::from(whole.pooled()[0]) / expected - 1.0).abs() < 1e-6, "{:?}", whole.pooled());
    let empty = PoolState::empty_in(Order::Exact, 1, 1, 2).unwrap();
    assert_eq!((merged(&empty, &whole), merged(&whole, &empty)), (whole.clone(), whole.clone()));
    assert_eq!(PoolState::from_safetensors(&whole.to_safetensors().unwrap()).unwrap(), whole);
    let mut weights = [7.0; 4];
    whole.weights(&[0.0, 3.0, 1.0, -INF], &Bags::from_lengths(&[4]).unwrap(), &mut weights).unwrap();
    assert!((weights[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6 && weights[3] == 0.0);
}

#[test]
fn orders_do_not_mix() {
    let (mut rounding, mut exact) = (one(0.0, 1.0, 2.0), PoolState::empty_in(Order::Exact, 1, 1, 1).unwrap());
    let before = (rounding.clone(), exact.clone());
    assert_refused(rounding.merge(&exact), "other", "got one of Order::Exact");
    assert_refused(exact.merge(&before.0), "other", "got one of Order::Rounding");
    assert_eq!((rounding, exact), before);
}

#[test]
fn sums_that_no_exact_state_has() {
    use safetensors::tensor::{Dtype, TensorView, serialize};

    let whole = exact(&[(0.5, [1.0, -2.0]), (-3.0, [INF, 1.0])]);
    let saved = whole.to_safetensors().unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&saved).unwrap();
    let changed = |name: &str, at: usize, bytes: &[u8]| {
        let of_name = |other: &str| {
            let mut data = tensors.tensor(other).unwrap().data().to_vec();
            if other == name {
                data[at * bytes.len()..(at + 1) * bytes.len()].copy_from_slice(bytes);
            }
            data
        };
        let all = ["max", "sum", "pooled", "exact", "specials"].map(|name| (name, of_name(name)));
        let view = |name: &str, data| {
            let tensor = tensors.tensor(name).unwrap();
            TensorView::new(tensor.dtype(), tensor.shape().to_vec(), data).unwrap()
        };
        let views = all.iter().map(|(name, data)| (*name, view(name, data)));
        PoolState::from_safetensors(&serialize(views, None).unwrap())
    };
    let word = |at: usize, word: i64| changed("exact", at, &word.to_le_bytes());
    assert_eq!(changed("pooled", 0, &9.0_f32.to_le_bytes()).unwrap(), whole, "what is made of the sums");
    // The greatest bin, then low and high words of each bin.
    for (at, value) in [(0, 1 << 41), (0, i64::MIN + 1), (1, -1), (1, 1 << 48), (7, i64::MAX), (8, -5)] {
        assert_refused(word(at, value), "exact", "sums as they are saved");
    }
    assert_refused(word(0, i64::MIN), "exact", "others at [0]");
    assert_refused(word(2, -1), "sum", "positive");
    assert_refused(changed("max", 0, &(-INF).to_le_bytes()), "exact", "sums as they are saved");
    assert_refused(changed("max", 0, &INF.to_le_bytes()), "max", "got inf");
    for score in [NAN, INF] {
        assert_refused(changed("specials", 0, &score.to_le_bytes()), "exact", "sums as they are saved");
    }

    let short = TensorView::new(Dtype::I64, vec![1, 1, 2], &[0; 16]).unwrap();
    let parts = ["max", "sum", "pooled"].map(|name| (name, tensors.tensor(name).unwrap()));
    let file = serialize(parts.into_iter().chain([("exact", short)]), None).unwrap();
    assert_refused(PoolState::from_safetensors(&file), "exact", "= [1, 1, 20], got i64 [1, 1, 2]");
}
