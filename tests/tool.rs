//! `mivc pool`, end to end: what it writes, and that it refuses whatever is malformed with exit status 2,
//! one line and no file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

/// What is said of a device that no machine has.
const NO_SUCH_DEVICE: &[&str] =
    if cfg!(feature = "cuda") { &["device: expected", "CUDA"] } else { &["--device cuda:4096", "no CUDA"] };

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

// ---- files ----

/// A tensor to put into a file, or one that was read from it.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn entry<const W: usize>(
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    elements: impl IntoIterator<Item = [u8; W]>,
) -> Entry {
    Entry { name: name.into(), dtype, shape: shape.into(), bytes: elements.into_iter().flatten().collect() }
}

fn f32s(name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Entry {
    entry(name, Dtype::F32, shape, values.into_iter().map(f32::to_le_bytes))
}

fn i64s(name: &str, values: &[i64]) -> Entry {
    entry(name, Dtype::I64, &[values.len()], values.iter().map(|value| value.to_le_bytes()))
}

fn u8s(name: &str, shape: &[usize], values: impl IntoIterator<Item = u8>) -> Entry {
    entry(name, Dtype::U8, shape, values.into_iter().map(|value| [value]))
}

impl Entry {
    fn f32(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32, "{}", self.name);
        self.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    fn i64(&self) -> Vec<i64> {
        assert_eq!(self.dtype, Dtype::I64, "{}", self.name);
        self.bytes.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect()
    }
}

fn serialize(entries: &[Entry]) -> Vec<u8> {
    let views = entries.iter().map(|e| (e.name.as_str(), TensorView::new(e.dtype, e.shape.clone(), &e.bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// A file laid out by hand, tensors in the order given and without padding of the header.
fn serialize_packed(entries: &[Entry]) -> Vec<u8> {
    let mut header = Vec::new();
    let mut data = Vec::new();
    for Entry { name, dtype, shape, bytes } in entries {
        let start = data.len();
        data.extend(bytes);
        let end = data.len();
        header.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#));
    }
    let header = format!("{{{}}}", header.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

struct File(Vec<Entry>);

impl File {
    fn read(path: &Path) -> File {
        let bytes = fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let entries = tensors.iter().map(|(name, view)| Entry {
            name: name.into(),
            dtype: view.dtype(),
            shape: view.shape().into(),
            bytes: view.data().into(),
        });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        File(entries)
    }

    fn get(&self, name: &str) -> &Entry {
        self.0.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|entry| entry.name.as_str()).collect()
    }
}

/// A directory of its own for each test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// Everything in it, hidden files too, with its content.
    fn contents(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let paths = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut contents: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).ok())).collect();
        contents.sort();
        contents
    }
}

// ---- runs ----

fn mivc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mivc"));
    command.arg("pool");
    command
}

fn pool(input: &Path, arguments: &[&str]) -> Output {
    mivc().arg(input).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Runs where it must work; what it wrote to OUT, and to stdout and stderr.
fn pooled(folder: &Folder, input: &Path, arguments: &[&str]) -> (File, String, String) {
    let out = folder.path("out.safetensors");
    let run = pool(input, &[arguments, &["-o", out.to_str().unwrap()]].concat());
    assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
    (File::read(&out), text(&run.stdout).into(), text(&run.stderr).into())
}

/// What the one line says, where that is all that came of a run.
fn refusal(run: &Output) -> String {
    assert_eq!(run.status.code(), Some(2), "{}", text(&run.stderr));
    let (notes, lines): (Vec<&str>, Vec<&str>) = text(&run.stderr).lines().partition(|line| line.starts_with("note: "));
    assert_eq!(lines.len(), 1, "{notes:?} {lines:?}");
    lines[0].strip_prefix("error: ").unwrap_or_else(|| panic!("{lines:?}")).to_owned()
}

/// As [`refusal`], of a run that asks for an output and must leave the folder as it was.
fn refused(folder: &Folder, input: &Path, arguments: &[&str]) -> String {
    let out = folder.path("refused.safetensors");
    let before = folder.contents();
    let run = pool(input, &[arguments, &["-o", out.to_str().unwrap()]].concat());
    let line = refusal(&run);
    assert_eq!(text(&run.stdout), "");
    assert_eq!(folder.contents(), before);
    line
}

fn refused_file(entries: &[Entry]) -> String {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(entries));
    refused(&folder, &input, &["--pooling", "mean"])
}

#[track_caller]
fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "expected {part:?} in: {line}");
    }
}

// ---- inputs ----

fn example(name: &str) -> PathBuf {
    Path::new(EXAMPLES).join(name)
}

fn example_str(name: &str) -> String {
    example(name).to_str().unwrap().into()
}

/// Six rows of two features.
fn features() -> Entry {
    f32s("features", &[6, 2], (0..12_u8).map(f32::from))
}

/// A gated checkpoint in AMLab's layout, D = 2, L = 2, K heads.
fn checkpoint(heads: usize) -> Vec<Entry> {
    let ramp = |name: &str, shape: &[usize]| {
        let size = shape.iter().product::<usize>() as u8;
        f32s(name, shape, (0..size).map(|i| f32::from(i) / 8.0 - 0.2))
    };
    vec![
        ramp("attention_V.0.weight", &[2, 2]),
        ramp("attention_V.0.bias", &[2]),
        ramp("attention_U.0.weight", &[2, 2]),
        ramp("attention_U.0.bias", &[2]),
        ramp("attention_w.weight", &[heads, 2]),
        ramp("attention_w.bias", &[heads]),
    ]
}

/// A checkpoint whose projection takes 3 features to the 2 of the attention.
fn checkpoint_with_projection() -> Vec<Entry> {
    let mut entries = checkpoint(1);
    entries.push(f32s("feature_extractor.0.weight", &[2, 3], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]));
    entries.push(f32s("feature_extractor.0.bias", &[2], [0.0, 0.0]));
    entries
}

/// The sum of each bag and head.
fn sums(weights: &Entry, offsets: &[i64]) -> Vec<f32> {
    let (values, heads) = (weights.f32(), weights.shape[1]);
    let sum = |bag: &[i64], head| (bag[0]..bag[1]).map(|n| values[n as usize * heads + head]).sum();
    offsets.windows(2).flat_map(|bag| (0..heads).map(move |head| sum(bag, head))).collect()
}

fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let close = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 1e-5 * (1.0 + b.abs());
    assert!(got.iter().zip(expected).all(close), "{got:?} is not {expected:?}");
}

// ---- what it does ----

#[test]
fn attention_of_the_examples() {
    for (kind, pooling, nines) in [("gated", "gated-attention", 31), ("ungated", "attention", 30)] {
        let folder = Folder::new();
        let input = example(&format!("bags_{kind}.safetensors"));
        let params = example_str(&format!("attention_{kind}.safetensors"));
        let (out, table, notes) = pooled(&folder, &input, &["--pooling", pooling, "--params", &params]);

        assert_eq!(out.names(), BTreeSet::from(["pooled", "weights", "scores"]));
        assert_eq!(out.get("pooled").shape, [64, 1, 128]);
        assert_eq!(out.get("scores").shape, [706, 1]);
        assert!(out.get("scores").f32().iter().all(|score| score.is_finite()));
        let bags = File::read(&input);
        let offsets = bags.get("offsets").i64();
        assert_close(&sums(out.get("weights"), &offsets), &[1.0; 64]);

        // The top instance of a bag that holds a 9 is a 9, with the exceptions that the data are known for.
        let weights = out.get("weights").f32();
        let top = |bag: &[i64]| (bag[0]..bag[1]).max_by(|&a, &b| weights[a as usize].total_cmp(&weights[b as usize]));
        let tops: Vec<_> = offsets.windows(2).map(|bag| top(bag).unwrap()).collect();
        let positive = bags.get("labels").bytes.iter().zip(&tops).filter(|&(&label, _)| label == 1);
        assert_eq!(positive.filter(|&(_, &row)| bags.get("digits").bytes[row as usize] == 9).count(), nines);

        // The table names the same instances, and says what it leaves out.
        let lines: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(lines.len(), 21);
        assert_says(lines[10], &["44 lines left out"]);
        let first: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(first[2], format!("{}:", tops[0]));
        assert_eq!(first.len(), 2 + 3 * 2, "{first:?}");
        assert_says(&notes, &["note: ", "projection", "64 to 128", "--project"]);
    }
}

#[test]
fn max_and_mean_of_the_examples() {
    let folder = Folder::new();
    let input = example("bags_gated.safetensors");
    let (mean, _, _) = pooled(&folder, &input, &["--pooling", "mean"]);
    let (max, _, _) = pooled(&folder, &input, &["--pooling", "max"]);
    let (both, _, notes) = pooled(&folder, &input, &["--pooling", "max-mean"]);

    assert_eq!(mean.names(), BTreeSet::from(["pooled"]));
    assert_eq!(max.names(), BTreeSet::from(["pooled", "argmax"]));
    assert_eq!(both.names(), BTreeSet::from(["max", "mean"]));
    assert_eq!(notes, "");
    for (both, alone) in [("max", &max), ("mean", &mean)].map(|(name, file)| (both.get(name), file.get("pooled"))) {
        assert_eq!(both.shape, [64, 128]);
        assert_eq!((&both.shape, &both.bytes), (&alone.shape, &alone.bytes));
    }

    let bags = File::read(&input);
    let (values, offsets) = (bags.get("features").f32(), bags.get("offsets").i64());
    let expected = |fold: fn(&mut dyn Iterator<Item = f32>, f32) -> f32| -> Vec<f32> {
        let column = |bag: &[i64], d: usize| {
            let (start, end) = (bag[0] as usize, bag[1] as usize);
            fold(&mut (start..end).map(|n| values[n * 128 + d]), (end - start) as f32)
        };
        offsets.windows(2).flat_map(|bag| (0..128).map(move |d| column(bag, d))).collect()
    };
    assert_close(&mean.get("pooled").f32(), &expected(|column, size| column.sum::<f32>() / size));
    let maxima = expected(|column, _| column.fold(f32::NEG_INFINITY, f32::max));
    assert_eq!(max.get("pooled").f32(), maxima);
    assert_eq!(max.get("argmax").shape, [64, 128]);
    for (i, row) in max.get("argmax").i64().into_iter().enumerate() {
        assert_eq!(values[row as usize * 128 + i % 128], maxima[i]);
    }
}

#[test]
fn lengths_are_offsets_by_another_name() {
    let folder = Folder::new();
    let run = |bags: Entry| {
        let input = folder.write("in.safetensors", &serialize(&[features(), bags]));
        pooled(&folder, &input, &["--pooling", "max"])
    };
    let (by_offsets, by_lengths) = (run(i64s("offsets", &[0, 2, 2, 6])), run(i64s("lengths", &[2, 0, 4])));
    assert_eq!(by_offsets.0.0, by_lengths.0.0);
    assert_eq!(by_offsets.0.get("pooled").f32(), [2.0, 3.0, 0.0, 0.0, 10.0, 11.0]);
    assert_eq!(by_offsets.0.get("argmax").i64(), [1, 1, -1, -1, 5, 5]);
    assert_eq!(by_offsets.1, by_lengths.1);
}

#[test]
fn masked_instances_are_not_there() {
    let folder = Folder::new();
    let mask = u8s("mask", &[6], [1, 1, 0, 0, 1, 0]);
    let nan_where_masked = [0.0, 1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, f32::NAN];
    let features = f32s("features", &[6, 2], nan_where_masked);
    let input = folder.write("in.safetensors", &serialize(&[features, i64s("lengths", &[2, 2, 2]), mask]));
    let (out, table, _) = pooled(&folder, &input, &["--pooling", "mean"]);
    assert_eq!(out.get("pooled").f32(), [1.0, 2.0, 0.0, 0.0, 8.0, 9.0]);
    let sizes: Vec<&str> = table.lines().skip(3).map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(sizes, ["2", "0", "1"]);

    let params = folder.write("params.safetensors", &serialize(&checkpoint(1)));
    let arguments = ["--pooling", "gated-attention", "--params", params.to_str().unwrap(), "--top", "9"];
    let (out, table, _) = pooled(&folder, &input, &arguments);
    assert_close(&sums(out.get("weights"), &[0, 2, 4, 6]), &[1.0, 0.0, 1.0]);
    assert_eq!(out.get("weights").f32()[4..], [1.0, 0.0]);
    assert_eq!(out.get("scores").f32()[5], f32::NEG_INFINITY);
    assert!(!table.contains("5:"), "{table}");
}

#[test]
fn sixteen_bit_features() {
    let folder = Folder::new();
    let values = || (0..12_u8).map(f32::from);
    let halves = entry("features", Dtype::F16, &[6, 2], values().map(|v| f16::from_f32(v).to_le_bytes()));
    let bfloats = entry("features", Dtype::BF16, &[6, 2], values().map(|v| bf16::from_f32(v).to_le_bytes()));
    for features in [features(), halves, bfloats] {
        let input = folder.write("in.safetensors", &serialize(&[features, i64s("lengths", &[2, 4])]));
        let (out, _, notes) = pooled(&folder, &input, &["--pooling", "mean"]);
        assert_eq!(out.get("pooled").f32(), [1.0, 2.0, 7.0, 8.0]);
        assert_eq!(notes, "");
    }
}

#[test]
fn misaligned_features_are_copied_and_it_says_so() {
    let folder = Folder::new();
    let entries = [u8s("mask", &[6], [1; 6]), features(), i64s("lengths", &[2, 4])];
    // A header of every length modulo 8 puts the features at every alignment.
    let mut notes_seen = BTreeSet::new();
    for extra in 0..8 {
        let other = u8s(&"x".repeat(extra + 1), &[1], [0]);
        let input = folder.write("in.safetensors", &serialize_packed(&[&[other][..], &entries[..]].concat()));
        let (out, _, notes) = pooled(&folder, &input, &["--pooling", "mean"]);
        assert_eq!(out.get("pooled").f32(), [1.0, 2.0, 7.0, 8.0]);
        notes_seen.insert(notes);
    }
    let expected = "note: features: not aligned for its type in the file, so its 48 bytes were copied\n";
    assert_eq!(notes_seen, BTreeSet::from([String::new(), expected.to_owned()]));
}

#[test]
fn several_heads() {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[2, 0, 4])]));
    let params = folder.write("params.safetensors", &serialize(&checkpoint(3)));
    let plot = folder.path("plot.png");
    let arguments =
        ["--pooling", "gated-attention", "--params", params.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let (out, table, _) = pooled(&folder, &input, &arguments);
    assert_eq!(out.get("pooled").shape, [3, 3, 2]);
    assert_eq!(out.get("weights").shape, [6, 3]);
    assert_close(&sums(out.get("weights"), &[0, 2, 2, 6]), &[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(table.lines().skip(3).count(), 9, "a line per bag and head: {table}");
    assert!(image::open(plot).is_ok());
}

#[test]
fn a_projection_is_applied_where_asked() {
    let folder = Folder::new();
    let params = folder.write("params.safetensors", &serialize(&checkpoint_with_projection()));
    let params = ["--pooling", "gated-attention", "--params", params.to_str().unwrap()];
    let wide = f32s("features", &[2, 3], [1.0, -2.0, 9.0, 3.0, 4.0, 9.0]);
    let input = folder.write("in.safetensors", &serialize(&[wide, i64s("lengths", &[1, 1])]));

    let (out, _, notes) = pooled(&folder, &input, &[&params[..], &["--project"]].concat());
    assert_eq!(out.get("pooled").shape, [2, 1, 2]);
    assert_close(&out.get("pooled").f32(), &[1.0, 0.0, 3.0, 4.0]);
    assert_eq!(notes, "", "a projection that is used needs no mention");

    let line = refused(&folder, &input, &params);
    assert_says(&line, &["features", "D = 2", "got 3", "--project"]);

    let narrow = folder.write("narrow.safetensors", &serialize(&[features(), i64s("lengths", &[6])]));
    let (_, _, notes) = pooled(&folder, &narrow, &params);
    assert_says(&notes, &["note: ", "projection", "3 to 2", "--project"]);
    let line = refused(&folder, &narrow, &[&params[..], &["--project"]].concat());
    assert_says(&line, &["features", "D = 3", "projection", "got 2"]);
}

#[test]
fn no_bags() {
    let folder = Folder::new();
    let params = folder.write("params.safetensors", &serialize(&checkpoint(1)));
    let none = [f32s("features", &[0, 2], []), i64s("offsets", &[0])];
    let input = folder.write("in.safetensors", &serialize(&none));
    let (out, _, _) = pooled(&folder, &input, &["--pooling", "max-mean"]);
    assert_eq!((&out.get("max").shape[..], &out.get("mean").shape[..]), (&[0, 2][..], &[0, 2][..]));
    let plot = folder.path("plot.svg");
    let arguments =
        ["--pooling", "gated-attention", "--params", params.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let (out, _, _) = pooled(&folder, &input, &arguments);
    assert_eq!((&out.get("pooled").shape[..], &out.get("weights").shape[..]), (&[0, 1, 2][..], &[0, 1][..]));
    assert_svg(&plot);
}

#[test]
fn nan_features_stay_in_their_bag() {
    let folder = Folder::new();
    let features = f32s("features", &[3, 2], [f32::NAN, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let input = folder.write("in.safetensors", &serialize(&[features, i64s("lengths", &[2, 1])]));
    let (out, _, _) = pooled(&folder, &input, &["--pooling", "max"]);
    let max = out.get("pooled").f32();
    assert!(max[0].is_nan());
    assert_eq!(max[1..], [3.0, 4.0, 5.0]);
    assert_eq!(out.get("argmax").i64(), [0, 1, 2, 2]);

    let params = folder.write("params.safetensors", &serialize(&checkpoint(1)));
    let plot = folder.path("plot.png");
    let arguments =
        ["--pooling", "gated-attention", "--params", params.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let (out, table, _) = pooled(&folder, &input, &arguments);
    assert!(out.get("weights").f32()[0].is_nan());
    assert_eq!(out.get("weights").f32()[2], 1.0);
    assert_says(&table, &["NaN"]);
    assert!(image::open(plot).is_ok());
}

#[test]
fn top_is_as_many_as_asked_for() {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[2, 4])]));
    for (top, counts) in [("0", [0, 0]), ("3", [1, 1]), ("99", [1, 1])] {
        let run = pool(&input, &["--pooling", "max", "--top", top]);
        // The last row of each bag holds all maxima.
        let shown: Vec<_> = text(&run.stdout).lines().skip(3).map(|line| line.matches(':').count()).collect();
        assert_eq!(shown, counts, "--top {top}");
    }
}

// ---- bags larger than the memory ----

/// Forty rows of two features in bags of 0, 13, 1, 0 and 26, of which a mask takes some.
fn uneven_bags(dtype: Dtype, masked: bool) -> Vec<Entry> {
    let values = || (0..80).map(|i| (i as f32 * 0.7).sin() * 3.0);
    let features = match dtype {
        Dtype::F16 => entry("features", dtype, &[40, 2], values().map(|value| f16::from_f32(value).to_le_bytes())),
        Dtype::BF16 => entry("features", dtype, &[40, 2], values().map(|value| bf16::from_f32(value).to_le_bytes())),
        _ => f32s("features", &[40, 2], values()),
    };
    let mut entries = vec![features, i64s("lengths", &[0, 13, 1, 0, 26])];
    entries.extend(masked.then(|| u8s("mask", &[40], (0..40).map(|row| u8::from(row % 5 != 2)))));
    entries
}

/// Results under a bound agree with those without; those that no cut changes, bit for bit.
fn assert_same_results(bounded: &File, whole: &File, context: &str) {
    assert_eq!(bounded.names(), whole.names(), "{context}");
    for (bounded, whole) in bounded.0.iter().zip(&whole.0) {
        assert_eq!((bounded.dtype, &bounded.shape), (whole.dtype, &whole.shape), "{context}");
        let rounds = whole.dtype == Dtype::F32 && ["pooled", "mean", "weights"].contains(&whole.name.as_str());
        if rounds {
            assert_close(&bounded.f32(), &whole.f32());
        } else {
            assert_eq!(bounded, whole, "{context}");
        }
    }
}

#[test]
fn a_bound_on_memory_changes_results_within_rounding() {
    let folder = Folder::new();
    let params = folder.write("params.safetensors", &serialize(&checkpoint(2)));
    let attention = ["--pooling", "gated-attention", "--params", params.to_str().unwrap()];
    // 4 + 2 + 4 + 2 + 4 + 2 parameters, in memory twice.
    let parameters = 2 * 4 * 18;
    for (dtype, size) in [(Dtype::F32, 4), (Dtype::F16, 2), (Dtype::BF16, 2)] {
        for masked in [false, true] {
            // Misaligned features need no copy where they are read.
            let odd = u8s("odd", &[1], [0]);
            let entries = [vec![odd], uneven_bags(dtype, masked)].concat();
            let input = folder.write("in.safetensors", &serialize_packed(&entries));
            for arguments in [&["--pooling", "mean"][..], &["--pooling", "max"], &["--pooling", "max-mean"], &attention]
            {
                let fixed = if arguments.len() > 2 { parameters } else { 0 };
                let (whole, table, _) = pooled(&folder, &input, arguments);
                for rows in [1, 2, 5, 13, 25, 26, 40] {
                    let bound = (fixed + rows * 2 * size).to_string();
                    let (bounded, bounded_table, notes) =
                        pooled(&folder, &input, &[arguments, &["--memory", &bound]].concat());
                    let context = format!("{arguments:?} {dtype} {rows} rows, masked: {masked}");
                    assert_same_results(&bounded, &whole, &context);
                    if rows >= 26 {
                        assert_eq!((&bounded.0, &bounded_table), (&whole.0, &table), "{context}: nothing was cut");
                    }
                    assert_eq!(notes, "");
                }
            }
        }
    }
}

#[test]
fn bags_that_fit_the_memory_are_the_same_bit_for_bit() {
    let folder = Folder::new();
    let input = example("bags_gated.safetensors");
    let params = example_str("attention_gated.safetensors");
    let arguments = ["--pooling", "gated-attention", "--params", &params];
    let (whole, _, _) = pooled(&folder, &input, &arguments);
    // Twelve rows beside the parameters: V and U 64 × 128, their biases, w and its bias.
    let bound = (2 * 4 * (2 * 64 * 128 + 3 * 64 + 1) + 12 * 128 * 4).to_string();
    let (bounded, _, _) = pooled(&folder, &input, &[&arguments[..], &["--memory", &bound]].concat());
    assert_same_results(&bounded, &whole, "twelve rows");
    let offsets = File::read(&input).get("offsets").i64();
    let rows = |file: &File, b: usize| file.get("pooled").f32()[b * 128..(b + 1) * 128].to_vec();
    let (fit, cut): (Vec<usize>, Vec<usize>) = (0..64).partition(|&b| offsets[b + 1] - offsets[b] <= 12);
    assert!(fit.iter().all(|&b| rows(&bounded, b) == rows(&whole, b)));
    assert!(cut.len() > 9 && cut.iter().any(|&b| rows(&bounded, b) != rows(&whole, b)), "some were cut");
}

#[test]
fn a_bound_on_memory_beside_other_options() {
    let folder = Folder::new();
    let params = folder.write("params.safetensors", &serialize(&checkpoint_with_projection()));
    let wide = f32s("features", &[9, 3], (0..27_u8).map(|i| f32::from(i * 5 % 7) - 3.0));
    let images = u8s("images", &[9, 2, 2], 0..36);
    let input = folder.write("in.safetensors", &serialize(&[wide, i64s("lengths", &[2, 7]), images]));
    let plot = folder.path("plot.svg");
    let arguments = ["--pooling", "gated-attention", "--project", "--top", "2", "--params", params.to_str().unwrap()];
    let arguments = [&arguments[..], &["--plot", plot.to_str().unwrap()]].concat();
    let (whole, table, _) = pooled(&folder, &input, &arguments);
    let bars = assert_svg(&plot);
    // 4 + 2 + 4 + 2 + 2 + 1 parameters and 6 + 2 of the projection, in memory twice, and three rows.
    let bound = (2 * 4 * 23 + 3 * 3 * 4).to_string();
    let (bounded, bounded_table, _) = pooled(&folder, &input, &[&arguments[..], &["--memory", &bound]].concat());
    assert_same_results(&bounded, &whole, "projected");
    assert_eq!(bounded_table, table);
    assert_eq!(assert_svg(&plot), bars);
}

#[test]
fn bounds_that_are_too_small() {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[6])]));
    let params = folder.write("params.safetensors", &serialize(&checkpoint(1)));
    let mean = |bound| refused(&folder, &input, &["--pooling", "mean", "--memory", bound]);
    assert_says(&mean("7"), &["--memory", "at least 8 bytes", "row of features", "got 7"]);
    assert_says(&mean("0"), &["--memory", "got 0"]);
    let attention = ["--pooling", "gated-attention", "--params", params.to_str().unwrap(), "--memory"];
    let least = 2 * 4 * 15 + 8;
    let line = refused(&folder, &input, &[&attention[..], &[&(least - 1).to_string()]].concat());
    assert_says(&line, &["--memory", &format!("at least {least} bytes"), "parameters"]);
    pooled(&folder, &input, &[&attention[..], &[&least.to_string()]].concat());
}

#[test]
fn no_order_changes_a_bit_of_what_is_pooled_exactly() {
    let folder = Folder::new();
    let params = folder.write("params.safetensors", &serialize(&checkpoint(2)));
    let attention = ["--pooling", "gated-attention", "--params", params.to_str().unwrap()];
    let row = |i: usize| [(i as f32 * 0.7).sin() * 1e3, (i as f32 * 1.3).cos() * 10.0_f32.powi(i as i32 % 7 - 3)];
    let file = |name: &str, order: &mut dyn Iterator<Item = usize>| {
        let features = f32s("features", &[300, 2], order.flat_map(row));
        folder.write(name, &serialize(&[features, i64s("lengths", &[300])]))
    };
    let [one, other] =
        [file("one.safetensors", &mut (0..300)), file("other.safetensors", &mut (0..300).map(|i| i * 7 % 300))];
    // Of attention, beside 18 parameters that are in memory twice.
    let bounds = ["", "500", "1KiB"].map(|bound| if bound.is_empty() { vec![] } else { vec!["--memory", bound] });
    for arguments in [&["--pooling", "mean"][..], &["--pooling", "max-mean"], &attention] {
        let pooled = |input: &Path, more: &[&str]| {
            let (file, _, _) = pooled(&folder, input, &[arguments, more].concat());
            let names = ["pooled", "max", "mean"];
            names.map(|name| file.names().contains(&name).then(|| file.get(name).f32()))
        };
        let expected = pooled(&one, &["--order", "exact"]);
        for bound in &bounds {
            let exact = [&bound[..], &["--order", "exact"]].concat();
            assert_eq!(
                (pooled(&one, &exact), pooled(&other, &exact)),
                (expected.clone(), expected.clone()),
                "{bound:?}"
            );
        }
        assert_ne!(pooled(&other, &[]), pooled(&one, &[]), "what the default order changes");
    }
}

/// What `--memory` is for: a file, and a bag, sixteen times as large as the bound.
#[cfg(target_os = "linux")]
#[test]
fn the_memory_of_features_stays_within_its_bound() {
    use std::io::Read;

    const ROWS: usize = 65536;
    const DIM: usize = 256;
    let folder = Folder::new();
    let row: Vec<f32> = (0..DIM).map(|i| (i as f32 * 0.3).cos()).collect();
    let features = f32s("features", &[ROWS, DIM], row.iter().copied().cycle().take(ROWS * DIM));
    let input = folder.write("in.safetensors", &serialize(&[features, i64s("lengths", &[6, ROWS as i64 - 6])]));
    let layers = [f32s("attention.0.weight", &[1, DIM], row), f32s("attention.2.weight", &[1, 1], [1.0])];
    let params = folder.write("params.safetensors", &serialize(&layers));

    // The table is longer than a pipe holds: once it has begun, the process has done its work and waits for a reader.
    let peak = |memory: &[&str]| {
        let mut command = mivc();
        command.arg(&input).args(["--pooling", "attention", "--top", "65536", "--params"]).arg(&params).args(memory);
        // Each thread has buffers and a stack of its own.
        command.env("RAYON_NUM_THREADS", "2");
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    };
    let mebibyte = 1 << 20;
    let (whole, bounded) = (peak(&[]), peak(&["--memory", "4MiB"]));
    assert!(whole > 64 * mebibyte, "all of the features: {whole}");
    assert!(bounded < (4 + 28) * mebibyte, "the bound and what the process itself takes: {bounded}");
}

// ---- the plot ----

/// Well-formed; how many rectangles it has.
fn assert_svg(path: &Path) -> usize {
    let svg = fs::read_to_string(path).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    assert_eq!(document.root_element().tag_name().name(), "svg");
    document.descendants().filter(|node| node.tag_name().name() == "rect").count()
}

/// The distinct colours of a picture.
fn colors(path: &Path) -> BTreeSet<[u8; 3]> {
    image::open(path).unwrap().to_rgb8().pixels().map(|pixel| pixel.0).collect()
}

#[test]
fn plots_of_the_examples() {
    let folder = Folder::new();
    let params = example_str("attention_gated.safetensors");
    for name in ["plot.png", "plot.PNG", "plot.svg"] {
        let plot = folder.path(name);
        let arguments = ["--pooling", "gated-attention", "--params", &params, "--plot", plot.to_str().unwrap()];
        let run = pool(&example("bags_gated.safetensors"), &arguments);
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        if name == "plot.svg" {
            let svg = fs::read_to_string(&plot).unwrap();
            assert_says(&svg, &["Gated attention, first 16 of 64 bags", "bag 0", "bag 15", "12 instances"]);
            assert!(!svg.contains("bag 16"));
            assert!(assert_svg(&plot) > 16 * 12);
        } else {
            let picture = image::open(&plot).unwrap();
            assert!(picture.width() > 1000 && picture.height() > 800);
        }
    }
}

#[test]
fn thumbnails_have_the_colours_of_the_images() {
    let folder = Folder::new();
    let params = folder.write("params.safetensors", &serialize(&checkpoint(1)));
    let plot = folder.path("plot.png");
    let red_and_teal = (0..6 * 4 * 5).flat_map(|pixel| if pixel % 2 == 0 { [250, 3, 7] } else { [3, 130, 131] });
    let colour = u8s("images", &[6, 4, 5, 3], red_and_teal);
    // Grey levels 0 to 16 alone must not come out black.
    let grey = u8s("images", &[6, 4, 5], (0..6 * 4 * 5).map(|pixel| if pixel % 2 == 0 { 0 } else { 16 }));
    let large = u8s("images", &[6, 300, 200, 3], [9, 99, 199].repeat(6 * 300 * 200));
    let expected: [(Entry, &[[u8; 3]]); 3] =
        [(colour, &[[250, 3, 7], [3, 130, 131]]), (grey, &[[0; 3], [255; 3]]), (large, &[[9, 99, 199]])];
    for (images, expected) in expected {
        let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[2, 4]), images]));
        let arguments =
            ["--pooling", "gated-attention", "--params", params.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
        let run = pool(&input, &arguments);
        assert_eq!(run.status.code(), Some(0), "{}", text(&run.stderr));
        let colors = colors(&plot);
        assert!(expected.iter().all(|color| colors.contains(color)), "{expected:?}");
    }
}

// ---- what it refuses ----

#[test]
fn options_that_do_not_go_together() {
    let folder = Folder::new();
    let (input, out) = (example("bags_gated.safetensors"), folder.path("plot.jpg"));
    let (gated, ungated) = (example_str("attention_gated.safetensors"), example_str("attention_ungated.safetensors"));
    let cases: &[(&[&str], &[&str])] = &[
        (&["mean", "--device", "cuda:4096"], NO_SUCH_DEVICE),
        (&["attention"], &["--pooling attention", "--params"]),
        (&["gated-attention"], &["--pooling gated-attention", "--params"]),
        (&["mean", "--params", &gated], &["--params", "mean"]),
        (&["max-mean", "--project"], &["--project", "max-mean"]),
        (&["max", "--plot", "plot.png"], &["--plot", "max"]),
        (&["gated-attention", "--params", &ungated], &["gated-attention", "parameters of attention"]),
        (&["attention", "--params", &gated], &["--pooling attention", "parameters of gated-attention"]),
        (&["gated-attention", "--params", &gated, "--plot", out.to_str().unwrap()], &["--plot", ".png or .svg"]),
        (&["gated-attention", "--params", &gated, "--project"], &["features", "D = 64", "got 128"]),
        (&["gated-attention", "--params", "no/such.safetensors"], &["no/such.safetensors"]),
        (&["gated-attention", "--params", EXAMPLES], &[EXAMPLES]),
    ];
    for (arguments, parts) in cases {
        assert_says(&refused(&folder, &input, &[&["--pooling"], *arguments].concat()), parts);
    }
}

#[test]
fn usage_errors_are_claps_own() {
    let input = example("bags_gated.safetensors");
    let size = ["--pooling", "mean", "--memory", "much"];
    for arguments in [&["--pooling", "median"][..], &[], &["--pooling", "mean", "--device", "tpu"], &["--sum"], &size] {
        let run = pool(&input, arguments);
        assert_eq!(run.status.code(), Some(2));
        assert!(text(&run.stderr).starts_with("error: "), "{}", text(&run.stderr));
    }
}

#[test]
fn malformed_bags() {
    let offsets = |values: &[i64]| refused_file(&[features(), i64s("offsets", values)]);
    assert_says(&offsets(&[]), &["offsets", "got none"]);
    assert_says(&offsets(&[1, 6]), &["offsets[0]", "expected 0", "got 1"]);
    assert_says(&offsets(&[0, 4, 3, 6]), &["offsets[2]", "at least 4", "got 3"]);
    assert_says(&offsets(&[0, 4, 5]), &["offsets", "N = 6", "got 5"]);
    assert_says(&offsets(&[0, 4, 7]), &["offsets", "N = 6", "got 7"]);
    assert_says(&offsets(&[0, i64::MAX]), &["offsets", "N = 6"]);
    assert_says(&offsets(&[0, -1]), &["offsets[1]", "got -1"]);
    assert_says(&offsets(&[0]), &["offsets", "N = 6", "got 0"]);

    let lengths = |values: &[i64]| refused_file(&[features(), i64s("lengths", values)]);
    assert_says(&lengths(&[4, 1]), &["lengths", "N = 6", "got 5"]);
    assert_says(&lengths(&[7, -1]), &["lengths[1]", "got -1"]);
    assert_says(&lengths(&[i64::MAX, 7]), &["lengths[1]"]);
    assert_says(&lengths(&[]), &["lengths", "N = 6", "got 0"]);

    let both = refused_file(&[features(), i64s("offsets", &[0, 6]), i64s("lengths", &[6])]);
    assert_says(&both, &["offsets", "lengths", "both"]);
    assert_says(&refused_file(&[features()]), &["offsets", "lengths", "neither"]);

    for name in ["offsets", "lengths"] {
        let wrong_type = entry(name, Dtype::I32, &[2], [0_i32, 6].map(i32::to_le_bytes));
        assert_says(&refused_file(&[features(), wrong_type]), &[name, "i64", "I32"]);
        let square = entry(name, Dtype::I64, &[2, 1], [0_i64, 6].map(i64::to_le_bytes));
        assert_says(&refused_file(&[features(), square]), &[name, "[2, 1]"]);
        let scalar = entry(name, Dtype::I64, &[], [6_i64.to_le_bytes()]);
        assert_says(&refused_file(&[features(), scalar]), &[name, "[]"]);
    }
}

#[test]
fn malformed_tensors() {
    let with = |entry: Entry| refused_file(&[features(), i64s("lengths", &[6]), entry]);
    assert_says(&with(u8s("mask", &[5], [1; 5])), &["mask", "[6]", "[5]"]);
    assert_says(&with(u8s("mask", &[6, 1], [1; 6])), &["mask", "[6]", "[6, 1]"]);
    assert_says(&with(f32s("mask", &[6], [1.0; 6])), &["mask", "u8", "F32"]);
    assert_says(&with(u8s("images", &[6, 2], [1; 12])), &["images", "[6, 2]"]);
    assert_says(&with(u8s("images", &[5, 2, 2], [1; 20])), &["images", "N = 6", "[5, 2, 2]"]);
    assert_says(&with(u8s("images", &[6, 2, 2, 4], [1; 96])), &["images", "[6, 2, 2, 4]"]);
    assert_says(&with(u8s("images", &[6, 0, 2], [])), &["images", "[6, 0, 2]"]);
    assert_says(&with(f32s("images", &[6, 1, 1], [1.0; 6])), &["images", "u8", "F32"]);

    let features = |entry: Entry| refused_file(&[entry, i64s("lengths", &[6])]);
    assert_says(&features(f32s("features", &[6], [1.0; 6])), &["features", "[N, D]", "[6]"]);
    assert_says(&features(f32s("features", &[6, 1, 2], [1.0; 12])), &["features", "[N, D]", "[6, 1, 2]"]);
    assert_says(&features(f32s("features", &[6, 0], [])), &["features", "at least 1", "[6, 0]"]);
    assert_says(&features(u8s("features", &[6, 2], [1; 12])), &["features", "f32, f16 or bf16", "U8"]);
    assert_says(&features(f32s("Features", &[6, 2], [1.0; 12])), &["features", "got none"]);
}

#[test]
fn results_beyond_the_memory() {
    // No row of 2⁵⁰ features, and one empty bag.
    let features = f32s("features", &[0, 1 << 50], []);
    assert_says(&refused_file(&[features, i64s("lengths", &[0])]), &["memory"]);
}

#[test]
fn files_that_are_no_feature_files() {
    let folder = Folder::new();
    let mean = ["--pooling", "mean"];
    let missing = folder.path("missing.safetensors");
    assert_says(&refused(&folder, &missing, &mean), &["missing.safetensors"]);
    assert_says(&refused(&folder, folder.0.path(), &mean), &["expected a regular file"]);
    for (name, bytes) in [("empty", &b""[..]), ("short", b"abc"), ("text", b"these are not the features you want")] {
        let input = folder.write(name, bytes);
        assert_says(&refused(&folder, &input, &mean), &[name, "safetensors"]);
    }
    // A header can hold what would break the line.
    let odd = folder.write("odd", &serialize_packed(&[u8s(r"a\nb\u001b[31m", &[2], [0])]));
    let line = refused(&folder, &odd, &mean);
    assert!(!line.chars().any(char::is_control), "{line:?}");
}

#[test]
fn truncated_files() {
    let folder = Folder::new();
    let entries = [features(), i64s("offsets", &[0, 2, 6]), u8s("images", &[6, 2, 2], [7; 24])];
    let whole = serialize(&entries);
    for length in (0..whole.len()).step_by(7) {
        let input = folder.write("in.safetensors", &whole[..length]);
        assert_says(&refused(&folder, &input, &["--pooling", "mean"]), &["in.safetensors", "safetensors"]);
    }
    let params = serialize(&checkpoint(1));
    let input = folder.write("in.safetensors", &whole);
    for length in (0..params.len()).step_by(37) {
        let params = folder.write("params.safetensors", &params[..length]);
        let arguments = ["--pooling", "gated-attention", "--params", params.to_str().unwrap()];
        assert_says(&refused(&folder, &input, &arguments), &["params.safetensors"]);
    }
}

/// Whatever a file holds, a run ends well or as a refusal.
fn ends_well_or_refuses(bags: &[u8], params: &[u8]) {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", bags);
    let params = folder.write("params.safetensors", params);
    let (out, plot) = (folder.path("out.safetensors"), folder.path("plot.png"));
    let before = folder.contents();
    let mut command = mivc();
    command.arg(&input).args(["--pooling", "gated-attention", "--params"]).arg(&params);
    let run = command.arg("--plot").arg(&plot).arg("-o").arg(&out).output().unwrap();
    if run.status.code() == Some(0) {
        File::read(&out);
        image::open(&plot).unwrap();
    } else {
        refusal(&run);
        assert_eq!(folder.contents(), before);
    }
}

fn flip(mut bytes: Vec<u8>, at: prop::sample::Index, bit: u8) -> Vec<u8> {
    let at = at.index(bytes.len());
    bytes[at] ^= 1 << bit;
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bit_flips_in_the_features(at: prop::sample::Index, bit in 0..8_u8) {
        let entries = [features(), i64s("offsets", &[0, 2, 6]), u8s("images", &[6, 2, 2], [7; 24])];
        ends_well_or_refuses(&flip(serialize(&entries), at, bit), &serialize(&checkpoint(2)));
    }

    #[test]
    fn bit_flips_in_the_checkpoint(at: prop::sample::Index, bit in 0..8_u8) {
        let entries = [features(), i64s("offsets", &[0, 2, 6])];
        ends_well_or_refuses(&serialize(&entries), &flip(serialize(&checkpoint_with_projection()), at, bit));
    }
}

// ---- where it writes ----

#[test]
fn outputs_that_cannot_be_written() {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[6])]));
    let params = folder.write("params.safetensors", &serialize(&checkpoint(1)));
    fs::create_dir(folder.path("directory.png")).unwrap();
    let before = folder.contents();
    let mut targets = vec!["missing/out.png", "in.safetensors/out.png", "directory.png", "..", ""];
    // Not even root may create files here.
    targets.extend(cfg!(target_os = "linux").then_some("/proc/out.png"));
    for target in targets.into_iter().map(|target| folder.path(target)) {
        for option in ["-o", "--plot"].into_iter().filter(|&option| option == "-o" || target.extension().is_some()) {
            let other = if option == "-o" { ["--plot", "other.png"] } else { ["-o", "other.safetensors"] };
            let mut command = mivc();
            command.arg(&input).args(["--pooling", "gated-attention", "--params"]).arg(&params);
            command.args([other[0]]).arg(folder.path(other[1])).arg(option).arg(&target);
            assert_says(&refusal(&command.output().unwrap()), &[option]);
            assert_eq!(folder.contents(), before);
        }
    }
}

#[test]
fn inputs_are_not_overwritten() {
    let folder = Folder::new();
    let input = folder.write("in.png", &serialize(&[features(), i64s("lengths", &[6])]));
    let params = folder.write("params.png", &serialize(&checkpoint(1)));
    let before = folder.contents();
    for target in [&input, &params, &folder.path("./in.png")] {
        for option in ["-o", "--plot"] {
            let mut command = mivc();
            command.arg(&input).args(["--pooling", "gated-attention", "--params"]).arg(&params);
            assert_says(&refusal(&command.arg(option).arg(target).output().unwrap()), &[option, "another file"]);
            assert_eq!(folder.contents(), before);
        }
    }
    let mut command = mivc();
    command.arg(&input).args(["--pooling", "gated-attention", "--params"]).arg(&params);
    let run = command.arg("-o").arg(folder.path("x.png")).arg("--plot").arg(folder.path("./x.png")).output();
    assert_says(&refusal(&run.unwrap()), &["two files"]);
    assert_eq!(folder.contents(), before);
}

#[test]
fn an_output_is_replaced_as_a_whole_and_alone() {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[6])]));
    folder.write("out.safetensors", b"what was here before");
    pooled(&folder, &input, &["--pooling", "mean"]);
    let names: Vec<_> = folder.contents().into_iter().map(|(path, _)| path).collect();
    assert_eq!(names, [input, folder.path("out.safetensors")]);
}

#[cfg(unix)]
#[test]
fn outputs_have_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[6])]));
    pooled(&folder, &input, &["--pooling", "mean"]);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(folder.path("out.safetensors")), mode(input));
}

#[test]
fn a_reader_that_left_is_no_error() {
    let folder = Folder::new();
    let out = folder.path("out.safetensors");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = mivc();
    command.arg(example("bags_gated.safetensors")).args(["--pooling", "max", "-o"]).arg(&out);
    let run = command.stdout(writer).output().unwrap();
    assert_eq!((run.status.code(), text(&run.stderr)), (Some(0), ""));
    assert_eq!(File::read(&out).get("pooled").shape, [64, 128]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_table_that_cannot_be_written_is_an_error() {
    let folder = Folder::new();
    let input = folder.write("in.safetensors", &serialize(&[features(), i64s("lengths", &[6])]));
    let before = folder.contents();
    let mut command = mivc();
    command.arg(&input).args(["--pooling", "max", "-o"]).arg(folder.path("out.safetensors"));
    let run = command.stdout(fs::File::create("/dev/full").unwrap()).output().unwrap();
    assert_says(&refusal(&run), &["standard output"]);
    assert_eq!(folder.contents(), before);
}
