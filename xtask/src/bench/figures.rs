//! Figures of many samples, as a reader wants them.
//!
//! Comes in: durations. Goes out: quantiles and medians. Never here: a clock.

use std::time::Duration;

/// The duration below which `hundredths` of a hundred of them lie; zero of none.
pub(super) fn quantile(samples: &[Duration], hundredths: usize) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// In milliseconds, with their parts.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// In microseconds, with their parts.
pub(super) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The middle one of them; not a number of none.
pub(super) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (lower, upper) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    match (lower, upper) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::{median, quantile};
    use std::time::Duration;

    #[test]
    fn quantiles_are_samples() {
        let samples: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile(&samples, 50), Duration::from_millis(100));
        assert_eq!(quantile(&samples, 99), Duration::from_millis(198));
        assert_eq!(quantile(&samples[..1], 99), Duration::from_millis(200));
        assert_eq!(quantile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&[3.0, 1.0, 2.0, 10.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[3.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
