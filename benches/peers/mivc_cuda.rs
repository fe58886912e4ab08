//! The same on the first GPU: everything lies in its memory, and it times by events of its own.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaSlice, CudaStream};
use mivc::cuda::attention_pool::{self, AttentionPool};
use mivc::cuda::max_mean::{self, MaxMean};
use mivc::cuda::{Capacity, Kernels, context};
use mivc::{AttentionParams, Element};

use super::{Features, Operation, Outcome};

/// Calls between two events, as in `run.py`.
const CALLS: usize = 16;

struct OnGpu<E> {
    stream: Arc<CudaStream>,
    plan: Plan,
    dim: usize,
    features: CudaSlice<E>,
    offsets: CudaSlice<i64>,
    pooled: CudaSlice<E>,
    scratch: CudaSlice<u8>,
}

enum Plan {
    Attention(Box<AttentionPool>),
    MaxMean(Box<MaxMean>),
}

pub(super) fn operation<E: Element>(
    features: Features<E>,
    params: Option<AttentionParams>,
) -> Outcome<Box<dyn Operation>> {
    let Features { data, dim, bags } = features;
    let context = context(0)?;
    let stream = context.new_stream()?;
    let kernels = Kernels::load(&context)?;
    let capacity = Capacity { instances: data.len() / dim, bags: bags.len() };
    let (plan, scratch_bytes, outputs) = match params {
        Some(params) => {
            let packed = kernels.pack(&stream, &params, E::DTYPE)?;
            let shape = attention_pool::Shape { value_dim: dim, outputs: E::DTYPE };
            let plan = AttentionPool::plan(&packed, shape, capacity)?;
            let bytes = plan.scratch_bytes();
            (Plan::Attention(Box::new(plan)), bytes, 1)
        }
        None => {
            let shape = max_mean::Shape { dim, features: E::DTYPE, outputs: E::DTYPE, argmax: false };
            let plan = MaxMean::plan(&kernels, shape, capacity)?;
            let bytes = plan.scratch_bytes();
            (Plan::MaxMean(Box::new(plan)), bytes, 2)
        }
    };
    Ok(Box::new(OnGpu {
        plan,
        dim,
        features: stream.clone_htod(&data)?,
        offsets: stream.clone_htod(bags.offsets())?,
        pooled: stream.clone_htod(&vec![E::default(); outputs * bags.len() * dim])?,
        scratch: stream.alloc_zeros(scratch_bytes)?,
        stream,
    }))
}

impl<E: Element> OnGpu<E> {
    fn pool(&mut self) -> mivc::Result<()> {
        let OnGpu { stream, plan, dim, features, offsets, pooled, scratch } = self;
        let (features, offsets, scratch) = (features.as_view(), offsets.as_view(), scratch.as_view_mut());
        match plan {
            Plan::Attention(plan) => {
                let inputs =
                    attention_pool::Inputs { keys: features, key_stride: *dim, values: None, offsets, mask: None };
                let pooled = pooled.as_view_mut();
                let outputs = attention_pool::Outputs::of(pooled);
                plan.run(stream, inputs, outputs, scratch)
            }
            Plan::MaxMean(plan) => {
                let inputs = max_mean::Inputs { features, row_stride: *dim, offsets, mask: None };
                let middle = pooled.len() / 2;
                let (max, mean) = pooled.split_at_mut(middle);
                let outputs = max_mean::Outputs { max: Some(max), mean: Some(mean), ..Default::default() };
                plan.run(stream, inputs, outputs, scratch)
            }
        }
    }
}

impl<E: Element> Operation for OnGpu<E> {
    fn run(&mut self) -> Outcome<f64> {
        // Not timed: the device comes to this process from another.
        self.pool()?;
        let start = self.stream.record_event(Some(CU_EVENT_DEFAULT))?;
        for _ in 0..CALLS {
            self.pool()?;
        }
        let end = self.stream.record_event(Some(CU_EVENT_DEFAULT))?;
        Ok(f64::from(start.elapsed_ms(&end)?) / 1e3 / CALLS as f64)
    }

    fn pooled(&self) -> Outcome<Vec<f32>> {
        Ok(self.stream.clone_dtoh(&self.pooled)?.into_iter().map(Element::to_f32).collect())
    }
}
