//! Eviction thresholds: a share of what the node has, or an amount.
//!
//! Comes in: text such as `100Mi` or `10%`. Goes out: how much that is of a capacity.

use crate::quantity::{Amount, InvalidAmount};

/// A share of a resource or an amount of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// So much.
    Amount(Amount),
    /// So many hundredths of the capacity.
    Percent(f64),
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Amount(Amount::default())
    }
}

impl Threshold {
    /// Reads a quantity, or a number with `%`.
    ///
    /// # Errors
    /// Neither of the two, negative, or more than 100 %.
    pub fn parse(text: &str) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount(text.to_owned());
        match text.strip_suffix('%') {
            Some(number) => {
                let percent: f64 = number.parse().map_err(|_| invalid())?;
                (0.0..=100.0).contains(&percent).then_some(Self::Percent(percent)).ok_or_else(invalid)
            }
            None => {
                let amount = Amount::parse(text)?;
                if amount < Amount::default() { Err(invalid()) } else { Ok(Self::Amount(amount)) }
            }
        }
    }

    /// How much it is of this capacity.
    #[must_use]
    pub fn of(self, capacity: Amount) -> Amount {
        match self {
            Self::Amount(amount) => amount,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a capacity, at most 100 %"
            )]
            Self::Percent(percent) => Amount::units((capacity.to_units() as f64 * percent / 100.0) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_share_or_an_amount() {
        let capacity = Amount::units(1000);
        assert_eq!(Threshold::parse("10%").unwrap().of(capacity), Amount::units(100));
        assert_eq!(Threshold::parse("7").unwrap().of(capacity), Amount::units(7));
        for text in ["-1%", "101%", "-5", "%", "NaN%"] {
            assert!(Threshold::parse(text).is_err(), "{text}");
        }
    }
}
