//! `mivc`, the command-line tool: pools a feature file.
//!
//! Exit status 0, or 2 with one line on stderr that says what is wrong.

#![warn(clippy::undocumented_unsafe_blocks)]

mod arguments;
mod cut;
mod fusion;
mod input;
mod output;
mod plot;
mod ranking;
mod size;
mod table;
mod thumbnail;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Cli, Command, PoolArguments};
use crate::input::{Access, Input, MappedFile};
use crate::output::Target;

/// Messages are for people and name their file or option, so the errors need no type of their own.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let Cli { command: Command::Pool(arguments) } = Cli::parse();
    match pool(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("error", &error.to_string());
            ExitCode::from(2)
        }
    }
}

fn pool(arguments: &PoolArguments) -> Result<()> {
    arguments.check()?;
    let file = MappedFile::open(&arguments.input)?;
    let access = if arguments.memory.is_some() { Access::InRuns } else { Access::Mapped };
    let input = Input::read(&file, access).map_err(about(&arguments.input))?;
    let fusion = fusion::load(arguments, input.dim)?;
    let pooled_target = Target::check("-o", arguments.output.as_deref(), &arguments.sources())?;
    let plot_target = Target::check("--plot", arguments.plot.as_deref(), &arguments.sources())?;
    output::expect_distinct(&pooled_target, &plot_target)?;
    fusion.expect_memory(&input)?;
    let rows_that_fit = fusion.rows_that_fit(&input, arguments.memory)?;
    for note in input.notes.iter().chain(&fusion.notes) {
        say("note", note);
    }

    let pooler = fusion.pooler(arguments.device()?, arguments.order())?;
    let pooled = fusion::pool(&pooler, arguments.pooling, &input, rows_that_fit)?;

    // Nothing takes its final name before everything is written and the table is out.
    let mut staged = Vec::new();
    if let Some(target) = &pooled_target {
        staged.push(target.stage(|path| output::write_pooled(path, arguments.pooling, &pooled))?);
    }
    if let (Some(target), Some(weights)) = (&plot_target, &pooled.weights) {
        let figure = plot::Figure::new(arguments.pooling, &input, weights);
        staged.push(target.stage(|path| figure.draw(path))?);
    }
    print(&table::render(arguments, &input, &pooled))?;
    output::publish(staged)
}

/// Writes to stdout. A reader that went away, as `head` does, has read enough: that is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("standard output: {error}").into()),
        _ => Ok(()),
    }
}

/// Writes one line to stderr, whatever a file put into the message. Nobody is left to hear of a failure.
fn say(kind: &str, message: &str) {
    let line: String = message.chars().flat_map(printable).collect();
    let _ = writeln!(io::stderr(), "{kind}: {line}");
}

fn printable(char: char) -> Vec<char> {
    if char.is_control() { char.escape_default().collect() } else { vec![char] }
}

/// Puts the file's name in front of an error.
fn about<E: Display>(path: &Path) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("{}: {error}", path.display()).into()
}
