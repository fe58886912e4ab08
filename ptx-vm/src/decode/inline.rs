//! Device functions that are called become part of their caller.
//!
//! A kernel is then one list of instructions, so that lanes which part in a function meet again in it by the
//! same rule as anywhere else. Arguments and results are variables of the caller under the callee's names.

use std::collections::{HashMap, HashSet};

use super::Special;
use crate::error::Error;
use crate::parse::ast::{Function, Guard, Instruction, Module, Operand, RegisterSet, Space, Variable};

/// A kernel with everything that it calls.
#[derive(Debug, Default)]
pub struct Flat {
    pub instructions: Vec<Instruction>,
    pub labels: HashMap<String, usize>,
    pub registers: Vec<RegisterSet>,
    pub variables: Vec<Variable>,
    pub branch_targets: HashMap<String, Vec<String>>,
}

pub fn flatten(module: &Module, kernel: &Function) -> Result<Flat, Error> {
    let mut flattener = Flattener { module, flat: Flat::default(), calls: 0, active: Vec::new() };
    flattener.append(kernel, &Names::of(kernel, String::new(), HashMap::new()))?;
    Ok(flattener.flat)
}

struct Flattener<'a> {
    module: &'a Module,
    flat: Flat,
    /// Calls so far: each gets names of its own.
    calls: usize,
    /// Names of the functions that are being appended.
    active: Vec<String>,
}

/// What the names of a function are in its kernel.
struct Names {
    prefix: String,
    /// Parameters and results to variables of the caller.
    bound: HashMap<String, String>,
    /// Variables, labels and branch tables of the function.
    own: HashSet<String>,
}

impl Names {
    fn of(function: &Function, prefix: String, bound: HashMap<String, String>) -> Self {
        let variables = function.variables.iter().map(|variable| &variable.name);
        let own = variables.chain(function.labels.keys()).chain(function.branch_targets.keys()).cloned().collect();
        Names { prefix, bound, own }
    }

    fn register(&self, name: &str) -> String {
        if Special::named(name).is_some() { name.to_owned() } else { format!("{}{name}", self.prefix) }
    }

    fn symbol(&self, name: &str) -> String {
        match self.bound.get(name) {
            Some(bound) => bound.clone(),
            None if self.own.contains(name) => format!("{}{name}", self.prefix),
            None => name.to_owned(),
        }
    }

    fn guard(&self, guard: &Guard) -> Guard {
        Guard { register: self.register(&guard.register), negated: guard.negated }
    }

    fn operand(&self, operand: &Operand) -> Operand {
        let all = |operands: &[Operand]| operands.iter().map(|operand| self.operand(operand)).collect();
        match operand {
            Operand::Register(name) => Operand::Register(self.register(name)),
            Operand::Not(name) => Operand::Not(self.register(name)),
            Operand::Symbol(name) => Operand::Symbol(self.symbol(name)),
            Operand::SymbolOffset(name, offset) => Operand::SymbolOffset(self.symbol(name), *offset),
            Operand::Address(base, offset) => Operand::Address(Box::new(self.operand(base)), *offset),
            Operand::Tensor(map, at) => Operand::Tensor(Box::new(self.operand(map)), all(at)),
            Operand::Vector(elements) => Operand::Vector(all(elements)),
            Operand::Arguments(arguments) => Operand::Arguments(all(arguments)),
            Operand::Pair(a, b) => Operand::Pair(Box::new(self.operand(a)), Box::new(self.operand(b))),
            Operand::Immediate(_) | Operand::Sink => operand.clone(),
        }
    }
}

impl Flattener<'_> {
    fn append(&mut self, function: &Function, names: &Names) -> Result<(), Error> {
        self.active.push(function.name.clone());
        for set in &function.registers {
            self.flat.registers.push(RegisterSet { name: names.register(&set.name), ..set.clone() });
        }
        for variable in &function.variables {
            self.flat.variables.push(Variable { name: names.symbol(&variable.name), ..variable.clone() });
        }
        for (label, targets) in &function.branch_targets {
            let targets = targets.iter().map(|target| names.symbol(target)).collect();
            self.flat.branch_targets.insert(names.symbol(label), targets);
        }

        let mut labels_at: HashMap<usize, Vec<&String>> = HashMap::new();
        for (label, &index) in &function.labels {
            labels_at.entry(index).or_default().push(label);
        }
        for index in 0..=function.instructions.len() {
            for label in labels_at.get(&index).into_iter().flatten() {
                self.flat.labels.insert(names.symbol(label), self.flat.instructions.len());
            }
            let Some(instruction) = function.instructions.get(index) else { break };
            let returns = self.active.len() > 1 && matches!(instruction.opcode.as_str(), "ret" | "ret.uni");
            if instruction.opcode.split('.').next() == Some("call") {
                self.call(function, instruction, names)?;
            } else if returns {
                let guard = instruction.guard.as_ref().map(|guard| names.guard(guard));
                self.branch(instruction, guard, end_of(names));
            } else {
                self.flat.instructions.push(Instruction {
                    guard: instruction.guard.as_ref().map(|guard| names.guard(guard)),
                    operands: instruction.operands.iter().map(|operand| names.operand(operand)).collect(),
                    ..instruction.clone()
                });
            }
        }
        if self.active.len() > 1 {
            self.flat.labels.insert(end_of(names), self.flat.instructions.len());
        }
        self.active.pop();
        Ok(())
    }

    fn call(&mut self, caller: &Function, instruction: &Instruction, names: &Names) -> Result<(), Error> {
        let refuse = |reason: String| Error::Unsupported {
            function: caller.name.clone(),
            line: instruction.line,
            instruction: instruction.text.clone(),
            reason,
        };
        let (results, name, arguments) = call_operands(&instruction.operands).map_err(&refuse)?;
        let callee = self.module.functions.iter().find(|f| &f.name == name && f.is_defined);
        let callee = callee.ok_or_else(|| refuse(format!("`{name}` is not defined in this module")))?;
        if self.active.contains(name) {
            return Err(refuse(format!("`{name}` calls itself")));
        }
        let mut bound = HashMap::new();
        for (formal, actual) in [(&callee.returns, results), (&callee.params, arguments)] {
            if formal.len() != actual.len() {
                return Err(refuse(format!("`{name}` has {} parameters, not {}", formal.len(), actual.len())));
            }
            for (formal, actual) in formal.iter().zip(actual) {
                let Operand::Symbol(actual) = actual else {
                    return Err(refuse(format!("an argument that is no variable: {actual:?}")));
                };
                bound.insert(formal.name.clone(), names.symbol(actual));
            }
        }
        self.calls += 1;
        let names_of_callee = Names::of(callee, format!("{name}@{}:", self.calls), bound);
        if let Some(guard) = &instruction.guard {
            let skip = Guard { negated: !guard.negated, ..names.guard(guard) };
            self.branch(instruction, Some(skip), end_of(&names_of_callee));
        }
        self.append(callee, &names_of_callee)
    }

    fn branch(&mut self, from: &Instruction, guard: Option<Guard>, target: String) {
        let operands = vec![Operand::Symbol(target)];
        self.flat.instructions.push(Instruction { guard, opcode: "bra".to_owned(), operands, ..from.clone() });
    }
}

/// Where a called function returns to.
fn end_of(names: &Names) -> String {
    format!("{}return", names.prefix)
}

/// Results, name and arguments of a direct call.
fn call_operands(operands: &[Operand]) -> Result<(&[Operand], &String, &[Operand]), String> {
    match operands {
        [Operand::Symbol(name)] => Ok((&[], name, &[])),
        [Operand::Symbol(name), Operand::Arguments(arguments)] => Ok((&[], name, arguments)),
        [Operand::Arguments(results), Operand::Symbol(name)] => Ok((results, name, &[])),
        [Operand::Arguments(results), Operand::Symbol(name), Operand::Arguments(arguments)] => {
            Ok((results, name, arguments))
        }
        _ => Err("a call through a pointer".to_owned()),
    }
}

/// Whether a variable lies in the local memory of a thread: arguments of calls do, too.
pub fn is_local(variable: &Variable) -> bool {
    matches!(variable.space, Space::Local | Space::Param)
}
