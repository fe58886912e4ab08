//! Memory made of declared variables: shared memory of a block, local memory of a thread.

use std::sync::Arc;

use super::{Misuse, Value};

/// Offset of the first variable: address 0 is nobody's.
const FIRST: u64 = 1024;
/// Bytes of nobody between two variables, so that running over the end of one is seen.
const GAP: u64 = 32;

/// A variable and its offset.
#[derive(Debug, Clone)]
pub struct Placed {
    pub name: String,
    pub offset: u64,
    /// Bytes; of the dynamic part, what the launch asks for.
    pub size: u64,
}

/// Places variables of `(name, size, align)` one after the other; the dynamic part begins at the offset
/// that is also returned. None where they take more than `limit` bytes together.
pub fn lay_out(variables: impl IntoIterator<Item = (String, u64, u64)>, limit: u64) -> Option<(Vec<Placed>, u64)> {
    let (mut end, mut total) = (FIRST, 0_u64);
    let mut placed = Vec::new();
    for (name, size, align) in variables {
        total = total.checked_add(size).filter(|&total| total <= limit)?;
        let offset =
            end.checked_next_multiple_of(align.max(16)).filter(|&offset| offset < 1 << (super::RANK_BITS - 1))?;
        placed.push(Placed { name, offset, size });
        end = offset + size + GAP;
    }
    Some((placed, end.next_multiple_of(FIRST)))
}

/// What a byte is.
const NOBODYS: u8 = 0;
const FRESH: u8 = 1;
const WRITTEN: u8 = 2;
/// Of an mbarrier object.
const BARRIER: u8 = 3;

/// Variables and the state of their bytes before the first write; the same for every block or thread.
#[derive(Debug)]
pub struct Layout {
    /// As messages name it: `shared`, `local`.
    space: &'static str,
    variables: Vec<Placed>,
    fresh: Vec<u8>,
}

impl Layout {
    pub fn new(space: &'static str, variables: Vec<Placed>) -> Self {
        let len = variables.iter().map(|v| v.offset + v.size).max().unwrap_or(0).next_multiple_of(16) as usize;
        let mut fresh = vec![NOBODYS; len];
        for variable in &variables {
            fresh[variable.offset as usize..][..variable.size as usize].fill(FRESH);
        }
        Layout { space, variables, fresh }
    }

    /// Bytes, those between the variables included.
    pub fn len(&self) -> usize {
        self.fresh.len()
    }

    /// What an offset is nearest to: the variable before it.
    pub fn describe(&self, offset: u64, size: usize) -> String {
        let space = self.space;
        let before = self.variables.iter().filter(|v| v.offset <= offset).max_by_key(|v| v.offset);
        let Some(Placed { name, offset: start, size: len }) = before else {
            return format!("offset {offset:#x} of {space} memory, before every variable");
        };
        let within = offset - start;
        match (within + size as u64).saturating_sub(*len) {
            0 => format!("offset {within} of {space} `{name}` of {len} bytes"),
            past => format!("offset {within} of {space} `{name}` of {len} bytes, {past} bytes past its end"),
        }
    }
}

#[derive(Debug)]
pub struct Arena {
    layout: Arc<Layout>,
    words: Vec<u32>,
    /// Of each byte.
    state: Vec<u8>,
}

impl Arena {
    pub fn new(layout: Arc<Layout>) -> Self {
        Arena { words: vec![u32::MAX; layout.len() / 4], state: layout.fresh.clone(), layout }
    }

    /// Bytes, those between the variables included.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Forgets everything, for the next block.
    pub fn clear(&mut self) {
        self.words.fill(u32::MAX);
        self.state.copy_from_slice(&self.layout.fresh);
    }

    /// Whether an access is within one variable; the first and the last byte tell, gaps being wider than
    /// any access.
    #[inline(always)]
    pub fn check(&self, offset: u64, size: usize) -> Result<usize, Misuse> {
        let start = offset as usize;
        let within = offset < self.state.len() as u64
            && self.state[start] != NOBODYS
            && self.state.get(start + size - 1).is_some_and(|&state| state != NOBODYS);
        match within {
            false => Err(Misuse::OutOfBounds),
            true if self.state[start] == BARRIER || self.state[start + size - 1] == BARRIER => Err(Misuse::Barrier),
            true if !start.is_multiple_of(size) => Err(Misuse::Misaligned),
            true => Ok(start),
        }
    }

    /// Whether a range of any length is within one variable, begins at a multiple of `align`, and has no mbarrier.
    pub fn check_range(&self, offset: u64, size: usize, align: usize) -> Result<usize, Misuse> {
        let start = offset as usize;
        let range = self.state.get(start..start.saturating_add(size)).ok_or(Misuse::OutOfBounds)?;
        match range {
            _ if range.contains(&NOBODYS) => Err(Misuse::OutOfBounds),
            _ if range.contains(&BARRIER) => Err(Misuse::Barrier),
            _ if !start.is_multiple_of(align) => Err(Misuse::Misaligned),
            _ => Ok(start),
        }
    }

    /// Whether 8 bytes are within one variable, mbarrier or not.
    pub fn check_barrier(&self, offset: u64) -> Result<usize, Misuse> {
        let start = offset as usize;
        match self.state.get(start..start.saturating_add(8)) {
            Some(range) if !range.contains(&NOBODYS) && start.is_multiple_of(8) => Ok(start),
            Some(range) if !range.contains(&NOBODYS) => Err(Misuse::Misaligned),
            _ => Err(Misuse::OutOfBounds),
        }
    }

    /// Makes 8 bytes an mbarrier, or no longer one.
    pub fn mark_barrier(&mut self, offset: usize, is_barrier: bool) {
        self.state[offset..offset + 8].fill(if is_barrier { BARRIER } else { FRESH });
    }

    #[inline(always)]
    pub fn is_written(&self, offset: usize, size: usize) -> bool {
        self.state[offset..offset + size].iter().all(|&state| state == WRITTEN)
    }

    #[inline(always)]
    pub fn load(&self, offset: usize, size: usize) -> Value {
        super::load(&self.words[..], offset, size)
    }

    #[inline(always)]
    pub fn store(&mut self, offset: usize, size: usize, value: Value) {
        super::store(&mut self.words[..], offset, size, value);
    }

    #[inline(always)]
    pub fn mark_written(&mut self, offset: usize, size: usize) {
        self.state[offset..offset + size].fill(WRITTEN);
    }
}
