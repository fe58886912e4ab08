//! The tensors of a safetensors file, by key.

use std::collections::BTreeMap;
use std::fmt;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::CheckpointError;

/// The tensors of a file, their keys in order.
pub(super) struct Tensors<'b>(BTreeMap<String, TensorView<'b>>);

/// One size of a tensor.
#[derive(Clone, Copy)]
pub(super) enum Size {
    /// Known from another tensor.
    Exactly(usize),
    /// Decided by this tensor, but not 0; the letter that the documentation has for it.
    Free(char),
}

impl Size {
    fn admits(self, size: usize) -> bool {
        match self {
            Size::Exactly(expected) => size == expected,
            Size::Free(_) => size > 0,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Exactly(expected) => write!(f, "{expected}"),
            Size::Free(letter) => write!(f, "{letter} >= 1"),
        }
    }
}

impl<'b> Tensors<'b> {
    pub(super) fn parse(bytes: &'b [u8]) -> Result<Self, CheckpointError> {
        Ok(Tensors(SafeTensors::deserialize(bytes)?.tensors().into_iter().collect()))
    }

    /// All keys, in order.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn shape(&self, key: &str) -> Option<&[usize]> {
        Some(self.0.get(key)?.shape())
    }

    /// Shape and values of the tensor `key`.
    pub(super) fn read<const RANK: usize>(
        &self,
        layout: &'static str,
        key: &str,
        expected: [Size; RANK],
    ) -> Result<([usize; RANK], Vec<f32>), CheckpointError> {
        let view = self.0.get(key).ok_or_else(|| CheckpointError::MissingKey { layout, key: key.to_owned() })?;
        let shape = <[usize; RANK]>::try_from(view.shape())
            .ok()
            .filter(|shape| shape.iter().zip(expected).all(|(&size, expected)| expected.admits(size)))
            .ok_or_else(|| CheckpointError::Shape {
                key: key.to_owned(),
                expected: format!("[{}]", expected.map(|size| size.to_string()).join(", ")),
                got: format!("{:?}", view.shape()),
            })?;
        let values = to_f32(view).ok_or_else(|| CheckpointError::Dtype {
            key: key.to_owned(),
            got: format!("{:?}", view.dtype()).to_lowercase(),
        })?;
        Ok((shape, values))
    }
}

/// A PyTorch Linear, or those of all head groups one after another.
pub(super) struct Linear {
    /// Rows of each weight.
    pub(super) rows: usize,
    /// Columns of each weight.
    pub(super) columns: usize,
    /// `[groups, rows, columns]`.
    pub(super) weight: Vec<f32>,
    /// `[groups, rows]`; all groups have one or none has.
    pub(super) bias: Option<Vec<f32>>,
}

impl Linear {
    /// Reads `layers`, of which there is at least one, and which are all of one shape.
    pub(super) fn read(
        tensors: &Tensors<'_>,
        layout: &'static str,
        layers: impl Iterator<Item = String> + Clone,
        mut rows: Size,
        mut columns: Size,
    ) -> Result<Self, CheckpointError> {
        let bias_key = |layer: &str| format!("{layer}.bias");
        let has_bias = layers.clone().any(|layer| tensors.contains(&bias_key(&layer)));
        let mut linear = Linear { rows: 0, columns: 0, weight: Vec::new(), bias: has_bias.then(Vec::new) };
        for layer in layers {
            let (shape, weight) = tensors.read(layout, &format!("{layer}.weight"), [rows, columns])?;
            [linear.rows, linear.columns] = shape;
            [rows, columns] = shape.map(Size::Exactly);
            linear.weight.extend(weight);
            if let Some(bias) = &mut linear.bias {
                bias.extend(tensors.read(layout, &bias_key(&layer), [rows])?.1);
            }
        }
        Ok(linear)
    }
}

/// The values of a tensor, None where they are no floating-point numbers that we read.
fn to_f32(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F64 => Some(decode(bytes, |number| f64::from_le_bytes(number) as f32)),
        Dtype::F32 => Some(decode(bytes, f32::from_le_bytes)),
        Dtype::F16 => Some(decode(bytes, |number| f16::from_le_bytes(number).to_f32())),
        Dtype::BF16 => Some(decode(bytes, |number| bf16::from_le_bytes(number).to_f32())),
        _ => None,
    }
}

/// Decodes little-endian numbers. The bytes of a safetensors file need not be aligned.
fn decode<const WIDTH: usize>(bytes: &[u8], to_f32: impl Fn([u8; WIDTH]) -> f32) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|&number| to_f32(number)).collect()
}
