//! Inputs without order that are the same in every run.

pub fn random_u64(len: usize) -> Vec<u64> {
    // SplitMix64
    let number = |i: u64| {
        let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    (1..=len as u64).map(number).collect()
}

pub fn random_u32(len: usize) -> Vec<u32> {
    random_u64(len).into_iter().map(|bits| (bits >> 32) as u32).collect()
}

/// From 0 to `below - 1`.
pub fn random_below(below: u32, len: usize) -> Vec<i32> {
    random_u32(len).into_iter().map(|bits| (bits % below) as i32).collect()
}

/// Whole numbers from -50 to 50, of both signs even among a few.
pub fn small_i32(len: usize) -> Vec<i32> {
    random_below(101, len).into_iter().map(|x| x - 50).collect()
}

/// Likewise; sums of some thousand of them, and of as many products of two, are exact.
pub fn small_f32(len: usize) -> Vec<f32> {
    small_i32(len).into_iter().map(|x| x as f32).collect()
}
