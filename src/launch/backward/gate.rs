//! Backward of the gate.

use super::super::abi::{self, MivcGateBackward};
use super::super::{Launch, MAX_GRID_X, Parameters, Step, are_aligned, vector_elements};
use super::Gradient;
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
    pub d_g: u64,
    /// As many.
    pub d_x: Option<Gradient>,
    /// As many.
    pub d_y: Option<Gradient>,
}

/// Backward of the gate, of a type of elements.
#[derive(Debug, Clone, Copy)]
pub struct GateBackward {
    dtype: Dtype,
}

impl GateBackward {
    /// Of x, y, g and all gradients alike.
    pub fn plan(dtype: Dtype) -> Self {
        GateBackward { dtype }
    }

    /// What was planned for.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// What a call on so many elements does; nothing where there is none, or no gradient is asked for.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are more elements than a launch can have.
    pub fn steps(&self, elements: usize, addresses: Addresses) -> Result<Option<[Step; 1]>> {
        let Addresses { x, y, d_g, d_x, d_y } = addresses;
        let vector = vector_elements(self.dtype);
        let all = [x, y, d_g, Gradient::address(d_x), Gradient::address(d_y)];
        let is_vector = elements.is_multiple_of(vector) && are_aligned(&all);
        let of_block = abi::MIVC_THREADS as usize * if is_vector { vector } else { 1 };
        let blocks = elements.div_ceil(of_block);
        if blocks > MAX_GRID_X {
            return Err(Error::argument("elements", format!("at most {MAX_GRID_X} * {of_block}"), elements));
        }
        if blocks == 0 || (d_x.is_none() && d_y.is_none()) {
            return Ok(None);
        }
        Ok(Some([Step::Launch(Launch {
            image: "gate_backward",
            kernel: match (self.dtype, is_vector) {
                (Dtype::F32, false) => "mivc_gate_backward_f32",
                (Dtype::F32, true) => "mivc_gate_backward_f32_vector",
                (Dtype::F16, false) => "mivc_gate_backward_f16",
                (Dtype::F16, true) => "mivc_gate_backward_f16_vector",
                (Dtype::Bf16, false) => "mivc_gate_backward_bf16",
                (Dtype::Bf16, true) => "mivc_gate_backward_bf16_vector",
            },
            grid: [blocks as u32, 1, 1],
            block: [abi::MIVC_THREADS, 1, 1],
            shared_bytes: 0,
            tensor_maps: None,
            parameters: Parameters::GateBackward(MivcGateBackward {
                x,
                y,
                d_g,
                d_x: Gradient::parameters(d_x, self.dtype),
                d_y: Gradient::parameters(d_y, self.dtype),
                elements: elements as i64,
            }),
        })]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: Addresses = Addresses {
        x: 0x1000,
        y: 0x2000,
        d_g: 0x3000,
        d_x: Some(Gradient::Set(0x4000)),
        d_y: Some(Gradient::Add(0x5000)),
    };

    fn work(elements: usize, addresses: Addresses) -> Launch {
        let steps = GateBackward::plan(Dtype::Bf16).steps(elements, addresses).unwrap();
        let Some([Step::Launch(work)]) = steps else { panic!("{steps:?}") };
        work
    }

    #[test]
    fn vectors_where_everything_is_aligned() {
        assert_eq!(work(4096, ADDRESSES).kernel, "mivc_gate_backward_bf16_vector");
        assert_eq!(work(4096, ADDRESSES).grid, [4, 1, 1]);
        assert_eq!(work(4095, ADDRESSES).kernel, "mivc_gate_backward_bf16");
        for unaligned in [
            Addresses { d_g: 0x3002, ..ADDRESSES },
            Addresses { d_x: Some(Gradient::Set(0x4002)), ..ADDRESSES },
            Addresses { d_y: Some(Gradient::Add(0x5002)), ..ADDRESSES },
        ] {
            assert_eq!(work(4096, unaligned).kernel, "mivc_gate_backward_bf16", "{unaligned:?}");
        }
    }

    #[test]
    fn gradients_may_be_left_out() {
        assert_eq!(work(4096, Addresses { d_x: None, ..ADDRESSES }).kernel, "mivc_gate_backward_bf16_vector");
        let none = Addresses { d_x: None, d_y: None, ..ADDRESSES };
        assert!(GateBackward::plan(Dtype::F32).steps(5, none).unwrap().is_none());
        assert!(GateBackward::plan(Dtype::F32).steps(0, ADDRESSES).unwrap().is_none());
    }

    #[test]
    fn more_elements_than_a_launch_can_have() {
        let error = GateBackward::plan(Dtype::F32).steps(usize::MAX, ADDRESSES).unwrap_err();
        assert!(error.to_string().starts_with("elements: "), "{error}");
    }
}
