//! What the person sees of the pods: their output, what keeps them from running, and how they ended.
//!
//! Comes in: the observed table, the container logs, our standard input. Goes out: the guests' bytes as they wrote them,
//! short lines about the pods on standard error, and an exit code. Never here: a change of what is wanted.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use decide::names::{ContainerId, PodUid};
use decide::plan::Stage;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use kubelet::effects::messages;
use kubelet::logs::{LogOptions, LogReader, Stream};
use kubelet::tables::{ObservedContainer, ObservedPod, Tables};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::terminal::say;

/// How long the rest of the output may take once the pods are gone.
const FLUSH: Duration = Duration::from_secs(5);
/// Bytes of standard input on their way to the guest.
const INPUT_CHUNK: usize = 16 * 1024;

/// A line longer than this is not held back for its end, in bytes.
const LONGEST_LINE: usize = 64 * 1024;
/// How soon a log that is not there yet is looked for again.
const LOG_PAUSE: Duration = Duration::from_millis(10);
/// Lines that are not said again; of many the oldest may be.
const REMEMBERED: usize = 256;

/// A container that could not be started.
const START_ERROR: &str = "StartError";

/// Waiting that is the normal course.
const PATIENT: [&str; 3] = ["ContainerCreating", "PodInitializing", "CrashLoopBackOff"];

/// How watching ended.
pub(super) enum Ended {
    /// Every pod has Succeeded or Failed.
    ByItself,
    /// We were asked to stop.
    Asked,
    /// The pod cannot run, and nothing here will change that.
    CannotRun,
}

/// The watcher.
pub(super) struct Screen {
    tables: Arc<Tables>,
    runtime: cri::Client,
    pod_logs: PathBuf,
    pods: usize,
    one_shot: bool,
    seen: BTreeMap<PodUid, PodStatus>,
    followed: HashSet<ContainerId>,
    told: VecDeque<String>,
    outputs: JoinSet<()>,
    over: watch::Sender<bool>,
    input: Option<tokio::task::JoinHandle<()>>,
}

impl Screen {
    /// `pods` are expected; with `one_shot`, what keeps a container from starting is the end.
    pub(super) fn new(
        tables: Arc<Tables>,
        runtime: cri::Client,
        pod_logs: PathBuf,
        pods: usize,
        one_shot: bool,
    ) -> Self {
        Self {
            tables,
            runtime,
            pod_logs,
            pods,
            one_shot,
            seen: BTreeMap::new(),
            followed: HashSet::new(),
            told: VecDeque::new(),
            outputs: JoinSet::new(),
            over: watch::Sender::new(false),
            input: None,
        }
    }

    /// Shows the pods until all have ended or somebody asks for their end.
    pub(super) async fn until_ended(&mut self, asked: impl Future<Output = ()>) -> Ended {
        let mut changes = self.tables.observed.changes();
        tokio::pin!(asked);
        loop {
            changes.mark_unchanged();
            let hopeless = self.look();
            if self.one_shot && hopeless {
                return Ended::CannotRun;
            }
            let over = |status: &PodStatus| matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
            if self.seen.len() == self.pods && self.seen.values().all(over) {
                return Ended::ByItself;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = &mut asked => return Ended::Asked,
            }
        }
    }

    /// Shows the pods until nothing is left of them.
    pub(super) async fn until_gone(&mut self) {
        let mut changes = self.tables.observed.changes();
        loop {
            changes.mark_unchanged();
            self.look();
            if self.tables.observed.is_empty() {
                return;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Shows what the guests wrote last.
    pub(super) async fn flush(mut self) {
        self.over.send_replace(true);
        let rest = async { while self.outputs.join_next().await.is_some() {} };
        if tokio::time::timeout(FLUSH, rest).await.is_err() {
            say("wasklet: the end of the output could not be read in time");
        }
        if let Some(input) = self.input {
            input.abort();
        }
    }

    /// The code of the first container that did not end with 0.
    pub(super) fn exit_code(&self) -> ExitCode {
        let mut codes = self.seen.values().flat_map(|status| status.container_statuses.iter().flatten()).map(exit_code);
        if self.seen.values().any(|status| status.container_statuses.is_none()) {
            return ExitCode::from(125);
        }
        let code = codes.find(|&code| code != 0).unwrap_or(0);
        ExitCode::from(u8::try_from(code).unwrap_or(255))
    }

    /// Takes in the table; true if some container cannot start.
    fn look(&mut self) -> bool {
        let mut hopeless = false;
        let mut there = HashSet::new();
        for (uid, pod) in self.tables.observed.all() {
            for container in &pod.containers {
                self.follow(&uid, &pod, container);
            }
            hopeless |= self.tell(&pod);
            there.extend(pod.containers.iter().map(|container| container.id.clone()));
            self.seen.insert(uid, pod.status.clone());
        }
        // What is gone does not come back.
        self.followed.retain(|id| there.contains(id));
        while self.outputs.try_join_next().is_some() {}
        hopeless
    }

    /// Says, once, what people would want to know of the pod.
    fn tell(&mut self, pod: &ObservedPod) -> bool {
        let name = pod.object.metadata.name.as_deref().unwrap_or_default();
        let mut hopeless = false;
        if let (Some(reason), Some(message)) = (&pod.status.reason, &pod.status.message) {
            self.say_once(&format!("wasklet: pod {name}: {reason}: {message}"));
        }
        for status in pod.status.container_statuses.iter().flatten() {
            let Some((reason, message)) = kept_from_running(status) else { continue };
            self.say_once(&format!("wasklet: pod {name}, container {}: {reason}: {message}", status.name));
            hopeless = true;
        }
        if pod.stage == Stage::Running && pod.status.phase.as_deref() == Some("Running") {
            for address in addresses(pod) {
                self.say_once(&format!("wasklet: pod {name} is served on {address}"));
            }
        }
        hopeless
    }

    fn say_once(&mut self, line: &str) {
        if self.told.iter().any(|told| told == line) {
            return;
        }
        if self.told.len() >= REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back(line.to_owned());
        say(line);
    }

    /// Follows the instance's log, and gives the first one that wants it our standard input.
    fn follow(&mut self, uid: &PodUid, pod: &ObservedPod, container: &ObservedContainer) {
        if !self.followed.insert(container.id.clone()) {
            return;
        }
        let spec = pod.object.spec.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let prefix = (containers.len() > 1 || self.pods > 1).then(|| format!("[{}] ", container.name));
        let identity = messages::identity_of(&pod.object.metadata);
        let path = messages::log_file(&self.pod_logs, &identity, container.name.as_str(), container.attempt);
        let (tables, uid, over) = (Arc::clone(&self.tables), uid.clone(), self.over.subscribe());
        let (name, attempt) = (container.name.clone(), container.attempt);
        let id = format!("wasklet://{}", container.id);
        let ended = move || {
            let Some(row) = tables.observed.get(&uid) else { return true };
            // Not the other way round: a container that was only made is in no status yet.
            let has_ended = |status: &ContainerStatus| {
                let states = [&status.state, &status.last_state].into_iter().flatten();
                let mut ends = states.filter_map(|state| state.terminated.as_ref());
                ends.any(|end| end.container_id.as_deref() == Some(&id))
            };
            let is_replaced = row.containers.iter().any(|it| it.name == name && it.attempt > attempt);
            *over.borrow() || is_replaced || row.status.container_statuses.iter().flatten().any(has_ended)
        };
        self.outputs.spawn(print_log(path, prefix, ended));
        let wants_input =
            containers.iter().any(|spec| spec.name == container.name.as_str() && spec.stdin == Some(true));
        if wants_input && self.input.is_none() {
            self.input = Some(tokio::spawn(pass_input(self.runtime.clone(), container.id.clone())));
        }
    }
}

fn exit_code(status: &ContainerStatus) -> i32 {
    let terminated = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    // What never ran has no code of its own.
    terminated.map_or(125, |terminated| terminated.exit_code)
}

/// Reason and message of what keeps the container from running, unless it is the normal course.
fn kept_from_running(status: &ContainerStatus) -> Option<(&str, &str)> {
    let state = status.state.as_ref()?;
    let waiting = state.waiting.as_ref().map(|waiting| (waiting.reason.as_deref(), waiting.message.as_deref()));
    // It has ended without having begun; everything else that ends says itself why.
    let not_begun = state.terminated.as_ref().filter(|ended| ended.reason.as_deref() == Some(START_ERROR));
    let not_begun = not_begun.map(|ended| (ended.reason.as_deref(), ended.message.as_deref()));
    let (reason, message) = waiting.or(not_begun)?;
    let reason = reason.filter(|reason| !PATIENT.contains(reason))?;
    Some((reason, message.unwrap_or_default()))
}

/// Where the declared TCP ports of the containers that run are.
fn addresses(pod: &ObservedPod) -> Vec<String> {
    let statuses = || pod.status.container_statuses.iter().flatten();
    let runs = |name: &str| {
        let running = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
        statuses().any(|status| status.name == name && running(status))
    };
    let containers = pod.object.spec.iter().flat_map(|spec| &spec.containers).filter(|container| runs(&container.name));
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    let address = pod.status.pod_ip.as_deref().unwrap_or("127.0.0.1");
    tcp.map(|port| match port.host_port {
        Some(host_port) => format!("{}:{host_port}", port.host_ip.as_deref().unwrap_or("0.0.0.0")),
        None if address.contains(':') => format!("[{address}]:{}", port.container_port),
        None => format!("{address}:{}", port.container_port),
    })
    .collect()
}

/// Prints a log as the guest wrote it, each stream on its own.
async fn print_log(path: PathBuf, prefix: Option<String>, ended: impl Fn() -> bool) {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut reader = loop {
        // Asked before the file: what wrote it may end in between.
        let over = ended();
        match LogReader::open(&path, options.clone()).await {
            Ok(reader) => break reader,
            // A container that is made and not started yet has no log; one that could not be started never will.
            Err(error) if error.kind() == ErrorKind::NotFound && !over => tokio::time::sleep(LOG_PAUSE).await,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => return say(&format!("wasklet: reading {}: {error}", path.display())),
        }
    };
    let mut lines = [Vec::new(), Vec::new()];
    loop {
        let entry = match reader.next(&ended).await {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return say(&format!("wasklet: reading {}: {error}", path.display())),
        };
        let line = &mut lines[usize::from(entry.stream == Stream::Stderr)];
        line.extend_from_slice(&entry.text);
        if !entry.partial {
            line.push(b'\n');
        }
        // Alone, a guest's bytes are passed on as they are; beside others, in whole lines, so that they stay apart.
        if prefix.is_some() && entry.partial && line.len() < LONGEST_LINE {
            continue;
        }
        if print(entry.stream, prefix.as_deref(), line).is_err() {
            // Nobody reads any more; the guest runs on, as it would with its log alone.
            return;
        }
        line.clear();
    }
    for (stream, line) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut lines) {
        if !line.is_empty() {
            drop(print(stream, prefix.as_deref(), line));
        }
    }
}

/// With a prefix, always a line of its own.
fn print(stream: Stream, prefix: Option<&str>, line: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(prefix) = prefix {
        line.splice(0..0, prefix.bytes());
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
    }
    match stream {
        Stream::Stdout => std::io::stdout().lock().write_all(line).and_then(|()| std::io::stdout().flush()),
        Stream::Stderr => std::io::stderr().lock().write_all(line),
    }
}

/// Hands our standard input to the container until either ends.
async fn pass_input(runtime: cri::Client, container: ContainerId) {
    let input = futures::stream::unfold(tokio::io::stdin(), |mut stdin| async move {
        let mut chunk = vec![0; INPUT_CHUNK];
        match stdin.read(&mut chunk).await {
            Ok(0) | Err(_) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some((Bytes::from(chunk), stdin))
            }
        }
    });
    match runtime.attach(container.as_str(), input).await {
        Ok(mut output) => while output.next().await.is_some_and(|piece| piece.is_ok()) {},
        Err(error) => tracing::debug!("{error}: {}", error.message()),
    }
}
