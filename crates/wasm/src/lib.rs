//! The runtime half: the only crate that uses Wasmtime.
//!
//! In come calls of the Container Runtime Interface, out go running WebAssembly guests. A [`runtime::Runtime`] holds
//! everything and is reached by its gRPC services alone. Never here: a Kubernetes object, and whether a pod should run.
//!
//! | part | modules |
//! |---|---|
//! | the services | [`service`], [`runtime`] |
//! | sandboxes, containers, what outlives the process | `sandbox`, `container`, `registry`, `records`, `log` |
//! | addresses and ports of pods | [`address`], [`route`], [`host_port`] |
//! | files and directories of the node | `host_path` |
//! | images, in CRI's words | [`images`] |
//! | Spin applications | [`spin`] |
//! | how many pods fit | `walls` |
//! | guests | [`engine`], [`code`], [`guest`], [`limits`], [`wasi`], [`keyvalue`] |

pub mod address;
pub mod code;
mod container;
pub mod engine;
pub mod guest;
mod host_path;
pub mod host_port;
pub mod id;
pub mod images;
pub mod keyvalue;
pub mod limits;
mod log;
pub mod records;
mod registry;
pub mod route;
pub mod runtime;
mod sandbox;
pub mod service;
pub mod spin;
mod walls;
pub mod wasi;

pub use code::{CompilerProgram, compile_worker};
pub use container::mounts::MountError;
pub use runtime::{DiscardError, Runtime, RuntimeError, RuntimeOptions, discard_code};
pub use sandbox::network::{NetworkError, PodAddressMode};
pub use service::error::ServiceError;
pub use walls::raise as raise_walls;
