//! The node agent of Podium, its kubelet: registers the Node, runs the pods assigned to it through
//! CRI on a private containerd, and reports their status as upstream's kubelet does.
//!
//! It decides nothing about where pods run (the scheduler) or how Services reach them
//! (`podium-proxy`), and it needs only the ordinary Kubernetes API. The truth about containers is in
//! the runtime: an agent that is killed and started again restarts none of them.

mod archives;
mod backoff;
mod cgroup;
mod command;
mod config;
mod containerd;
mod cri;
mod error;
mod event;
mod host;
mod logs;
mod machine;
mod network;
mod node;
mod pod;
mod probe;
mod quantity;
mod references;
mod server;
mod supervisor;
mod teardown;
mod volumes;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::Error;
pub use teardown::teardown;

use host::Host;
use supervisor::{Registry, Supervisor};

/// How long the API server may keep the agent waiting at its start before that is reported again.
const REGISTER_RETRY: Duration = Duration::from_millis(500);

/// Runs the agent until shutdown. Containers keep running after it; see [`teardown`].
pub async fn run(
    client: kube::Client,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    config.validate()?;
    for dir in [config.data_dir.clone(), config.pods_dir(), config.logs_dir()] {
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    }
    let hierarchies = cgroup::Hierarchies::discover()?;
    hierarchies.create(&config.cgroup_root)?;
    let runtime = containerd::ensure(&config).await?;
    let archives = archives::Archives::new(&config);
    archives.import_new().await;
    let machine = machine::Machine::read(&config, &runtime).await?;
    let Some(node) = register(&client, &config, &machine, &shutdown).await else { return Ok(()) };
    let services = reflect_services(client.clone(), shutdown.clone());
    let host = Arc::new(Host {
        recorder: event::Recorder::start(client.clone(), &config.node_name),
        machine: machine.clone(),
        client: client.clone(),
        runtime: runtime.clone(),
        hierarchies,
        archives: archives.clone(),
        services: services.clone(),
        config: config.clone(),
    });
    host.recorder.normal(
        event::node_reference(&config.node_name),
        "Starting",
        "Starting podium agent.",
    );
    let registry = Registry::default();
    let server = server::bind(&host, registry.clone()).await?;

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(node::keep_lease(client.clone(), node, shutdown.clone()));
    tasks.spawn(node::keep_status(
        client.clone(),
        config.clone(),
        machine,
        runtime.clone(),
        shutdown.clone(),
    ));
    tasks.spawn(containerd::keep(config.clone(), shutdown.clone()));
    tasks.spawn(keep_network(client, config, shutdown.clone()));
    tasks.spawn(archives.watch(shutdown.clone()));
    tasks.spawn(logs::rotate::keep(host.clone(), registry.clone(), shutdown.clone()));
    if let Some(server) = server {
        tasks.spawn(server.serve(shutdown.clone()));
    }
    // Service variables have to be complete before the first container is made.
    let ready = shutdown.run_until_cancelled(services.wait_until_ready()).await;
    if matches!(ready, Some(Ok(()))) {
        Supervisor::new(host, registry).run(shutdown.clone()).await;
    }
    shutdown.cancelled().await;
    tasks.shutdown().await;
    Ok(())
}

/// Registers the Node, for as long as it takes; `None`: shutdown came first.
async fn register(
    client: &kube::Client,
    config: &Config,
    machine: &machine::Machine,
    shutdown: &CancellationToken,
) -> Option<Node> {
    let mut tries: u32 = 0;
    loop {
        match shutdown.run_until_cancelled(node::register(client, config, machine)).await? {
            Ok(node) => {
                tracing::info!(node = config.node_name, "node registered");
                return Some(node);
            }
            Err(error) if tries.is_multiple_of(20) => {
                tracing::warn!(%error, "node not registered yet");
            }
            Err(_) => {}
        }
        tries += 1;
        shutdown.run_until_cancelled(tokio::time::sleep(REGISTER_RETRY)).await?;
    }
}

fn reflect_services(client: kube::Client, shutdown: CancellationToken) -> Store<Service> {
    let (store, writer) = reflector::store();
    let objects = watcher(Api::<Service>::all(client), watcher::Config::default());
    let stream = reflector::reflector(writer, objects.default_backoff());
    tokio::spawn(async move {
        let reflect = stream.for_each(|event| async move {
            if let Err(error) = event {
                tracing::warn!(%error, "watch of services interrupted");
            }
        });
        shutdown.run_until_cancelled(reflect).await;
    });
    store
}

/// Follows the Nodes: our pod CIDRs configure the pod network, the others' become routes.
async fn keep_network(client: kube::Client, config: Config, shutdown: CancellationToken) {
    let (store, writer) = reflector::store::<Node>();
    let objects = watcher(Api::<Node>::all(client), watcher::Config::default());
    let mut stream = Box::pin(reflector::reflector(writer, objects.default_backoff()));
    let mut routes = None;
    while let Some(Some(event)) = shutdown.run_until_cancelled(stream.next()).await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => continue,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "watch of nodes interrupted");
                continue;
            }
        }
        let nodes = store.state();
        let own =
            nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&config.node_name));
        let cidrs = own.map(|node| network::pod_cidrs(node)).unwrap_or_default();
        if !cidrs.is_empty()
            && let Err(error) = network::configure(&config, &cidrs)
        {
            tracing::error!(%error, "pod network not configured");
        }
        let wanted = network::wanted_routes(&config.node_name, nodes.iter().map(AsRef::as_ref));
        if routes.as_ref() != Some(&wanted) {
            let problems = network::sync_routes(&wanted).await;
            problems.iter().for_each(|error| tracing::error!(%error, "route not set"));
            // What failed is tried again with the next change or heartbeat of any node.
            routes = problems.is_empty().then_some(wanted);
        }
    }
}
