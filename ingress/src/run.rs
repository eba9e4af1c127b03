//! Wiring of the running program: sockets, source, controller, proxy, and the orderly end.

mod reporting;

use crate::access_log::AccessLog;
use crate::access_log::format::LogFormat;
use crate::annotations::Settings;
use crate::annotations::limits::Limits;
use crate::annotations::redirects::Redirects;
use crate::balance;
use crate::certificates::{Certificate, CertificateError, SnapshotResolver};
use crate::class::ClassSelection;
use crate::controller::Controller;
use crate::handover::{HandoverError, Inheritance, Succession, Successor};
use crate::htpasswd::Verifier;
use crate::http_client::HttpClient;
use crate::listener::{self, App, BindError, Connections, Edge};
use crate::metrics::{Identity, Metrics};
use crate::objects::ObjectKey;
use crate::options::config_map::ConfigMapOptions;
use crate::options::{AccessLogOptions, ConnectionOptions};
use crate::options::{ForwardedOptions, LogEscape, Options};
use crate::proxy::fast_path::FastPath;
use crate::proxy::{AnswersCache, IngressProxy, Mirrors, PingoraProxy};
use crate::report::Reporter;
use crate::snapshot::Snapshot;
use crate::source::{api::ApiSource, files};
use crate::status_server::{self, StatusServer};
use crate::tls::policy::TlsContext;
use crate::translate::{Index, Policy};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use reporting::Reporting;
pub use reporting::ReportingConfig;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

/// Where objects come from.
pub enum Source {
    /// A Kubernetes API, all namespaces or one.
    Api(kube::Client, Option<String>),
    /// A folder of manifests.
    Manifests(PathBuf),
}

/// How the access log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Not at all.
    Off,
    /// nginx's upstreaminfo lines.
    Nginx,
    /// One JSON object a line.
    Json,
}

/// Everything the command line says.
pub struct Config {
    /// Where objects come from.
    pub source: Source,
    /// Plain HTTP listeners.
    pub http: Vec<SocketAddr>,
    /// HTTPS listeners.
    pub https: Vec<SocketAddr>,
    /// Health and metrics.
    pub status: SocketAddr,
    /// Values of `IngressClass.spec.controller` that are ours.
    pub controller_classes: Vec<String>,
    /// Values of the class annotation that are ours.
    pub ingress_classes: Vec<String>,
    /// Take Ingresses without a class.
    pub without_class: bool,
    /// An IngressClass called as one of those is ours whatever its controller.
    pub class_by_name: bool,
    /// Leave out Ingresses with a default backend of their own.
    pub no_catch_all: bool,
    /// Services of type ExternalName have no endpoints.
    pub no_external_names: bool,
    /// `namespace/name` of the ConfigMap with options; what it says wins over defaults given here.
    pub config_map: Option<(String, String)>,
    /// `namespace/name` of the Service for unmatched requests.
    pub default_backend_service: Option<(String, String)>,
    /// `namespace/name` of the Secret for hosts without a certificate.
    pub default_ssl_certificate: Option<(String, String)>,
    /// Redirect hosts with a certificate to https unless an annotation says otherwise.
    pub ssl_redirect: bool,
    /// The port named in redirects to https; `None` names none.
    pub https_redirect_port: Option<u16>,
    /// Honour `ssl-passthrough`.
    pub ssl_passthrough: bool,
    /// Default limit of request bodies in bytes; 0 is none.
    pub body_size_max: u64,
    /// Networks of proxies in front; empty for all.
    pub proxies: Vec<IpNet>,
    /// Believe the forwarded headers of those.
    pub forwarded_headers: bool,
    /// Events, statuses and the election.
    pub reporting: ReportingConfig,
    /// The access log.
    pub access_log: AccessLogFormat,
    /// From the signal to closing the listeners: health fails, load balancers look elsewhere.
    pub shutdown_delay: Duration,
    /// From then to cutting what is still open.
    pub drain_timeout: Duration,
    /// How long a client may take to send the header of a request.
    pub header_timeout: Duration,
    /// Connections of clients, in all; what is more waits to be accepted.
    pub connections_max: usize,
    /// Where a new process comes for the listening sockets of a running one.
    pub upgrade_socket: Option<PathBuf>,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Idle connections kept to endpoints.
    pub upstream_keepalive_connections: usize,
}

/// Why the program cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The sockets of a running process.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// A socket for the process after this one.
    #[error("copying a listening socket: {0}")]
    Copy(#[source] io::Error),
    /// The fake certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS itself.
    #[error("setting up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// Metrics.
    #[error("registering metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The writer of the access log.
    #[error("starting the access log: {0}")]
    AccessLog(#[source] io::Error),
}

/// Runs until `shutdown` completes, then drains. Wants a multi-threaded tokio runtime.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::new(&identity(&config))?);
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let ready = Arc::new(AtomicBool::new(false));
    let policy = policy(&config)?;
    let Sockets { http, https, status, inheritance, legacy } = Sockets::open(&config).await?;
    let access_log = AccessLog::stdout().map_err(RunError::AccessLog)?;
    let edge = edge(&config, &snapshot, &metrics, access_log.clone())?;

    tokio::spawn(balance::names::keep_resolved(snapshot.clone()));
    tokio::spawn(balance::kept::keep_short(snapshot.clone()));
    tokio::spawn(balance::probes::keep_probed(snapshot.clone(), HttpClient::new()?));
    let status_server = StatusServer { ready: ready.clone(), metrics: metrics.clone() };
    let serve_status = status_server::serve(status, status_server);
    // One that is inherited is served by the process before this one until now.
    let early = !inheritance.has_predecessor();
    let (mut status_task, mut serve_status) = (None, Some(serve_status));
    if early {
        status_task = serve_status.take().map(tokio::spawn);
    }
    let reporting = start_controller(&config, policy, snapshot, ready.clone(), metrics);

    // Listeners open before the first snapshot: clients wait in the backlog instead of being refused.
    let (begin_drain, draining) = watch::channel(false);
    let (alive, ended) = mpsc::channel(1);
    let connections = Connections { draining, _alive: alive };
    let gate = tokio::spawn(wait_until_ready(ready.clone()));
    let mut accepting = tokio::task::JoinSet::new();
    let plain = http.into_iter().map(|listener| (listener, false));
    let secure = https.into_iter().map(|listener| (listener, true));
    let all: Vec<_> = plain.chain(secure).collect();
    let mut shutdown = std::pin::pin!(shutdown);
    tokio::select! {
        _ = gate => {}
        () = &mut shutdown => return Ok(()),
    }
    for (listener, secure) in all {
        accepting.spawn(listener::serve(listener, secure, edge.clone(), connections.clone()));
    }
    drop(connections);

    let status_task = status_task.or_else(|| serve_status.take().map(tokio::spawn));
    let succession = succeed(config.upgrade_socket.as_deref(), inheritance, legacy).await;

    let successor = tokio::select! {
        () = &mut shutdown => None,
        successor = taken_over(succession) => Some(successor),
    };
    let taken_over = successor.is_some();
    // Beside the rest: others need not wait for connections of ours to learn that we go.
    let told = tokio::spawn(async move {
        match reporting {
            Some(reporting) if taken_over => reporting.hand_over().await,
            Some(reporting) => reporting.stop().await,
            None => {}
        }
    });
    if taken_over {
        tracing::info!("a new process takes over");
        status_task.inspect(tokio::task::JoinHandle::abort);
    } else {
        ready.store(false, Ordering::Relaxed);
        tracing::info!(delay_s = config.shutdown_delay.as_secs(), "shutting down");
        tokio::time::sleep(config.shutdown_delay).await;
    }
    begin_drain.send_replace(true);
    accepting.join_all().await;
    if let Some(successor) = successor {
        successor.release().await;
    }
    listener::drain(ended, drain_timeout(&edge)).await;
    if let Err(error) = told.await {
        tracing::warn!("telling the cluster: {error}");
    }
    access_log.flush();
    Ok(())
}

/// The listening sockets, and where they came from.
struct Sockets {
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    status: TcpListener,
    inheritance: Inheritance,
    /// The same once more, for a process that comes after this one.
    legacy: Vec<OwnedFd>,
}

impl Sockets {
    async fn open(config: &Config) -> Result<Sockets, RunError> {
        let mut inheritance = match &config.upgrade_socket {
            Some(path) => Inheritance::ask(path).await?,
            None => Inheritance::default(),
        };
        let mut legacy = Vec::new();
        let mut open = |address: &SocketAddr| -> Result<TcpListener, RunError> {
            let inherited = inheritance.take(*address);
            let socket = inherited.map_or_else(|| listener::bind(*address), Ok)?;
            if config.upgrade_socket.is_some() {
                legacy.push(socket.as_fd().try_clone_to_owned().map_err(RunError::Copy)?);
            }
            Ok(socket)
        };
        let http = config.http.iter().map(&mut open).collect::<Result<_, _>>()?;
        let https = config.https.iter().map(&mut open).collect::<Result<_, _>>()?;
        let status = open(&config.status)?;
        Ok(Sockets { http, https, status, inheritance, legacy })
    }
}

/// Lets the process before this one end, and is ready for the one after it.
async fn succeed(
    path: Option<&Path>,
    inheritance: Inheritance,
    legacy: Vec<OwnedFd>,
) -> Option<Succession> {
    let path = path?;
    if let Err(error) = inheritance.complete(path).await {
        tracing::warn!("{error}");
    }
    match Succession::open(path, legacy) {
        Ok(succession) => Some(succession),
        Err(error) => {
            tracing::error!("this process cannot be upgraded in place: {error}");
            None
        }
    }
}

async fn taken_over(succession: Option<Succession>) -> Successor {
    match succession {
        Some(succession) => succession.taken_over().await,
        None => std::future::pending().await,
    }
}

async fn wait_until_ready(ready: Arc<AtomicBool>) {
    while !ready.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn drain_timeout(edge: &Edge) -> Duration {
    edge.snapshot.load().options.connections.drain_timeout
}

/// Who this is in metrics: what the pod's environment says, as ingress-nginx reads it.
fn identity(config: &Config) -> Identity {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    Identity {
        class: config.controller_classes.first().cloned().unwrap_or_default(),
        namespace: variable("POD_NAMESPACE"),
        pod: variable("POD_NAME"),
    }
}

fn key(pair: &(String, String)) -> ObjectKey {
    ObjectKey::new(&pair.0, &pair.1)
}

fn policy(config: &Config) -> Result<Policy, CertificateError> {
    Ok(Policy {
        classes: ClassSelection {
            controllers: config.controller_classes.clone(),
            names: config.ingress_classes.clone(),
            without_class: config.without_class,
            by_name: config.class_by_name,
            no_catch_all: config.no_catch_all,
        },
        defaults: Settings {
            redirects: Redirects { to_https: config.ssl_redirect, ..Redirects::default() },
            limits: Limits::of_bodies(config.body_size_max),
            ..Settings::default()
        },
        options: Arc::new(options(config)),
        named_config_maps: config.config_map.iter().map(key).collect(),
        option_problems: Vec::new(),
        no_external_names: config.no_external_names,
        default_backend: config.default_backend_service.as_ref().map(key),
        default_certificate: config.default_ssl_certificate.as_ref().map(key),
        fake_certificate: Arc::new(Certificate::fake()?),
        zones: Arc::default(),
        ssl_passthrough: config.ssl_passthrough,
    })
}

/// What flags say about the whole controller.
fn options(config: &Config) -> Options {
    let defaults = Options::default();
    let proxies = Some(config.proxies.clone()).filter(|proxies| !proxies.is_empty());
    Options {
        forwarded: ForwardedOptions {
            trusted: config.forwarded_headers,
            proxies: proxies.unwrap_or(defaults.forwarded.proxies),
            ..defaults.forwarded
        },
        connections: ConnectionOptions {
            proxy_protocol: config.proxy_protocol,
            header_timeout: config.header_timeout,
            drain_timeout: config.drain_timeout,
            ..defaults.connections
        },
        access_log: AccessLogOptions {
            enabled: config.access_log != AccessLogFormat::Off,
            ..match config.access_log {
                AccessLogFormat::Json => AccessLogOptions {
                    format: Arc::new(LogFormat::json()),
                    escape: LogEscape::Json,
                    ..defaults.access_log
                },
                AccessLogFormat::Off | AccessLogFormat::Nginx => defaults.access_log,
            }
        },
        ..defaults
    }
}

/// What connections of clients need.
fn edge(
    config: &Config,
    snapshot: &Arc<ArcSwap<Snapshot>>,
    metrics: &Arc<Metrics>,
    access_log: AccessLog,
) -> Result<Arc<Edge>, RunError> {
    let proxy = Arc::new(proxy(config, snapshot.clone(), metrics.clone(), access_log)?);
    let conf = ServerConf {
        upstream_keepalive_pool_size: config.upstream_keepalive_connections,
        ..ServerConf::default()
    };
    let pingora = Arc::new(http_proxy(&Arc::new(conf), PingoraProxy(proxy.clone())));
    Ok(Arc::new(Edge {
        snapshot: snapshot.clone(),
        app: Arc::new(App::new(pingora, snapshot.clone())),
        fast_path: FastPath::new(proxy, config.upstream_keepalive_connections),
        tls: TlsContext::new(SnapshotResolver(snapshot.clone()))?,
        metrics: metrics.clone(),
        room: Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS))),
    }))
}

fn proxy(
    config: &Config,
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
) -> Result<IngressProxy, RunError> {
    Ok(IngressProxy {
        snapshot,
        https_redirect_port: config.https_redirect_port,
        https_port: config.https.first().map(SocketAddr::port),
        metrics,
        access_log,
        http_client: HttpClient::new()?,
        passwords: Verifier::new().map_err(|_| RunError::Random)?,
        authority_answers: AnswersCache::new(),
        mirrors: Mirrors::default(),
    })
}

fn start_controller(
    config: &Config,
    policy: Policy,
    snapshot: Arc<ArcSwap<Snapshot>>,
    ready: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
) -> Option<Reporting> {
    let (changes, queue) = mpsc::channel(1024);
    let (api, reporting, desk) = match &config.source {
        Source::Api(client, namespace) => {
            let api = ApiSource::start(client.clone(), namespace.clone(), changes);
            let (reporting, desk) = Reporting::start(config, client, &metrics);
            (Some(api), Some(reporting), Some(desk))
        }
        Source::Manifests(folder) => {
            tokio::spawn(files::watch(folder.clone(), changes));
            (None, None, None)
        }
    };
    let options = config.config_map.as_ref().map(|pair| ConfigMapOptions::new(key(pair), &policy));
    let controller = Controller {
        index: Index::new(policy),
        options,
        snapshot,
        ready,
        metrics,
        reporter: Reporter::new(desk),
        api,
        publish_service: config.reporting.publish_service.as_ref().map(key),
    };
    tokio::spawn(controller.run(queue));
    reporting
}
