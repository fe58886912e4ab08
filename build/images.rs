//! Says what is embedded, as Rust.

use std::fs;
use std::io;

use crate::architectures::Architecture;
use crate::kernel::Kernel;

/// Source text that defines `IMAGES`, `ARCHITECTURES` and `PTX_ARCHITECTURE`; what includes it defines `Image`.
pub fn source(kernels: &[Kernel], architectures: &[Architecture]) -> io::Result<String> {
    let mut images = String::new();
    for kernel in kernels {
        let ptx = fs::read_to_string(kernel.ptx())?;
        let (name, fatbin, kernels) = (&kernel.name, kernel.fatbin(), entries(&ptx));
        let of_image: Vec<_> = kernel.architectures().iter().map(Architecture::to_string).collect();
        images += &format!(
            "    Image {{ name: {name:?}, fatbin: &Aligned(*include_bytes!({fatbin:?})).0, kernels: &{kernels:?}, \
             architectures: &{of_image:?}, is_special: {} }},\n",
            kernel.is_special
        );
    }
    let architectures: Vec<_> = architectures.iter().map(Architecture::to_string).collect();
    Ok(format!(
        "#[repr(align(16))]
struct Aligned<const N: usize>([u8; N]);

pub(crate) const IMAGES: &[Image] = &[
{images}];
pub(crate) const ARCHITECTURES: &[&str] = &{architectures:?};
pub(crate) const PTX_ARCHITECTURE: &str = {:?};
",
        architectures[0]
    ))
}

/// Names of the kernels in a PTX module.
pub fn entries(ptx: &str) -> Vec<&str> {
    let heads = ptx.lines().filter_map(|line| line.strip_prefix(".visible .entry "));
    heads.filter_map(|head| head.split('(').next()).collect()
}
