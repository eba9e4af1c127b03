//! The API server as a whole: start and stop.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podium_api::status::Status;
use podium_store::Store;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::allocation::Allocators;
use crate::authentication::{self, Authenticator};
use crate::bootstrap;
use crate::config::Config;
use crate::identity::{Identity, MASTERS};
use crate::listener;
use crate::metrics::Metrics;
use crate::node_log::NodeClient;
use crate::pki::{Authority, ClientRequest, PkiError, ServingNames};
use crate::registry::Registry;
use crate::service::ClientService;
use crate::token::TokenKey;

/// How long requests in flight are given when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Why the API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The token file, the token key, or another setting.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The address to listen on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The objects every cluster has.
    #[error("make the system objects: {0}")]
    Bootstrap(Status),
}

/// What all requests share.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) authenticator: Authenticator,
    pub(crate) token_key: Arc<TokenKey>,
    pub(crate) metrics: Metrics,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) writes: Arc<Semaphore>,
    pub(crate) node_client: NodeClient,
    /// Where clients reach the server, as discovery says it.
    pub(crate) server_address: String,
    /// Ends watches and logs.
    pub(crate) stopping: CancellationToken,
}

/// A running API server.
pub struct ApiServer {
    api: Arc<Api>,
    address: SocketAddr,
    authority: Authority,
    listener: JoinHandle<()>,
}

impl ApiServer {
    /// Starts serving over TLS; returns once everything the cluster starts with is there.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let authority = Authority::open(&config.data_dir)?;
        let socket = TcpListener::bind(config.bind_address)
            .await
            .map_err(|source| StartError::Listen { address: config.bind_address, source })?;
        let address = socket
            .local_addr()
            .map_err(|source| StartError::Listen { address: config.bind_address, source })?;
        let cluster_ip = first_address(&config)?;
        let advertised = SocketAddr::new(config.advertised(), address.port());
        let names = serving_names(&config, cluster_ip);
        let tls = listener::tls_config(&authority, &authority.serving(&names)?)
            .map_err(|reason| StartError::Setting { setting: "TLS", reason })?;
        let api = Arc::new(assemble(config, store, &authority, advertised)?);
        let endpoint = bootstrap::Endpoint {
            service_cidrs: api.config.service_cidrs.clone(),
            cluster_ip,
            address: advertised.ip(),
            port: advertised.port(),
        };
        bootstrap::run(&api.registry, &endpoint).await.map_err(StartError::Bootstrap)?;
        let admin =
            ClientRequest { user: "podium-admin".to_owned(), groups: vec![MASTERS.to_owned()] };
        let url = api.config.external_url.clone();
        let url = url.unwrap_or_else(|| format!("https://{advertised}"));
        authority.write_kubeconfig(&admin, &url, &api.config.admin_kubeconfig_path())?;
        let listener = tokio::spawn(listener::serve(socket, tls, api.clone()));
        tracing::info!(%address, "API server ready");
        Ok(Self { api, address, authority, listener })
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig_path(&self) -> PathBuf {
        self.api.config.admin_kubeconfig_path()
    }

    /// The certificate authority, to issue further kubeconfigs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The API without a socket, as the given user: a tower service to build a `kube::Client` on.
    pub fn client_service(&self, identity: Identity) -> ClientService {
        ClientService::new(self.api.clone(), Some(identity))
    }

    /// Stops: no new connections, watches end, requests in flight are finished.
    pub async fn shutdown(self) {
        self.api.stopping.cancel();
        if tokio::time::timeout(DRAIN, self.listener).await.is_err() {
            tracing::warn!("connections still open after {DRAIN:?} are dropped");
        }
    }
}

fn assemble(
    config: Config,
    store: Arc<dyn Store>,
    authority: &Authority,
    advertised: SocketAddr,
) -> Result<Api, StartError> {
    let issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
    let token_key = TokenKey::new(authority.service_account_key_der(), issuer)
        .map_err(|reason| StartError::Setting { setting: "token key", reason })?;
    let token_key = Arc::new(token_key);
    let static_tokens = match &config.token_file {
        Some(path) => authentication::read_token_file(path)
            .map_err(|reason| StartError::Setting { setting: "token file", reason })?,
        None => HashMap::new(),
    };
    let kubelet_client = authority.client(&ClientRequest {
        user: "kube-apiserver-kubelet-client".to_owned(),
        groups: vec![MASTERS.to_owned()],
    })?;
    let node_client = NodeClient::new(&kubelet_client)
        .map_err(|reason| StartError::Setting { setting: "node client", reason })?;
    let metrics = Metrics::new()
        .map_err(|error| StartError::Setting { setting: "metrics", reason: error.to_string() })?;
    Ok(Api {
        registry: Registry {
            store: store.clone(),
            allocators: Allocators::new(&config.service_cidrs, &config.node_port_range),
        },
        authenticator: Authenticator::new(static_tokens, token_key.clone(), store),
        token_key,
        metrics,
        reads: Arc::new(Semaphore::new(config.reads_in_flight_max)),
        writes: Arc::new(Semaphore::new(config.writes_in_flight_max)),
        node_client,
        server_address: advertised.to_string(),
        stopping: CancellationToken::new(),
        config,
    })
}

/// The address of the Service `kubernetes`.
fn first_address(config: &Config) -> Result<IpAddr, StartError> {
    let invalid =
        |reason: &str| StartError::Setting { setting: "service CIDR", reason: reason.to_owned() };
    let cidr = config.service_cidrs.first().ok_or_else(|| invalid("at least one is needed"))?;
    let host_bits = cidr.max_prefix_len() - cidr.prefix_len();
    if host_bits < 3 {
        return Err(invalid(&format!("{cidr} has no room for Services")));
    }
    cidr.hosts().find(|ip| *ip != cidr.network()).ok_or_else(|| invalid("it has no addresses"))
}

fn serving_names(config: &Config, cluster_ip: IpAddr) -> ServingNames {
    let domain = &config.cluster_domain;
    let mut names = ServingNames {
        dns: vec![
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{domain}"),
        ],
        addresses: vec![
            std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::Ipv6Addr::LOCALHOST.into(),
            cluster_ip,
            config.advertised(),
        ],
    };
    if !config.bind_address.ip().is_unspecified() {
        names.addresses.push(config.bind_address.ip());
    }
    for extra in &config.extra_sans {
        match extra.parse() {
            Ok(address) => names.addresses.push(address),
            Err(_) => names.dns.push(extra.clone()),
        }
    }
    names
}
