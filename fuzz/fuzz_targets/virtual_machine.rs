//! Calls that bytes describe, in the virtual machine: the check of `tests/fuzz` on bytes that libFuzzer looks for, to
//! reach more of the code of the machine, of the launches and of the oracle.
#![no_main]

#[allow(dead_code, unused_imports, reason = "the tests use all of them")]
#[path = "../../tests/backends/mod.rs"]
mod backends;
#[path = "../../tests/fuzz/case.rs"]
mod case;
#[path = "../../tests/fuzz/check.rs"]
mod check;

use std::cell::RefCell;
use std::panic;

use case::Case;

thread_local! {
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

libfuzzer_sys::fuzz_target!(
    init: {
        // That of libFuzzer ends the process.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let hex: String = BYTES.with_borrow(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            eprintln!("again with: MIVC_FUZZ={hex} cargo test --all-features --test fuzz");
            hook(info);
        }));
    },
    |bytes: &[u8]| {
        BYTES.set(bytes.to_vec());
        let case = Case::from_bytes(bytes);
        if let Err(error) = check::check(&case) {
            panic!("{case:?}\n{error}");
        }
    }
);
