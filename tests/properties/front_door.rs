//! The front door gives what the operations it is made of give, bit for bit, for every pooling and each
//! way that tokens take part.

use mivc::{
    AttentionParams, Bags, Element, Features, Order, PoolState, Pooled, Pooler, Pooling, Projection, Result, Tensor,
};
use proptest::prelude::*;

use crate::backends::Backend;
use crate::support::{Case, Check, Matrix, Outcome, Subject, oracle, same, small_cases};

tests![; mean, max, max_mean, attention, tokens_per_image, tokens_per_position, all_tokens,
       pooling_tokens_without_attention, onto_a_state, mean_onto_a_state, projection, what_does_not_fit];

const CASES: u32 = 24;

impl<B: Backend> Subject<B> {
    fn pooler(&self, pooling: Pooling) -> Result<Pooler> {
        let device = self.backend().device().expect("registered for backends that have one");
        Ok(Pooler::new(pooling, device)?.with_order(self.backend().order()))
    }

    fn pool<E: Element>(&self, pooling: Pooling, features: &Features<'_, E>, bags: &Bags<'_>) -> Result<Pooled> {
        self.pooler(pooling)?.pool(features, bags)
    }
}

fn attend(params: &AttentionParams) -> Pooling {
    Pooling::Attention(params.clone())
}

/// A tensor has the shape and the bits.
fn is(what: &str, tensor: &Tensor<f32>, shape: &[usize], data: &[f32]) -> Check {
    prop_assert_eq!(&tensor.shape[..], shape, "{}", what);
    same(what, &tensor.data[..], data)
}

/// Features of `tokens` tokens per image, all in one row: `[N, T · D]`.
fn images<E: Element>(case: &Case, tokens: usize) -> Matrix<E> {
    Matrix::from_f32(tokens * case.dim, &case.uniform("images", case.instances() * tokens * case.dim, 2.0))
}

fn flat<E: Element>(matrix: &Matrix<E>) -> Vec<E> {
    matrix.iter().flatten().copied().collect()
}

/// The tokens `t` of all images, `[N, D]`.
fn position<E: Element>(images: &Matrix<E>, dim: usize, t: usize) -> Matrix<E> {
    Matrix::new(dim, images.iter().flat_map(|image| image[t * dim..][..dim].to_vec()).collect())
}

/// Bags of the tokens of their images.
fn bags_of_tokens(bags: &Bags<'_>, tokens: usize) -> Bags<'static> {
    let offsets: Vec<i64> = bags.offsets().iter().map(|&offset| offset * tokens as i64).collect();
    let longer = Bags::from_offsets(offsets).unwrap();
    match bags.mask() {
        Some(mask) => {
            let mask: Vec<u8> = mask.iter().flat_map(|&present| vec![present; tokens]).collect();
            longer.with_mask(mask).unwrap()
        }
        None => longer,
    }
}

fn cases_and_tokens() -> impl Strategy<Value = (Case, usize)> {
    (small_cases(), 1..4_usize)
}

fn mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (rows, bags) = (images::<E>(&case, 1), case.bags());
        let pooled = subject.pool(Pooling::Mean, &Features::new(&flat(&rows), case.dim)?, &bags)?;
        let parts = subject.max_mean::<E, f32>(rows.rows(), &bags)?;
        prop_assert!(pooled.argmax.is_none() && pooled.weights.is_none() && pooled.scores.is_none());
        is("mean", &pooled.embeddings, &[bags.len(), case.dim], &parts.mean)
    })
}

fn max<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (rows, bags) = (images::<E>(&case, 1), case.bags());
        let pooled = subject.pool(Pooling::Max, &Features::new(&flat(&rows), case.dim)?, &bags)?;
        let parts = subject.max_mean::<E, f32>(rows.rows(), &bags)?;
        let argmax = pooled.argmax.expect("max alone has an argmax");
        prop_assert_eq!((&argmax.shape[..], &argmax.data), (&[bags.len(), case.dim][..], &parts.argmax));
        is("max", &pooled.embeddings, &[bags.len(), case.dim], &parts.max)
    })
}

fn max_mean<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (rows, bags) = (images::<E>(&case, 1), case.bags());
        let pooled = subject.pool(Pooling::MaxMean, &Features::new(&flat(&rows), case.dim)?, &bags)?;
        let parts = subject.max_mean::<E, f32>(rows.rows(), &bags)?;
        let halves = parts.max.chunks(case.dim).zip(parts.mean.chunks(case.dim));
        let both: Vec<f32> = halves.flat_map(|(max, mean)| [max, mean].concat()).collect();
        is("max and mean", &pooled.embeddings, &[bags.len(), 2, case.dim], &both)
    })
}

fn attention<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (params, rows, bags) = (case.params(), images::<E>(&case, 1), case.bags());
        let pooled = subject.pool(attend(&params), &Features::new(&flat(&rows), case.dim)?, &bags)?;
        let parts = subject.attention_pool::<E, f32>(&params, rows.rows(), None, &bags)?;
        is("embeddings", &pooled.embeddings, &[bags.len(), case.heads, case.dim], &parts.pooled)?;
        is("weights", &pooled.weights.unwrap(), &[case.instances(), case.heads], &parts.weights)?;
        is("scores", &pooled.scores.unwrap(), &[case.instances(), case.heads], &parts.scores)
    })
}

fn tokens_per_image<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_tokens(), |(case, tokens)| {
        let (params, keys, bags) = (case.params(), case.features::<E>(), case.bags());
        let values = images::<E>(&case, tokens);
        let (flat_keys, flat_values) = (flat(&keys), flat(&values));
        let features = Features::per_image(&flat_keys, case.dim, &flat_values, tokens, case.dim)?;
        let pooled = subject.pool(attend(&params), &features, &bags)?;
        let parts = subject.attention_pool::<E, f32>(&params, keys.rows(), Some(values.rows()), &bags)?;
        is("embeddings", &pooled.embeddings, &[bags.len(), case.heads, tokens, case.dim], &parts.pooled)?;
        is("weights", &pooled.weights.unwrap(), &[case.instances(), case.heads], &parts.weights)?;
        is("scores", &pooled.scores.unwrap(), &[case.instances(), case.heads], &parts.scores)
    })
}

fn tokens_per_position<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_tokens(), |(case, tokens)| {
        let (params, images, bags) = (case.params(), images::<E>(&case, tokens), case.bags());
        let data = flat(&images);
        let pooled = subject.pool(attend(&params), &Features::per_position(&data, tokens, case.dim)?, &bags)?;
        let (row, heads) = (case.heads * case.dim, case.heads);
        let mut embeddings = vec![f32::NAN; bags.len() * tokens * row];
        let mut weights = vec![f32::NAN; case.instances() * tokens * heads];
        let mut scores = weights.clone();
        for t in 0..tokens {
            let part = subject.attention_pool::<E, f32>(&params, position(&images, case.dim, t).rows(), None, &bags)?;
            for (whole, part, row) in [
                (&mut embeddings, part.pooled, row),
                (&mut weights, part.weights, heads),
                (&mut scores, part.scores, heads),
            ] {
                let rows = whole.chunks_mut(row).skip(t).step_by(tokens);
                rows.zip(part.chunks(row)).for_each(|(whole, part)| whole.copy_from_slice(part));
            }
        }
        is("embeddings", &pooled.embeddings, &[bags.len(), tokens, heads, case.dim], &embeddings)?;
        is("weights", &pooled.weights.unwrap(), &[case.instances(), tokens, heads], &weights)?;
        is("scores", &pooled.scores.unwrap(), &[case.instances(), tokens, heads], &scores)
    })
}

fn all_tokens<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_tokens(), |(case, tokens)| {
        let (params, bags) = (case.params(), case.bags());
        let rows = Matrix::new(case.dim, flat(&images::<E>(&case, tokens)));
        let data = flat(&rows);
        let pooled = subject.pool(attend(&params), &Features::all_tokens(&data, tokens, case.dim)?, &bags)?;
        let longer = bags_of_tokens(&bags, tokens);
        let parts = subject.attention_pool::<E, f32>(&params, rows.rows(), None, &longer)?;
        is("embeddings", &pooled.embeddings, &[bags.len(), case.heads, case.dim], &parts.pooled)?;
        is("weights", &pooled.weights.unwrap(), &[case.instances(), tokens, case.heads], &parts.weights)?;
        is("scores", &pooled.scores.unwrap(), &[case.instances(), tokens, case.heads], &parts.scores)
    })
}

/// Mean and max have no K axis.
fn pooling_tokens_without_attention<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_tokens(), |(case, tokens)| {
        let (keys, images, bags) = (case.features::<E>(), images::<E>(&case, tokens), case.bags());
        let (flat_keys, data) = (flat(&keys), flat(&images));
        let (shape, dim) = ([bags.len(), tokens, case.dim], case.dim);
        let columns = subject.max_mean::<E, f32>(images.rows(), &bags)?;
        for features in
            [Features::per_image(&flat_keys, dim, &data, tokens, dim)?, Features::per_position(&data, tokens, dim)?]
        {
            is("mean", &subject.pool(Pooling::Mean, &features, &bags)?.embeddings, &shape, &columns.mean)?;
            is("max", &subject.pool(Pooling::Max, &features, &bags)?.embeddings, &shape, &columns.max)?;
        }
        let rows = Matrix::new(dim, data.clone());
        let tokens_as_rows = subject.max_mean::<E, f32>(rows.rows(), &bags_of_tokens(&bags, tokens))?;
        let (features, shape) = (Features::all_tokens(&data, tokens, dim)?, [bags.len(), dim]);
        is("mean", &subject.pool(Pooling::Mean, &features, &bags)?.embeddings, &shape, &tokens_as_rows.mean)?;
        is("max", &subject.pool(Pooling::Max, &features, &bags)?.embeddings, &shape, &tokens_as_rows.max)
    })
}

/// All images at once onto a state that has seen nothing are as pooled, bit for bit, and laid out so; no images after
/// them change nothing.
fn onto_a_state<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_tokens(), |(case, tokens)| {
        let (keys, data, bags, dim) = (flat(&case.features::<E>()), images::<E>(&case, tokens), case.bags(), case.dim);
        let (pooler, data) = (subject.pooler(attend(&case.params()))?, flat(&data));
        let rows = case.instances() * dim;
        for features in [
            |keys, _, _, dim| Features::new(keys, dim),
            |keys, data, tokens, dim| Features::per_image(keys, dim, data, tokens, dim),
            |_, data, tokens, dim| Features::per_position(data, tokens, dim),
            |_, data, tokens, dim| Features::all_tokens(data, tokens, dim),
        ] as [fn(_, _, _, _) -> _; 4]
        {
            let (all, none) = (features(&keys[..rows], &data[..], tokens, dim)?, features(&[], &[], tokens, dim)?);
            let pooled = pooler.pool(&all, &bags)?;
            let mut state = pooler.empty_state(&none, bags.len())?;
            let scores = pooler.pool_onto(&mut state, &all, &bags)?;
            same("embeddings", state.pooled(), &pooled.embeddings.data[..])?;
            let expected = pooled.scores.expect("of attention");
            is("scores", &scores, &expected.shape, &expected.data)?;

            let before = state.clone();
            pooler.pool_onto(&mut state, &none, &Bags::from_lengths(&vec![0; bags.len()])?)?;
            same("no images", &state, &before)?;
        }
        Ok(())
    })
}

/// All images at once are as pooled; in two pieces too where no order changes a bit, and else within tolerance.
fn mean_onto_a_state<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, cases_and_tokens(), |(case, tokens)| {
        let (bags, dim) = (case.bags(), case.dim);
        let (images, pooler) = (images::<E>(&case, tokens), subject.pooler(Pooling::Mean)?);
        let data = flat(&images);
        let features = Features::per_position(&data, tokens, dim)?;
        let pooled = pooler.pool(&features, &bags)?.embeddings.data;
        let mut state = pooler.empty_state(&features, bags.len())?;
        let scores = pooler.pool_onto(&mut state, &features, &bags)?;
        same("whole", state.pooled(), &pooled[..])?;
        let there = |n: usize| bags.mask().is_none_or(|mask| mask[n] != 0);
        let expected = (0..case.instances()).map(|n| if there(n) { 0.0 } else { f32::NEG_INFINITY });
        same("scores", &scores.data, &expected.collect::<Vec<f32>>())?;
        let count = |bag: std::ops::Range<usize>| bag.filter(|&n| there(n)).count() as f32;
        prop_assert_eq!(state.sum(), &bags.ranges().map(count).collect::<Vec<_>>()[..]);

        // Every second image of a bag first, the others then.
        let mut state = pooler.empty_state(&features, bags.len())?;
        for parity in 0..2 {
            let of_piece = |bag: std::ops::Range<usize>| bag.clone().filter(move |n| (n - bag.start) % 2 == parity);
            let rows: Vec<usize> = bags.ranges().flat_map(of_piece).collect();
            let lengths: Vec<i64> = bags.ranges().map(|bag| of_piece(bag).count() as i64).collect();
            let mut piece = Bags::from_lengths(&lengths)?;
            if let Some(mask) = bags.mask() {
                piece = piece.with_mask(rows.iter().map(|&n| mask[n]).collect::<Vec<_>>())?;
            }
            let data = flat(&images.select(rows));
            pooler.pool_onto(&mut state, &Features::per_position(&data, tokens, dim)?, &piece)?;
        }
        match pooler.order() {
            Order::Exact => same("pieces", state.pooled(), &pooled[..]),
            Order::Rounding => oracle::max_mean(images.rows(), &bags).mean.check("pieces", state.pooled()),
        }
    })
}

/// Projecting in the pooler is projecting by hand, then pooling, within the tolerance that rounding
/// parameters and projected features to the element type would need.
fn projection<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    let case = Case {
        seed: 7,
        lengths: vec![9, 0, 130, 1],
        dim: 33,
        value_dim: None,
        hidden: 17,
        heads: 2,
        groups: 1,
        gated: true,
        biases: [true; 3],
        masked: false,
        padding: 0,
        spread: 1.0,
    };
    let (input, bags) = (21, case.bags());
    let rows = Matrix::<E>::from_f32(input, &case.uniform("rows", case.instances() * input, 1.0));
    let weight = case.uniform("projection", case.dim * input, 0.4);
    let bias = case.uniform("projection bias", case.dim, 0.4);
    let params = case.params().with_projection(Projection::new(input, weight.clone(), Some(bias.clone()))?)?;

    let round = |x: f32| E::from_f32(x).to_f32();
    let project = |round: &dyn Fn(f32) -> f32| -> Vec<f32> {
        let unit = |row: &[E], p: usize| {
            let weights = weight[p * input..][..input].iter();
            let sum: f64 = weights.zip(row).map(|(&w, x)| f64::from(round(w)) * f64::from(x.to_f32())).sum();
            round((sum as f32 + bias[p]).max(0.0))
        };
        rows.iter().flat_map(|row| (0..case.dim).map(|p| unit(row, p)).collect::<Vec<_>>()).collect()
    };
    let expected = oracle::attention_pool_between(
        (&case.params(), &project(&|x| x)),
        (&oracle::rounded::<E>(&case.params()), &project(&round)),
        &bags,
    );
    let data = flat(&rows);
    let pooled = subject.pooler(attend(&params))?.project()?.pool(&Features::new(&data, input)?, &bags)?;
    assert_eq!(pooled.embeddings.shape, [bags.len(), case.heads, case.dim]);
    expected.scores.check("scores", &pooled.scores.unwrap().data)?;
    expected.weights.check("weights", &pooled.weights.unwrap().data)?;
    Ok(expected.pooled.check("embeddings", &pooled.embeddings.data)?)
}

/// Other features than the parameters were made for, other bags than there are images, a projection
/// that is not there: errors, all of them.
fn what_does_not_fit<B: Backend, E: Element>(subject: &Subject<B>) -> Outcome {
    subject.forall(CASES, small_cases(), |case| {
        let (params, bags) = (case.params(), case.bags());
        let wider = flat(&Matrix::<E>::from_f32(case.dim + 1, &vec![0.0; case.instances() * (case.dim + 1)]));
        prop_assert!(subject.pool(attend(&params), &Features::new(&wider, case.dim + 1)?, &bags).is_err());
        prop_assert!(subject.pooler(attend(&params))?.project().is_err());
        prop_assert!(subject.pooler(Pooling::Mean)?.project().is_err());
        let (max, no_images) = (subject.pooler(Pooling::Max)?, Features::<E>::new(&[], case.dim)?);
        prop_assert!(max.empty_state(&no_images, 1).is_err());
        let other = if max.order() == Order::Exact { Order::Rounding } else { Order::Exact };
        let mut state = PoolState::empty_in(other, 1, 1, case.dim)?;
        let error = subject.pooler(Pooling::Mean)?.pool_onto(&mut state, &no_images, &Bags::from_lengths(&[0])?);
        prop_assert!(error.unwrap_err().to_string().starts_with("state: expected a state of Order::"));

        let longer = Bags::from_lengths(&[case.instances() as i64 + 1]).unwrap();
        let data = flat(&images::<E>(&case, 1));
        for pooling in [Pooling::Mean, Pooling::Max, Pooling::MaxMean, attend(&params)] {
            prop_assert!(subject.pool(pooling, &Features::new(&data, case.dim)?, &longer).is_err());
        }
        Ok(())
    })
}
