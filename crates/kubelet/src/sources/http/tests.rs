//! What is read from a URL, and what is not: a server in this process, called without a network.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use decide::mirror::HASH;
use http::header::AUTHORIZATION;

use super::*;

type Answer = (StatusCode, Option<&'static str>, String);
/// What was asked for, and the credentials that came with it.
type Asked = (String, Option<String>);

/// Answers each request with what is next, and keeps what was asked.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let said = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    server.asked.lock().unwrap().push((request.uri().to_string(), said));
    let mut answers = server.answers.lock().unwrap();
    let (status, location, body) = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
    let headers = location.map(|location| [(LOCATION, location)]);
    (status, headers.map(IntoResponse::into_response).unwrap_or_default().headers().clone(), body).into_response()
}

impl Server {
    fn source(&self) -> HttpSource {
        let routes = Router::new().fallback(answer).with_state(self.clone());
        let mut secret = http::HeaderValue::from_static("Bearer secret");
        secret.set_sensitive(true);
        HttpSource {
            client: kube::Client::new(routes, "default"),
            url: check_url("https://manifests.example/pods?node=edge").unwrap(),
            headers: [(AUTHORIZATION, secret)].into_iter().collect(),
            naming: Naming { node_name: "Edge-1".into(), suffix: true },
            period: Duration::from_secs(20),
        }
    }

    fn says(&self, status: StatusCode, location: Option<&'static str>, body: &str) {
        *self.answers.lock().unwrap() = vec![(status, location, body.to_owned())];
    }
}

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";

fn list(names: &[&str]) -> String {
    let items: Vec<_> = names.iter().map(|name| POD.replace("name: a}", &format!("name: {name}}}"))).collect();
    format!("apiVersion: v1\nkind: PodList\nitems: [{}]\n", items.join(", "))
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_changes_and_goes_and_what_is_none_leaves_the_pods_alone() {
    let server = Server::default();
    server.says(StatusCode::OK, None, POD);
    let (sender, mut changes) = mpsc::channel(1);
    let task = tokio::spawn(watch_url(server.source(), Clock::tokio(), sender));
    let mut names = async || match changes.recv().await.unwrap() {
        Change::All(Origin::Http, pods) => {
            let mut names: Vec<_> = pods.values().filter_map(|pod| pod.metadata.name.clone()).collect();
            names.sort();
            names
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(names().await, ["a-edge-1"]);
    assert_eq!(server.asked.lock().unwrap()[0], ("/pods?node=edge".to_owned(), Some("Bearer secret".to_owned())));

    // The answer to the request after next may still wait in the queue.
    server.says(StatusCode::OK, None, &list(&["a", "b"]));
    names().await;
    assert_eq!(names().await, ["a-edge-1", "b-edge-1"]);
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, ""),
        (StatusCode::NOT_FOUND, POD),
        (StatusCode::OK, "kind: Deployment"),
        (StatusCode::OK, "kind: ["),
        (StatusCode::OK, "{kind: Pod, spec: {}}"),
    ] {
        let asked = server.asked.lock().unwrap().len();
        server.says(status, None, body);
        while server.asked.lock().unwrap().len() < asked + 3 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            if let Ok(Change::All(_, pods)) = changes.try_recv() {
                assert_eq!(pods.len(), 2, "{status}: {body}");
            }
        }
    }
    server.says(StatusCode::OK, None, "");
    let mut names = async || match changes.recv().await.unwrap() {
        Change::All(Origin::Http, pods) => pods.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names().await, 0);
    task.abort();
}

#[tokio::test]
async fn a_pod_of_a_url_has_an_identity_and_no_toleration_of_a_file() {
    let server = Server::default();
    server.says(StatusCode::OK, None, POD);
    let source = server.source();
    let read = pods(&ask(&source).await.unwrap(), &source).unwrap().remove(0);
    let annotations = read.metadata.annotations.unwrap();
    assert_eq!((annotations[super::super::SOURCE].as_str(), &annotations[HASH]), ("http", &read.metadata.uid.unwrap()));
    assert_eq!(read.spec.unwrap().tolerations, None);
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_server_only() {
    let server = Server::default();
    let source = server.source();
    let found = StatusCode::FOUND;
    for (location, last) in [
        ("/other", Ok(())),
        ("https://manifests.example/other", Ok(())),
        ("https://elsewhere.example/other", Err("the server sends elsewhere, to another host: name that one")),
        ("http://manifests.example/other", Err("the server sends elsewhere, to another host: name that one")),
        ("//elsewhere.example/other", Err("the server sends elsewhere, to another host: name that one")),
    ] {
        *server.answers.lock().unwrap() =
            vec![(found, Some(location), String::new()), (StatusCode::OK, None, POD.to_owned())];
        let answer = ask(&source).await.map(drop).map_err(|error| error.to_string());
        assert_eq!(answer, last.map_err(str::to_owned), "{location}");
    }
    server.says(found, Some("/round"), "");
    assert!(matches!(ask(&source).await, Err(AnswerError::Redirects)));
}

#[tokio::test]
async fn a_body_without_end_is_refused() {
    let server = Server::default();
    server.says(StatusCode::OK, None, &" ".repeat(MOST_BYTES + 1));
    let error = ask(&server.source()).await.unwrap_err();
    assert!(matches!(error, AnswerError::Body(_)), "{error}");
}

#[tokio::test]
async fn what_is_sent_is_shown_to_nobody() {
    let shown = format!("{:?}", Server::default().source());
    assert!(!shown.contains("secret") && shown.contains("authorization"), "{shown}");
    assert!(matches!(check_url("http://user:password@host/"), Err(UrlError::Credentials)));
    for text in ["", "host", "/path", "ftp://host/", "unix:///socket"] {
        assert!(matches!(check_url(text), Err(UrlError::Form)), "{text}");
    }
}
