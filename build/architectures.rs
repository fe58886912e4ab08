//! What the kernels are compiled for.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

const DEFAULT: &str = "80,86,89,90,100,120";
const OLDEST: u32 = 80;

/// A compute capability as nvcc names it: `80`, or `90a` with what no other architecture has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Architecture {
    number: u32,
    suffix: Option<char>,
}

/// What the environment asks for: ascending, at least one, none twice.
///
/// `MIVC_CUDA_ARCHS` is a list; `CUDA_COMPUTE_CAP`, which other crates read, is one architecture.
pub fn requested(variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<Architecture>, String> {
    let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
    if let Some(list) = text("MIVC_CUDA_ARCHS") {
        return parse_list(&list).map_err(|error| format!("MIVC_CUDA_ARCHS is \"{list}\": {error}"));
    }
    if let Some(single) = text("CUDA_COMPUTE_CAP") {
        let architecture = single.parse().map_err(|error| format!("CUDA_COMPUTE_CAP is \"{single}\": {error}"))?;
        return Ok(vec![architecture]);
    }
    parse_list(DEFAULT)
}

fn parse_list(list: &str) -> Result<Vec<Architecture>, String> {
    let mut architectures = list.split(',').map(|item| item.trim().parse()).collect::<Result<Vec<_>, _>>()?;
    architectures.sort();
    architectures.dedup();
    Ok(architectures)
}

/// nvcc's arguments: machine code for each, and PTX for the lowest.
pub fn arguments(architectures: &[Architecture]) -> Vec<String> {
    let machine_code = architectures.iter().map(|it| format!("-gencode=arch=compute_{it},code=sm_{it}"));
    let lowest = architectures[0];
    machine_code.chain([format!("-gencode=arch=compute_{lowest},code=compute_{lowest}")]).collect()
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix(['a', 'f']).unwrap_or(text);
        let suffix = text[digits.len()..].chars().next();
        let number = digits.parse().map_err(|_| format!("\"{text}\" is no architecture such as 80 or 90a"))?;
        if number < OLDEST {
            return Err(format!("architecture {text} is too old, the kernels need {OLDEST} or later"));
        }
        Ok(Self { number, suffix })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, self.suffix.map(String::from).unwrap_or_default())
    }
}
