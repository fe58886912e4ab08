//! Kernels as nvcc compiles them. Beside each `.cu` lies the `.rs` that runs it and checks what it computes.
//!
//! Each kernel is run without a bug, under several schedules, and with each of the bugs planted in it, which must
//! be found where the source says `// BUG n`.

#[path = "../support/nvcc.rs"]
mod nvcc;

mod gpu;
mod inputs;
mod machine;

mod atomics;
mod barrier;
mod barriers;
mod calls;
mod endless;
mod gemm_bf16;
mod half;
mod hopper_clusters;
mod hopper_copies;
mod hopper_gemm;
mod hopper_products;
mod hopper_tensors;
mod lanes;
mod matrix;
mod misaligned;
mod out_of_bounds;
mod race_async;
mod race_block;
mod race_grid;
mod ragged_pool;
mod spaces;
mod switch;
mod uninitialised;
mod warp_ops;
mod wide;

use std::ops::Range;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use ptx_vm::{Checks, Fault, FaultKind};

use crate::machine::{Machine, Outcome, Stop};

/// A kernel and what is to be seen of it.
#[derive(Clone, Copy)]
pub struct Case {
    pub kernel: &'static str,
    /// Launches it and compares what it wrote.
    pub run: fn(&mut Machine) -> Outcome,
    /// The bugs planted in it, and as what each is reported; with some, that is for the schedule to say.
    pub bugs: &'static [(i32, &'static [FaultKind])],
}

const FILES: [(&str, &[Case]); 25] = [
    ("atomics.cu", atomics::CASES),
    ("barrier.cu", barrier::CASES),
    ("barriers.cu", barriers::CASES),
    ("calls.cu", calls::CASES),
    ("endless.cu", endless::CASES),
    ("gemm_bf16.cu", gemm_bf16::CASES),
    ("half.cu", half::CASES),
    ("hopper_clusters.cu", hopper_clusters::CASES),
    ("hopper_copies.cu", hopper_copies::CASES),
    ("hopper_gemm.cu", hopper_gemm::CASES),
    ("hopper_products.cu", hopper_products::CASES),
    ("hopper_tensors.cu", hopper_tensors::CASES),
    ("lanes.cu", lanes::CASES),
    ("matrix.cu", matrix::CASES),
    ("misaligned.cu", misaligned::CASES),
    ("out_of_bounds.cu", out_of_bounds::CASES),
    ("race_async.cu", race_async::CASES),
    ("race_block.cu", race_block::CASES),
    ("race_grid.cu", race_grid::CASES),
    ("ragged_pool.cu", ragged_pool::CASES),
    ("spaces.cu", spaces::CASES),
    ("switch.cu", switch::CASES),
    ("uninitialised.cu", uninitialised::CASES),
    ("warp_ops.cu", warp_ops::CASES),
    ("wide.cu", wide::CASES),
];

/// Each is a schedule.
const SEEDS: Range<u64> = 0..4;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for (file, cases) in FILES {
        for &case in cases {
            trials.push(trial(file, case, "clean".to_owned(), move || passes(file, case)));
            trials.push(Trial::ignorable_test(format!("{}::gpu", name(file, case)), move || runs_on_gpu(file, case)));
            for &(bug, kinds) in case.bugs {
                trials.push(trial(file, case, format!("bug_{bug}"), move || is_found(file, case, bug, kinds)));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(file: &str, case: Case, what: String, test: impl FnOnce() -> Result<(), Failed> + Send + 'static) -> Trial {
    Trial::test(format!("{}::{what}", name(file, case)), test)
}

fn name(file: &str, case: Case) -> String {
    format!("{}::{}", file.trim_end_matches(".cu"), case.kernel)
}

/// What the kernel gives on a GPU is what it gives in the virtual machine: what Rust makes of the same inputs.
fn runs_on_gpu(file: &str, case: Case) -> Result<Completion, Failed> {
    if !gpu::is_there() && std::env::var_os("MIVC_REQUIRE_GPU").is_none_or(|value| value != "1") {
        return Ok(Completion::ignored_with("no GPU"));
    }
    if file.starts_with("hopper") && !gpu::is_hopper() {
        return Ok(Completion::ignored_with("no GPU of that architecture"));
    }
    let ptx = nvcc::compile(file, &[("BUG", 0)])?;
    let outcome = Machine::gpu(&ptx, case.kernel).and_then(|mut machine| (case.run)(&mut machine));
    outcome.map(|()| Completion::Completed).map_err(|stop| stop.to_string().into())
}

fn passes(file: &str, case: Case) -> Result<(), Failed> {
    let ptx = nvcc::compile(file, &[("BUG", 0)])?;
    let ways = SEEDS.map(|seed| (seed, Checks::Full)).chain([(0, Checks::Bounds)]);
    for (seed, checks) in ways {
        let outcome = Machine::new(&ptx, case.kernel, seed, checks).and_then(|mut machine| (case.run)(&mut machine));
        outcome.map_err(|stop| format!("seed {seed}, {checks:?}: {stop}"))?;
    }
    Ok(())
}

fn is_found(file: &str, case: Case, bug: i32, kinds: &[FaultKind]) -> Result<(), Failed> {
    let ptx = nvcc::compile(file, &[("BUG", bug)])?;
    let lines = marked_lines(&nvcc::source(file)?, bug);
    for seed in SEEDS {
        let mut machine = Machine::new(&ptx, case.kernel, seed, Checks::Full).map_err(|stop| stop.to_string())?;
        match (case.run)(&mut machine) {
            Ok(()) => return Err(format!("seed {seed}: not found").into()),
            Err(Stop::Machine(error)) => match error.fault() {
                Some(fault) => {
                    is_right(fault, file, kinds, &lines).map_err(|why| format!("seed {seed}: {why}\n{fault}"))?
                }
                None => return Err(format!("seed {seed}: {error}").into()),
            },
            Err(stop) => return Err(format!("seed {seed}: not found, but {stop}").into()),
        }
    }
    Ok(())
}

fn is_right(fault: &Fault, file: &str, kinds: &[FaultKind], lines: &[u32]) -> Result<(), String> {
    if !kinds.contains(&fault.kind) {
        return Err(format!("expected {kinds:?}"));
    }
    for site in [Some(&fault.site), fault.earlier.as_ref()].into_iter().flatten() {
        if site.file != file || !lines.contains(&site.line) {
            return Err(format!("expected line {lines:?} of {file}, got {}:{}", site.file, site.line));
        }
    }
    Ok(())
}

/// The lines, from 1, that end with `// BUG` and a list of numbers, `bug` among them.
fn marked_lines(source: &str, bug: i32) -> Vec<u32> {
    let is_marked = |line: &str| {
        let numbers = line.split_once("// BUG ").map(|(_, numbers)| numbers.split(", "));
        numbers.is_some_and(|mut numbers| numbers.any(|number| number.parse() == Ok(bug)))
    };
    (1..).zip(source.lines()).filter(|(_, line)| is_marked(line)).map(|(number, _)| number).collect()
}
