//! A function of a module becomes a kernel: registers get their place, names their address, instructions
//! their meaning.

mod inline;
mod operands;

use std::collections::HashMap;
use std::sync::Arc;

pub use operands::{Operands, lanewise};

use crate::error::{Error, Result};
use crate::exec::{Operation, Touched};
use crate::isa;
use crate::memory::{Layout, MAX_LOCAL, MAX_SHARED, Placed, lay_out};
use crate::parse::ast::{self, Operand, SourceLine};
use crate::registers::{LANES, Lane, Reg, Registers, Slot};

/// A kernel that is ready to run.
pub struct Kernel {
    pub name: String,
    pub instructions: Vec<Instruction>,
    /// Numbers of source files to their paths.
    pub files: Arc<HashMap<u32, String>>,
    pub parameters: Vec<Placed>,
    pub specials: Vec<(Reg<u32>, Special)>,
    /// [`Special::IsExplicitCluster`], wherever it is read.
    pub explicit_cluster: Vec<Reg<bool>>,
    /// Shared variables of a size that is known; the dynamic part begins behind them.
    pub shared: Vec<Placed>,
    pub dynamic_shared: u64,
    pub local: Arc<Layout>,
    /// Whether something runs beside the threads: bulk copies or matrix products.
    pub has_engines: bool,
    /// Blocks of a cluster, where the kernel says so.
    pub cluster: Option<[u32; 3]>,
    constants: Vec<(Slot, Constant)>,
    counts: Counts,
}

pub struct Instruction {
    pub operation: Operation,
    /// The predicate of the lanes that run it, and whether it is negated.
    pub guard: Option<(Reg<bool>, bool)>,
    /// Its registers, where asynchronous matrix products may be under way.
    pub touched: Option<Box<Touched>>,
    /// As faults report it.
    pub source: SourceLine,
    pub text: String,
}

/// Registers of each bank.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    words: u32,
    doubles: u32,
    predicates: u32,
}

/// What a register holds before the first instruction.
#[derive(Debug, Clone, Copy)]
enum Constant {
    Bits(u64),
    /// The address of variable `variable` of the module, and something added to it.
    Address {
        variable: usize,
        offset: i64,
    },
}

impl Kernel {
    pub fn decode(module: &ast::Module, function: &ast::Function, files: Arc<HashMap<u32, String>>) -> Result<Self> {
        let flat = inline::flatten(module, function)?;
        let mut decoder = Decoder::default();
        for set in &flat.registers {
            decoder.declare(set)?;
        }
        let sized = |variable: &ast::Variable| Some((variable.name.clone(), variable.size?, variable.align));
        let parameters = place_parameters(&function.params).ok_or_else(|| too_large("parameters", MAX_PARAMETERS))?;
        decoder.name(&parameters, Symbol::Parameter);
        let in_shared = |variable: &&ast::Variable| variable.space == ast::Space::Shared;
        let all_shared = || module.variables.iter().chain(&flat.variables).filter(in_shared);
        let (shared, dynamic_shared) = lay_out(all_shared().filter_map(sized), MAX_SHARED)
            .ok_or_else(|| too_large("shared variables", MAX_SHARED))?;
        decoder.name(&shared, Symbol::Shared);
        for variable in all_shared().filter(|variable| variable.size.is_none()) {
            decoder.symbols.insert(variable.name.clone(), Symbol::Shared(dynamic_shared));
        }
        let in_local = flat.variables.iter().filter(|variable| inline::is_local(variable));
        let (local, _) =
            lay_out(in_local.filter_map(sized), MAX_LOCAL).ok_or_else(|| too_large("local variables", MAX_LOCAL))?;
        decoder.name(&local, Symbol::Local);
        for (number, variable) in module.variables.iter().enumerate().filter(|(_, v)| v.space != ast::Space::Shared) {
            decoder.symbols.insert(variable.name.clone(), Symbol::Module(number));
        }
        decoder.labels = flat.labels.iter().map(|(label, &index)| (label.clone(), index as u32)).collect();
        decoder.branch_targets = flat.branch_targets;

        let multiplies = flat.instructions.iter().any(|instruction| instruction.opcode.starts_with("wgmma."));
        let mut instructions = Vec::with_capacity(flat.instructions.len() + 1);
        for instruction in &flat.instructions {
            let decoded = decoder.instruction(instruction).map_err(|reason| Error::Unsupported {
                function: function.name.clone(),
                line: instruction.line,
                instruction: instruction.text.clone(),
                reason,
            })?;
            let touched = multiplies.then(|| decoder.touched(instruction)).flatten().map(Box::new);
            instructions.push(Instruction { touched, source: reported_line(instruction, &files), ..decoded });
        }
        // Whoever runs off the end has returned.
        let last = instructions.last().map_or(SourceLine::default(), |instruction: &Instruction| instruction.source);
        instructions.push(Instruction {
            operation: Operation::Exit,
            guard: None,
            touched: None,
            source: last,
            text: "}".to_owned(),
        });
        Ok(Kernel {
            name: function.name.clone(),
            instructions,
            files,
            parameters,
            specials: decoder.specials.into_iter().map(|(special, register)| (register, special)).collect(),
            explicit_cluster: decoder.explicit_cluster,
            shared,
            dynamic_shared,
            has_engines: flat.instructions.iter().any(|instruction| uses_engines(&instruction.opcode)),
            cluster: function.cluster,
            local: Arc::new(Layout::new("local", local)),
            constants: decoder.constants.into_iter().map(|((_, constant), slot)| (slot, constant.into())).collect(),
            counts: decoder.counts,
        })
    }

    /// Bytes of the parameters.
    pub fn parameter_bytes(&self) -> u64 {
        self.parameters.iter().map(|parameter| parameter.offset + parameter.size).max().unwrap_or(0)
    }

    /// The registers of a warp as the kernel finds them, apart from special ones. `address` gives that of
    /// a variable of the module.
    pub fn registers(&self, seed: u64, address: impl Fn(usize) -> u64) -> Registers {
        let Counts { words, doubles, predicates } = self.counts;
        let mut registers = Registers {
            words: vec![[u32::MAX; LANES]; words as usize],
            doubles: vec![[u64::MAX; LANES]; doubles as usize],
            predicates: vec![0; predicates as usize],
            carry: 0,
            seed,
        };
        for &(slot, constant) in &self.constants {
            let bits = match constant {
                Constant::Bits(bits) => bits,
                Constant::Address { variable, offset } => address(variable).wrapping_add_signed(offset),
            };
            match slot {
                Slot::Word(i) => registers.words[i as usize] = [bits as u32; LANES],
                Slot::Double(i) => registers.doubles[i as usize] = [bits; LANES],
                Slot::Predicate(i) => registers.predicates[i as usize] = if bits != 0 { u32::MAX } else { 0 },
            }
        }
        registers
    }
}

fn uses_engines(opcode: &str) -> bool {
    ["mbarrier.", "cp.async.mbarrier.", "cp.async.bulk.", "wgmma."].iter().any(|prefix| opcode.starts_with(prefix))
}

/// Bytes of parameters that a kernel can have.
const MAX_PARAMETERS: u64 = 32_764;

/// Parameters follow each other at their alignment. None where they take too many bytes.
fn place_parameters(parameters: &[ast::Variable]) -> Option<Vec<Placed>> {
    let mut end = 0_u64;
    let mut placed = Vec::new();
    for parameter in parameters {
        let size = parameter.size.filter(|&size| size <= MAX_PARAMETERS)?;
        let offset = end.checked_next_multiple_of(parameter.align.max(1)).filter(|&offset| offset <= MAX_PARAMETERS)?;
        placed.push(Placed { name: parameter.name.clone(), offset, size });
        end = offset + size;
    }
    (end <= MAX_PARAMETERS).then_some(placed)
}

/// The line to report: that of the `.cu` file, where the code of a header was inlined.
fn reported_line(instruction: &ast::Instruction, files: &HashMap<u32, String>) -> SourceLine {
    let is_reported = |line: &&SourceLine| files.get(&line.file).is_some_and(|path| path.ends_with(".cu"));
    let mut outwards = std::iter::once(&instruction.source).chain(&instruction.inlined_at);
    outwards.find(is_reported).copied().unwrap_or(instruction.source)
}

fn too_large(argument: &'static str, limit: u64) -> Error {
    Error::argument(argument, format!("at most {limit} bytes"), "more")
}

/// Special registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// `%tid`, by axis.
    Thread(usize),
    /// `%ntid`
    BlockSize(usize),
    /// `%ctaid`
    Block(usize),
    /// `%nctaid`
    GridSize(usize),
    Lane,
    Warp,
    Warps,
    LanesEqual,
    LanesBelow,
    LanesUpTo,
    LanesAbove,
    LanesFrom,
    /// `%dynamic_smem_size`
    DynamicShared,
    /// `%cluster_ctaid`, by axis.
    BlockInCluster(usize),
    /// `%cluster_nctaid`
    ClusterSize(usize),
    /// `%cluster_ctarank`
    Rank,
    /// `%cluster_nctarank`
    Ranks,
    /// `%clusterid`
    Cluster(usize),
    /// `%nclusterid`
    Clusters(usize),
    /// `%is_explicit_cluster`, the one that is a predicate.
    IsExplicitCluster,
}

impl Special {
    pub fn named(name: &str) -> Option<Self> {
        let axis = || "xyz".find(name.rsplit('.').next().filter(|axis| axis.len() == 1)?);
        Some(match name.split('.').next()? {
            "%tid" => Special::Thread(axis()?),
            "%ntid" => Special::BlockSize(axis()?),
            "%ctaid" => Special::Block(axis()?),
            "%nctaid" => Special::GridSize(axis()?),
            "%laneid" => Special::Lane,
            "%warpid" => Special::Warp,
            "%nwarpid" => Special::Warps,
            "%lanemask_eq" => Special::LanesEqual,
            "%lanemask_lt" => Special::LanesBelow,
            "%lanemask_le" => Special::LanesUpTo,
            "%lanemask_gt" => Special::LanesAbove,
            "%lanemask_ge" => Special::LanesFrom,
            "%dynamic_smem_size" => Special::DynamicShared,
            "%cluster_ctaid" => Special::BlockInCluster(axis()?),
            "%cluster_nctaid" => Special::ClusterSize(axis()?),
            "%cluster_ctarank" => Special::Rank,
            "%cluster_nctarank" => Special::Ranks,
            "%clusterid" => Special::Cluster(axis()?),
            "%nclusterid" => Special::Clusters(axis()?),
            "%is_explicit_cluster" => Special::IsExplicitCluster,
            _ => return None,
        })
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Symbol {
    /// Offset in the parameters.
    Parameter(u64),
    /// Offset in shared memory.
    Shared(u64),
    /// Offset in local memory.
    Local(u64),
    /// Number of a `.global` or `.const` variable of the module.
    Module(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bank {
    Word,
    Double,
    Predicate,
}

/// A [`Constant`] as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Bits(u64),
    Address(usize, i64),
}

impl From<Key> for Constant {
    fn from(key: Key) -> Self {
        match key {
            Key::Bits(bits) => Constant::Bits(bits),
            Key::Address(variable, offset) => Constant::Address { variable, offset },
        }
    }
}

/// What is known while a function is decoded.
#[derive(Default)]
pub struct Decoder {
    registers: HashMap<String, Slot>,
    constants: HashMap<(Bank, Key), Slot>,
    specials: HashMap<Special, Reg<u32>>,
    explicit_cluster: Vec<Reg<bool>>,
    symbols: HashMap<String, Symbol>,
    labels: HashMap<String, u32>,
    branch_targets: HashMap<String, Vec<String>>,
    counts: Counts,
}

impl Decoder {
    fn declare(&mut self, set: &ast::RegisterSet) -> Result<()> {
        let bank = match set.ty.as_str() {
            "pred" => Bank::Predicate,
            "b8" | "u8" | "s8" | "b16" | "u16" | "s16" | "f16" | "bf16" | "b32" | "u32" | "s32" | "f32" => Bank::Word,
            "f16x2" | "bf16x2" => Bank::Word,
            "b64" | "u64" | "s64" | "f64" => Bank::Double,
            other => return Err(Error::argument("register type", "up to 64 bits", other)),
        };
        for name in set.names() {
            let slot = self.allocate(bank);
            self.registers.insert(name, slot);
        }
        Ok(())
    }

    fn allocate(&mut self, bank: Bank) -> Slot {
        let count = match bank {
            Bank::Word => &mut self.counts.words,
            Bank::Double => &mut self.counts.doubles,
            Bank::Predicate => &mut self.counts.predicates,
        };
        let index = *count;
        *count += 1;
        match bank {
            Bank::Word => Slot::Word(index),
            Bank::Double => Slot::Double(index),
            Bank::Predicate => Slot::Predicate(index),
        }
    }

    fn name(&mut self, variables: &[Placed], symbol: fn(u64) -> Symbol) {
        self.symbols.extend(variables.iter().map(|variable| (variable.name.clone(), symbol(variable.offset))));
    }

    fn instruction(&mut self, instruction: &ast::Instruction) -> Result<Instruction, String> {
        let guard = match &instruction.guard {
            None => None,
            Some(guard) => Some((self.reg(&Operand::Register(guard.register.clone()))?, guard.negated)),
        };
        let decode = isa::find(&instruction.opcode).ok_or("no such instruction in the table")?;
        let operation = decode(&mut Operands { decoder: self, instruction })?;
        Ok(Instruction { operation, guard, touched: None, source: instruction.source, text: instruction.text.clone() })
    }

    /// The word registers of an instruction that is no matrix product.
    fn touched(&self, instruction: &ast::Instruction) -> Option<Touched> {
        if instruction.opcode.starts_with("wgmma.") {
            return None;
        }
        let mut touched = Touched::default();
        for (i, operand) in instruction.operands.iter().enumerate() {
            let is_written = i == 0 && !matches!(operand, Operand::Address(..) | Operand::Tensor(..));
            self.words(operand, if is_written { &mut touched.writes } else { &mut touched.reads });
        }
        let one_each = touched.writes.len() == 1 && touched.reads.len() == 1;
        touched.is_move = instruction.opcode.starts_with("mov.") && one_each && instruction.operands.len() == 2;
        Some(touched).filter(|touched| !touched.writes.is_empty() || !touched.reads.is_empty())
    }

    fn words(&self, operand: &Operand, words: &mut Vec<u32>) {
        match operand {
            Operand::Register(name) => {
                if let Some(Slot::Word(word)) = self.registers.get(name) {
                    words.push(*word);
                }
            }
            Operand::Address(base, _) => self.words(base, words),
            Operand::Pair(a, b) => [a, b].into_iter().for_each(|operand| self.words(operand, words)),
            Operand::Vector(operands) | Operand::Tensor(_, operands) => {
                operands.iter().for_each(|operand| self.words(operand, words));
            }
            _ => {}
        }
    }

    /// An operand as a register of `T`s.
    pub(crate) fn reg<T: Lane>(&mut self, operand: &Operand) -> Result<Reg<T>, String> {
        let banks =
            [(Slot::Word(0), Bank::Word), (Slot::Double(0), Bank::Double), (Slot::Predicate(0), Bank::Predicate)];
        let bank = banks.into_iter().find(|&(slot, _)| T::index(slot).is_some()).map_or(Bank::Word, |(_, bank)| bank);
        let slot = self.slot(operand, bank)?;
        Reg::new(slot).ok_or_else(|| format!("{operand:?} is not as wide as its type"))
    }

    /// Where an operand lies; what is no register becomes one of bank `bank`.
    fn slot(&mut self, operand: &Operand, bank: Bank) -> Result<Slot, String> {
        match operand {
            Operand::Register(name) => match self.registers.get(name) {
                Some(&slot) => Ok(slot),
                None => self.special(name),
            },
            Operand::Immediate(bits) => Ok(self.constant(bank, Key::Bits(*bits))),
            Operand::Symbol(name) if name == "WARP_SZ" => Ok(self.constant(bank, Key::Bits(LANES as u64))),
            Operand::Symbol(name) => self.address_of(name, 0, bank),
            Operand::SymbolOffset(name, offset) => self.address_of(name, *offset, bank),
            Operand::Sink => Ok(self.allocate(bank)),
            other => Err(format!("expected a register, got {other:?}")),
        }
    }

    fn special(&mut self, name: &str) -> Result<Slot, String> {
        let special = Special::named(name).ok_or_else(|| format!("the register {name} is not known"))?;
        if let Some(register) = self.specials.get(&special) {
            return Ok(register.slot());
        }
        if special == Special::IsExplicitCluster {
            let slot = self.allocate(Bank::Predicate);
            self.explicit_cluster.extend(Reg::new(slot));
            return Ok(slot);
        }
        let slot = self.allocate(Bank::Word);
        self.specials.extend(Reg::new(slot).map(|register| (special, register)));
        Ok(slot)
    }

    fn constant(&mut self, bank: Bank, key: Key) -> Slot {
        if let Some(&slot) = self.constants.get(&(bank, key)) {
            return slot;
        }
        let slot = self.allocate(bank);
        self.constants.insert((bank, key), slot);
        slot
    }

    fn address_of(&mut self, name: &str, offset: i64, bank: Bank) -> Result<Slot, String> {
        let key = match self.symbol(name)? {
            Symbol::Parameter(at) | Symbol::Shared(at) | Symbol::Local(at) => Key::Bits(at.wrapping_add_signed(offset)),
            Symbol::Module(number) if bank == Bank::Double => Key::Address(number, offset),
            Symbol::Module(_) => return Err(format!("the address of `{name}` has 64 bits")),
        };
        Ok(self.constant(bank, key))
    }

    fn symbol(&self, name: &str) -> Result<Symbol, String> {
        self.symbols.get(name).copied().ok_or_else(|| format!("`{name}` is not known"))
    }

    fn label(&self, name: &str) -> Result<u32, String> {
        self.labels.get(name).copied().ok_or_else(|| format!("there is no label {name}"))
    }
}
