//! Medians and their confidence intervals, without assuming a distribution.
//!
//! A run is many short rounds, and in each round every variant has a slice. Noise that lasts longer
//! than a round (a neighbour, a frequency change) hits all variants of the round alike, so ratios are
//! formed within a round and the median is taken over the rounds. The interval is of order
//! statistics: the k-th smallest and k-th largest sample, with the largest k for which the binomial
//! distribution still gives 95% coverage of the true median.

/// A median and the interval that covers the true one with 95% confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The median of the samples.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// The estimate from `samples`; `None` if there are none. Fewer than six samples cannot give 95%
    /// confidence: the interval is then their whole range.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let cut = interval_cut(sorted.len());
        Some(Self {
            median: (sorted[last / 2] + sorted[sorted.len() / 2]) / 2.0,
            low: sorted[cut],
            high: sorted[last - cut],
        })
    }

    /// The estimate of `above / below`, divided round by round; rounds without both are left out.
    pub fn of_ratio(above: &[f64], below: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> =
            above.iter().zip(below).map(|(a, b)| a / b).filter(|ratio| ratio.is_finite()).collect();
        Self::of(&ratios)
    }
}

/// How many samples to leave out at either end so that the interval still covers the median with 95%:
/// the largest k with `P(Binomial(n, 1/2) <= k) <= 0.025`; 0 if there is none.
fn interval_cut(samples: usize) -> usize {
    let n = samples as f64;
    // ln of C(n, k) / 2^n, built up term by term.
    let mut term = -n * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..samples / 2 {
        tail += term.exp();
        if tail > 0.025 {
            return k.saturating_sub(1);
        }
        term += ((n - k as f64) / (k as f64 + 1.0)).ln();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Estimate::of(&[3.0, 1.0, 2.0]).map(|e| e.median), Some(2.0));
        assert_eq!(Estimate::of(&[4.0, 1.0, 2.0, 3.0]).map(|e| e.median), Some(2.5));
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn the_interval_matches_published_tables() {
        // Order statistics of 95% intervals of a median: n = 6: 1..6, 10: 2..9, 20: 6..15, 50: 18..33, 100: 40..61.
        for (n, rank) in [(5, 1), (6, 1), (10, 2), (20, 6), (50, 18), (100, 40)] {
            assert_eq!(interval_cut(n) + 1, rank, "{n} samples");
        }
    }

    #[test]
    fn the_interval_holds_the_median_as_often_as_it_says() {
        // A linear congruential generator is random enough to count coverage of a known median.
        let (mut state, mut covered) = (1u64, 0);
        for _ in 0..2_000 {
            let mut draw = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            let samples: Vec<f64> = (0..31).map(|_| draw()).collect();
            let estimate = Estimate::of(&samples).expect("samples");
            covered += i32::from((estimate.low..=estimate.high).contains(&0.5));
        }
        assert!((1_860..=1_980).contains(&covered), "{covered} of 2000");
    }

    #[test]
    fn ratios_are_formed_round_by_round() {
        let ratio = Estimate::of_ratio(&[2.0, 20.0, 200.0], &[1.0, 10.0, 100.0]).expect("rounds");
        assert_eq!((ratio.median, ratio.low, ratio.high), (2.0, 2.0, 2.0));
    }
}
