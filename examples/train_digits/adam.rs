//! Adam (Kingma and Ba, 2015), as `torch.optim.Adam` has it.

use crate::linear::Parameter;

const RATE: f32 = 5e-4;
/// Added to the gradient, so it goes through the moments too (AdamW takes it apart).
const WEIGHT_DECAY: f32 = 1e-4;
const BETA: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;

#[derive(Default)]
pub(crate) struct Adam {
    steps: i32,
    /// Of each parameter, running means of the gradient and of its square.
    moments: Vec<[Vec<f32>; 2]>,
}

impl Adam {
    /// Moves the parameters against their gradients; they are the same ones in each step.
    pub(crate) fn step(&mut self, parameters: Vec<&mut Parameter>) {
        self.steps += 1;
        // The means start at 0 and are too small at first.
        let [bias_1, bias_2] = BETA.map(|beta| 1.0 - f64::from(beta).powi(self.steps));
        let rate = (f64::from(RATE) / bias_1) as f32;
        let root_bias_2 = bias_2.sqrt() as f32;
        for (index, parameter) in parameters.into_iter().enumerate() {
            if self.moments.len() == index {
                let zeros = vec![0.0; parameter.values.len()];
                self.moments.push([zeros.clone(), zeros]);
            }
            let [means, squares] = &mut self.moments[index];
            let moments = means.iter_mut().zip(squares);
            let values = parameter.values.iter_mut().zip(&parameter.gradient);
            for ((value, gradient), (mean, square)) in values.zip(moments) {
                let gradient = gradient + WEIGHT_DECAY * *value;
                *mean = BETA[0] * *mean + (1.0 - BETA[0]) * gradient;
                *square = BETA[1] * *square + (1.0 - BETA[1]) * gradient * gradient;
                *value -= rate * *mean / (square.sqrt() / root_bias_2 + EPSILON);
            }
        }
    }
}
