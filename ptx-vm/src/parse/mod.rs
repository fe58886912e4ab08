//! PTX text to an abstract syntax tree.
//!
//! What a directive means for running a kernel is kept; what only helps a compiler or a debugger is skipped;
//! anything else is refused by name. Instructions are taken apart but not understood: that is the decoder's work.

pub mod ast;
mod body;
mod lexer;
mod module;
mod variable;

/// Blocks within blocks, and dimensions of an array. It bounds the recursion and the work on a block's labels.
const NESTING: usize = 64;

/// A text that is not PTX, or PTX that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Line of the text, from 1.
    pub line: u32,
    /// What was expected and what came.
    pub message: String,
}

/// Reads a whole PTX module.
pub fn parse(text: &str) -> Result<ast::Module, ParseError> {
    module::module(&mut lexer::Tokens::new(text)?)
}
