//! From a mapped feature file to features, bags and images.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use bytemuck::Pod;
use half::{bf16, f16};
use memmap2::Mmap;
use mivc::Bags;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::{Result, about};

/// A file in the address space: pages are read when they are looked at, and dropped under pressure.
pub(crate) struct MappedFile {
    map: Mmap,
    file: File,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Asked before opening, which would wait on a pipe for its writer.
        if !fs::metadata(path).map_err(about(path))?.is_file() {
            return Err(about(path)("expected a regular file"));
        }
        let file = File::open(path).map_err(about(path))?;
        // SAFETY: the mapping is read only, so nothing in this process changes it. That another process
        // changes the file meanwhile cannot be ruled out, by no system's locks; users are told not to (see
        // the help). It is kept as harmless as it can be: what decides about addresses (shapes, offsets,
        // mask) is copied out before it is checked and not read from the mapping again, and what is read
        // again, features and pixels, is valid for every bit pattern and decides about values alone. A
        // file cut short ends the process (SIGBUS) rather than reading elsewhere, before any output has
        // its name.
        let map = unsafe { Mmap::map(&file) }.map_err(about(path))?;
        Ok(MappedFile { map, file })
    }

    fn elements<'a, E: Pod>(
        &'a self,
        name: &str,
        tensor: &TensorView<'a>,
        access: Access,
        notes: &mut Vec<String>,
    ) -> Elements<'a, E> {
        let bytes = tensor.data();
        match access {
            Access::Mapped => Elements::Here(aligned(name, bytes, notes)),
            Access::InRuns => {
                let start = bytes.as_ptr().addr() - self.map.as_ptr().addr();
                Elements::InFile { file: &self.file, start: start as u64, len: bytes.len() / size_of::<E>() }
            }
        }
    }
}

/// What the tool reads of a feature file.
pub(crate) struct Input<'a> {
    pub(crate) features: FeatureRows<'a>,
    /// `D`.
    pub(crate) dim: usize,
    pub(crate) bags: Bags<'static>,
    pub(crate) images: Option<Images<'a>>,
    /// What a user should know, though nothing is wrong.
    pub(crate) notes: Vec<String>,
}

/// `[N, D]`.
pub(crate) enum FeatureRows<'a> {
    F32(Elements<'a, f32>),
    F16(Elements<'a, f16>),
    Bf16(Elements<'a, bf16>),
}

impl FeatureRows<'_> {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            FeatureRows::F32(elements) => elements.bytes(),
            FeatureRows::F16(elements) => elements.bytes(),
            FeatureRows::Bf16(elements) => elements.bytes(),
        }
    }

    pub(crate) fn element_bytes(&self) -> usize {
        match self {
            FeatureRows::F32(_) => size_of::<f32>(),
            FeatureRows::F16(_) => size_of::<f16>(),
            FeatureRows::Bf16(_) => size_of::<bf16>(),
        }
    }
}

/// The elements of a tensor, by where they are.
pub(crate) enum Elements<'a, E: Pod> {
    /// Mapped, or copied where their alignment does not allow that.
    Here(Cow<'a, [E]>),
    /// Not looked at through the mapping, the pages of which would count as this process's memory.
    InFile { file: &'a File, start: u64, len: usize },
}

impl<E: Pod> Elements<'_, E> {
    fn bytes(&self) -> usize {
        size_of::<E>()
            * match self {
                Elements::Here(elements) => elements.len(),
                Elements::InFile { len, .. } => *len,
            }
    }

    /// Some of them. Where they have to be read it is into `buffer`, which is never longer than the longest run of
    /// elements that was asked for.
    pub(crate) fn get<'b>(&'b self, range: Range<usize>, buffer: &'b mut Vec<E>) -> Result<&'b [E]> {
        match self {
            Elements::Here(elements) => Ok(&elements[range]),
            Elements::InFile { file, start, .. } => {
                if buffer.capacity() < range.len() {
                    // The old one goes before the new one comes.
                    *buffer = Vec::new();
                    buffer.try_reserve_exact(range.len())?;
                }
                buffer.resize(range.len(), E::zeroed());
                let mut file = *file;
                file.seek(SeekFrom::Start(start + (range.start * size_of::<E>()) as u64)).map_err(about_features)?;
                file.read_exact(bytemuck::cast_slice_mut(buffer)).map_err(about_features)?;
                Ok(buffer)
            }
        }
    }
}

fn about_features(error: io::Error) -> String {
    format!("features: {error}")
}

/// `[N, h, w]` grey or `[N, h, w, 3]` red, green, blue.
pub(crate) struct Images<'a> {
    pixels: &'a [u8],
    pub(crate) height: usize,
    pub(crate) width: usize,
    channels: usize,
}

impl Images<'_> {
    pub(crate) fn are_grey(&self) -> bool {
        self.channels == 1
    }

    /// Red, green and blue of one pixel of one image.
    pub(crate) fn pixel(&self, image: usize, y: usize, x: usize) -> [u8; 3] {
        let start = ((image * self.height + y) * self.width + x) * self.channels;
        match self.pixels[start..start + self.channels] {
            [red, green, blue] => [red, green, blue],
            _ => [self.pixels[start]; 3],
        }
    }
}

/// How features get into memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Mapped,
    /// Run by run, as they are needed.
    InRuns,
}

impl<'a> Input<'a> {
    pub(crate) fn read(file: &'a MappedFile, access: Access) -> Result<Self> {
        let tensors = SafeTensors::deserialize(&file.map)
            .map_err(|error| format!("expected a safetensors file, got one that says: {error}"))?;
        let mut notes = Vec::new();

        let features = tensor(&tensors, "features")?.ok_or("features: expected a tensor of this name, got none")?;
        let (instances, dim) = match *features.shape() {
            [instances, dim] if dim > 0 => (instances, dim),
            _ => return Err(wrong("features", "shape [N, D] with D at least 1", &features)),
        };
        let rows = match features.dtype() {
            Dtype::F32 => FeatureRows::F32(file.elements("features", &features, access, &mut notes)),
            Dtype::F16 => FeatureRows::F16(file.elements("features", &features, access, &mut notes)),
            Dtype::BF16 => FeatureRows::Bf16(file.elements("features", &features, access, &mut notes)),
            _ => return Err(wrong("features", "f32, f16 or bf16", &features)),
        };
        let bags = read_bags(&tensors, instances)?;
        let images = tensor(&tensors, "images")?.map(|images| read_images(&images, instances)).transpose()?;
        Ok(Input { features: rows, dim, bags, images, notes })
    }

    /// `N`.
    pub(crate) fn instances(&self) -> usize {
        self.bags.instances()
    }

    /// The rows of a bag that no mask takes away.
    pub(crate) fn present(&self, bag: usize) -> impl Iterator<Item = usize> {
        self.bags.range(bag).filter(|&row| self.bags.mask().is_none_or(|mask| mask[row] != 0))
    }
}

/// The tensor of a name, or `None` where the file has no such name.
fn tensor<'a>(tensors: &SafeTensors<'a>, name: &str) -> Result<Option<TensorView<'a>>> {
    if !tensors.names().contains(&name) {
        return Ok(None);
    }
    Ok(Some(tensors.tensor(name)?))
}

fn read_bags(tensors: &SafeTensors<'_>, instances: usize) -> Result<Bags<'static>> {
    let bags = match (tensor(tensors, "offsets")?, tensor(tensors, "lengths")?) {
        (Some(offsets), None) => {
            let bags = Bags::from_offsets(read_i64("offsets", &offsets)?)?;
            expect_instances("offsets: expected the last to be", instances, bags.instances())?;
            bags
        }
        (None, Some(lengths)) => {
            let bags = Bags::from_lengths(&read_i64("lengths", &lengths)?)?;
            expect_instances("lengths: expected a sum of", instances, bags.instances())?;
            bags
        }
        (Some(_), Some(_)) => return Err("expected either offsets or lengths, got both".into()),
        (None, None) => return Err("expected either offsets or lengths, got neither".into()),
    };
    let Some(mask) = tensor(tensors, "mask")? else {
        return Ok(bags);
    };
    if mask.dtype() != Dtype::U8 || mask.shape() != [instances] {
        return Err(wrong("mask", &format!("u8 [N] = [{instances}]"), &mask));
    }
    Ok(bags.with_mask(mask.data().to_vec())?)
}

fn expect_instances(what: &str, instances: usize, got: usize) -> Result<()> {
    if instances == got {
        return Ok(());
    }
    Err(format!("{what} N = {instances}, the rows of features, got {got}").into())
}

fn read_images<'a>(images: &TensorView<'a>, instances: usize) -> Result<Images<'a>> {
    let (height, width, channels) = match *images.shape() {
        [n, height, width] if n == instances => (height, width, 1),
        [n, height, width, 3] if n == instances => (height, width, 3),
        _ => (0, 0, 0),
    };
    if height == 0 || width == 0 || images.dtype() != Dtype::U8 {
        return Err(wrong("images", &format!("u8 [N, h, w] or [N, h, w, 3] with N = {instances}"), images));
    }
    Ok(Images { pixels: images.data(), height, width, channels })
}

/// A copy, so that what is checked is what is used.
fn read_i64(name: &str, tensor: &TensorView<'_>) -> Result<Vec<i64>> {
    if tensor.dtype() != Dtype::I64 || tensor.shape().len() != 1 {
        return Err(wrong(name, "i64 of one dimension", tensor));
    }
    Ok(bytemuck::pod_collect_to_vec(tensor.data()))
}

/// The elements in place, or a copy where they do not lie as their type must.
fn aligned<'a, E: Pod>(name: &str, bytes: &'a [u8], notes: &mut Vec<String>) -> Cow<'a, [E]> {
    if let Ok(elements) = bytemuck::try_cast_slice(bytes) {
        return Cow::Borrowed(elements);
    }
    notes.push(format!("{name}: not aligned for its type in the file, so its {} bytes were copied", bytes.len()));
    Cow::Owned(bytemuck::pod_collect_to_vec(bytes))
}

fn wrong(name: &str, expected: &str, got: &TensorView<'_>) -> Box<dyn std::error::Error> {
    format!("{name}: expected {expected}, got {} {:?}", got.dtype(), got.shape()).into()
}

/// The part of `[N, D]` that some rows take up.
pub(crate) fn elements(rows: Range<usize>, dim: usize) -> Range<usize> {
    rows.start * dim..rows.end * dim
}
