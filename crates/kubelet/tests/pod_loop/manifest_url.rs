//! Pods of a URL: they come and go with what it says, with mirrors where there is an API server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use kubelet::sources::http::{HttpSource, check_url};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api_server::ApiServer;
use crate::bed::{Bed, naming, pod, with};

/// What the URL answers with, until told otherwise.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<String>>);

impl Page {
    fn source(&self) -> HttpSource {
        let answer = async |State(page): State<Page>| page.0.lock().unwrap().clone();
        let routes = Router::new().fallback(answer).with_state(self.clone());
        HttpSource {
            client: kube::Client::new(routes, "default"),
            url: check_url("http://manifests.example/").unwrap(),
            headers: http::HeaderMap::new(),
            naming: naming(),
            period: Duration::from_secs(20),
        }
    }

    fn says(&self, images: &[(&str, &str)]) {
        let items: Vec<Value> = images.iter().map(|(name, image)| manifest(name, image)).collect();
        let list = json!({ "apiVersion": "v1", "kind": "PodList", "items": items });
        *self.0.lock().unwrap() = list.to_string();
    }
}

fn manifest(name: &str, image: &str) -> Value {
    with(pod(name, image), "/metadata", json!({ "name": name }))
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_url_have_mirrors_and_follow_it() {
    let (api, page) = (ApiServer::new(), Page::default());
    page.says(&[("web", "web:v1")]);
    let bed = Bed::of_url(page.source(), Some(&api));
    bed.fake.script().image("web:v1").image("web:v2");
    let runs = |image: &'static str| {
        move |api: &ApiServer| {
            let pod = api.pod("web-node").unwrap_or_default();
            pod["spec"]["containers"][0]["image"] == image && pod["status"]["phase"] == "Running"
        }
    };
    api.until("the mirror", runs("web:v1")).await;
    assert_eq!(api.pod("web-node").unwrap()["metadata"]["annotations"]["kubernetes.io/config.source"], "http");
    page.says(&[("web", "web:v2")]);
    api.until("the changed one", runs("web:v2")).await;
    *page.0.lock().unwrap() = "not a list of pods".to_owned();
    sleep(Duration::from_secs(600)).await;
    assert!(runs("web:v2")(&api), "what cannot be read leaves the pods alone");
    page.0.lock().unwrap().clear();
    api.until("no mirror", |api| api.pod("web-node").is_none()).await;
    assert!(bed.alive().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_of_files_and_of_a_url_stand_beside_each_other() {
    let page = Page::default();
    page.says(&[("of-url", "web:v1")]);
    let bed = Bed::of_url(page.source(), None);
    bed.fake.script().image("web:v1");
    std::fs::create_dir_all(bed.manifest("")).unwrap();
    std::fs::write(bed.manifest("web.yaml"), manifest("of-file", "web:v1").to_string()).unwrap();
    bed.until_call("StartContainer", 2).await;
    page.0.lock().unwrap().clear();
    bed.until_call("RemovePodSandbox", 1).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.ready_sandboxes().await, ["of-file-node"]);
    // The same name from both: the one that is there keeps it.
    page.says(&[("of-file", "web:v1")]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.alive().await.len(), 1);
    std::fs::remove_file(bed.manifest("web.yaml")).unwrap();
    bed.until_call("StartContainer", 3).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.ready_sandboxes().await, ["of-file-node"]);
}
