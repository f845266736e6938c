//! `wasklet.v1`: the one small service of ours beside CRI, compiled from `proto/wasklet.proto`.

mod generated {
    #![expect(
        missing_docs,
        clippy::allow_attributes,
        reason = "compiled from proto/wasklet.proto, where it is documented"
    )]
    tonic::include_proto!("wasklet.v1");
}

pub use generated::*;
