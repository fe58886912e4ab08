//! Compiles kernels, several at once, and only those that are not up to date.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::SystemTime;

use crate::architectures::{self, Architecture};
use crate::nvcc::Nvcc;

/// Compressed, an image is a fifth in size: line numbers are most of it.
const FLAGS: [&str; 8] =
    ["-std=c++17", "-O3", "-lineinfo", "-fatbin", "-Xfatbin=-compress-all", "-Xptxas=-v", "-MD", "--keep"];

/// A `.cu` and what is made of it, files beside each other.
pub struct Kernel {
    pub name: String,
    source: PathBuf,
    folder: PathBuf,
    architectures: Vec<Architecture>,
    /// Whether it is for these alone.
    pub is_special: bool,
}

/// Compiles those that are not up to date, at most `jobs` at once.
pub fn compile(kernels: &[Kernel], nvcc: &Nvcc, jobs: usize) -> Result<(), String> {
    let outdated: Vec<_> = kernels.iter().filter(|kernel| !kernel.is_current(nvcc)).collect();
    let queue = Mutex::new(outdated.iter());
    let next = || queue.lock().expect("no compilation panics").next();
    let work = || {
        while let Some(kernel) = next() {
            kernel.compile(nvcc)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.min(outdated.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no compilation panics"))
    })
}

impl Kernel {
    /// For all of these, and by its PTX for later ones.
    pub fn new(source: PathBuf, folder: &Path, architectures: &[Architecture]) -> Self {
        let (name, folder, architectures) = (stem(&source), folder.to_owned(), architectures.to_vec());
        Self { name, source, folder, architectures, is_special: false }
    }

    /// The same, by a name that ends with that of its folder.
    pub fn of_folder(source: PathBuf, folder: &Path, architectures: &[Architecture]) -> Self {
        let of_folder = source.parent().map(stem).unwrap_or_default();
        let name = format!("{}_{of_folder}", stem(&source));
        Self { name, ..Self::new(source, folder, architectures) }
    }

    /// For one architecture alone; named as of its folder.
    pub fn of_architecture(source: PathBuf, folder: &Path, architecture: &str) -> Self {
        let architectures = [architecture.parse().expect("an architecture")];
        Self { is_special: true, ..Self::of_folder(source, folder, &architectures) }
    }

    pub fn architectures(&self) -> &[Architecture] {
        &self.architectures
    }

    /// Machine code for each architecture and PTX for the lowest.
    pub fn fatbin(&self) -> PathBuf {
        self.file("fatbin")
    }

    /// PTX for the lowest architecture, of the same compilation.
    pub fn ptx(&self) -> PathBuf {
        self.file("ptx")
    }

    /// What ptxas says of each function: registers, stack, spills.
    fn report(&self) -> PathBuf {
        self.file("ptxas")
    }

    /// The headers, as a rule for make.
    fn rule(&self) -> PathBuf {
        self.file("d")
    }

    fn fingerprint(&self) -> PathBuf {
        self.file("fingerprint")
    }

    /// The folder of what nvcc makes on the way.
    fn kept(&self) -> PathBuf {
        self.file("kept")
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }

    fn is_current(&self, nvcc: &Nvcc) -> bool {
        let current = || {
            let now = self.fingerprint_now(nvcc, &self.prerequisites()?)?;
            Ok::<_, io::Error>(fs::read_to_string(self.fingerprint())? == now)
        };
        current().unwrap_or(false)
    }

    fn compile(&self, nvcc: &Nvcc) -> Result<(), String> {
        let run = || {
            // Should this be interrupted, what is left of it is not up to date.
            fs::write(self.fingerprint(), "")?;
            fs::create_dir_all(self.kept())?;
            let started = SystemTime::now();
            let output = Command::new(&nvcc.path).args(self.arguments(nvcc)).output()?;
            if !output.status.success() {
                return Err(io::Error::other(String::from_utf8_lossy(&output.stderr)));
            }
            fs::write(self.report(), output.stderr)?;
            fs::rename(self.kept_ptx(), self.ptx())?;
            fs::remove_dir_all(self.kept())?;

            // A file that is saved meanwhile may be or not be in what was compiled.
            let prerequisites = self.prerequisites()?;
            if newest(&prerequisites)? < started {
                fs::write(self.fingerprint(), self.fingerprint_now(nvcc, &prerequisites)?)?;
            }
            Ok(())
        };
        run().map_err(|error| format!("{} {}: {error}", nvcc.path.display(), self.source.display()))
    }

    fn arguments(&self, nvcc: &Nvcc) -> Vec<OsString> {
        let mut arguments = Vec::from(FLAGS.map(OsString::from));
        arguments.extend(architectures::arguments(&self.architectures).into_iter().map(OsString::from));
        arguments.extend(nvcc.host.iter().flat_map(|host| ["-ccbin".into(), host.clone()]));
        arguments.extend(["-MF".into(), self.rule().into(), "--keep-dir".into(), self.kept().into()]);
        arguments.extend(["-o".into(), self.fatbin().into(), self.source.clone().into()]);
        arguments
    }

    /// Where nvcc keeps the PTX: it names the architecture where there are several.
    fn kept_ptx(&self) -> PathBuf {
        let source = stem(&self.source);
        self.kept().join(match &self.architectures[..] {
            [_] => format!("{source}.ptx"),
            [lowest, ..] => format!("{source}.compute_{lowest}.ptx"),
            [] => unreachable!("there is one"),
        })
    }

    /// The source and every header that it includes.
    fn prerequisites(&self) -> io::Result<Vec<PathBuf>> {
        parse_rule(&fs::read_to_string(self.rule())?).ok_or(io::ErrorKind::InvalidData.into())
    }

    fn fingerprint_now(&self, nvcc: &Nvcc, files: &[PathBuf]) -> io::Result<String> {
        fingerprint((&nvcc.path, &nvcc.versions, self.arguments(nvcc)), files)
    }
}

/// A file's or folder's name, without what is behind the dot.
fn stem(path: impl AsRef<Path>) -> String {
    path.as_ref().file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The prerequisites of a rule for make.
pub fn parse_rule(rule: &str) -> Option<Vec<PathBuf>> {
    let (_target, prerequisites) = rule.split_once(" : ")?;
    let words = prerequisites.replace("\\\n", " ").replace("\\ ", "\0");
    Some(words.split_whitespace().map(|word| word.replace('\0', " ").into()).collect())
}

/// Of what was done, and of the names and contents of files.
pub fn fingerprint(done: impl Hash, files: &[PathBuf]) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    done.hash(&mut hasher);
    for file in files {
        (file, fs::read(file)?).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn newest(files: &[PathBuf]) -> io::Result<SystemTime> {
    files.iter().try_fold(SystemTime::UNIX_EPOCH, |newest, file| Ok(newest.max(fs::metadata(file)?.modified()?)))
}
