//! A state as a safetensors file: `max` and `sum` f32 `[B, K]`, `pooled` f32 `[B, K, D]`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::PoolState;
use crate::error::{Result, StateError};

impl PoolState {
    /// Writes a safetensors file of the tensors `max` and `sum`, f32 `[B, K]`, and `pooled`, f32 `[B, K, D]`. It has its
    /// name only when it is whole; what had that name before is then replaced.
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
        let tensors = [
            ("max", rows.clone(), bytes_of(&self.max)),
            ("sum", rows, bytes_of(&self.sum)),
            ("pooled", vec![self.bags, self.heads, self.dim], bytes_of(&self.pooled)),
        ];
        let view = |(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape, bytes)?));
        let views = tensors.iter().map(|(name, shape, bytes)| view((*name, shape.clone(), bytes)));
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
        Self::from_parts(bags, heads, dim, max, sum, pooled)
    }
}

/// Shape and values of a tensor that must be there, of `RANK` sizes, and of the `expected` ones where they are known.
fn read<const RANK: usize>(
    tensors: &SafeTensors<'_>,
    name: &'static str,
    shape: &str,
    expected: Option<[usize; RANK]>,
) -> Result<([usize; RANK], Vec<f32>), StateError> {
    let wrong = |got: String| {
        let sizes = expected.map(|expected| format!(" = {expected:?}")).unwrap_or_default();
        StateError::Tensor { name, expected: format!("f32 {shape}{sizes}"), got }
    };
    let view = tensors.tensor(name).map_err(|_| wrong("none of that name".to_owned()))?;
    let sizes = <[usize; RANK]>::try_from(view.shape()).ok();
    let sizes = sizes.filter(|sizes| view.dtype() == Dtype::F32 && expected.is_none_or(|expected| expected == *sizes));
    let sizes =
        sizes.ok_or_else(|| wrong(format!("{} {:?}", view.dtype().to_string().to_lowercase(), view.shape())))?;
    let (numbers, _) = view.data().as_chunks();
    Ok((sizes, numbers.iter().map(|&number| f32::from_le_bytes(number)).collect()))
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
