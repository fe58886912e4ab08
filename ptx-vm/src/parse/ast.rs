//! What a PTX module says, before any instruction is understood.

use std::collections::HashMap;

/// A whole `.ptx` file.
#[derive(Debug, Clone, Default)]
pub struct Module {
    /// `.version`, as written.
    pub version: String,
    /// `.target`, its first word, as written.
    pub target: String,
    /// `.file` numbers to paths.
    pub files: HashMap<u32, String>,
    /// Variables outside of functions: `.global`, `.const` and `.shared`.
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}

/// A kernel (`.entry`) or a device function (`.func`).
#[derive(Debug, Clone, Default)]
pub struct Function {
    pub name: String,
    pub is_entry: bool,
    /// Whether there is a body; a declaration has none.
    pub is_defined: bool,
    /// What a device function returns: variables of the space [`Space::Param`].
    pub returns: Vec<Variable>,
    /// In order; variables of the space [`Space::Param`].
    pub params: Vec<Variable>,
    /// `.reqnctapercluster`: blocks of a cluster.
    pub cluster: Option<[u32; 3]>,
    pub registers: Vec<RegisterSet>,
    /// Variables declared in the body: `.shared`, `.local`, and `.param` for calls.
    pub variables: Vec<Variable>,
    pub instructions: Vec<Instruction>,
    /// Labels to the index of the instruction that they stand before.
    pub labels: HashMap<String, usize>,
    /// `.branchtargets` by their label.
    pub branch_targets: HashMap<String, Vec<String>>,
}

/// State spaces that a variable can be declared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

#[derive(Debug, Clone)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    /// Bytes.
    pub align: u64,
    /// Bytes; None for `[]`, the dynamic shared memory.
    pub size: Option<u64>,
    /// Empty where there is no initialiser; otherwise the bytes given, the rest is 0.
    pub initial: Vec<u8>,
}

/// `.reg .b32 %r<10>;`, or one register.
#[derive(Debug, Clone)]
pub struct RegisterSet {
    /// Without the dot: `b32`, `pred`.
    pub ty: String,
    pub name: String,
    /// None for a single register `name`; otherwise `name0` to `name{count-1}`.
    pub count: Option<u32>,
}

impl RegisterSet {
    /// The names of its registers.
    pub fn names(&self) -> Vec<String> {
        match self.count {
            None => vec![self.name.clone()],
            Some(count) => (0..count).map(|i| format!("{}{i}", self.name)).collect(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Instruction {
    pub guard: Option<Guard>,
    /// With its modifiers, as written: `ld.global.nc.v4.f32`.
    pub opcode: String,
    pub operands: Vec<Operand>,
    /// The `.loc` it falls under.
    pub source: SourceLine,
    /// Where that was inlined, and where this was, outwards.
    pub inlined_at: Vec<SourceLine>,
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// As written, white space squeezed.
    pub text: String,
}

/// A line of the `.cu` file or of a header; file 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SourceLine {
    pub file: u32,
    pub line: u32,
}

/// `@%p` or `@!%p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Guard {
    pub register: String,
    pub negated: bool,
}

/// Names of registers keep their `%`. Names declared in an inner block `{ }` are made unique by the
/// parser, so that a name means one thing in the whole function.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// `%r1`, `%tid.x`, or a register declared without `%`.
    Register(String),
    /// `!%p1`
    Not(String),
    /// Bits: an integer (two's complement), or those of `0f…` and `0d…`.
    Immediate(u64),
    /// A label, a variable or a function.
    Symbol(String),
    /// `variable+4`
    SymbolOffset(String, i64),
    /// `[base+offset]`; the base is a register, a symbol or an immediate.
    Address(Box<Operand>, i64),
    /// `[map, {a, b}]`: a tensor map and coordinates.
    Tensor(Box<Operand>, Vec<Operand>),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `%p1|%p2`
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)`, arguments of a call.
    Arguments(Vec<Operand>),
    /// `_`
    Sink,
}
