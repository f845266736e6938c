//! Amounts in pod specs: Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) that are not below zero, as whole numbers.
//! Fractions are rounded up, as the API does.

mod amount;

pub use amount::{Amount, InvalidAmount};

/// A string that is not an amount a pod can ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount: write it like 100m, 2, 64Mi or 1.5Gi, not below 0")]
pub struct QuantityError(pub String);

/// `text` in thousandths: `1` is 1000, `100m` is 100.
///
/// # Errors
/// `text` is no quantity, or is negative.
pub fn millis(text: &str) -> Result<u64, QuantityError> {
    read(text, Amount::to_thousandths)
}

/// `text` in whole units: bytes, for instance.
///
/// # Errors
/// `text` is no quantity, or is negative.
pub fn whole(text: &str) -> Result<u64, QuantityError> {
    read(text, Amount::to_units)
}

fn read(text: &str, unit: impl FnOnce(Amount) -> i64) -> Result<u64, QuantityError> {
    let amount = Amount::parse(text).ok().and_then(|amount| u64::try_from(unit(amount)).ok());
    amount.ok_or_else(|| QuantityError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{millis, whole};

    #[test]
    fn cpu_is_counted_in_thousandths() {
        for (text, expected) in [("0", 0), ("1", 1000), ("100m", 100), ("0.1", 100), ("1.5", 1500), ("2e0", 2000)] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        assert_eq!(millis("100u"), Ok(1), "less than a thousandth is rounded up");
    }

    #[test]
    fn bytes_know_both_families_of_suffixes() {
        let expected = [("128Mi", 128 << 20), ("1.5Gi", 3 << 29), ("1G", 1_000_000_000), ("1e3", 1000), ("1500m", 2)];
        for (text, bytes) in expected {
            assert_eq!(whole(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_and_less_than_nothing_are_refused() {
        for text in ["", ".", "Mi", "-1", "1.2.3", "1 Mi", "1mi", "x"] {
            assert!(whole(text).is_err(), "{text}");
        }
    }
}
