//! Max and mean: the maximum has no order anyway, and the mean is a sum of its own.

use super::state::ExactSums;
use super::weighted_sum::{Results, Source, Sums};
use crate::error::{Error, Result};
use crate::launch::Step;
use crate::launch::max_mean::{self, Addresses, Shape};
use crate::launch::scratch::Layout;
use crate::launch::weighted_sum::{self, Values};
use crate::launch::work_list::{Capacity, WorkList};

/// Max and mean of certain shapes.
#[derive(Debug, Clone, Copy)]
pub struct MaxMean {
    max: max_mean::MaxMean,
    list: WorkList,
    sums: Sums,
    scratch_bytes: usize,
}

impl MaxMean {
    /// As [`max_mean::MaxMean::plan`].
    ///
    /// # Errors
    /// As there.
    pub fn plan(shape: Shape, capacity: Capacity) -> Result<Self> {
        let max = max_mean::MaxMean::plan(shape, capacity)?;
        let Shape { dim, features, outputs, .. } = shape;
        let mean = weighted_sum::Shape { dim, heads: 1, per_head: false, values: features, outputs };
        let mut layout = Layout::default();
        let list = Sums::plan_list(mean, capacity, &mut layout)?;
        let sums = Sums::place(mean, capacity, &list, &mut layout)?;
        Ok(MaxMean { max, list, sums, scratch_bytes: layout.bytes().max(max.scratch_bytes()) })
    }

    /// What was planned for.
    pub fn shape(&self) -> Shape {
        self.max.shape()
    }

    /// Bytes of scratch memory that every call needs, whatever its size.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// As [`max_mean::MaxMean::steps`].
    ///
    /// # Errors
    /// As there.
    pub fn steps(&self, call: Capacity, addresses: Addresses) -> Result<Option<Vec<Step>>> {
        self.list.expect(call)?;
        let Addresses { features, row_stride, offsets, mask, max, mean, argmax, exact, scratch } = addresses;
        if mean == 0 && max == 0 && argmax == 0 && exact == 0 {
            return Err(Error::argument("outputs", "max, mean, argmax or exact", "none of them"));
        }
        let mut steps = Vec::new();
        if max != 0 || argmax != 0 || self.shape().argmax {
            steps.extend(self.max.steps(call, Addresses { mean: 0, exact: 0, ..addresses })?.into_iter().flatten());
        }
        if call.bags == 0 {
            return Ok(None);
        }
        if mean != 0 || exact != 0 {
            let [masses, sums] = ExactSums::parts(exact, call.bags, 1);
            let results = Results { pooled: mean, masses, sums };
            let list = self.list.parameters(call.bags, self.sums.tiles(), scratch);
            steps.extend(self.list.steps(list, call, offsets));
            let values = Values { address: features, row_stride };
            steps.push(self.sums.step((&self.list, list), call, Source::Mean { mask }, values, results, scratch));
        }
        Ok(Some(steps))
    }
}
