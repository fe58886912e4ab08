//! The CUDA kernels in the virtual machine: what the launches of an operation do, without a GPU.

mod attention;
mod attention_backward;
mod backward;
mod max_mean;
mod state;

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::sync::LazyLock;

use mivc::cpu::{
    AttentionOutputs, AttentionPoolGradients, AttentionPoolUpstream, MaxMeanOutputs, MaxMeanUpstream, Saved,
    ScoresGradients, SoftmaxUpstream, Values, WeightedSumGradients,
};
use mivc::launch::attention_pool::Path;
use mivc::launch::pack::{F32Product, Pack};
use mivc::launch::{Capacity, Hardware, Launch, Offsets, OnePass, Step, Swizzle, TENSOR_MAP_BYTES, TensorMap};
use mivc::{AttentionParams, Bags, Device, Dtype, Element, Gradient, Order, PoolState, Result, Rows};
use ptx_vm::{Checks, Module, Pointer, Statistics};

use super::{Backend, Spread, spread, spread_aligned, spread_by};

pub use attention::Packed;
pub use attention_backward::{PackedBackward, PoolBackwardCall};
pub use backward::{SumCall, Target};
pub use max_mean::Call;
pub use state::Parts;

/// Kernels that a device may choose.
#[derive(Debug)]
pub struct VmBackend {
    pub name: &'static str,
    pub f32_product: F32Product,
    /// How attention is pooled, where a tile fits.
    pub one_pass: Option<OnePass>,
    pub order: Order,
}

/// The kernels of a device of compute capability 8.0, attention in two passes.
pub const VM: VmBackend =
    VmBackend { name: "vm", f32_product: F32Product::Split, one_pass: None, order: Order::Rounding };
/// The same, with others in place of some.
pub const VM_PLAIN: VmBackend =
    VmBackend { name: "vm-plain", f32_product: F32Product::Plain, one_pass: Some(OnePass::Portable), ..VM };
pub const VM_ONE_PASS: VmBackend = VmBackend { name: "vm-one-pass", one_pass: Some(OnePass::Portable), ..VM };
pub const VM_SM90: VmBackend = VmBackend { name: "vm-sm90", one_pass: Some(OnePass::Sm90), ..VM };
pub const VM_EXACT: VmBackend = VmBackend { name: "vm-exact", order: Order::Exact, ..VM };

/// A device of few multiprocessors, so that blocks take turns, and of so little shared memory that tiles of either size
/// are chosen.
const HARDWARE: Hardware = Hardware { multiprocessors: 2, shared_bytes: 99 << 10, one_pass: None };

/// The same for sm_90a, with room for three stages of columns beside each size of tile.
const HOPPER: Hardware = Hardware { multiprocessors: 4, shared_bytes: 120 << 10, one_pass: None };

/// Elements of features up to which races and initialisation are checked, under several schedules.
const SMALL: usize = 4096;
const SCHEDULES: u64 = 2;

/// Whether a test is one of the operations'. Malformed arguments are left out: the launches know addresses, not
/// lengths, and `tests/cuda_calls` has the others.
pub fn calls_operations(test: &str) -> bool {
    let test = test.trim_start_matches("properties::");
    ["front_door", "malformed"].iter().all(|other| !test.starts_with(other))
}

/// Whether a test's results depend on how attention is pooled in one pass. No backward's do.
pub fn pools_attention(test: &str, one_pass: OnePass) -> bool {
    let of_type = one_pass == OnePass::Portable || !test.ends_with("::f32");
    (test.contains("attention") || test.contains("state::")) && !test.contains("backward") && of_type
}

/// Whether a test is of an operation that sums over instances.
pub fn sums(test: &str) -> bool {
    let sums = [
        "softmax",
        "weighted_sum",
        "mean",
        "attention",
        "backward",
        "state::",
        "bound",
        "instruction_set",
        "long_bags",
    ];
    let others = ["gate", "::ties", "state::merge", "device_offsets"];
    sums.iter().any(|name| test.contains(name)) && !others.iter().any(|name| test.contains(name))
}

/// Words of the names of backwards that multiply no matrices.
const WITHOUT_PRODUCTS: [&str; 5] = ["gate", "softmax", "weighted_sum", "max_mean", "ties"];

/// Whether a test has products with V, U or the features.
fn has_products(test: &str) -> bool {
    match test.trim_start_matches("properties::").strip_prefix("backward::") {
        Some(test) => !WITHOUT_PRODUCTS.iter().any(|without| test.contains(without)),
        None => ["scores", "attention", "state::"].iter().any(|with| test.contains(with)),
    }
}

/// The PTX that the build script keeps, by the name of its `.cu`.
static IMAGES: LazyLock<HashMap<String, Module>> = LazyLock::new(|| {
    let folder = std::path::Path::new(mivc::launch::KERNELS);
    let mut images = HashMap::new();
    for entry in fs::read_dir(folder).expect("the folder of the kernels") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "ptx") {
            let ptx = fs::read_to_string(&path).expect("PTX");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            images.insert(name, Module::load(&ptx).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        }
    }
    images
});

/// The bags of a call as a device gets them.
#[derive(Clone, Copy)]
pub struct DeviceBags<'a> {
    /// `[B + 1]`, any values.
    pub offsets: &'a [i64],
    /// Whether the kernels get i64; i32 if not.
    pub wide: bool,
    pub mask: Option<&'a [u8]>,
}

impl<'a> From<&'a Bags<'_>> for DeviceBags<'a> {
    fn from(bags: &'a Bags<'_>) -> Self {
        DeviceBags { offsets: bags.offsets(), wide: true, mask: bags.mask() }
    }
}

impl DeviceBags<'_> {
    fn capacity(&self, instances: usize) -> Capacity {
        Capacity { instances, bags: self.offsets.len() - 1 }
    }
}

/// How a call's arguments lie in memory: no result may depend on it.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Elements before the first row of inputs and before each output: without any, a multiple of 16 bytes.
    pub offset: usize,
    /// Elements between rows.
    pub gap: usize,
    /// What every byte of scratch memory holds. Uninitialised where this is nothing.
    pub scratch: Option<u8>,
}

/// An output, and how many bytes of its buffer lie before it.
#[derive(Clone, Copy)]
struct Output {
    buffer: Pointer,
    skip: usize,
}

impl Output {
    fn address(self) -> u64 {
        self.buffer.address() + self.skip as u64
    }
}

/// What one call works on.
pub struct Machine {
    device: ptx_vm::Device,
    checks: Checks,
    seed: u64,
    /// Where there is none, rows lie as their number says.
    layout: Option<Layout>,
    order: Order,
    /// Of the last launch.
    last: Statistics,
}

impl Machine {
    pub fn new(checks: Checks, seed: u64) -> Self {
        Machine {
            device: ptx_vm::Device::new(),
            checks,
            seed,
            layout: None,
            order: Order::Rounding,
            last: Statistics::default(),
        }
    }

    pub fn in_order(self, order: Order) -> Self {
        Machine { order, ..self }
    }

    #[allow(dead_code, reason = "for the fuzzing of calls")]
    pub fn laid_out(self, layout: Layout) -> Self {
        Machine { layout: Some(layout), ..self }
    }

    /// What the last launch did.
    pub fn last(&self) -> Statistics {
        self.last
    }

    fn upload<T: Copy>(&mut self, name: &str, values: &[T], bytes: impl Fn(T) -> Vec<u8>) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| bytes(value)).collect();
        self.device.upload(name, &bytes).address()
    }

    fn floats(&mut self, name: &str, values: &[f32]) -> u64 {
        self.upload(name, values, to_bytes)
    }

    fn optional(&mut self, name: &str, values: Option<&[f32]>) -> u64 {
        values.map_or(0, |values| self.floats(name, values))
    }

    /// The address of the first row, and the elements from one row to the next.
    fn upload_rows<E: Element>(&mut self, rows: Rows<'_, E>) -> (u64, usize) {
        let Spread { data, offset, row_stride } = match self.layout {
            Some(layout) => spread_by(rows, layout.offset, layout.gap),
            None => spread(rows),
        };
        let address = self.upload("features", &data, to_bytes);
        (address + (offset * E::DTYPE.size()) as u64, row_stride)
    }

    fn upload_aligned_rows<E: Element>(&mut self, rows: Rows<'_, E>) -> (u64, usize) {
        let Spread { data, row_stride, .. } = spread_aligned(rows);
        (self.upload("features", &data, to_bytes), row_stride)
    }

    fn offsets(&mut self, offsets: &[i64], wide: bool) -> Offsets {
        match wide {
            true => Offsets::I64(self.upload("offsets", offsets, |offset| offset.to_le_bytes().to_vec())),
            false => Offsets::I32(self.upload("offsets", offsets, |offset| (offset as i32).to_le_bytes().to_vec())),
        }
    }

    fn mask(&mut self, mask: Option<&[u8]>) -> u64 {
        mask.map_or(0, |mask| self.upload("mask", mask, |byte| vec![byte]))
    }

    /// Uninitialised, if not laid out otherwise: what is read before it is written is found where everything is checked.
    fn scratch(&mut self, bytes: usize) -> u64 {
        let scratch = match self.layout.and_then(|layout| layout.scratch) {
            Some(poison) => self.device.upload("scratch", &vec![poison; bytes]),
            None => self.device.allocate("scratch", bytes),
        };
        scratch.address()
    }

    /// A buffer that holds what the output holds.
    fn output<E: Element>(&mut self, name: &str, output: &[E]) -> Output {
        self.output_at(name, output, 0)
    }

    /// So many elements behind a multiple of 16 bytes, if not laid out otherwise.
    fn output_at<E: Element>(&mut self, name: &str, output: &[E], offset: usize) -> Output {
        let bytes: Vec<u8> = output.iter().flat_map(|&x| to_bytes(x)).collect();
        self.output_of(name, E::DTYPE.size(), bytes, offset)
    }

    fn output_of(&mut self, name: &str, element_bytes: usize, mut bytes: Vec<u8>, offset: usize) -> Output {
        let skip = self.layout.map_or(offset, |layout| layout.offset) * element_bytes;
        bytes.splice(..0, vec![0; skip]);
        Output { buffer: self.device.upload(name, &bytes), skip }
    }

    fn read_bytes(&self, output: Output) -> Vec<u8> {
        let bytes = self.device.read(output.buffer).expect("an output");
        let (before, output) = bytes.split_at(output.skip);
        assert!(before.iter().all(|&byte| byte == 0), "written before an output");
        output.to_vec()
    }

    fn read<E: Element>(&self, output: Output) -> Vec<E> {
        from_bytes(&self.read_bytes(output))
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Clear { address, bytes } => self.device.write(*address, &vec![0; *bytes]).expect("scratch"),
                Step::Copy { from, to, bytes } => self.device.copy(*from, *to, *bytes).expect("an input, and scratch"),
                Step::Launch(launch) => self.launch(launch),
            }
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let how = ptx_vm::Launch {
            grid: launch.grid,
            block: launch.block,
            dynamic_shared: launch.shared_bytes,
            seed: self.seed,
            checks: self.checks,
            count: true,
            ..ptx_vm::Launch::default()
        };
        let mut parameters = launch.parameters.bytes().to_vec();
        for (place, map) in parameters.chunks_exact_mut(TENSOR_MAP_BYTES).zip(launch.tensor_maps.iter().flatten()) {
            place.copy_from_slice(&encode(map));
        }
        let run = self.device.launch(&IMAGES[launch.image], launch.kernel, &how, &parameters);
        self.last = run.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
    }
}

fn encode(map: &TensorMap) -> [u8; TENSOR_MAP_BYTES] {
    let map = ptx_vm::TensorMap {
        element_bytes: map.elements.size() as u32,
        address: map.address,
        dims: map.dims.to_vec(),
        strides: vec![map.row_bytes],
        block: map.block.to_vec(),
        swizzle: match map.swizzle {
            Swizzle::B64 => ptx_vm::Swizzle::B64,
            Swizzle::B128 => ptx_vm::Swizzle::B128,
        },
    };
    map.encode().expect("a map that the driver would take")
}

/// Little-endian bytes, as devices have them.
fn to_bytes<E: Element>(x: E) -> Vec<u8> {
    let bits = x.to_f32().to_bits();
    match E::DTYPE {
        Dtype::F32 => bits.to_le_bytes().to_vec(),
        Dtype::Bf16 => ((bits >> 16) as u16).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(x.to_f32()).to_le_bytes().to_vec(),
    }
}

pub fn from_bytes<E: Element>(bytes: &[u8]) -> Vec<E> {
    let value = |bytes: &[u8]| match E::DTYPE {
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::Bf16 => half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Dtype::F16 => half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
    };
    bytes.chunks(E::DTYPE.size()).map(|bytes| E::from_f32(value(bytes))).collect()
}

impl VmBackend {
    fn path(&self, plan: &Pack) -> Path {
        let device = if self.one_pass == Some(OnePass::Sm90) { HOPPER } else { HARDWARE };
        Path::of(plan, Hardware { one_pass: self.one_pass, ..device })
    }

    /// What is checked in a call on so many elements, and under how many schedules it runs.
    fn checks(elements: usize) -> (Checks, u64) {
        if elements <= SMALL { (Checks::Full, SCHEDULES) } else { (Checks::Bounds, 1) }
    }

    /// What `call` gives, the same under every schedule.
    fn everywhere<T: Debug>(&self, elements: usize, call: impl Fn(&mut Machine) -> Result<T>) -> Result<T> {
        let (checks, schedules) = Self::checks(elements);
        let under = |seed| call(&mut Machine::new(checks, seed).in_order(self.order));
        let result = under(0)?;
        for seed in 1..schedules {
            // As text, in which a NaN is as another.
            assert_eq!(format!("{:?}", under(seed)?), format!("{result:?}"), "seed {seed} and seed 0");
        }
        Ok(result)
    }
}

impl Backend for VmBackend {
    type Packed = Packed;
    type PackedBackward = PackedBackward;

    fn name(&self) -> &'static str {
        self.name
    }

    /// Activations are kept in two passes, so that last bits are not those of one.
    fn covers(&self, test: &str) -> bool {
        if self.order == Order::Exact {
            return calls_operations(test) && sums(test);
        }
        let is_its_own = match (self.f32_product, self.one_pass) {
            (F32Product::Plain, Some(_)) if test.contains("backward::keeps") => false,
            (F32Product::Plain, _) => has_products(test) && test.ends_with("::f32"),
            (F32Product::Split, None) => true,
            (F32Product::Split, Some(one_pass)) => pools_attention(test, one_pass),
        };
        calls_operations(test) && is_its_own
    }

    /// Fewer of those with products, which take it as long as all others; `tests/fuzz` tries more.
    fn cases(&self, test: &str, count: u32) -> u32 {
        let has_products = has_products(test);
        if self.order == Order::Exact {
            let is_of_order = test.trim_start_matches("properties::").starts_with("exact::");
            return count.div_ceil(if has_products && !is_of_order { 32 } else { 8 });
        }
        match (has_products, self.name) {
            (true, "vm") => count.div_ceil(4),
            (true, _) => count.div_ceil(8),
            (false, _) => count,
        }
    }

    fn order(&self) -> Order {
        self.order
    }

    /// More than 32 chunks of 1024 rows, so that there are merges of what has been merged.
    fn long_bag(&self) -> i64 {
        33_000
    }

    fn availability(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    fn device(&self) -> Option<Device> {
        None
    }

    fn pack(&self, params: &AttentionParams, dtype: Dtype) -> Packed {
        self.pack(params, dtype)
    }

    fn scores<E: Element>(
        &self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
    ) -> Result<()> {
        self.scores(packed, features, mask, scores)
    }

    fn gate<E: Element>(&self, x: &[E], y: &[E], g: &mut [E]) -> Result<()> {
        self.gate(x, y, g)
    }

    fn softmax(
        &self,
        scores: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        weights: &mut [f32],
        lse: &mut [f32],
    ) -> Result<()> {
        self.softmax(scores, heads, bags, weights, lse)
    }

    fn weighted_sum<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        pooled: &mut [O],
    ) -> Result<()> {
        self.weighted_sum(weights, heads, values, bags, pooled)
    }

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        self.max_mean_everywhere(features, bags, outputs)
    }

    fn attention_pool<E: Element, O: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
    ) -> Result<()> {
        self.attention_pool(packed, keys, values, bags, outputs)
    }

    fn attention_pool_onto<E: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        state: &mut PoolState,
        scores: Option<&mut [f32]>,
    ) -> Result<()> {
        self.attention_pool_onto(packed, keys, values, bags, state, scores)
    }

    fn mean_onto<E: Element>(&self, features: Rows<'_, E>, bags: &Bags<'_>, state: &mut PoolState) -> Result<()> {
        self.mean_onto(features, bags, state)
    }

    fn merge_state(&self, state: &mut PoolState, other: &PoolState) -> Result<()> {
        self.merge_state(state, other)
    }

    fn pack_backward(&self, params: &AttentionParams, dtype: Dtype) -> PackedBackward {
        self.pack_backward(params, dtype)
    }

    fn scores_keeping<E: Element>(
        &self,
        packed: &Packed,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        scores: &mut [f32],
        activations: &mut [E],
    ) -> Result<()> {
        self.scores_keeping(packed, features, mask, scores, activations)
    }

    fn attention_pool_keeping<E: Element, O: Element>(
        &self,
        packed: &Packed,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        outputs: AttentionOutputs<'_, O>,
        activations: &mut [E],
    ) -> Result<()> {
        self.attention_pool_keeping(packed, keys, values, bags, outputs, activations)
    }

    fn scores_backward<E: Element, G: Element>(
        &self,
        packed: &PackedBackward,
        features: Rows<'_, E>,
        mask: Option<&[u8]>,
        activations: Option<&[E]>,
        d_scores: &[f32],
        gradients: ScoresGradients<'_, G>,
    ) -> Result<()> {
        self.scores_backward(packed, features, mask, activations, d_scores, gradients)
    }

    fn attention_pool_backward<E: Element, O: Element>(
        &self,
        packed: &PackedBackward,
        keys: Rows<'_, E>,
        values: Option<Rows<'_, E>>,
        bags: &Bags<'_>,
        saved: Saved<'_, E>,
        upstream: AttentionPoolUpstream<'_, O>,
        gradients: AttentionPoolGradients<'_, O>,
    ) -> Result<()> {
        self.attention_pool_backward(packed, keys, values, bags, saved, upstream, gradients)
    }

    fn gate_backward<E: Element>(
        &self,
        arguments: [&[E]; 3],
        d_x: Option<Gradient<'_, E>>,
        d_y: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        self.gate_backward(arguments, d_x, d_y)
    }

    fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Gradient<'_, f32>,
    ) -> Result<()> {
        self.softmax_backward(weights, heads, bags, upstream, d_scores)
    }

    fn weighted_sum_backward<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        d_pooled: &[O],
        gradients: WeightedSumGradients<'_, O>,
    ) -> Result<()> {
        self.weighted_sum_backward(weights, heads, values, bags, d_pooled, gradients)
    }

    fn max_mean_backward<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Gradient<'_, O>,
    ) -> Result<()> {
        self.max_mean_backward(features, bags, upstream, d_features)
    }
}
