//! Buffers in global memory, which blocks on several host threads may use at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use super::{BUFFER_BITS, GLOBAL, Misuse, Value, Words};

/// A buffer. Its words are atomic, so that kernels that race cause no undefined behaviour here.
#[derive(Debug)]
pub struct Buffer {
    pub name: String,
    /// Bytes.
    len: usize,
    words: Vec<AtomicU32>,
    /// Held while two words change together.
    doubles: Mutex<()>,
    /// One flag per byte where reads before the first write are faults.
    written: Option<Vec<AtomicU8>>,
}

impl Buffer {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let word = |chunk: &[u8]| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            AtomicU32::new(u32::from_le_bytes(word))
        };
        Buffer {
            name: name.to_owned(),
            len: bytes.len(),
            words: bytes.chunks(4).map(word).collect(),
            doubles: Mutex::new(()),
            written: None,
        }
    }

    /// Holds 0xff in every byte: NaN in every format, and a fault to read where that is checked.
    pub fn uninitialised(name: &str, len: usize) -> Self {
        let words = (0..len.div_ceil(4)).map(|_| AtomicU32::new(u32::MAX)).collect();
        let written = (0..len).map(|_| AtomicU8::new(0)).collect();
        Buffer { name: name.to_owned(), len, words, doubles: Mutex::new(()), written: Some(written) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        bytes.truncate(self.len);
        bytes
    }

    /// Whether every byte of the range was written, or need not be.
    #[inline(always)]
    pub fn is_written(&self, offset: usize, size: usize) -> bool {
        match &self.written {
            None => true,
            Some(written) => written[offset..offset + size].iter().all(|flag| flag.load(Relaxed) != 0),
        }
    }

    #[inline(always)]
    pub fn load(&self, offset: usize, size: usize) -> Value {
        super::load(&self, offset, size)
    }

    #[inline(always)]
    pub fn store(&self, offset: usize, size: usize, value: Value) {
        let mut words = self;
        super::store(&mut words, offset, size, value);
    }

    /// Replaces 2, 4 or 8 bytes in one step and gives the old ones.
    pub fn update(&self, offset: usize, size: usize, new: impl Fn(u64) -> u64) -> u64 {
        if size == 8 {
            let _guard = self.doubles.lock();
            let [low, high, ..] = self.load(offset, 8);
            let old = low as u64 | (high as u64) << 32;
            let new = new(old);
            self.store(offset, 8, [new as u32, (new >> 32) as u32, 0, 0]);
            return old;
        }
        let (shift, mask) = (offset % 4 * 8, u32::MAX >> (32 - 8 * size));
        let field = |word: u32| (word >> shift & mask) as u64;
        let replaced = |word: u32| word & !(mask << shift) | (new(field(word)) as u32 & mask) << shift;
        let word = &self.words[offset / 4];
        let mut old = word.load(Relaxed);
        while let Err(current) = word.compare_exchange_weak(old, replaced(old), Relaxed, Relaxed) {
            old = current;
        }
        field(old)
    }

    /// Copies the bytes from `offset` on, at any alignment.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = self.words[at / 4].load(Relaxed).to_le_bytes();
            let count = (4 - at % 4).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(&word[at % 4..][..count]);
            (at, rest) = (at + count, later);
        }
    }

    #[inline(always)]
    pub fn mark_written(&self, offset: usize, size: usize) {
        if let Some(written) = &self.written {
            written[offset..offset + size].iter().for_each(|flag| flag.store(1, Relaxed));
        }
    }
}

impl Words for &Buffer {
    #[inline(always)]
    fn word(&self, i: usize) -> u32 {
        self.words[i].load(Relaxed)
    }

    #[inline(always)]
    fn set_word(&mut self, i: usize, value: u32) {
        self.words[i].store(value, Relaxed);
    }

    /// In one step: another thread may write the other half of the word.
    fn set_bits(&mut self, i: usize, value: u32, mask: u32) {
        let replaced = |word: u32| Some(word & !mask | value & mask);
        let _ = self.words[i].fetch_update(Relaxed, Relaxed, replaced);
    }
}

/// All buffers, by their number; None where one was freed.
#[derive(Debug, Default)]
pub struct Global {
    pub buffers: Vec<Option<Buffer>>,
}

impl Global {
    pub fn add(&mut self, buffer: Buffer) -> u64 {
        self.buffers.push(Some(buffer));
        GLOBAL + ((self.buffers.len() as u64 - 1) << BUFFER_BITS)
    }

    /// The number of the buffer that an address belongs to, and the offset in it, which may be beyond its end.
    #[inline(always)]
    pub fn split(address: u64) -> (usize, u64) {
        let address = address - GLOBAL;
        ((address >> BUFFER_BITS) as usize, address & ((1 << BUFFER_BITS) - 1))
    }

    pub fn buffer(&self, address: u64) -> Option<&Buffer> {
        let (number, _) = (address >= GLOBAL).then(|| Self::split(address))?;
        self.buffers.get(number)?.as_ref()
    }

    /// The buffer at an address, its number and the offset in it.
    #[inline(always)]
    pub fn find(&self, address: u64, size: usize) -> Result<(&Buffer, usize, usize), Misuse> {
        if address < GLOBAL {
            return Err(Misuse::OutOfBounds);
        }
        let (number, offset) = Self::split(address);
        match self.buffers.get(number) {
            Some(Some(buffer)) if offset as usize + size <= buffer.len => {
                if (offset as usize).is_multiple_of(size) {
                    Ok((buffer, number, offset as usize))
                } else {
                    Err(Misuse::Misaligned)
                }
            }
            _ => Err(Misuse::OutOfBounds),
        }
    }

    /// A range of any length: the buffer, its number and the offset in it.
    pub fn find_range(&self, address: u64, bytes: usize, align: usize) -> Result<(&Buffer, usize, usize), Misuse> {
        let (buffer, number, offset) = self.find(address, 1)?;
        match () {
            () if bytes > buffer.len - offset => Err(Misuse::OutOfBounds),
            () if !offset.is_multiple_of(align) => Err(Misuse::Misaligned),
            () => Ok((buffer, number, offset)),
        }
    }

    /// What an address that no buffer holds is nearest to.
    pub fn describe(&self, address: u64, size: usize) -> String {
        if address < GLOBAL {
            return format!("address {address:#x} is in no memory");
        }
        let (number, offset) = Self::split(address);
        // Just before a buffer is far beyond the end of the one before it.
        let next = self.buffers.get(number + 1).and_then(Option::as_ref);
        if let Some(next) = next
            && offset >= 1 << (BUFFER_BITS - 1)
        {
            let before = (1 << BUFFER_BITS) - offset;
            return format!("{size} bytes that begin {before} bytes before `{}` of {} bytes", next.name, next.len);
        }
        match self.buffers.get(number) {
            Some(Some(buffer)) => {
                let past = (offset + size as u64).saturating_sub(buffer.len as u64);
                let len = buffer.len;
                match past {
                    0 => format!("offset {offset} of `{}` of {len} bytes", buffer.name),
                    _ => format!("offset {offset} of `{}` of {len} bytes, {past} bytes past its end", buffer.name),
                }
            }
            Some(None) => format!("address {address:#x} is in a buffer that was freed"),
            None => format!("address {address:#x} is in no buffer"),
        }
    }
}
