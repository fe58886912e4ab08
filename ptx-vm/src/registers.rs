//! The registers of one warp, and the values that 32 lanes hold in one of them.

use std::marker::PhantomData;

use half::{bf16, f16};

/// Threads of a warp.
pub const LANES: usize = 32;

/// What `f` makes of each lane. A loop, where `array::from_fn` would be unrolled and `f` compiled 32 times.
#[inline(always)]
pub fn each_lane<T: Copy + Default>(mut f: impl FnMut(usize) -> T) -> [T; LANES] {
    let mut values = [T::default(); LANES];
    for (lane, value) in values.iter_mut().enumerate() {
        *value = f(lane);
    }
    values
}

/// One bit per lane.
pub type Mask = u32;

/// The lanes of a mask, lowest first.
pub fn lanes(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (lane < LANES).then_some(lane)
    })
}

/// Registers of up to 32 bits are words, those of 64 bits doubles. Immediates, special registers and the
/// addresses of variables are registers too, filled before the first instruction.
#[derive(Debug, Clone, Default)]
pub struct Registers {
    pub words: Vec<[u32; LANES]>,
    pub doubles: Vec<[u64; LANES]>,
    pub predicates: Vec<Mask>,
    /// Carry flag of each lane, `CC.CF`.
    pub carry: Mask,
    /// Seed of the errors of approximate functions.
    pub seed: u64,
}

/// Where a register lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Word(u32),
    Double(u32),
    Predicate(u32),
}

/// A register that holds `T` in each lane; of the right bank by construction.
#[derive(Debug)]
pub struct Reg<T> {
    index: u32,
    holds: PhantomData<fn() -> T>,
}

impl<T> Clone for Reg<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Reg<T> {}

impl<T: Lane> Reg<T> {
    /// Where it lies.
    pub fn slot(self) -> Slot {
        T::slot(self.index)
    }

    /// None where the slot is of another bank.
    pub fn new(slot: Slot) -> Option<Self> {
        T::index(slot).map(|index| Reg { index, holds: PhantomData })
    }

    #[inline(always)]
    pub fn read(self, registers: &Registers) -> [T; LANES] {
        T::read(registers, self.index)
    }

    /// Writes the lanes of `mask`.
    #[inline(always)]
    pub fn write(self, registers: &mut Registers, values: [T; LANES], mask: Mask) {
        T::write(registers, self.index, values, mask);
    }
}

impl Reg<u32> {
    /// Among the words.
    pub fn index(self) -> usize {
        self.index as usize
    }

    #[inline(always)]
    pub fn lane(self, registers: &Registers, lane: usize) -> u32 {
        registers.words[self.index as usize][lane]
    }
}

impl Reg<bool> {
    #[inline(always)]
    pub fn mask(self, registers: &Registers) -> Mask {
        registers.predicates[self.index as usize]
    }

    #[inline(always)]
    pub fn set(self, registers: &mut Registers, values: Mask, mask: Mask) {
        let to = &mut registers.predicates[self.index as usize];
        *to = *to & !mask | values & mask;
    }
}

/// A type that a lane of a register can hold.
pub trait Lane: Copy + Default + Send + Sync + 'static {
    fn index(slot: Slot) -> Option<u32>;
    fn slot(index: u32) -> Slot;
    fn read(registers: &Registers, index: u32) -> [Self; LANES];
    fn write(registers: &mut Registers, index: u32, values: [Self; LANES], mask: Mask);
}

macro_rules! lane {
    ($($ty:ty, $bank:ident: $slot:ident, $from:expr, $to:expr;)*) => {$(
        impl Lane for $ty {
            fn index(slot: Slot) -> Option<u32> {
                match slot {
                    Slot::$slot(index) => Some(index),
                    _ => None,
                }
            }

            fn slot(index: u32) -> Slot {
                Slot::$slot(index)
            }

            #[inline(always)]
            fn read(registers: &Registers, index: u32) -> [Self; LANES] {
                let from = &registers.$bank[index as usize];
                each_lane(|lane| $from(from[lane]))
            }

            #[inline(always)]
            fn write(registers: &mut Registers, index: u32, values: [Self; LANES], mask: Mask) {
                let to = &mut registers.$bank[index as usize];
                if mask == Mask::MAX {
                    for (to, value) in to.iter_mut().zip(values) {
                        *to = $to(value);
                    }
                } else {
                    for lane in lanes(mask) {
                        to[lane] = $to(values[lane]);
                    }
                }
            }
        }
    )*};
}

/// Two 16-bit values in a word, the first in the low half.
pub type Packed<T> = [T; 2];

lane! {
    u8, words: Word, |x: u32| x as u8, |x: u8| x as u32;
    i8, words: Word, |x: u32| x as i8, |x: i8| x as u32;
    u16, words: Word, |x: u32| x as u16, |x: u16| x as u32;
    i16, words: Word, |x: u32| x as i16, |x: i16| x as u16 as u32;
    u32, words: Word, |x: u32| x, |x: u32| x;
    i32, words: Word, |x: u32| x as i32, |x: i32| x as u32;
    u64, doubles: Double, |x: u64| x, |x: u64| x;
    i64, doubles: Double, |x: u64| x as i64, |x: i64| x as u64;
    f32, words: Word, f32::from_bits, f32::to_bits;
    f64, doubles: Double, f64::from_bits, f64::to_bits;
    f16, words: Word, |x: u32| f16::from_bits(x as u16), |x: f16| x.to_bits() as u32;
    bf16, words: Word, |x: u32| bf16::from_bits(x as u16), |x: bf16| x.to_bits() as u32;
    Packed<u16>, words: Word, |x: u32| [x as u16, (x >> 16) as u16], |[a, b]: [u16; 2]| a as u32 | (b as u32) << 16;
    Packed<f16>, words: Word, |x: u32| [f16::from_bits(x as u16), f16::from_bits((x >> 16) as u16)],
        |[a, b]: [f16; 2]| a.to_bits() as u32 | (b.to_bits() as u32) << 16;
    Packed<bf16>, words: Word, |x: u32| [bf16::from_bits(x as u16), bf16::from_bits((x >> 16) as u16)],
        |[a, b]: [bf16; 2]| a.to_bits() as u32 | (b.to_bits() as u32) << 16;
}

impl Lane for bool {
    fn index(slot: Slot) -> Option<u32> {
        match slot {
            Slot::Predicate(index) => Some(index),
            _ => None,
        }
    }

    fn slot(index: u32) -> Slot {
        Slot::Predicate(index)
    }

    #[inline(always)]
    fn read(registers: &Registers, index: u32) -> [bool; LANES] {
        let mask = registers.predicates[index as usize];
        each_lane(|lane| mask >> lane & 1 != 0)
    }

    #[inline(always)]
    fn write(registers: &mut Registers, index: u32, values: [bool; LANES], mask: Mask) {
        let mut packed = 0;
        for (lane, value) in values.into_iter().enumerate() {
            packed |= (value as Mask) << lane;
        }
        let to = &mut registers.predicates[index as usize];
        *to = *to & !mask | packed & mask;
    }
}
