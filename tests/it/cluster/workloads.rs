//! What controllers make pods for: rollouts, jobs, ordered sets, daemons, evictions, each with wasm pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, ResourceExt};

use crate::bed::scene::{Scene, exit_code, on_shared_node};
use crate::bed::{PATIENCE, until};
use testbed::cluster::has_condition;

/// A schedule's minute may have just begun, and a job takes its time.
const NEXT_MINUTE: Duration = Duration::from_secs(120);

/// The pods of this label that are not on their way out.
async fn pods(scene: &Scene<'_>, label: &str) -> Result<Vec<Pod>> {
    let list = scene.namespace.api::<Pod>().list(&ListParams::default().labels(label)).await?;
    Ok(list.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect())
}

fn template(scene: &Scene<'_>, label: &str, spec: &str) -> String {
    let spec: String = spec.trim_matches('\n').lines().map(|line| format!("      {line}\n")).collect();
    let scheduling = scene.node.scheduling("      ");
    format!("  template:\n    metadata: {{labels: {{app: {label}}}}}\n    spec:\n{scheduling}{spec}")
}

const SLEEPS: &str = "
terminationGracePeriodSeconds: 1
containers:
- name: main
  image: test.invalid/guests/sleeps:v1
";

fn replicated(scene: &Scene<'_>, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n  selector: {{matchLabels: {{app: \
         {name}}}}}\n{spec}{}",
        template(scene, name, SLEEPS)
    )
}

fn job(scene: &Scene<'_>, name: &str, image: &str, spec: &str) -> String {
    let pod = format!("restartPolicy: Never\ncontainers:\n- name: main\n  image: test.invalid/guests/{image}:v1\n");
    format!("apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n{spec}{}", template(scene, name, &pod))
}

async fn await_job(scene: &Scene<'_>, name: &str, condition: &str) -> Result<Job> {
    let holds = |job: &Job| {
        let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|one| one.type_ == condition && one.status == "True")
    };
    let found = scene.namespace.await_object::<Job>(name, PATIENCE, |job| job.is_some_and(holds)).await?;
    found.with_context(|| format!("job {name} is gone"))
}

#[tokio::test]
async fn a_rollout_replaces_every_pod_and_can_be_undone() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "  replicas: 3\n  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n";
        scene.namespace.apply(&replicated(scene, "Deployment", "rolls", spec)).await?;
        scene.kubectl(&["rollout", "status", "deployment/rolls", "--timeout=60s"]).await?;
        for (change, image) in [
            (vec!["set", "image", "deployment/rolls", "main=test.invalid/guests/ticks:v1"], "ticks"),
            (vec!["rollout", "undo", "deployment/rolls"], "sleeps"),
        ] {
            scene.kubectl(&change).await?;
            scene.kubectl(&["rollout", "status", "deployment/rolls", "--timeout=60s"]).await?;
            until("only pods of the new image", PATIENCE, async || {
                let pods = pods(scene, "app=rolls").await?;
                let images: Vec<_> =
                    pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers.first()?.image.clone()).collect();
                let reference = format!("test.invalid/guests/{image}:v1");
                ensure!(images.len() == 3 && images.iter().all(|image| *image == reference), "{images:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_job_completes_and_one_that_fails_is_tried_again() -> Result<()> {
    on_shared_node(async |scene| {
        scene.namespace.apply(&job(scene, "thrice", "prints", "  completions: 3\n  parallelism: 2\n")).await?;
        scene.namespace.apply(&job(scene, "hopeless", "fails", "  backoffLimit: 1\n")).await?;
        let done = await_job(scene, "thrice", "Complete").await?;
        assert_eq!(done.status.and_then(|status| status.succeeded), Some(3));

        let failed = await_job(scene, "hopeless", "Failed").await?;
        let status = failed.status.context("no status")?;
        assert_eq!(status.failed, Some(2));
        let reasons: Vec<_> = status.conditions.iter().flatten().filter_map(|one| one.reason.clone()).collect();
        assert!(reasons.contains(&"BackoffLimitExceeded".to_owned()), "{reasons:?}");
        let tries = pods(scene, "app=hopeless").await?;
        assert!(tries.iter().all(|pod| exit_code(pod, "main") == Some(3)), "{tries:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cron_job_runs_when_its_minute_comes() -> Result<()> {
    on_shared_node(async |scene| {
        let pod = "restartPolicy: Never\ncontainers:\n- name: main\n  image: test.invalid/guests/prints:v1\n";
        let indented: String = template(scene, "cron", pod).lines().map(|line| format!("    {line}\n")).collect();
        let cron = format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: cron}}\nspec:\n  schedule: '* * * * *'\n  \
             jobTemplate:\n    spec:\n{indented}"
        );
        scene.namespace.apply(&cron).await?;
        until("a job of the schedule", NEXT_MINUTE, async || {
            let jobs = scene.namespace.api::<Job>().list(&ListParams::default()).await?;
            let succeeded = |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
            ensure!(jobs.iter().any(succeeded), "{} jobs, none has succeeded", jobs.items.len());
            Ok(())
        })
        .await?;
        scene.kubectl(&["delete", "cronjob", "cron", "--cascade=foreground"]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stateful_set_starts_and_ends_in_order() -> Result<()> {
    on_shared_node(async |scene| {
        let spec = "  replicas: 3\n  serviceName: ordered\n";
        scene.namespace.apply(&replicated(scene, "StatefulSet", "ordered", spec)).await?;
        scene.kubectl(&["rollout", "status", "statefulset/ordered", "--timeout=90s"]).await?;
        for (earlier, later) in [("ordered-0", "ordered-1"), ("ordered-1", "ordered-2")] {
            let (earlier, later) = (scene.pod(earlier).await?, scene.pod(later).await?);
            let conditions = earlier.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let ready = conditions.into_iter().find(|one| one.type_ == "Ready").context("not Ready")?;
            let ready_at = ready.last_transition_time.as_ref().context("no transition time")?.0;
            let created_at = later.creation_timestamp().context("no creation time")?.0;
            assert!(ready_at <= created_at, "{} was made before its elder was Ready", later.name_any());
        }

        // One that is deleted comes back under its name, as another pod.
        let before = scene.pod("ordered-1").await?.uid();
        scene.kubectl(&["delete", "pod", "ordered-1"]).await?;
        let again = |pod: &Pod| pod.uid() != before && has_condition(pod, "Ready");
        scene.namespace.await_pod("ordered-1", PATIENCE, again).await?;

        scene.kubectl(&["scale", "statefulset/ordered", "--replicas=1"]).await?;
        scene.namespace.await_gone("ordered-2").await?;
        scene.namespace.await_gone("ordered-1").await?;
        let left = |set: Option<&StatefulSet>| {
            set.is_some_and(|set| set.status.as_ref().is_some_and(|status| status.replicas == 1))
        };
        scene.namespace.await_object::<StatefulSet>("ordered", PATIENCE, left).await?;
        assert!(has_condition(&scene.pod("ordered-0").await?, "Ready"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_daemon_set_has_its_pod_on_the_node() -> Result<()> {
    on_shared_node(async |scene| {
        scene.namespace.apply(&replicated(scene, "DaemonSet", "daemon", "")).await?;
        scene.kubectl(&["rollout", "status", "daemonset/daemon", "--timeout=60s"]).await?;
        let pods = pods(scene, "app=daemon").await?;
        let nodes: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
        assert_eq!(nodes, [scene.node.name()]);
        Ok(())
    })
    .await
}

/// A client that hands on a refusal; the usual one waits and asks again, as the API server says it should.
async fn impatient_client(scene: &Scene<'_>) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(scene.cluster.kubeconfig())?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

#[tokio::test]
async fn an_eviction_keeps_to_the_disruption_budget() -> Result<()> {
    on_shared_node(async |scene| {
        let budget = |available: u32| {
            format!(
                "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: budget}}\nspec:\n  minAvailable: \
                 {available}\n  selector: {{matchLabels: {{app: budgeted}}}}\n"
            )
        };
        scene.namespace.apply(&budget(2)).await?;
        scene.namespace.apply(&replicated(scene, "Deployment", "budgeted", "  replicas: 2\n")).await?;
        scene.kubectl(&["rollout", "status", "deployment/budgeted", "--timeout=60s"]).await?;
        scene.kubectl(&["wait", "pdb/budget", "--for=jsonpath={.status.currentHealthy}=2", "--timeout=60s"]).await?;

        let victim = pods(scene, "app=budgeted").await?.first().context("no pod")?.name_any();
        let api: Api<Pod> = Api::namespaced(impatient_client(scene).await?, scene.namespace.name());
        let refused = api.evict(&victim, &EvictParams::default()).await.map(drop);
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 429), "{refused:?}");

        scene.namespace.apply(&budget(1)).await?;
        until("the eviction to be allowed", PATIENCE, async || {
            api.evict(&victim, &EvictParams::default()).await.map(drop).context("evicting")
        })
        .await?;
        scene.namespace.await_gone(&victim).await?;
        scene.kubectl(&["rollout", "status", "deployment/budgeted", "--timeout=60s"]).await?;
        Ok(())
    })
    .await
}
