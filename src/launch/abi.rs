// Made from kernels/abi.h by scripts/bindings.sh; not to be edited.

pub const MIVC_CHUNK_ROWS: u32 = 256;
pub const MIVC_MERGE_RADIX: u32 = 32;
pub const MIVC_PREPARE_THREADS: u32 = 256;
pub const MIVC_PREPARE_BAGS_PER_THREAD: u32 = 16;
pub const MIVC_MAX_MEAN_THREADS: u32 = 128;
pub const MIVC_VECTOR_BYTES: u32 = 16;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcItem {
    pub bag: i64,
    pub chunk: i64,
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
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct MivcPrepare {
    pub list: MivcWorkList,
    pub offsets: u64,
    pub instances: i64,
    pub offsets_bytes: u32,
    pub unused: u32,
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
