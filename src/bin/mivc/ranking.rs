//! Which instances of a bag count most.

use mivc::Tensor;

/// An instance and how much it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) row: usize,
    pub(crate) weight: f32,
}

/// `K` of `[N, K]`.
pub(crate) fn heads(weights: &Tensor<f32>) -> usize {
    weights.shape.get(1).copied().unwrap_or(1)
}

/// The `count` heaviest, heaviest first, equals in the order of their rows. NaN is above all numbers.
pub(crate) fn heaviest(mut instances: Vec<Ranked>, count: usize) -> Vec<Ranked> {
    let order = |a: &Ranked, b: &Ranked| b.weight.total_cmp(&a.weight).then(a.row.cmp(&b.row));
    if count < instances.len() {
        instances.select_nth_unstable_by(count, order);
        instances.truncate(count);
    }
    instances.sort_unstable_by(order);
    instances
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(weights: &[f32], count: usize) -> Vec<usize> {
        let instances = weights.iter().enumerate().map(|(row, &weight)| Ranked { row, weight }).collect();
        heaviest(instances, count).iter().map(|ranked| ranked.row).collect()
    }

    #[test]
    fn heaviest_first_and_equals_by_row() {
        assert_eq!(rows(&[0.1, 0.4, 0.1, 0.4], 3), [1, 3, 0]);
        assert_eq!(rows(&[0.1, f32::NAN, 0.4], 9), [1, 2, 0]);
        assert!(rows(&[0.1, 0.4], 0).is_empty());
        assert!(rows(&[], 3).is_empty());
    }
}
