//! Amounts of a resource: Kubernetes' quantities as exact numbers.
//!
//! Comes in: text such as `100Mi`, `1500m` or `2e3`. Goes out: thousandths as integers, and the
//! text the API server would write. What is finer than a thousandth is rounded up, as Kubernetes does; what is larger
//! than the range stays at its end.

use std::{fmt, ops};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount in thousandths of its unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount {
    milli: i128,
}

/// Why text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a quantity; write it like 100Mi, 1500m or 2")]
pub struct InvalidAmount(pub(crate) String);

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Suffixes of powers of ten, with the power of ten thousandths.
const DECIMAL: [(&str, i32); 10] =
    [("n", -6), ("u", -3), ("m", 0), ("", 3), ("k", 6), ("M", 9), ("G", 12), ("T", 15), ("P", 18), ("E", 21)];
/// Kubernetes keeps a quantity in 63 bits of whole units.
const LARGEST_MILLI: i128 = i64::MAX as i128 * 1000;

impl Amount {
    /// Whole units.
    #[must_use]
    pub fn units(units: u64) -> Self {
        Self { milli: (i128::from(units) * 1000).min(LARGEST_MILLI) }
    }

    /// Thousandths.
    #[must_use]
    pub fn thousandths(milli: i64) -> Self {
        Self { milli: milli.into() }
    }

    /// In thousandths; the range's end where they do not fit.
    #[must_use]
    pub fn to_thousandths(self) -> i64 {
        i64::try_from(self.milli).unwrap_or(if self.milli < 0 { i64::MIN } else { i64::MAX })
    }

    /// In whole units, rounded up.
    #[must_use]
    pub fn to_units(self) -> i64 {
        i64::try_from(self.milli.div_euclid(1000) + i128::from(self.milli.rem_euclid(1000) > 0)).unwrap_or(i64::MAX)
    }

    /// Reads a Kubernetes quantity.
    ///
    /// # Errors
    /// The text is no number, or its suffix is unknown.
    pub fn parse(text: &str) -> Result<Self, InvalidAmount> {
        parse(text).ok_or_else(|| InvalidAmount(text.to_owned()))
    }

    /// As text with suffixes of powers of ten, in its shortest exact form: CPUs and counts.
    #[must_use]
    pub fn decimal(self) -> Quantity {
        let mut left = self.milli;
        let mut suffix = 2;
        while left != 0 && left % 1000 == 0 && suffix < DECIMAL.len() - 1 {
            left /= 1000;
            suffix += 1;
        }
        Quantity(if left == 0 { "0".to_owned() } else { format!("{left}{}", DECIMAL[suffix].0) })
    }

    /// As text with suffixes of powers of two, in its shortest exact form: bytes. Fractions are rounded up.
    #[must_use]
    pub fn binary(self) -> Quantity {
        let mut left = self.to_units();
        if left.abs() < 1024 {
            return Self::units(0).plus(i128::from(left) * 1000).decimal();
        }
        let mut suffix = 0;
        while left % 1024 == 0 && suffix < BINARY.len() - 1 {
            left /= 1024;
            suffix += 1;
        }
        Quantity(format!("{left}{}", BINARY[suffix]))
    }

    /// What is left of it, at least nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { milli: (self.milli - other.milli).max(0) }
    }

    fn plus(self, milli: i128) -> Self {
        Self { milli: (self.milli + milli).clamp(-LARGEST_MILLI, LARGEST_MILLI) }
    }
}

impl ops::Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(other.milli)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decimal().0)
    }
}

fn parse(text: &str) -> Option<Amount> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(number_ends);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Nine digits behind the point are what the finest suffix needs; the rest only matters for rounding up.
    if whole.len() + fraction.len() == 0 || whole.len() > 19 || fraction.contains('.') {
        return None;
    }
    let kept = &fraction[..fraction.len().min(9)];
    let digits: i128 = format!("{whole}{kept}").parse().ok()?;
    let inexact = fraction[kept.len()..].bytes().any(|digit| digit != b'0');
    let scale = i32::try_from(kept.len()).ok()?;

    let (factor, power) = match BINARY.iter().skip(1).position(|name| *name == suffix) {
        Some(index) => (1024i128.checked_pow(u32::try_from(index).ok()? + 1)?, 3 - scale),
        None => (1, decimal_power(suffix)? - scale),
    };
    let exact = digits.checked_mul(factor).unwrap_or(i128::MAX / 2);
    let milli = match u32::try_from(power) {
        Ok(power) => 10i128.checked_pow(power).and_then(|ten| exact.checked_mul(ten)).unwrap_or(LARGEST_MILLI),
        Err(_) => {
            let ten = 10i128.checked_pow(power.unsigned_abs())?;
            exact / ten + i128::from(exact % ten != 0)
        }
    };
    let milli = (milli + i128::from(inexact && power <= 0)).min(LARGEST_MILLI);
    Some(Amount { milli: if negative { -milli } else { milli } })
}

fn decimal_power(suffix: &str) -> Option<i32> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some(*power);
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-18..=18).contains(&exponent).then_some(exponent + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_quantities_as_kubernetes_does() {
        let cases = [
            ("0", 0),
            ("1", 1000),
            ("1500m", 1500),
            ("0.5", 500),
            ("100n", 1),
            ("1.5Ki", 1_536_000),
            ("100Mi", 104_857_600_000),
            ("2e3", 2_000_000),
            ("1E2", 100_000),
            ("1E", 1_000_000_000_000_000_000_000),
            ("-2", -2000),
            ("+3k", 3_000_000),
            (".25", 250),
            ("0.0000000001", 1),
            ("16Ei", LARGEST_MILLI),
        ];
        for (text, milli) in cases {
            assert_eq!(Amount::parse(text), Ok(Amount { milli }), "{text}");
        }
        for text in ["", "x", "1.2.3", "1 Mi", "1mi", "Mi", "1e", "--1", "1e99"] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_the_text_the_api_server_would_write() {
        let binary = |text: &str| Amount::parse(text).unwrap().binary().0;
        assert_eq!([binary("16384Ki"), binary("1025"), binary("1000"), binary("0")], ["16Mi", "1025", "1k", "0"]);
        let decimal = |text: &str| Amount::parse(text).unwrap().decimal().0;
        assert_eq!([decimal("2000m"), decimal("1500m"), decimal("110"), decimal("3000")], ["2", "1500m", "110", "3k"]);
    }
}
