//! 16-bit features overflow nowhere that sums in f32 would not, and scores of ±1e30 stay finite after
//! the softmax.

use half::f16;
use mivc::{Bags, Element};
use proptest::prelude::*;

use super::one_feature;
use crate::backends::Backend;
use crate::support::{Matrix, Outcome, Subject, every, oracle};

tests![largest_f16_mean, largest_f16_weighted_sum, huge_scores; attention_pool];

fn largest_f16_mean<B: Backend>(subject: &Subject<B>) -> Outcome {
    for rows in [2, 1000] {
        let features = Matrix::new(3, vec![f16::MAX; rows * 3]);
        let bags = Bags::from_lengths(&[rows as i64])?;
        let wide = subject.max_mean::<f16, f32>(features.rows(), &bags)?;
        let narrow = subject.max_mean::<f16, f16>(features.rows(), &bags)?;
        assert_eq!((wide.max, narrow.max), (vec![65504.0; 3], vec![f16::MAX; 3]));
        assert_eq!((wide.mean, narrow.mean), (vec![65504.0; 3], vec![f16::MAX; 3]));
    }
    Ok(())
}

/// The sum of many passes the largest f16, and fits the f32 it is asked for in.
fn largest_f16_weighted_sum<B: Backend>(subject: &Subject<B>) -> Outcome {
    let values = Matrix::new(3, vec![f16::MAX; 1000 * 3]);
    let bags = Bags::from_lengths(&[1000])?;
    let pooled = subject.weighted_sum::<f16, f32>(&[1.0; 1000], 1, values.shared(), &bags)?;
    assert_eq!(pooled, [65_504_000.0; 3]);
    // Intermediate sums are beyond f16, the result is not.
    let weights: Vec<f32> = (0..1000).map(|n| if n % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let pooled = subject.weighted_sum::<f16, f16>(&weights, 1, values.shared(), &bags)?;
    assert_eq!(pooled, [f16::ZERO; 3]);
    Ok(())
}

fn huge_scores<B: Backend>(subject: &Subject<B>) -> Outcome {
    let bags = Bags::from_lengths(&[3, 2, 1])?;
    let out = subject.softmax(&[1e30, -1e30, 1e30, -1e30, -1e30, 1e30], 1, &bags)?;
    assert_eq!(out.weights, [0.5, 0.0, 0.5, 0.5, 0.5, 1.0]);
    assert_eq!(out.lse, [1e30, -1e30, 1e30]);
    Ok(())
}

/// The same from parameters, s = ±1e30: the rows at the top share a weight of 1, and as their features
/// are the same, so is what is pooled.
fn attention_pool<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(16, prop::collection::vec(any::<bool>(), 1..200), |signs| {
        let numbers: Vec<f32> = signs.iter().map(|&up| if up { 30.0 } else { -30.0 }).collect();
        let keys = Matrix::<E>::from_f32(1, &numbers);
        let (params, bags) = (one_feature(&[1e30, -1e30]), Bags::from_lengths(&[signs.len() as i64]).unwrap());
        let out = subject.attention_pool::<E, f32>(&params, keys.rows(), None, &bags)?;
        oracle::attention_pool(&params, keys.rows(), None, &bags).check(&out)?;

        // The tolerance of scores so large says little of the rest.
        for head in 0..2 {
            let preferred = head == 0;
            let highest = if signs.contains(&preferred) { preferred } else { !preferred };
            let top: Vec<usize> = (0..signs.len()).filter(|&n| signs[n] == highest).collect();
            let weights: Vec<f32> = top.iter().map(|n| out.weights[n * 2 + head]).collect();
            every("weights", &weights, |a| (a * top.len() as f32 - 1.0).abs() < 1e-5)?;
            prop_assert!((out.pooled[head] - numbers[top[0]]).abs() < 1e-3, "{:?}", out.pooled);
        }
        every("lse", &out.lse, f32::is_finite)
    })
}
