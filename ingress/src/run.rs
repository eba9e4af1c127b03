//! Wiring of the running program: sockets, source, controller, proxy, and the orderly end.

mod reporting;

use crate::access_log::AccessLog;
use crate::access_log::format::LogFormat;
use crate::annotations::Settings;
use crate::annotations::limits::Limits;
use crate::annotations::redirects::Redirects;
use crate::balance;
use crate::certificates::{Certificate, CertificateError};
use crate::class::ClassSelection;
use crate::controller::Controller;
use crate::htpasswd::Verifier;
use crate::http_client::HttpClient;
use crate::listener::{self, BindError, Connections};
use crate::metrics::{Identity, Metrics};
use crate::objects::ObjectKey;
use crate::options::config_map::ConfigMapOptions;
use crate::options::{AccessLogOptions, ConnectionOptions, EndpointConnectionOptions};
use crate::options::{ForwardedOptions, LogEscape, Options};
use crate::proxy::{AnswersCache, IngressProxy, Mirrors};
use crate::report::Reporter;
use crate::snapshot::Snapshot;
use crate::source::{api::ApiSource, files};
use crate::status_server::{self, StatusServer};
use crate::translate::{Index, Policy};
use arc_swap::ArcSwap;
use ipnet::IpNet;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use reporting::Reporting;
pub use reporting::ReportingConfig;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, watch};

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
    /// Default limit of request bodies in bytes; 0 is none.
    pub body_size_max: u64,
    /// Networks of proxies whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Events, statuses and the election.
    pub reporting: ReportingConfig,
    /// The access log.
    pub access_log: AccessLogFormat,
    /// From the signal to closing the listeners: health fails, load balancers look elsewhere.
    pub shutdown_delay: Duration,
    /// From then to cutting what is still open.
    pub drain_timeout: Duration,
    /// How long a client may take to send a request's header, waiting for it included.
    pub header_timeout: Duration,
    /// Idle connections kept to endpoints.
    pub upstream_keepalive_connections: usize,
}

/// Why the program cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
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
    let http: Vec<_> =
        config.http.iter().map(|address| listener::bind(*address)).collect::<Result<_, _>>()?;
    let https: Vec<_> =
        config.https.iter().map(|address| listener::bind(*address)).collect::<Result<_, _>>()?;
    let status = listener::bind(config.status)?;
    let acceptor = listener::tls_acceptor(snapshot.clone())?;
    let access_log = AccessLog::stdout().map_err(RunError::AccessLog)?;
    let proxy = proxy(&config, snapshot.clone(), metrics.clone(), access_log.clone())?;
    let proxy = Arc::new(proxy);

    tokio::spawn(balance::names::keep_resolved(snapshot.clone()));
    tokio::spawn(balance::probes::keep_probed(snapshot.clone(), HttpClient::new()?));
    let status_server = StatusServer { ready: ready.clone(), metrics: metrics.clone() };
    tokio::spawn(status_server::serve(status, status_server));
    let reporting = start_controller(&config, policy, snapshot, ready.clone(), metrics);

    // Listeners open before the first snapshot: clients wait in the backlog instead of being refused.
    let (begin_drain, draining) = watch::channel(false);
    let (alive, ended) = mpsc::channel(1);
    let connections =
        Connections { draining, _alive: alive, header_timeout: config.header_timeout };
    let gate = tokio::spawn(wait_until_ready(ready.clone()));
    let mut accepting = tokio::task::JoinSet::new();
    let plain = http.into_iter().map(|listener| (listener, None));
    let secure = https.into_iter().map(|listener| (listener, Some(acceptor.clone())));
    let all: Vec<_> = plain.chain(secure).collect();
    let mut shutdown = std::pin::pin!(shutdown);
    tokio::select! {
        _ = gate => {}
        () = &mut shutdown => return Ok(()),
    }
    for (listener, tls) in all {
        accepting.spawn(listener::serve(listener, tls, proxy.clone(), connections.clone()));
    }
    drop(connections);

    shutdown.await;
    ready.store(false, Ordering::Relaxed);
    // Beside the rest: others need not wait for connections of ours to learn that we go.
    let told = tokio::spawn(async move {
        if let Some(reporting) = reporting {
            reporting.stop().await;
        }
    });
    tracing::info!(delay_s = config.shutdown_delay.as_secs(), "shutting down");
    tokio::time::sleep(config.shutdown_delay).await;
    begin_drain.send_replace(true);
    accepting.join_all().await;
    listener::drain(&proxy, ended, config.drain_timeout).await;
    if let Err(error) = told.await {
        tracing::warn!("telling the cluster: {error}");
    }
    access_log.flush();
    Ok(())
}

async fn wait_until_ready(ready: Arc<AtomicBool>) {
    while !ready.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
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
        },
        defaults: Settings {
            redirects: Redirects { to_https: config.ssl_redirect, ..Redirects::default() },
            limits: Limits::of_bodies(config.body_size_max),
            ..Settings::default()
        },
        options: Arc::new(options(config)),
        named_config_maps: config.config_map.iter().map(key).collect(),
        option_problems: Vec::new(),
        default_backend: config.default_backend_service.as_ref().map(key),
        default_certificate: config.default_ssl_certificate.as_ref().map(key),
        fake_certificate: Arc::new(Certificate::fake()?),
        zones: Arc::default(),
    })
}

/// What flags say about the whole controller.
fn options(config: &Config) -> Options {
    let defaults = Options::default();
    let trusts = !config.trusted_proxies.is_empty();
    Options {
        forwarded: ForwardedOptions {
            trusted: trusts,
            proxies: if trusts {
                config.trusted_proxies.clone()
            } else {
                defaults.forwarded.proxies
            },
            ..defaults.forwarded
        },
        connections: ConnectionOptions {
            header_timeout: config.header_timeout,
            drain_timeout: config.drain_timeout,
            ..defaults.connections
        },
        endpoint_connections: EndpointConnectionOptions {
            idle_max: config.upstream_keepalive_connections,
            ..defaults.endpoint_connections
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

fn proxy(
    config: &Config,
    snapshot: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    access_log: AccessLog,
) -> Result<HttpProxy<IngressProxy>, RunError> {
    let ingress = IngressProxy {
        snapshot,
        https_redirect_port: config.https_redirect_port,
        https_port: config.https.first().map(SocketAddr::port),
        metrics,
        access_log,
        http_client: HttpClient::new()?,
        passwords: Verifier::new().map_err(|_| RunError::Random)?,
        authority_answers: AnswersCache::new(),
        mirrors: Mirrors::default(),
    };
    let conf = ServerConf {
        upstream_keepalive_pool_size: config.upstream_keepalive_connections,
        ..ServerConf::default()
    };
    Ok(http_proxy(&Arc::new(conf), ingress))
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
