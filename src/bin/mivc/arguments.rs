//! The command line.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mivc::{Device, Order};

use crate::{Result, size};

/// Fuses the embeddings of many images into one, in any order.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Pools each bag of a feature file into one embedding.
    ///
    /// IN holds `features` [N, D] (f32, f16 or bf16) and either `offsets` i64 [B + 1] or `lengths` i64 [B];
    /// optionally `mask` u8 [N] (0 = not there) and `images` u8 [N, h, w] or [N, h, w, 3] for the plot.
    /// Other tensors are ignored. The file is mapped, not copied: do not change it meanwhile. One that does not fit the
    /// memory needs --memory.
    Pool(PoolArguments),
}

#[derive(Args)]
pub(crate) struct PoolArguments {
    /// The feature file, safetensors.
    #[arg(value_name = "IN.safetensors")]
    pub(crate) input: PathBuf,

    /// How the instances of a bag become one embedding.
    #[arg(long)]
    pub(crate) pooling: PoolingKind,

    /// Checkpoint with the parameters of attention or gated attention.
    #[arg(long, value_name = "P.safetensors")]
    pub(crate) params: Option<PathBuf>,

    /// Applies the checkpoint's own projection (Linear + ReLU) to the features first.
    #[arg(long)]
    pub(crate) project: bool,

    /// Where to pool: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu", value_name = "DEVICE", value_parser = parse_device)]
    device: DeviceName,

    /// `exact`: no bit of a pooled embedding depends on the order of the instances.
    #[arg(long)]
    order: Option<OrderName>,

    /// The most memory that features and parameters may take: bytes, or KiB, MiB, GiB or TiB, as in 512MiB.
    ///
    /// Features are then read as they are needed. Bags that fit are pooled whole, and others piece by piece. Results,
    /// and what threads work with, come on top.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) memory: Option<usize>,

    /// How many instances the table shows per bag.
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    pub(crate) top: usize,

    /// Draws the attention of each instance as bars, one panel per bag, for the first 16 bags.
    #[arg(long, value_name = "FILE.png|FILE.svg")]
    pub(crate) plot: Option<PathBuf>,

    /// Where the pooled embeddings go; replaced where it exists.
    #[arg(short, long, value_name = "OUT.safetensors")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolingKind {
    Mean,
    Max,
    MaxMean,
    Attention,
    GatedAttention,
}

impl PoolingKind {
    pub(crate) fn is_attention(self) -> bool {
        matches!(self, PoolingKind::Attention | PoolingKind::GatedAttention)
    }
}

impl fmt::Display for PoolingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PoolingKind::Mean => "mean",
            PoolingKind::Max => "max",
            PoolingKind::MaxMean => "max-mean",
            PoolingKind::Attention => "attention",
            PoolingKind::GatedAttention => "gated-attention",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderName {
    Exact,
}

/// A device that may be there or not.
#[derive(Clone, Copy)]
enum DeviceName {
    Cpu,
    /// Counted from 0.
    Cuda(u32),
}

fn parse_device(name: &str) -> Result<DeviceName, String> {
    let ordinal = match name.split_once(':') {
        None if name == "cpu" => return Ok(DeviceName::Cpu),
        None if name == "cuda" => Some(0),
        Some(("cuda", ordinal)) => ordinal.parse().ok(),
        _ => None,
    };
    ordinal.map(DeviceName::Cuda).ok_or_else(|| "expected cpu, cuda or cuda:N".to_owned())
}

impl PoolArguments {
    /// What the options ask of each other, and what this build does not have.
    pub(crate) fn check(&self) -> Result<()> {
        let pooling = self.pooling;
        self.device()?;
        if pooling.is_attention() && self.params.is_none() {
            return Err(format!("--pooling {pooling}: expected a checkpoint in --params, got none").into());
        }
        let for_attention =
            [("--params", self.params.is_some()), ("--project", self.project), ("--plot", self.plot.is_some())];
        for (option, given) in for_attention {
            if given && !pooling.is_attention() {
                return Err(format!("{option}: expected --pooling attention or gated-attention, got {pooling}").into());
            }
        }
        if let Some(path) = &self.plot {
            Format::of(path)?;
        }
        Ok(())
    }

    pub(crate) fn order(&self) -> Order {
        match self.order {
            None => Order::Rounding,
            Some(OrderName::Exact) => Order::Exact,
        }
    }

    /// Where to pool, as far as this build can.
    pub(crate) fn device(&self) -> Result<Device> {
        match self.device {
            DeviceName::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            DeviceName::Cuda(ordinal) => Ok(Device::Cuda(ordinal as usize)),
            #[cfg(not(feature = "cuda"))]
            DeviceName::Cuda(ordinal) => {
                Err(format!("--device cuda:{ordinal}: this build has no CUDA; the feature `cuda` adds it").into())
            }
        }
    }

    /// The files that are read.
    pub(crate) fn sources(&self) -> Vec<&Path> {
        self.params.iter().chain([&self.input]).map(PathBuf::as_path).collect()
    }
}

/// What a file's name says it is to hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Svg,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("png") => Ok(Format::Png),
            Some(extension) if extension.eq_ignore_ascii_case("svg") => Ok(Format::Svg),
            _ => Err(format!("--plot {}: expected a name that ends in .png or .svg", path.display()).into()),
        }
    }
}
