use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use mivc::cpu::MaxMeanOutputs;
use mivc::launch::max_mean::{Addresses, MaxMean, Shape};
use mivc::launch::{Capacity, Launch, Offsets, Step};
use mivc::{Bags, Device, Dtype, Element, Result, Rows};
use ptx_vm::{Checks, Module, Pointer, Statistics};

use super::{Backend, Spread, spread};

/// The CUDA kernels in the virtual machine: what the launches of an operation do, without a GPU.
#[derive(Debug, Default)]
pub struct VmBackend;

/// Elements of features up to which races and initialisation are checked, under several schedules.
const SMALL: usize = 4096;
const SCHEDULES: u64 = 3;

/// Tests of max and mean by other names than theirs.
const ALSO_MAX_MEAN: [&str; 5] = [
    "edges::ties::lowest_index",
    "edges::ties::signed_zeros",
    "edges::range::largest_f16_mean",
    "known_answers::dgl_topk_nodes",
    "tolerance_bites::dropped_maximum",
];

/// Whether max and mean is the only operation that a test calls, apart from those of the front door. Malformed
/// arguments are left out: a device cannot tell that offsets do not end with N, and `tests/cuda_calls.rs` has the
/// others.
pub fn calls_max_mean(test: &str) -> bool {
    let test = test.trim_start_matches("properties::");
    let is_max_mean = test.contains("max_mean") || test.contains("_of_mean");
    let is_elsewhere = test.starts_with("front_door") || test.starts_with("malformed");
    !is_elsewhere && (is_max_mean || ALSO_MAX_MEAN.iter().any(|name| test.starts_with(name)))
}

/// The PTX that the build script keeps, by the name of its `.cu`.
static IMAGES: LazyLock<HashMap<String, Module>> = LazyLock::new(|| {
    let folder = Path::new(env!("MIVC_KERNELS"));
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

/// What one call works on.
struct Machine {
    device: ptx_vm::Device,
    checks: Checks,
    seed: u64,
    /// Of the last launch.
    last: Statistics,
}

impl Machine {
    fn upload<T: Copy>(&mut self, name: &str, values: &[T], bytes: impl Fn(T) -> Vec<u8>) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| bytes(value)).collect();
        self.device.upload(name, &bytes).address()
    }

    /// The address of the first row, and the elements from one row to the next.
    fn upload_rows<E: Element>(&mut self, rows: Rows<'_, E>) -> (u64, usize) {
        let Spread { data, offset, row_stride } = spread(rows);
        let address = self.upload("features", &data, to_bytes);
        (address + (offset * E::DTYPE.size()) as u64, row_stride)
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Clear { address, bytes } => self.device.write(*address, &vec![0; *bytes]).expect("scratch"),
                Step::Launch(launch) => self.launch(launch),
            }
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let how = ptx_vm::Launch {
            grid: launch.grid,
            block: launch.block,
            seed: self.seed,
            checks: self.checks,
            count: true,
            ..ptx_vm::Launch::default()
        };
        let run = self.device.launch(&IMAGES[launch.image], launch.kernel, &how, launch.parameters.bytes());
        self.last = run.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
    }
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

fn from_bytes<E: Element>(bytes: &[u8]) -> Vec<E> {
    let value = |bytes: &[u8]| match E::DTYPE {
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::Bf16 => half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
        Dtype::F16 => half::f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
    };
    bytes.chunks(E::DTYPE.size()).map(|bytes| E::from_f32(value(bytes))).collect()
}

/// The arguments of max and mean.
pub struct Call<'a, E> {
    pub features: Rows<'a, E>,
    /// `[B + 1]`, any values.
    pub offsets: &'a [i64],
    pub mask: Option<&'a [u8]>,
    /// Whether the kernels get i64; i32 if not.
    pub wide: bool,
}

/// What a call left behind.
#[derive(Debug, PartialEq)]
pub struct Results {
    /// Bytes of max, mean and argmax.
    pub outputs: [Option<Vec<u8>>; 3],
    /// Of the last launch.
    pub work: Statistics,
}

impl VmBackend {
    /// One call under one schedule.
    pub fn max_mean_under<E: Element, O: Element>(
        &self,
        call: &Call<'_, E>,
        outputs: &MaxMeanOutputs<'_, O>,
        checks: Checks,
        seed: u64,
    ) -> Result<Results> {
        let (features, bags) = (call.features, call.offsets.len() - 1);
        let mut machine = Machine { device: ptx_vm::Device::new(), checks, seed, last: Statistics::default() };
        let capacity = Capacity { instances: features.len(), bags };
        let argmax = outputs.argmax.is_some();
        let shape = Shape { dim: features.dim(), features: E::DTYPE, outputs: O::DTYPE, argmax };
        let plan = MaxMean::plan(shape, capacity)?;
        let scratch = machine.device.allocate("scratch", plan.scratch_bytes()).address();
        let offsets = if call.wide {
            Offsets::I64(machine.upload("offsets", call.offsets, |offset| offset.to_le_bytes().to_vec()))
        } else {
            Offsets::I32(machine.upload("offsets", call.offsets, |offset| (offset as i32).to_le_bytes().to_vec()))
        };
        let elements = |values: &Option<&mut [O]>| {
            values.as_deref().map(|values| values.iter().flat_map(|&x| to_bytes(x)).collect::<Vec<u8>>())
        };
        let rows = outputs.argmax.as_deref();
        let outputs = [
            ("max", elements(&outputs.max)),
            ("mean", elements(&outputs.mean)),
            ("argmax", rows.map(|rows| rows.iter().flat_map(|row| row.to_le_bytes()).collect())),
        ];
        let outputs = outputs.map(|(name, bytes)| bytes.map(|bytes| machine.device.upload(name, &bytes)));
        let [max, mean, argmax] = outputs.map(|output| output.map_or(0, Pointer::address));
        let (features, row_stride) = machine.upload_rows(features);
        let mask = call.mask.map_or(0, |mask| machine.upload("mask", mask, |byte| vec![byte]));
        let addresses = Addresses { features, row_stride, offsets, mask, max, mean, argmax, scratch };
        if let Some(steps) = plan.steps(capacity, addresses)? {
            machine.run(&steps);
        }
        let read = |output: Option<Pointer>| output.map(|output| machine.device.read(output).expect("an output"));
        Ok(Results { outputs: outputs.map(read), work: machine.last })
    }
}

impl VmBackend {
    /// What is left out changes no bit of the others: max and mean without argmax, which are other kernels, and
    /// either alone.
    fn expect_each_alone<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: &MaxMeanOutputs<'_, O>,
        checks: Checks,
        all: &[Option<Vec<u8>>; 3],
    ) -> Result<()> {
        let call = Call { features, offsets: bags.offsets(), mask: bags.mask(), wide: true };
        for (with_max, with_mean) in [(true, true), (true, false), (false, true)] {
            let mut max = outputs.max.as_deref().filter(|_| with_max).map(<[O]>::to_vec);
            let mut mean = outputs.mean.as_deref().filter(|_| with_mean).map(<[O]>::to_vec);
            if max.is_none() && mean.is_none() {
                continue;
            }
            let some = MaxMeanOutputs { max: max.as_deref_mut(), mean: mean.as_deref_mut(), argmax: None };
            let results = self.max_mean_under(&call, &some, checks, 0)?.outputs;
            for (some, all) in results.iter().zip(all) {
                assert!(some.is_none() || some == all, "max {with_max}, mean {with_mean}, without argmax");
            }
        }
        Ok(())
    }
}

impl Backend for VmBackend {
    type Packed = ();

    fn name(&self) -> &'static str {
        "vm"
    }

    fn covers(&self, test: &str) -> bool {
        calls_max_mean(test)
    }

    fn availability(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    fn device(&self) -> Option<Device> {
        None
    }

    fn max_mean<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        outputs: MaxMeanOutputs<'_, O>,
    ) -> Result<()> {
        let small = features.len() * features.dim() <= SMALL;
        let (checks, schedules) = if small { (Checks::Full, SCHEDULES) } else { (Checks::Bounds, 1) };
        let under = |seed: u64| {
            let call = Call { features, offsets: bags.offsets(), mask: bags.mask(), wide: seed.is_multiple_of(2) };
            self.max_mean_under(&call, &outputs, checks, seed).map(|results| results.outputs)
        };
        let results = under(0)?;
        for seed in 1..schedules {
            assert_eq!(under(seed)?, results, "seed {seed} and seed 0");
        }
        self.expect_each_alone(features, bags, &outputs, checks, &results)?;
        let [max, mean, argmax] = results;
        for (to, from) in [(outputs.max, max), (outputs.mean, mean)] {
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(&from_bytes(&from));
            }
        }
        if let (Some(to), Some(from)) = (outputs.argmax, argmax) {
            for (to, from) in to.iter_mut().zip(from.chunks(8)) {
                *to = i64::from_le_bytes(from.try_into().unwrap());
            }
        }
        Ok(())
    }
}
