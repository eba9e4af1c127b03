//! The controllers: each compares what the objects ask for with what is there (a pure plan) and
//! writes the difference. One cache and one watch a kind serve them all. They speak to the API
//! through a kube client only and know nothing of the server or its store.

mod claim;
mod deployment;
mod endpoints;
pub mod event;
mod garbage;
pub mod informer;
mod ipam;
mod job;
mod load_balancer;
mod namespace;
mod node;
pub mod pod;
mod pod_gc;
mod queue;
mod replica_set;
pub mod selector;
mod served;
mod write;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::informer::{Cache, Key};
use crate::queue::Controller;
use crate::write::Context;

/// What the controllers need to know; the defaults are upstream's.
#[derive(Clone, Debug)]
pub struct Config {
    /// Ranges of pod addresses, one a family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Bits of a node's part of an IPv4 range.
    pub node_cidr_mask_size_ipv4: u8,
    /// Bits of a node's part of an IPv6 range.
    pub node_cidr_mask_size_ipv6: u8,
    /// Ranges of addresses for Services of type LoadBalancer.
    pub load_balancer_cidrs: Vec<IpNet>,
    /// Certificate of the cluster's CA, for `kube-root-ca.crt`.
    pub ca_pem: String,
    /// How long a node may be silent before it is Unknown.
    pub node_monitor_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            node_cidr_mask_size_ipv4: 24,
            node_cidr_mask_size_ipv6: 64,
            load_balancer_cidrs: Vec::new(),
            ca_pem: String::new(),
            node_monitor_grace: Duration::from_secs(50),
        }
    }
}

/// Why a controller could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("{operation} {kind} {key}: {source}")]
    Api {
        /// What was tried.
        operation: &'static str,
        /// Kind of the object.
        kind: String,
        /// Which object.
        key: Key,
        /// What the server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object has no JSON form.
    #[error("encoding {kind}: {source}")]
    Encode {
        /// Kind of the object.
        kind: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A task ended by panicking.
    #[error("a controller died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

impl Error {
    /// The HTTP status the server answered with.
    fn code(&self) -> Option<u16> {
        let Self::Api { source, .. } = self else { return None };
        let kube::Error::Api(status) = &**source else { return None };
        Some(status.code)
    }
}

/// Runs all controllers until shutdown.
///
/// # Errors
/// A controller that panics ends all of them.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let cache = Arc::new(Cache::default());
    let context = Context::new(client.clone(), cache.clone(), config);
    let mut tasks = JoinSet::new();
    let start = |tasks: &mut JoinSet<()>| {
        add(tasks, &context, &shutdown, deployment::Deployments(context.clone()));
        add(tasks, &context, &shutdown, replica_set::ReplicaSets(context.clone()));
        add(tasks, &context, &shutdown, job::Jobs(context.clone()));
        add(tasks, &context, &shutdown, endpoints::Services::new(context.clone()));
        add(tasks, &context, &shutdown, load_balancer::LoadBalancers(context.clone()));
        add(tasks, &context, &shutdown, namespace::Namespaces(context.clone()));
        add(tasks, &context, &shutdown, ipam::NodeRanges(context.clone()));
        add(tasks, &context, &shutdown, node::Nodes::new(context.clone()));
        add(tasks, &context, &shutdown, pod_gc::PodGarbage::new(context.clone()));
    };
    cache.start(&client, &shutdown).await;
    start(&mut tasks);
    tasks.spawn(garbage::run(client, shutdown.clone()));
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

fn add<C: Controller>(
    tasks: &mut JoinSet<()>,
    context: &Context,
    shutdown: &CancellationToken,
    controller: C,
) {
    let changes = context.cache.subscribe();
    tasks.spawn(queue::run(Arc::new(controller), changes, shutdown.clone()));
}
