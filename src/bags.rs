//! Which rows belong to which bag.

use std::borrow::Cow;
use std::iter::repeat_n;
use std::ops::Range;

use crate::error::{BagsError, Result};

/// `B` bags over `N` instances: offsets, and optionally a mask.
///
/// Bag `b` holds the rows `offsets[b] .. offsets[b + 1]`. Offsets are checked once, here: the first
/// is 0, none is below the one before it, and the last is `N`. Bags may be empty, and there may be
/// none. Both arrays are borrowed where the caller lends them.
///
/// ```
/// use mivc::Bags;
///
/// let bags = Bags::from_lengths(&[2, 0, 3])?;
/// assert_eq!((bags.len(), bags.instances()), (3, 5));
/// assert_eq!(bags.range(2), 2..5);
/// assert_eq!(bags.offsets(), Bags::from_offsets(vec![0, 2, 2, 5])?.offsets());
/// # Ok::<(), mivc::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bags<'a> {
    /// `[B + 1]`, validated: non-empty, starts at 0, never falls, every entry fits a `usize`.
    offsets: Cow<'a, [i64]>,
    /// `[N]`; 0 = not there.
    mask: Option<Cow<'a, [u8]>>,
}

impl<'a> Bags<'a> {
    /// Bags from `B + 1` offsets.
    ///
    /// # Errors
    /// [`BagsError`] where the offsets are empty, do not start at 0 or fall.
    pub fn from_offsets(offsets: impl Into<Cow<'a, [i64]>>) -> Result<Self> {
        let offsets = offsets.into();
        match offsets.first() {
            None => return Err(BagsError::Empty.into()),
            Some(0) => {}
            Some(&got) => return Err(BagsError::First { got }.into()),
        }
        if let Some(i) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(BagsError::Falling { index: i + 1, previous: offsets[i], got: offsets[i + 1] }.into());
        }
        let last = offsets.len() - 1;
        if usize::try_from(offsets[last]).is_err() {
            return Err(BagsError::Overflow { index: last }.into());
        }
        Ok(Bags { offsets, mask: None })
    }

    /// Bags from `B` lengths.
    ///
    /// # Errors
    /// [`BagsError`] where a length is negative or the sum overflows.
    pub fn from_lengths(lengths: &[i64]) -> Result<Bags<'static>> {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0_i64;
        offsets.push(end);
        for (index, &length) in lengths.iter().enumerate() {
            if length < 0 {
                return Err(BagsError::NegativeLength { index, got: length }.into());
            }
            end = end.checked_add(length).ok_or(BagsError::Overflow { index })?;
            offsets.push(end);
        }
        Bags::from_offsets(offsets)
    }

    /// The same bags, where the instances with `mask[n] == 0` are not there.
    ///
    /// A padded `[B, n, D]` batch is `B` bags of length `n` with a mask.
    ///
    /// # Errors
    /// [`BagsError::MaskLength`] where the mask does not have `N` entries.
    pub fn with_mask(mut self, mask: impl Into<Cow<'a, [u8]>>) -> Result<Self> {
        let mask = mask.into();
        if mask.len() != self.instances() {
            return Err(BagsError::MaskLength { instances: self.instances(), got: mask.len() }.into());
        }
        self.mask = Some(mask);
        Ok(self)
    }

    /// The number of bags, `B`.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no bag.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of instances, `N`, those masked out included.
    pub fn instances(&self) -> usize {
        self.offsets[self.len()] as usize
    }

    /// The offsets, `[B + 1]`.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// The mask, `[N]`, where there is one.
    pub fn mask(&self) -> Option<&[u8]> {
        self.mask.as_deref()
    }

    /// The rows of bag `b`.
    ///
    /// # Panics
    /// Where `b` is not below [`len`](Self::len), as indexing a slice does.
    pub fn range(&self, b: usize) -> Range<usize> {
        self.offsets[b] as usize..self.offsets[b + 1] as usize
    }

    /// The rows of consecutive bags.
    pub(crate) fn rows_of(&self, bags: &Range<usize>) -> Range<usize> {
        self.offsets[bags.start] as usize..self.offsets[bags.end] as usize
    }

    /// The rows of every bag, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.len()).map(|b| self.range(b))
    }

    /// The bags whose instances are all `tokens` tokens of each instance: their lengths, and the mask, `tokens` times.
    ///
    /// ```
    /// use mivc::Bags;
    ///
    /// let bags = Bags::from_lengths(&[2, 0, 3])?.of_tokens(4)?;
    /// assert_eq!(bags.offsets(), [0, 8, 8, 20]);
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`BagsError::Overflow`] where the tokens are too many to count.
    pub fn of_tokens(&self, tokens: usize) -> Result<Bags<'static>> {
        let lengths = self.ranges().map(|range| range.len().saturating_mul(tokens) as i64);
        let bags = Bags::from_lengths(&lengths.collect::<Vec<_>>())?;
        let Some(mask) = self.mask() else { return Ok(bags) };
        bags.with_mask(mask.iter().flat_map(|&present| repeat_n(present, tokens)).collect::<Vec<_>>())
    }

    /// `times` copies of these bags, one after the other.
    ///
    /// # Errors
    /// [`BagsError::Overflow`] where the instances are too many to count.
    pub(crate) fn repeated(&self, times: usize) -> Result<Bags<'static>> {
        let lengths: Vec<_> = self.ranges().map(|range| range.len() as i64).collect();
        let bags = Bags::from_lengths(&lengths.repeat(times))?;
        match self.mask() {
            Some(mask) => bags.with_mask(mask.repeat(times)),
            None => Ok(bags),
        }
    }

    /// `Ok` exactly when the bags cover `instances` rows.
    pub(crate) fn expect_instances(&self, instances: usize) -> Result<()> {
        if self.instances() == instances {
            return Ok(());
        }
        let index = self.len();
        Err(BagsError::Last { index, instances, got: self.offsets[index] }.into())
    }
}

/// Whether row `n` takes part, under an optional mask.
#[inline(always)]
pub(crate) fn present(mask: Option<&[u8]>, n: usize) -> bool {
    mask.is_none_or(|mask| mask[n] != 0)
}
