//! Calls that random bytes describe, in the virtual machine: `MIVC_FUZZ_CASES` of them, the same in every run. `fuzz/`
//! has the same check for cargo-fuzz, which looks for bytes that reach more of the code.

#[allow(dead_code, unused_imports, reason = "the properties use all of them")]
#[path = "../backends/mod.rs"]
mod backends;
mod case;
mod check;

use std::cell::Cell;
use std::env;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rayon::prelude::*;

use case::{Case, Draw, Operation};
use check::Check;

thread_local! {
    /// Whether a panic is the verdict on a case, which is reported once, shrunk.
    static IN_CASE: Cell<bool> = const { Cell::new(false) };
}

const CASES: usize = 1000;
const MOST_BYTES: usize = 56;

#[test]
fn calls_agree_with_the_oracle() {
    let failed = match env::var("MIVC_FUZZ") {
        Ok(hex) => Some(from_hex(&hex)).filter(|bytes| verdict(bytes).is_err()),
        Err(_) => {
            let cases = env::var("MIVC_FUZZ_CASES").map_or(CASES, |cases| cases.parse().expect("a number of cases"));
            (0..cases).into_par_iter().map(random_bytes).find_first(|bytes| verdict(bytes).is_err()).map(shrink)
        }
    };
    if let Some(bytes) = failed {
        let (hex, error) = (to_hex(&bytes), verdict(&bytes).unwrap_err());
        panic!(
            "{:?}\n{error}\nagain with: MIVC_FUZZ={hex} cargo test --all-features --test fuzz",
            Case::from_bytes(&bytes)
        );
    }
}

/// The test of the test: results of calls without one of the instances are not those of the call.
#[test]
fn missing_instance_is_noticed() {
    let operations = [
        Operation::Scores,
        Operation::Softmax,
        Operation::WeightedSum,
        Operation::WeightedSumPerHead,
        Operation::MaxMean,
        Operation::AttentionPool,
    ];
    for operation in operations {
        for draw in [Draw::Uniform, Draw::Exact] {
            let case = Case { operation, draw, instances: 9, offsets: vec![0, 4, 9], ..Case::from_bytes(&[]) };
            let right = check::run(&case).unwrap();
            check::compare(&case, &right).unwrap();
            let mut noticed = 0;
            for n in 0..case.instances {
                let wrong = check::run(&without(&case, n)).unwrap();
                let is_noticed = check::compare(&case, &wrong).is_err();
                // A row of weight 0 is of no account.
                assert!(is_noticed || wrong == right, "{operation:?}, {draw:?}: row {n}");
                noticed += u32::from(is_noticed);
            }
            assert!(noticed > 0, "{operation:?}, {draw:?}");
        }
    }
}

fn without(case: &Case, n: usize) -> Case {
    let mut mask = case.mask.clone().unwrap_or_else(|| vec![1; case.instances]);
    mask[n] = 0;
    Case { mask: Some(mask), ..case.clone() }
}

/// Panics count: those of the virtual machine, of a kernel that does what it must not.
fn verdict(bytes: &[u8]) -> Check {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IN_CASE.get() {
                hook(info);
            }
        }));
    });
    IN_CASE.set(true);
    let verdict = catch_unwind(AssertUnwindSafe(|| check::check(&Case::from_bytes(bytes))));
    IN_CASE.set(false);
    verdict.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a panic").to_owned())
    })
}

fn random_bytes(case: usize) -> Vec<u8> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(case as u64).to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut bytes = vec![0; rng.random_range(0..=MOST_BYTES)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// Shorter bytes that fail too, and then with zeros.
fn shrink(mut bytes: Vec<u8>) -> Vec<u8> {
    for keep in 0..bytes.len() {
        if verdict(&bytes[..keep]).is_err() {
            bytes.truncate(keep);
            break;
        }
    }
    for i in 0..bytes.len() {
        let byte = std::mem::take(&mut bytes[i]);
        if verdict(&bytes).is_ok() {
            bytes[i] = byte;
        }
    }
    bytes
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("hexadecimal digits") as u8;
    hex.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |byte, &c| byte << 4 | digit(c))).collect()
}
