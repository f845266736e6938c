//! wasklet: a Kubernetes node whose pods are WebAssembly.
//!
//! Comes in: a command line. Goes out: a running node, runtime or pod, and an exit code. Never here: how any of them works;
//! `assemble` wires the parts together, each command says what it is for.

mod assemble;
mod image;
mod node;
mod registries;
mod run;
mod runtime;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Kubernetes node whose pods are WebAssembly.
///
/// Every container runs in Wasmtime, in this one process: no container runtime, no CNI plugin, no operator.
#[derive(Parser)]
#[command(name = "wasklet", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a pod here and now, with no cluster: a manifest, a .wasm file or an image
    Run(run::RunArgs),
    /// Join a cluster as a node; with --pod-manifest-path alone, run static pods
    Kubelet(Box<kubelet::flags::KubeletFlags>),
    /// Serve the runtime half on a Unix socket, for a kubelet in another process (CRI v1)
    Runtime(runtime::RuntimeArgs),
    /// Push, pull, list, remove, inspect and build images
    Image(image::ImageArgs),
    /// Compile one wasm file for the process that started this one
    #[command(hide = true)]
    CompileWorker,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Kubelet(flags) => node::run(&flags),
        Command::Runtime(args) => runtime::run(args),
        Command::Image(args) => Ok(image::run(args)),
        Command::CompileWorker => Ok(wasm::compile_worker()),
    };
    result.unwrap_or_else(|error| {
        terminal::say(&format!("wasklet: {error:#}"));
        // What docker and podman give for a failure of their own, so that a guest's 1 is not mistaken for it.
        ExitCode::from(125)
    })
}
