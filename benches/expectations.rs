//! Prints, as Markdown, what `common/model.rs` expects of one H200 for every GPU row of the benches. It needs no GPU
//! and measures nothing.

mod common;

use common::model::{self, Work};
use common::{ATTENTIONS, Attention, HEADS, SHAPES, Shape};
use mivc::Dtype;

const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

fn main() {
    model::check();
    println!("Expected of one H200 by a model of bytes and FLOPs (benches/common/model.rs); nothing was measured.");
    println!("f16 is as bf16.\n");
    println!("| row | MB | GFLOP | bound by | expected, µs |");
    println!("| --- | ---: | ---: | --- | ---: |");
    for dtype in DTYPES {
        attention_rows("scores", dtype, model::scores);
    }
    for dtype in DTYPES {
        rows("gate", dtype, |shape| shape.hidden, model::gate);
    }
    for heads in HEADS {
        rows("softmax", Dtype::F32, |_| heads, |shape, _| model::softmax(shape, heads));
    }
    for dtype in DTYPES {
        rows("weighted_sum", dtype, |shape| shape.dim, |shape, dtype| model::weighted_sum(shape, 1, dtype));
    }
    for dtype in DTYPES {
        rows("max_mean", dtype, |shape| shape.dim, model::max_mean);
    }
    for dtype in DTYPES {
        attention_rows("attention_pool", dtype, model::attention_pool);
    }
}

fn attention_rows(operation: &str, dtype: Dtype, work: fn(&Shape, bool, usize, Dtype) -> Work) {
    for Attention { name, gated, heads } in ATTENTIONS {
        rows(&format!("{operation}/{name}"), dtype, |shape| shape.dim, |shape, dtype| work(shape, gated, heads, dtype));
    }
}

fn rows(name: &str, dtype: Dtype, columns: impl Fn(&Shape) -> usize, work: impl Fn(&Shape, Dtype) -> Work) {
    for shape in SHAPES {
        let work = work(&shape, dtype);
        println!(
            "| {name}/{} | {:.1} | {:.1} | {} | {:.0} |",
            shape.label(columns(&shape), dtype),
            work.bytes() as f64 / 1e6,
            work.flops() as f64 / 1e9,
            work.bound(),
            1e6 * work.seconds(),
        );
    }
}
