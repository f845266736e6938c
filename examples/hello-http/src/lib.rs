//! Answers every HTTP request with a greeting. The runtime listens and calls [`Guest::handle`] once per request;
//! the guest itself opens no socket.

use std::io::Write;

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_else(|| "/".to_owned());
        respond(out, &greeting(&path));
    }
}

/// What a visitor reads; the pod's name arrives in the environment, as in any other container.
fn greeting(path: &str) -> String {
    let pod = std::env::var("POD_NAME").unwrap_or_else(|_| "(POD_NAME is not set)".to_owned());
    format!("Hello from pod {pod}!\nYou asked for {path}; a WebAssembly component answered.\n")
}

/// Sends `text` as a plain text answer with status 200.
fn respond(out: ResponseOutparam, text: &str) {
    let headers = Fields::from_list(&[
        ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec()),
        ("content-length".to_owned(), text.len().to_string().into_bytes()),
    ])
    .expect("both header names are allowed");
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("the body of a new response is not taken");
    ResponseOutparam::set(out, Ok(response));

    // A visitor who has gone away is no fault of ours, so a failed write ends the answer quietly.
    let mut stream = body.write().expect("the stream of a new body is not taken");
    let written = stream.write_all(text.as_bytes());
    drop(stream);
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}
