//! OCI images of WebAssembly: what an image is called, where it comes from and where it is kept.
//!
//! In come image references, credentials, registries and local OCI layout directories; out come [`Image`]s whose content
//! is verified files on disk. Nothing here runs wasm, speaks CRI or knows a pod: the runtime asks for an image, and
//! gets the paths of its content and what its configuration says, or an error a user can act on.
//!
//! - [`Reference`], [`Digest`]: names, as Docker and Kubernetes read them
//! - [`inspect`]: what a wasm binary is, and what it may reach
//! - [`pack`]: a wasm binary as a CNCF wasm OCI artifact, or with files as an ordinary image, written to an OCI layout
//! - [`Content`]: what an image is made of: a wasm binary, files around one ([`Rootfs`]), or a Spin application
//! - [`spin`]: what a Spin application is made of, from its locked form
//! - [`Store`]: blobs by digest, unpacked files and the table of images, shared by processes
//! - [`Puller`]: from layouts and registries into the store
//! - [`Registries`]: pushing, and whatever else is asked of registries

mod content;
mod credentials;
mod describe;
mod digest;
mod durable;
pub mod inspect;
mod manifest;
pub mod pack;
mod pull;
mod reference;
mod registry;
mod rootfs;
pub mod spin;
mod store;
mod trust;

pub use content::{Blob, Content, Spin, Wasm};
pub use credentials::{Credentials, CredentialsError};
pub use describe::{Description, Layer, describe};
pub use digest::{Digest, DigestError};
pub use pull::{
    Layouts, Looked, Part, PullError, PullErrorKind, PullProgress, Puller, PullerOptions, Refusal, SignatureFound,
    Told, Verdict,
};
pub use reference::{Reference, ReferenceError};
pub use registry::{Limits, Push, PushBlob, PushContent, PushError, PushProgress, Registries, RegistryOptions};
pub use rootfs::{Program, ProgramError, Rootfs};
pub use store::{FsUsage, Image, ImageConfig, ImageId, Lease, Store, StoreError};
pub use trust::{Signer, TrustError, TrustPolicy, Verification};
