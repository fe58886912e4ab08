//! Finds the compiler.

use std::env::{self, consts::EXE_SUFFIX};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first whose PTX and compression of images the kernels count on.
const OLDEST: Release = (12, 8);

/// Of a toolkit: major and minor.
pub type Release = (u32, u32);

pub struct Nvcc {
    pub path: PathBuf,
    /// What `--version` prints of it and of the host compiler.
    pub versions: String,
    /// The host compiler, where it is not nvcc's own choice.
    pub host: Option<OsString>,
}

impl Nvcc {
    /// The first that is new enough. `scripts/find-nvcc.sh` searches in the same order.
    pub fn find(variable: impl Fn(&str) -> Option<OsString>, root: &Path) -> Result<Self, String> {
        let mut too_old = Vec::new();
        for path in candidates(&variable, root) {
            let Some(version) = version_of(&path) else { continue };
            let Some(release) = parse_release(&version) else { continue };
            if release < OLDEST {
                too_old.push((path, release));
                continue;
            }
            let host = host_compiler(&variable);
            let host_version = version_of(host.as_deref().unwrap_or("gcc".as_ref()).as_ref()).unwrap_or_default();
            return Ok(Self { path, versions: version + &host_version, host });
        }
        Err(missing(&too_old))
    }
}

/// Where an nvcc may be, best first.
pub fn candidates(variable: impl Fn(&str) -> Option<OsString>, root: &Path) -> Vec<PathBuf> {
    let program = format!("nvcc{EXE_SUFFIX}");
    let in_toolkit = |toolkit: &Path| toolkit.join("bin").join(&program);
    let mut paths = Vec::from_iter(variable("NVCC").map(PathBuf::from));
    paths.extend(["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| variable(name)).map(|it| in_toolkit(it.as_ref())));
    let search_path = variable("PATH").unwrap_or_default();
    let folders = env::split_paths(&search_path).filter(|folder| !folder.as_os_str().is_empty());
    paths.extend(folders.map(|folder| folder.join(&program)));
    paths.push(in_toolkit("/usr/local/cuda".as_ref()));
    paths.push(in_toolkit(&root.join(".cuda/nvidia/cu13")));
    paths
}

/// `NVCC_CCBIN`, else `CXX`, unless that is a command of several words, which nvcc cannot run.
pub fn host_compiler(variable: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    let one_word = |command: &OsString| !command.to_string_lossy().contains(char::is_whitespace);
    variable("NVCC_CCBIN").or_else(|| variable("CXX").filter(one_word))
}

/// Of `Cuda compilation tools, release 13.0, V13.0.88`.
pub fn parse_release(version: &str) -> Option<Release> {
    let (_, behind) = version.split_once(", release ")?;
    let (release, _) = behind.split_once(',')?;
    let (major, minor) = release.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What to do where no nvcc will do.
pub fn missing(too_old: &[(PathBuf, Release)]) -> String {
    let mut message = format!(
        "the feature `cuda` needs nvcc {}.{} or later, and none was found. Any of these gives it one:
  - install a CUDA toolkit, so that nvcc is in PATH or in /usr/local/cuda/bin
  - set NVCC to an nvcc, or CUDA_HOME to a toolkit, that lies elsewhere
  - run scripts/cuda-toolchain.sh in a checkout of mivc: it puts a compiler into .cuda/, without root\n",
        OLDEST.0, OLDEST.1
    );
    for (path, (major, minor)) in too_old {
        message += &format!("too old: {} ({major}.{minor})\n", path.display());
    }
    message
}

fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
