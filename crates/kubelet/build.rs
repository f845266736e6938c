//! Turns the definitions under `proto/` into a Rust client, with a compiler written in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(["health.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // Connections are made in `prober/dial.rs`, one for each question.
        .build_transport(false)
        .build_server(false)
        .compile_fds(definitions)?;
    Ok(())
}
