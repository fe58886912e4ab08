//! Gated sigmoid weighting.

use super::abi::{self, MivcGate};
use super::{Launch, MAX_GRID_X, Parameters, Step, are_aligned, vector_elements};
use crate::element::Dtype;
use crate::error::{Error, Result};

/// Where a call finds its arguments: device addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// `[N, L]`, or any number of elements.
    pub x: u64,
    /// As many.
    pub y: u64,
    /// As many.
    pub g: u64,
}

/// The gate of a type of elements.
#[derive(Debug, Clone, Copy)]
pub struct Gate {
    dtype: Dtype,
}

impl Gate {
    /// Of x, y and g alike.
    pub fn plan(dtype: Dtype) -> Self {
        Gate { dtype }
    }

    /// What was planned for.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// What a call on so many elements does; nothing where there is none.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are more elements than a launch can have.
    pub fn steps(&self, elements: usize, addresses: Addresses) -> Result<Option<[Step; 1]>> {
        let Addresses { x, y, g } = addresses;
        let vector = vector_elements(self.dtype);
        let is_vector = elements.is_multiple_of(vector) && are_aligned(&[x, y, g]);
        let of_block = abi::MIVC_THREADS as usize * if is_vector { vector } else { 1 };
        let blocks = elements.div_ceil(of_block);
        if blocks > MAX_GRID_X {
            return Err(Error::argument("elements", format!("at most {MAX_GRID_X} * {of_block}"), elements));
        }
        if blocks == 0 {
            return Ok(None);
        }
        Ok(Some([Step::Launch(Launch {
            image: "gate",
            kernel: match (self.dtype, is_vector) {
                (Dtype::F32, false) => "mivc_gate_f32",
                (Dtype::F32, true) => "mivc_gate_f32_vector",
                (Dtype::F16, false) => "mivc_gate_f16",
                (Dtype::F16, true) => "mivc_gate_f16_vector",
                (Dtype::Bf16, false) => "mivc_gate_bf16",
                (Dtype::Bf16, true) => "mivc_gate_bf16_vector",
            },
            grid: [blocks as u32, 1, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::Gate(MivcGate { x, y, g, elements: elements as i64 }),
        })]))
    }
}
