//! What the compiler made of the kernels, for each architecture that they were built for.
//!
//! What `cuobjdump` must read is ignored, and counted so, where there is none in `PATH` or in `.cuda/`
//! (`scripts/cuda-toolchain.sh --disassembler`).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::LazyLock;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

struct Image {
    name: &'static str,
    #[expect(dead_code, reason = "cuobjdump reads the file")]
    fatbin: &'static [u8],
    kernels: &'static [&'static str],
    architectures: &'static [&'static str],
    /// Whether it is for these architectures alone.
    is_special: bool,
}

include!(concat!(env!("OUT_DIR"), "/images.rs"));

fn main() -> ExitCode {
    assert!(ARCHITECTURES.contains(&PTX_ARCHITECTURE));
    let mut trials = Vec::new();
    for image in IMAGES {
        trials.push(Trial::test(format!("{}::no_warnings", image.name), || no_warnings(image)));
        for architecture in image.architectures {
            let name = |property| format!("{}::sm_{architecture}::{property}", image.name);
            trials.push(Trial::test(name("nothing_in_local_memory"), || nothing_in_local_memory(image, architecture)));
            let disassembled = |property, test: fn(&Image, &str) -> Result<Completion, Failed>| {
                Trial::ignorable_test(name(property), move || test(image, architecture))
            };
            if image.is_special {
                trials.push(disassembled("products_of_warpgroups_and_copies_of_boxes", products_and_copies_of_hopper));
                continue;
            }
            if vector_kernels(image).next().is_some() {
                trials.push(disassembled("loads_of_16_bytes", loads_of_16_bytes));
            }
            if matches!(image.name, "scores" | "attention_pool") {
                trials.push(disassembled("matrix_units_and_copies_of_16_bytes", matrix_units_and_copies_of_16_bytes));
            }
            if image.name == "weighted_sum_exact" {
                trials.push(disassembled("copies_of_16_bytes", copies_of_16_bytes));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn no_warnings(image: &Image) -> Result<(), Failed> {
    let report = report(image)?;
    let is_warning = |line: &&str| line.contains("warning") || line.contains("Performance Loss");
    none(report.lines().filter(is_warning).map(str::to_owned))
}

/// Neither arrays in local memory nor registers that were spilled there.
fn nothing_in_local_memory(image: &Image, architecture: &str) -> Result<(), Failed> {
    let report = report(image)?;
    let of_architecture = format!("for 'sm_{architecture}'");
    // The report of a kernel: a head, then functions, its own and those it calls, and what they use.
    let kernels: Vec<_> = report
        .split("ptxas info    : Compiling entry function ")
        .filter(|kernel| kernel.lines().next().is_some_and(|head| head.ends_with(&of_architecture)))
        .collect();
    if kernels.len() != image.kernels.len() {
        return Err(format!("{} kernels were compiled, ptxas reports {}", image.kernels.len(), kernels.len()).into());
    }
    let uses = kernels.iter().flat_map(|kernel| {
        let head = kernel.lines().next().unwrap_or_default();
        let frames = kernel.lines().filter(|line| line.contains("bytes stack frame"));
        frames.map(move |frame| format!("{head}: {}", frame.trim()))
    });
    none(uses.filter(|used| !used.ends_with(": 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")))
}

/// Kernels for aligned rows read them 16 bytes at once.
fn loads_of_16_bytes(image: &Image, architecture: &str) -> Result<Completion, Failed> {
    let kernels: Vec<_> = vector_kernels(image).collect();
    every_kernel_has(image, architecture, &kernels, |line| line.contains("LDG.") && line.contains(".128"))
}

/// All that scores but for plain f32 are products of the matrix units, and all copy 16 bytes at once past the
/// registers.
fn matrix_units_and_copies_of_16_bytes(image: &Image, architecture: &str) -> Result<Completion, Failed> {
    let is_plain = |kernel: &str| kernel.contains("_f32_") && !kernel.contains("_split_");
    let products: Vec<_> = image.kernels.iter().filter(|kernel| !kernel.ends_with("_weights")).copied().collect();
    let of_units: Vec<_> = products.iter().filter(|kernel| !is_plain(kernel)).copied().collect();
    every_kernel_has(image, architecture, &products, |line| line.contains("LDGSTS.") && line.contains(".128"))?;
    every_kernel_has(image, architecture, &of_units, |line| line.contains("HMMA."))
}

fn copies_of_16_bytes(image: &Image, architecture: &str) -> Result<Completion, Failed> {
    every_kernel_has(image, architecture, image.kernels, |line| line.contains("LDGSTS.") && line.contains(".128"))
}

/// What Hopper alone has: wgmma, and copies by tensor maps.
fn products_and_copies_of_hopper(image: &Image, architecture: &str) -> Result<Completion, Failed> {
    every_kernel_has(image, architecture, image.kernels, |line| line.contains("HGMMA."))?;
    every_kernel_has(image, architecture, image.kernels, |line| line.contains("UTMALDG.2D.MULTICAST"))
}

fn every_kernel_has(
    image: &Image,
    architecture: &str,
    kernels: &[&str],
    is_it: impl Fn(&str) -> bool,
) -> Result<Completion, Failed> {
    let Some(cuobjdump) = CUOBJDUMP.as_ref() else {
        return Ok(Completion::ignored_with("no cuobjdump: run scripts/cuda-toolchain.sh --disassembler"));
    };
    let fatbin = file(image, "fatbin");
    let output =
        Command::new(cuobjdump).args(["-sass", "-arch", &format!("sm_{architecture}")]).arg(fatbin).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let assembly = String::from_utf8(output.stdout)?;
    let has_it = |kernel: &str| {
        let function = assembly.split("Function : ").find(|function| function.lines().next() == Some(kernel));
        function.is_some_and(|function| function.lines().any(&is_it))
    };
    none(kernels.iter().filter(|kernel| !has_it(kernel)).map(ToString::to_string))?;
    Ok(Completion::Completed)
}

static CUOBJDUMP: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cuda/disassembler/cu13/bin/cuobjdump");
    let candidates = [PathBuf::from("cuobjdump"), fetched];
    candidates.into_iter().find(|path| Command::new(path).arg("--version").output().is_ok())
});

fn vector_kernels(image: &Image) -> impl Iterator<Item = &'static str> {
    image.kernels.iter().copied().filter(|kernel| kernel.ends_with("_vector"))
}

/// What ptxas printed.
fn report(image: &Image) -> Result<String, Failed> {
    Ok(fs::read_to_string(file(image, "ptxas"))?)
}

fn file(image: &Image, extension: &str) -> PathBuf {
    Path::new(env!("MIVC_KERNELS")).join(image.name).with_extension(extension)
}

fn none(found: impl Iterator<Item = String>) -> Result<(), Failed> {
    let found: Vec<_> = found.collect();
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}
