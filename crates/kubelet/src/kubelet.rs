//! The pod half of the node agent, put together: the one file that wires its parts.
//!
//! Comes in: the runtime's client, the API server's where there is one, and what the configuration says. Goes out: tasks
//! that run until they are dropped, and the two tables. The node object and the HTTP API stand beside it and read the
//! same tables.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use decide::admission::Capacity;
use decide::image_gc::Policy;
use decide::pod::Resources;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config::EventRate;
use crate::dispatch::{Dispatcher, Node};
use crate::dns::DnsSettings;
use crate::effects::{Effects, LogFiles};
use crate::events::{self, EventRecord, Recorder};
use crate::hints::{self, Hints};
use crate::image_gc::{self, Collector};
use crate::metrics::Metrics;
use crate::mirrors::{Keeper, Mirrors};
use crate::objects::Objects;
use crate::prober::Prober;
use crate::pulls::{PullOptions, Pulls};
use crate::sources::files::FileSource;
use crate::sources::http::HttpSource;
use crate::sources::{Change, api, files, http};
use crate::status::{self, Publisher};
use crate::tables::{Origin, Tables};
use crate::volumes::{VolumeOptions, Volumes};
use crate::worker::Shared;

/// Changes that may wait for the dispatcher, which never blocks for long.
const CHANGES: usize = 256;

/// What the pod half needs.
pub struct Setup {
    /// The node's name.
    pub node_name: String,
    /// The runtime.
    pub runtime: cri::Client,
    /// The API server, where there is one.
    pub api: Option<kube::Client>,
    /// Manifests on this node's disk.
    pub files: Option<FileSource>,
    /// Manifests behind a URL.
    pub url: Option<HttpSource>,
    /// Whether pods come through [`Kubelet::changes`] from whoever holds it, as files would. Their logs are then kept for
    /// whoever does.
    pub by_hand: bool,
    /// ConfigMaps, Secrets, Services and tokens.
    pub objects: Objects,
    /// Where volumes are kept.
    pub root_dir: PathBuf,
    /// Where container logs are kept.
    pub pod_logs: PathBuf,
    /// How often volumes are looked at again although nothing happened.
    pub sync_frequency: Duration,
    /// How names are resolved.
    pub dns: DnsSettings,
    /// How images are pulled.
    pub pulls: PullOptions,
    /// When images go that nothing uses; `None` is never.
    pub image_gc: Option<Policy>,
    /// What pods may use, and the labels they may ask for.
    pub capacity: watch::Receiver<Capacity>,
    /// What a container without limits may use.
    pub allocatable: watch::Receiver<Resources>,
    /// The node's addresses, the primary one first.
    pub host_ips: watch::Receiver<Vec<IpAddr>>,
    /// Where events are told…
    pub recorder: Recorder,
    /// …and where they come out, to be written here.
    pub records: mpsc::Receiver<EventRecord>,
    /// How fast events are written.
    pub event_rate: EventRate,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
}

/// The pod half at work. Dropping it stops the work and leaves the runtime's containers alone.
pub struct Kubelet {
    tables: Arc<Tables>,
    mirrors: Option<Arc<Mirrors>>,
    changes: mpsc::Sender<Change>,
    tasks: JoinSet<()>,
}

impl Kubelet {
    /// Starts every task. Must be called inside a Tokio runtime.
    pub fn start(setup: Setup) -> Self {
        let mut tasks = JoinSet::new();
        let node_name = setup.node_name.clone();
        let tables = Arc::new(Tables::default());
        let publisher = if setup.api.is_some() { Publisher::to_api() } else { Publisher::to_nobody() };
        let hints = Arc::new(Hints::default());
        let (changes, queue) = mpsc::channel(CHANGES);
        let mut sources = Vec::new();
        let (heard, all_heard) = watch::channel(false);
        let mirrors = setup.api.is_some().then(|| Arc::new(Mirrors::new(publisher.clone())));
        match setup.api.zip(mirrors.clone()) {
            Some((client, mirrors)) => {
                sources.push(Origin::Api);
                tasks.spawn(events::write_events(
                    client.clone(),
                    setup.node_name.clone(),
                    setup.event_rate,
                    setup.clock,
                    setup.records,
                ));
                let shown = (Arc::clone(&tables), Arc::clone(&mirrors));
                tasks.spawn(status::publish(client.clone(), shown.0, shown.1, publisher.clone()));
                let keeper = Keeper {
                    client: client.clone(),
                    node_name: setup.node_name.clone(),
                    tables: Arc::clone(&tables),
                    mirrors: Arc::clone(&mirrors),
                    all_heard,
                };
                tasks.spawn(keeper.run());
                tasks.spawn(api::watch_pods(client, setup.node_name, changes.clone(), mirrors));
            }
            None => {
                tasks.spawn(events::drain_events(setup.records));
            }
        }
        if let Some(source) = setup.files {
            sources.push(Origin::File);
            tasks.spawn(files::watch_files(source, setup.clock, changes.clone()));
        } else if setup.by_hand {
            sources.push(Origin::File);
        }
        if let Some(source) = setup.url {
            sources.push(Origin::Http);
            tasks.spawn(http::watch_url(source, setup.clock, changes.clone()));
        }
        if let Some(policy) = setup.image_gc {
            let collector = Collector::new(image_gc::Setup {
                node_name: node_name.clone(),
                runtime: setup.runtime.clone(),
                policy,
                probe: image_gc::file_system,
                recorder: setup.recorder.clone(),
                metrics: Arc::clone(&setup.metrics),
                clock: setup.clock,
            });
            tasks.spawn(collector.run());
        }
        tasks.spawn(hints::follow_events(setup.runtime.clone(), Arc::clone(&hints)));
        let options = VolumeOptions {
            sync_frequency: setup.sync_frequency,
            host_ips: setup.host_ips.clone(),
            allocatable: setup.allocatable.clone(),
        };
        let pulls = Arc::new(Pulls::new(setup.pulls));
        tasks.spawn(Arc::clone(&pulls).forget_gone(setup.runtime.clone(), setup.clock));
        let effects = Effects {
            prober: Prober::new(setup.runtime.clone(), Arc::clone(&setup.metrics)),
            runtime: setup.runtime,
            volumes: Arc::new(Volumes::new(setup.root_dir, setup.objects.clone(), options)),
            objects: setup.objects,
            dns: setup.dns,
            // Who brings pods by hand reads their logs by hand, perhaps after the pods are gone.
            logs: LogFiles::new(setup.pod_logs, setup.by_hand),
            allocatable: setup.allocatable,
            pulls,
            clock: setup.clock,
        };
        let shared = Shared {
            effects,
            tables: Arc::clone(&tables),
            publisher,
            recorder: setup.recorder,
            hints,
            metrics: setup.metrics,
            clock: setup.clock,
        };
        let node = Node { host_ips: setup.host_ips, capacity: setup.capacity };
        tasks.spawn(Dispatcher::new(Arc::new(shared), node, sources, heard).run(queue));
        Self { tables, mirrors, changes, tasks }
    }

    /// What is desired and what is observed.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// What the API server shows of the node's own pods; none without one.
    pub fn mirrors(&self) -> Option<&Arc<Mirrors>> {
        self.mirrors.as_ref()
    }

    /// Where pods come in by hand.
    pub fn changes(&self) -> &mpsc::Sender<Change> {
        &self.changes
    }

    /// Waits until a task that should run for ever has ended, as it does only by a fault of ours. The rest would go on
    /// half blind, so whoever holds this should end, too, and be started again.
    pub async fn broken(&mut self) {
        self.tasks.join_next().await;
    }
}
