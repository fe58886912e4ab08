//! The instructions: one table, of which each file holds the rows of a family.
//!
//! A row is a pattern of the opcode and what it means:
//!
//! ```text
//! row("add{.u32,.s32}", |o| o.binary(u32::wrapping_add)),
//! ```
//!
//! In a pattern `{a,b}` stands for either, and `{a,}` for `a` or nothing; a pattern that ends with `*` takes
//! every opcode that begins like it, and its row looks at the modifiers itself. What no row matches is
//! refused before anything runs.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::decode::Operands;
use crate::exec::Operation;

mod approximate;
mod bits;
mod compare;
mod control;
mod convert;
mod copy;
mod float;
mod integer;
mod matrix;
mod mbarrier;
mod memory;
mod packed;
mod rounding;
mod warp;

/// An instruction and its meaning.
pub struct Row {
    pattern: &'static str,
    decode: Decode,
}

/// Turns operands into an operation; the error says what is not supported.
pub type Decode = fn(&mut Operands<'_>) -> Result<Operation, String>;

const fn row(pattern: &'static str, decode: Decode) -> Row {
    Row { pattern, decode }
}

const FAMILIES: [&[Row]; 13] = [
    integer::ROWS,
    bits::ROWS,
    float::ROWS,
    packed::ROWS,
    approximate::ROWS,
    compare::ROWS,
    convert::ROWS,
    memory::ROWS,
    copy::ROWS,
    mbarrier::ROWS,
    warp::ROWS,
    matrix::ROWS,
    control::ROWS,
];

struct Table {
    exact: HashMap<String, Decode>,
    /// Without the `*`.
    prefixes: Vec<(&'static str, Decode)>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { exact: HashMap::new(), prefixes: Vec::new() };
    for row in FAMILIES.into_iter().flatten() {
        match row.pattern.strip_suffix('*') {
            Some(prefix) => table.prefixes.push((prefix, row.decode)),
            None => table.exact.extend(expand(row.pattern).into_iter().map(|opcode| (opcode, row.decode))),
        }
    }
    table
});

/// What an opcode means, if it is known.
pub fn find(opcode: &str) -> Option<Decode> {
    let prefixed = || TABLE.prefixes.iter().find(|(prefix, _)| opcode.starts_with(prefix)).map(|(_, decode)| *decode);
    TABLE.exact.get(opcode).copied().or_else(prefixed)
}

/// All opcodes that a pattern stands for.
fn expand(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (choices, tail) = rest.split_once('}').expect("a pattern closes its braces");
    let tails = expand(tail);
    choices.split(',').flat_map(|choice| tails.iter().map(move |tail| format!("{head}{choice}{tail}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert_eq!(expand("not.pred"), ["not.pred"]);
        assert_eq!(expand("fma.rn{.ftz,}.{f32,f64}"), ["fma.rn.ftz.f32", "fma.rn.ftz.f64", "fma.rn.f32", "fma.rn.f64"]);
    }

    #[test]
    fn no_opcode_has_two_rows() {
        let mut seen = std::collections::HashSet::new();
        for opcode in FAMILIES.into_iter().flatten().flat_map(|row| expand(row.pattern)) {
            assert!(seen.insert(opcode.clone()), "{opcode} has two rows");
        }
    }
}
