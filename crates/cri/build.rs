//! Turns the definitions under `proto/` into Rust, with a compiler written in Rust: the build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(["runtime.proto", "wasklet.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // Channels and servers are made in one place, `channel.rs`.
        .build_transport(false)
        // A call that an implementation leaves out is answered with UNIMPLEMENTED, not refused by the compiler.
        .generate_default_stubs(true)
        // Labels and annotations keep one order wherever they are shown or compared.
        .btree_map(".")
        .bytes(".wasklet.v1")
        // Holds passwords and tokens; `v1` writes its `Debug` by hand.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(definitions)?;
    Ok(())
}
