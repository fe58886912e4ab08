//! One test body per property, crossed with every backend and, where an operation reads features,
//! with every element type: `agreement::attention_pool::bf16::cpu-avx512`.
//!
//! A backend that this machine lacks is ignored, and counted so. `PROPTEST_CASES` and
//! `PROPTEST_RNG_SEED` ask for more cases and other ones than those of the normal run, which are
//! always the same. Cases that once failed are kept in `tests/regressions/` and tried first.

#[macro_use]
mod support;

#[path = "../backends/mod.rs"]
mod backends;

mod agreement;
mod backward;
mod batch;
#[cfg(feature = "cuda")]
mod device_offsets;
mod edges;
mod exact;
mod front_door;
#[cfg(feature = "cuda")]
mod graphs;
mod known_answers;
mod malformed;
mod order;
mod run_to_run;
mod state;
mod tolerance_bites;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Trial};
use mivc::Order;
use mivc::cpu::Isa;

use crate::backends::{Backend, CpuBackend};
use crate::support::Subject;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16] {
        for order in [Order::Rounding, Order::Exact] {
            trials.extend(cross(CpuBackend::new(isa, order)));
        }
    }
    #[cfg(feature = "cuda")]
    {
        use backends::vm::{VM, VM_EXACT, VM_ONE_PASS, VM_PLAIN, VM_SM90};
        for vm in [VM, VM_PLAIN, VM_ONE_PASS, VM_SM90, VM_EXACT] {
            trials.extend(cross(vm));
        }
        use backends::gpu::{GPU, GPU_EXACT, GPU_ONE_PASS, GPU_SM90};
        for gpu in [GPU, GPU_ONE_PASS, GPU_SM90, GPU_EXACT] {
            trials.extend(cross(gpu));
        }
        trials.extend(device_offsets::trials());
        trials.extend(graphs::trials());
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Every property of one backend.
fn cross<B: Backend>(backend: B) -> Vec<Trial> {
    let mut tests = Vec::new();
    tests.extend(agreement::tests());
    tests.extend(backward::tests());
    tests.extend(order::tests());
    tests.extend(batch::tests());
    tests.extend(run_to_run::tests());
    tests.extend(edges::tests());
    tests.extend(malformed::tests());
    tests.extend(malformed::backward::tests());
    tests.extend(tolerance_bites::tests());
    tests.extend(known_answers::tests());
    tests.extend(state::tests());
    if backend.order() == Order::Exact {
        tests.extend(exact::tests());
    }
    if backend.device().is_some() {
        tests.extend(front_door::tests());
    }
    tests.retain(|test| backend.covers(test.name));

    let backend = Arc::new(backend);
    let trial = |test| {
        let subject = Subject::new(test, Arc::clone(&backend));
        Trial::ignorable_test(subject.name().to_owned(), move || match subject.backend().availability() {
            Ok(()) => subject.run().map(|()| Completion::Completed),
            Err(reason) => Ok(Completion::ignored_with(reason)),
        })
    };
    tests.into_iter().map(trial).collect()
}
