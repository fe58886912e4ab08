//! What a user works with: modules, buffers and launches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::check::Races;
use crate::decode::Kernel;
use crate::error::{Error, Result};
use crate::exec::{Cluster, ENGINES, Grid};
use crate::memory::{Buffer, Global, Layout, MAX_SHARED, Placed};
use crate::parse::ast::{self, Space};
use crate::parse::parse;
use crate::statistics::Statistics;

/// Threads of a block at most.
const MAX_THREADS: u64 = 1024;
/// Blocks of a cluster at most; more than 8 need leave on a device.
const MAX_CLUSTER: u64 = 16;

/// Kernels that are ready to run, and the variables of their module.
pub struct Module {
    /// Tells modules apart that are loaded on one device.
    id: u64,
    kernels: Vec<Kernel>,
    variables: Vec<ast::Variable>,
}

impl Module {
    /// Reads PTX and decodes every kernel in it.
    ///
    /// # Errors
    /// [`Error::Parse`] where the text is not PTX; [`Error::Unsupported`] where a kernel has an instruction
    /// that is not in the table, with its line: nothing is skipped.
    pub fn load(ptx: &str) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let module = parse(ptx)?;
        let files = Arc::new(module.files.clone());
        let entries = module.functions.iter().filter(|function| function.is_entry && function.is_defined);
        let kernels = entries.map(|entry| Kernel::decode(&module, entry, files.clone())).collect::<Result<_>>()?;
        Ok(Module { id: NEXT.fetch_add(1, Relaxed), kernels, variables: module.variables })
    }

    /// The names of the kernels, in the order of the text.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }

    fn kernel(&self, name: &str) -> Result<&Kernel> {
        let found = self.kernels.iter().find(|kernel| kernel.name == name);
        let names = || self.kernels().collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Error::argument("kernel", format!("one of {}", names()), name))
    }
}

/// The address of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pointer(u64);

impl Pointer {
    /// As the kernel gets it.
    pub fn address(self) -> u64 {
        self.0
    }
}

/// What is looked for besides misplaced and misaligned accesses, missing lanes and deadlocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checks {
    /// Nothing else. Blocks run on several threads of the host.
    Bounds,
    /// Races, unfinished copies and reads of what nobody has written. Blocks run one after the other.
    #[default]
    Full,
}

/// How a kernel is launched.
///
/// ```
/// let launch = ptx_vm::Launch { grid: [4, 1, 1], block: [128, 1, 1], ..Default::default() };
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block, 1024 at most.
    pub block: [u32; 3],
    /// Blocks of a cluster, 16 at most; the grid is a multiple. That of a kernel compiled for one need not be given.
    pub cluster: [u32; 3],
    /// Bytes.
    pub dynamic_shared: u32,
    /// Of the order in which blocks and warps run.
    pub seed: u64,
    /// Of the errors of approximate functions: the same operands have the same error under the same seed.
    pub error_seed: u64,
    pub checks: Checks,
    /// Whether accesses to memory are counted too.
    pub count: bool,
    /// Warp instructions of the whole launch, after which it is taken to be endless.
    pub instruction_limit: u64,
}

impl Default for Launch {
    /// One thread, all checks, 10⁹ warp instructions.
    fn default() -> Self {
        Launch {
            grid: [1; 3],
            block: [1; 3],
            cluster: [1; 3],
            dynamic_shared: 0,
            seed: 0,
            error_seed: 0,
            checks: Checks::Full,
            count: false,
            instruction_limit: 1_000_000_000,
        }
    }
}

/// Parameters of a kernel as bytes, each at a multiple of its alignment, as C lays them out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    /// The greatest of theirs.
    align: usize,
}

impl Parameters {
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, align: usize, bytes: &[u8]) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        self.starts.push(self.bytes.len());
        self.align = self.align.max(align);
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn pointer(self, pointer: Pointer) -> Self {
        self.u64(pointer.address())
    }

    pub fn u32(self, value: u32) -> Self {
        self.push(4, &value.to_le_bytes())
    }

    pub fn i32(self, value: i32) -> Self {
        self.push(4, &value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.push(8, &value.to_le_bytes())
    }

    pub fn i64(self, value: i64) -> Self {
        self.push(8, &value.to_le_bytes())
    }

    pub fn f32(self, value: f32) -> Self {
        self.push(4, &value.to_le_bytes())
    }

    /// An encoded [`TensorMap`](crate::TensorMap), at a multiple of 64.
    pub fn tensor_map(self, map: &[u8; 128]) -> Self {
        self.push(64, map)
    }

    /// One parameter that is a struct of these.
    pub fn structure(self, mut fields: Parameters) -> Self {
        let align = fields.align.max(1);
        fields.bytes.resize(fields.bytes.len().next_multiple_of(align), 0);
        self.push(align, &fields.bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Each by itself, as a driver takes them, which may lay them out in another way. What is between them belongs to
    /// the one before.
    pub fn each(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.bytes.len()]);
        self.starts.iter().zip(ends).map(|(&start, end)| &self.bytes[start..end])
    }
}

/// Global memory and what is known of who touched it.
#[derive(Default)]
pub struct Device {
    global: Global,
    races: Races,
    /// Variables of modules by the module's id; None for shared ones.
    variables: HashMap<u64, Vec<Option<u64>>>,
}

impl Device {
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer with these contents; the name is what faults call it.
    pub fn upload(&mut self, name: &str, bytes: &[u8]) -> Pointer {
        self.add(Buffer::new(name, bytes))
    }

    /// A buffer that nobody has written: reading a byte before it is written is a fault.
    pub fn allocate(&mut self, name: &str, bytes: usize) -> Pointer {
        self.add(Buffer::uninitialised(name, bytes))
    }

    fn add(&mut self, buffer: Buffer) -> Pointer {
        self.races.allocate(self.global.buffers.len() as u32, buffer.len());
        Pointer(self.global.add(buffer))
    }

    /// The contents of a buffer; bytes that nobody has written are 0xff.
    ///
    /// # Errors
    /// [`Error::Argument`] where there is no such buffer.
    pub fn read(&self, pointer: Pointer) -> Result<Vec<u8>> {
        let buffer = self.global.buffer(pointer.0);
        buffer.map(Buffer::bytes).ok_or_else(|| Error::argument("pointer", "a buffer", "one that was freed"))
    }

    /// Writes bytes within a buffer, at any address of it.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not all within one buffer.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let expected =
            || Error::argument("address", format!("{} bytes within a buffer", bytes.len()), format!("{address:#x}"));
        for (address, &byte) in (address..).zip(bytes) {
            let (buffer, _, offset) = self.global.find(address, 1).map_err(|_| expected())?;
            buffer.store(offset, 1, [byte as u32, 0, 0, 0]);
            buffer.mark_written(offset, 1);
        }
        Ok(())
    }

    /// Copies bytes from within a buffer to within another, or behind them in the same.
    ///
    /// # Errors
    /// [`Error::Argument`] where they are not, or have not been written.
    pub fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        let expected =
            || Error::argument("from", format!("{bytes} written bytes within a buffer"), format!("{from:#x}"));
        let mut copied = vec![0; bytes];
        for (address, byte) in (from..).zip(&mut copied) {
            let (buffer, _, offset) = self.global.find(address, 1).map_err(|_| expected())?;
            if !buffer.is_written(offset, 1) {
                return Err(expected());
            }
            *byte = buffer.load(offset, 1)[0] as u8;
        }
        self.write(to, &copied)
    }

    /// Frees a buffer: accesses to it are faults from now on.
    pub fn free(&mut self, pointer: Pointer) {
        let (number, _) = Global::split(pointer.0);
        if let Some(buffer) = self.global.buffers.get_mut(number) {
            *buffer = None;
            self.races.free(number as u32);
        }
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// [`Error::Argument`] where the kernel, the sizes or the parameters do not fit;
    /// [`Error::Fault`] where the kernel does what it must not do.
    pub fn launch(&mut self, module: &Module, kernel: &str, launch: &Launch, parameters: &[u8]) -> Result<Statistics> {
        let kernel = module.kernel(kernel)?;
        let launch = &with_cluster(kernel, launch)?;
        check_sizes(launch)?;
        let expected = kernel.parameter_bytes() as usize;
        if parameters.len() != expected {
            return Err(Error::argument("parameters", format!("{expected} bytes"), parameters.len()));
        }
        let shared = kernel.shared.iter().map(|variable| variable.size).sum::<u64>() + launch.dynamic_shared as u64;
        if shared > MAX_SHARED {
            return Err(Error::argument("shared memory", format!("at most {MAX_SHARED} bytes"), shared));
        }
        let words: Vec<u32> = parameters.chunks(4).map(word).collect();
        let addresses = self.place_variables(module);
        let grid = Grid {
            kernel,
            global: &self.global,
            parameters: &words,
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            dynamic_shared: launch.dynamic_shared,
            seed: launch.seed,
            instruction_limit: launch.instruction_limit,
            count: launch.count,
            layouts: [shared_layout(kernel, launch.dynamic_shared), kernel.local.clone()],
            registers: kernel.registers(launch.error_seed, |variable| addresses[variable].unwrap_or(0)),
            instructions: AtomicU64::new(0),
        };
        match launch.checks {
            Checks::Full => {
                let engines = if kernel.has_engines { ENGINES * grid.cluster_size() } else { 0 };
                self.races.begin_launch(grid.cluster_threads(), engines);
                run_in_order(&grid, launch, &mut self.races)
            }
            Checks::Bounds => run_side_by_side(&grid, launch),
        }
    }

    /// The variables of a module become buffers when it first runs here, and keep what is written to them.
    fn place_variables(&mut self, module: &Module) -> Vec<Option<u64>> {
        if let Some(addresses) = self.variables.get(&module.id) {
            return addresses.clone();
        }
        let mut addresses = Vec::new();
        for variable in &module.variables {
            let mut bytes = variable.initial.clone();
            bytes.resize(variable.size.unwrap_or(0) as usize, 0);
            let is_global = variable.space != Space::Shared;
            addresses.push(is_global.then(|| self.upload(&variable.name, &bytes).address()));
        }
        self.variables.insert(module.id, addresses.clone());
        addresses
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | byte as u32)
}

/// A kernel that was compiled for a cluster has it; a launch may say so too.
fn with_cluster(kernel: &Kernel, launch: &Launch) -> Result<Launch> {
    match kernel.cluster {
        Some(cluster) if launch.cluster != [1; 3] && launch.cluster != cluster => {
            Err(Error::argument("cluster", format!("{cluster:?}, as compiled"), format!("{:?}", launch.cluster)))
        }
        cluster => Ok(Launch { cluster: cluster.unwrap_or(launch.cluster), ..*launch }),
    }
}

fn check_sizes(launch: &Launch) -> Result<()> {
    let product = |sizes: [u32; 3]| sizes.iter().map(|&size| size as u64).try_fold(1, u64::checked_mul);
    let threads = product(launch.block).filter(|threads| (1..=MAX_THREADS).contains(threads));
    if threads.is_none() {
        return Err(Error::argument("block", format!("1 to {MAX_THREADS} threads"), format!("{:?}", launch.block)));
    }
    if product(launch.grid).is_none_or(|blocks| blocks == 0) {
        return Err(Error::argument("grid", "at least one block", format!("{:?}", launch.grid)));
    }
    if product(launch.cluster).is_none_or(|blocks| !(1..=MAX_CLUSTER).contains(&blocks)) {
        let expected = format!("1 to {MAX_CLUSTER} blocks");
        return Err(Error::argument("cluster", expected, format!("{:?}", launch.cluster)));
    }
    if launch.grid.iter().zip(launch.cluster).any(|(blocks, of_cluster)| !blocks.is_multiple_of(of_cluster)) {
        let expected = format!("a multiple of the cluster, {:?}", launch.cluster);
        return Err(Error::argument("grid", expected, format!("{:?}", launch.grid)));
    }
    Ok(())
}

fn shared_layout(kernel: &Kernel, dynamic: u32) -> Arc<Layout> {
    let mut variables = kernel.shared.clone();
    let (offset, size) = (kernel.dynamic_shared, dynamic as u64);
    variables.push(Placed { name: "dynamic".to_owned(), offset, size });
    Arc::new(Layout::new("shared", variables))
}

fn clusters(launch: &Launch) -> u64 {
    launch.grid.iter().zip(launch.cluster).map(|(&blocks, of_cluster)| (blocks / of_cluster) as u64).product()
}

/// The clusters in an order that the seed chooses: as they stand for seed 0.
fn run_in_order(grid: &Grid<'_>, launch: &Launch, races: &mut Races) -> Result<Statistics> {
    let clusters = clusters(launch);
    let mut cluster = Cluster::new(grid, Some(races));
    for i in 0..clusters {
        cluster.run(reordered(i, clusters, launch.seed))?;
    }
    Ok(cluster.into_statistics())
}

/// A permutation of 0..n: a step that has no divisor in common with n visits all.
fn reordered(i: u64, n: u64, seed: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let mut step = 1 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % n;
    while gcd(step, n) != 1 {
        step += 1;
    }
    ((i as u128 * step as u128 + seed as u128) % n as u128) as u64
}

/// The clusters on all threads of the host, each taking the next one.
fn run_side_by_side(grid: &Grid<'_>, launch: &Launch) -> Result<Statistics> {
    let (clusters, next, failed) = (clusters(launch), AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let mut cluster = Cluster::new(grid, None);
        while !failed.load(Relaxed) {
            let number = next.fetch_add(1, Relaxed);
            if number >= clusters {
                break;
            }
            if let Err(fault) = cluster.run(number) {
                failed.store(true, Relaxed);
                return Err(Error::from(fault));
            }
        }
        Ok(cluster.into_statistics())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(clusters as usize);
    let results: Vec<Result<Statistics>> = if threads == 1 {
        vec![work()]
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    };
    let mut total = Statistics::default();
    for result in results {
        total += result?;
    }
    Ok(total)
}
