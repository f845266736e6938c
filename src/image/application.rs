//! A Spin application, for people: its routes, and what each of its components is and may reach.

use anyhow::Context;
use image::Spin;
use image::spin::{Answers, Application, Component};
use serde::Serialize;

use super::inspect::{WasmFields, list, wasm};

/// What its locked form says, in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApplicationFields {
    name: String,
    version: Option<String>,
    variables: Vec<VariableFields>,
    routes: Vec<RouteFields>,
    components: Vec<ComponentFields>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VariableFields {
    name: String,
    /// Whether the pod has to set it.
    required: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RouteFields {
    /// None for a private one.
    route: Option<String>,
    /// None for an answer that is always the same.
    component: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ComponentFields {
    id: String,
    allowed_outbound_hosts: Vec<String>,
    key_value_stores: Vec<String>,
    files: Vec<String>,
    /// None where the image lacks it.
    wasm: Option<WasmFields>,
}

impl ApplicationFields {
    /// Reads the locked form and every component.
    pub(super) fn of(spin: &Spin) -> anyhow::Result<Self> {
        let path = &spin.locked_app.path;
        let locked = std::fs::read(path).with_context(|| path.display().to_string())?;
        let app = Application::read(&locked).context("the image's locked application")?;
        let variables = app.variables.iter();
        let route = |trigger: &image::spin::Trigger| RouteFields {
            route: trigger.route.clone(),
            component: match &trigger.answers {
                Answers::Component(id) => Some(id.clone()),
                Answers::Static(_) => None,
            },
        };
        Ok(Self {
            name: app.name.clone(),
            version: app.version.clone(),
            variables: variables
                .map(|(name, variable)| VariableFields { name: name.clone(), required: variable.default.is_none() })
                .collect(),
            routes: app.triggers.iter().map(route).collect(),
            components: app.components.iter().map(|it| component(spin, it)).collect::<anyhow::Result<_>>()?,
        })
    }

    pub(super) fn rows(&self, row: &mut impl FnMut(&str, String)) {
        let version = self.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        row("Application", format!("{}{version} (Spin)", self.name));
        let variable = |it: &VariableFields| match it.required {
            true => format!("{}, which the pod has to set", it.name),
            false => it.name.clone(),
        };
        list("Variables", self.variables.iter().map(variable), row);
        let route = |it: &RouteFields| {
            let component = it.component.as_deref().unwrap_or("an answer that is always the same");
            format!("{}: {component}", it.route.as_deref().unwrap_or("(private)"))
        };
        list("Routes", self.routes.iter().map(route), row);
        for component in &self.components {
            row("Component", component.id.clone());
            let or_none = |texts: &[String]| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
            row("Hosts", or_none(&component.allowed_outbound_hosts));
            row("Stores", or_none(&component.key_value_stores));
            row("Files", component.files.len().to_string());
            match &component.wasm {
                Some(wasm) => wasm.rows(row),
                None => row("Wasm", "not in the image".to_owned()),
            }
        }
    }
}

fn component(spin: &Spin, component: &Component) -> anyhow::Result<ComponentFields> {
    let Component { id, allowed_outbound_hosts, key_value_stores, files, .. } = component.clone();
    Ok(ComponentFields {
        id,
        allowed_outbound_hosts,
        key_value_stores,
        files: files.iter().map(|file| file.path.display().to_string()).collect(),
        wasm: spin.blob(&component.wasm).map(|blob| wasm(&blob.path)).transpose()?,
    })
}
