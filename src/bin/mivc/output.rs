//! Files that appear whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use mivc::{Pooled, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};
use tempfile::NamedTempFile;

use crate::arguments::PoolingKind;
use crate::{Result, about};

/// Where a file may be written, checked before any work is done.
pub(crate) struct Target {
    option: &'static str,
    path: PathBuf,
    directory: PathBuf,
}

impl Target {
    /// A target that is not one of the `sources`: what replaces its own input is a slip.
    pub(crate) fn check(option: &'static str, path: Option<&Path>, sources: &[&Path]) -> Result<Option<Self>> {
        let Some(path) = path else {
            return Ok(None);
        };
        let checked = Self::resolve(option, path, sources);
        checked.map(Some).map_err(|error| format!("{option} {}: {error}", path.display()).into())
    }

    fn resolve(option: &'static str, path: &Path, sources: &[&Path]) -> Result<Self> {
        let name = path.file_name().ok_or("expected the name of a file")?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = fs::canonicalize(parent.unwrap_or(Path::new(".")))?;
        let target = Target { option, path: directory.join(name), directory };
        // A rename would put a plain file in the place of a device or a pipe.
        if fs::metadata(&target.path).is_ok_and(|there| !there.is_file()) {
            return Err("expected a regular file or none".into());
        }
        let resolved = fs::canonicalize(&target.path).ok();
        if resolved.is_some() && sources.iter().any(|source| fs::canonicalize(source).ok() == resolved) {
            return Err("expected another file than those that are read".into());
        }
        target.temporary()?;
        Ok(target)
    }

    /// A file beside the target, gone when dropped; with the target's extension, which tells its format.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        let extension = self.path.extension().unwrap_or_default().to_string_lossy();
        let suffix = format!(".{extension}");
        let mut builder = tempfile::Builder::new();
        builder.prefix(".mivc-").suffix(&suffix);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new file: what the umask leaves of it.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(&self.directory)
    }

    /// Writes the whole file beside the target.
    pub(crate) fn stage(&self, write: impl FnOnce(&Path) -> Result<()>) -> Result<Staged<'_>> {
        let written = || -> Result<NamedTempFile> {
            let temporary = self.temporary()?;
            let permissions = temporary.as_file().metadata()?.permissions();
            write(temporary.path())?;
            // The writer of safetensors puts a file of its own, private to the user, in the place of this.
            fs::set_permissions(temporary.path(), permissions)?;
            fs::File::options().write(true).open(temporary.path())?.sync_all()?;
            Ok(temporary)
        };
        let temporary = written().map_err(|error| format!("{} {}: {error}", self.option, self.path.display()))?;
        Ok(Staged { target: self, temporary })
    }
}

/// Two outputs of one name would leave only one of them.
pub(crate) fn expect_distinct(first: &Option<Target>, second: &Option<Target>) -> Result<()> {
    match (first, second) {
        (Some(first), Some(second)) if first.path == second.path => Err(format!(
            "{} and {}: expected two files, got {} twice",
            first.option,
            second.option,
            first.path.display()
        )
        .into()),
        _ => Ok(()),
    }
}

/// A complete file that has not got its name yet.
pub(crate) struct Staged<'a> {
    target: &'a Target,
    temporary: NamedTempFile,
}

/// Gives all files their names; where one cannot have it, none keeps it.
pub(crate) fn publish(staged: Vec<Staged<'_>>) -> Result<()> {
    let mut published = Vec::new();
    for Staged { target, temporary } in staged {
        if let Err(error) = temporary.persist(&target.path) {
            for path in published {
                let _ = fs::remove_file(path);
            }
            return Err(about(&target.path)(error.error));
        }
        published.push(&target.path);
    }
    Ok(())
}

/// `pooled`, or `max` and `mean`; `argmax`, `weights` and `scores` where there are some.
pub(crate) fn write_pooled(path: &Path, pooling: PoolingKind, pooled: &Pooled) -> Result<()> {
    let embeddings = &pooled.embeddings;
    let (max, mean);
    let mut views = match pooling {
        PoolingKind::MaxMean => {
            (max, mean) = (half(embeddings, 0), half(embeddings, 1));
            vec![("max", view(Dtype::F32, &max)?), ("mean", view(Dtype::F32, &mean)?)]
        }
        _ => vec![("pooled", view(Dtype::F32, embeddings)?)],
    };
    if let Some(argmax) = &pooled.argmax {
        views.push(("argmax", view(Dtype::I64, argmax)?));
    }
    for (name, tensor) in [("weights", &pooled.weights), ("scores", &pooled.scores)] {
        if let Some(tensor) = tensor {
            views.push((name, view(Dtype::F32, tensor)?));
        }
    }
    Ok(serialize_to_file(views, None, path)?)
}

/// Number `which` of the two embeddings of each bag: `[B, 2, D]` → `[B, D]`.
fn half(pairs: &Tensor<f32>, which: usize) -> Tensor<f32> {
    let &[bags, _, dim] = &pairs.shape[..] else {
        return pairs.clone();
    };
    let data = pairs.data.chunks_exact(dim).skip(which).step_by(2).flatten().copied().collect();
    Tensor { data, shape: vec![bags, dim] }
}

fn view<T: Pod>(dtype: Dtype, tensor: &Tensor<T>) -> Result<TensorView<'_>> {
    Ok(TensorView::new(dtype, tensor.shape.clone(), bytemuck::cast_slice(&tensor.data))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets `first` and `second` in a new directory.
    fn targets(directory: &Path) -> [Target; 2] {
        ["first", "second"].map(|name| Target::check("-o", Some(&directory.join(name)), &[]).unwrap().unwrap())
    }

    fn write(path: &Path) -> Result<()> {
        Ok(fs::write(path, "whole")?)
    }

    #[test]
    fn staged_files_get_their_names_together() {
        let directory = tempfile::tempdir().unwrap();
        let targets = targets(directory.path());
        let staged: Vec<_> = targets.iter().map(|target| target.stage(write).unwrap()).collect();
        assert!(targets.iter().all(|target| !target.path.exists()));
        publish(staged).unwrap();
        assert!(targets.iter().all(|target| fs::read_to_string(&target.path).unwrap() == "whole"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_stays_where_one_file_cannot_have_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let targets = targets(directory.path());
        let staged = targets.iter().map(|target| target.stage(write).unwrap()).collect();
        fs::create_dir(&targets[1].path).unwrap();
        assert!(publish(staged).is_err());
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [fs::canonicalize(&targets[1].path).unwrap()], "only the directory in the way");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let [target, _] = targets(directory.path());
        assert!(target.stage(|path| write(path).and(Err("disk full".into()))).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
