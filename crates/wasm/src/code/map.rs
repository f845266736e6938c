//! The one file with `unsafe`: a [`Verified`] file of compiled code comes in, a mapped module or component goes out.
//!
//! Compiled code is machine code, and Wasmtime runs it as it stands. The only way to a [`Verified`] is through the
//! cache, which has checked that we wrote these very bytes ourselves, under this name, with this node's key.
#![expect(unsafe_code, reason = "mapping compiled code cannot be made safe; each use has its argument")]

use std::os::fd::AsRawFd;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Result};

use super::cache::Verified;

pub(super) fn module(engine: &Engine, file: &Verified) -> Result<Module> {
    let open = file.file().try_clone()?;
    // SAFETY: the bytes of this open file came out of `Engine::precompile_module` of this node, which `Verified`
    // attests with a keyed hash over them and their name. They stay as they are: the file is ours alone, read-only,
    // in a directory of mode 0700, and the cache replaces and unlinks files but never writes into one. Whoever can
    // break that has our own user id and needs no detour.
    unsafe { Module::deserialize_open_file(engine, open) }
}

pub(super) fn component(engine: &Engine, file: &Verified) -> Result<Component> {
    // Through the descriptor, so that what is mapped is the file that was checked, whatever its name now means.
    let path = format!("/proc/self/fd/{}", file.file().as_raw_fd());
    // SAFETY: as above, for `Engine::precompile_component`; the descriptor is open for as long as `file` is.
    unsafe { Component::deserialize_file(engine, path) }
}
