//! exp, tanh and the gate on vectors.
//!
//! exp(x) = 2ⁿ·e^r with n = round(x / ln 2) and |r| ≤ ½ ln 2, and e^r − 1 = r + r²·P(r). The
//! coefficients of P minimise the greatest relative error of e^r − 1: 2.4e-10 before rounding.
//! e^r − 1 is what tanh needs: tanh x = m / (m + 2) with m = e^2x − 1 keeps its relative accuracy at
//! small x, and shares its division with the sigmoid in the gate.

use super::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts: n·LN_2_HI is exact for |n| < 2⁹.
const LN_2_HI: f32 = 0.693_359_4;
const LN_2_LO: f32 = -2.121_944_4e-4;
const P: [f32; 6] = [0.5, 0.166_666_66, 0.041_666_36, 0.008_333_39, 0.001_394_067, 0.000_198_458_8];

/// n and e^r − 1, as above.
#[inline(always)]
fn reduce<S: Simd>(simd: S, x: S::Vector) -> (S::Vector, S::Vector) {
    let n = simd.round(simd.mul(x, simd.splat(LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN_2_HI), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LO), r);
    let mut p = simd.splat(P[5]);
    for &coefficient in P[..5].iter().rev() {
        p = simd.mul_add(p, r, simd.splat(coefficient));
    }
    (n, simd.mul_add(simd.mul(r, r), p, r))
}

/// e^x: exactly 0 at −∞, infinite above 88.73.
#[inline(always)]
pub(in crate::cpu) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // Beyond these the result is 0 or infinite already, and n stays small.
    let (n, m) = reduce(simd, simd.clamp(x, -106.0, 90.0));
    simd.scale(simd.add(m, simd.splat(1.0)), n)
}

/// m = e^2x − 1, held below e²⁰: tanh x is 1 there.
#[inline(always)]
fn exp_2x_minus_1<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let (n, m) = reduce(simd, simd.clamp(simd.add(x, x), -20.0, 20.0));
    let power = simd.scale(simd.splat(1.0), n);
    simd.mul_add(power, m, simd.sub(power, simd.splat(1.0)))
}

/// tanh x.
#[inline(always)]
pub(in crate::cpu) fn tanh<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let m = exp_2x_minus_1(simd, x);
    simd.div(m, simd.add(m, simd.splat(2.0)))
}

/// tanh(x)·σ(y) = m / ((m + 2)·(1 + e^−y)), which is 0 once the divisor overflows: for y below −68 at
/// the earliest, where σ(y) < 3e-30.
#[inline(always)]
pub(in crate::cpu) fn gate<S: Simd>(simd: S, x: S::Vector, y: S::Vector) -> S::Vector {
    let m = exp_2x_minus_1(simd, x);
    let e = exp(simd, simd.sub(simd.splat(0.0), y));
    simd.div(m, simd.mul(simd.add(m, simd.splat(2.0)), simd.add(e, simd.splat(1.0))))
}

/// σ(x) = 1 / (1 + e^−x).
#[inline(always)]
pub(in crate::cpu) fn sigmoid<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(simd.splat(1.0), simd.add(simd.splat(1.0), e))
}

/// Of a vector of V and one of U, tanh and σ; of two of V, tanh of both.
#[inline(always)]
pub(in crate::cpu) fn activations<S: Simd, const GATED: bool>(simd: S, [x, y]: [S::Vector; 2]) -> [S::Vector; 2] {
    [tanh(simd, x), if GATED { sigmoid(simd, y) } else { tanh(simd, y) }]
}

/// 1 − tanh², the derivative of tanh.
#[inline(always)]
pub(in crate::cpu) fn tanh_slope<S: Simd>(simd: S, tanh: S::Vector) -> S::Vector {
    simd.sub(simd.splat(1.0), simd.mul(tanh, tanh))
}

/// The derivatives of tanh(x)·σ(y) by x and by y.
#[inline(always)]
pub(in crate::cpu) fn gate_slopes<S: Simd>(simd: S, tanh: S::Vector, sigmoid: S::Vector) -> [S::Vector; 2] {
    let rest = simd.sub(simd.splat(1.0), sigmoid);
    [simd.mul(tanh_slope(simd, tanh), sigmoid), simd.mul(simd.mul(tanh, sigmoid), rest)]
}

/// x ← e^x for every element.
#[inline(always)]
pub(in crate::cpu) fn exp_in_place<S: Simd>(simd: S, x: &mut [f32]) {
    for lanes in x.chunks_mut(S::LANES) {
        let e = exp(simd, simd.load_slice(lanes));
        simd.store_slice(lanes, e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Cpu, Isa, with_simd};

    /// Every instruction set of this processor.
    fn cpus() -> Vec<Cpu> {
        [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter_map(Cpu::with_isa).collect()
    }

    /// The greatest error of `f` relative to `exact`, in units of 2⁻²⁴.
    fn relative_error(x: &[f32], f: impl Fn(Cpu, f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let error = |cpu: Cpu, x: f32| {
            let exact = exact(f64::from(x));
            if exact == 0.0 { f64::from(f(cpu, x)).abs() } else { ((f64::from(f(cpu, x)) - exact) / exact).abs() }
        };
        let errors = cpus().into_iter().flat_map(|cpu| x.iter().map(move |&x| (cpu, x))).map(|(cpu, x)| error(cpu, x));
        errors.fold(0.0, f64::max) * f64::from(1 << 24)
    }

    fn on_one(x: f32, f: impl Fn(&mut [f32])) -> f32 {
        let mut lane = [x];
        f(&mut lane);
        lane[0]
    }

    fn exp_on(cpu: Cpu, x: f32) -> f32 {
        on_one(x, |x| with_simd!(cpu, |simd| simd.vectorize(|| exp_in_place(simd, x))))
    }

    fn tanh_on(cpu: Cpu, x: f32) -> f32 {
        on_one(x, |x| with_simd!(cpu, |simd| simd.vectorize(|| simd.store_slice(x, tanh(simd, simd.load_slice(x))))))
    }

    fn gate_on(cpu: Cpu, x: f32, y: f32) -> f32 {
        on_one(x, |x| {
            with_simd!(cpu, |simd| simd.vectorize(|| {
                simd.store_slice(x, gate(simd, simd.load_slice(x), simd.splat(y)));
            }))
        })
    }

    fn sweep(lo: f32, hi: f32) -> Vec<f32> {
        (0..=20_000).map(|i| lo + (hi - lo) * i as f32 / 20_000.0).collect()
    }

    #[test]
    fn exp_is_within_four_units() {
        assert!(relative_error(&sweep(-87.0, 88.7), exp_on, f64::exp) < 4.0);
    }

    #[test]
    fn tanh_is_within_eight_units_of_relative_error_down_to_the_smallest() {
        let small = (-126..0).map(|n| 2.0_f32.powi(n) * 1.3);
        let x: Vec<_> = sweep(-12.0, 12.0).into_iter().chain(small).collect();
        assert!(relative_error(&x, tanh_on, f64::tanh) < 8.0);
    }

    #[test]
    fn gate_keeps_relative_accuracy_in_both_tails() {
        for y in [-60.0_f32, -20.0, -1.0, 0.0, 1.0, 20.0, 60.0] {
            let exact = |x: f64| x.tanh() / (1.0 + (-f64::from(y)).exp());
            assert!(relative_error(&sweep(-5.0, 5.0), |cpu, x| gate_on(cpu, x, y), exact) < 14.0, "y = {y}");
        }
    }

    #[test]
    fn the_ends_are_exact() {
        for cpu in cpus() {
            assert_eq!(exp_on(cpu, f32::NEG_INFINITY), 0.0);
            assert_eq!(exp_on(cpu, -104.5), 0.0);
            assert_eq!(exp_on(cpu, -103.0), f32::from_bits(1));
            assert_eq!(exp_on(cpu, 0.0), 1.0);
            assert_eq!(exp_on(cpu, 89.0), f32::INFINITY);
            assert!(exp_on(cpu, f32::NAN).is_nan());
            assert_eq!(tanh_on(cpu, f32::INFINITY), 1.0);
            assert_eq!(tanh_on(cpu, f32::NEG_INFINITY), -1.0);
            assert!(tanh_on(cpu, f32::NAN).is_nan());
            assert_eq!(gate_on(cpu, 1e9, f32::INFINITY), 1.0);
            assert_eq!(gate_on(cpu, 1.0, f32::NEG_INFINITY), 0.0);
            assert!(gate_on(cpu, f32::NAN, 0.0).is_nan());
            assert!(gate_on(cpu, 0.0, f32::NAN).is_nan());
        }
    }
}
