//! Text to tokens, and the tokens in turn.

use super::ParseError;

/// The smallest piece of PTX.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token<'a> {
    pub kind: Kind,
    /// As written; empty at the end.
    pub text: &'a str,
    /// Line of the text, from 1.
    pub line: u32,
    /// Whether white space or a comment stands before it.
    pub spaced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name, a number, a directive or an opcode with its modifiers.
    Word,
    /// With its quotes.
    String,
    /// One character of punctuation.
    Mark,
    End,
}

impl Token<'_> {
    /// Whether it names a register, a variable, a label or a function.
    pub fn is_name(&self) -> bool {
        let mut bytes = self.text.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || b"_$%".contains(&byte));
        first && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_$".contains(&byte))
    }

    pub fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }

    /// The error of a text that has this token where something else is needed.
    pub fn instead_of(&self, expected: &str) -> ParseError {
        let got = match self.kind {
            Kind::End => "the end of the text".to_owned(),
            Kind::String => self.text.to_owned(),
            Kind::Word | Kind::Mark => format!("`{}`", self.text),
        };
        self.error(format!("expected {expected}, got {got}"))
    }

    pub fn error(&self, message: String) -> ParseError {
        ParseError { line: self.line, message }
    }
}

/// A number as written in PTX.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Literal {
    Integer(u64),
    /// The bits of `0f…`.
    Single(u32),
    /// The bits of `0d…`.
    Double(u64),
}

impl Literal {
    /// None for what is no number, is too large, or is a decimal fraction: the width of `1.5` depends on the
    /// instruction, and compilers write `0f3FC00000`.
    pub fn read(word: &str) -> Option<Literal> {
        match word.split_at_checked(2) {
            Some(("0f" | "0F", digits)) if digits.len() == 8 => {
                u32::from_str_radix(digits, 16).ok().map(Literal::Single)
            }
            Some(("0d" | "0D", digits)) if digits.len() == 16 => {
                u64::from_str_radix(digits, 16).ok().map(Literal::Double)
            }
            _ => integer(word).map(Literal::Integer),
        }
    }
}

fn integer(word: &str) -> Option<u64> {
    let word = word.strip_suffix('U').unwrap_or(word);
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&word[2..], 16),
        [b'0', b'b' | b'B', ..] => (&word[2..], 2),
        [b'0', _, ..] => (&word[1..], 8),
        _ => (word, 10),
    };
    u64::from_str_radix(digits, radix).ok()
}

/// The tokens of a text, taken one after the other.
pub struct Tokens<'a> {
    /// Ends with the only token of [`Kind::End`], which is never passed.
    tokens: Vec<Token<'a>>,
    position: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(text: &'a str) -> Result<Self, ParseError> {
        let mut lexer = Lexer { rest: text, line: 1 };
        let mut tokens = Vec::new();
        loop {
            let token = lexer.token()?;
            tokens.push(token);
            if token.kind == Kind::End {
                return Ok(Tokens { tokens, position: 0 });
            }
        }
    }

    pub fn peek(&self) -> Token<'a> {
        self.tokens[self.position]
    }

    pub fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        if token.kind != Kind::End {
            self.position += 1;
        }
        token
    }

    /// Index of the next token.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The tokens that were taken since the position `start`.
    pub fn taken_since(&self, start: usize) -> &[Token<'a>] {
        &self.tokens[start..self.position]
    }

    /// The tokens to come.
    pub fn rest(&self) -> &[Token<'a>] {
        &self.tokens[self.position..]
    }

    pub fn next_is(&self, text: &str) -> bool {
        self.peek().text == text
    }

    /// Takes the next token if it is `text`.
    pub fn accept(&mut self, text: &str) -> bool {
        let found = self.next_is(text);
        if found {
            self.take();
        }
        found
    }

    pub fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        if self.accept(text) { Ok(()) } else { Err(self.peek().instead_of(&format!("`{text}`"))) }
    }

    pub fn word(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        self.token(expected, |token| token.kind == Kind::Word)
    }

    pub fn name(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        self.token(expected, |token| token.is_name())
    }

    /// A string without its quotes.
    pub fn string(&mut self, expected: &str) -> Result<&'a str, ParseError> {
        Ok(self.token(expected, |token| token.kind == Kind::String)?.trim_matches('"'))
    }

    fn token(&mut self, expected: &str, is_expected: fn(&Token) -> bool) -> Result<&'a str, ParseError> {
        let token = self.take();
        if is_expected(&token) { Ok(token.text) } else { Err(token.instead_of(expected)) }
    }

    /// An integer that fits `T`.
    pub fn integer<T: TryFrom<u64>>(&mut self, expected: &str) -> Result<T, ParseError> {
        let token = self.take();
        let value = integer(token.text).and_then(|value| T::try_from(value).ok());
        value.ok_or_else(|| token.instead_of(expected))
    }
}

struct Lexer<'a> {
    rest: &'a str,
    /// Line on which `rest` begins.
    line: u32,
}

impl<'a> Lexer<'a> {
    fn token(&mut self) -> Result<Token<'a>, ParseError> {
        let before = self.rest.len();
        self.skip_blank()?;
        let spaced = self.rest.len() < before;
        let line = self.line;
        let (kind, length) = match self.rest.as_bytes().first() {
            None => (Kind::End, 0),
            Some(b'"') => (Kind::String, self.string_length()?),
            Some(b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>') => (Kind::Mark, 1),
            Some(b',' | b';' | b':' | b'+' | b'-' | b'!' | b'|' | b'@' | b'=') => (Kind::Mark, 1),
            Some(_) => match word_length(self.rest) {
                0 => return Err(self.foreign_character()),
                length => (Kind::Word, length),
            },
        };
        Ok(Token { kind, text: self.skip(length), line, spaced })
    }

    fn skip_blank(&mut self) -> Result<(), ParseError> {
        loop {
            let blank = self.rest.len() - self.rest.trim_ascii_start().len();
            self.skip(blank);
            if self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let end = comment.find("*/");
                let end = end.ok_or_else(|| self.error("expected `*/`, got the end of the text".to_owned()))?;
                self.skip("/*".len() + end + "*/".len());
            } else {
                return Ok(());
            }
        }
    }

    /// Of the string that begins here, quotes included.
    fn string_length(&self) -> Result<usize, ParseError> {
        let end = self.rest[1..].find(['"', '\n']).map(|end| end + 1);
        match end {
            Some(end) if self.rest[end..].starts_with('"') => Ok(end + 1),
            _ => Err(self.error("expected `\"`, got the end of the line".to_owned())),
        }
    }

    fn skip(&mut self, length: usize) -> &'a str {
        let (skipped, rest) = self.rest.split_at(length);
        let lines = skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.rest = rest;
        skipped
    }

    fn foreign_character(&self) -> ParseError {
        let character = self.rest.chars().next().unwrap_or_default();
        self.error(format!("expected PTX, got the character {character:?}"))
    }

    fn error(&self, message: String) -> ParseError {
        ParseError { line: self.line, message }
    }
}

/// Of the word that begins here, 0 if none does. A directive ends before the next dot, as in `.reg.pred`; the
/// modifiers of an opcode belong to it, those with `::` too.
fn word_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_directive = text.starts_with('.');
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$".contains(byte);
    let mut length = 0;
    loop {
        length += match &bytes[length..] {
            [byte, ..] if is_part(byte) => 1,
            [b'%', ..] if length == 0 => 1,
            [b'.', ..] if length == 0 || !is_directive => 1,
            [b':', b':', byte, ..] if length > 0 && is_part(byte) => 3,
            _ => return length,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        let tokens = Tokens::new(text).expect("tokens");
        tokens.tokens.iter().map(|token| token.text).collect()
    }

    fn message(text: &str) -> String {
        Tokens::new(text).err().expect("an error").to_string()
    }

    #[test]
    fn words_and_marks() {
        assert_eq!(
            texts("ld.global.L2::128B.f32 %f1, [%rd1+-8];"),
            ["ld.global.L2::128B.f32", "%f1", ",", "[", "%rd1", "+", "-", "8", "]", ";", ""]
        );
        assert_eq!(texts("$L__BB0_1: _|%p1"), ["$L__BB0_1", ":", "_", "|", "%p1", ""]);
        assert_eq!(texts(".reg.pred %p<2>;"), [".reg", ".pred", "%p", "<", "2", ">", ";", ""]);
        assert_eq!(texts("%tid.x 9.0 0f3F800000"), ["%tid.x", "9.0", "0f3F800000", ""]);
    }

    #[test]
    fn lines_and_blanks() {
        let tokens = Tokens::new("a// b\n/* c\n\n */d \"e\"").expect("tokens");
        let found: Vec<_> = tokens.tokens.iter().map(|token| (token.text, token.line, token.spaced)).collect();
        assert_eq!(found, [("a", 1, false), ("d", 4, true), ("\"e\"", 4, true), ("", 4, false)]);
    }

    #[test]
    fn what_does_not_end() {
        assert_eq!(message("a\n/* b\n"), "line 2: expected `*/`, got the end of the text");
        assert_eq!(message("a\n\"b\n\""), "line 2: expected `\"`, got the end of the line");
        assert_eq!(message("\""), "line 1: expected `\"`, got the end of the line");
    }

    #[test]
    fn foreign_characters() {
        assert_eq!(message("a\n ü"), "line 2: expected PTX, got the character 'ü'");
        assert_eq!(texts("// ü\n\"ü\""), ["\"ü\"", ""]);
    }

    #[test]
    fn literals() {
        for (word, value) in
            [("0", 0), ("42", 42), ("42U", 42), ("0x2A", 42), ("0X2aU", 42), ("052", 42), ("0b101010", 42)]
        {
            assert_eq!(Literal::read(word), Some(Literal::Integer(value)), "{word}");
        }
        assert_eq!(Literal::read("18446744073709551615"), Some(Literal::Integer(u64::MAX)));
        assert_eq!(Literal::read("0f3F800000"), Some(Literal::Single(1f32.to_bits())));
        assert_eq!(Literal::read("0D3ff0000000000000"), Some(Literal::Double(1f64.to_bits())));
        for word in ["", "U", "08", "0x", "1.5", "0f3F8", "0d3F800000", "18446744073709551616", "12L", "0b2", "x"] {
            assert_eq!(Literal::read(word), None, "{word}");
        }
    }
}
