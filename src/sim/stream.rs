//! Dice by label: every link, disk, clock, client and node throws its own, so that taking one fault or one
//! client out of a plan leaves the throws of all others as they were. That is what makes shrinking work.

use crate::base::Rng;

/// The dice of `label` (and a number, for one of many) in the run of `seed`.
pub fn stream(seed: u64, label: &str, number: u64) -> Rng {
    let mut state = mix(seed, 0x7361_7761);
    for byte in label.bytes() {
        state = mix(state, u64::from(byte));
    }
    Rng::new(mix(state, number))
}

/// Folds a number into a running hash. Not for secrets; its value is part of what a seed means.
pub fn mix(state: u64, number: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;
    let wide = u128::from((state ^ number).wrapping_add(0x2545_f491_4f6c_dd1d)) * u128::from(MULTIPLIER);
    (wide as u64) ^ ((wide >> 64) as u64) ^ state.rotate_left(23)
}

/// Uniform in the logarithm between two bounds, in integers only: first the octave, then the place in it.
pub fn log_uniform(rng: &mut Rng, low: u64, high: u64) -> u64 {
    assert!(0 < low && low <= high, "a range of the logarithm begins above zero");
    let octaves = u64::from((high / low).ilog2());
    let from = low << rng.below(octaves + 1);
    rng.between(from, (2 * from).min(high))
}

/// A waiting time with the given mean: exponential, from a table of quantiles, so that no float is involved.
pub fn exponential(rng: &mut Rng, mean: u64) -> u64 {
    // -ln(1 - (i + 1/2) / 16), in thousandths.
    const QUANTILES: [u64; 16] =
        [32, 99, 170, 247, 331, 422, 522, 633, 758, 901, 1067, 1266, 1516, 1857, 2398, 3466];
    let at = rng.below(16) as usize;
    let low = if at == 0 { 0 } else { QUANTILES[at - 1] };
    (mean.saturating_mul(rng.between(low, QUANTILES[at]))) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_do_not_meet() {
        let first: Vec<u64> = [("disk", 1), ("disk", 2), ("link", 1), ("link", 12)]
            .into_iter()
            .map(|(label, number)| stream(7, label, number).next_u64())
            .collect();
        for (at, value) in first.iter().enumerate() {
            assert!(!first[..at].contains(value));
        }
        assert_ne!(stream(7, "disk", 1).next_u64(), stream(8, "disk", 1).next_u64());
    }

    #[test]
    fn draws_stay_in_their_range() {
        let mut rng = Rng::new(1);
        let mut total = 0;
        for _ in 0..10_000 {
            let drawn = log_uniform(&mut rng, 10, 100_000);
            assert!((10..=100_000).contains(&drawn));
            total += exponential(&mut rng, 1_000);
        }
        assert!((700..1_100).contains(&(total / 10_000)), "{}", total / 10_000);
    }
}
