//! Configuration files: read, held against the known field names, laid over one another.
//!
//! In come `--config`, the `*.conf` files of `--config-dir` in lexical order and what the flags say, each laid over those
//! before it (a JSON merge patch, as the kubelet does it). Out goes one [`KubeletConfiguration`], the fields that are
//! accepted without effect, and a warning for each. A field is never dropped in silence.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    ConfigError, GoDuration, KubeletConfiguration,
    fields::{MEANINGLESS, NOT_YET},
    schema::{API_VERSION, KIND},
};

/// Everything the files and flags say together, without defaults.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) configuration: KubeletConfiguration,
    /// The accepted fields that have no effect, for `/configz`.
    pub(super) meaningless: BTreeMap<String, Value>,
    pub(super) warnings: Vec<String>,
}

/// Reads and merges the files, then the flags.
pub(super) fn load(
    file: Option<&Path>,
    directory: Option<&Path>,
    flags: &KubeletConfiguration,
) -> Result<Loaded, ConfigError> {
    let mut files: Vec<PathBuf> = file.map(Path::to_path_buf).into_iter().collect();
    if let Some(directory) = directory {
        drop_ins(directory, &mut files)?;
    }
    let mut merged = Map::new();
    let mut loaded = Loaded::default();
    for path in files {
        let text = fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        let fields = parse(&path, &text)?;
        for (name, why) in MEANINGLESS.iter().filter(|(name, _)| fields.contains_key(*name)) {
            loaded.warnings.push(format!("{}: {name} has no effect: {why}", path.display()));
        }
        lay_over(&mut merged, fields);
    }
    for (name, _) in MEANINGLESS {
        if let Some(value) = merged.remove(*name) {
            loaded.meaningless.insert((*name).to_owned(), value);
        }
    }
    merged.retain(|name, _| !NOT_YET.iter().any(|(known, _)| known == name));
    let flags_origin = Path::new("the flags");
    if let Value::Object(flags) = serde_json::to_value(flags)
        .map_err(|error| ConfigError::Value { origin: flags_origin.to_owned(), message: error.to_string() })?
    {
        lay_over(&mut merged, flags);
    }
    loaded.configuration = typed(Path::new("the merged configuration"), merged)?;
    Ok(loaded)
}

/// All `*.conf` files below `directory`, in lexical order of their paths; other files are not ours.
fn drop_ins(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), ConfigError> {
    let unreadable = |source: io::Error| ConfigError::Read { path: directory.to_owned(), source };
    let mut entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            drop_ins(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    Ok(())
}

/// One file's fields, each known by name and of the right type.
fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let value: Value = serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: syntax(&error) })?;
    let Value::Object(fields) = value else {
        return Err(ConfigError::Syntax {
            path: path.to_owned(),
            message: format!("a {KIND} object is wanted, with apiVersion and kind"),
        });
    };
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        if fields.get(name).and_then(Value::as_str) != Some(wanted) {
            let found = fields.get(name).map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return Err(ConfigError::Version { path: path.to_owned(), name, wanted, found });
        }
    }
    let mut honoured = Map::new();
    lay_over(&mut honoured, fields.clone());
    for (name, value) in &fields {
        if let Some((_, harmless)) = NOT_YET.iter().find(|(known, _)| known == name) {
            if !value.is_null() && !harmless.iter().any(|harmless| same(value, harmless)) {
                return Err(ConfigError::NotSupported { origin: path.to_owned(), name: name.clone() });
            }
            honoured.remove(name);
        } else if MEANINGLESS.iter().any(|(known, _)| known == name) {
            honoured.remove(name);
        }
    }
    typed(path, honoured)?;
    Ok(fields)
}

/// What is wrong with the YAML, in one line.
fn syntax(error: &serde_saphyr::Error) -> String {
    let formatter = &serde_saphyr::UserMessageFormatter;
    error.render_with_options(
        serde_saphyr::render_options! { formatter: formatter, snippets: serde_saphyr::SnippetMode::Off },
    )
}

/// Whether a value is the one `json` spells, durations by their length.
fn same(value: &Value, json: &str) -> bool {
    let Ok(wanted) = serde_json::from_str::<Value>(json) else { return false };
    let duration = |value: &Value| value.as_str().and_then(|text| text.parse::<GoDuration>().ok());
    *value == wanted || duration(value).is_some_and(|length| Some(length) == duration(&wanted))
}

/// The typed form, or an error that names the field by its path.
fn typed(origin: &Path, fields: Map<String, Value>) -> Result<KubeletConfiguration, ConfigError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let (path, message) = (error.path().to_string(), error.inner().to_string());
        // The path names the field already, and a list of all the others helps nobody.
        let message = if message.starts_with("unknown field") { "unknown field".to_owned() } else { message };
        let message = if path == "." { message } else { format!("{path}: {message}") };
        ConfigError::Value { origin: origin.to_owned(), message }
    })
}

/// A JSON merge patch: objects merge, null removes, anything else replaces.
fn lay_over(base: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match (base.get_mut(&name), value) {
            (_, Value::Null) => {
                base.remove(&name);
            }
            (Some(Value::Object(below)), Value::Object(above)) => lay_over(below, above),
            (_, Value::Object(above)) => {
                let mut fresh = Map::new();
                lay_over(&mut fresh, above);
                base.insert(name, Value::Object(fresh));
            }
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}
