//! Variables of a Spin application: what it declares and an environment come in, the values of a component's own go out.
//!
//! Pure. A value is that of `SPIN_VARIABLE_NAME`, else that of `NAME`, else the default; a variable without any keeps the
//! application from being run. No value stands in an error: it may be a secret.

use std::collections::BTreeMap;

use image::spin::Variable;

/// What a value is called in the environment, before the variable's name.
const PREFIX: &str = "SPIN_VARIABLE_";

/// Why a value is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// Nobody sets it.
    #[error("the variable {name:?} has no value and no default; set {PREFIX}{} in the container's environment", name.to_ascii_uppercase())]
    Unset {
        /// The variable.
        name: String,
    },
    /// The application does not declare it.
    #[error("{of} refers to the variable {name:?}, which the application does not declare")]
    Undeclared {
        /// Where it is referred to.
        of: String,
        /// The variable.
        name: String,
    },
    /// Braces that do not belong together.
    #[error("{of} is no template: its braces do not match")]
    Template {
        /// Which template.
        of: String,
    },
}

/// The values of an application's variables.
#[derive(Debug, Default)]
pub(crate) struct Values(BTreeMap<String, String>);

impl Values {
    /// What the declared variables are in this environment.
    pub(crate) fn of(
        declared: &BTreeMap<String, Variable>,
        environment: &[(String, String)],
    ) -> Result<Self, VariableError> {
        let set =
            |name: &str| environment.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        let value = |(name, variable): (&String, &Variable)| {
            let upper = name.to_ascii_uppercase();
            let value = set(&format!("{PREFIX}{upper}")).or_else(|| set(&upper)).or_else(|| variable.default.clone());
            let value = value.ok_or_else(|| VariableError::Unset { name: name.clone() })?;
            Ok((name.clone(), value))
        };
        declared.iter().map(value).collect::<Result<_, _>>().map(Self)
    }

    /// A text with the values in it where it names them (`{{ name }}`); `of` is what the text is called in an error.
    pub(crate) fn fill(&self, of: &str, template: &str) -> Result<String, VariableError> {
        let mut filled = String::new();
        let mut left = template;
        while let Some((before, from_braces)) = left.split_once("{{") {
            let broken = || VariableError::Template { of: of.to_owned() };
            let (name, after) = from_braces.split_once("}}").ok_or_else(broken)?;
            let name = name.trim();
            if name.is_empty() || name.contains(['{', '}']) {
                return Err(broken());
            }
            let undeclared = || VariableError::Undeclared { of: of.to_owned(), name: name.to_owned() };
            filled.push_str(before);
            filled.push_str(self.0.get(name).ok_or_else(undeclared)?);
            left = after;
        }
        filled.push_str(left);
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(variables: &[(&str, Option<&str>)]) -> BTreeMap<String, Variable> {
        let variable = |default: Option<&str>| Variable { default: default.map(str::to_owned) };
        variables.iter().map(|(name, default)| ((*name).to_owned(), variable(*default))).collect()
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_environment_is_asked_before_the_default() {
        let declared = declared(&[("greeting", Some("hello")), ("api_token", None), ("level", Some("info"))]);
        let environment = environment(&[
            ("GREETING", "plain"),
            ("SPIN_VARIABLE_GREETING", "of spin"),
            ("API_TOKEN", "secret"),
            ("level", "lower case is not asked"),
        ]);
        let values = Values::of(&declared, &environment).unwrap();
        assert_eq!(values.fill("x", "{{greeting}}/{{ api_token }}/{{level}}.").unwrap(), "of spin/secret/info.");
        assert_eq!(values.fill("x", "no variable").unwrap(), "no variable");
    }

    #[test]
    fn what_is_not_known_is_named_with_the_way_out() {
        let error = Values::of(&declared(&[("api_token", None)]), &[]).unwrap_err().to_string();
        assert!(error.contains("\"api_token\"") && error.contains("SPIN_VARIABLE_API_TOKEN"), "{error}");
        let values = Values::of(&declared(&[("a", Some("1"))]), &[]).unwrap();
        let error = |template: &str| values.fill("config of api", template).unwrap_err();
        assert!(matches!(error("{{ b }}"), VariableError::Undeclared { name, .. } if name == "b"));
        for broken in ["{{ a", "{{ }}", "{{ {a} }}"] {
            assert!(matches!(error(broken), VariableError::Template { .. }), "{broken}");
        }
    }
}
