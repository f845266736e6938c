//! Says one line and ends, so its pod ends as `Succeeded`.

fn main() {
    let pod = std::env::var("POD_NAME").unwrap_or_else(|_| "(POD_NAME is not set)".to_owned());
    println!("Hello from pod {pod}: a WebAssembly program on a Kubernetes node.");
}
