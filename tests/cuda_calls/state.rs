//! Merging states.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use mivc::cuda::raw::{self, StateMergeAddresses};
use mivc::cuda::state::{Merge, StateMut, StateRef};
use mivc::cuda::{Kernels, context};
use mivc::launch::{self, Step};
use mivc::{PoolState, Result};

use crate::Run;
use crate::driver::{Driver, address};

pub const TRIALS: &[(&str, Run)] = &[
    ("state::queues_a_launch_between_waits_and_records", queues_a_launch_between_waits_and_records),
    ("state::raw_queues_a_launch_alone", raw_queues_a_launch_alone),
    ("state::every_kernel_is_in_the_images", every_kernel_is_in_the_images),
    ("state::another_context_is_refused", another_context_is_refused),
    ("state::malformed_states_queue_nothing", malformed_states_queue_nothing),
];

/// B·K, of two bags and three heads.
const ROWS: usize = 6;
const DIM: usize = 4;

/// Two states, each with room for one element more of what is pooled.
struct Case {
    stream: Arc<CudaStream>,
    kernels: Kernels,
    state: [CudaSlice<f32>; 3],
    other: [CudaSlice<f32>; 3],
}

impl Case {
    fn new(context: &Arc<CudaContext>) -> Self {
        let (kernels, stream) = (Kernels::load(context).unwrap(), context.new_stream().unwrap());
        let state = || [ROWS, ROWS, ROWS * DIM + 1].map(|len| stream.alloc_zeros(len).unwrap());
        Case { state: state(), other: state(), kernels, stream }
    }

    /// Merges states that `change` has changed.
    fn merge<'a>(&'a mut self, change: impl FnOnce(&mut StateMut<'a>, &mut StateRef<'a>)) -> Result<()> {
        let [max, sum, pooled] = &mut self.state;
        let mut state =
            StateMut { max: max.as_view_mut(), sum: sum.as_view_mut(), pooled: pooled.slice_mut(..ROWS * DIM) };
        let [max, sum, pooled] = &self.other;
        let mut other = StateRef { max: max.as_view(), sum: sum.as_view(), pooled: pooled.slice(..ROWS * DIM) };
        change(&mut state, &mut other);
        Merge::plan(&self.kernels, DIM)?.run(&self.stream, state, other)
    }

    fn addresses(&self) -> StateMergeAddresses {
        let ([max, sum, pooled], [other_max, other_sum, other_pooled]) =
            (self.state.each_ref().map(address), self.other.each_ref().map(address));
        StateMergeAddresses { max, sum, pooled, other_max, other_sum, other_pooled }
    }

    fn steps(&self) -> [Step; 1] {
        launch::state::Merge::plan(DIM).unwrap().steps(ROWS, self.addresses()).unwrap().unwrap()
    }
}

fn queues_a_launch_between_waits_and_records(driver: &Driver) {
    let mut case = Case::new(&context(0).unwrap());
    let expected = driver.lines(&case.steps(), &case.stream);
    driver.expect_guarded(3, 3, &expected, || case.merge(|_, _| ()));

    // No bag.
    let part = || case.stream.alloc_zeros::<f32>(1).unwrap();
    let (mut state, other) = ([part(), part(), part()], [part(), part(), part()]);
    let [max, sum, pooled] = state.each_mut().map(|part| part.slice_mut(..0));
    let [other_max, other_sum, other_pooled] = other.each_ref().map(|part| part.slice(..0));
    driver.expect_guarded(3, 3, &[], || {
        let other = StateRef { max: other_max, sum: other_sum, pooled: other_pooled };
        Merge::plan(&case.kernels, DIM)?.run(&case.stream, StateMut { max, sum, pooled }, other)
    });
}

fn raw_queues_a_launch_alone(driver: &Driver) {
    let case = Case::new(&context(0).unwrap());
    let (operation, addresses) = (Merge::plan(&case.kernels, DIM).unwrap(), case.addresses());
    let expected = driver.lines(&case.steps(), &case.stream);
    let stream = case.stream.cu_stream();
    // SAFETY: the addresses are of states of these shapes, on the stream that they were allocated on.
    driver.expect_steps_alone(&expected, || unsafe { raw::state_merge(&operation, stream, ROWS, addresses) });
}

fn every_kernel_is_in_the_images(_: &Driver) {
    let mut case = Case::new(&context(0).unwrap());
    case.merge(|_, _| ()).unwrap();
    let unaligned = case.stream.alloc_zeros(ROWS * DIM + 1).unwrap();
    case.merge(|_, other| other.pooled = unaligned.slice(1..)).unwrap();
}

fn another_context_is_refused(driver: &Driver) {
    // On the same device, and equal for cudarc.
    let (ours, theirs) = (context(0).unwrap(), context(0).unwrap());
    let (mut case, mut theirs) = (Case::new(&ours), Case::new(&theirs));
    driver.take_log();
    let refused = |argument: &str, result| driver.expect_other_context(argument, result);
    for (i, argument) in ["max", "sum", "pooled"].into_iter().enumerate() {
        std::mem::swap(&mut case.state[i], &mut theirs.state[i]);
        refused(argument, case.merge(|_, _| ()));
        std::mem::swap(&mut case.state[i], &mut theirs.state[i]);
    }
    for (i, argument) in ["other.max", "other.sum", "other.pooled"].into_iter().enumerate() {
        std::mem::swap(&mut case.other[i], &mut theirs.other[i]);
        refused(argument, case.merge(|_, _| ()));
        std::mem::swap(&mut case.other[i], &mut theirs.other[i]);
    }
    std::mem::swap(&mut case.stream, &mut theirs.stream);
    refused("stream", case.merge(|_, _| ()));
}

fn malformed_states_queue_nothing(driver: &Driver) {
    let mut case = Case::new(&context(0).unwrap());
    let long = case.stream.alloc_zeros::<f32>(100).unwrap();
    let mut wide = case.stream.alloc_zeros::<f32>(100).unwrap();
    driver.take_log();
    let refused = |beginning: &str, result| driver.expect_refused(beginning, result);
    refused("sum: expected [B, K] = 6", case.merge(|state, _| state.sum = wide.slice_mut(..5)));
    refused("sum: expected [B, K] = 7", case.merge(|state, _| state.max = wide.slice_mut(..7)));
    refused("pooled: expected [B, K, D] = 24", case.merge(|state, _| state.pooled = wide.slice_mut(..25)));
    refused("other.max: expected [B, K] = 6", case.merge(|_, other| other.max = long.slice(..7)));
    refused("other.sum: expected [B, K] = 6", case.merge(|_, other| other.sum = long.slice(..5)));
    refused("other.pooled: expected [B, K, D] = 24", case.merge(|_, other| other.pooled = long.slice(..23)));
    refused("dim: expected at least 1", Merge::plan(&case.kernels, 0).map(drop));
    assert!(PoolState::empty(1, 1, 0).unwrap_err().to_string().starts_with("dim: expected at least 1"));
}
