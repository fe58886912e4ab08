use std::ops::Range;

use mivc::cpu::Values;
use mivc::{Element, Rows};

/// A matrix `[N, D]` with rows `stride` apart. What lies between them is NaN.
#[derive(Debug, Clone)]
pub struct Matrix<E> {
    data: Vec<E>,
    len: usize,
    dim: usize,
    stride: usize,
}

impl<E: Element> Matrix<E> {
    pub fn new(dim: usize, data: Vec<E>) -> Self {
        Matrix { len: data.len() / dim, data, dim, stride: dim }
    }

    pub fn from_f32(dim: usize, data: &[f32]) -> Self {
        Matrix::new(dim, data.iter().map(|&x| E::from_f32(x)).collect())
    }

    /// The same rows, `padding` elements further apart.
    pub fn padded(&self, padding: usize) -> Self {
        let stride = self.dim + padding;
        let mut data = vec![E::from_f32(f32::NAN); self.len * stride];
        for (row, padded) in self.iter().zip(data.chunks_mut(stride)) {
            padded[..self.dim].copy_from_slice(row);
        }
        if self.len > 0 {
            data.truncate((self.len - 1) * stride + self.dim);
        }
        Matrix { data, stride, ..*self }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn row(&self, n: usize) -> &[E] {
        &self.data[n * self.stride..][..self.dim]
    }

    pub fn row_mut(&mut self, n: usize) -> &mut [E] {
        &mut self.data[n * self.stride..][..self.dim]
    }

    pub fn iter(&self) -> impl Iterator<Item = &[E]> {
        (0..self.len).map(|n| self.row(n))
    }

    /// The rows of the given numbers.
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        Matrix::new(self.dim, rows.into_iter().flat_map(|n| self.row(n).to_vec()).collect())
    }

    pub fn slice(&self, rows: Range<usize>) -> Self {
        self.select(rows)
    }

    pub fn rows(&self) -> Rows<'_, E> {
        Rows::strided(&self.data, self.len, self.dim, self.stride).unwrap()
    }

    pub fn shared(&self) -> Values<'_, E> {
        Values::Shared(self.rows())
    }

    pub fn per_head(&self) -> Values<'_, E> {
        Values::PerHead(self.rows())
    }
}
