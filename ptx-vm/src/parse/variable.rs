//! Variables: their types, sizes and initialisers.

use super::ast::{Space, Variable};
use super::lexer::{Kind, Literal, Token, Tokens};
use super::{NESTING, ParseError};

/// Bytes of a value; None for what is no type of a variable.
pub fn width(scalar: &str) -> Option<u64> {
    match scalar {
        ".b8" | ".s8" | ".u8" => Some(1),
        ".b16" | ".s16" | ".u16" | ".f16" | ".bf16" => Some(2),
        ".b32" | ".s32" | ".u32" | ".f32" | ".f16x2" | ".bf16x2" => Some(4),
        ".b64" | ".s64" | ".u64" | ".f64" => Some(8),
        ".b128" => Some(16),
        _ => None,
    }
}

/// The variables of one declaration, `.align 4 .b8 a[2], b[3];` after its state space.
pub fn variables(tokens: &mut Tokens, space: Space) -> Result<Vec<Variable>, ParseError> {
    let ty = Type::read(tokens)?;
    let mut variables = Vec::new();
    loop {
        variables.push(variable(tokens, space, &ty)?);
        if !tokens.accept(",") {
            tokens.expect(";")?;
            return Ok(variables);
        }
    }
}

/// Parameters `(.param .b64 a, .param .align 8 .b8 b[48])`.
pub fn parameters(tokens: &mut Tokens) -> Result<Vec<Variable>, ParseError> {
    let mut parameters = Vec::new();
    tokens.expect("(")?;
    if tokens.accept(")") {
        return Ok(parameters);
    }
    loop {
        tokens.expect(".param")?;
        let ty = Type::read(tokens)?;
        parameters.push(variable(tokens, Space::Param, &ty)?);
        if !tokens.accept(",") {
            tokens.expect(")")?;
            return Ok(parameters);
        }
    }
}

/// What stands before the names in a declaration.
struct Type<'a> {
    /// With its dot.
    scalar: &'a str,
    /// Bytes of the scalar.
    width: u64,
    /// Scalars in the vector; 1 if it is none.
    lanes: u64,
    /// Bytes.
    align: u64,
}

impl<'a> Type<'a> {
    fn read(tokens: &mut Tokens<'a>) -> Result<Self, ParseError> {
        let (mut scalar, mut lanes, mut align) = (None, 1, None);
        while tokens.peek().text.starts_with('.') {
            let token = tokens.take();
            match token.text {
                ".align" => align = Some(alignment(tokens)?),
                ".attribute" => skip_attribute(tokens)?,
                ".ptr" => skip_pointee(tokens)?,
                ".v2" => lanes = 2,
                ".v4" => lanes = 4,
                other => match width(other) {
                    Some(width) => scalar = Some((other, width)),
                    None => return Err(token.instead_of("the type of a variable")),
                },
            }
        }
        let (scalar, width) = scalar.ok_or_else(|| tokens.peek().instead_of("the type of a variable"))?;
        Ok(Type { scalar, width, lanes, align: align.unwrap_or(width * lanes) })
    }
}

fn alignment(tokens: &mut Tokens) -> Result<u64, ParseError> {
    let token = tokens.peek();
    let align: u64 = tokens.integer("an alignment")?;
    if align.is_power_of_two() { Ok(align) } else { Err(token.instead_of("a power of two as alignment")) }
}

/// `(.managed)`
fn skip_attribute(tokens: &mut Tokens) -> Result<(), ParseError> {
    tokens.expect("(")?;
    while !tokens.accept(")") {
        let token = tokens.take();
        if token.kind == Kind::End {
            return Err(token.instead_of("`)`"));
        }
    }
    Ok(())
}

/// `.global .align 16`: where a parameter points to.
fn skip_pointee(tokens: &mut Tokens) -> Result<(), ParseError> {
    if [".global", ".const", ".shared", ".local"].contains(&tokens.peek().text) {
        tokens.take();
    }
    if tokens.accept(".align") {
        alignment(tokens)?;
    }
    Ok(())
}

fn variable<'a>(tokens: &mut Tokens<'a>, space: Space, ty: &Type<'a>) -> Result<Variable, ParseError> {
    let declared = tokens.peek();
    let name = tokens.name("the name of a variable")?;
    let sizes = sizes(tokens, ty)?;
    let mut initial = Vec::new();
    match &sizes {
        None if space == Space::Shared => {}
        None => return Err(declared.error(format!("expected the size of `{name}`, got `[]`"))),
        Some(sizes) if matches!(space, Space::Global | Space::Const) && tokens.accept("=") => {
            let mut initialiser = Initialiser { tokens, name, ty, bytes: Vec::new() };
            initialiser.value(sizes)?;
            initial = initialiser.bytes;
        }
        Some(_) => {}
    }
    let size = sizes.map(|sizes| sizes[0]);
    Ok(Variable { name: name.to_owned(), space, align: ty.align, size, initial })
}

/// `[2][3]`: bytes of the whole array, of one of its rows, and so on down to the scalar; None where the first
/// dimension is `[]`. A vector is the last dimension.
fn sizes(tokens: &mut Tokens, ty: &Type) -> Result<Option<Vec<u64>>, ParseError> {
    let start = tokens.peek();
    let mut extents = Vec::new();
    let mut is_open = false;
    while tokens.accept("[") {
        if extents.is_empty() && !is_open && tokens.accept("]") {
            is_open = true;
            continue;
        }
        extents.push(tokens.integer("the size of a dimension")?);
        tokens.expect("]")?;
    }
    if ty.lanes > 1 {
        extents.push(ty.lanes);
    }
    if extents.len() > NESTING {
        return Err(start.error(format!("expected at most {NESTING} dimensions, got {}", extents.len())));
    }
    let sizes = byte_sizes(&extents, ty.width)
        .ok_or_else(|| start.error("expected a size that fits 64 bits, got a larger one".to_owned()))?;
    Ok(if is_open { None } else { Some(sizes) })
}

/// Bytes of what has all extents, all but the first, and so on down to none; None where they are too many.
fn byte_sizes(extents: &[u64], width: u64) -> Option<Vec<u64>> {
    let mut size = width;
    let mut sizes = vec![size];
    for extent in extents.iter().rev() {
        size = size.checked_mul(*extent)?;
        sizes.push(size);
    }
    sizes.reverse();
    Some(sizes)
}

/// Reads what stands behind `=`.
struct Initialiser<'t, 'a> {
    tokens: &'t mut Tokens<'a>,
    /// Of the variable.
    name: &'a str,
    ty: &'t Type<'a>,
    bytes: Vec<u8>,
}

impl<'a> Initialiser<'_, 'a> {
    /// A value of `sizes[0]` bytes: a scalar, or `{…}` of values of `sizes[1]` bytes.
    fn value(&mut self, sizes: &[u64]) -> Result<(), ParseError> {
        let [size, row, ..] = *sizes else { return self.scalar() };
        let open = self.tokens.peek();
        let start = self.bytes.len();
        self.tokens.expect("{")?;
        if self.tokens.accept("}") {
            return Ok(());
        }
        for rows in 1.. {
            self.value(&sizes[1..])?;
            let bytes = (self.bytes.len() - start) as u64;
            if bytes > size {
                return Err(open.error(format!("expected at most {size} bytes for `{}`, got more", self.name)));
            }
            if !self.tokens.accept(",") {
                break;
            }
            // Nothing is padded but the end, so that memory stays in proportion to the text.
            if bytes != row.saturating_mul(rows) {
                let message = format!("expected full rows for `{}` except for the last, got a short one", self.name);
                return Err(open.error(message));
            }
        }
        self.tokens.expect("}")
    }

    fn scalar(&mut self) -> Result<(), ParseError> {
        let negative = self.tokens.accept("-");
        let token = self.tokens.take();
        if let Some(symbol) = self.symbol(token) {
            let message = format!("the initialiser of `{}` has the address of `{symbol}`: not supported", self.name);
            return Err(token.error(message));
        }
        let bits = Literal::read(token.text).and_then(|literal| bits(self.ty, negative, literal));
        let bits = bits.ok_or_else(|| token.instead_of(&format!("a value of the type {}", self.ty.scalar)))?;
        self.bytes.extend_from_slice(&bits.to_le_bytes()[..self.ty.width as usize]);
        Ok(())
    }

    /// What the value beginning with `token` is an address of, if it is one: `symbol`, `generic(symbol)` or, for
    /// one byte of the address, `0xFF(symbol)`.
    fn symbol(&mut self, token: Token<'a>) -> Option<&'a str> {
        if self.tokens.accept("(") {
            return Some(self.tokens.take().text);
        }
        token.is_name().then_some(token.text)
    }
}

/// The low bits of a value, None where it is not one of the type.
fn bits(ty: &Type, negative: bool, literal: Literal) -> Option<i128> {
    match (literal, ty.scalar) {
        (Literal::Single(bits), ".f32" | ".b32") if !negative => Some(bits.into()),
        (Literal::Double(bits), ".f64" | ".b64") if !negative => Some(bits.into()),
        (Literal::Single(bits), ".f64") if !negative => Some(f64::from(f32::from_bits(bits)).to_bits().into()),
        (Literal::Double(bits), ".f32") if !negative => Some((f64::from_bits(bits) as f32).to_bits().into()),
        (Literal::Integer(_), ".f16" | ".bf16" | ".f16x2" | ".bf16x2" | ".f32" | ".f64") => None,
        (Literal::Integer(magnitude), _) => {
            let value = if negative { -i128::from(magnitude) } else { magnitude.into() };
            // Signed or unsigned: types do not tell how the bits are meant.
            let bits = 8 * ty.width.min(8);
            (-(1 << (bits - 1))..1 << bits).contains(&value).then_some(value)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn variable(declaration: &str) -> Variable {
        parse(&format!(".global {declaration};")).expect("PTX").variables.remove(0)
    }

    fn message(declaration: &str) -> String {
        parse(&format!(".global {declaration};")).expect_err("an error").to_string()
    }

    fn layout(declaration: &str) -> (u64, Option<u64>) {
        let variable = variable(declaration);
        (variable.align, variable.size)
    }

    fn initial(declaration: &str) -> Vec<u8> {
        variable(declaration).initial
    }

    #[test]
    fn sizes_and_alignments() {
        assert_eq!(layout(".u32 a"), (4, Some(4)));
        assert_eq!(layout(".b128 a"), (16, Some(16)));
        assert_eq!(layout(".align 16 .b8 a[5]"), (16, Some(5)));
        assert_eq!(layout(".f64 a[2][3][4]"), (8, Some(192)));
        assert_eq!(layout(".v4 .f32 a"), (16, Some(16)));
        assert_eq!(layout(".v2 .u16 a[3]"), (4, Some(12)));
        assert_eq!(layout(".attribute(.managed) .align 4 .f32 a"), (4, Some(4)));
    }

    #[test]
    fn integers_are_little_endian() {
        assert_eq!(initial(".u32 a = 0x01020304"), [4, 3, 2, 1]);
        assert_eq!(initial(".s16 a[3] = {-2, 3}"), [0xFE, 0xFF, 3, 0]);
        assert_eq!(initial(".b8 a[4] = {255, -128}"), [255, 128]);
        assert_eq!(initial(".b64 a = 18446744073709551615"), [255; 8]);
        assert_eq!(initial(".s64 a = -9223372036854775808"), i64::MIN.to_le_bytes());
        assert_eq!(initial(".b128 a = -1"), [255; 16]);
        assert_eq!(initial(".b32 a[3] = {}"), []);
        assert_eq!(initial(".b32 a"), []);
    }

    #[test]
    fn fractions() {
        assert_eq!(initial(".f32 a = 0f3F800000"), 1f32.to_le_bytes());
        assert_eq!(initial(".b32 a = 0f3F800000"), 1f32.to_le_bytes());
        assert_eq!(initial(".f64 a = 0d3FF0000000000000"), 1f64.to_le_bytes());
        assert_eq!(initial(".f32 a = 0d3FF0000000000000"), 1f32.to_le_bytes());
        assert_eq!(initial(".f64 a = 0f3F800000"), 1f64.to_le_bytes());
    }

    #[test]
    fn rows() {
        assert_eq!(initial(".b8 a[2][3] = {{1, 2, 3}, {4}}"), [1, 2, 3, 4]);
        assert_eq!(initial(".v2 .b8 a[2] = {{1, 2}, {3, 4}}"), [1, 2, 3, 4]);
    }

    #[test]
    fn values_that_do_not_fit() {
        assert_eq!(message(".b8 a = 256"), "line 1: expected a value of the type .b8, got `256`");
        assert_eq!(message(".b8 a = -129"), "line 1: expected a value of the type .b8, got `129`");
        assert_eq!(message(".f32 a = 1"), "line 1: expected a value of the type .f32, got `1`");
        assert_eq!(message(".f16 a = 1"), "line 1: expected a value of the type .f16, got `1`");
        assert_eq!(message(".u32 a = 0f3F800000"), "line 1: expected a value of the type .u32, got `0f3F800000`");
        assert_eq!(message(".b16 a[2] = {1, 2, 3}"), "line 1: expected at most 4 bytes for `a`, got more");
        assert_eq!(message(".b8 a[2][2] = {{1, 2, 3}}"), "line 1: expected at most 2 bytes for `a`, got more");
        assert_eq!(
            message(".b8 a[2][2] = {{1}, {2}}"),
            "line 1: expected full rows for `a` except for the last, got a short one"
        );
        assert_eq!(
            message(".b8 a[2][2] = {{}, {2}}"),
            "line 1: expected full rows for `a` except for the last, got a short one"
        );
        assert_eq!(message(".b8 a[2][2] = {{1, 2}, 3}"), "line 1: expected `{`, got `3`");
        assert_eq!(message(".b8 a[2] = {{1}}"), "line 1: expected a value of the type .b8, got `{`");
        assert_eq!(message(".b8 a[2] = {1,}"), "line 1: expected a value of the type .b8, got `}`");
        assert_eq!(message(".b8 a[2] = {1"), "line 1: expected `}`, got `;`");
    }

    #[test]
    fn addresses_are_refused_by_name() {
        for value in ["{f, 0}", "{generic(f), 0}", "{0xFF(f), 0}"] {
            let message = message(&format!(".b64 a[2] = {value}"));
            assert_eq!(message, "line 1: the initialiser of `a` has the address of `f`: not supported", "{value}");
        }
    }

    #[test]
    fn types_and_shapes_that_are_refused() {
        assert_eq!(message(".pred a"), "line 1: expected the type of a variable, got `.pred`");
        assert_eq!(message("a"), "line 1: expected the type of a variable, got `a`");
        assert_eq!(message(".align 3 .b8 a"), "line 1: expected a power of two as alignment, got `3`");
        assert_eq!(message(".align 0 .b8 a"), "line 1: expected a power of two as alignment, got `0`");
        assert_eq!(message(".b8 a[]"), "line 1: expected the size of `a`, got `[]`");
        assert_eq!(message(".b8 a[] = {1}"), "line 1: expected the size of `a`, got `[]`");
        assert_eq!(message(".b8 a[][]"), "line 1: expected the size of a dimension, got `]`");
        assert_eq!(message(".b8 a[2][]"), "line 1: expected the size of a dimension, got `]`");
        assert_eq!(message(".b8 a.b"), "line 1: expected the name of a variable, got `a.b`");
        assert_eq!(
            message(".b64 a[4294967296][4294967296]"),
            "line 1: expected a size that fits 64 bits, got a larger one"
        );
        assert_eq!(
            message(&format!(".b8 a{}", "[1]".repeat(NESTING + 1))),
            "line 1: expected at most 64 dimensions, got 65"
        );
        assert_eq!(message(".attribute(.managed .b8 a"), "line 1: expected `)`, got the end of the text");
    }

    #[test]
    fn empty_arrays() {
        assert_eq!(layout(".b8 a[0][4]"), (1, Some(0)));
        assert_eq!(message(".b8 a[2][0] = {{1}}"), "line 1: expected at most 0 bytes for `a`, got more");
    }
}
