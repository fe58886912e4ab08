//! A Linear layer and its gradients, in plain loops.

use crate::random::Random;

/// Numbers that are learned.
#[derive(Clone)]
pub(crate) struct Parameter {
    pub(crate) values: Vec<f32>,
    pub(crate) gradient: Vec<f32>,
}

impl Parameter {
    fn new(len: usize, bound: f32, random: &mut Random) -> Self {
        let values = (0..len).map(|_| random.uniform(bound)).collect();
        Parameter { values, gradient: vec![0.0; len] }
    }
}

/// y = W x + b.
#[derive(Clone)]
pub(crate) struct Linear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[outputs, inputs]`.
    pub(crate) weight: Parameter,
    /// `[outputs]`.
    pub(crate) bias: Parameter,
}

impl Linear {
    /// As PyTorch starts: uniform, within 1 / √inputs.
    pub(crate) fn new(inputs: usize, outputs: usize, random: &mut Random) -> Self {
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = Parameter::new(outputs * inputs, bound, random);
        let bias = Parameter::new(outputs, bound, random);
        Linear { inputs, outputs, weight, bias }
    }

    pub(crate) fn parameters_mut(&mut self) -> [&mut Parameter; 2] {
        [&mut self.weight, &mut self.bias]
    }

    /// x `[N, inputs]` → y `[N, outputs]`.
    pub(crate) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::with_capacity(x.len() / self.inputs * self.outputs);
        for x in x.chunks_exact(self.inputs) {
            let rows = self.weight.values.chunks_exact(self.inputs);
            y.extend(rows.zip(&self.bias.values).map(|(w, b)| dot(w, x) + b));
        }
        y
    }

    /// Sets the gradients of W and b: dW = Σ dy xᵀ, db = Σ dy. `d_y` is `[N, outputs]`.
    pub(crate) fn backward(&mut self, x: &[f32], d_y: &[f32]) {
        self.weight.gradient.fill(0.0);
        self.bias.gradient.fill(0.0);
        for (x, d_y) in x.chunks_exact(self.inputs).zip(d_y.chunks_exact(self.outputs)) {
            for (o, &d) in d_y.iter().enumerate() {
                // Behind a ReLU about half of them are.
                if d == 0.0 {
                    continue;
                }
                self.bias.gradient[o] += d;
                let d_w = &mut self.weight.gradient[o * self.inputs..(o + 1) * self.inputs];
                d_w.iter_mut().zip(x).for_each(|(d_w, x)| *d_w += d * x);
            }
        }
    }

    /// The gradient of x: dx = Wᵀ dy, `[N, inputs]`.
    pub(crate) fn backward_input(&self, d_y: &[f32]) -> Vec<f32> {
        let mut d_x = vec![0.0; d_y.len() / self.outputs * self.inputs];
        for (d_x, d_y) in d_x.chunks_exact_mut(self.inputs).zip(d_y.chunks_exact(self.outputs)) {
            for (w, d) in self.weight.values.chunks_exact(self.inputs).zip(d_y) {
                d_x.iter_mut().zip(w).for_each(|(d_x, w)| *d_x += d * w);
            }
        }
        d_x
    }
}

/// In eight sums side by side, which the compiler makes vectors of. The lengths are multiples of 8.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, rest) = a.as_chunks::<8>();
    assert!(rest.is_empty(), "a layer of this example has a multiple of 8 inputs");
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b.as_chunks::<8>().0) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum()
}
