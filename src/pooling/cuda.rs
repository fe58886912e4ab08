//! Pooling on a CUDA device, of features and into results on the host.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};

use crate::bags::Bags;
use crate::cpu::MaxMeanOutputs;
use crate::cuda::max_mean::{Inputs, MaxMean, Outputs, Shape};
use crate::cuda::{Capacity, Kernels, context};
use crate::element::{Dtype, Element};
use crate::error::{CudaError, Result};
use crate::rows::Rows;

/// A device with the kernels on it, and what is done there in one order.
#[derive(Debug)]
pub(super) struct Cuda {
    kernels: Kernels,
    stream: Arc<CudaStream>,
}

impl Cuda {
    pub(super) fn new(ordinal: usize) -> Result<Self> {
        let context = context(ordinal)?;
        Ok(Cuda { kernels: Kernels::load(&context)?, stream: context.default_stream() })
    }

    /// As [`Cpu::max_mean`](crate::cpu::Cpu::max_mean), of contiguous rows.
    pub(super) fn max_mean<E: Element>(
        &self,
        rows: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, f32>,
    ) -> Result<()> {
        if bags.is_empty() {
            return Ok(());
        }
        let MaxMeanOutputs { max, mean, argmax } = outputs;
        let shape = Shape { dim: rows.dim(), features: E::DTYPE, outputs: Dtype::F32, argmax: argmax.is_some() };
        let capacity = Capacity { instances: rows.len(), bags: bags.len() };
        let operation = MaxMean::plan(&self.kernels, shape, capacity)?;

        let features = self.upload(rows.contiguous())?;
        let offsets = self.upload(bags.offsets())?;
        let mask = bags.mask().map(|mask| self.upload(mask)).transpose()?;
        let mut scratch = self.room::<u8>(operation.scratch_bytes())?;
        let mut pooled_max = max.as_ref().map(|max| self.room(max.len())).transpose()?;
        let mut pooled_mean = mean.as_ref().map(|mean| self.room(mean.len())).transpose()?;
        let mut pooled_argmax = argmax.as_ref().map(|argmax| self.room(argmax.len())).transpose()?;
        operation.run(
            &self.stream,
            Inputs {
                features: features.slice(..rows.contiguous().len()),
                row_stride: rows.dim(),
                offsets: offsets.as_view(),
                mask: mask.as_ref().map(|mask| mask.slice(..rows.len())),
            },
            Outputs {
                max: pooled_max.as_mut().map(CudaSlice::as_view_mut),
                mean: pooled_mean.as_mut().map(CudaSlice::as_view_mut),
                argmax: pooled_argmax.as_mut().map(CudaSlice::as_view_mut),
            },
            scratch.as_view_mut(),
        )?;
        self.download(pooled_max, max)?;
        self.download(pooled_mean, mean)?;
        self.download(pooled_argmax, argmax)
    }

    /// Memory for at least one element: the driver has none of 0 bytes.
    fn room<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>, CudaError> {
        // SAFETY: what is in it is numbers, any bits of which are valid, and written before it is read.
        Ok(unsafe { self.stream.alloc(len.max(1)) }?)
    }

    fn upload<T: DeviceRepr>(&self, from: &[T]) -> Result<CudaSlice<T>, CudaError> {
        let mut to = self.room(from.len())?;
        self.stream.memcpy_htod(from, &mut to)?;
        Ok(to)
    }

    /// Copies what was asked for, and waits for it.
    fn download<T: DeviceRepr>(&self, from: Option<CudaSlice<T>>, to: Option<&mut [T]>) -> Result<()> {
        if let (Some(from), Some(to)) = (from, to) {
            self.stream.memcpy_dtoh(&from, to).map_err(CudaError::from)?;
            self.stream.synchronize().map_err(CudaError::from)?;
        }
        Ok(())
    }
}
