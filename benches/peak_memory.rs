//! Peak memory of attention pool: what it needs beside its input does not grow with the bag.
//!
//! One bag of up to 1,000,000 × 512 bf16 (1 GB) lies in a mapped file. Its pages are the file's, not
//! the process's, so Linux counts them as `RssFile`; what the operation itself allocates, and the
//! stacks of its threads, are `RssAnon`, which a thread reads every millisecond while it runs.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use half::bf16;
use half::slice::HalfBitsSliceExt;
use memmap2::Mmap;
use mivc::cpu::{AttentionOutputs, Cpu, PackedAttention};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Bags, Dtype, Rows};

const INSTANCES: [usize; 3] = [10_000, 100_000, 1_000_000];
const DIM: usize = 512;
const HIDDEN: usize = 128;

/// Rows that a tile, and the partial results that wait for their merge, may take per thread.
const TILE: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    if !cfg!(target_os = "linux") {
        return Err("reads /proc/self/status, which only Linux has".into());
    }
    let mut file = tempfile::tempfile()?;
    write_features(&mut file)?;
    // SAFETY: the file has no name, so no other process can change it while it is mapped.
    let map = unsafe { Mmap::map(&file)? };
    let features: &[bf16] = bytemuck::cast_slice::<u8, u16>(&map).reinterpret_cast();

    let threads = rayon::broadcast(|_| ()).len();
    let floats = TILE * (DIM + 2 * HIDDEN) * threads + DIM;
    let allowed = (floats * size_of::<f32>()) as u64;
    println!("attention pool, gated, one bag of N × {DIM} bf16, L {HIDDEN}, {threads} threads");
    println!("allowed: ({TILE} × (D + 2 L) × threads + B × K × D) × 4 bytes = {:.1} MiB", mib(allowed));
    println!("{:>9}  {:>12}  {:>16}", "N", "input MiB", "peak beside MiB");

    let cpu = Cpu::detect();
    let packed = cpu.pack(&params()?, Dtype::Bf16);
    let before = resident_anonymous()?;
    for instances in INSTANCES {
        let input = &features[..instances * DIM];
        let peak = peak_while(|| pool(&cpu, &packed, input))?.saturating_sub(before);
        println!("{instances:>9}  {:>12.1}  {:>16.2}", mib(size_of_val(input) as u64), mib(peak));
        if peak > allowed {
            return Err(format!("{:.1} MiB beside the input, {:.1} allowed", mib(peak), mib(allowed)).into());
        }
    }
    Ok(())
}

fn pool(cpu: &Cpu, packed: &PackedAttention, features: &[bf16]) -> mivc::Result<()> {
    let rows = Rows::new(features, DIM)?;
    let bags = Bags::from_lengths(&[rows.len() as i64])?;
    let mut pooled = vec![0.0_f32; DIM];
    let outputs = AttentionOutputs { pooled: &mut pooled, scores: None, weights: None, lse: None };
    cpu.attention_pool(packed, rows, None, &bags, outputs)
}

/// A megabyte of noise, over and over: the values do not matter, the pages do.
fn write_features(file: &mut File) -> std::io::Result<()> {
    let rows = noise(1000 * DIM, 1.0).into_iter().flat_map(|value| bf16::from_f32(value).to_le_bytes());
    let block: Vec<u8> = rows.collect();
    let mut writer = BufWriter::new(file);
    for _ in 0..INSTANCES[2] / 1000 {
        writer.write_all(&block)?;
    }
    writer.flush()
}

fn params() -> mivc::Result<AttentionParams> {
    let matrix = noise(HIDDEN * DIM, 0.1);
    let tensors = AttentionTensors { v: &matrix, u: Some(&matrix), w: &noise(HIDDEN, 0.1), ..Default::default() };
    AttentionParams::new(AttentionShape { dim: DIM, hidden: HIDDEN, heads: 1, groups: 1 }, tensors)
}

fn noise(len: usize, scale: f32) -> Vec<f32> {
    (0..len).map(|index| scale * (index as f32 * 1.7).sin()).collect()
}

/// The largest `RssAnon`, in bytes, while `operation` runs.
fn peak_while(operation: impl FnOnce() -> mivc::Result<()>) -> Result<u64, Box<dyn Error>> {
    std::thread::scope(|scope| {
        // Dropping the sender ends the sampler, also where the operation panics.
        let (running, ended) = mpsc::channel::<()>();
        let sampler = scope.spawn(move || -> std::io::Result<u64> {
            let mut peak = resident_anonymous()?;
            while ended.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(resident_anonymous()?);
            }
            Ok(peak)
        });
        operation()?;
        drop(running);
        Ok(sampler.join().expect("the sampler does not panic")?)
    })
}

/// `RssAnon` of this process, in bytes.
fn resident_anonymous() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kibibytes =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok());
    kibibytes.map(|kib: u64| kib * 1024).ok_or_else(|| std::io::Error::other("no RssAnon in /proc/self/status"))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}
