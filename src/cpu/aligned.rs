//! Buffers that start on a cache line.

use std::marker::PhantomData;

use crate::element::Element;

/// One cache line, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A zero-filled buffer of elements, aligned to 64 bytes.
#[derive(Clone)]
pub(super) struct Aligned<E> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<E>,
}

impl<E: Element> Aligned<E> {
    pub(super) fn zeroed(len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<E>()).expect("no more bytes than addresses");
        let lines = bytes.div_ceil(size_of::<Line>());
        Aligned { lines: vec![Line([0; 64]); lines], len, element: PhantomData }
    }
}

impl<E: Element> std::ops::Deref for Aligned<E> {
    type Target = [E];

    #[inline(always)]
    fn deref(&self) -> &[E] {
        // SAFETY: `lines` holds at least `len` elements' bytes, all written; Element is sealed over
        // floats of at most 4 bytes, for which any bits are a value and 64-byte alignment is enough.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<E: Element> std::ops::DerefMut for Aligned<E> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [E] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
