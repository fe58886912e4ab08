//! What the properties share.

pub mod backward;
mod calls;
mod case;
mod matrix;
pub mod oracle;

use std::fmt::Debug;
use std::sync::Arc;

use libtest_mimic::Failed;
use mivc::Element;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestRunner};

use crate::backends::Backend;

pub use calls::{MaxMean, Pool};
pub use case::{Case, cases, small_cases};
pub use matrix::Matrix;

/// What a check of one case gives.
pub type Check<T = ()> = Result<T, TestCaseError>;

/// What a trial gives.
pub type Outcome = Result<(), Failed>;

/// A property of an operation, for any backend.
pub struct Test<B> {
    pub name: &'static str,
    /// The file it is written in, after which its regressions are named.
    pub source: &'static str,
    pub body: fn(&Subject<B>) -> Outcome,
}

/// `tests()` of a module, from the names of its functions: first those for a backend alone, then,
/// after a semicolon, those for a backend and an element type.
macro_rules! tests {
    ($($plain:ident),*; $($generic:ident),*) => {
        pub fn tests<B: $crate::backends::Backend>() -> Vec<$crate::support::Test<B>> {
            vec![
                $(test!(stringify!($plain), $plain::<B>),)*
                $(
                    test!(concat!(stringify!($generic), "::f32"), $generic::<B, f32>),
                    test!(concat!(stringify!($generic), "::f16"), $generic::<B, half::f16>),
                    test!(concat!(stringify!($generic), "::bf16"), $generic::<B, half::bf16>),
                )*
            ]
        }
    };
}

macro_rules! test {
    ($name:expr, $body:expr) => {
        $crate::support::Test { name: concat!(module_path!(), "::", $name), source: file!(), body: $body }
    };
}

/// The backend under test, and which test it is.
pub struct Subject<B> {
    test: Test<B>,
    name: String,
    backend: Arc<B>,
}

impl<B: Backend> Subject<B> {
    pub fn new(test: Test<B>, backend: Arc<B>) -> Self {
        let name = format!("{}::{}", test.name.trim_start_matches("properties::"), backend.name());
        Subject { test, name, backend }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn backend(&self) -> &B {
        &self.backend
    }

    pub fn run(&self) -> Outcome {
        (self.test.body)(self)
    }

    /// Checks `count` values of a strategy, the same ones in every run.
    pub fn forall<S>(&self, count: u32, strategy: S, check: impl Fn(S::Value) -> Check) -> Outcome
    where
        S: Strategy + 'static,
    {
        self.run_cases(self.backend.cases(&self.name, count), strategy.boxed(), &check)
    }

    /// Compiled once per type of value: a copy of proptest's runner for each strategy and check would
    /// take minutes to build.
    fn run_cases<T: Debug>(&self, count: u32, strategy: BoxedStrategy<T>, check: &dyn Fn(T) -> Check) -> Outcome {
        let mut config = ProptestConfig {
            source_file: Some(self.test.source),
            failure_persistence: Some(Box::new(FileFailurePersistence::SourceParallel("regressions"))),
            ..ProptestConfig::default()
        };
        if std::env::var_os("PROPTEST_MAX_SHRINK_ITERS").is_none() {
            config.max_shrink_iters = 256;
        }
        if std::env::var_os("PROPTEST_CASES").is_none() {
            config.cases = count;
        }
        if config.rng_seed == RngSeed::Random {
            config.rng_seed = RngSeed::Fixed(0);
        }
        let failed = |error| format!("{error}\nagain with: cargo test --test properties -- --exact '{}'", self.name);
        Ok(TestRunner::new(config).run(&strategy, check).map_err(failed)?)
    }
}

/// Numbers that can be compared bit for bit.
pub trait Bits {
    fn bits(&self) -> Vec<u64>;
}

impl<E: Element> Bits for [E] {
    fn bits(&self) -> Vec<u64> {
        self.iter().map(|x| u64::from(x.to_f32().to_bits())).collect()
    }
}

impl<E: Element> Bits for Vec<E> {
    fn bits(&self) -> Vec<u64> {
        self[..].bits()
    }
}

/// Two results are the same, bit for bit.
pub fn same<T: Bits + ?Sized>(what: &str, left: &T, right: &T) -> Check {
    let (left, right) = (left.bits(), right.bits());
    prop_assert_eq!(left.len(), right.len(), "{}: lengths differ", what);
    let differing: Vec<usize> = (0..left.len()).filter(|&i| left[i] != right[i]).collect();
    if let Some(&i) = differing.first() {
        let count = differing.len();
        prop_assert!(false, "{what}: {count} of {} differ, [{i}] is {:#x} and {:#x}", left.len(), left[i], right[i]);
    }
    Ok(())
}

/// Every element is what `is` says.
pub fn every<E: Element>(what: &str, values: &[E], is: impl Fn(f32) -> bool) -> Check {
    let wrong = values.iter().position(|x| !is(x.to_f32()));
    prop_assert!(wrong.is_none(), "{what}: [{}] is {:?}", wrong.unwrap(), values[wrong.unwrap()]);
    Ok(())
}
