//! The `runtime-config.toml` of a Spin application comes in, what it says of key-value stores and variables goes out.
//!
//! Pure. What it asks for that is not here is refused by its name; a database that silently is another one would be worse.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, Item, TableLike};

/// Where SpinKube mounts it.
pub(crate) const PATH: &str = "/runtime-config.toml";
/// The table of stores, and the older word for providers of variables.
const STORES: &str = "key_value_store";
const PROVIDERS: [&str; 2] = ["variables_provider", "config_provider"];
/// Spin's own store.
const SPIN: &str = "spin";
/// The provider that is the environment, which is asked in any case.
const ENV: &str = "env";

/// Why a runtime configuration is not kept to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeConfigError {
    /// It is no TOML.
    #[error("{PATH} is not TOML: {0}")]
    Toml(String),
    /// It asks for what is not there.
    #[error("{PATH}: {what} is not supported; {way_out}")]
    Unsupported {
        /// The key.
        what: String,
        /// What to do.
        way_out: &'static str,
    },
}

/// What it says, as far as it means anything here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeConfig {
    /// The stores by their labels: in memory, or a volume at this path.
    pub(crate) stores: BTreeMap<String, Option<String>>,
}

impl RuntimeConfig {
    /// Understands the text.
    pub(crate) fn read(text: &str) -> Result<Self, RuntimeConfigError> {
        let document: DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| RuntimeConfigError::Toml(error.message().to_owned()))?;
        let mut config = Self::default();
        for (key, item) in document.iter() {
            match key {
                STORES => config.stores = stores(item)?,
                key if PROVIDERS.contains(&key) => providers(key, item)?,
                key => {
                    let way_out = "only key-value stores can be configured";
                    return Err(RuntimeConfigError::Unsupported { what: key.to_owned(), way_out });
                }
            }
        }
        Ok(config)
    }
}

fn stores(item: &Item) -> Result<BTreeMap<String, Option<String>>, RuntimeConfigError> {
    let no_table = || RuntimeConfigError::Toml(format!("{STORES} is no table of stores"));
    let table = item.as_table_like().ok_or_else(no_table)?;
    let store = |(label, item): (&str, &Item)| {
        let store = item.as_table_like().ok_or_else(no_table)?;
        let kind = text(store, "type").ok_or_else(no_table)?;
        if kind != SPIN {
            let what = format!("the key-value store {label:?} of type {kind:?}");
            let way_out = "use type = \"spin\", with the path of a mounted volume to keep its pairs";
            return Err(RuntimeConfigError::Unsupported { what, way_out });
        }
        Ok((label.to_owned(), text(store, "path").map(str::to_owned)))
    };
    table.iter().map(store).collect()
}

fn providers(key: &str, item: &Item) -> Result<(), RuntimeConfigError> {
    let tables: Vec<&dyn TableLike> = match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
        other => other.as_table_like().into_iter().collect(),
    };
    for table in tables {
        let kind = text(table, "type").unwrap_or_default();
        let is_plain = table.iter().all(|(name, _)| name == "type");
        if kind != ENV || !is_plain {
            let what = format!("{key} of type {kind:?}{}", if is_plain { "" } else { " with options" });
            let way_out = "set SPIN_VARIABLE_NAME in the container's environment, from a Secret for instance";
            return Err(RuntimeConfigError::Unsupported { what, way_out });
        }
    }
    Ok(())
}

fn text<'a>(table: &'a dyn TableLike, name: &str) -> Option<&'a str> {
    table.get(name).and_then(Item::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_in_memory_or_in_a_volume() {
        let text =
            "[key_value_store.default]\ntype = \"spin\"\n[key_value_store.kept]\ntype = \"spin\"\npath = \"/data\"\n";
        let stores = RuntimeConfig::read(text).unwrap().stores;
        assert_eq!(stores, [("default".to_owned(), None), ("kept".to_owned(), Some("/data".to_owned()))].into());
        assert_eq!(RuntimeConfig::read("").unwrap(), RuntimeConfig::default());
        assert!(RuntimeConfig::read("[[variables_provider]]\ntype = \"env\"\n").is_ok());
    }

    #[test]
    fn what_is_not_here_is_refused_by_its_name() {
        let said = |text: &str| RuntimeConfig::read(text).unwrap_err().to_string();
        let redis = said("[key_value_store.default]\ntype = \"redis\"\nurl = \"redis://secret@db\"\n");
        assert!(redis.contains("\"default\" of type \"redis\"") && !redis.contains("secret"), "{redis}");
        assert!(said("[[variables_provider]]\ntype = \"vault\"\ntoken = \"t\"\n").contains("vault"));
        assert!(said("[[config_provider]]\ntype = \"env\"\nprefix = \"X\"\n").contains("with options"));
        assert!(said("[llm_compute]\ntype = \"remote_http\"\n").contains("llm_compute"));
        assert!(said("[").contains("not TOML"));
    }
}
