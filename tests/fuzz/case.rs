//! A call of one operation, decoded from bytes: any bytes are a call, and those that are missing are 0.

use half::f16;
use mivc::launch::OnePass;
use mivc::launch::pack::F32Product;
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Dtype, Element, Order};

use crate::backends::vm::Layout;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Scores,
    Gate,
    Softmax,
    WeightedSum,
    WeightedSumPerHead,
    MaxMean,
    AttentionPool,
}

/// What the numbers are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// Small multiples of a power of two: sums are exact in whatever order, V h is 0 or where tanh is ±1.
    Exact,
    /// NaN, infinities, zeros, denormals and huge ones among numbers as those of `Uniform`.
    Special,
    Uniform,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub operation: Operation,
    pub draw: Draw,
    pub dtype: Dtype,
    /// Of what is pooled: f32, or as the features.
    pub output_is_f32: bool,
    pub f32_product: F32Product,
    /// How attention is pooled, where a tile fits.
    pub one_pass: Option<OnePass>,
    pub order: Order,
    pub instances: usize,
    pub dim: usize,
    /// D of the values of an attention pool, where they are not the keys.
    pub value_dim: Option<usize>,
    pub shape: AttentionShape,
    pub gated: bool,
    /// Whether there are biases of V, of U and of w.
    pub biases: [bool; 3],
    /// Any values.
    pub offsets: Vec<i64>,
    /// Whether the offsets are given as i64; i32 if not.
    pub wide: bool,
    pub mask: Option<Vec<u8>>,
    pub layout: Layout,
    /// Which outputs a second call leaves out, a bit for each.
    pub left_out: u8,
    /// Of the order in which blocks and warps run.
    pub schedule: u64,
    /// All numbers follow from it.
    pub seed: u64,
}

const DIMS: [usize; 16] = [1, 8, 3, 16, 4, 32, 7, 9, 17, 24, 31, 33, 40, 64, 100, 136];
const HIDDEN: [usize; 12] = [1, 8, 5, 16, 3, 17, 32, 33, 64, 65, 129, 200];
const HEADS_AND_GROUPS: [(usize, usize); 10] =
    [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2), (5, 5), (8, 1), (9, 3), (33, 1), (64, 64)];
/// Bags of more than one chunk, and about as long as one.
const LONG: [usize; 6] = [255, 256, 257, 512, 513, 700];
/// Rows from which sizes are tiny.
const MANY_ROWS: usize = 64;
/// Multiplications of a case at most: the machine has time for no more.
const WORK: usize = 150_000;

impl Case {
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut bytes = Bytes(bytes.iter());
        let operation = bytes.pick(&[
            Operation::WeightedSum,
            Operation::Scores,
            Operation::MaxMean,
            Operation::AttentionPool,
            Operation::Softmax,
            Operation::WeightedSumPerHead,
            Operation::AttentionPool,
            Operation::Gate,
        ]);
        let draw = bytes.pick(&[Draw::Exact, Draw::Special, Draw::Uniform]);
        let dtype = bytes.pick(&[Dtype::F32, Dtype::F16, Dtype::Bf16]);
        let seed = bytes.word();
        let instances = match bytes.next() {
            few @ ..=229 => usize::from(few) % 41,
            long => LONG[usize::from(long) % LONG.len()],
        };
        let (dims, hidden, heads_and_groups) = match instances {
            ..MANY_ROWS => (&DIMS[..], &HIDDEN[..], &HEADS_AND_GROUPS[..]),
            _ => (&DIMS[..5], &HIDDEN[..3], &HEADS_AND_GROUPS[..3]),
        };
        let (dim, value_dim, mut hidden) = (bytes.pick(dims), bytes.pick(dims), bytes.pick(hidden));
        let (heads, groups) = bytes.pick(heads_and_groups);
        while instances * dim * hidden * groups > WORK && hidden > 1 {
            hidden /= 2;
        }
        let flags = bytes.next();
        let flag = |bit: u8| flags >> bit & 1 == 1;
        let layout = Layout { offset: bytes.pick(&[0, 1, 2, 4, 8]), gap: bytes.pick(&[0, 1, 3, 4, 8]), scratch: None };
        let (left_out, schedule) = (bytes.next(), u64::from(bytes.next()));
        let mask = bytes.pick(&[0, 32, 0, 128, 255]);
        let mut numbers = Numbers::new(seed, "mask");
        let mask = (mask > 0).then(|| (0..instances).map(|_| u8::from(numbers.next() as u8 >= mask)).collect());
        Case {
            operation,
            draw,
            dtype,
            output_is_f32: !flag(0),
            f32_product: if flag(1) { F32Product::Plain } else { F32Product::Split },
            one_pass: match left_out >> 3 & 3 {
                0 => None,
                1 => Some(OnePass::Sm90),
                _ => Some(OnePass::Portable),
            },
            // A number that is 2⁴⁴ below another of its row counts as 0 there, which the tolerance does not know.
            order: match draw {
                Draw::Exact | Draw::Uniform if left_out >> 5 & 1 == 1 => Order::Exact,
                _ => Order::Rounding,
            },
            instances,
            dim,
            value_dim: flag(2).then_some(value_dim),
            shape: AttentionShape { dim, hidden, heads, groups },
            gated: flag(3),
            biases: [flag(4), flag(5), flag(6)],
            offsets: bytes.offsets(instances, !flag(7)),
            wide: !flag(7),
            mask,
            layout,
            left_out,
            schedule,
            seed,
        }
    }

    pub fn bags(&self) -> usize {
        self.offsets.len() - 1
    }

    /// As `prepare` makes them: within 0 and N, each at least the one before.
    pub fn mended_offsets(&self) -> Vec<i64> {
        let clamped = self.offsets.iter().map(|&offset| offset.clamp(0, self.instances as i64));
        let running_maximum = |greatest: &mut i64, offset: i64| {
            *greatest = offset.max(*greatest);
            Some(*greatest)
        };
        clamped.scan(0, running_maximum).collect()
    }

    /// Rather than special features: infinity times a denormal has as many results as there are ways to round one.
    fn has_special_params(&self) -> bool {
        matches!(self.operation, Operation::Scores | Operation::AttentionPool) && self.seed & 1 == 1
    }

    /// Features or keys, `[N, D]`; those of masked rows are NaN, as all that belongs to one is.
    pub fn features<E: Element>(&self) -> Vec<E> {
        let specials = if self.has_special_params() { Specials::None } else { Specials::Huge };
        self.rows("features", self.dim, specials)
    }

    /// Values of an attention pool, where they are not the keys.
    pub fn values<E: Element>(&self) -> Option<Vec<E>> {
        self.value_dim.map(|dim| self.rows("values", dim, Specials::Huge))
    }

    /// `[N, K, D]`.
    pub fn values_per_head<E: Element>(&self) -> Vec<E> {
        self.rows("values", self.shape.heads * self.dim, Specials::Huge)
    }

    fn rows<E: Element>(&self, what: &str, dim: usize, specials: Specials) -> Vec<E> {
        self.of_instances(what, dim, &Range { exact: (4, 1.0), bound: 2.0, specials })
    }

    /// x and y of the gate, `[N, L]`.
    pub fn gate_arguments<E: Element>(&self) -> [Vec<E>; 2] {
        // σ(±128) is 1 or, as an f32, 0; tanh(±32) is ±1.
        [("x", 32.0), ("y", 128.0)].map(|(what, step)| {
            let range = Range { exact: (1, step), bound: 10.0, specials: Specials::Huge };
            let len = self.instances * self.shape.hidden;
            self.draw(what, len, &range).into_iter().map(E::from_f32).collect()
        })
    }

    /// `[N, K]`.
    pub fn scores(&self) -> Vec<f32> {
        // Scores 128 apart have weights of which one, as an f32, is 0.
        let range = Range { exact: (2, 128.0), bound: 20.0, specials: Specials::Huge };
        self.of_instances("scores", self.shape.heads, &range)
    }

    /// `[N, K]`, some of them 0.
    pub fn weights(&self) -> Vec<f32> {
        let range = Range { exact: (8, 0.125), bound: 1.0, specials: Specials::NotHuge };
        let mut weights: Vec<f32> = self.of_instances("weights", self.shape.heads, &range);
        let mut numbers = Numbers::new(self.seed, "zeros");
        for weight in &mut weights {
            if numbers.next().is_multiple_of(8) {
                *weight = 0.0;
            }
        }
        weights
    }

    pub fn params(&self) -> AttentionParams {
        let AttentionShape { dim, hidden, heads, groups } = self.shape;
        let specials = if self.has_special_params() { Specials::NotHuge } else { Specials::None };
        // Scores that are multiples of 128 have weights as `scores` does.
        let step = if self.seed & 2 == 0 { 128.0 } else { 0.25 };
        let saturating = |bound| Range { exact: (1, 128.0), bound, specials };
        let weighing = Range { exact: (4, step), bound: 1.0, specials };
        let matrix = |what| self.draw(what, groups * hidden * dim, &saturating(2.0 / (dim as f32).sqrt()));
        let bias = |what| self.draw(what, groups * hidden, &saturating(1.0));
        let (v, u, v_bias, u_bias) = (matrix("v"), matrix("u"), bias("v bias"), bias("u bias"));
        let (w, w_bias) = (self.draw("w", heads * hidden, &weighing), self.draw("w bias", heads, &weighing));
        let tensors = AttentionTensors {
            v: &v,
            v_bias: self.biases[0].then_some(&v_bias),
            u: self.gated.then_some(&u),
            u_bias: (self.gated && self.biases[1]).then_some(&u_bias),
            w: &w,
            w_bias: self.biases[2].then_some(&w_bias),
        };
        AttentionParams::new(self.shape, tensors).expect("shapes that fit")
    }

    fn of_instances<E: Element>(&self, what: &str, row: usize, range: &Range) -> Vec<E> {
        let mut data: Vec<E> = self.draw(what, self.instances * row, range).into_iter().map(E::from_f32).collect();
        for (row, &present) in data.chunks_mut(row).zip(self.mask.iter().flatten()) {
            if present == 0 {
                row.fill(E::from_f32(f32::NAN));
            }
        }
        data
    }

    fn draw(&self, what: &str, len: usize, range: &Range) -> Vec<f32> {
        let mut numbers = Numbers::new(self.seed, what);
        // f16 has nothing beyond.
        let huge = if self.dtype == Dtype::F16 { f16::MAX.to_f32() } else { 1e30 };
        let specials =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40, f32::MIN_POSITIVE, huge, -huge];
        let specials = match range.specials {
            Specials::None => &[][..],
            Specials::NotHuge => &specials[..8],
            Specials::Huge => &specials[..],
        };
        // In most calls a few, so that not every result is NaN.
        let one_in = [4, 40, 400][Numbers::new(self.seed, "specials").next() as usize % 3];
        let mut number = || {
            let bits = numbers.next();
            let (choice, rest) = (bits >> 32, bits as u32);
            match self.draw {
                Draw::Exact => {
                    let (most, step) = range.exact;
                    ((rest % (2 * most + 1)) as f32 - most as f32) * step
                }
                Draw::Special if !specials.is_empty() && choice % one_in == 0 => {
                    specials[rest as usize % specials.len()]
                }
                _ => (f64::from(rest) / f64::from(1_u32 << 31) - 1.0) as f32 * range.bound,
            }
        };
        (0..len).map(|_| number()).collect()
    }
}

/// Of numbers of either sign.
struct Range {
    /// How many steps from 0 at most, and the step.
    exact: (u32, f32),
    /// For what is uniform.
    bound: f32,
    specials: Specials,
}

#[derive(Clone, Copy)]
enum Specials {
    None,
    /// For factors of huge ones: products overflow in some orders of a sum and not in others.
    NotHuge,
    Huge,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Numbers(u64);

impl Numbers {
    /// Of their own for each purpose.
    fn new(seed: u64, what: &str) -> Self {
        let mut numbers = Numbers(seed);
        for byte in what.bytes() {
            numbers.0 = numbers.next() ^ u64::from(byte);
        }
        numbers
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.next()))
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.next()) % of.len()]
    }

    /// Of up to six bags: rising from 0 to N, or to less than N, or of any values.
    fn offsets(&mut self, instances: usize, wide: bool) -> Vec<i64> {
        let kind = self.next() % 4;
        let bags = usize::from(self.next()) % 7;
        let offset = |bytes: &mut Self, before: i64, is_last: bool| match kind {
            0 | 1 => {
                let left = instances as i64 - before;
                let length = match bytes.next() {
                    _ if is_last && kind == 0 => left,
                    all @ 224.. => left - i64::from(all - 224),
                    some => i64::from(some % 16),
                };
                before + length.clamp(0, left)
            }
            _ => match bytes.next() % 8 {
                0 => bytes.word() as i64,
                1 => i64::from(bytes.word() as i32),
                2 => instances as i64 + i64::from(bytes.next() as i8),
                _ => i64::from(bytes.next()) % (instances as i64 + 2) - 1,
            },
        };
        let mut offsets = vec![if kind < 2 { 0 } else { offset(self, 0, false) }];
        for b in 0..bags {
            offsets.push(offset(self, offsets[b], b + 1 == bags));
        }
        // As the kernels get them.
        offsets.into_iter().map(|offset| if wide { offset } else { i64::from(offset as i32) }).collect()
    }
}
