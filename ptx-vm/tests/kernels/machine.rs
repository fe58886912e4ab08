//! What a case runs on.

use std::fmt::{self, Debug};

use bytemuck::{AnyBitPattern, NoUninit};
use cudarc::driver::DriverError;
use ptx_vm::{Checks, Device, Error, Launch, Module, Parameters, Pointer, TensorMap};

use crate::gpu::Gpu;

/// Ok where the kernel computed what it should.
pub type Outcome<T = ()> = Result<T, Stop>;

#[derive(Debug)]
pub enum Stop {
    Machine(Error),
    Gpu(DriverError),
    /// What differs from what was expected.
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Machine(error)
    }
}

impl From<DriverError> for Stop {
    fn from(error: DriverError) -> Self {
        Stop::Gpu(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Machine(error) => write!(f, "{error}"),
            Stop::Gpu(error) => write!(f, "{error}"),
            Stop::Wrong(difference) => write!(f, "{difference}"),
        }
    }
}

/// More than any kernel here needs.
const INSTRUCTION_LIMIT: u64 = 1_000_000;

/// A device and one kernel.
pub enum Machine {
    Virtual { device: Box<Device>, module: Module, kernel: &'static str, seed: u64, checks: Checks },
    Gpu(Gpu),
}

/// Address of a buffer of a machine.
#[derive(Clone, Copy)]
pub enum Buffer {
    Virtual(Pointer),
    Gpu(u64),
}

impl Machine {
    /// The virtual machine, with the schedule of that seed.
    pub fn new(ptx: &str, kernel: &'static str, seed: u64, checks: Checks) -> Outcome<Self> {
        Ok(Machine::Virtual { device: Box::default(), module: Module::load(ptx)?, kernel, seed, checks })
    }

    pub fn gpu(ptx: &str, kernel: &'static str) -> Outcome<Self> {
        Ok(Machine::Gpu(Gpu::new(ptx, kernel)?))
    }

    pub fn buffer<T: NoUninit>(&mut self, name: &str, values: &[T]) -> Outcome<Buffer> {
        let bytes = bytemuck::cast_slice(values);
        Ok(match self {
            Machine::Virtual { device, .. } => Buffer::Virtual(device.upload(name, bytes)),
            Machine::Gpu(gpu) => Buffer::Gpu(gpu.upload(bytes)?),
        })
    }

    /// A buffer of `len` that nobody has written; on a GPU every byte is 0xff.
    pub fn output<T>(&mut self, name: &str, len: usize) -> Outcome<Buffer> {
        let bytes = len * size_of::<T>();
        Ok(match self {
            Machine::Virtual { device, .. } => Buffer::Virtual(device.allocate(name, bytes)),
            Machine::Gpu(gpu) => Buffer::Gpu(gpu.upload(&vec![0xff; bytes])?),
        })
    }

    pub fn read<T: NoUninit + AnyBitPattern>(&self, buffer: Buffer) -> Outcome<Vec<T>> {
        let bytes = match (self, buffer) {
            (Machine::Virtual { device, .. }, Buffer::Virtual(pointer)) => device.read(pointer)?,
            (Machine::Gpu(gpu), Buffer::Gpu(address)) => gpu.read(address)?,
            _ => return Err(Stop::Wrong("a buffer of another machine".to_owned())),
        };
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// The map of a tensor that begins where the buffer does.
    pub fn tensor_map(&self, buffer: Buffer, map: TensorMap) -> Outcome<Map> {
        Ok(Map(match buffer {
            Buffer::Virtual(pointer) => TensorMap { address: pointer.address(), ..map }.encode()?,
            Buffer::Gpu(address) => crate::gpu::encode(&TensorMap { address, ..map })?,
        }))
    }

    pub fn launch(
        &mut self,
        grid: impl Size,
        block: impl Size,
        dynamic_shared: u32,
        parameters: Parameters,
    ) -> Outcome {
        let (grid, block) = (grid.xyz(), block.xyz());
        match self {
            Machine::Virtual { device, module, kernel, seed, checks } => {
                let (seed, checks, instruction_limit) = (*seed, *checks, INSTRUCTION_LIMIT);
                let launch =
                    Launch { grid, block, dynamic_shared, seed, checks, instruction_limit, ..Launch::default() };
                device.launch(module, kernel, &launch, parameters.bytes())?;
            }
            Machine::Gpu(gpu) => gpu.launch(grid, block, dynamic_shared, &parameters)?,
        }
        Ok(())
    }
}

/// Of a grid or a block: along x alone, or along all three axes.
pub trait Size {
    fn xyz(self) -> [u32; 3];
}

impl Size for u32 {
    fn xyz(self) -> [u32; 3] {
        [self, 1, 1]
    }
}

impl Size for [u32; 3] {
    fn xyz(self) -> [u32; 3] {
        self
    }
}

/// A value that a kernel takes.
pub trait Argument {
    fn append_to(self, parameters: Parameters) -> Parameters;
}

impl Argument for Buffer {
    fn append_to(self, parameters: Parameters) -> Parameters {
        match self {
            Buffer::Virtual(pointer) => parameters.pointer(pointer),
            Buffer::Gpu(address) => parameters.u64(address),
        }
    }
}

/// An encoded tensor map.
#[derive(Clone, Copy)]
pub struct Map([u8; 128]);

impl Argument for Map {
    fn append_to(self, parameters: Parameters) -> Parameters {
        parameters.tensor_map(&self.0)
    }
}

impl Argument for i32 {
    fn append_to(self, parameters: Parameters) -> Parameters {
        parameters.i32(self)
    }
}

/// A struct.
impl Argument for Parameters {
    fn append_to(self, parameters: Parameters) -> Parameters {
        parameters.structure(self)
    }
}

/// `args![a, b, n]`: parameters in the order of the kernel's.
macro_rules! args {
    ($($argument:expr),*) => {{
        let parameters = ptx_vm::Parameters::new();
        $(let parameters = $crate::machine::Argument::append_to($argument, parameters);)*
        parameters
    }};
}
pub(crate) use args;

pub fn same<T: PartialEq + Debug>(what: &str, got: &[T], expected: &[T]) -> Outcome {
    compare(what, got, expected, |a, b| a == b)
}

/// Within `tolerance` of the greatest magnitude that is expected.
pub fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) -> Outcome {
    let greatest = expected.iter().fold(0f32, |greatest, x| greatest.max(x.abs()));
    compare(what, got, expected, |a, b| (a - b).abs() <= tolerance * greatest)
}

pub fn holds(what: &str, condition: bool) -> Outcome {
    if condition { Ok(()) } else { Err(Stop::Wrong(format!("it does not hold that {what}"))) }
}

fn compare<T: Debug>(what: &str, got: &[T], expected: &[T], agree: impl Fn(&T, &T) -> bool) -> Outcome {
    if got.len() != expected.len() {
        return Err(Stop::Wrong(format!("{what} has {} elements, expected {}", got.len(), expected.len())));
    }
    match got.iter().zip(expected).position(|(a, b)| !agree(a, b)) {
        Some(i) => Err(Stop::Wrong(format!("{what}[{i}] is {:?}, expected {:?}", got[i], expected[i]))),
        None => Ok(()),
    }
}
