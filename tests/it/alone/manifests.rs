//! `wasklet run POD.yaml`: objects beside the pod, volumes shared by containers, restarts.

use anyhow::Result;
use rustix::process::Signal;

use crate::bed::place::Place;

#[tokio::test]
async fn objects_beside_the_pod_are_its_environment_and_files() -> Result<()> {
    let place = Place::new().await?;
    let manifest = place.put(
        "pod.yaml",
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green, motto: "$(COLOUR) is the colour"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
data: {password: cGE1NXdvcmQ=}
stringData: {user: alice}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  restartPolicy: Never
  volumes:
  - name: settings
    configMap: {name: settings}
  - name: keys
    secret: {secretName: keys}
  containers:
  - name: environment
    image: test.invalid/guests/environment:v1
    env:
    - name: COLOUR
      valueFrom: {configMapKeyRef: {name: settings, key: colour}}
    - name: PASSWORD
      valueFrom: {secretKeyRef: {name: keys, key: password}}
    envFrom:
    - prefix: KEY_
      secretRef: {name: keys}
  - name: setting
    image: test.invalid/guests/reads:v1
    args: [/settings/colour]
    volumeMounts: [{name: settings, mountPath: /settings}]
  - name: key
    image: test.invalid/guests/reads:v1
    args: [/keys/password]
    volumeMounts: [{name: keys, mountPath: /keys, readOnly: true}]
"#,
    )?;
    let ended = place.run(&[manifest]).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    for expected in [
        "[environment] COLOUR=green",
        "[environment] PASSWORD=pa55word",
        "[environment] KEY_password=pa55word",
        "[environment] KEY_user=alice",
        "[setting] green",
        "[key] pa55word",
    ] {
        assert!(lines.contains(&expected), "{expected:?} is not in {lines:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn containers_share_an_empty_dir_or_a_part_of_it() -> Result<()> {
    let place = Place::with_all_guests().await?;
    let manifest = place.put(
        "pod.yaml",
        r"
apiVersion: v1
kind: Pod
metadata: {name: shares}
spec:
  restartPolicy: OnFailure
  volumes:
  - name: scratch
    emptyDir: {}
  containers:
  - name: writes
    image: test.invalid/guests/files:v1
    args: [write, /scratch/note, passed on]
    env: [{name: PART, value: one}]
    # Made by the node.
    volumeMounts: [{name: scratch, mountPath: /scratch, subPathExpr: parts/$(PART)}]
  - name: reads
    image: test.invalid/guests/files:v1
    # Until the other has written it ends with 1, and is started again.
    args: [cat, /other/parts/one/note]
    volumeMounts: [{name: scratch, mountPath: /other}]
  - name: shares
    image: test.invalid/guests/files:v1
    args: [cat, /one/note]
    volumeMounts: [{name: scratch, mountPath: /one, subPath: parts/one, readOnly: true}]
",
    )?;
    let ended = place.run(&[manifest]).await?;
    assert_eq!(ended.code, 0, "{ended:?}");
    for name in ["reads", "shares"] {
        assert!(ended.text().contains(&format!("[{name}] passed on\n")), "{ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failing_container_is_started_again() -> Result<()> {
    let place = Place::new().await?;
    let manifest = place.put(
        "pod.yaml",
        r"
apiVersion: v1
kind: Pod
metadata: {name: fails}
spec:
  restartPolicy: OnFailure
  containers:
  - name: main
    image: test.invalid/guests/fails:v1
",
    )?;
    let mut wasklet = place.start(&[manifest]).await?;
    let twice = |said: &str| said.matches("this guest fails\n").count() == 2;
    wasklet.await_stderr("the guest's complaint, twice", twice).await?;
    assert!(wasklet.runs(), "a pod that will be started again is not over");
    wasklet.signal(Signal::INT);
    let ended = wasklet.ended().await?;
    assert_eq!(ended.code, 3, "{ended:?}");
    Ok(())
}
