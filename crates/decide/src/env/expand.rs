//! `$(VAR)` in environment values, commands and arguments.

/// `text` with every `$(NAME)` that `lookup` knows replaced by its value. `$$` stands for one `$`, so `$$(NAME)` stays
/// `$(NAME)`. What `lookup` does not know, and a `$` before anything else, stays as it is.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match lookup(name) {
                Some(value) => expanded.push_str(value),
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::expand;
    use std::collections::BTreeMap;

    #[test]
    fn references_are_replaced_and_everything_else_stays() {
        let variables = BTreeMap::from([
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "$(A)".to_owned()),
            ("E".to_owned(), String::new()),
        ]);
        let cases = [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$(E)", ""),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$", "$"),
            ("$$", "$"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("€$(A)€", "€1€"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, |name| variables.get(name)), expected, "{text}");
        }
    }
}
