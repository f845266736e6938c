//! Spin applications as SpinKube runs them: a pod of its RuntimeClass, as its operator makes it.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::guests::spin;

use crate::bed::PATIENCE;
use crate::bed::http::await_answer;
use crate::bed::scene::{Scene, at, on_shared_node};

/// As SpinKube installs it.
const CLASS: &str = "wasmtime-spin-v2";

async fn install_class(scene: &Scene<'_>) -> Result<()> {
    let classes: kube::Api<RuntimeClass> = kube::Api::all(scene.cluster.client());
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": CLASS }, "handler": "spin"
    });
    let applied = classes.patch(CLASS, &PatchParams::apply("tests").force(), &Patch::Apply(&class)).await;
    applied.map(drop).context("applying the RuntimeClass")
}

#[tokio::test]
async fn an_unmodified_pod_of_spinkube_runs() -> Result<()> {
    on_shared_node(async |scene| {
        install_class(scene).await?;
        let spec = "
runtimeClassName: wasmtime-spin-v2
containers:
- name: shop
  image: test.invalid/guests/spin-shop:v1
  imagePullPolicy: IfNotPresent
  command: ['/']
  ports:
  - name: http-app
    containerPort: 80
  env:
  - name: SPIN_VARIABLE_GREETING
    valueFrom:
      configMapKeyRef: { name: shop, key: greeting }
  livenessProbe:
    httpGet: { path: /.well-known/spin/health, port: http-app }
  volumeMounts:
  - name: spin-runtime-config
    mountPath: /runtime-config.toml
    subPath: runtime-config.toml
    readOnly: true
volumes:
- name: spin-runtime-config
  secret:
    secretName: shop-config
    optional: true
    items:
    - { key: runtime-config.toml, path: runtime-config.toml }
";
        let objects = "
apiVersion: v1
kind: ConfigMap
metadata: { name: shop }
data: { greeting: good morning }
---
apiVersion: v1
kind: Secret
metadata: { name: shop-config }
stringData:
  runtime-config.toml: |
    [key_value_store.default]
    type = \"spin\"
";
        scene.namespace.apply(objects).await?;
        scene.apply_pod("shop", spec).await?;
        let ready = |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        let pod = scene.namespace.await_pod("shop", PATIENCE, ready).await?;
        let address = at(&pod, 80)?;
        let answer = await_answer(address, "/api/orders").await?;
        ensure!(answer == "good morning\n/orders\n/orders\n", "{answer:?}");
        let logo = await_answer(address, "/static/logo.svg").await?;
        ensure!(logo == spin::LOGO_TEXT, "{logo:?}");
        scene.kubectl(&["delete", "pod", "shop", "--timeout=20s"]).await?;
        Ok(())
    })
    .await
}
