//! Prints, as Markdown, what `common/model.rs` expects of one H200 for every GPU row of the benches. It needs no GPU
//! and measures nothing, but is built with the feature `cuda`: the library chooses tiles and paths.

mod common;

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("built without the feature cuda");
    std::process::exit(1);
}

#[cfg(feature = "cuda")]
fn main() {
    with_cuda::main();
}

#[cfg(feature = "cuda")]
mod with_cuda {
    use crate::common::model::{self, Work};
    use crate::common::{ATTENTIONS, Attention, HEADS, SHAPES, Shape, pooled};
    use mivc::Dtype;

    const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

    pub(crate) fn main() {
        model::check();
        println!("Expected of one H200 by a model of bytes, FLOPs and phases (benches/common/model.rs).");
        println!("Nothing was measured. f16 is as bf16.\n");
        println!("| row | MB | GFLOP | bound by | expected, µs |");
        println!("| --- | ---: | ---: | --- | ---: |");
        for dtype in DTYPES {
            for attention in &ATTENTIONS {
                let name = format!("scores/{}", attention.name);
                rows(&name, dtype, |shape| shape.dim, |shape, dtype| model::scores(shape, attention, dtype));
            }
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
        backward_rows();
        println!("\nAttention pool, in µs; sm_90a: one pass by TMA and wgmma. MB, GFLOP and bound of two passes.\n");
        println!("| row | MB | GFLOP | bound by | two passes | one pass | sm_90a |");
        println!("| --- | ---: | ---: | --- | ---: | ---: | ---: |");
        for dtype in DTYPES {
            for (shape, attention) in pooled().into_iter().flatten() {
                pool_row(&shape, &attention, dtype);
            }
        }
    }

    fn backward_rows() {
        for dtype in DTYPES {
            rows("gate-backward", dtype, |shape| shape.hidden, model::backward::gate);
            rows("max_mean-backward", dtype, |shape| shape.dim, model::backward::max_mean);
            let of_one_head = |shape: &Shape, dtype| model::backward::weighted_sum(shape, 1, dtype);
            rows("weighted_sum-backward", dtype, |shape| shape.dim, of_one_head);
        }
        for heads in HEADS {
            rows("softmax-backward", Dtype::F32, |_| heads, |shape, _| model::backward::softmax(shape, heads));
        }
        for dtype in DTYPES {
            for attention in &ATTENTIONS {
                let scores = |shape: &Shape, dtype| model::backward::scores(shape, attention, dtype, false, true);
                rows(&format!("scores/{}-backward", attention.name), dtype, |shape| shape.dim, scores);
            }
            for attention in ATTENTIONS.iter().filter(|attention| attention.heads == 1) {
                for (mode, keeps, wants_features) in model::backward::MODES {
                    let pool = |shape: &Shape, dtype| {
                        model::backward::attention_pool(shape, attention, dtype, keeps, wants_features)
                    };
                    rows(&format!("attention_pool/{}-{mode}", attention.name), dtype, |shape| shape.dim, pool);
                }
            }
        }
    }

    fn rows(name: &str, dtype: Dtype, columns: impl Fn(&Shape) -> usize, work: impl Fn(&Shape, Dtype) -> Work) {
        for shape in SHAPES {
            let work = work(&shape, dtype);
            println!(
                "| {name}/{} | {} | {} |",
                shape.label(columns(&shape), dtype),
                use_of(&work),
                microseconds(Some(work)),
            );
        }
    }

    fn pool_row(shape: &Shape, attention: &Attention, dtype: Dtype) {
        let two_passes = model::in_two_passes(shape, attention, dtype);
        println!(
            "| {}/{} | {} | {} | {} | {} |",
            attention.name,
            shape.label(shape.dim, dtype),
            use_of(&two_passes),
            microseconds(Some(two_passes)),
            microseconds(model::in_one_pass(shape, attention, dtype)),
            microseconds(model::by_warpgroups(shape, attention, dtype)),
        );
    }

    fn use_of(work: &Work) -> String {
        let (megabytes, gigaflop) = (work.bytes() as f64 / 1e6, work.flops() as f64 / 1e9);
        format!("{megabytes:.1} | {gigaflop:.1} | {}", work.bound())
    }

    fn microseconds(work: Option<Work>) -> String {
        work.map_or_else(|| "–".to_owned(), |work| format!("{:.0}", 1e6 * work.seconds()))
    }
}
