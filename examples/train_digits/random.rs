//! Random numbers that are the same everywhere: splitmix64 (Steele, Lea and Flood, 2014).

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Another sequence, which this one decides.
    pub(crate) fn split(&mut self) -> Self {
        Random(self.next())
    }

    /// Uniform in ±bound.
    pub(crate) fn uniform(&mut self, bound: f32) -> f32 {
        // 24 bits are as many as an f32 has.
        let unit = (self.next() >> 40) as f32 / (1_u32 << 24) as f32;
        bound * (2.0 * unit - 1.0)
    }

    /// Every order equally likely (Fisher and Yates), but for a remainder of 1 in 2^50 or less.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.next() % (last as u64 + 1);
            items.swap(last, other as usize);
        }
    }
}
