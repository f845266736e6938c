//! Rules about the text and the name of a single file.
//!
//! Comes in: a path and its text. Goes out: faults. Never here: a file system.

use super::Fault;

/// A file has to have a reason to be longer than this.
const LINES: usize = 500;

/// The files that have one.
const LONG: [(&str, &str); 0] = [];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "utilities"];

/// Directories of texts that others wrote.
const FOREIGN: [&str; 1] = ["tests/guests/wit/wasi-"];

/// What must not stand in Rust code, and why. The pieces are joined here so that this file does not break its own rule.
const CODE: [(&str, &str); 4] = [
    (concat!("#[ig", "nore"), "a test that does not run proves nothing"),
    (concat!("to", "do!("), "no stubs: refuse what is not supported, with a reason"),
    (concat!("unimpl", "emented!("), "no stubs: refuse what is not supported, with a reason"),
    (concat!("#[al", "low("), "use expect with a reason"),
];

/// What must not stand in any text: it is true on one machine only.
const MACHINE: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/."),
    concat!("GOPR", "OXY="),
    concat!("replace", "-with"),
    concat!("index", "-url"),
];

/// The only registry that lock files may name.
const REGISTRY: &str = "\"registry+https://github.com/rust-lang/crates.io-index\"";

/// Whether the rules speak of this file at all.
pub(super) fn is_read(path: &str) -> bool {
    let known = ["rs", "toml", "lock", "yaml", "md", "wat", "wit", "proto", "go", "mod", "sh"];
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    (known.contains(&extension) || path.starts_with(".ci/")) && !FOREIGN.iter().any(|foreign| path.starts_with(foreign))
}

/// Every fault of one file.
pub(super) fn faults(path: &str, text: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: String| faults.push(Fault { path: path.to_owned(), line, what });
    let is_rust = path.ends_with(".rs");

    if is_rust {
        if !text.starts_with("//!") {
            fault(1, "open with `//!`: what comes in, what goes out, what never happens here".to_owned());
        }
        let lines = text.lines().count();
        if lines > LINES && !LONG.iter().any(|(long, _)| *long == path) {
            fault(0, format!("{lines} lines; more than {LINES} need a reason in xtask/src/tidy/sources.rs"));
        }
        let mut parts = path.trim_end_matches(".rs").split('/');
        if let Some(name) = parts.find(|part| EMPTY_NAMES.contains(part)) {
            fault(0, format!("`{name}` says nothing; name it after what it does"));
        }
    }
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if is_rust {
            for (pattern, why) in CODE.iter().filter(|(pattern, _)| line.contains(pattern)) {
                fault(number, format!("`{pattern}`: {why}"));
            }
        }
        for pattern in MACHINE.iter().filter(|pattern| line.contains(**pattern)) {
            fault(number, format!("`{pattern}` is true on one machine only"));
        }
        if path.ends_with("Cargo.lock") && line.starts_with("source = ") && !line.ends_with(REGISTRY) {
            fault(number, format!("{line}: only crates.io"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let found = faults(path, text);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (fault, (line, part)) in found.iter().zip(expected) {
            assert_eq!(fault.line, *line, "{fault}");
            assert!(fault.what.contains(part), "{fault}");
        }
    }

    #[test]
    fn a_good_file_has_no_faults() {
        check("crates/decide/src/plan.rs", "//! Plans.\n\nfn plan() {}\n", &[]);
    }

    #[test]
    fn a_file_says_first_what_it_is() {
        check("src/main.rs", "fn main() {}\n", &[(1, "//!")]);
        check("docs/page.md", "fn main() {}\n", &[]);
    }

    #[test]
    fn a_long_file_needs_a_reason() {
        check("src/a.rs", &format!("//! A.\n{}", "\n".repeat(LINES - 1)), &[]);
        check("src/a.rs", &format!("//! A.\n{}", "\n".repeat(LINES)), &[(0, "501 lines")]);
    }

    #[test]
    fn a_name_says_what_is_inside() {
        check("src/common/mod.rs", "//! A.\n", &[(0, "common")]);
        check("src/volume_manager.rs", "//! A.\n", &[]);
        check("src/manager.rs", "//! A.\n", &[(0, "manager")]);
    }

    #[test]
    fn no_stub_and_no_sleeping_test() {
        let text = format!("//! A.\n{}]\nfn a() {{ {}) }}\n", CODE[0].0, CODE[1].0);
        check("src/a.rs", &text, &[(2, "proves nothing"), (3, "no stubs")]);
    }

    #[test]
    fn nothing_of_one_machine() {
        check("docs/a.md", &format!("see {}main\n", MACHINE[0]), &[(1, "one machine")]);
        check("Cargo.lock", "source = \"registry+https://crates.example/index\"\n", &[(1, "only crates.io")]);
        check("Cargo.lock", &format!("source = {REGISTRY}\n"), &[]);
    }
}
