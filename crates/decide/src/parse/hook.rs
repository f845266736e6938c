//! `lifecycle` of a container into [`Hooks`].

use super::{invalid, probe};
use crate::pod::{Hook, Hooks, Rejection};
use k8s_openapi::api::core::v1 as api;
use std::time::Duration;

pub(super) fn hooks(api: Option<&api::Lifecycle>, place: &str) -> Result<Hooks, Rejection> {
    let Some(api) = api else { return Ok(Hooks::default()) };
    let read = |handler: &Option<api::LifecycleHandler>, name| {
        handler.as_ref().map(|handler| hook(handler, &format!("{place}.{name}"))).transpose()
    };
    Ok(Hooks { post_start: read(&api.post_start, "postStart")?, pre_stop: read(&api.pre_stop, "preStop")? })
}

fn hook(api: &api::LifecycleHandler, place: &str) -> Result<Hook, Rejection> {
    if let Some(exec) = &api.exec {
        return Ok(Hook::Exec(probe::command(exec, &format!("{place}.exec"))?));
    }
    if let Some(get) = &api.http_get {
        return Ok(Hook::HttpGet(probe::http_get(get, &format!("{place}.httpGet"))?));
    }
    if let Some(sleep) = &api.sleep {
        return Ok(Hook::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))));
    }
    match api.tcp_socket {
        Some(_) => Ok(Hook::TcpSocket),
        None => Err(invalid(format!("{place} says not what to do; give it exec, httpGet or sleep"))),
    }
}
