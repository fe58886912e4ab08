// What kernels and host share, written once: sizes and launch parameters. Plain C without implicit padding; Rust
// gets it through bindgen (src/launch/abi.rs). Addresses are uint64_t, 0 where an argument is left out; strides
// are in elements, sizes in elements unless they say bytes.
#pragma once
#include <stdint.h>

// Rows of a bag that one block takes. A bag no longer than this is never split.
#define MIVC_CHUNK_ROWS 256
// Children of a node of the tree in which the chunks of a bag are merged.
#define MIVC_MERGE_RADIX 32

// Bags that a block of `prepare` takes.
#define MIVC_PREPARE_THREADS 256
#define MIVC_PREPARE_BAGS_PER_THREAD 16

// Columns of a block are these threads times the elements of a vector.
#define MIVC_MAX_MEAN_THREADS 128
// Bytes that a thread loads at once where alignment allows.
#define MIVC_VECTOR_BYTES 16

// A chunk of a bag other than its first.
typedef struct {
    int64_t bag;
    int64_t chunk;
} MivcItem;

// Entries used of the work list; cleared before `prepare`.
typedef struct {
    uint64_t items;
    uint64_t nodes;
} MivcCounters;

// The work list: what `prepare` makes of the offsets.
//
// A bag of one chunk needs no entry. One of c > 1 chunks has c - 1 items, and nodes of a tree for its partial
// results: c leaves, then ceil(c / MIVC_MERGE_RADIX) nodes above them, and so on to one root.
typedef struct {
    uint64_t ranges;         // int64_t [bags + 1]: offsets that never fall, within 0 and instances
    uint64_t items;          // MivcItem [item_capacity], in any order
    uint64_t first_nodes;    // int64_t [bags]: a bag's first leaf, where it has more than one chunk
    uint64_t tickets;        // uint32_t [node_capacity * tiles]: children that have finished
    uint64_t counters;       // MivcCounters
    int64_t bags;
    int64_t item_capacity;
    int64_t node_capacity;
    int64_t tiles;           // blocks side by side in a row
} MivcWorkList;

// prepare(offsets) -> work list
typedef struct {
    MivcWorkList list;
    uint64_t offsets;        // int32_t or int64_t [bags + 1]; any values
    int64_t instances;
    uint32_t offsets_bytes;  // 4 or 8, of one offset
    uint32_t unused;
} MivcPrepare;

// max_mean(features, work list) -> max, mean, argmax
typedef struct {
    MivcWorkList list;
    uint64_t features;         // [instances, dim]
    uint64_t mask;             // uint8_t [instances], 0 = not there
    uint64_t max;              // [bags, dim], f32 or as the features
    uint64_t mean;             // [bags, dim], f32 or as the features
    uint64_t argmax;           // int64_t [bags, dim]
    uint64_t partial_max;      // float [node_capacity, dim]
    uint64_t partial_sum;      // float [node_capacity, dim]
    uint64_t partial_argmax;   // int64_t [node_capacity, dim]
    uint64_t partial_count;    // int64_t [node_capacity, tiles]: rows that are there
    int64_t dim;
    int64_t row_stride;
    uint32_t outputs_are_f32;
    uint32_t unused;
} MivcMaxMean;
