//! What `mivc::cuda` asks of the driver, against a libcuda that logs its calls (`fake-cuda/`).
//!
//! A process loads libcuda once, so this one starts itself again where the fake one lies first in the search path.

mod attention;
mod attention_backward;
mod backward;
mod devices;
mod driver;
mod exact;
mod front_door;
mod max_mean;
mod one_pass;
mod state;

use std::ffi::OsStr;
use std::process::{Command, ExitCode};
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::driver::Driver;

const FAKE: &str = "MIVC_FAKE_CUDA";
type Run = fn(&Driver);

/// With the feature `cli`.
const TOOL: Option<&str> = option_env!("CARGO_BIN_EXE_mivc");

fn main() -> ExitCode {
    if env::var_os(FAKE).is_none() {
        return run_with_fake();
    }
    let mut arguments = Arguments::from_args();
    // There is one log.
    arguments.test_threads = Some(1);
    let tables = [
        max_mean::TRIALS,
        attention::TRIALS,
        attention_backward::TRIALS,
        backward::TRIALS,
        devices::TRIALS,
        exact::TRIALS,
        front_door::TRIALS,
        one_pass::TRIALS,
        state::TRIALS,
    ];
    let mut trials: Vec<_> = tables.concat().into_iter().map(|(name, run)| trial(name, run)).collect();
    let tool = trial("front_door::the_tool_pools_on_the_device", front_door::the_tool_pools_on_the_device);
    trials.push(tool.with_ignored_flag(TOOL.is_none()));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &str, run: Run) -> Trial {
    Trial::test(name, move || {
        let driver = Driver::load();
        driver.set_capability(8, 0);
        driver.take_log();
        run(&driver);
        Ok::<(), Failed>(())
    })
}

/// Cargo puts the cdylib of a dependency beside the tests.
fn run_with_fake() -> ExitCode {
    let program = env::current_exe().unwrap();
    let built = program.with_file_name("libfake_cuda.so");
    let folder = tempfile::tempdir().unwrap();
    let [library, linked] = ["libcuda.so.1", "libcuda.so"].map(|name| folder.path().join(name));
    fs::copy(&built, &library).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
    // One file, so that both names are one library with one log.
    fs::hard_link(&library, &linked).unwrap();
    let path = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let path = [folder.path().as_os_str(), &path].join(OsStr::new(":"));
    let status =
        Command::new(program).args(env::args_os().skip(1)).env("LD_LIBRARY_PATH", path).env(FAKE, "1").status();
    if status.unwrap().success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
