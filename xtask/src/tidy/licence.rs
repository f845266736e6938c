//! SPDX licence expressions.
//!
//! Comes in: an expression and the licences we accept. Goes out: whether it can be met by them alone. Never here: a
//! judgement about a licence.

/// Whether the licences of `allowed` are enough to meet `expression`.
///
/// `AND` binds tighter than `OR`, and the `/` of old manifests means `OR`. What cannot be read is not allowed.
pub(super) fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest, allowed).is_some_and(|met| met && rest.is_empty())
}

/// Licences joined by `OR`; `None` when the words make no sense.
fn any_of(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut met = all_of(words, allowed)?;
    while take(words, "OR") {
        met |= all_of(words, allowed)?;
    }
    Some(met)
}

fn all_of(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while take(words, "AND") {
        met &= one(words, allowed)?;
    }
    Some(met)
}

/// A licence, perhaps with an exception, or an expression in parentheses.
fn one(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    if take(words, "(") {
        let met = any_of(words, allowed)?;
        return take(words, ")").then_some(met);
    }
    let name = next(words).filter(|word| !["AND", "OR", "WITH", ")"].contains(word))?;
    let licence = if take(words, "WITH") { format!("{name} WITH {}", next(words)?) } else { name.to_owned() };
    Some(allowed.contains(&licence))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}

fn next<'a>(words: &mut &[&'a str]) -> Option<&'a str> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: bool) {
        let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"].map(str::to_owned);
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }

    #[test]
    fn expressions_mean_what_spdx_says() {
        check("MIT", true);
        check("GPL-3.0", false);
        check("GPL-3.0 OR MIT", true);
        check("MIT/Apache-2.0", true);
        check("GPL-3.0 AND MIT", false);
        check("(MIT OR Apache-2.0) AND Unicode-3.0", true);
        check("(Zlib OR Apache-2.0) AND Unicode-3.0", false);
        check("MIT OR GPL-3.0 AND Zlib", true);
        check("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true);
        check("Apache-2.0", false);
    }

    #[test]
    fn what_cannot_be_read_is_not_allowed() {
        for expression in ["", "MIT MIT", "(MIT", "MIT OR", "OR MIT", "MIT WITH", "MIT)"] {
            check(expression, false);
        }
    }
}
