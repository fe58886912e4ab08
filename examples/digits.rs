//! Which bag of handwritten digits holds a 9, and which digit says so?
//!
//! Run from the root of the repository with `cargo run --release --example digits`. The data is
//! described in `examples/data/README.md`.
//!
//! Two networks were trained with PyTorch on bags of digits, knowing of each bag only whether it holds
//! a 9: one with gated attention, one without the gate. Both pool 64 bags that they have not seen. Mean
//! and max stand beside them on the features of the gated network and under its classifier, which was
//! trained for attention and not for them: their numbers say how far the plain fusions stray from what
//! that classifier expects, not how good they could be.

use std::error::Error;

use mivc::{AttentionParams, Bags, Device, Features, Pooler, Pooling};
use safetensors::SafeTensors;

fn main() -> Result<(), Box<dyn Error>> {
    let gated = Digits::load("gated")?;
    let ungated = Digits::load("ungated")?;

    println!("{:<16}  accuracy    AUC  top instance is a 9", "pooling");
    gated.evaluate("mean", Pooling::Mean)?;
    gated.evaluate("max", Pooling::Max)?;
    let top_ungated = ungated.evaluate("attention", Pooling::Attention(ungated.params.clone()))?;
    let top_gated = gated.evaluate("gated attention", Pooling::Attention(gated.params.clone()))?;

    println!("\nMean and max use the classifier of the gated network, which was not trained for them.");
    if (top_gated, top_ungated) != (Some(31), Some(30)) {
        return Err("expected a 9 on top in 31 positive bags gated and in 30 ungated, as PyTorch found".into());
    }
    Ok(())
}

/// 64 bags and the network that made their features.
struct Digits {
    /// `[N, 128]`.
    features: Vec<f32>,
    bags: Bags<'static>,
    /// `[B]`, whether the bag holds a 9.
    labels: Vec<bool>,
    /// `[N]`, what each image shows.
    digits: Vec<u8>,
    params: AttentionParams,
    /// `[128]`.
    classifier: Vec<f32>,
    classifier_bias: f32,
}

impl Digits {
    fn load(kind: &str) -> Result<Self, Box<dyn Error>> {
        let bags = std::fs::read(format!("examples/data/bags_{kind}.safetensors"))?;
        let bags = SafeTensors::deserialize(&bags)?;
        let network = std::fs::read(format!("examples/data/attention_{kind}.safetensors"))?;
        let params = AttentionParams::from_safetensors(&network)?;
        let network = SafeTensors::deserialize(&network)?;

        let (offsets, _) = bags.tensor("offsets")?.data().as_chunks();
        let offsets: Vec<i64> = offsets.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
        Ok(Digits {
            features: floats(&bags, "features")?,
            bags: Bags::from_offsets(offsets)?,
            labels: bags.tensor("labels")?.data().iter().map(|&label| label == 1).collect(),
            digits: bags.tensor("digits")?.data().to_vec(),
            params,
            classifier: floats(&network, "classifier.0.weight")?,
            classifier_bias: floats(&network, "classifier.0.bias")?[0],
        })
    }

    /// Pools, classifies and prints a line. Returns in how many positive bags the instance with the
    /// highest weight is a 9, where the pooling has weights.
    fn evaluate(&self, name: &str, pooling: Pooling) -> Result<Option<usize>, Box<dyn Error>> {
        let dim = self.classifier.len();
        let pooler = Pooler::new(pooling, Device::Cpu)?;
        let pooled = pooler.pool(&Features::new(&self.features, dim)?, &self.bags)?;

        let probabilities: Vec<f32> = pooled.embeddings.data.chunks_exact(dim).map(|z| self.probability(z)).collect();
        let right = probabilities.iter().zip(&self.labels).filter(|&(&p, &label)| (p >= 0.5) == label).count();
        let accuracy = right as f32 / self.labels.len() as f32;
        let top = pooled.weights.map(|weights| self.nines_on_top(&weights.data));

        let positive = self.labels.iter().filter(|&&label| label).count();
        let on_top = top.map_or("no weights".to_string(), |nines| format!("{nines} of {positive} positive bags"));
        println!("{name:<16}  {:>6.1} %  {:.3}  {on_top}", 100.0 * accuracy, auc(&probabilities, &self.labels));
        Ok(top)
    }

    /// σ(W z + b).
    fn probability(&self, z: &[f32]) -> f32 {
        let logit: f32 = self.classifier.iter().zip(z).map(|(w, z)| w * z).sum::<f32>() + self.classifier_bias;
        1.0 / (1.0 + (-logit).exp())
    }

    /// `weights` is `[N, 1]`.
    fn nines_on_top(&self, weights: &[f32]) -> usize {
        let top_is_nine = |bag| {
            let top = self.bags.range(bag).max_by(|&a, &b| weights[a].total_cmp(&weights[b]));
            top.is_some_and(|top| self.digits[top] == 9)
        };
        (0..self.bags.len()).filter(|&bag| self.labels[bag] && top_is_nine(bag)).count()
    }
}

/// How often a positive bag gets a higher probability than a negative one; ties count half.
fn auc(probabilities: &[f32], labels: &[bool]) -> f32 {
    let of = |wanted| probabilities.iter().zip(labels).filter(move |&(_, &label)| label == wanted).map(|(&p, _)| p);
    let (mut won, mut pairs) = (0.0, 0.0);
    for positive in of(true) {
        for negative in of(false) {
            won += if positive > negative {
                1.0
            } else if positive == negative {
                0.5
            } else {
                0.0
            };
            pairs += 1.0;
        }
    }
    won / pairs
}

fn floats(tensors: &SafeTensors<'_>, key: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let (chunks, _) = tensors.tensor(key)?.data().as_chunks();
    Ok(chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}
