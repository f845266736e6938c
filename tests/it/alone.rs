//! With no cluster: `wasklet run`, and a kubelet whose pods come from files. Each test has directories of its own.

mod examples;
mod files;
mod flags;
mod manifests;
mod registries;
mod static_pods;
mod stopping;
mod wrong_input;
