//! One network from its seed, and how good it is on bags that it has not seen.

use indicatif::ProgressBar;

use crate::Result;
use crate::adam::Adam;
use crate::data::{Batch, Data, WANTED};
use crate::network::{Forward, Fusion, Network};
use crate::random::Random;

pub(crate) const EPOCHS: usize = 12;

/// A trained network.
pub(crate) struct Run {
    pub(crate) fusion: Fusion,
    pub(crate) seed: u64,
    pub(crate) network: Network,
    /// Of each epoch, the mean loss over the steps.
    pub(crate) losses: Vec<f64>,
    pub(crate) scores: Scores,
}

/// On the held-out bags.
#[derive(Clone, Copy)]
pub(crate) struct Scores {
    pub(crate) auc: f64,
    /// Share of the positive bags whose heaviest instance is a 9; None where there are no weights.
    pub(crate) top_is_wanted: Option<f64>,
}

/// The seed decides where the network starts and the order of the bags: the same start and order for all fusions.
pub(crate) fn train(fusion: Fusion, seed: u64, epochs: usize, data: &Data, bar: &ProgressBar) -> Result<Run> {
    let mut random = Random::new(seed);
    let mut order_random = random.split();
    let mut network = Network::new(fusion, &mut random);
    let mut adam = Adam::default();
    let mut order: Vec<usize> = (0..data.train.len()).collect();
    let mut losses = Vec::new();
    for _ in 0..epochs {
        order_random.shuffle(&mut order);
        let mut sum = 0.0;
        for &bag in &order {
            sum += step(&mut network, &mut adam, &data.train[bag])?;
        }
        losses.push(sum / order.len() as f64);
        bar.inc(1);
    }
    let scores = evaluate(&network.forward(&data.test)?, &data.test);
    Ok(Run { fusion, seed, network, losses, scores })
}

/// Returns the loss before the step.
fn step(network: &mut Network, adam: &mut Adam, bag: &Batch) -> Result<f64> {
    let forward = network.forward(bag)?;
    let loss = network.backward(bag, &forward)?;
    adam.step(network.parameters_mut());
    Ok(loss)
}

fn evaluate(forward: &Forward, test: &Batch) -> Scores {
    let top_is_wanted = forward.attended.as_ref().map(|attended| {
        let positive = || (0..test.bags.len()).filter(|&bag| test.labels[bag]);
        let found = |&bag: &usize| top(test, &attended.weights, bag).is_some_and(|top| test.digits[top] == WANTED);
        positive().filter(found).count() as f64 / positive().count() as f64
    });
    Scores { auc: auc(&forward.logits, &test.labels), top_is_wanted }
}

/// The instance of a bag with the greatest weight.
fn top(test: &Batch, weights: &[f32], bag: usize) -> Option<usize> {
    test.bags.range(bag).max_by(|&a, &b| weights[a].total_cmp(&weights[b]))
}

/// How often a positive bag has a higher logit than a negative one; ties count half.
pub(crate) fn auc(logits: &[f32], labels: &[bool]) -> f64 {
    let of = |wanted| logits.iter().zip(labels).filter(move |&(_, &label)| label == wanted).map(|(&x, _)| x);
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
