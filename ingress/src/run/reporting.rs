//! The tasks that write to a cluster: Events, statuses, and the election of who writes those.

use super::Config;
use crate::leader::lease::{self, LeaseOptions};
use crate::metrics::Metrics;
use crate::objects::ObjectKey;
use crate::report::addresses::OwnPod;
use crate::report::statuses::{Board, StatusWriter};
use crate::report::{Desk, FINDINGS_MAX, StatusSource, events};
use kube::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What the command line says about them.
#[derive(Clone, Debug)]
pub struct ReportingConfig {
    /// Addresses for the status of Ingresses.
    pub publish_addresses: Vec<String>,
    /// `namespace/name` of the Service to take them from instead.
    pub publish_service: Option<(String, String)>,
    /// Statuses are written.
    pub update_status: bool,
    /// The last replica takes its addresses out again.
    pub update_status_on_shutdown: bool,
    /// Of nodes, rather the addresses within the cluster.
    pub node_internal_addresses: bool,
    /// Every Ingress taken in gets an Event.
    pub sync_events: bool,
    /// The Lease's name.
    pub election_id: String,
    /// How long a Lease is held.
    pub election_ttl: Duration,
    /// This is the only replica.
    pub no_election: bool,
}

/// The running tasks.
pub struct Reporting {
    statuses: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    election: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Keeps who leads where there is no election.
    _leads: Option<watch::Sender<bool>>,
}

impl Reporting {
    /// Starts them; with them comes where to put what they write.
    pub fn start(config: &Config, client: &Client, metrics: &Arc<Metrics>) -> (Reporting, Desk) {
        let options = &config.reporting;
        let (findings, queue) = mpsc::channel(FINDINGS_MAX);
        tokio::spawn(events::write_all(client.clone(), queue));
        let board = Arc::new(Board::default());
        let (leads, leading) = watch::channel(options.no_election);
        let own_pod = own_pod(options);
        let source = source(options);
        let statuses = options.update_status.then(|| {
            let given = source != StatusSource::Elsewhere;
            let writer = StatusWriter {
                client: client.clone(),
                board: board.clone(),
                leads: leading,
                nodes_of: own_pod.clone().filter(|_| !given),
                own_pod: own_pod.clone(),
                clear_at_end: options.update_status_on_shutdown,
            };
            stoppable(|stop| writer.run(stop))
        });
        let mut reporting = Reporting { statuses, election: None, _leads: None };
        if options.no_election {
            metrics.leading(&options.election_id, true);
            reporting._leads = Some(leads);
        } else {
            let lease = lease(options, own_pod);
            let (client, metrics) = (client.clone(), metrics.clone());
            let run = |stop| lease::run(client, lease, leads, metrics, stop);
            reporting.election = Some(stoppable(run));
        }
        (reporting, Desk { findings, sync_events: options.sync_events, board, source })
    }

    /// Stops them for a process that goes on with the same: statuses stay as they are.
    pub async fn hand_over(mut self) {
        if let Some((_stop, task)) = self.statuses.take() {
            task.abort();
        }
        self.stop().await;
    }

    /// Stops them: statuses first, as only the leader may write them, then the election.
    pub async fn stop(self) {
        for (stop, task) in [self.statuses, self.election].into_iter().flatten() {
            // One that ended by itself needs no telling.
            let _ = stop.send(());
            if let Err(error) = task.await {
                tracing::warn!("a task that writes to the cluster: {error}");
            }
        }
    }
}

fn stoppable<F: Future<Output = ()> + Send + 'static>(
    run: impl FnOnce(oneshot::Receiver<()>) -> F,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel();
    (stop, tokio::spawn(run(stopped)))
}

fn source(options: &ReportingConfig) -> StatusSource {
    if !options.publish_addresses.is_empty() {
        StatusSource::Given(options.publish_addresses.clone())
    } else if options.publish_service.is_some() {
        StatusSource::Service
    } else {
        StatusSource::Elsewhere
    }
}

fn own_pod(options: &ReportingConfig) -> Option<OwnPod> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(OwnPod {
        namespace: variable("POD_NAMESPACE")?,
        name: variable("POD_NAME")?,
        internal_addresses: options.node_internal_addresses,
    })
}

/// The Lease is in the namespace of the pod. Without a pod's name a replica is told apart by chance.
fn lease(options: &ReportingConfig, own_pod: Option<OwnPod>) -> LeaseOptions {
    let key = match own_pod {
        Some(pod) => ObjectKey::new(pod.namespace, pod.name),
        None => {
            let namespace = std::env::var("POD_NAMESPACE").ok().filter(|value| !value.is_empty());
            let name = format!("podium-ingress-{:016x}", rand::random::<u64>());
            ObjectKey::new(namespace.unwrap_or_else(|| "default".into()), name)
        }
    };
    LeaseOptions {
        namespace: key.namespace.to_string(),
        name: options.election_id.clone(),
        identity: key.name.to_string(),
        ttl: options.election_ttl,
    }
}
