//! A state as a safetensors file: `max` and `sum` f32 `[B, K]`, `pooled` f32 `[B, K, D]`; in
//! [`Order::Exact`](crate::Order::Exact) also `exact` i64 `[B, K, 7 + ⌈D/256⌉ + 6·D]`, and `specials` f32 `[B, K, D, 3]` where there is
//! an infinity or a NaN.
//!
//! A row of `exact` holds the bins of Σ exp(score), then those of Σ exp(score)·x for each 256 columns: the greatest bin, or
//! [`NO_BIN`], and the words. A row of `specials` holds the greatest score of +∞, −∞ and NaN.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::{PoolState, sizes};
use crate::error::{Error, Result, StateError};
use crate::exact::bins::{Bins, NO_BIN};
use crate::exact::sum::{Head, Mass, Special, Sum, column_groups};

impl PoolState {
    /// Writes a safetensors file of the tensors `max` and `sum`, f32 `[B, K]`, and `pooled`, f32 `[B, K, D]`; of a state
    /// in [`Order::Exact`](crate::Order::Exact) also of its integers, `exact`. It has its name only when it is whole; what
    /// had that name before is then replaced.
    ///
    /// ```
    /// use mivc::PoolState;
    ///
    /// # let directory = std::env::temp_dir().join(format!("mivc-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory).unwrap();
    /// let path = directory.join("state.safetensors");
    /// let state = PoolState::from_parts(1, 1, 2, vec![0.5], vec![3.0], vec![1.0, 2.0])?;
    /// state.save(&path)?;
    /// assert_eq!(PoolState::load(&path)?, state);
    /// # std::fs::remove_dir_all(&directory).unwrap();
    /// # Ok::<(), mivc::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let written = write_whole(path, &self.to_safetensors()?);
        Ok(written.map_err(|source| StateError::Io { path: path.to_owned(), source })?)
    }

    /// Reads what [`save`](Self::save) wrote. Other tensors in the file are ignored.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where the file cannot be read, is no safetensors file, or a tensor is missing or
    /// of the wrong shape or type; [`Error::Argument`](crate::Error::Argument) as
    /// [`from_parts`](Self::from_parts).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        Self::from_safetensors(&bytes)
    }

    /// As [`save`](Self::save), to bytes.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State) where the format cannot hold it, of which no case is known.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let rows = vec![self.bags, self.heads];
        let elements = vec![self.bags, self.heads, self.dim];
        let mut tensors = vec![
            ("max", Dtype::F32, rows.clone(), bytes_of(&self.max)),
            ("sum", Dtype::F32, rows.clone(), bytes_of(&self.sum)),
            ("pooled", Dtype::F32, elements.clone(), bytes_of(&self.pooled)),
        ];
        if let Some(exact) = &self.exact {
            let words = exact.iter().flat_map(exact_row).flat_map(i64::to_le_bytes).collect();
            tensors.push(("exact", Dtype::I64, [&rows[..], &[exact_width(self.dim)]].concat(), words));
            if exact.iter().any(|head| head.sum.specials.is_some()) {
                let specials: Vec<f32> = exact.iter().flat_map(|head| specials_row(head, self.dim)).collect();
                tensors.push(("specials", Dtype::F32, [&elements[..], &[3]].concat(), bytes_of(&specials)));
            }
        }
        let view = |(name, dtype, shape, bytes)| Ok((name, TensorView::new(dtype, shape, bytes)?));
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| view((*name, *dtype, shape.clone(), bytes)));
        let views = views.collect::<Result<Vec<_>, StateError>>()?;
        Ok(serialize(views, None).map_err(StateError::from)?)
    }

    /// As [`load`](Self::load), from the bytes of a safetensors file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(StateError::from)?;
        let ([bags, heads, dim], pooled) = read(&tensors, "pooled", "[B, K, D]", None)?;
        let (_, max) = read(&tensors, "max", "[B, K]", Some([bags, heads]))?;
        let (_, sum) = read(&tensors, "sum", "[B, K]", Some([bags, heads]))?;
        let has = |name: &str| tensors.names().contains(&name);
        if !has("exact") {
            return Self::from_parts(bags, heads, dim, max, sum, pooled);
        }
        sizes(bags, heads, dim)?;
        let expected = Some([bags, heads, exact_width(dim)]);
        let (_, words) = read(&tensors, "exact", "[B, K, 7 + ceil(D / 256) + 6 D]", expected)?;
        let specials = match has("specials") {
            true => read(&tensors, "specials", "[B, K, D, 3]", Some([bags, heads, dim, 3]))?.1,
            false => Vec::new(),
        };
        let rows = max.into_iter().zip(words.chunks_exact(exact_width(dim))).enumerate();
        let head = |(i, (max, words)): (usize, (f32, &[i64]))| {
            let specials = specials.get(i * dim * 3..(i + 1) * dim * 3);
            head_of(max, dim, words, specials)
                .ok_or_else(|| Error::argument("exact", "sums as they are saved", format!("others at [{i}] of [B, K]")))
        };
        Self::from_heads(bags, heads, dim, rows.map(head).collect::<Result<_>>()?)
    }
}

/// Of a row of `exact`.
fn exact_width(dim: usize) -> usize {
    1 + Bins::words_len(1) + column_groups(dim).len() + Bins::words_len(dim)
}

fn exact_row(head: &Head) -> impl Iterator<Item = i64> + '_ {
    std::iter::once(&head.mass.exponentials).chain(&head.sum.groups).flat_map(|bins| {
        let (top, words) = bins.parts();
        std::iter::once(top.unwrap_or(NO_BIN)).chain(words.iter().copied())
    })
}

fn specials_row(head: &Head, dim: usize) -> Vec<f32> {
    let of_column = |special: &Special| [special.infinity, special.minus_infinity, special.nan];
    match &head.sum.specials {
        Some(specials) => specials.iter().flat_map(of_column).collect(),
        None => of_column(&Special::NONE).repeat(dim),
    }
}

/// The head of a row of `exact` and one of `specials`, if there are such sums.
fn head_of(max: f32, dim: usize, mut exact: &[i64], specials: Option<&[f32]>) -> Option<Head> {
    let mut bins = |columns: usize| {
        let (row, rest) = exact.split_at_checked(1 + Bins::words_len(columns))?;
        exact = rest;
        Bins::from_parts(columns, (row[0] != NO_BIN).then_some(row[0]), row[1..].to_vec())
    };
    let exponentials = bins(1)?;
    let groups = column_groups(dim).map(|columns| bins(columns.len())).collect::<Option<Vec<_>>>()?;
    let specials = specials.map(|specials| {
        let (columns, _) = specials.as_chunks();
        columns
            .iter()
            .map(|&[infinity, minus_infinity, nan]| Special { infinity, minus_infinity, nan })
            .collect::<Vec<_>>()
    });
    Head::from_parts(Mass { max, exponentials }, Sum::from_parts(groups, specials))
}

/// Shape and values of a tensor that must be there, of `RANK` sizes, and of the `expected` ones where they are known.
fn read<const RANK: usize, T: Number>(
    tensors: &SafeTensors<'_>,
    name: &'static str,
    shape: &str,
    expected: Option<[usize; RANK]>,
) -> Result<([usize; RANK], Vec<T>), StateError> {
    let wrong = |got: String| {
        let sizes = expected.map(|expected| format!(" = {expected:?}")).unwrap_or_default();
        StateError::Tensor { name, expected: format!("{} {shape}{sizes}", T::DTYPE.to_string().to_lowercase()), got }
    };
    let view = tensors.tensor(name).map_err(|_| wrong("none of that name".to_owned()))?;
    let sizes = <[usize; RANK]>::try_from(view.shape()).ok();
    let sizes = sizes.filter(|sizes| view.dtype() == T::DTYPE && expected.is_none_or(|expected| expected == *sizes));
    let sizes =
        sizes.ok_or_else(|| wrong(format!("{} {:?}", view.dtype().to_string().to_lowercase(), view.shape())))?;
    Ok((sizes, T::all(view.data())))
}

/// What tensors are made of.
trait Number: Sized {
    const DTYPE: Dtype;

    fn all(bytes: &[u8]) -> Vec<Self>;
}

impl Number for f32 {
    const DTYPE: Dtype = Dtype::F32;

    fn all(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

impl Number for i64 {
    const DTYPE: Dtype = Dtype::I64;

    fn all(bytes: &[u8]) -> Vec<i64> {
        bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes beside the target, then gives the whole file its name.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A rename would put a plain file in the place of a device or a pipe.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file or none"));
    }
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".mivc-{}-{number}", std::process::id()));
    let mut file = File::create_new(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    let published = written.and_then(|()| fs::rename(&temporary, path));
    if published.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    published
}
