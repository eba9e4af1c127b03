//! `podium server`: store, API server, controllers and scheduler in one process. The last two reach
//! the API through its own service in memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use podium_server::{ApiServer, Config, Identity};
use podium_store::{Embedded, Retention};
use tokio_util::sync::CancellationToken;

use crate::Unusable;

#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of the store, the CA and the administrator's kubeconfig.
    #[arg(long, default_value = "/var/lib/podium/server")]
    data_dir: PathBuf,
    /// Address the API listens on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind_address: IpAddr,
    /// Port the API listens on; 0 takes a free one.
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Address nodes and pods reach the API at; the bind address by default.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Address range of Services; two of different families make dual stack.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/16")]
    service_cidr: Vec<IpNet>,
    /// Address range of pods, of which every node gets a part; one a family.
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16")]
    cluster_cidr: Vec<IpNet>,
    /// Address range given to Services of type LoadBalancer; none: they stay pending.
    #[arg(long, value_delimiter = ',')]
    load_balancer_cidr: Vec<IpNet>,
    /// Ports given to Services of type NodePort, FIRST-LAST.
    #[arg(long, default_value = "30000-32767", value_parser = parse_port_range)]
    service_node_port_range: RangeInclusive<u16>,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Further name or address the API's certificate is valid for; repeatable.
    #[arg(long)]
    tls_san: Vec<String>,
    /// File of static bearer tokens, lines of `token,user,uid,"group1,group2"`.
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Where the administrator's kubeconfig is written; <data-dir>/admin.kubeconfig by default.
    #[arg(long)]
    write_kubeconfig: Option<PathBuf>,
}

pub async fn run(arguments: Arguments, shutdown: CancellationToken) -> anyhow::Result<()> {
    let store = open_store(&arguments)?;
    let api =
        ApiServer::start(config(&arguments), store).await.context("starting the API server")?;
    println!("kubeconfig: {}", api.admin_kubeconfig_path().display());
    let controllers = podium_controllers::run(
        client(&api, "kube-controller-manager"),
        podium_controllers::Config {
            cluster_cidrs: arguments.cluster_cidr,
            load_balancer_cidrs: arguments.load_balancer_cidr,
            ca_pem: api.authority().certificate_pem().to_owned(),
            ..podium_controllers::Config::default()
        },
        shutdown.clone(),
    );
    let scheduler = podium_scheduler::run(
        client(&api, "kube-scheduler"),
        podium_scheduler::Config::default(),
        shutdown.clone(),
    );
    // One of them ending by itself, which only a fault makes happen, ends the process: its
    // supervisor starts it anew, and nothing waits for a controller that is not there.
    let result = tokio::select! {
        result = controllers => result.context("running the controllers"),
        result = scheduler => result.context("running the scheduler"),
        () = shutdown.cancelled() => Ok(()),
    };
    shutdown.cancel();
    api.shutdown().await;
    result
}

fn open_store(arguments: &Arguments) -> anyhow::Result<Arc<Embedded>> {
    std::fs::create_dir_all(&arguments.data_dir).map_err(|error| {
        Unusable(format!("--data-dir: cannot make {}: {error}", arguments.data_dir.display()))
    })?;
    let path = arguments.data_dir.join("store.redb");
    let store = Embedded::open(&path, Retention::default())
        .with_context(|| format!("opening the store {}", path.display()))?;
    Ok(Arc::new(store))
}

fn config(arguments: &Arguments) -> Config {
    Config {
        bind_address: SocketAddr::new(arguments.bind_address, arguments.secure_port),
        advertise_address: arguments.advertise_address,
        service_cidrs: arguments.service_cidr.clone(),
        node_port_range: arguments.service_node_port_range.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
        extra_sans: arguments.tls_san.clone(),
        token_file: arguments.token_auth_file.clone(),
        admin_kubeconfig: arguments.write_kubeconfig.clone(),
        ..Config::new(&arguments.data_dir)
    }
}

/// A client of a component, over the API server's own service.
fn client(api: &ApiServer, component: &str) -> kube::Client {
    kube::Client::new(api.client_service(Identity::system(component)), "default")
}

fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').ok_or("a range is FIRST-LAST")?;
    let port = |text: &str| text.parse::<u16>().map_err(|error| format!("{text:?}: {error}"));
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 || first > last {
        return Err(format!("{first}-{last} is no range of ports"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        assert_eq!(parse_port_range("30000-32767").unwrap(), 30_000..=32_767);
        for wrong in ["30000", "2-1", "0-5", "a-b", "1-70000"] {
            assert!(parse_port_range(wrong).is_err(), "{wrong}");
        }
    }
}
