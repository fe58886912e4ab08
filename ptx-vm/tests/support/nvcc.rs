//! PTX of the kernels in `tests/kernels/`, compiled once per change.
//!
//! Trials compile what they need; those that run at once compile at once, and those that need the same wait for
//! one of them. What is compiled is kept in `target/ptx-vm-kernels/`.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

const FLAGS: [&str; 4] = ["-std=c++17", "-O3", "-lineinfo", "-ptx"];

/// Files whose name says so use what only Hopper has.
fn architecture(file: &str) -> &'static str {
    if file.starts_with("hopper") { "-arch=compute_90a" } else { "-arch=compute_80" }
}

type Ptx = Result<String, String>;

/// The PTX of a file in `tests/kernels/`.
pub fn compile(file: &str, defines: &[(&str, i32)]) -> Ptx {
    static COMPILED: LazyLock<Mutex<HashMap<PathBuf, Arc<OnceLock<Ptx>>>>> = LazyLock::new(Mutex::default);

    let compiler = COMPILER.as_ref().ok_or("no nvcc of 12.8 or later: run scripts/cuda-toolchain.sh")?;
    let defines: Vec<_> = defines.iter().map(|(name, value)| format!("-D{name}={value}")).collect();
    let fingerprint = compiler.fingerprint(file, &defines).map_err(|error| format!("{file}: {error}"))?;
    let kept = kept().join(format!("{file}.{fingerprint:016x}.ptx"));

    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let ptx = Arc::clone(compiled.entry(kept.clone()).or_default());
    drop(compiled);
    ptx.get_or_init(|| compiler.compile(file, &defines, &kept)).clone()
}

/// The text of a file in `tests/kernels/`.
pub fn source(file: &str) -> io::Result<String> {
    fs::read_to_string(kernels().join(file))
}

/// What `scripts/find-nvcc.sh` finds.
struct Compiler {
    path: PathBuf,
    version: Vec<u8>,
}

static COMPILER: LazyLock<Option<Compiler>> = LazyLock::new(|| {
    let script = package().join("../scripts/find-nvcc.sh");
    let found = Command::new(script).output().ok().filter(|output| output.status.success())?;
    let path = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim_end());
    let version = Command::new(&path).arg("--version").output().ok()?.stdout;
    Some(Compiler { path, version })
});

impl Compiler {
    /// Of everything that the PTX depends on: the source, all headers beside it, the flags, the compiler, and
    /// the folder, whose name the PTX holds.
    fn fingerprint(&self, file: &str, defines: &[String]) -> io::Result<u64> {
        let mut hasher = DefaultHasher::new();
        (&self.path, &self.version, FLAGS, architecture(file), defines, kernels(), source(file)?).hash(&mut hasher);
        for header in headers()? {
            (&header, source(&header)?).hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    fn compile(&self, file: &str, defines: &[String], kept: &Path) -> Ptx {
        if let Ok(ptx) = fs::read_to_string(kept) {
            return Ok(ptx);
        }
        // It gets its name when it is complete: other test programs may want it too.
        let partial = kept.with_extension(format!("{}.partial", process::id()));
        let run = || {
            fs::create_dir_all(self::kept())?;
            let output = Command::new(&self.path)
                .args(FLAGS)
                .arg(architecture(file))
                .args(defines)
                .arg(kernels().join(file))
                .arg("-o")
                .arg(&partial)
                .output()?;
            if !output.status.success() {
                return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
            }
            fs::rename(&partial, kept)?;
            fs::read_to_string(kept)
        };
        run().map_err(|error| format!("{} {file} {}: {error}", self.path.display(), defines.join(" ")))
    }
}

fn headers() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(kernels())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name.ends_with(".cuh"));
    names.sort();
    Ok(names)
}

fn kernels() -> PathBuf {
    package().join("tests/kernels")
}

/// Beside the folder that Cargo gives tests for their files, which is `target/tmp/`.
fn kept() -> PathBuf {
    folder("CARGO_TARGET_TMPDIR", env!("CARGO_TARGET_TMPDIR")).with_file_name("ptx-vm-kernels")
}

fn package() -> PathBuf {
    folder("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"))
}

/// As the environment has it where the program runs, which need not be where it was compiled.
fn folder(variable: &str, compiled: &str) -> PathBuf {
    env::var_os(variable).map_or_else(|| compiled.into(), PathBuf::from)
}
