//! Writes `src/launch/abi.rs`, the Rust of `kernels/abi.h`. `scripts/bindings.sh` runs it with libclang from PyPI.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const BEFORE: &str = "// Made from kernels/abi.h by scripts/bindings.sh; not to be edited.\n\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn generate() -> Result<String, bindgen::BindgenError> {
    let header = repository().join("kernels/abi.h");
    let bindings = bindgen::Builder::default()
        .header(header.to_string_lossy())
        .allowlist_item("(Mivc|MIVC_).*")
        .layout_tests(false)
        .merge_extern_blocks(true)
        .disable_header_comment()
        .generate_comments(false)
        .formatter(bindgen::Formatter::Rustfmt)
        .rustfmt_configuration_file(Some(repository().join("rustfmt.toml")))
        .generate()?;
    Ok(format!("{BEFORE}{bindings}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    fs::write(repository().join("src/launch/abi.rs"), generate()?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_bindings_are_those_of_the_header() {
        let committed = fs::read_to_string(repository().join("src/launch/abi.rs")).unwrap();
        assert_eq!(generate().unwrap(), committed, "run scripts/bindings.sh");
    }
}
