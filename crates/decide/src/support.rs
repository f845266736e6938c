//! Which fields of a pod's spec wasklet honours, which it ignores by design, and which it refuses: one table.
//!
//! Comes in: a spec as the API writes it (JSON). Goes out: a rejection for what is refused, the paths of what is ignored
//! and must be said aloud, and the page `docs/support.md`. The values of single fields (a protocol, an enum) are judged
//! where they are parsed, not here.

mod render;
mod table;

pub use render::render;
pub use table::TABLE;

use crate::pod::Rejection;
use serde_json::Value;
use std::collections::BTreeMap;

/// The reason of pods refused for a field.
pub(crate) const UNSUPPORTED: &str = "PodFeatureUnsupported";

/// The list of containers that are added to pods that run.
const EPHEMERAL: &str = "ephemeralContainers";

/// One field of the spec and how wasklet stands to it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The way to the field from `spec`, `[]` for each element of a list: `containers[].ports[].protocol`.
    pub path: &'static str,
    /// How wasklet stands to it. What an unlisted field below it would say is said by this.
    pub standing: Standing,
}

/// How wasklet stands to a field.
#[derive(Clone, Copy, Debug)]
pub enum Standing {
    /// It does what the field says.
    Honoured {
        /// What to know about it; may be empty.
        note: &'static str,
    },
    /// The field has no meaning here, or another part of the cluster acts on it.
    Ignored {
        /// Why.
        why: &'static str,
        /// Whether an Event says so.
        said: Said,
    },
    /// A pod that sets it is not run.
    Refused {
        /// The rejection's reason.
        reason: &'static str,
        /// What to do instead.
        hint: &'static str,
        /// Values that ask for nothing.
        unless: &'static [&'static str],
    },
    /// Wasklet stands to it and to what is below it as to another field and what is below that.
    Like {
        /// The path of the other field.
        other: &'static str,
    },
}

/// When an Event says that a field is ignored.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    /// Never: what it asks for holds anyway, or is the business of others.
    Never,
    /// When it is set to anything but these.
    Unless(&'static [&'static str]),
}

/// What a spec asks for in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Fields that are ignored and should be said to be.
    pub ignored: Vec<String>,
    /// Ephemeral containers that ask for what is refused, by index: they are added to pods that run, which run on
    /// without them.
    pub declined: BTreeMap<usize, Rejection>,
    /// Fields the API does not have; only files can have them.
    pub unknown: Vec<String>,
}

/// Walks `spec` along the table.
///
/// # Errors
/// A field is set that is refused, but not of an ephemeral container; the first one in the order of the document.
pub fn examine(spec: &Value) -> Result<Remarks, Rejection> {
    let rows = TABLE.iter().map(|row| (row.path, &row.standing)).collect();
    let mut walk = Walk { rows, remarks: Remarks::default() };
    walk.object(spec, "", "spec")?;
    Ok(walk.remarks)
}

/// The field of `containers` that one of another list of containers is like, unless that has a row of its own.
#[must_use]
pub fn of_containers(path: &str) -> Option<String> {
    let (list, field) = path.split_once("[].")?;
    matches!(list, "initContainers" | EPHEMERAL).then(|| format!("containers[].{field}"))
}

struct Walk {
    rows: BTreeMap<&'static str, &'static Standing>,
    remarks: Remarks,
}

impl Walk {
    /// `path` is where `value` is in the table, `place` where it is in this pod.
    fn object(&mut self, value: &Value, path: &str, place: &str) -> Result<(), Rejection> {
        for (name, field) in value.as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            self.field(field, &path, &format!("{place}.{name}"))?;
        }
        Ok(())
    }

    fn field(&mut self, value: &Value, path: &str, place: &str) -> Result<(), Rejection> {
        if is_unset(value) {
            return Ok(());
        }
        match self.standing(path) {
            None => self.remarks.unknown.push(place.to_owned()),
            Some(Standing::Refused { reason, hint, unless }) => {
                if !is_one_of(value, unless) {
                    let message = format!("{place} is not supported by wasklet: {hint}");
                    return Err(Rejection { reason: (*reason).into(), message });
                }
            }
            Some(Standing::Ignored { said: Said::Never, .. }) => {}
            Some(Standing::Ignored { said: Said::Unless(values), .. }) => {
                if !is_one_of(value, values) {
                    self.remarks.ignored.push(place.to_owned());
                }
            }
            Some(Standing::Like { other }) => self.field(value, other, place)?,
            Some(Standing::Honoured { .. }) => self.below(value, path, place)?,
        }
        Ok(())
    }

    fn below(&mut self, value: &Value, path: &str, place: &str) -> Result<(), Rejection> {
        match value {
            Value::Array(elements) => {
                let each = format!("{path}[]");
                for (index, element) in elements.iter().enumerate() {
                    match self.object(element, &each, &format!("{place}[{index}]")) {
                        Err(rejection) if path == EPHEMERAL => {
                            self.remarks.declined.insert(index, rejection);
                        }
                        result => result?,
                    }
                }
                Ok(())
            }
            Value::Object(_) if self.has_fields(path) => self.object(value, path, place),
            _ => Ok(()),
        }
    }

    fn standing(&self, path: &str) -> Option<&'static Standing> {
        let own = self.rows.get(path).copied();
        own.or_else(|| self.rows.get(of_containers(path)?.as_str()).copied())
    }

    /// Whether the table goes on below `path`; if not, an object there is a map and its keys are the user's.
    fn has_fields(&self, path: &str) -> bool {
        let prefix = format!("{}.", of_containers(path).unwrap_or_else(|| path.to_owned()));
        self.rows.range(prefix.as_str()..).next().is_some_and(|(next, _)| next.starts_with(&prefix))
    }
}

/// Whether a value asks for nothing: what an API client writes for a field it leaves alone.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn is_one_of(value: &Value, texts: &[&str]) -> bool {
    value.as_str().is_some_and(|text| texts.contains(&text))
}
