//! Backwards. Each gradient that is asked for with others comes to the same bits alone.

use std::fmt::Debug;

use mivc::cpu::{MaxMeanUpstream, SoftmaxUpstream, Values, WeightedSumGradients};
use mivc::launch::backward::{self, gate, max_mean, softmax, weighted_sum};
use mivc::{Bags, Element, Gradient, Result, Rows};

use super::{DeviceBags, Machine, Output, VmBackend};

/// A gradient as it is found, which a call writes over or adds to.
#[derive(Clone, Copy)]
pub struct Target<'a, E> {
    pub data: &'a [E],
    pub adds: bool,
}

impl<'a, E: Element> Target<'a, E> {
    pub(super) fn of(gradient: &'a Gradient<'_, E>) -> Self {
        match gradient {
            Gradient::Set(data) => Target { data, adds: false },
            Gradient::Add(data) => Target { data, adds: true },
        }
    }
}

/// What it then holds.
pub(super) fn finish<E: Element>(gradient: Option<Gradient<'_, E>>, result: Option<Vec<E>>) {
    if let (Some(Gradient::Set(to) | Gradient::Add(to)), Some(from)) = (gradient, result) {
        to.copy_from_slice(&from);
    }
}

impl Machine {
    /// A buffer for a gradient, and what a launch is told of it. By its number of elements it lies at a multiple of 16
    /// bytes or does not.
    pub(super) fn gradient<E: Element>(&mut self, name: &str, target: Target<'_, E>) -> (Output, backward::Gradient) {
        let output = self.output_at(name, target.data, target.data.len() % 5 % 2);
        let at = if target.adds { backward::Gradient::Add } else { backward::Gradient::Set };
        (output, at(output.address()))
    }

    fn gate_backward<E: Element>(
        &mut self,
        [x, y, d_g]: [&[E]; 3],
        [d_x, d_y]: [Option<Target<'_, E>>; 2],
    ) -> Result<[Option<Vec<E>>; 2]> {
        let elements = x.len();
        let outputs =
            [("d_x", d_x), ("d_y", d_y)].map(|(name, target)| target.map(|target| self.gradient(name, target)));
        let [d_x, d_y] = outputs.map(|output| output.map(|(_, gradient)| gradient));
        let [x, y, d_g] = [("x", x), ("y", y), ("d_g", d_g)].map(|(name, data)| self.output(name, data).address());
        let steps = gate::GateBackward::plan(E::DTYPE).steps(elements, gate::Addresses { x, y, d_g, d_x, d_y })?;
        self.run(&steps.map(Vec::from).unwrap_or_default());
        Ok(outputs.map(|output| output.map(|(output, _)| self.read(output))))
    }

    pub fn softmax_backward(
        &mut self,
        weights: &[f32],
        heads: usize,
        bags: DeviceBags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Target<'_, f32>,
    ) -> Result<Vec<f32>> {
        let call = bags.capacity(weights.len() / heads);
        let plan = softmax::SoftmaxBackward::plan(self.order, heads, call)?;
        let (output, d_scores) = self.gradient("d_scores", d_scores);
        let addresses = softmax::Addresses {
            weights: self.floats("weights", weights),
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            d_weights: self.optional("d_weights", upstream.weights),
            d_lse: self.optional("d_lse", upstream.lse),
            d_scores,
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(call, addresses)?.unwrap_or_default());
        Ok(self.read(output))
    }

    /// Of weights and of values.
    pub fn weighted_sum_backward<E: Element, O: Element>(
        &mut self,
        call: &SumCall<'_, E, O>,
        bags: DeviceBags<'_>,
        d_weights: Option<Target<'_, f32>>,
        d_values: Option<Target<'_, O>>,
    ) -> Result<SumGradients<O>> {
        let &SumCall { weights, heads, values, d_pooled } = call;
        let (rows, dim, per_head) = match values {
            Values::Shared(rows) => (rows, rows.dim(), false),
            Values::PerHead(rows) => (rows, rows.dim() / heads, true),
        };
        let capacity = bags.capacity(rows.len());
        let (values, upstream) = (E::DTYPE, O::DTYPE);
        let shape = weighted_sum::Shape { dim, heads, per_head, values, upstream, gradients: O::DTYPE };
        let plan = weighted_sum::WeightedSumBackward::plan(shape, capacity)?;
        let of_weights = d_weights.map(|target| self.gradient("d_weights", target));
        let of_values = d_values.map(|target| self.gradient("d_values", target));
        // What is not read need not be there.
        let (values, row_stride) = if of_weights.is_some() { self.upload_rows(rows) } else { (0, 0) };
        let addresses = weighted_sum::Addresses {
            weights: self.floats("weights", weights),
            values,
            row_stride,
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            d_pooled: self.output_at("d_pooled", d_pooled, d_pooled.len() / dim % 2).address(),
            d_weights: of_weights.map(|(_, gradient)| gradient),
            d_values: of_values.map(|(_, gradient)| gradient),
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(capacity, addresses)?.unwrap_or_default());
        Ok((of_weights.map(|(output, _)| self.read(output)), of_values.map(|(output, _)| self.read(output))))
    }

    pub fn max_mean_backward<E: Element, O: Element>(
        &mut self,
        features: Rows<'_, E>,
        bags: DeviceBags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Target<'_, O>,
    ) -> Result<Vec<O>> {
        let call = bags.capacity(features.len());
        let shape =
            max_mean::Shape { dim: features.dim(), features: E::DTYPE, upstream: O::DTYPE, gradients: O::DTYPE };
        let plan = max_mean::MaxMeanBackward::plan(shape, call)?;
        let (output, d_features) = self.gradient("d_features", d_features);
        let [d_max, d_mean] = [("d_max", upstream.max), ("d_mean", upstream.mean)]
            .map(|(name, data)| data.map_or(0, |data| self.output(name, data).address()));
        // What is not read need not be there.
        let (features, row_stride) = if d_max == 0 { (0, 0) } else { self.upload_rows(features) };
        let addresses = max_mean::Addresses {
            features,
            row_stride,
            offsets: self.offsets(bags.offsets, bags.wide),
            mask: self.mask(bags.mask),
            d_max,
            d_mean,
            d_features,
            scratch: self.scratch(plan.scratch_bytes()),
        };
        self.run(&plan.steps(call, addresses)?.unwrap_or_default());
        Ok(self.read(output))
    }
}

/// Of weights and of values, each that was asked for.
pub type SumGradients<O> = (Option<Vec<f32>>, Option<Vec<O>>);

/// The arguments of a backward of the weighted sum.
pub struct SumCall<'a, E, O> {
    pub weights: &'a [f32],
    pub heads: usize,
    pub values: Values<'a, E>,
    pub d_pooled: &'a [O],
}

/// What is left out changes no bit of what is not. As text, in which a NaN is as another.
fn expect_alone<T: Debug>(both: &Option<T>, alone: &Option<T>) {
    assert!(both.is_none() || format!("{both:?}") == format!("{alone:?}"), "a gradient alone, and with the other");
}

impl VmBackend {
    pub(super) fn gate_backward<E: Element>(
        &self,
        arguments: [&[E]; 3],
        d_x: Option<Gradient<'_, E>>,
        d_y: Option<Gradient<'_, E>>,
    ) -> Result<()> {
        let [x, y] = [d_x.as_ref().map(Target::of), d_y.as_ref().map(Target::of)];
        let under = |targets| self.everywhere(arguments[0].len(), |machine| machine.gate_backward(arguments, targets));
        let [of_x, of_y] = under([x, y])?;
        expect_alone(&of_x, &under([x, None])?[0]);
        expect_alone(&of_y, &under([None, y])?[1]);
        finish(d_x, of_x);
        finish(d_y, of_y);
        Ok(())
    }

    pub(super) fn softmax_backward(
        &self,
        weights: &[f32],
        heads: usize,
        bags: &Bags<'_>,
        upstream: SoftmaxUpstream<'_>,
        d_scores: Gradient<'_, f32>,
    ) -> Result<()> {
        let target = Target::of(&d_scores);
        let result = self.everywhere(weights.len(), |machine| {
            machine.softmax_backward(weights, heads, bags.into(), upstream, target)
        })?;
        finish(Some(d_scores), Some(result));
        Ok(())
    }

    pub(super) fn weighted_sum_backward<E: Element, O: Element>(
        &self,
        weights: &[f32],
        heads: usize,
        values: Values<'_, E>,
        bags: &Bags<'_>,
        d_pooled: &[O],
        gradients: WeightedSumGradients<'_, O>,
    ) -> Result<()> {
        let call = SumCall { weights, heads, values, d_pooled };
        let (Values::Shared(rows) | Values::PerHead(rows)) = values;
        let targets = (gradients.weights.as_ref().map(Target::of), gradients.values.as_ref().map(Target::of));
        let under = |d_weights, d_values| {
            let elements = rows.len() * rows.dim();
            self.everywhere(elements, |machine| machine.weighted_sum_backward(&call, bags.into(), d_weights, d_values))
        };
        let (of_weights, of_values) = under(targets.0, targets.1)?;
        expect_alone(&of_weights, &under(targets.0, None)?.0);
        expect_alone(&of_values, &under(None, targets.1)?.1);
        finish(gradients.weights, of_weights);
        finish(gradients.values, of_values);
        Ok(())
    }

    pub(super) fn max_mean_backward<E: Element, O: Element>(
        &self,
        features: Rows<'_, E>,
        bags: &Bags<'_>,
        upstream: MaxMeanUpstream<'_, O>,
        d_features: Gradient<'_, O>,
    ) -> Result<()> {
        let target = Target::of(&d_features);
        let result = self.everywhere(features.len() * features.dim(), |machine| {
            machine.max_mean_backward(features, bags.into(), upstream, target)
        })?;
        finish(Some(d_features), Some(result));
        Ok(())
    }
}
