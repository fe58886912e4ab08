// Made from kernels/abi.h by scripts/bindings.sh; not to be edited.

pub const MIVC_CHUNK_ROWS: u32 = 256;
pub const MIVC_MERGE_RADIX: u32 = 32;
pub const MIVC_PREPARE_THREADS: u32 = 256;
pub const MIVC_PREPARE_LEAST_BAGS_PER_THREAD: u32 = 4;
pub const MIVC_PREPARE_MOST_BAGS_PER_THREAD: u32 = 64;
pub const MIVC_MAX_MEAN_THREADS: u32 = 128;
pub const MIVC_VECTOR_BYTES: u32 = 16;
pub const MIVC_THREADS: u32 = 128;
pub const MIVC_WEIGHTED_SUM_HEADS: u32 = 8;
pub const MIVC_SMALL_TILE_ROWS: u32 = 64;
pub const MIVC_SMALL_TILE_COLUMNS: u32 = 32;
pub const MIVC_SMALL_TILE_ACROSS: u32 = 1;
pub const MIVC_SMALL_TILE_THREADS: u32 = 128;
pub const MIVC_MEDIUM_TILE_ROWS: u32 = 128;
pub const MIVC_MEDIUM_TILE_COLUMNS: u32 = 128;
pub const MIVC_MEDIUM_TILE_ACROSS: u32 = 2;
pub const MIVC_MEDIUM_TILE_THREADS: u32 = 128;
pub const MIVC_MEDIUM_F32_TILE_ROWS: u32 = 64;
pub const MIVC_MEDIUM_F32_TILE_COLUMNS: u32 = 128;
pub const MIVC_MEDIUM_F32_TILE_ACROSS: u32 = 2;
pub const MIVC_MEDIUM_F32_TILE_THREADS: u32 = 128;
pub const MIVC_LARGE_TILE_ROWS: u32 = 128;
pub const MIVC_LARGE_TILE_COLUMNS: u32 = 256;
pub const MIVC_LARGE_TILE_ACROSS: u32 = 4;
pub const MIVC_LARGE_TILE_THREADS: u32 = 256;
pub const MIVC_TILE_DEPTH_BYTES: u32 = 64;
pub const MIVC_TILE_STAGES: u32 = 3;
pub const MIVC_SCORES_HEADS_AT_ONCE: u32 = 8;
pub const MIVC_SCORES_BACKWARD_ROWS: u32 = 128;
pub const MIVC_SCORES_BACKWARD_HEADS: u32 = 8;
pub const MIVC_MATRICES_TILE_UNITS: u32 = 64;
pub const MIVC_MATRICES_TILE_FEATURES: u32 = 128;
pub const MIVC_MATRICES_STEP_ROWS: u32 = 16;
pub const MIVC_MATRICES_RUN_ROWS: u32 = 128;
pub const MIVC_POOL_ROWS: u32 = 128;
pub const MIVC_POOL_ROWS_HALF: u32 = 64;
pub const MIVC_POOL_COLUMNS: u32 = 128;
pub const MIVC_POOL_THREADS: u32 = 256;
pub const MIVC_POOL_SLICE_GAP: u32 = 64;
pub const MIVC_POOL_ROW_BYTES_AHEAD: u32 = 49152;
pub const MIVC_POOL_HEADS_AT_ONCE: u32 = 2;
pub const MIVC_POOL_SUM_HEADS: u32 = 4;
pub const MIVC_STATIC_SHARED_BYTES: u32 = 256;
pub const MIVC_POOL_HEADS: u32 = 64;
pub const MIVC_POOL_SM90_THREADS: u32 = 384;
pub const MIVC_POOL_SM90_STAGE_BYTES: u32 = 8192;
pub const MIVC_POOL_SM90_MOST_STAGES: u32 = 8;
pub const MIVC_POOL_SM90_SLAB_BYTES: u32 = 128;
pub const MIVC_POOL_SM90_MOST_SLABS: u32 = 24;
pub const MIVC_POOL_SM90_CLUSTER: u32 = 2;
pub const MIVC_POOL_SM90_CLUSTER_HALF: u32 = 4;
pub const MIVC_POOL_SM90_PRODUCER_REGISTERS: u32 = 40;
pub const MIVC_POOL_SM90_CONSUMER_REGISTERS: u32 = 232;
pub const MIVC_POOL_SM90_STATIC_BYTES: u32 = 1024;
pub const MIVC_EXACT_COLUMNS: u32 = 256;
pub const MIVC_EXACT_THREADS: u32 = 64;
pub const MIVC_EXACT_TILE_BYTES: u32 = 65536;
pub const MIVC_EXACT_CHUNK_ROWS: u32 = 1024;
pub const MIVC_EXACT_SHARED_BYTES: u32 = 89088;
pub const MIVC_EXACT_RUN_ROWS: u32 = 256;
pub const MIVC_EXACT_NOTHING: u64 = 4294967296;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcItem {
    pub bag: i64,
    pub chunk: i64,
    pub bags: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcCounters {
    pub items: u64,
    pub nodes: u64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcWorkList {
    pub ranges: u64,
    pub items: u64,
    pub first_nodes: u64,
    pub tickets: u64,
    pub counters: u64,
    pub bags: i64,
    pub item_capacity: i64,
    pub node_capacity: i64,
    pub tiles: i64,
    pub chunk_rows: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcPrepare {
    pub list: MivcWorkList,
    pub offsets: u64,
    pub instances: i64,
    pub bags_per_thread: i64,
    pub offsets_bytes: u32,
    pub packs_bags: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcMaxMean {
    pub list: MivcWorkList,
    pub features: u64,
    pub mask: u64,
    pub max: u64,
    pub mean: u64,
    pub argmax: u64,
    pub partial_max: u64,
    pub partial_sum: u64,
    pub partial_argmax: u64,
    pub partial_count: u64,
    pub dim: i64,
    pub row_stride: i64,
    pub outputs_are_f32: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcPacked {
    pub matrix: u64,
    pub column_bias: u64,
    pub column_weights: u64,
    pub score_bias: u64,
    pub dim: i64,
    pub padded_dim: i64,
    pub columns: i64,
    pub group_columns: i64,
    pub heads: i64,
    pub groups: i64,
    pub is_gated: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcPack {
    pub packed: MivcPacked,
    pub v: u64,
    pub v_bias: u64,
    pub u: u64,
    pub u_bias: u64,
    pub w: u64,
    pub w_bias: u64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcActivations {
    pub at: u64,
    pub row_stride: i64,
    pub group_stride: i64,
    pub are_f32: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcFeatures {
    pub rows: u64,
    pub mask: u64,
    pub instances: i64,
    pub row_stride: i64,
    pub is_aligned: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcScores {
    pub packed: MivcPacked,
    pub features: MivcFeatures,
    pub scores: u64,
    pub activations: MivcActivations,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcGate {
    pub x: u64,
    pub y: u64,
    pub g: u64,
    pub elements: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcSoftmax {
    pub list: MivcWorkList,
    pub scores: u64,
    pub mask: u64,
    pub weights: u64,
    pub lse: u64,
    pub max: u64,
    pub sum: u64,
    pub partial_max: u64,
    pub partial_sum: u64,
    pub heads: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcWeightedSum {
    pub list: MivcWorkList,
    pub weights: u64,
    pub scores: u64,
    pub max: u64,
    pub sum: u64,
    pub mask: u64,
    pub values: u64,
    pub pooled: u64,
    pub partial_sums: u64,
    pub dim: i64,
    pub row_stride: i64,
    pub head_stride: i64,
    pub heads: i64,
    pub outputs_are_f32: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactTotal {
    pub sum: f64,
    pub exponent: i64,
    pub max: f32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactWord {
    pub low: i64,
    pub high: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactMassNode {
    pub bins: [MivcExactWord; 3usize],
    pub top: i64,
    pub max: f32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactSumNode {
    pub bins: [[MivcExactWord; 256usize]; 3usize],
    pub specials: [[i32; 256usize]; 3usize],
    pub top: i64,
    pub count: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactMeanNode {
    pub bins: [MivcExactWord; 3usize],
    pub top: i64,
    pub specials: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactSoftmax {
    pub list: MivcWorkList,
    pub scores: u64,
    pub mask: u64,
    pub weights: u64,
    pub lse: u64,
    pub max: u64,
    pub sum: u64,
    pub totals: u64,
    pub masses: u64,
    pub partials: u64,
    pub heads: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactWeightedSum {
    pub list: MivcWorkList,
    pub weights: u64,
    pub scores: u64,
    pub totals: u64,
    pub mask: u64,
    pub values: u64,
    pub pooled: u64,
    pub masses: u64,
    pub sums: u64,
    pub partials: u64,
    pub dim: i64,
    pub row_stride: i64,
    pub head_stride: i64,
    pub heads: i64,
    pub outputs_are_f32: u32,
    pub is_mean: u32,
    pub is_aligned: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcAttentionPool {
    pub packed: MivcPacked,
    pub features: MivcFeatures,
    pub list: MivcWorkList,
    pub scores: u64,
    pub weights: u64,
    pub lse: u64,
    pub max: u64,
    pub sum: u64,
    pub pooled: u64,
    pub partial_max: u64,
    pub partial_sum: u64,
    pub partial_pooled: u64,
    pub keeps_scores: u32,
    pub outputs_are_f32: u32,
    pub has_vectors: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcGradient {
    pub to: u64,
    pub adds: u32,
    pub is_f32: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcGateBackward {
    pub x: u64,
    pub y: u64,
    pub d_g: u64,
    pub d_x: MivcGradient,
    pub d_y: MivcGradient,
    pub elements: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcSoftmaxBackward {
    pub list: MivcWorkList,
    pub weights: u64,
    pub mask: u64,
    pub d_weights: u64,
    pub d_lse: u64,
    pub d_scores: MivcGradient,
    pub partial_means: u64,
    pub heads: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcWeightedSumBackward {
    pub list: MivcWorkList,
    pub weights: u64,
    pub mask: u64,
    pub values: u64,
    pub d_pooled: u64,
    pub d_weights: MivcGradient,
    pub d_values: MivcGradient,
    pub dim: i64,
    pub row_stride: i64,
    pub head_stride: i64,
    pub heads: i64,
    pub upstream_is_f32: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcPackBackward {
    pub by_feature: u64,
    pub v: u64,
    pub u: u64,
    pub dim: i64,
    pub padded_dim: i64,
    pub padded_depth: i64,
    pub groups: i64,
    pub hidden: i64,
    pub group_stride: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcSlice {
    pub mask: u64,
    pub ranges: u64,
    pub bags: i64,
    pub first: i64,
    pub rows: i64,
    pub flows: u64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcScoresBackward {
    pub packed: MivcPacked,
    pub slice: MivcSlice,
    pub activations: MivcActivations,
    pub d_columns: MivcActivations,
    pub d_scores: u64,
    pub partial_bias: u64,
    pub partial_w: u64,
    pub adds: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactEntry {
    pub key: u64,
    pub row: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactOrder {
    pub slice: MivcSlice,
    pub d_scores: u64,
    pub features: u64,
    pub from: u64,
    pub to: u64,
    pub heads: i64,
    pub dim: i64,
    pub row_stride: i64,
    pub run_rows: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcExactGather {
    pub entries: u64,
    pub d_scores: u64,
    pub features: u64,
    pub activations: u64,
    pub to_mask: u64,
    pub to_d_scores: u64,
    pub to_features: u64,
    pub to_activations: u64,
    pub heads: i64,
    pub dim: i64,
    pub row_stride: i64,
    pub activation_count: i64,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcScoresFeaturesBackward {
    pub by_feature: MivcPacked,
    pub d_columns: MivcFeatures,
    pub slice: MivcSlice,
    pub weights: u64,
    pub d_pooled: u64,
    pub d_features: MivcGradient,
    pub heads: i64,
    pub groups: i64,
    pub upstream_is_f32: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcScoresMatricesBackward {
    pub features: MivcFeatures,
    pub slice: MivcSlice,
    pub d_columns: MivcActivations,
    pub partials: u64,
    pub dim: i64,
    pub hidden: i64,
    pub groups: i64,
    pub matrices: i64,
    pub first_matrix: i64,
    pub adds: u32,
    pub unused: u32,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcParts {
    pub parts: u64,
    pub count: i64,
    pub part_stride: i64,
    pub rows: i64,
    pub row_elements: i64,
    pub row_stride: i64,
    pub gradient: MivcGradient,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcSumParts {
    pub of: [MivcParts; 6usize],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcMaxMeanBackward {
    pub list: MivcWorkList,
    pub features: u64,
    pub mask: u64,
    pub d_max: u64,
    pub d_mean: u64,
    pub d_features: MivcGradient,
    pub partial_max: u64,
    pub partial_ties: u64,
    pub partial_count: u64,
    pub dim: i64,
    pub row_stride: i64,
    pub upstream_is_f32: u32,
    pub unused: u32,
}
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone)]
pub struct MivcTensorMap {
    pub words: [u64; 16usize],
}
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone)]
pub struct MivcAttentionPoolSm90 {
    pub features: MivcTensorMap,
    pub matrix: MivcTensorMap,
    pub pool: MivcAttentionPool,
    pub stages: u64,
    pub unused: [u64; 2usize],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcStateMerge {
    pub max: u64,
    pub sum: u64,
    pub pooled: u64,
    pub other_max: u64,
    pub other_sum: u64,
    pub other_pooled: u64,
    pub dim: i64,
}
