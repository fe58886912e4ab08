//! A borrowed matrix.

use crate::element::Element;
use crate::error::{Error, Result, expect_len};

/// A borrowed row-major matrix `[N, D]` whose rows may lie further apart than they are long.
///
/// ```
/// use mivc::Rows;
///
/// let rows = Rows::new(&[1.0_f32, 2.0, 3.0, 4.0], 2)?;
/// assert_eq!((rows.len(), rows.dim(), rows.row(1)), (2, 2, &[3.0, 4.0][..]));
/// # Ok::<(), mivc::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, E> {
    data: &'a [E],
    len: usize,
    dim: usize,
    /// Elements from a row to the next, within a run of `run` rows.
    stride: usize,
    /// Rows of a run, at least 1.
    run: usize,
    /// Elements from the first row of a run to that of the next.
    run_stride: usize,
}

impl<'a, E: Element> Rows<'a, E> {
    /// Contiguous rows of `dim` elements; there are `data.len() / dim` of them.
    ///
    /// # Errors
    /// Where `dim` is 0 or does not divide the length of `data`.
    pub fn new(data: &'a [E], dim: usize) -> Result<Self> {
        if dim == 0 || !data.len().is_multiple_of(dim) {
            return Err(Error::argument(
                "features",
                format!("a multiple of dim = {dim} elements, dim not 0"),
                data.len(),
            ));
        }
        Ok(Rows::whole(data, dim))
    }

    /// As [`new`](Self::new), of what is known to be whole rows.
    pub(crate) fn whole(data: &'a [E], dim: usize) -> Self {
        debug_assert!(dim > 0 && data.len().is_multiple_of(dim));
        Rows { data, len: data.len() / dim, dim, stride: dim, run: usize::MAX, run_stride: 0 }
    }

    /// `len` rows of `dim` elements, the first elements of neighbours `stride` apart.
    ///
    /// `data` ends with the last row: it has `(len - 1) · stride + dim` elements, none where `len` is 0.
    ///
    /// # Errors
    /// Where `dim` is 0, `stride` is below `dim`, or `data` is of another length.
    pub fn strided(data: &'a [E], len: usize, dim: usize, stride: usize) -> Result<Self> {
        if dim == 0 {
            return Err(Error::argument("dim", "at least 1", dim));
        }
        if stride < dim {
            return Err(Error::argument("stride", format!("at least dim = {dim}"), stride));
        }
        let span = match len {
            0 => Some(0),
            _ => (len - 1).checked_mul(stride).and_then(|start| start.checked_add(dim)),
        };
        let span = span.ok_or_else(|| Error::argument("len", "rows that fit the address space", len))?;
        expect_len("features", "(len - 1) * stride + dim", span, data.len())?;
        Ok(Rows { data, len, dim, stride, run: usize::MAX, run_stride: 0 })
    }

    /// The number of rows, `N`.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of columns, `D`.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Row `n`.
    ///
    /// # Panics
    /// Where `n` is not below [`len`](Self::len), as indexing a slice does.
    #[inline(always)]
    pub fn row(&self, n: usize) -> &'a [E] {
        let start = n / self.run * self.run_stride + n % self.run * self.stride;
        &self.data[start..start + self.dim]
    }

    /// Of contiguous rows, all elements.
    #[cfg(feature = "cuda")]
    pub(crate) fn contiguous(&self) -> &'a [E] {
        debug_assert!(self.stride == self.dim && self.run == usize::MAX);
        self.data
    }

    /// Of contiguous rows `[N·T, D]`, the same data as rows `[N, T·D]`.
    pub(crate) fn joined(&self, tokens: usize) -> Self {
        let dim = self.dim * tokens;
        Rows { len: self.len / tokens, dim, stride: dim, ..*self }
    }

    /// Of contiguous rows `[N·T, D]`, the rows `[T·N, D]`: those of token 0 first.
    pub(crate) fn position_first(&self, tokens: usize) -> Self {
        Rows { stride: self.dim * tokens, run: (self.len / tokens).max(1), run_stride: self.dim, ..*self }
    }
}
