//! Flags and configuration files of `wasklet kubelet` and `wasklet runtime` that are refused, each by its name.

use std::process::Stdio;

use anyhow::Result;

use crate::bed::place::Place;
use crate::bed::process::{Ended, Process, WASKLET, command};

async fn kubelet(place: &Place, arguments: &[&str]) -> Result<Ended> {
    let mut kubelet = command(WASKLET);
    // What should not be refused would start: without a way to an API server, and in the test's own directory.
    kubelet.arg("kubelet").arg("--root-dir").arg(place.path("root")).args(arguments);
    kubelet.stdout(Stdio::piped()).stderr(Stdio::piped());
    Process::start(kubelet).await?.ended().await
}

#[track_caller]
fn check(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in {}", ended.stderr);
    }
    for noise in ["panicked", "stack backtrace"] {
        assert!(!ended.stderr.contains(noise), "{noise:?} is in {}", ended.stderr);
    }
}

#[tokio::test]
async fn flags_that_are_unknown_or_not_supported_are_refused_by_name() -> Result<()> {
    let place = Place::new().await?;
    check(&kubelet(&place, &["--cpu-manager-policy=static", "--nonsense"]).await?, 2, &["--cpu-manager-policy"]);
    check(&kubelet(&place, &["--max-pods=many"]).await?, 2, &["--max-pods", "many"]);
    check(&kubelet(&place, &["--sync-frequency=soon"]).await?, 2, &["--sync-frequency", "soon"]);
    let plugins = "--image-credential-provider-config=/x";
    check(&kubelet(&place, &[plugins]).await?, 125, &["--image-credential-provider-config"]);
    check(&kubelet(&place, &["--feature-gates=NoSuchGate=true"]).await?, 125, &["NoSuchGate"]);
    check(&kubelet(&place, &["--read-only-port=10255"]).await?, 125, &["readOnlyPort"]);
    check(&kubelet(&place, &["--kubeconfig=/nowhere/kubeconfig"]).await?, 125, &["/nowhere/kubeconfig"]);
    Ok(())
}

#[tokio::test]
async fn fields_of_a_configuration_file_are_refused_by_name_and_file() -> Result<()> {
    let place = Place::new().await?;
    let header = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
    let with = |name: &str, field: &str| place.put(name, format!("{header}{field}"));

    let config = format!("--config={}", with("typo.yaml", "maxPodz: 5\n")?);
    check(&kubelet(&place, &[&config]).await?, 125, &["typo.yaml", "maxPodz"]);

    let config = format!("--config={}", with("wrong.yaml", "maxPods: several\n")?);
    check(&kubelet(&place, &[&config]).await?, 125, &["wrong.yaml", "maxPods"]);

    let config = format!("--config={}", place.put("version.yaml", "apiVersion: v1\nkind: ConfigMap\n")?);
    check(&kubelet(&place, &[&config]).await?, 125, &["version.yaml", "kubelet.config.k8s.io/v1beta1"]);

    let config = format!("--config={}", place.put("kind.yaml", header.replace("KubeletConfiguration", "Kubelet"))?);
    check(&kubelet(&place, &[&config]).await?, 125, &["kind.yaml", "KubeletConfiguration"]);

    let config = format!("--config={}", place.path("missing.yaml").display());
    check(&kubelet(&place, &[&config]).await?, 125, &["missing.yaml"]);
    Ok(())
}

#[tokio::test]
async fn help_is_for_people() -> Result<()> {
    for (words, expected) in [
        (&["--help"][..], &["run", "kubelet", "runtime"][..]),
        (&["run", "--help"], &["--publish", "--volume", "--env"]),
        (&["kubelet", "--help"], &["--kubeconfig", "--pod-manifest-path", "--container-runtime-endpoint"]),
        (&["runtime", "--help"], &["--listen"]),
        (&["--version"], &["wasklet"]),
    ] {
        let mut wasklet = command(WASKLET);
        wasklet.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = Process::start(wasklet).await?.ended().await?;
        assert_eq!(ended.code, 0, "{ended:?}");
        for word in expected {
            assert!(ended.text().contains(word), "{words:?} does not speak of {word}: {}", ended.text());
        }
    }
    Ok(())
}
