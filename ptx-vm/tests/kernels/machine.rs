//! What a case runs on.

use std::fmt::{self, Debug};

use bytemuck::{AnyBitPattern, NoUninit};
use ptx_vm::{Device, Error, Launch, Module, Parameters, Pointer};

/// Ok where the kernel computed what it should.
pub type Outcome<T = ()> = Result<T, Stop>;

#[derive(Debug)]
pub enum Stop {
    Machine(Error),
    /// What differs from what was expected.
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Machine(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Machine(error) => write!(f, "{error}"),
            Stop::Wrong(difference) => write!(f, "{difference}"),
        }
    }
}

/// More than any kernel here needs.
const INSTRUCTION_LIMIT: u64 = 1_000_000;

/// A device, one kernel and a schedule.
pub struct Machine {
    device: Device,
    module: Module,
    kernel: &'static str,
    seed: u64,
}

impl Machine {
    pub fn new(ptx: &str, kernel: &'static str, seed: u64) -> Outcome<Self> {
        Ok(Machine { device: Device::new(), module: Module::load(ptx)?, kernel, seed })
    }

    pub fn buffer<T: NoUninit>(&mut self, name: &str, values: &[T]) -> Pointer {
        self.device.upload(name, bytemuck::cast_slice(values))
    }

    /// A buffer of `len` that nobody has written.
    pub fn output<T>(&mut self, name: &str, len: usize) -> Pointer {
        self.device.allocate(name, len * size_of::<T>())
    }

    pub fn read<T: NoUninit + AnyBitPattern>(&self, pointer: Pointer) -> Outcome<Vec<T>> {
        Ok(bytemuck::pod_collect_to_vec(&self.device.read(pointer)?))
    }

    pub fn launch(
        &mut self,
        grid: impl Size,
        block: impl Size,
        dynamic_shared: u32,
        parameters: Parameters,
    ) -> Outcome {
        let launch = Launch {
            grid: grid.xyz(),
            block: block.xyz(),
            dynamic_shared,
            seed: self.seed,
            instruction_limit: INSTRUCTION_LIMIT,
            ..Launch::default()
        };
        self.device.launch(&self.module, self.kernel, &launch, parameters.bytes())?;
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

impl Argument for Pointer {
    fn append_to(self, parameters: Parameters) -> Parameters {
        parameters.pointer(self)
    }
}

impl Argument for i32 {
    fn append_to(self, parameters: Parameters) -> Parameters {
        parameters.i32(self)
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
