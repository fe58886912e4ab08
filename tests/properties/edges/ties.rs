//! Of equal maxima the argmax is the lowest index; +0 and −0 tie, and their maximum is +0 in any order.

use mivc::{Bags, Element};
use proptest::prelude::*;
use proptest::sample::select;

use crate::backends::Backend;
use crate::support::{Matrix, Outcome, Subject};

tests![; lowest_index, signed_zeros];

/// Bags whose features are drawn from few numbers.
fn few_numbers(numbers: Vec<f32>) -> impl Strategy<Value = (usize, Vec<Vec<f32>>)> {
    let dim = select(vec![1_usize, 7, 16, 33]);
    let lengths = prop::collection::vec(prop_oneof![0..=9_usize, select(vec![126_usize, 127, 300])], 1..4);
    (dim, lengths, Just(numbers)).prop_flat_map(|(dim, lengths, numbers)| {
        let bag = move |length| prop::collection::vec(select(numbers.clone()), length * dim);
        (Just(dim), lengths.into_iter().map(bag).collect::<Vec<_>>())
    })
}

fn lowest_index<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(32, few_numbers(vec![-2.0, 0.5, 1.0]), |(dim, bags)| {
        let (features, offsets) = (Matrix::<E>::from_f32(dim, &bags.concat()), offsets(&bags, dim));
        let out = subject.max_mean::<E, f32>(features.rows(), &offsets)?;
        let mut argmax = Vec::new();
        for rows in offsets.ranges() {
            for column in 0..dim {
                let at = |n: usize| features.row(n)[column].to_f32();
                let max = rows.clone().map(at).fold(f32::NEG_INFINITY, f32::max);
                argmax.push(rows.clone().find(|&n| at(n) == max).map_or(-1, |n| n as i64));
            }
        }
        prop_assert_eq!(argmax, out.argmax);
        Ok(())
    })
}

/// A bag of −0 alone has the maximum −0, as IEEE 754-2019 says.
fn signed_zeros<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(32, few_numbers(vec![-0.0, -0.0, -0.0, 0.0]), |(dim, bags)| {
        let (features, offsets) = (Matrix::<E>::from_f32(dim, &bags.concat()), offsets(&bags, dim));
        let out = subject.max_mean::<E, f32>(features.rows(), &offsets)?;
        for (b, bag) in bags.iter().enumerate().filter(|(_, bag)| !bag.is_empty()) {
            for column in 0..dim {
                let all_negative = bag.iter().skip(column).step_by(dim).all(|x| x.is_sign_negative());
                let (max, argmax) = (out.max[b * dim + column], out.argmax[b * dim + column]);
                prop_assert_eq!(max.to_bits(), if all_negative { -0.0_f32 } else { 0.0 }.to_bits());
                prop_assert_eq!(argmax, offsets.offsets()[b]);
            }
        }
        Ok(())
    })
}

fn offsets(bags: &[Vec<f32>], dim: usize) -> Bags<'static> {
    let lengths: Vec<i64> = bags.iter().map(|bag| (bag.len() / dim) as i64).collect();
    Bags::from_lengths(&lengths).unwrap()
}
