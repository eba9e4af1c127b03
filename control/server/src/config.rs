//! What an operator can choose about the API server, and the defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Settings of the API server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where keys, certificates and kubeconfigs lie.
    pub data_dir: PathBuf,
    /// The address to listen on; port 0 takes a free one.
    pub bind_address: SocketAddr,
    /// The address under which others reach this server: the endpoint of the Service `kubernetes`.
    /// `None` takes the bind address, or loopback when that is unspecified.
    pub advertise_address: Option<IpAddr>,
    /// Address ranges of Services; the first decides the primary family, a second makes dual stack.
    pub service_cidrs: Vec<IpNet>,
    /// Ports that NodePort Services are given.
    pub node_port_range: RangeInclusive<u16>,
    /// The domain of cluster DNS names, part of the serving certificate's names.
    pub cluster_domain: String,
    /// Further names and addresses the serving certificate is valid for.
    pub extra_sans: Vec<String>,
    /// A file of static bearer tokens, lines of `token,user,uid,"group1,group2"`.
    pub token_file: Option<PathBuf>,
    /// Where the kubeconfig of the administrator is written; `None` is `admin.kubeconfig` in the
    /// data directory.
    pub admin_kubeconfig: Option<PathBuf>,
    /// The server's address in the administrator's kubeconfig; `None` is the advertised address.
    pub external_url: Option<String>,
    /// Reads answered at the same time; more are refused with 429.
    pub reads_in_flight_max: usize,
    /// Writes answered at the same time; more are refused with 429.
    pub writes_in_flight_max: usize,
    /// How long a request other than a watch or a log may take.
    pub request_timeout: Duration,
    /// How often an idle watch that asked for bookmarks gets one.
    pub bookmark_interval: Duration,
}

impl Config {
    /// The defaults, with state under `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bind_address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 6443)),
            advertise_address: None,
            service_cidrs: vec![IpNet::from(ipnet::Ipv4Net::new_assert(
                Ipv4Addr::new(10, 96, 0, 0),
                16,
            ))],
            node_port_range: 30_000..=32_767,
            cluster_domain: "cluster.local".to_owned(),
            extra_sans: Vec::new(),
            token_file: None,
            admin_kubeconfig: None,
            external_url: None,
            reads_in_flight_max: 400,
            writes_in_flight_max: 200,
            request_timeout: Duration::from_secs(60),
            bookmark_interval: Duration::from_secs(60),
        }
    }

    /// The path of the administrator's kubeconfig.
    pub fn admin_kubeconfig_path(&self) -> PathBuf {
        self.admin_kubeconfig.clone().unwrap_or_else(|| self.data_dir.join("admin.kubeconfig"))
    }

    /// The address others reach the server at.
    pub(crate) fn advertised(&self) -> IpAddr {
        self.advertise_address.unwrap_or_else(|| {
            let bound = self.bind_address.ip();
            match bound {
                IpAddr::V4(_) if bound.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) if bound.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
                bound => bound,
            }
        })
    }
}
