//! The edge contract: one file per row of its table, or per few that belong together.

mod empty;
mod infinite;
mod masked;
mod nan;
mod range;
mod ties;
mod underflow;

use mivc::{AttentionParams, AttentionShape, AttentionTensors};

use crate::backends::Backend;
use crate::support::Test;

pub fn tests<B: Backend>() -> Vec<Test<B>> {
    let mut tests = empty::tests();
    tests.extend(masked::tests());
    tests.extend(underflow::tests());
    tests.extend(nan::tests());
    tests.extend(infinite::tests());
    tests.extend(ties::tests());
    tests.extend(range::tests());
    tests
}

/// Ungated and without biases, one hidden unit, one feature: s = w[k]·tanh(h).
fn one_feature(w: &[f32]) -> AttentionParams {
    let shape = AttentionShape { dim: 1, hidden: 1, heads: w.len(), groups: 1 };
    AttentionParams::new(shape, AttentionTensors { v: &[1.0], w, ..Default::default() }).unwrap()
}

/// The same parameters with other tensors in place of some.
fn with_tensors<'a>(
    params: &'a AttentionParams,
    change: impl FnOnce(AttentionTensors<'a>) -> AttentionTensors<'a>,
) -> AttentionParams {
    AttentionParams::new(params.shape(), change(params.tensors())).unwrap()
}
