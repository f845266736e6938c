//! Spin applications as containers: routes, variables, stores, files, and what is refused.

use cri::v1;
use serde_json::json;
use testbed::guests::{spin, wat};

use crate::bed::{Node, free_port, get_path, reference, serves_on};

fn variable(name: &str, value: &str) -> v1::KeyValue {
    v1::KeyValue { key: name.to_owned(), value: value.as_bytes().to_vec() }
}

/// The status line and the body.
async fn ask(port: u16, path: &str) -> (String, String) {
    let answer = get_path("127.0.0.1".parse().unwrap(), port, path).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    // The guests' bodies come in chunks.
    let text: Vec<_> = body.split("\r\n").filter(|line| usize::from_str_radix(line, 16).is_err()).collect();
    (head.lines().next().unwrap().to_owned(), text.concat())
}

#[tokio::test]
async fn each_route_is_answered_by_its_component() {
    let node = Node::new().await;
    let pod = node.pod("shop").await;
    let port = free_port().await;
    let id = pod
        .start("main", "spin-shop", |config| {
            config.annotations = serves_on(port);
            config.command = vec!["/".into()];
            config.envs = vec![variable("SPIN_VARIABLE_GREETING", "good morning")];
        })
        .await;
    let ok = "HTTP/1.1 200 OK".to_owned();
    assert_eq!(ask(port, "/api/orders/7?q=1").await, (ok.clone(), "good morning\n/orders/7\n/orders/7\n".to_owned()));
    assert_eq!(ask(port, "/static/logo.svg").await, (ok.clone(), spin::LOGO_TEXT.to_owned()));
    assert_eq!(ask(port, "/small.txt").await, (ok.clone(), "small\n".to_owned()));
    assert_eq!(ask(port, "/nothing.txt").await.0, "HTTP/1.1 404 Not Found");
    assert_eq!(ask(port, "/../etc/passwd").await.0, "HTTP/1.1 404 Not Found");
    assert_eq!(ask(port, "/old").await, ("HTTP/1.1 410 Gone".to_owned(), "gone\n".to_owned()));
    assert_eq!(ask(port, "/.well-known/spin/health").await, (ok.clone(), "OK".to_owned()));
    let information = json!({ "name": "shop", "version": "1.0.0" }).to_string();
    assert_eq!(ask(port, "/.well-known/spin/info").await, (ok, information));
    node.client().stop_container(&id, std::time::Duration::from_secs(30)).await.unwrap();
    assert_eq!(pod.exit_of(&id).await.exit_code, 0);
}

#[tokio::test]
async fn the_environment_says_where_an_application_is_served_and_which_components_run() {
    let node = Node::new().await;
    let pod = node.pod("elsewhere").await;
    let port = free_port().await;
    pod.start("main", "spin-shop", |config| {
        config.envs = vec![
            variable("SPIN_HTTP_LISTEN_ADDR", &format!("0.0.0.0:{port}")),
            variable("SPIN_COMPONENTS_TO_RETAIN", "files"),
        ];
    })
    .await;
    assert_eq!(ask(port, "/small.txt").await.1, "small\n");
    // The other component has no route any more.
    assert_eq!(ask(port, "/api/x").await.0, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn a_component_of_wasi_03_has_its_variables_and_stores_too() {
    let node = Node::new().await;
    let mut shop = spin::shop();
    let wasm = wat::spin_03();
    shop.locked["components"][0]["source"]["digest"] = image::Digest::of(&wasm).to_string().into();
    shop.layers.push((shop.layers[0].0, wasm));
    spin::add_to_layout(&node.layout(), &reference("spin-03"), &shop).unwrap();
    let (pod, port) = (node.pod("concurrent").await, free_port().await);
    pod.start("main", "spin-03", |config| config.annotations = serves_on(port)).await;
    // Of `hello`, the default.
    assert_eq!(ask(port, "/api/x").await.0, "HTTP/1.1 205 Reset Content");
}

#[tokio::test]
async fn a_store_that_is_kept_in_a_volume_is_there_for_the_next_container() {
    let node = Node::new().await;
    let (pod, volume) = (node.pod("kept").await, node.directory("volume"));
    let config = node.directory("config").join("runtime-config.toml");
    std::fs::write(&config, "[key_value_store.default]\ntype = \"spin\"\npath = \"/data\"\n").unwrap();
    let mount = |guest: &str, host: &std::path::Path| v1::Mount {
        container_path: guest.to_owned(),
        host_path: host.display().to_string(),
        ..Default::default()
    };
    let port = free_port().await;
    pod.start("main", "spin-shop", |of| {
        of.annotations = serves_on(port);
        of.mounts = vec![mount("/data", &volume), mount("/runtime-config.toml", &config)];
    })
    .await;
    assert_eq!(ask(port, "/api/kept").await.1, "hello\n/kept\n/kept\n");
    assert_eq!(std::fs::read_to_string(volume.join("greeting")).unwrap(), "/kept");
}

#[tokio::test]
async fn what_an_application_lacks_is_told_when_its_container_is_made() {
    let node = Node::new().await;
    let pod = node.pod("refused").await;
    let refused = async |name: &str, application: &spin::Application| {
        spin::add_to_layout(&node.layout(), &reference(name), application).unwrap();
        pod.try_create(name, name, |_| {}).await.unwrap_err().message().to_owned()
    };

    let mut infers = spin::shop();
    let wasm = wat::spin_infers();
    infers.locked["components"][0]["source"]["digest"] = image::Digest::of(&wasm).to_string().into();
    infers.layers.push((infers.layers[0].0, wasm));
    let said = refused("spin-infers", &infers).await;
    assert!(said.contains("component api") && said.contains("fermyon:spin/llm@2.0.0"), "{said}");

    let mut unset = spin::shop();
    unset.locked["variables"]["greeting"] = json!({});
    let said = refused("spin-unset", &unset).await;
    assert!(said.contains("SPIN_VARIABLE_GREETING"), "{said}");

    let mut commands = spin::shop();
    let wasm = wat::sleeps();
    commands.locked["components"][0]["source"]["digest"] = image::Digest::of(&wasm).to_string().into();
    commands.layers.push((commands.layers[0].0, wasm));
    let said = refused("spin-commands", &commands).await;
    assert!(said.contains("component api") && said.contains("must export wasi:http/incoming-handler"), "{said}");

    let mut lacks = spin::shop();
    lacks.layers.pop();
    let said = refused("spin-lacks", &lacks).await;
    assert!(said.contains("component files: the file static/logo.svg"), "{said}");
}
