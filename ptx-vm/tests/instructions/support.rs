//! Runs instructions on many operands at once.

use std::fmt::{Debug, Write};

use half::{bf16, f16};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use ptx_vm::{Device, Launch, Module, Parameters};

/// What a register can hold.
pub trait Value: Copy + Debug + 'static {
    /// The name of the registers of its width: `h` for 16 bits, `r` for 32, `d` for 64.
    const REGISTER: char;
    const EDGES: &'static [u64];

    fn of_bits(bits: u64) -> Self;
    fn bits(self) -> u64;

    /// A number that is neither large nor small, made from random bits.
    fn moderate(random: u64) -> u64 {
        (random >> (random & 63)).wrapping_mul(if random & 64 == 0 { 1 } else { u64::MAX })
    }

    fn same(self, other: Self) -> bool {
        self.bits() == other.bits()
    }
}

const INTEGERS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    31,
    32,
    33,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

macro_rules! integers {
    ($($ty:ty, $unsigned:ty, $register:literal;)*) => {$(
        impl Value for $ty {
            const REGISTER: char = $register;
            const EDGES: &'static [u64] = INTEGERS;

            fn of_bits(bits: u64) -> Self {
                bits as $ty
            }

            fn bits(self) -> u64 {
                (self as $unsigned).into()
            }
        }
    )*};
}

integers! {
    u8, u8, 'h';
    i8, u8, 'h';
    u16, u16, 'h';
    i16, u16, 'h';
    u32, u32, 'r';
    i32, u32, 'r';
    u64, u64, 'd';
    i64, u64, 'd';
}

macro_rules! floats {
    ($($ty:ty, $bits:ty, $mantissa:literal, $register:literal;)*) => {$(
        impl Value for $ty {
            const REGISTER: char = $register;
            const EDGES: &'static [u64] = &{
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                const INFINITE: $bits = <$ty>::INFINITY.to_bits();
                const ONE: $bits = (INFINITE >> $mantissa + 1) << $mantissa;
                const LEAST: $bits = 1 << $mantissa;
                const MAGNITUDES: [$bits; 14] = [
                    0, 1, 2, LEAST - 1, LEAST, LEAST + 1, ONE - LEAST, ONE - 1, ONE, ONE + 1, ONE + LEAST,
                    INFINITE - 1, INFINITE, INFINITE + LEAST / 2 + 1,
                ];
                let mut edges = [0; 28];
                let mut i = 0;
                while i < 14 {
                    edges[2 * i] = MAGNITUDES[i] as u64;
                    edges[2 * i + 1] = (MAGNITUDES[i] | SIGN) as u64;
                    i += 1;
                }
                edges
            };

            fn of_bits(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }

            fn bits(self) -> u64 {
                self.to_bits() as u64
            }

            /// Within a few powers of two of 1.
            fn moderate(random: u64) -> u64 {
                let mantissa = random & ((1 << $mantissa) - 1) & (u64::MAX << (random >> 40 & $mantissa));
                let exponent = (Self::EDGES[16] >> $mantissa) + (random >> 52 & 15) - 8;
                (random >> 63) << (<$bits>::BITS - 1) | exponent << $mantissa | mantissa
            }

            /// Which NaN a double is, the ISA leaves open.
            fn same(self, other: Self) -> bool {
                self.bits() == other.bits() || <$bits>::BITS == 64 && self.is_nan() && other.is_nan()
            }
        }
    )*};
}

floats! {
    f16, u16, 10, 'h';
    bf16, u16, 7, 'h';
    f32, u32, 23, 'r';
    f64, u64, 52, 'd';
}

/// Two values in a word, the first in the lower half.
impl<T: Value> Value for [T; 2] {
    const REGISTER: char = 'r';
    const EDGES: &'static [u64] = T::EDGES;

    fn of_bits(bits: u64) -> Self {
        [T::of_bits(bits), T::of_bits(bits >> 16)]
    }

    fn bits(self) -> u64 {
        self[0].bits() | self[1].bits() << 16
    }

    fn moderate(random: u64) -> u64 {
        T::moderate(random) & 0xffff | T::moderate(random.rotate_left(29)) << 16
    }
}

impl Value for bool {
    const REGISTER: char = 'p';
    const EDGES: &'static [u64] = &[0, 1];

    fn of_bits(bits: u64) -> Self {
        bits != 0
    }

    fn bits(self) -> u64 {
        self.into()
    }

    fn moderate(random: u64) -> u64 {
        random & 1
    }
}

/// The register of input `i`.
pub fn input<T: Value>(i: usize) -> String {
    format!("%{}{i}", T::REGISTER)
}

/// The register of output `i`.
pub fn output<T: Value>(i: usize) -> String {
    format!("%{}o{i}", T::REGISTER)
}

/// The kernel that runs `body` in each thread. Its inputs are in `%h0`, `%r0` and `%d0` (the lowest 16, 32 and
/// all bits) and, as to whether it is 0, `%p0`, and so on. It leaves what it computes in `%ho0`, `%ro0`, `%do0`
/// or `%po0`, and a second result with the number 1.
fn kernel(body: &str, inputs: usize) -> String {
    let mut text = String::from(
        ".version 9.0\n.target sm_80\n.address_size 64\n\
         .visible .entry kernel(.param .u64 kernel_in, .param .u64 kernel_out)\n{\n\
         .reg .pred %p<9>, %po<2>;\n.reg .b16 %h<9>, %ho<2>;\n.reg .b32 %r<9>, %ro<2>, %thread<4>;\n\
         .reg .b64 %d<9>, %do<2>, %from, %to;\n\
         mov.u32 %thread0, %tid.x;\nmov.u32 %thread1, %ctaid.x;\nmov.u32 %thread2, %ntid.x;\n\
         mad.lo.s32 %thread3, %thread1, %thread2, %thread0;\n\
         ld.param.u64 %from, [kernel_in];\nld.param.u64 %to, [kernel_out];\n",
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all text");
    line(format!("mad.wide.u32 %from, %thread3, {}, %from;", 8 * inputs));
    line("mad.wide.u32 %to, %thread3, 16, %to;".to_owned());
    for i in 0..inputs {
        line(format!("ld.global.u16 %h{i}, [%from+{}];", 8 * i));
        line(format!("ld.global.u32 %r{i}, [%from+{}];", 8 * i));
        line(format!("ld.global.u64 %d{i}, [%from+{}];", 8 * i));
        line(format!("setp.ne.b32 %p{i}, %r{i}, 0;"));
    }
    line(body.to_owned());
    for i in 0..2 {
        if body.contains(&format!("%po{i}")) {
            line(format!("selp.b32 %ro{i}, 1, 0, %po{i};\nst.global.u32 [%to+{}], %ro{i};", 8 * i));
        }
        for (register, ty) in [("h", "u16"), ("r", "u32"), ("d", "u64")] {
            if body.contains(&format!("%{register}o{i}")) {
                line(format!("st.global.{ty} [%to+{}], %{register}o{i};", 8 * i));
            }
        }
    }
    line("ret;\n}".to_owned());
    text
}

/// The two outputs of `body` for each set of inputs.
pub fn run_seeded<const N: usize>(body: &str, inputs: &[[u64; N]], seed: u64) -> Vec<[u64; 2]> {
    const BLOCK: usize = 64;
    let module = Module::load(&kernel(body, N)).unwrap_or_else(|error| panic!("{body}: {error}"));
    let blocks = inputs.len().div_ceil(BLOCK);
    let mut bytes: Vec<u8> = inputs.iter().flatten().flat_map(|input| input.to_le_bytes()).collect();
    bytes.resize(blocks * BLOCK * N * 8, 0);
    let mut device = Device::new();
    let from = device.upload("in", &bytes);
    let to = device.upload("out", &vec![0; blocks * BLOCK * 16]);
    let launch =
        Launch { grid: [blocks as u32, 1, 1], block: [BLOCK as u32, 1, 1], error_seed: seed, ..Default::default() };
    let parameters = Parameters::new().pointer(from).pointer(to);
    device.launch(&module, "kernel", &launch, parameters.bytes()).unwrap_or_else(|fault| panic!("{body}: {fault}"));
    let results = device.read(to).expect("the buffer was not freed");
    let words: Vec<u64> = results.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
    words.as_chunks().0[..inputs.len()].to_vec()
}

pub fn run<const N: usize>(body: &str, inputs: &[[u64; N]]) -> Vec<[u64; 2]> {
    run_seeded(body, inputs, 0)
}

/// Random numbers of any size, moderate ones and edges.
fn random<T: Value>() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), any::<u64>().prop_map(T::moderate), prop::sample::select(T::EDGES)]
}

/// Edges of one operand and 2000 random numbers.
pub fn samples<A: Value>() -> Vec<[u64; 1]> {
    let mut samples: Vec<[u64; 1]> = A::EDGES.iter().map(|&a| [a]).collect();
    samples.extend(draw(random::<A>().prop_map(|a| [a])));
    samples
}

/// Edges of two operands crossed, and 2000 random pairs.
pub fn sample_pairs<A: Value, B: Value>() -> Vec<[u64; 2]> {
    let mut samples: Vec<[u64; 2]> = A::EDGES.iter().flat_map(|&a| B::EDGES.iter().map(move |&b| [a, b])).collect();
    samples.extend(draw((random::<A>(), random::<B>()).prop_map(|(a, b)| [a, b])));
    samples
}

/// Edges of three operands crossed, and 2000 random triples.
pub fn sample_triples<A: Value, B: Value, C: Value>() -> Vec<[u64; 3]> {
    let pairs = || A::EDGES.iter().flat_map(|&a| B::EDGES.iter().map(move |&b| (a, b)));
    let mut samples: Vec<[u64; 3]> = pairs().flat_map(|(a, b)| C::EDGES.iter().map(move |&c| [a, b, c])).collect();
    samples.extend(draw((random::<A>(), random::<B>(), random::<C>()).prop_map(|(a, b, c)| [a, b, c])));
    samples
}

/// 2000 values of a strategy, the same in every run.
pub fn draw<T: Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    let tree = |_| strategy.new_tree(&mut runner).expect("nothing is rejected").current();
    (0..2000).map(tree).collect()
}

/// That the first output of `body` is what `expected` says.
pub fn check<D: Value, const N: usize>(body: &str, samples: &[[u64; N]], expected: impl Fn([u64; N]) -> D) {
    for (&sample, [bits, _]) in samples.iter().zip(run(body, samples)) {
        let (got, expected) = (D::of_bits(bits), expected(sample));
        assert!(
            got.same(expected) && D::of_bits(bits).bits() == bits,
            "{body} of {sample:x?}: {bits:x} {got:?}, not {:x} {expected:?}",
            expected.bits()
        );
    }
}

/// `opcode d, a`
pub fn unary<A: Value, D: Value>(opcode: &str, expected: impl Fn(A) -> D) {
    let body = format!("{opcode} {}, {};", output::<D>(0), input::<A>(0));
    check(&body, &samples::<A>(), |[a]| expected(A::of_bits(a)));
}

/// `opcode d, a, b`
pub fn binary<A: Value, B: Value, D: Value>(opcode: &str, expected: impl Fn(A, B) -> D) {
    let body = format!("{opcode} {}, {}, {};", output::<D>(0), input::<A>(0), input::<B>(1));
    check(&body, &sample_pairs::<A, B>(), |[a, b]| expected(A::of_bits(a), B::of_bits(b)));
}

/// `opcode d, a, b, c`
pub fn ternary<A: Value, B: Value, C: Value, D: Value>(opcode: &str, expected: impl Fn(A, B, C) -> D) {
    let [a, b, c] = [input::<A>(0), input::<B>(1), input::<C>(2)];
    let body = format!("{opcode} {}, {a}, {b}, {c};", output::<D>(0));
    check(&body, &sample_triples::<A, B, C>(), |[a, b, c]| expected(A::of_bits(a), B::of_bits(b), C::of_bits(c)));
}
