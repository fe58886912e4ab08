//! What is made of a caller's slices is either what it says or a typed error, for any input; nothing panics.

use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Features, Projection, Rows};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, RngSeed};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 512,
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// Sizes that are small, 0, or so large that their products overflow.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0..5_usize, 1 => select(vec![1 << 32, usize::MAX / 2, usize::MAX])]
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![12 => 0..8_i64, 1 => select(vec![-1, i64::MIN, i64::MAX])]
}

/// The product of sizes, where there is one.
fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn bags_from_offsets(mut offsets in prop::collection::vec(offset(), 0..6), sorted: bool, mask in 0..12_usize) {
        if sorted {
            offsets.sort();
            offsets.first_mut().into_iter().for_each(|first| *first = 0);
        }
        let valid = offsets.first() == Some(&0) && offsets.is_sorted();
        let bags = Bags::from_offsets(&offsets[..]);
        prop_assert_eq!(bags.is_ok(), valid, "{:?}", bags);
        if let Ok(bags) = bags {
            let instances = *offsets.last().unwrap() as usize;
            prop_assert_eq!((bags.len(), bags.instances()), (offsets.len() - 1, instances));
            prop_assert_eq!(bags.ranges().map(|rows| rows.len()).sum::<usize>(), instances);
            prop_assert_eq!(bags.with_mask(vec![1; mask]).is_ok(), mask == instances);
        }
    }

    #[test]
    fn bags_from_lengths(lengths in prop::collection::vec(offset(), 0..6)) {
        let sum = lengths.iter().try_fold(0_i64, |sum, &length| sum.checked_add(length));
        let valid = sum.is_some() && lengths.iter().all(|&length| length >= 0);
        let bags = Bags::from_lengths(&lengths);
        prop_assert_eq!(bags.is_ok(), valid, "{:?}", bags);
        if let Ok(bags) = bags {
            let rows: Vec<i64> = bags.ranges().map(|rows| rows.len() as i64).collect();
            prop_assert_eq!(rows, lengths);
        }
    }

    #[test]
    fn rows(len in 0..30_usize, dim in size(), rows in size(), stride in size()) {
        let data = vec![0.0_f32; len];
        prop_assert_eq!(Rows::new(&data, dim).is_ok(), dim > 0 && len % dim == 0);

        let span = match rows {
            0 => Some(0),
            _ => product(&[rows - 1, stride]).and_then(|start| start.checked_add(dim)),
        };
        let strided = Rows::strided(&data, rows, dim, stride);
        prop_assert_eq!(strided.is_ok(), dim > 0 && stride >= dim && span == Some(len), "{:?}", strided);
        if let Ok(strided) = strided {
            prop_assert!((0..rows).all(|n| strided.row(n).len() == dim));
        }
    }

    /// Of lengths that mostly fit.
    #[test]
    fn attention_params(
        dim in size(), hidden in size(), heads in size(), groups in size(),
        wrong in prop::option::of(0..6_usize), present in any::<[bool; 4]>(),
    ) {
        let lengths = [
            product(&[groups, hidden, dim]), product(&[groups, hidden]), product(&[groups, hidden, dim]),
            product(&[groups, hidden]), product(&[heads, hidden]), Some(heads),
        ];
        let [v_bias, u, u_bias, w_bias] = present;
        let there = [true, v_bias, u, u_bias, true, w_bias];
        let fits = lengths.iter().all(|length| length.is_some_and(|length| length < 1 << 16));
        let slices: Vec<Vec<f32>> = lengths.iter().enumerate().map(|(i, length)| {
            let length = length.filter(|&length| length < 1 << 16).unwrap_or(1);
            vec![0.5; length + usize::from(wrong == Some(i))]
        }).collect();
        let tensor = |i: usize| there[i].then_some(&slices[i][..]);
        let params = AttentionParams::new(AttentionShape { dim, hidden, heads, groups }, AttentionTensors {
            v: &slices[0], v_bias: tensor(1), u: tensor(2), u_bias: tensor(3), w: &slices[4], w_bias: tensor(5),
        });
        let valid = fits && [dim, hidden, heads, groups].iter().all(|&size| size > 0) && heads % groups == 0
            && wrong.is_none_or(|i| !there[i]) && (u || !u_bias);
        prop_assert_eq!(params.is_ok(), valid, "{:?}", params);
        if let Ok(params) = params {
            prop_assert_eq!(params.is_gated(), u);
        }
    }

    #[test]
    fn projection(input in size(), weights in 0..30_usize, bias in prop::option::of(0..6_usize), dim in 1..6_usize) {
        let valid = input > 0 && weights > 0 && weights % input == 0 && bias.is_none_or(|bias| bias == weights / input);
        let projection = Projection::new(input, vec![0.0; weights], bias.map(|bias| vec![0.0; bias]));
        prop_assert_eq!(projection.is_ok(), valid, "{:?}", projection);
        let shape = AttentionShape { dim, hidden: 1, heads: 1, groups: 1 };
        let tensors = AttentionTensors { v: &vec![0.0; dim], w: &[1.0], ..Default::default() };
        if let Ok(projection) = projection {
            let params = AttentionParams::new(shape, tensors).unwrap().with_projection(projection);
            prop_assert_eq!(params.is_ok(), weights / input == dim);
        }
    }

    #[test]
    fn features(len in 0..30_usize, tokens in size(), dim in size(), keys in 0..10_usize, key_dim in size()) {
        let (data, keys) = (vec![0.0_f32; len], vec![0.0_f32; keys]);
        let images = |row: Option<usize>, len: usize| {
            row.filter(|&row| row > 0 && len.is_multiple_of(row)).map(|row| len / row)
        };
        let (whole, keyed) = (images(product(&[tokens, dim]), len), images(Some(key_dim), keys.len()));
        let got = |features: mivc::Result<Features<'_, f32>>| features.ok().map(|features| features.images());
        prop_assert_eq!(got(Features::new(&data, dim)), images(Some(dim), len));
        prop_assert_eq!(got(Features::per_position(&data, tokens, dim)), whole);
        prop_assert_eq!(got(Features::all_tokens(&data, tokens, dim)), whole);
        prop_assert_eq!(got(Features::per_image(&keys, key_dim, &data, tokens, dim)), whole.filter(|_| whole == keyed));
    }
}
