//! What is pooled: one embedding per image, or the tokens of images.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::rows::Rows;

/// What one attention weight stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unit<'a, E> {
    /// A row, which is pooled.
    Image,
    /// A row, with the weight of which the same row of these `[N, T·D]` is pooled.
    ImageOf { values: Rows<'a, E>, tokens: usize },
    /// A row of `[N·T, D]`; each of `tokens` positions is pooled over the images by itself.
    Position { tokens: usize },
    /// A row of `[N·T, D]`; all tokens of all images of a bag are its instances.
    Token { tokens: usize },
}

/// The features of `N` images, in the order of the bags' offsets, which count images.
///
/// | constructor | input | one attention weight per | pooled |
/// | --- | --- | --- | --- |
/// | [`new`](Self::new) | `[N, D]` | image | `[B, K, D]` |
/// | [`per_image`](Self::per_image) | keys `[N, D']`, values `[N, T, D]` | image | `[B, K, T, D]` |
/// | [`per_position`](Self::per_position) | `[N, T, D]` | image and token position | `[B, T, K, D]` |
/// | [`all_tokens`](Self::all_tokens) | `[N, T, D]` | token of any image | `[B, K, D]` |
///
/// Without attention (mean, max) there is no `K` axis.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a, E> {
    /// What is scored.
    pub(crate) rows: Rows<'a, E>,
    pub(crate) unit: Unit<'a, E>,
}

impl<'a, E: Element> Features<'a, E> {
    /// One embedding of `dim` features per image: `data` is `[N, D]`.
    ///
    /// # Errors
    /// Where `dim` is 0 or does not divide the length of `data`.
    pub fn new(data: &'a [E], dim: usize) -> Result<Self> {
        Ok(Features { rows: Rows::new(data, dim)?, unit: Unit::Image })
    }

    /// One weight per image: `keys` `[N, D']` are scored, all `tokens · dim` features of `values`
    /// `[N, T, D]` are pooled with the weight of their image.
    ///
    /// # Errors
    /// Where a size is 0 or does not divide its slice, or the two hold different numbers of images.
    pub fn per_image(keys: &'a [E], key_dim: usize, values: &'a [E], tokens: usize, dim: usize) -> Result<Self> {
        let keys = Rows::new(keys, key_dim)?;
        let values = Rows::new(values, token_row(tokens, dim)?)?;
        if keys.len() != values.len() {
            return Err(Error::argument("values", format!("{} images, as in keys", keys.len()), values.len()));
        }
        Ok(Features { rows: keys, unit: Unit::ImageOf { values, tokens } })
    }

    /// One weight per image and token position: token `t` of the result is pooled from the tokens `t`
    /// of the images alone. `data` is `[N, T, D]`.
    ///
    /// # Errors
    /// Where a size is 0 or their product does not divide the length of `data`.
    pub fn per_position(data: &'a [E], tokens: usize, dim: usize) -> Result<Self> {
        Self::tokens(data, tokens, dim, Unit::Position { tokens })
    }

    /// One weight per token: all tokens of all images of a bag are pooled into one embedding. `data`
    /// is `[N, T, D]`.
    ///
    /// # Errors
    /// Where a size is 0 or their product does not divide the length of `data`.
    pub fn all_tokens(data: &'a [E], tokens: usize, dim: usize) -> Result<Self> {
        Self::tokens(data, tokens, dim, Unit::Token { tokens })
    }

    fn tokens(data: &'a [E], tokens: usize, dim: usize, unit: Unit<'a, E>) -> Result<Self> {
        // The images must be whole, then each token is a row.
        Rows::new(data, token_row(tokens, dim)?)?;
        Ok(Features { rows: Rows::new(data, dim)?, unit })
    }

    /// The number of images, `N`.
    pub fn images(&self) -> usize {
        match self.unit {
            Unit::Image | Unit::ImageOf { .. } => self.rows.len(),
            Unit::Position { tokens } | Unit::Token { tokens } => self.rows.len() / tokens,
        }
    }
}

fn token_row(tokens: usize, dim: usize) -> Result<usize> {
    if tokens == 0 {
        return Err(Error::argument("tokens", "at least 1", tokens));
    }
    let row = tokens.checked_mul(dim);
    row.ok_or_else(|| Error::argument("tokens", "tokens * dim that fits the address space", tokens))
}
