//! Two epochs of one seed, the files that come of them, and the gradients of the whole network.

use indicatif::ProgressBar;
use mivc::{AttentionParams, Device, Features, Pooler, Pooling};
use safetensors::SafeTensors;

use crate::data::Data;
use crate::files::{save_bags, save_checkpoint};
use crate::network::{FEATURES, Fusion, Network};
use crate::plot;
use crate::random::Random;
use crate::training::{auc, train};

#[test]
fn training_lowers_the_loss_and_its_files_pool_to_the_same_weights() {
    let data = Data::load().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for fusion in Fusion::ALL {
        let run = train(fusion, 0, 2, &data, &ProgressBar::hidden()).unwrap();
        assert!(run.losses[1] < run.losses[0], "{fusion:?}: {:?}", run.losses);
        let forward = run.network.forward(&data.test).unwrap();
        let Some(attended) = &forward.attended else { continue };

        let [checkpoint, bags, picture] = ["attention", "bags", "picture.png"].map(|name| folder.path().join(name));
        save_checkpoint(&checkpoint, &run.network).unwrap();
        save_bags(&bags, &data.test, &forward).unwrap();
        plot::draw(&picture, fusion, &data.test, &forward).unwrap();

        let params = AttentionParams::load(&checkpoint).unwrap();
        assert_eq!(params.is_gated(), fusion == Fusion::GatedAttention);
        let file = std::fs::read(&bags).unwrap();
        let features = SafeTensors::deserialize(&file).unwrap().tensor("features").unwrap();
        let features: Vec<f32> = bytemuck::pod_collect_to_vec(features.data());
        let pooler = Pooler::new(Pooling::Attention(params), Device::Cpu).unwrap();
        let pooled = pooler.pool(&Features::new(&features, FEATURES).unwrap(), &data.test.bags).unwrap();
        assert_eq!(pooled.weights.unwrap().data, attended.weights, "{fusion:?}");
    }
}

/// Along the gradient of each parameter the loss rises as steeply as that gradient is long.
#[test]
fn gradients_are_those_of_the_loss() {
    let data = Data::load().unwrap();
    for fusion in Fusion::ALL {
        let mut network = Network::new(fusion, &mut Random::new(1));
        let forward = network.forward(&data.test).unwrap();
        network.backward(&data.test, &forward).unwrap();
        for index in 0..network.parameters_mut().len() {
            let gradient = network.parameters_mut()[index].gradient.clone();
            let length = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            if length < 1e-7 {
                let is_bias_of_w = fusion.is_attention() && gradient.len() == 1;
                assert!(is_bias_of_w, "{fusion:?}, parameter {index} has no gradient");
                continue;
            }
            let loss = |step: f64| {
                let mut moved = network.clone();
                let values = &mut moved.parameters_mut()[index].values;
                values.iter_mut().zip(&gradient).for_each(|(value, g)| *value += (step / length) as f32 * g);
                let forward = moved.forward(&data.test).unwrap();
                moved.backward(&data.test, &forward).unwrap()
            };
            // Further, more of the ReLUs in between would switch.
            let step = 0.01;
            let slope = (loss(step) - loss(-step)) / (2.0 * step);
            assert!((slope / length - 1.0).abs() < 0.02, "{fusion:?}, parameter {index}: {slope} and not {length}");
        }
    }
}

#[test]
fn auc_counts_pairs_in_their_order() {
    assert_eq!(auc(&[2.0, 1.0, 1.0, 0.0], &[true, true, false, false]), 0.875);
}
