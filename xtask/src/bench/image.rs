//! Images: how fast one is pulled beside `skopeo copy`, how often one is fetched and compiled for many pods, and what a
//! second start reads of it.
//!
//! Comes in: sizes and counts. Goes out: figures, as text. Never here: a registry but `docker-registry` on loopback.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rustix::fs::inotify;
use serde_json::Value;
use testbed::guests::wat;
use testbed::{registry, tools};

use super::figures::median;
use super::wasklet::{Running, release_binary};
use crate::say;

/// What the guests of many pods say.
const WORDS: &str = "up";
/// How long many pods may take.
const PODS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(crate) struct Options {
    /// Megabytes of the image that is pulled
    #[arg(long, default_value_t = 100)]
    megabytes: usize,
    /// Pulls by each side, in turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Pods of one new image
    #[arg(long, default_value_t = 100)]
    pods: usize,
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let wasklet = release_binary()?;
    let skopeo = tools::find("skopeo")?;
    let registry = registry::Registry::start(&registry::Options::default()).await?;
    let place = tempfile::tempdir().context("making a directory")?;
    let bench = Bench { wasklet, skopeo, registry, place: place.path().to_owned() };
    bench.pulls(options.megabytes, options.rounds)?;
    bench.many_pods(options.pods).await?;
    bench.second_start().await
}

struct Bench {
    wasklet: PathBuf,
    skopeo: PathBuf,
    registry: registry::Registry,
    place: PathBuf,
}

impl Bench {
    /// A pull into an empty store beside a copy into an empty OCI layout, whole processes both.
    fn pulls(&self, megabytes: usize, rounds: usize) -> Result<()> {
        let image = self.push("big", &padded(wat::sleeps(), megabytes * 1_000_000)?)?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let directory = self.place.join(format!("pull-{round}"));
            std::fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
            let pull = || -> Result<f64> {
                let root = directory.join("store");
                timed(Command::new(&self.wasklet).args(["image", "pull", "--quiet", &image, "--root-dir"]).arg(root))
            };
            let copy = || -> Result<f64> {
                let layout = format!("oci:{}:v1", directory.join("layout").display());
                let from = format!("docker://{image}");
                timed(Command::new(&self.skopeo).args(["copy", "--quiet", "--src-tls-verify=false", &from, &layout]))
            };
            // Who comes first warms the registry's files for the other.
            let (first, second) = if round % 2 == 0 { (pull()?, copy()?) } else { (copy()?, pull()?) };
            let (mine, other) = if round % 2 == 0 { (first, second) } else { (second, first) };
            ours.push(mine);
            theirs.push(other);
            std::fs::remove_dir_all(&directory).with_context(|| format!("removing {}", directory.display()))?;
        }
        let (ours, theirs) = (median(&ours), median(&theirs));
        #[expect(clippy::cast_precision_loss, reason = "megabytes are few")]
        let rate = |seconds: f64| megabytes as f64 / seconds;
        say(&format!("pull of {megabytes} MB from localhost, the median of {rounds}:"));
        say(&format!("  wasklet image pull          {ours:.3} s  {:.0} MB/s", rate(ours)));
        say(&format!("  skopeo copy to OCI layout   {theirs:.3} s  {:.0} MB/s", rate(theirs)));
        say(&format!("  ratio of the rates          {:.2}  (wanted: at least 0.90)", theirs / ours));
        Ok(())
    }

    /// Static pods of one image that the node has never seen.
    async fn many_pods(&self, pods: usize) -> Result<()> {
        let image = self.push("many", &wat::prints_and_exits(&format!("{WORDS}\n"), 0))?;
        let before = self.registry.blobs_given()?.len();
        let (root, manifests) = (self.place.join("node"), self.place.join("manifests"));
        std::fs::create_dir(&manifests).with_context(|| format!("making {}", manifests.display()))?;
        for number in 0..pods {
            // Without an API server nobody gives the node addresses for pods.
            let manifest = format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: many-{number}}}\n\
                 spec: {{hostNetwork: true, dnsPolicy: Default, restartPolicy: Never, \
                 containers: [{{name: main, image: \"{image}\"}}]}}\n"
            );
            let path = manifests.join(format!("{number}.yaml"));
            std::fs::write(&path, manifest).with_context(|| format!("writing {}", path.display()))?;
        }
        let config = self.place.join("config.yaml");
        let logs = self.place.join("logs");
        let configuration = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: {}\n\
             imageGCHighThresholdPercent: 100\npodLogsDir: {}\n",
            pods + 10,
            logs.display()
        );
        std::fs::write(&config, configuration).with_context(|| format!("writing {}", config.display()))?;
        let log = self.place.join("node.log");
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut node = Command::new(&self.wasklet);
        node.arg("kubelet")
            .arg(format!("--pod-manifest-path={}", manifests.display()))
            .arg(format!("--root-dir={}", root.display()))
            .arg(format!("--config={}", config.display()))
            .args(["--healthz-port=0", "--hostname-override=bench"])
            .env_remove("WASKLET_IMAGE_LAYOUT")
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("sharing the log")?)
            .stderr(output);
        let started = Instant::now();
        let _node = Running(node.spawn().context("starting wasklet kubelet")?);
        while count_that_said(&logs, WORDS) < pods {
            ensure!(
                started.elapsed() < PODS_WITHIN,
                "{} of {pods} pods ran in {PODS_WITHIN:?}; see {}",
                count_that_said(&logs, WORDS),
                log.display()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let took = started.elapsed();
        let text = std::fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
        let compilations = text.lines().filter(|line| line.contains("compiled sha256:")).count();
        let mut given = self.registry.blobs_given()?.split_off(before);
        let downloads = given.len();
        given.sort();
        given.dedup();
        say(&format!("{pods} pods of one new image, all run after {:.2} s:", took.as_secs_f64()));
        say(&format!("  downloads                   {downloads} of {} blobs  (wanted: each once)", given.len()));
        say(&format!("  compilations                {compilations}  (wanted: 1)"));
        Ok(())
    }

    /// How often the layer's file is opened by a first start, which compiles it, and by a second.
    async fn second_start(&self) -> Result<()> {
        let image = self.push("again", &wat::prints_and_exits(&format!("{WORDS}\n"), 0))?;
        let state = self.place.join("state");
        done(Command::new(&self.wasklet).args(["image", "pull", "--quiet", &image, "--root-dir"]).arg(&state))?;
        let mut inspect = Command::new(&self.wasklet);
        let inspected = done(inspect.args(["image", "inspect", "--output=json", &image, "--root-dir"]).arg(&state))?;
        let inspected: Value = serde_json::from_slice(&inspected).context("reading what inspect wrote")?;
        let digest = inspected["wasm"]["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let layer = state.join("images/blobs/sha256").join(digest.context("inspect tells no digest")?);
        let watched = inotify::init(inotify::CreateFlags::NONBLOCK).context("watching files")?;
        let flags = inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS;
        inotify::add_watch(&watched, &layer, flags).with_context(|| format!("watching {}", layer.display()))?;
        let start = || -> Result<usize> {
            done(Command::new(&self.wasklet).args(["run", &image, "--state-dir"]).arg(&state))?;
            events(&watched)
        };
        let (first, second) = (start()?, start()?);
        say("opens and reads of an image's layer:");
        say(&format!("  first start, which compiles {first}"));
        say(&format!("  second start                {second}  (wanted: 0)"));
        Ok(())
    }

    /// Makes an image of the binary in the registry, and gives its reference.
    fn push(&self, name: &str, wasm: &[u8]) -> Result<String> {
        let path = self.place.join(format!("{name}.wasm"));
        std::fs::write(&path, wasm).with_context(|| format!("writing {}", path.display()))?;
        let image = self.registry.reference(&format!("bench/{name}:v1"));
        done(Command::new(&self.wasklet).args(["image", "push", "--quiet"]).arg(path).arg(&image))?;
        Ok(image)
    }
}

/// The binary with a custom section of noise, which nobody can compress, so that it has `bytes` and a few more.
fn padded(mut wasm: Vec<u8>, bytes: usize) -> Result<Vec<u8>> {
    const NAME: &[u8] = b"\x05noise";
    let size = u32::try_from(NAME.len() + bytes).context("a section is at most 4 GiB")?;
    wasm.push(0);
    let mut rest = size;
    while rest >= 0x80 {
        wasm.extend((rest & 0x7f).try_into().map(|low: u8| low | 0x80));
        rest >>= 7;
    }
    wasm.extend(u8::try_from(rest));
    wasm.extend_from_slice(NAME);
    let end = wasm.len() + bytes;
    // xorshift64*, by Vigna: fast, and the same each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while wasm.len() < end {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        wasm.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    wasm.truncate(end);
    Ok(wasm)
}

/// Runs a command that must succeed, and gives its standard output.
fn done(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// The seconds it takes.
fn timed(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    done(command)?;
    Ok(started.elapsed().as_secs_f64())
}

/// The log files beneath `directory` that hold these words.
fn count_that_said(directory: &Path, words: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let said = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(words));
    entries
        .flatten()
        .map(|entry| entry.path())
        .map(|path| if path.is_dir() { count_that_said(&path, words) } else { usize::from(said(&path)) })
        .sum()
}

/// What was noticed since the last look.
fn events(watched: &std::os::fd::OwnedFd) -> Result<usize> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 16 * 1024];
    let mut reader = inotify::Reader::new(watched, &mut buffer);
    let mut found = 0;
    loop {
        match reader.next() {
            Ok(_) => found += 1,
            Err(rustix::io::Errno::AGAIN) => return Ok(found),
            Err(error) => return Err(error).context("reading what was noticed"),
        }
    }
}
