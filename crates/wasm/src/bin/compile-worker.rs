//! The compiler's process in this crate's tests: nothing but [`wasm::compile_worker`].

fn main() -> std::process::ExitCode {
    wasm::compile_worker()
}
