//! Max and mean, each output with the others and alone.

use mivc::cpu::MaxMeanOutputs;
use mivc::launch::Capacity;
use mivc::launch::exact::state::ExactSums;
use mivc::launch::in_order::MaxMean;
use mivc::launch::max_mean::{Addresses, Shape};
use mivc::{Bags, Dtype, Element, PoolState, Result, Rows};
use ptx_vm::{Checks, Statistics};

use super::{Machine, Output, VmBackend, from_bytes};

/// The arguments of max and mean.
pub struct Call<'a, E> {
    pub features: Rows<'a, E>,
    /// `[B + 1]`, any values.
    pub offsets: &'a [i64],
    pub mask: Option<&'a [u8]>,
    /// Whether the kernels get i64; i32 if not.
    pub wide: bool,
}

/// What a call left behind.
#[derive(Debug, PartialEq)]
pub struct Results {
    /// Bytes of max, mean and argmax.
    pub outputs: [Option<Vec<u8>>; 3],
    /// Of the last launch.
    pub work: Statistics,
}

impl Machine {
    /// The exact sums of the mean.
    fn sums_of_mean<E: Element>(&mut self, call: &Call<'_, E>, sums: ExactSums) -> Result<Vec<i64>> {
        let (features, bags) = (call.features, call.offsets.len() - 1);
        let capacity = Capacity { instances: features.len(), bags };
        let shape = Shape { dim: features.dim(), features: E::DTYPE, outputs: Dtype::F32, argmax: false };
        let plan = MaxMean::plan(self.order, shape, capacity)?;
        let exact = self.sums(sums);
        let scratch = self.scratch(plan.scratch_bytes());
        let (features, row_stride) = self.upload_rows(features);
        let (offsets, mask) = (self.offsets(call.offsets, call.wide), self.mask(call.mask));
        let (max, mean, argmax) = (0, 0, 0);
        let exact_at = exact.address();
        let addresses = Addresses { features, row_stride, offsets, mask, max, mean, argmax, exact: exact_at, scratch };
        self.run(&plan.steps(capacity, addresses)?);
        Ok(self.read_words(exact))
    }

    pub fn max_mean<E: Element, O: Element>(
        &mut self,
        call: &Call<'_, E>,
        outputs: &MaxMeanOutputs<'_, O>,
    ) -> Result<Results> {
        let (features, bags) = (call.features, call.offsets.len() - 1);
        let capacity = Capacity { instances: features.len(), bags };
        let argmax = outputs.argmax.is_some();
        let shape = Shape { dim: features.dim(), features: E::DTYPE, outputs: O::DTYPE, argmax };
        let plan = MaxMean::plan(self.order, shape, capacity)?;
        let scratch = self.scratch(plan.scratch_bytes());
        let offsets = self.offsets(call.offsets, call.wide);
        let [max, mean] = [("max", &outputs.max), ("mean", &outputs.mean)]
            .map(|(name, output)| output.as_deref().map(|output| self.output(name, output)));
        let argmax = outputs.argmax.as_deref().map(|rows| {
            let bytes = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
            self.output_of("argmax", size_of::<i64>(), bytes, 0)
        });
        let outputs = [max, mean, argmax];
        let [max, mean, argmax] = outputs.map(|output| output.map_or(0, Output::address));
        let (features, row_stride) = self.upload_rows(features);
        let mask = self.mask(call.mask);
        let addresses = Addresses { features, row_stride, offsets, mask, max, mean, argmax, exact: 0, scratch };
        self.run(&plan.steps(capacity, addresses)?);
        Ok(Results { outputs: outputs.map(|output| output.map(|output| self.read_bytes(output))), work: self.last })
    }
}

impl VmBackend {
    /// One call under one schedule.
    pub fn max_mean_under<E: Element, O: Element>(
        &self,
        call: &Call<'_, E>,
        outputs: &MaxMeanOutputs<'_, O>,
        checks: Checks,
        seed: u64,
    ) -> Result<Results> {
        Machine::new(checks, seed).in_order(self.order).max_mean(call, outputs)
    }

    /// What is left out changes no bit of the others: max and mean without argmax, which are other kernels, and
    /// either alone.
    fn expect_each_alone<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: &MaxMeanOutputs<'_, O>,
        checks: Checks,
        all: &[Option<Vec<u8>>; 3],
    ) -> Result<()> {
        let call = Call { features, offsets: bags.offsets(), mask: bags.mask(), wide: true };
        for (with_max, with_mean) in [(true, true), (true, false), (false, true)] {
            let mut max = outputs.max.as_deref().filter(|_| with_max).map(<[O]>::to_vec);
            let mut mean = outputs.mean.as_deref().filter(|_| with_mean).map(<[O]>::to_vec);
            if max.is_none() && mean.is_none() {
                continue;
            }
            let some = MaxMeanOutputs { max: max.as_deref_mut(), mean: mean.as_deref_mut(), argmax: None };
            let results = self.max_mean_under(&call, &some, checks, 0)?.outputs;
            for (some, all) in results.iter().zip(all) {
                assert!(some.is_none() || some == all, "max {with_max}, mean {with_mean}, without argmax");
            }
        }
        Ok(())
    }

    pub(super) fn mean_onto<E: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        state: &mut PoolState,
    ) -> Result<()> {
        let sums = ExactSums::new(bags.len(), 1, features.dim())?;
        let call = Call { features, offsets: bags.offsets(), mask: bags.mask(), wide: true };
        let elements = features.len() * features.dim();
        let words = self.everywhere(elements, |machine| machine.sums_of_mean(&call, sums))?;
        state.merge(&sums.state(&words)?)
    }

    pub(super) fn max_mean_everywhere<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        let (checks, schedules) = VmBackend::checks(features.len() * features.dim());
        let under = |seed: u64| {
            let call = Call { features, offsets: bags.offsets(), mask: bags.mask(), wide: seed.is_multiple_of(2) };
            self.max_mean_under(&call, &outputs, checks, seed).map(|results| results.outputs)
        };
        let results = under(0)?;
        for seed in 1..schedules {
            assert_eq!(under(seed)?, results, "seed {seed} and seed 0");
        }
        self.expect_each_alone(features, bags, &outputs, checks, &results)?;
        let [max, mean, argmax] = results;
        for (to, from) in [(outputs.max, max), (outputs.mean, mean)] {
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(&from_bytes(&from));
            }
        }
        if let (Some(to), Some(from)) = (outputs.argmax, argmax) {
            for (to, from) in to.iter_mut().zip(from.chunks(8)) {
                *to = i64::from_le_bytes(from.try_into().unwrap());
            }
        }
        Ok(())
    }
}
