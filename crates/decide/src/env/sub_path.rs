//! `subPath` and `subPathExpr`: which part of a volume a container sees, in the kubelet's words where it is none.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::expand;
use crate::pod::SubPath;

/// Why a part of a volume cannot be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubPathError {
    /// Variables that the container does not have, or that are empty.
    #[error("missing value for {0}")]
    Missing(String),
    /// A variable made it absolute.
    #[error("error SubPath `{0}` must not be an absolute path")]
    Absolute(String),
    /// A variable made it lead up.
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    Up(String),
}

/// The path of the part, relative to its volume and without `..`; empty is the whole volume. `env` is the container's
/// environment.
///
/// # Errors
/// An expression that the environment makes no such path of.
pub fn sub_path(wanted: &SubPath, env: &[(String, String)]) -> Result<String, SubPathError> {
    let path = match wanted {
        SubPath::Plain(path) => path.clone(),
        SubPath::Expression(expression) => expanded(expression, env)?,
    };
    if path.starts_with('/') {
        return Err(SubPathError::Absolute(path));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(SubPathError::Up(path));
    }
    Ok(path)
}

fn expanded(expression: &str, env: &[(String, String)]) -> Result<String, SubPathError> {
    let missing = RefCell::new(BTreeSet::new());
    let expanded = expand(expression, |wanted| {
        let value = env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let value = value.filter(|value| !value.is_empty());
        if value.is_none() {
            missing.borrow_mut().insert(wanted.to_owned());
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        return Ok(expanded);
    }
    Err(SubPathError::Missing(missing.into_iter().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_needs_all_its_variables_and_stays_inside() {
        let env = [("POD", "web-0"), ("EMPTY", ""), ("UP", "a/../.."), ("ROOT", "/")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let of = |expression: &str| {
            sub_path(&SubPath::Expression(expression.to_owned()), &env).map_err(|error| error.to_string())
        };
        let cases = [
            ("logs/$(POD)", Ok("logs/web-0")),
            ("$$(POD)", Ok("$(POD)")),
            ("$(NONE)/$(EMPTY)/$(POD)", Err("missing value for EMPTY, NONE")),
            ("$(ROOT)etc", Err("error SubPath `/etc` must not be an absolute path")),
            ("x/$(UP)", Err("unable to provision SubPath `x/a/../..`: must not contain '..'")),
        ];
        for (expression, expected) in cases {
            assert_eq!(of(expression), expected.map(str::to_owned).map_err(str::to_owned), "{expression}");
        }
        assert_eq!(sub_path(&SubPath::Plain("$(POD)".to_owned()), &env).as_deref(), Ok("$(POD)"));
    }
}
