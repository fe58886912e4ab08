//! What each row of a sum becomes by itself: a factor and an exponent.

/// A weight that is not 0 as `mantissa · 2^exponent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Power {
    /// 0.70 to 1.42 of an exponential, 1 to 2 of any other weight, and then perhaps negative.
    pub(crate) mantissa: f32,
    pub(crate) exponent: i64,
}

/// Scores of this magnitude and above are at least 2⁸ apart, which no row makes up for.
const FAR: f32 = (1_u64 << 31) as f32;

impl Power {
    pub(crate) const ONE: Power = Power { mantissa: 1.0, exponent: 0 };

    /// e^score of a finite score: 2^n·2^r with n the integer next to score·log₂ e. The mantissa is within 0.6 units of
    /// its last place.
    ///
    /// In f64, with each product and sum rounded by itself: so it has the same bits wherever it is computed. The
    /// polynomial is that of Taylor: for |r| ≤ ½, e^(r ln 2) to 2e-10.
    pub(crate) fn exp(score: f32) -> Power {
        if score.abs() >= FAR {
            return Power { mantissa: 1.0, exponent: far_exponent(score) };
        }
        let y = f64::from(score) * std::f64::consts::LOG2_E;
        let n = y.round_ties_even();
        let z = (y - n) * std::f64::consts::LN_2;
        let polynomial = TAYLOR.iter().fold(0.0, |sum, coefficient| sum * z + coefficient);
        Power { mantissa: polynomial as f32, exponent: n as i64 }
    }

    /// A finite weight that is not 0.
    pub(crate) fn of(weight: f32) -> Power {
        let (mantissa, exponent) = split(f64::from(weight));
        Power { mantissa: mantissa as f32, exponent }
    }

    /// As f64, times 2^-`exponent`; 0 or infinite where that is far off.
    pub(crate) fn over(self, exponent: i64) -> f64 {
        scaled(f64::from(self.mantissa), self.exponent.saturating_sub(exponent))
    }
}

/// 1/k!, of the highest power first.
const TAYLOR: [f64; 9] = [1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// Rises with the score, by 2⁹ for each float: only equal ones have weights that compare.
fn far_exponent(score: f32) -> i64 {
    let floats = i64::from(score.abs().to_bits() - FAR.to_bits());
    let exponent = (1 << 32) + (floats << 9);
    if score < 0.0 { -exponent } else { exponent }
}

/// x = mantissa·2^exponent with 1 ≤ |mantissa| < 2, of a normal number.
fn split(x: f64) -> (f64, i64) {
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i64 - 1023;
    (f64::from_bits(bits & !(0x7ff << 52) | 1023 << 52), exponent)
}

/// x·2^exponent, of an x that is far from the ends of f64.
pub(crate) fn scaled(x: f64, exponent: i64) -> f64 {
    x * f64::from_bits(((exponent.clamp(-900, 900) + 1023) as u64) << 52)
}

/// A row of a sum of weight·x: each of its terms is the integer nearest to 2²²·`scale`·x, times 2^(`exponent` −
/// [`UNIT`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    pub(crate) scale: f32,
    pub(crate) exponent: i64,
}

/// Of `scale`, [`LIMB`] bits before the point, and as many behind it.
pub(crate) const UNIT: i64 = 2 * LIMB - 1;

/// Bits of each of the two integers that a term is split into.
pub(crate) const LIMB: i64 = 22;

/// Below this exponent a row is not scaled up any further: `scale` would overflow.
const LOWEST: i64 = -105;

impl Scale {
    /// Of a row with this weight whose greatest magnitude is `greatest`, finite and not 0: |`scale`·x| is at least 2²¹ and
    /// below 2²² for its greatest x.
    pub(crate) fn of(weight: Power, greatest: f32) -> Scale {
        let (_, exponent) = split(f64::from(weight.mantissa) * f64::from(greatest));
        let exponent = exponent.max(LOWEST);
        let scale = f64::from(weight.mantissa) * scaled(1.0, LIMB - 1 - exponent);
        Scale { scale: scale as f32, exponent: weight.exponent + exponent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exponential_is_within_a_unit() {
        for i in -400_000..400_000 {
            let score = i as f32 * 2.1e-4;
            let Power { mantissa, exponent } = Power::exp(score);
            let exact = f64::from(score).exp();
            let error = (f64::from(mantissa) * 2_f64.powi(exponent as i32) / exact - 1.0).abs();
            assert!(error < 0.6 * f64::from(f32::EPSILON), "{score}: {error}");
            assert!((0.7..1.42).contains(&mantissa));
        }
        assert_eq!(Power::exp(0.0), Power::ONE);
    }

    #[test]
    fn far_scores_keep_their_order_and_their_distance() {
        let scores = [-f32::MAX, -1e30, -3e9, -2.2e9, -2.1e9, 0.0, 2.1e9, 2.2e9, 3e9, 1e30, f32::MAX];
        for pair in scores.windows(2) {
            assert!(Power::exp(pair[1]).exponent - Power::exp(pair[0]).exponent > 1 << 16);
        }
        let next = FAR.next_up();
        assert_eq!(Power::exp(next).exponent - Power::exp(FAR).exponent, 1 << 9);
        assert!(Power::exp(FAR).exponent - Power::exp(FAR.next_down()).exponent > 1 << 8);
    }

    #[test]
    fn any_weight_is_split_without_loss() {
        for weight in [1.0, -1.5, 3.25e-20, f32::MIN_POSITIVE, -1e-45, f32::MAX] {
            let Power { mantissa, exponent } = Power::of(weight);
            assert!((1.0..2.0).contains(&mantissa.abs()));
            assert_eq!(f64::from(mantissa) * 2_f64.powi(exponent as i32), f64::from(weight));
        }
    }

    #[test]
    fn the_greatest_of_a_row_fills_its_bits() {
        for greatest in [f32::MAX, 3.0, 1.0, 0.7, 1e-20, 1e-30] {
            for weight in [Power::ONE, Power::exp(0.34), Power::exp(-0.34), Power::of(1.99), Power::of(-1e-45)] {
                let Scale { scale, exponent } = Scale::of(weight, greatest);
                let scaled = f64::from(scale) * f64::from(greatest);
                assert!((2_f64.powi(21)..2_f64.powi(22)).contains(&scaled.abs()), "{greatest} {weight:?}");
                let exact = f64::from(weight.mantissa) * f64::from(greatest);
                let units = (LIMB - UNIT + exponent - weight.exponent) as i32;
                assert_eq!(scaled * 2_f64.powi(units), exact);
            }
        }
        let tiny = Scale::of(Power::of(-1.99), 1e-45);
        assert!(tiny.scale.is_finite() && tiny.exponent == LOWEST);
    }
}
