//! With the feature `cuda`, compiles `kernels/*.cu` into images that `src/cuda/image.rs` embeds; without it, nothing.
//!
//! 1. `build/nvcc.rs` finds the compiler.
//! 2. `build/architectures.rs` reads what to compile for.
//! 3. `build/kernel.rs` compiles the kernels that are not up to date.
//! 4. `build/images.rs` writes what is embedded, as Rust.

#[path = "build/architectures.rs"]
mod architectures;
#[path = "build/images.rs"]
mod images;
#[path = "build/kernel.rs"]
mod kernel;
#[path = "build/nvcc.rs"]
mod nvcc;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kernel::Kernel;
use nvcc::Nvcc;

const VARIABLES: [&str; 9] =
    ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH", "NVCC_CCBIN", "CXX", "MIVC_CUDA_ARCHS", "CUDA_COMPUTE_CAP", "DOCS_RS"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=kernels");
    for name in VARIABLES {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(error) = build() {
        for line in error.to_string().lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = out.join("kernels");
    fs::create_dir_all(&folder)?;
    println!("cargo::rustc-env=MIVC_KERNELS={}", folder.display());

    let architectures = architectures::requested(variable)?;
    let mut kernels = Vec::new();
    // docs.rs has no compiler, and runs nothing.
    if variable("DOCS_RS").is_none() {
        let nvcc = Nvcc::find(variable, &root)?;
        // NVCC may be a name that is in PATH; Cargo would take it for a missing file.
        if nvcc.path.is_file() {
            println!("cargo::rerun-if-changed={}", nvcc.path.display());
        }
        let portable = sources(&root.join("kernels"))?;
        kernels.extend(portable.into_iter().map(|source| Kernel::new(source, &folder, &architectures)));
        for of_folder in ["kernels/backward", "kernels/exact"] {
            let of_folder = sources(&root.join(of_folder))?;
            kernels.extend(of_folder.into_iter().map(|source| Kernel::of_folder(source, &folder, &architectures)));
        }
        // An architecture's own, whatever else is asked for: on others they would not compile.
        let of_hopper = sources(&root.join("kernels/sm90"))?;
        kernels.extend(of_hopper.into_iter().map(|source| Kernel::of_architecture(source, &folder, "90a")));
        kernel::compile(&kernels, &nvcc, env::var("NUM_JOBS")?.parse()?)?;
    }
    fs::write(out.join("images.rs"), images::source(&kernels, &architectures)?)?;
    Ok(())
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cu"));
    paths.sort();
    Ok(paths)
}
