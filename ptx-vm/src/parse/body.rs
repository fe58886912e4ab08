//! The body of a function: registers, labels, instructions and their operands.

use std::collections::HashMap;

use super::ast::{Function, Guard, Instruction, Operand, RegisterSet, SourceLine, Space};
use super::lexer::{Kind, Literal, Token, Tokens};
use super::module::skip_pragma;
use super::variable::{variables, width};
use super::{NESTING, ParseError};
use crate::registers::LANES;

/// Registers of a function, those of sets each: far more than a compiler asks for, and few enough to lay out.
const REGISTERS: u32 = 1 << 20;

/// Reads `{ … }` into the function.
pub fn body(tokens: &mut Tokens, function: &mut Function) -> Result<(), ParseError> {
    let location = Location::default();
    let mut body =
        Body { tokens, function, scopes: Vec::new(), blocks: 0, registers: 0, location, locations: HashMap::new() };
    body.open()?;
    while !body.scopes.is_empty() {
        body.statement()?;
    }
    Ok(())
}

struct Body<'t, 'a> {
    tokens: &'t mut Tokens<'a>,
    function: &'t mut Function,
    /// The blocks that are open, the innermost last.
    scopes: Vec<Scope>,
    /// How many were opened so far.
    blocks: u32,
    /// How many were declared so far, those of sets each.
    registers: u32,
    /// Of the last `.loc`.
    location: Location,
    /// The last one of each place.
    locations: HashMap<Place, Location>,
}

/// A line and a column.
type Place = (SourceLine, u32);

/// What a `.loc` says.
#[derive(Debug, Clone, Default)]
struct Location {
    source: SourceLine,
    inlined_at: Vec<SourceLine>,
}

/// A block `{ }` and the names declared in it.
struct Scope {
    /// From 0, the whole body.
    number: u32,
    names: HashMap<String, Declared>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Declared {
    Register,
    /// `name<count>`
    Registers(u32),
    /// A variable or a label.
    Symbol,
}

impl Scope {
    /// What the function calls a name of this block. No name of PTX has a `#`, so that nothing else is called so;
    /// the `_` keeps register 1 of a set in block 2 apart from a register in block 21.
    fn unique(&self, name: &str, declared: Declared) -> String {
        match (self.number, declared) {
            (0, _) => name.to_owned(),
            (number, Declared::Registers(_)) => format!("{name}#{number}_"),
            (number, _) => format!("{name}#{number}"),
        }
    }

    fn find(&self, name: &str) -> Option<Operand> {
        match self.names.get(name) {
            Some(declared @ Declared::Register) => Some(Operand::Register(self.unique(name, *declared))),
            Some(declared @ Declared::Symbol) => Some(Operand::Symbol(self.unique(name, *declared))),
            Some(Declared::Registers(_)) | None => self.find_in_set(name).map(Operand::Register),
        }
    }

    /// `%r12` may be register 12 of `%r` or register 2 of `%r1`.
    fn find_in_set(&self, name: &str) -> Option<String> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        // No index of a u32 has more than 10 digits.
        (1..=digits.min(10)).find_map(|length| {
            let (set, index) = name.split_at(name.len() - length);
            let declared = *self.names.get(set)?;
            let Declared::Registers(count) = declared else { return None };
            let is_plain = index == "0" || !index.starts_with('0');
            let is_inside = index.parse::<u32>().is_ok_and(|index| index < count);
            (is_plain && is_inside).then(|| self.unique(set, declared) + index)
        })
    }
}

impl Body<'_, '_> {
    fn open(&mut self) -> Result<(), ParseError> {
        let token = self.tokens.peek();
        self.tokens.expect("{")?;
        if self.scopes.len() == NESTING {
            return Err(token.error(format!("expected at most {NESTING} blocks within each other, got more")));
        }
        self.scopes.push(Scope { number: self.blocks, names: HashMap::new() });
        self.blocks += 1;
        // A label may be used before it stands there.
        for label in labels(self.tokens.rest()) {
            self.declare(label, Declared::Symbol)?;
        }
        Ok(())
    }

    /// Adds a name to the innermost block and returns what the function is to call it.
    fn declare(&mut self, name: Token, declared: Declared) -> Result<String, ParseError> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(name.text.to_owned()) };
        if scope.names.insert(name.text.to_owned(), declared).is_some() {
            return Err(name.error(format!("expected a new name, got `{}` a second time", name.text)));
        }
        Ok(scope.unique(name.text, declared))
    }

    /// What a name means here: a register or a symbol.
    fn resolve(&self, name: &str) -> Operand {
        let found = self.scopes.iter().rev().find_map(|scope| scope.find(name));
        found.unwrap_or_else(|| {
            let is_register = name.starts_with('%');
            if is_register { Operand::Register(name.to_owned()) } else { Operand::Symbol(name.to_owned()) }
        })
    }

    fn statement(&mut self) -> Result<(), ParseError> {
        let token = self.tokens.peek();
        match token.text {
            "{" => self.open(),
            "}" => {
                self.tokens.take();
                self.scopes.pop();
                Ok(())
            }
            ".reg" => self.registers(),
            ".shared" => self.variables(Space::Shared),
            ".local" => self.variables(Space::Local),
            ".param" => self.variables(Space::Param),
            ".loc" => self.location(),
            ".pragma" => skip_pragma(self.tokens),
            directive if directive.starts_with('.') => Err(token.error(format!("`{directive}` is not supported here"))),
            _ if is_label(self.tokens.rest()) => self.label(),
            _ => self.instruction(),
        }
    }

    /// `.reg .b32 %r<10>, a;`
    fn registers(&mut self) -> Result<(), ParseError> {
        self.tokens.expect(".reg")?;
        let ty = self.tokens.take();
        if ty.text != ".pred" && width(ty.text).is_none() {
            return Err(ty.instead_of("the type of a register"));
        }
        loop {
            let set = self.register_set(&ty.text[1..])?;
            self.function.registers.push(set);
            if !self.tokens.accept(",") {
                return self.tokens.expect(";");
            }
        }
    }

    fn register_set(&mut self, ty: &str) -> Result<RegisterSet, ParseError> {
        let token = self.tokens.peek();
        self.tokens.name("the name of a register")?;
        let mut count = None;
        if self.tokens.accept("<") {
            count = Some(self.tokens.integer("a number of registers")?);
            self.tokens.expect(">")?;
        }
        self.registers = self.registers.saturating_add(count.unwrap_or(1));
        if self.registers > REGISTERS {
            return Err(token.error(format!("expected at most {REGISTERS} registers in a function, got more")));
        }
        let name = self.declare(token, count.map_or(Declared::Register, Declared::Registers))?;
        Ok(RegisterSet { ty: ty.to_owned(), name, count })
    }

    fn variables(&mut self, space: Space) -> Result<(), ParseError> {
        let directive = self.tokens.take();
        for mut variable in variables(self.tokens, space)? {
            variable.name = self.declare(Token { text: &variable.name, ..directive }, Declared::Symbol)?;
            self.function.variables.push(variable);
        }
        Ok(())
    }

    /// `.loc 2 10 5, function_name $L__info_string0, inlined_at 1 20 9`: file, line and column.
    fn location(&mut self) -> Result<(), ParseError> {
        self.tokens.expect(".loc")?;
        let place = self.place()?;
        let inlined_at = if self.tokens.accept(",") { self.inlined_at()? } else { Vec::new() };
        self.location = Location { source: place.0, inlined_at };
        self.locations.insert(place, self.location.clone());
        Ok(())
    }

    /// Where the `.loc` before says that its function was inlined; an earlier one says where that place was.
    fn inlined_at(&mut self) -> Result<Vec<SourceLine>, ParseError> {
        self.tokens.expect("function_name")?;
        self.tokens.word("where the name of a function is")?;
        if self.tokens.accept("+") {
            self.tokens.integer::<u64>("an offset")?;
        }
        self.tokens.expect(",")?;
        self.tokens.expect("inlined_at")?;
        let place = self.place()?;
        let further = self.locations.get(&place).into_iter().flat_map(|location| &location.inlined_at);
        Ok(std::iter::once(&place.0).chain(further).take(NESTING).copied().collect())
    }

    fn place(&mut self) -> Result<Place, ParseError> {
        let file = self.tokens.integer("the number of a file")?;
        let line = self.tokens.integer("a line")?;
        let column = self.tokens.integer("a column")?;
        Ok((SourceLine { file, line }, column))
    }

    /// `label:` or `label: .branchtargets a, b;`
    fn label(&mut self) -> Result<(), ParseError> {
        let label = self.symbol("a label")?;
        self.tokens.expect(":")?;
        if !self.tokens.accept(".branchtargets") {
            self.function.labels.insert(label, self.function.instructions.len());
            return Ok(());
        }
        let mut targets = Vec::new();
        loop {
            targets.push(self.symbol("a label")?);
            if !self.tokens.accept(",") {
                self.function.branch_targets.insert(label, targets);
                return self.tokens.expect(";");
            }
        }
    }

    fn instruction(&mut self) -> Result<(), ParseError> {
        let start = self.tokens.position();
        let line = self.tokens.peek().line;
        let guard = self.guard()?;
        let opcode = self.tokens.peek();
        if !opcode.text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(opcode.instead_of("an instruction"));
        }
        self.tokens.take();
        let operands = self.list(";", Self::operand)?;
        let written = self.tokens.taken_since(start);
        expect_fractions_fit(opcode.text, written)?;
        let (opcode, text) = (opcode.text.to_owned(), as_written(written));
        let Location { source, inlined_at } = self.location.clone();
        let instruction = Instruction { guard, opcode, operands, source, inlined_at, line, text };
        self.function.instructions.push(instruction);
        Ok(())
    }

    /// `@%p` or `@!%p`
    fn guard(&mut self) -> Result<Option<Guard>, ParseError> {
        if !self.tokens.accept("@") {
            return Ok(None);
        }
        let negated = self.tokens.accept("!");
        let register = self.register()?;
        Ok(Some(Guard { register, negated }))
    }

    /// Operands between commas, up to `close`.
    fn list(
        &mut self,
        close: &str,
        operand: fn(&mut Self) -> Result<Operand, ParseError>,
    ) -> Result<Vec<Operand>, ParseError> {
        let mut operands = Vec::new();
        if self.tokens.accept(close) {
            return Ok(operands);
        }
        loop {
            operands.push(operand(self)?);
            if !self.tokens.accept(",") {
                self.tokens.expect(close)?;
                return Ok(operands);
            }
        }
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        if self.tokens.accept("{") {
            return self.list("}", Self::scalar).map(Operand::Vector);
        }
        if self.tokens.accept("(") {
            return self.list(")", Self::scalar).map(Operand::Arguments);
        }
        if self.tokens.accept("[") {
            return self.address();
        }
        if self.tokens.accept("!") {
            return self.register().map(Operand::Not);
        }
        let first = self.scalar()?;
        if self.tokens.accept("|") {
            return Ok(Operand::Pair(Box::new(first), Box::new(self.scalar()?)));
        }
        match first {
            Operand::Symbol(name) => Ok(match self.offset()? {
                Some(offset) => Operand::SymbolOffset(name, offset),
                None => Operand::Symbol(name),
            }),
            other => Ok(other),
        }
    }

    /// `%rd1+8]`, the `[` taken.
    fn address(&mut self) -> Result<Operand, ParseError> {
        let base = self.scalar()?;
        let offset = self.offset()?.unwrap_or(0);
        if offset == 0 && self.tokens.accept(",") {
            self.tokens.expect("{")?;
            let coordinates = self.list("}", Self::scalar)?;
            self.tokens.expect("]")?;
            return Ok(Operand::Tensor(Box::new(base), coordinates));
        }
        self.tokens.expect("]")?;
        Ok(Operand::Address(Box::new(base), offset))
    }

    /// `+8`, `+-8` or `-8`
    fn offset(&mut self) -> Result<Option<i64>, ParseError> {
        let plus = self.tokens.accept("+");
        let minus = self.tokens.accept("-");
        if !plus && !minus {
            return Ok(None);
        }
        let token = self.tokens.peek();
        let magnitude: u64 = self.tokens.integer("an offset")?;
        let offset = if minus { 0i64.checked_sub_unsigned(magnitude) } else { 0i64.checked_add_unsigned(magnitude) };
        offset.map(Some).ok_or_else(|| token.instead_of("an offset that fits 64 bits"))
    }

    /// A register, a number, a symbol or `_`.
    fn scalar(&mut self) -> Result<Operand, ParseError> {
        if self.tokens.next_is("-") || self.tokens.peek().is_number() {
            return self.number().map(Operand::Immediate);
        }
        let token = self.tokens.take();
        match token.text {
            "_" => Ok(Operand::Sink),
            "WARP_SZ" => Ok(Operand::Immediate(LANES as u64)),
            name if token.kind == Kind::Word && !name.starts_with('.') => Ok(self.resolve(name)),
            _ => Err(token.instead_of("an operand")),
        }
    }

    fn number(&mut self) -> Result<u64, ParseError> {
        let negative = self.tokens.accept("-");
        let token = self.tokens.take();
        match Literal::read(token.text) {
            Some(Literal::Integer(magnitude)) if negative => Ok(magnitude.wrapping_neg()),
            Some(Literal::Integer(bits) | Literal::Double(bits)) if !negative => Ok(bits),
            Some(Literal::Single(bits)) if !negative => Ok(bits.into()),
            _ => Err(token.instead_of("an integer, or a fraction as `0f…` or `0d…`")),
        }
    }

    fn register(&mut self) -> Result<String, ParseError> {
        let token = self.tokens.peek();
        match self.scalar()? {
            Operand::Register(name) => Ok(name),
            _ => Err(token.instead_of("a register")),
        }
    }

    fn symbol(&mut self, expected: &str) -> Result<String, ParseError> {
        let token = self.tokens.peek();
        match self.scalar()? {
            Operand::Symbol(name) => Ok(name),
            _ => Err(token.instead_of(expected)),
        }
    }
}

fn is_label(rest: &[Token]) -> bool {
    matches!(rest, [label, colon, ..] if label.is_name() && colon.text == ":")
}

/// The labels of the block that begins here, not those of blocks within it.
fn labels<'a>(rest: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut labels = Vec::new();
    let mut depth = 0;
    for (index, token) in rest.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 0 => break,
            "}" => depth -= 1,
            _ if depth == 0 && is_label(&rest[index..]) => labels.push(*token),
            _ => {}
        }
    }
    labels
}

/// An immediate is bits, so that `0d…` for an f32 or `0f…` for an f64 would be another number.
fn expect_fractions_fit(opcode: &str, written: &[Token]) -> Result<(), ParseError> {
    let has = |ty: &str| opcode.split('.').any(|modifier| modifier == ty);
    for token in written {
        match Literal::read(token.text) {
            Some(Literal::Single(_)) if has("f64") && !has("f32") => {
                return Err(token.instead_of("a fraction of 64 bits, `0d…`"));
            }
            Some(Literal::Double(_)) if !has("f64") && !has("b64") => {
                return Err(token.instead_of("a fraction of 32 bits, `0f…`"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// White space and comments become one blank.
fn as_written(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        if token.spaced && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(token.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    /// The function whose body begins on line 2.
    fn function(body: &str) -> Function {
        let module = parse(&format!(".entry e () {{\n{body}\n}}"));
        module.expect("PTX").functions.remove(0)
    }

    /// The error of a function whose body begins on line 1.
    fn message(body: &str) -> String {
        parse(&format!(".entry e () {{{body}}}")).expect_err("an error").to_string()
    }

    fn operands(instruction: &str) -> Vec<Operand> {
        function(instruction).instructions.remove(0).operands
    }

    fn register(name: &str) -> Operand {
        Operand::Register(name.to_owned())
    }

    fn symbol(name: &str) -> Operand {
        Operand::Symbol(name.to_owned())
    }

    fn address(base: Operand, offset: i64) -> Operand {
        Operand::Address(Box::new(base), offset)
    }

    #[test]
    fn register_sets() {
        let registers = function(".reg .b32 %r<10>, a;\n.reg.pred p;").registers;
        let found: Vec<_> = registers.iter().map(|set| (set.ty.as_str(), set.name.as_str(), set.count)).collect();
        assert_eq!(found, [("b32", "%r", Some(10)), ("b32", "a", None), ("pred", "p", None)]);
    }

    #[test]
    fn variables_of_a_body() {
        let function = function(".local .align 16 .b8 __local_depot0[80];\n.shared .f32 a, b[4];\n.param .b64 p;");
        let found: Vec<_> = function.variables.iter().map(|v| (v.name.as_str(), v.space, v.align, v.size)).collect();
        assert_eq!(
            found,
            [
                ("__local_depot0", Space::Local, 16, Some(80)),
                ("a", Space::Shared, 4, Some(4)),
                ("b", Space::Shared, 4, Some(16)),
                ("p", Space::Param, 8, Some(8)),
            ]
        );
    }

    #[test]
    fn instruction_as_written() {
        let function = function("@!%p1 add.s32 \t%r1, // sum\n  %r2,3;");
        let instruction = &function.instructions[0];
        assert_eq!(instruction.guard, Some(Guard { register: "%p1".to_owned(), negated: true }));
        assert_eq!(instruction.opcode, "add.s32");
        assert_eq!(instruction.operands, [register("%r1"), register("%r2"), Operand::Immediate(3)]);
        assert_eq!(instruction.text, "@!%p1 add.s32 %r1, %r2,3;");
        assert_eq!(instruction.line, 2);
    }

    #[test]
    fn numbers() {
        assert_eq!(
            operands("f 1, -2, 0x10U, 017, 0b11, WARP_SZ;"),
            [
                Operand::Immediate(1),
                Operand::Immediate(-2i64 as u64),
                Operand::Immediate(16),
                Operand::Immediate(15),
                Operand::Immediate(3),
                Operand::Immediate(32),
            ]
        );
        assert_eq!(operands("mov.f32 0f3F800000;"), [Operand::Immediate(1f32.to_bits().into())]);
        assert_eq!(operands("mov.f64 0d3FF0000000000000;"), [Operand::Immediate(1f64.to_bits())]);
        assert_eq!(
            message("mov.f32 %f1, 1.5;"),
            "line 1: expected an integer, or a fraction as `0f…` or `0d…`, got `1.5`"
        );
    }

    #[test]
    fn fractions_of_the_wrong_width() {
        let wide = "line 1: expected a fraction of 32 bits, `0f…`, got `0d3FF0000000000000`";
        assert_eq!(message("add.f32 %f1, %f1, 0d3FF0000000000000;"), wide);
        let narrow = "line 1: expected a fraction of 64 bits, `0d…`, got `0f3F800000`";
        assert_eq!(message("add.f64 %f1, %f1, 0f3F800000;"), narrow);
        assert_eq!(operands("cvt.f64.f32 0f3F800000;"), [Operand::Immediate(1f32.to_bits().into())]);
    }

    #[test]
    fn addresses() {
        assert_eq!(
            operands("f [%rd1], [%rd1+8], [%rd1+-8], [%rd1-8], [name+0x4], [ 16 ];"),
            [
                address(register("%rd1"), 0),
                address(register("%rd1"), 8),
                address(register("%rd1"), -8),
                address(register("%rd1"), -8),
                address(symbol("name"), 4),
                address(Operand::Immediate(16), 0),
            ]
        );
        assert_eq!(operands("f [a+-9223372036854775808];"), [address(symbol("a"), i64::MIN)]);
        assert_eq!(
            message("f [a+9223372036854775808];"),
            "line 1: expected an offset that fits 64 bits, got `9223372036854775808`"
        );
        assert_eq!(
            operands("f [%rd1, {%r1, 0}];"),
            [Operand::Tensor(Box::new(register("%rd1")), vec![register("%r1"), Operand::Immediate(0)])]
        );
        assert_eq!(message("f [a+4, {%r1, %r2}];"), "line 1: expected `]`, got `,`");
    }

    #[test]
    fn other_operands() {
        assert_eq!(
            operands("f {%r1, _, 3}, %p1|%p2, _|%p1, !%p, %tid.x, name, name+4, name-4;"),
            [
                Operand::Vector(vec![register("%r1"), Operand::Sink, Operand::Immediate(3)]),
                Operand::Pair(Box::new(register("%p1")), Box::new(register("%p2"))),
                Operand::Pair(Box::new(Operand::Sink), Box::new(register("%p1"))),
                Operand::Not("%p".to_owned()),
                register("%tid.x"),
                symbol("name"),
                Operand::SymbolOffset("name".to_owned(), 4),
                Operand::SymbolOffset("name".to_owned(), -4),
            ]
        );
        assert_eq!(message("f !3;"), "line 1: expected a register, got `3`");
        assert_eq!(message("f {{%r1}};"), "line 1: expected an operand, got `{`");
    }

    #[test]
    fn calls() {
        let arguments = |names: &[&str]| Operand::Arguments(names.iter().map(|name| symbol(name)).collect());
        assert_eq!(
            operands("call.uni (retval0),\nname,\n(param0,\nparam1);"),
            [arguments(&["retval0"]), symbol("name"), arguments(&["param0", "param1"])]
        );
        assert_eq!(operands("call.uni name, (p);"), [symbol("name"), arguments(&["p"])]);
        assert_eq!(operands("call name;"), [symbol("name")]);
        assert_eq!(operands("call name, ();"), [symbol("name"), arguments(&[])]);
    }

    #[test]
    fn labels_and_branch_targets() {
        let function = function(
            "$a: ret;\n$b:\n$c: ret;\ntable: .branchtargets\n$a,\n$b;\n@%p bra $c;\nbrx.idx %r1, table;\n$end:",
        );
        let mut labels: Vec<_> = function.labels.iter().map(|(label, index)| (label.as_str(), *index)).collect();
        labels.sort();
        assert_eq!(labels, [("$a", 0), ("$b", 1), ("$c", 1), ("$end", 4)]);
        assert_eq!(function.branch_targets["table"], ["$a", "$b"]);
        assert_eq!(function.instructions[3].operands, [register("%r1"), symbol("table")]);
    }

    #[test]
    fn source_lines() {
        let function = function(
            "f;\n.loc 1 2 3\nf;\n.loc 2 20 5, function_name $L__info_string0, inlined_at 1 30 9\nf;\n\
             .loc 2 21 5, function_name .debug_str+8, inlined_at 1 30 9\nf;",
        );
        let found: Vec<_> = function.instructions.iter().map(|i| (i.source.file, i.source.line)).collect();
        assert_eq!(found, [(0, 0), (1, 2), (2, 20), (2, 21)]);
        assert_eq!(function.instructions[2].inlined_at, [SourceLine { file: 1, line: 30 }]);
        assert_eq!(message(".loc 1 2;"), "line 1: expected a column, got `;`");
        assert_eq!(message(".loc 1 4294967296 0"), "line 1: expected a line, got `4294967296`");
    }

    #[test]
    fn inlined_in_what_was_inlined() {
        let function = function(
            ".loc 1 15 9, function_name $a, inlined_at 1 22 5\n.loc 2 15 24, function_name $b, inlined_at 1 15 9\n\
             .loc 3 151 3, function_name $c, inlined_at 2 15 24\nf;",
        );
        let outwards: Vec<_> = function.instructions[0].inlined_at.iter().map(|line| (line.file, line.line)).collect();
        assert_eq!(outwards, [(2, 15), (1, 15), (1, 22)]);
    }

    #[test]
    fn pragmas_are_skipped() {
        assert_eq!(function(".pragma \"nounroll\";\nret;").instructions.len(), 1);
    }

    #[test]
    fn blocks_rename_what_they_declare() {
        let block = "{ .reg .pred p; .reg .b32 t<2>; .shared .b32 s; @p bra done; f t1, t2, s; done: }";
        let function = function(&format!(".reg .b32 p; {block}\n{block}\nf p, t1, done;"));
        let found: Vec<_> = function.registers.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(found, ["p", "p#1", "t#1_", "p#2", "t#2_"]);
        let found: Vec<_> = function.variables.iter().map(|variable| variable.name.as_str()).collect();
        assert_eq!(found, ["s#1", "s#2"]);
        assert_eq!(function.labels, HashMap::from([("done#1".to_owned(), 2), ("done#2".to_owned(), 4)]));

        let [bra, f, .., last] = &function.instructions[..] else { panic!("five instructions") };
        assert_eq!(bra.guard, Some(Guard { register: "p#1".to_owned(), negated: false }));
        assert_eq!(bra.operands, [symbol("done#1")]);
        assert_eq!(f.operands, [register("t#1_1"), symbol("t2"), symbol("s#1")]);
        assert_eq!(last.operands, [register("p"), symbol("t1"), symbol("done")]);
    }

    #[test]
    fn blocks_see_what_is_declared_around_them() {
        let function = function(".reg .b32 r; a: { f r; { .reg .b32 r; f r, a, b; } b: f r; }");
        assert_eq!(function.instructions[0].operands, [register("r")]);
        assert_eq!(function.instructions[1].operands, [register("r#2"), symbol("a"), symbol("b#1")]);
        assert_eq!(function.instructions[2].operands, [register("r")]);
    }

    #[test]
    fn a_name_before_its_declaration_is_the_outer_one() {
        let function = function(".reg .b32 r; { f r; .reg .b32 r; f r; }");
        assert_eq!(function.instructions[0].operands, [register("r")]);
        assert_eq!(function.instructions[1].operands, [register("r#1")]);
    }

    #[test]
    fn registers_of_a_set() {
        let function = function(".reg .b32 a<12>, a1<2>; f a11, a10, a12, a01, a99999999999;");
        let names = ["a11", "a10"].map(register);
        assert_eq!(function.instructions[0].operands[..2], names);
        assert_eq!(function.instructions[0].operands[2..], ["a12", "a01", "a99999999999"].map(symbol));
    }

    #[test]
    fn registers_are_bounded() {
        assert_eq!(function(".reg .b32 a<1048575>, b;").registers.len(), 2);
        let more = "line 1: expected at most 1048576 registers in a function, got more";
        assert_eq!(message(".reg .b32 a<1048575>; .reg .pred b, c;"), more);
        assert_eq!(message(".reg .b32 a<4294967295>, b<4294967295>;"), more);
    }

    #[test]
    fn a_name_declared_twice() {
        let twice = "line 1: expected a new name, got `a` a second time";
        for body in [".reg .b32 a, a;", "a: a:", ".reg .b32 a; .shared .b32 a;", ".param .b32 a; a:"] {
            assert_eq!(message(body), twice, "{body}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}ret;{}", "{".repeat(depth), "}".repeat(depth));
        assert_eq!(function(&nested(NESTING - 1)).instructions.len(), 1);
        assert_eq!(message(&nested(NESTING)), "line 1: expected at most 64 blocks within each other, got more");
        assert!(message(&"{".repeat(100_000)).contains("at most 64"));
    }

    #[test]
    fn what_is_no_statement() {
        assert_eq!(message("ret"), "line 1: expected an operand, got `}`");
        assert_eq!(message("f %r1\nret;"), "line 2: expected `;`, got `ret`");
        assert_eq!(message("ret;;"), "line 1: expected an instruction, got `;`");
        assert_eq!(message("f %r1,;"), "line 1: expected an operand, got `;`");
        assert_eq!(message("f .b32;"), "line 1: expected an operand, got `.b32`");
        assert_eq!(message("@3 ret;"), "line 1: expected a register, got `3`");
        assert_eq!(message("@q ret;"), "line 1: expected a register, got `q`");
        assert_eq!(message(".callprototype"), "line 1: `.callprototype` is not supported here");
        assert_eq!(message("p: .callprototype ();"), "line 1: `.callprototype` is not supported here");
        assert_eq!(message(".reg .v4 .b32 a;"), "line 1: expected the type of a register, got `.v4`");
        assert_eq!(message(".reg .b32 %r<4294967296>;"), "line 1: expected a number of registers, got `4294967296`");
        assert_eq!(message(".shared .b32 a = 1;"), "line 1: expected `;`, got `=`");
        let unclosed = parse(".entry e () {\nret;\n").expect_err("an error").to_string();
        assert_eq!(unclosed, "line 3: expected an instruction, got the end of the text");
    }
}
