//! Numbers that others published for their own segment operations.
//!
//! - pytorch_scatter, `test/test_segment.py`, the table `tests` (`indptr`, `add`, `mean`, `max`,
//!   `arg_max`), and `test/composite/test_softmax.py`. Its cases of several rows of segments are one row
//!   of bags here; its arg_max counts from the row's own start and is N where a segment is empty.
//! - DGL, the examples in the documentation of `segment_reduce` and `segment_softmax`
//!   (`python/dgl/ops/segment.py`) and of `sum_nodes` and `topk_nodes` (`python/dgl/readout.py`).

use mivc::{Bags, Element};

use crate::backends::Backend;
use crate::support::{Matrix, Outcome, Subject};

tests![scatter_softmax, dgl_segment_softmax, dgl_weighted_sum_nodes;
       scatter_segments, dgl_segment_reduce, dgl_topk_nodes];

struct Segments {
    dim: usize,
    src: &'static [f32],
    lengths: &'static [i64],
    add: &'static [f32],
    mean: &'static [f32],
    max: &'static [f32],
    argmax: &'static [i64],
}

const SCATTER: [Segments; 6] = [
    Segments {
        dim: 1,
        src: &[1., 2., 3., 4., 5., 6.],
        lengths: &[2, 3, 0, 1],
        add: &[3., 12., 0., 6.],
        mean: &[1.5, 4., 0., 6.],
        max: &[2., 5., 0., 6.],
        argmax: &[1, 4, -1, 5],
    },
    Segments {
        dim: 2,
        src: &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.],
        lengths: &[2, 3, 0, 1],
        add: &[4., 6., 21., 24., 0., 0., 11., 12.],
        mean: &[2., 3., 7., 8., 0., 0., 11., 12.],
        max: &[3., 4., 9., 10., 0., 0., 11., 12.],
        argmax: &[1, 1, 4, 4, -1, -1, 5, 5],
    },
    Segments {
        dim: 1,
        src: &[1., 3., 5., 7., 9., 11., 2., 4., 6., 8., 10., 12.],
        lengths: &[2, 3, 0, 1, 3, 2, 1, 0],
        add: &[4., 21., 0., 11., 12., 18., 12., 0.],
        mean: &[2., 7., 0., 11., 4., 9., 12., 0.],
        max: &[3., 9., 0., 11., 6., 10., 12., 0.],
        argmax: &[1, 4, -1, 5, 6 + 2, 6 + 4, 6 + 5, -1],
    },
    Segments {
        dim: 2,
        src: &[1., 2., 3., 4., 5., 6., 7., 9., 10., 11., 12., 13.],
        lengths: &[2, 1, 0, 1, 0, 2],
        add: &[4., 6., 5., 6., 0., 0., 7., 9., 0., 0., 22., 24.],
        mean: &[2., 3., 5., 6., 0., 0., 7., 9., 0., 0., 11., 12.],
        max: &[3., 4., 5., 6., 0., 0., 7., 9., 0., 0., 12., 13.],
        argmax: &[1, 1, 2, 2, -1, -1, 3, 3, -1, -1, 3 + 2, 3 + 2],
    },
    Segments {
        dim: 1,
        src: &[1., 3., 2., 4.],
        lengths: &[2, 2],
        add: &[4., 6.],
        mean: &[2., 3.],
        max: &[3., 4.],
        argmax: &[1, 2 + 1],
    },
    Segments {
        dim: 2,
        src: &[1., 1., 3., 3., 2., 2., 4., 4.],
        lengths: &[2, 2],
        add: &[4., 4., 6., 6.],
        mean: &[2., 2., 3., 3.],
        max: &[3., 3., 4., 4.],
        argmax: &[1, 1, 2 + 1, 2 + 1],
    },
];

fn scatter_segments<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    for Segments { dim, src, lengths, add, mean, max, argmax } in SCATTER {
        let (features, bags) = (Matrix::<E>::from_f32(dim, src), Bags::from_lengths(lengths)?);
        let out = subject.max_mean::<E, f32>(features.rows(), &bags)?;
        assert_eq!((&out.max[..], &out.mean[..], &out.argmax[..]), (max, mean, argmax));
        let ones = vec![1.0; features.len()];
        assert_eq!(subject.weighted_sum::<E, f32>(&ones, 1, features.shared(), &bags)?, add);
    }
    Ok(())
}

/// Six decimals of torch.softmax over (0.2, 0.2), (0, −2.1, 3.2), (7) and (−1, −inf).
fn scatter_softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    let scores = [0.2, 0.2, 0.0, -2.1, 3.2, 7.0, -1.0, f32::NEG_INFINITY];
    let out = subject.softmax(&scores, 1, &Bags::from_lengths(&[2, 3, 1, 0, 2])?)?;
    close(&out.weights, &[0.5, 0.5, 0.038_979, 0.004_773, 0.956_248, 1.0, 1.0, 0.0], 1e-6);
    assert_eq!(out.lse[3], f32::NEG_INFINITY);
    Ok(())
}

const DGL_SEGMENTS: [i64; 4] = [1, 0, 5, 4];

fn dgl_segment_reduce<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let (ones, bags) = (Matrix::<E>::from_f32(3, &[1.0; 30]), Bags::from_lengths(&DGL_SEGMENTS)?);
    let sums = subject.weighted_sum::<E, f32>(&[1.0; 10], 1, ones.shared(), &bags)?;
    assert_eq!(sums, [1., 1., 1., 0., 0., 0., 5., 5., 5., 4., 4., 4.]);
    Ok(())
}

fn dgl_segment_softmax<B: Backend>(subject: &Subject<B>) -> Outcome {
    let weights = subject.softmax(&[1.0; 30], 3, &Bags::from_lengths(&DGL_SEGMENTS)?)?.weights;
    close(&weights[..3], &[1.0; 3], 1e-6);
    close(&weights[3..18], &[0.2; 15], 1e-6);
    close(&weights[18..], &[0.25; 12], 1e-6);
    Ok(())
}

fn dgl_weighted_sum_nodes<B: Backend>(subject: &Subject<B>) -> Outcome {
    let features = Matrix::<f32>::from_f32(1, &[1.0, 2.0, 1.0, 2.0, 3.0]);
    let weights = [0.1, 0.2, 0.1, 0.5, 0.2];
    let pooled = subject.weighted_sum::<f32, f32>(&weights, 1, features.shared(), &Bags::from_lengths(&[2, 3])?)?;
    close(&pooled, &[0.5, 1.7], 1e-6);
    Ok(())
}

/// The first of the top three, values and nodes.
fn dgl_topk_nodes<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    #[rustfmt::skip]
    let features = Matrix::<E>::from_f32(5, &[
        0.0297, 0.8307, 0.9140, 0.6702, 0.3346,
        0.5901, 0.3030, 0.9280, 0.6893, 0.7997,
        0.0880, 0.6515, 0.4451, 0.7507, 0.5297,
        0.5171, 0.6379, 0.2695, 0.8954, 0.5197,

        0.3168, 0.3174, 0.5303, 0.0804, 0.3808,
        0.1323, 0.2766, 0.4318, 0.6114, 0.1458,
        0.1752, 0.9105, 0.5692, 0.8489, 0.0539,
        0.1931, 0.4954, 0.3455, 0.3934, 0.0857,
        0.5065, 0.5182, 0.5418, 0.1520, 0.3872,
    ]);
    let out = subject.max_mean::<E, E>(features.rows(), &Bags::from_lengths(&[4, 5])?)?;
    let max = [0.5901, 0.8307, 0.9280, 0.8954, 0.7997, 0.5065, 0.9105, 0.5692, 0.8489, 0.3872];
    assert_eq!(out.max, max.map(E::from_f32));
    assert_eq!(out.argmax, [1, 0, 1, 3, 1, 4 + 4, 4 + 2, 4 + 2, 4 + 2, 4 + 4]);
    Ok(())
}

fn close(out: &[f32], published: &[f32], tolerance: f32) {
    assert_eq!(out.len(), published.len());
    let far = out.iter().zip(published).any(|(out, published)| (out - published).abs() > tolerance);
    assert!(!far, "{out:?} is not {published:?}");
}
