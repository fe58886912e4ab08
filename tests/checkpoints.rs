//! Checkpoints in each known key layout, made here, and files that are wrong in every way.

use std::collections::BTreeMap;

use half::{bf16, f16};
use mivc::error::{CheckpointError, Error};
use mivc::{AttentionParams, AttentionShape, AttentionTensors, Projection};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView, serialize};

const DIM: usize = 5;
const HIDDEN: usize = 3;
/// What goes into a projection.
const INPUT: usize = 4;

/// A safetensors file in the making.
#[derive(Clone, Default)]
struct File(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl File {
    /// Adds a tensor of these values, stored as `dtype`.
    fn store(&mut self, dtype: Dtype, key: impl Into<String>, shape: &[usize], values: &[f32]) -> &mut Self {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        let bytes = values.iter().flat_map(|&value| match dtype {
            Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::I64 => (value as i64).to_le_bytes().to_vec(),
            other => panic!("no test stores {other:?}"),
        });
        self.0.insert(key.into(), (dtype, shape.to_vec(), bytes.collect()));
        self
    }

    /// Adds a tensor of f32 zeros.
    fn zeros(&mut self, key: impl Into<String>, shape: &[usize]) -> &mut Self {
        self.store(Dtype::F32, key, shape, &vec![0.0; shape.iter().product()])
    }

    fn without(&self, key: &str) -> Self {
        let mut file = self.clone();
        assert!(file.0.remove(key).is_some(), "no {key} to leave out");
        file
    }

    fn bytes(&self) -> Vec<u8> {
        let views = self.0.iter().map(|(key, (dtype, shape, bytes))| {
            (key.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor that fits its shape"))
        });
        serialize(views, None).expect("a file")
    }

    fn load(&self) -> mivc::Result<AttentionParams> {
        AttentionParams::from_safetensors(&self.bytes())
    }

    fn error(&self) -> String {
        self.load().expect_err("a file that is refused").to_string()
    }
}

/// Values that every dtype holds exactly, different for each seed.
fn values(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed * 13) % 61) as f32 / 4.0 - 7.0).collect()
}

/// One kind of attention in one layout. Each name stands for a Linear; `{h}` is the head group.
#[derive(Debug, Clone, Copy)]
struct Kind {
    v: &'static str,
    u: Option<&'static str>,
    w: &'static str,
    projection: Option<&'static str>,
    /// Head groups, each with its own V, U and w.
    groups: usize,
    /// Rows of w in each group.
    branches: usize,
}

impl Kind {
    const fn new(v: &'static str, u: Option<&'static str>, w: &'static str) -> Self {
        Kind { v, u, w, projection: None, groups: 1, branches: 1 }
    }

    /// The file and the parameters it holds.
    fn make(self, dtype: Dtype, prefix: &str, biased: bool) -> (File, AttentionParams) {
        let mut file = File::default();
        let mut linear = |seed: usize, name: &str, groups: usize, rows: usize, columns: usize| {
            let weight = values(seed, groups * rows * columns);
            let bias = values(seed + 1, groups * rows);
            for h in 0..groups {
                let layer = format!("{prefix}{}", name.replace("{h}", &h.to_string()));
                let weight = &weight[h * rows * columns..][..rows * columns];
                file.store(dtype, format!("{layer}.weight"), &[rows, columns], weight);
                if biased {
                    file.store(dtype, format!("{layer}.bias"), &[rows], &bias[h * rows..][..rows]);
                }
            }
            (weight, biased.then_some(bias))
        };
        let (v, v_bias) = linear(1, self.v, self.groups, HIDDEN, DIM);
        let (u, u_bias) = self.u.map(|u| linear(3, u, self.groups, HIDDEN, DIM)).unzip();
        let (w, w_bias) = linear(5, self.w, self.groups, self.branches, HIDDEN);
        let projection = self.projection.map(|name| linear(7, name, 1, DIM, INPUT));
        file.zeros(format!("{prefix}classifier.0.weight"), &[2, DIM]).zeros(format!("{prefix}norm.running_mean"), &[7]);

        let heads = self.groups * self.branches;
        let shape = AttentionShape { dim: DIM, hidden: HIDDEN, heads, groups: self.groups };
        let tensors = AttentionTensors {
            v: &v,
            v_bias: v_bias.as_deref(),
            u: u.as_deref(),
            u_bias: u_bias.as_ref().and_then(|bias| bias.as_deref()),
            w: &w,
            w_bias: w_bias.as_deref(),
        };
        let params = AttentionParams::new(shape, tensors).expect("parameters that fit their shape");
        let params = match projection {
            Some((weight, bias)) => params.with_projection(Projection::new(INPUT, weight, bias).unwrap()).unwrap(),
            None => params,
        };
        (file, params)
    }

    /// Loads it with and without a prefix, with and without biases, in every dtype.
    fn check(self) {
        for dtype in [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16] {
            for prefix in ["", "module.", "model.encoder.pool."] {
                for biased in [false, true] {
                    let (file, expected) = self.make(dtype, prefix, biased);
                    let loaded =
                        file.load().unwrap_or_else(|error| panic!("{}, {dtype:?}, {prefix:?}: {error}", self.v));
                    assert_eq!(loaded, expected, "{}, {dtype:?}, {prefix:?}, biased: {biased}", self.v);
                    assert_eq!(loaded.is_gated(), self.u.is_some());
                }
            }
        }
    }
}

const AMLAB: Kind = Kind::new("attention_V.0", Some("attention_U.0"), "attention_w");
const AMLAB_UNGATED: Kind = Kind::new("attention.0", None, "attention.2");
const CLAM: Kind = Kind {
    projection: Some("attention_net.0"),
    ..Kind::new("attention_net.3.attention_a.0", Some("attention_net.3.attention_b.0"), "attention_net.3.attention_c")
};
const ACMIL: Kind = Kind::new("attention_V.0", Some("attention_U.0"), "attention_weights");
const TRIDENT: Kind =
    Kind { groups: 3, ..Kind::new("attention_heads.{h}.0", Some("gating_layers.{h}.0"), "branching_layers.{h}") };
const MIL_LAB: Kind = Kind {
    projection: Some("patch_embed.0"),
    ..Kind::new("global_attn.attention_a.0", Some("global_attn.attention_b.0"), "global_attn.attention_c")
};

#[test]
fn amlab() {
    for kind in [AMLAB, AMLAB_UNGATED] {
        for projection in [None, Some("feature_extractor_part2.0"), Some("feature_extractor.0")] {
            Kind { projection, ..kind }.check();
        }
        Kind { branches: 4, ..kind }.check();
    }
}

#[test]
fn clam() {
    let older = Kind {
        projection: Some("attention_net.0"),
        ..Kind::new(
            "attention_net.2.attention_a.0",
            Some("attention_net.2.attention_b.0"),
            "attention_net.2.attention_c",
        )
    };
    let ungated = |v, w| Kind { projection: Some("attention_net.0"), ..Kind::new(v, None, w) };
    for single_branch in [
        CLAM,
        older,
        ungated("attention_net.3.module.0", "attention_net.3.module.3"),
        ungated("attention_net.3.module.0", "attention_net.3.module.2"),
        ungated("attention_net.2.module.0", "attention_net.2.module.2"),
    ] {
        single_branch.check();
        Kind { branches: 2, ..single_branch }.check();
    }
}

#[test]
fn torchmil() {
    for (v, u) in [("fc1.module", "fc_gated.module"), ("fc1", "fc_gated")] {
        Kind::new(v, Some(u), "fc2").check();
        Kind::new(v, None, "fc2").check();
    }
}

#[test]
fn acmil() {
    for projection in [None, Some("dimreduction.fc1"), Some("dim_reduction.fc1"), Some("feature_extractor_part2.0")] {
        Kind { projection, branches: 5, ..ACMIL }.check();
    }
}

#[test]
fn trident() {
    for branches in [1, 2] {
        Kind { branches, ..TRIDENT }.check();
        Kind { branches, u: None, ..TRIDENT }.check();
        Kind { branches, groups: 12, ..TRIDENT }.check();
        Kind { branches, groups: 1, ..TRIDENT }.check();
    }
}

#[test]
fn mil_lab() {
    for kind in [MIL_LAB, Kind { v: "global_attn.module.0", u: None, w: "global_attn.module.3", ..MIL_LAB }] {
        kind.check();
        Kind { branches: 3, ..kind }.check();
        Kind { projection: None, ..kind }.check();
    }
}

#[test]
fn the_digit_checkpoints() {
    for (name, gated) in [("gated", true), ("ungated", false)] {
        let params = AttentionParams::load(format!("examples/data/attention_{name}.safetensors")).unwrap();
        assert_eq!(params.is_gated(), gated);
        assert_eq!(params.shape(), AttentionShape { dim: 128, hidden: 64, heads: 1, groups: 1 });
        let tensors = params.tensors();
        assert_eq!(tensors.v_bias.map(<[f32]>::len), Some(64));
        assert_eq!(tensors.u_bias.map(<[f32]>::len), gated.then_some(64));
        assert_eq!(tensors.w_bias.map(<[f32]>::len), Some(1));
        let projection = params.projection().expect("the encoder, a Linear+ReLU");
        assert_eq!((projection.input(), projection.output()), (64, 128));
        assert!(projection.bias().is_some());
    }
}

#[test]
fn the_projection_may_lie_beside_the_attention() {
    let (mut file, expected) = ACMIL.make(Dtype::F32, "module.attention.", false);
    let weight = values(7, DIM * INPUT);
    file.store(Dtype::F32, "module.dimreduction.fc1.weight", &[DIM, INPUT], &weight);
    // A bigger one further out is not its.
    file.zeros("dimreduction.fc1.weight", &[DIM, INPUT + 1]);
    let projection = Projection::new(INPUT, weight, None).unwrap();
    assert_eq!(file.load().unwrap(), expected.with_projection(projection).unwrap());
}

#[test]
fn what_is_no_projection_is_ignored() {
    let (attention, expected) = Kind { projection: None, ..MIL_LAB }.make(Dtype::F32, "", true);
    let with = |tensors: &[(&str, &[usize])]| {
        let mut file = attention.clone();
        for (key, shape) in tensors {
            file.zeros(*key, shape);
        }
        file.load().unwrap()
    };
    assert!(with(&[("patch_embed.0.weight", &[DIM, INPUT])]).projection().is_some());
    // Another output, a convolution, nothing in.
    assert_eq!(with(&[("patch_embed.0.weight", &[DIM + 1, INPUT])]), expected);
    assert_eq!(with(&[("patch_embed.0.weight", &[DIM, INPUT, 3, 3])]), expected);
    assert_eq!(with(&[("patch_embed.0.weight", &[DIM, 0])]), expected);
    // A second layer, which the attention reads in its place; the same for a normalisation.
    assert_eq!(with(&[("patch_embed.0.weight", &[DIM, INPUT]), ("patch_embed.3.weight", &[DIM, DIM])]), expected);
    assert_eq!(with(&[("patch_embed.0.weight", &[DIM, INPUT]), ("patch_embed.1.weight", &[DIM])]), expected);
    // A bias alone, and the projection of another layout.
    assert_eq!(with(&[("patch_embed.0.bias", &[DIM])]), expected);
    assert_eq!(with(&[("attention_net.0.weight", &[DIM, INPUT])]), expected);
}

#[test]
fn non_finite_numbers_are_kept() {
    let (mut file, _) = AMLAB_UNGATED.make(Dtype::F32, "", false);
    file.store(Dtype::F64, "attention.2.weight", &[1, HIDDEN], &[f32::NAN, f32::INFINITY, -0.0]);
    let params = file.load().unwrap();
    let w = params.tensors().w;
    assert!(w[0].is_nan() && w[1] == f32::INFINITY && w[2].to_bits() == (-0.0_f32).to_bits());
}

#[test]
fn an_unknown_layout_lists_the_known_ones_and_the_keys() {
    let mut file = File::default();
    assert_eq!(
        file.error(),
        "checkpoint: expected one of the layouts AMLab, CLAM, torchmil, ACMIL/DTFD, TRIDENT, MIL-Lab, got the keys none"
    );
    file.zeros("b.weight", &[1, 1]).zeros("a\n.weight", &[1, 1]);
    assert!(file.error().ends_with(r"got the keys a\n.weight, b.weight"), "{}", file.error());
    for i in 0..13 {
        file.zeros(format!("layer.{i:02}"), &[1]);
    }
    assert!(file.error().ends_with("layer.08, layer.09 and 3 more"), "{}", file.error());
    assert!(matches!(file.load(), Err(Error::Checkpoint(CheckpointError::UnknownLayout { .. }))));
}

#[test]
fn names_count_only_whole_and_under_one_prefix() {
    // No dot before the name; V and w under different prefixes; a head group without a number.
    for keys in [
        ["my_attention_V.0.weight", "my_attention_w.weight"],
        ["a.attention_V.0.weight", "b.attention_w.weight"],
        ["attention_heads..0.weight", "branching_layers..weight"],
    ] {
        let mut file = File::default();
        file.zeros(keys[0], &[HIDDEN, DIM]).zeros(keys[1], &[1, HIDDEN]);
        assert!(matches!(file.load(), Err(Error::Checkpoint(CheckpointError::UnknownLayout { .. }))), "{keys:?}");
    }
}

#[test]
fn two_attentions_are_refused() {
    let (mut file, _) = ACMIL.make(Dtype::F32, "attention.", false);
    file.0.extend(ACMIL.make(Dtype::F32, "att_classifier.attention.", false).0.0);
    assert_eq!(
        file.error(),
        "checkpoint: expected one attention, got att_classifier.attention.attention_V.0 (ACMIL/DTFD), \
         attention.attention_V.0 (ACMIL/DTFD)"
    );

    let (mut file, _) = AMLAB.make(Dtype::F32, "", false);
    file.0.extend(MIL_LAB.make(Dtype::F32, "", false).0.0);
    assert_eq!(
        file.error(),
        "checkpoint: expected one attention, got attention_V.0 (AMLab), global_attn.attention_a.0 (MIL-Lab)"
    );
    assert!(matches!(file.load(), Err(Error::Checkpoint(CheckpointError::Ambiguous { .. }))));
}

#[test]
fn missing_keys_are_named() {
    let (file, _) = CLAM.make(Dtype::F32, "model.", true);
    for key in ["model.attention_net.3.attention_a.0.weight", "model.attention_net.3.attention_c.weight"] {
        let expected = format!("checkpoint (CLAM): expected the key {key}, got none of that name");
        assert_eq!(file.without(key).error(), expected);
    }
    // The bias of a U makes it gated as well.
    let key = "model.attention_net.3.attention_b.0.weight";
    assert!(file.without(key).error().contains(key));

    // Every tensor of a head group is needed, be the group the last, the first or one between.
    let (file, _) = TRIDENT.make(Dtype::F32, "", true);
    for (key, _) in file.0.iter().filter(|(key, _)| !key.starts_with("classifier") && !key.starts_with("norm")) {
        let expected = format!("checkpoint (TRIDENT): expected the key {key}, got none of that name");
        assert_eq!(file.without(key).error(), expected);
    }
}

#[test]
fn wrong_shapes_are_named() {
    let (file, _) = AMLAB.make(Dtype::F32, "", true);
    let with = |key: &str, shape: &[usize]| file.clone().zeros(key, shape).error();
    assert_eq!(with("attention_V.0.weight", &[3]), "attention_V.0.weight: expected shape [L >= 1, D >= 1], got [3]");
    assert_eq!(
        with("attention_V.0.weight", &[0, 5]),
        "attention_V.0.weight: expected shape [L >= 1, D >= 1], got [0, 5]"
    );
    assert_eq!(
        with("attention_V.0.weight", &[3, 0]),
        "attention_V.0.weight: expected shape [L >= 1, D >= 1], got [3, 0]"
    );
    assert_eq!(with("attention_V.0.bias", &[5]), "attention_V.0.bias: expected shape [3], got [5]");
    assert_eq!(with("attention_U.0.weight", &[5, 3]), "attention_U.0.weight: expected shape [3, 5], got [5, 3]");
    assert_eq!(with("attention_U.0.bias", &[1, 3]), "attention_U.0.bias: expected shape [3], got [1, 3]");
    assert_eq!(with("attention_w.weight", &[0, 3]), "attention_w.weight: expected shape [K >= 1, 3], got [0, 3]");
    assert_eq!(with("attention_w.weight", &[1, 4]), "attention_w.weight: expected shape [K >= 1, 3], got [1, 4]");
    assert_eq!(with("attention_w.bias", &[]), "attention_w.bias: expected shape [1], got []");

    let (file, _) = Kind { branches: 2, ..TRIDENT }.make(Dtype::F32, "", true);
    let with = |key: &str, shape: &[usize]| file.clone().zeros(key, shape).error();
    assert_eq!(
        with("branching_layers.2.weight", &[1, 3]),
        "branching_layers.2.weight: expected shape [2, 3], got [1, 3]"
    );

    let (mut file, _) = MIL_LAB.make(Dtype::F32, "", true);
    file.zeros("patch_embed.0.bias", &[INPUT]);
    assert_eq!(file.error(), "patch_embed.0.bias: expected shape [5], got [4]");
}

#[test]
fn wrong_dtypes_are_named() {
    let (mut file, _) = AMLAB_UNGATED.make(Dtype::F32, "", true);
    // Not of a tensor that nobody reads.
    file.store(Dtype::I64, "norm.num_batches_tracked", &[], &[1.0]);
    assert!(file.load().is_ok());
    file.store(Dtype::I64, "attention.2.bias", &[1], &[1.0]);
    assert_eq!(file.error(), "attention.2.bias: expected f64, f32, f16 or bf16, got i64");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = AttentionParams::load("examples/data/no such file").unwrap_err();
    assert!(matches!(error, Error::Checkpoint(CheckpointError::Io { .. })));
    assert!(error.to_string().starts_with("examples/data/no such file: "), "{error}");
}

/// A file with this header and this many bytes of data.
fn raw(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn hostile_headers_are_errors() {
    let header = |shape: &str, end: usize| {
        let v = format!(r#""attention.0.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#);
        let w = format!(r#""attention.2.weight":{{"dtype":"F32","shape":[1,1],"data_offsets":[{end},{}]}}"#, end + 4);
        format!("{{{v},{w}}}")
    };
    let load = |bytes: &[u8]| AttentionParams::from_safetensors(bytes).map_err(|error| error.to_string());
    assert!(load(&raw(&header("[1,2]", 8), 12)).is_ok(), "the file that the others spoil");
    for (shape, end) in [
        ("[0,2]", 0),
        ("[1,0]", 0),
        ("[4611686018427387904,0]", 0),
        ("[4611686018427387904,4]", 0),
        ("[18446744073709551615,18446744073709551615]", 8),
        ("[18446744073709551616,1]", 8),
        ("[-1,2]", 8),
        ("[1,3]", 8),
    ] {
        assert!(load(&raw(&header(shape, end), end + 4)).is_err(), "{shape}");
    }
    for bytes in [&[][..], &[0; 7], &[0; 8], &[255; 8], &[255; 64], b"\x02\0\0\0\0\0\0\0[]", b"\x01\0\0\0\0\0\0\0\xff"]
    {
        assert!(load(bytes).is_err(), "{bytes:?}");
    }
    let dtype = raw(r#"{"a":{"dtype":"F\n32","shape":[],"data_offsets":[0,0]}}"#, 0);
    let message = load(&dtype).unwrap_err();
    assert!(message.contains("`F 32`"), "one line, whatever the file says: {message}");
}

#[test]
fn truncated_files_are_errors() {
    for kind in [CLAM, TRIDENT] {
        let (file, _) = kind.make(Dtype::F16, "model.", true);
        let bytes = file.bytes();
        assert!(AttentionParams::from_safetensors(&bytes).is_ok());
        for end in 0..bytes.len() {
            let error = AttentionParams::from_safetensors(&bytes[..end]).unwrap_err();
            assert!(matches!(error, Error::Checkpoint(CheckpointError::Format(_))), "{end}: {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever bits flip, the outcome is parameters that fit their shape, or an error of one line.
    #[test]
    fn flipped_bits_never_panic(
        kind in prop::sample::select(vec![AMLAB, AMLAB_UNGATED, CLAM, ACMIL, TRIDENT, MIL_LAB]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..6),
        in_header in any::<bool>(),
    ) {
        let mut bytes = kind.make(Dtype::BF16, "", true).0.bytes();
        // Most of what can go wrong is in the header, which is also the longer part.
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let reach = if in_header { 8 + header } else { bytes.len() };
        for (at, bit) in flips {
            bytes[at.index(reach)] ^= 1 << bit;
        }
        match AttentionParams::from_safetensors(&bytes) {
            Ok(params) => {
                let AttentionShape { dim, hidden, heads, groups } = params.shape();
                prop_assert_eq!(params.tensors().v.len(), groups * hidden * dim);
                prop_assert_eq!(params.tensors().w.len(), heads * hidden);
            }
            Err(error) => {
                let message = error.to_string();
                prop_assert!(!message.is_empty() && !message.contains('\n'), "{}", message);
            }
        }
    }
}
