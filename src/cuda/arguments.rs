//! What the operations ask of their arguments; each error names the argument.

use cudarc::driver::{CudaView, CudaViewMut};

use crate::element::Dtype;
use crate::error::{BagsError, Error, Result, expect_len};
use crate::launch::exact::state::ExactSums;

/// The type of offsets: i32, as `cu_seqlens` are, or i64.
pub trait Offset: sealed::Offset {}
impl Offset for i32 {}
impl Offset for i64 {}

mod sealed {
    use crate::launch::Offsets;

    pub trait Offset {
        const AT: fn(u64) -> Offsets;
    }

    impl Offset for i32 {
        const AT: fn(u64) -> Offsets = Offsets::I32;
    }

    impl Offset for i64 {
        const AT: fn(u64) -> Offsets = Offsets::I64;
    }
}

/// N, of rows of `dim` elements that end with the last row.
pub(super) fn rows(
    argument: &'static str,
    len: usize,
    dim: usize,
    (stride_argument, row_stride): (&'static str, usize),
) -> Result<usize> {
    if row_stride < dim {
        return Err(Error::argument(stride_argument, format!("at least D = {dim}"), row_stride));
    }
    if len == 0 {
        return Ok(0);
    }
    match len.checked_sub(dim) {
        Some(before_last) if before_last.is_multiple_of(row_stride) => Ok(before_last / row_stride + 1),
        _ => Err(Error::argument(argument, format!("(N - 1) * {row_stride} + {dim} elements"), len)),
    }
}

/// B, of offsets `[B + 1]`.
pub(super) fn bags<I>(offsets: &CudaView<'_, I>) -> Result<usize> {
    Ok(offsets.len().checked_sub(1).ok_or(BagsError::Empty)?)
}

/// `Ok` exactly when the mask, where there is one, has an entry for each instance.
pub(super) fn expect_mask(mask: &Option<CudaView<'_, u8>>, instances: usize) -> Result<()> {
    match mask {
        Some(mask) if mask.len() != instances => Err(BagsError::MaskLength { instances, got: mask.len() }.into()),
        _ => Ok(()),
    }
}

/// `Ok` exactly when the elements are of the type that was planned.
pub(super) fn expect_dtype(argument: &'static str, planned: Dtype, got: Dtype) -> Result<()> {
    if got == planned { Ok(()) } else { Err(Error::argument(argument, format!("{planned}, as planned"), got)) }
}

/// `Ok` exactly when the output, where it is asked for, has the length that a shape asks for.
pub(super) fn expect_output<T>(
    argument: &'static str,
    shape: &str,
    expected: usize,
    output: &Option<CudaViewMut<'_, T>>,
) -> Result<()> {
    expect_len(argument, shape, expected, output.as_ref().map_or(expected, |output| output.len()))
}

/// `Ok` exactly when exact sums of `[B, K, D]`, where they are asked for, have their length.
pub(super) fn expect_exact(bags: usize, heads: usize, dim: usize, exact: &Option<CudaViewMut<'_, i64>>) -> Result<()> {
    match exact {
        Some(exact) => expect_len("exact", "ExactSums::len", ExactSums::new(bags, heads, dim)?.len(), exact.len()),
        None => Ok(()),
    }
}

/// `Ok` exactly when the input, where it is given, has the length that a shape asks for.
pub(super) fn expect_input<T>(
    argument: &'static str,
    shape: &str,
    expected: usize,
    input: &Option<CudaView<'_, T>>,
) -> Result<()> {
    expect_len(argument, shape, expected, input.as_ref().map_or(expected, |input| input.len()))
}

/// `Ok` exactly when the scratch memory has the bytes that a plan asks for.
pub(super) fn expect_scratch(bytes: usize, scratch: &CudaViewMut<'_, u8>) -> Result<()> {
    if scratch.len() < bytes {
        return Err(Error::argument("scratch", format!("at least {bytes} bytes"), scratch.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn features_end_with_the_last_row() {
        let rows = |len, dim, row_stride| super::rows("features", len, dim, ("row_stride", row_stride));
        assert_eq!(rows(0, 3, 5).unwrap(), 0);
        assert_eq!(rows(3, 3, usize::MAX).unwrap(), 1);
        assert_eq!(rows(13, 3, 5).unwrap(), 3);
        assert_eq!(rows(9, 3, 3).unwrap(), 3);
        for (len, dim, row_stride) in [(2, 3, 3), (10, 3, 3), (15, 3, 5), (9, 3, 2)] {
            assert!(rows(len, dim, row_stride).is_err());
        }
    }
}
