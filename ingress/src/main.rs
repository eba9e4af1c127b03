//! `podium-ingress`: command line and wiring only.

mod checking;
mod flags;

use anyhow::Context;
use checking::CheckArgs;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use podium_ingress::{AccessLogFormat, Config, ReportingConfig, Source, run};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// The watches report their own failures; the client library would say everything a second time.
const DEFAULT_LOG_FILTER: &str = "info,kube_client=off";

/// Ingress controller on pingora: takes Ingress objects written for ingress-nginx as they are.
#[derive(Parser)]
#[command(name = "podium-ingress", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM.
    Run(Box<RunArgs>),
    /// Say what becomes of Ingresses written for ingress-nginx: what works, what differs, what is refused
    /// and what to use instead. Ends with 0 if nothing is refused, 1 if something is, 2 for bad input.
    Check(Box<CheckArgs>),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Off,
    Nginx,
    Json,
}

#[derive(Args)]
#[command(group(ArgGroup::new("source").args(["kubeconfig", "manifests"])))]
struct RunArgs {
    /// Kubeconfig of the cluster; without it and --manifests what kubectl would use, else the cluster
    /// this pod runs in.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Read objects from the YAML and JSON files of a folder instead of a cluster.
    #[arg(long, value_name = "DIR", value_parser = folder)]
    manifests: Option<PathBuf>,
    /// Watch one namespace only.
    #[arg(long, value_name = "NAME")]
    watch_namespace: Option<String>,
    /// Address for HTTP; may be given several times.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:80")]
    http_bind_address: Vec<SocketAddr>,
    /// Address for HTTPS; may be given several times.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:443",
        conflicts_with = "no_https"
    )]
    https_bind_address: Vec<SocketAddr>,
    /// Serve HTTP only; nothing is redirected to https then unless an Ingress forces it.
    #[arg(long)]
    no_https: bool,
    /// Address for /healthz and /metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10254")]
    status_bind_address: SocketAddr,
    /// IngressClasses with this spec.controller are ours; repeat for more (k8s.io/ingress-nginx).
    #[arg(long, value_name = "NAME", default_value = "podium.dev/ingress")]
    controller_class: Vec<String>,
    /// Ingresses with this kubernetes.io/ingress.class annotation are ours; repeat for more (nginx).
    #[arg(long, value_name = "NAME", default_value = "podium")]
    ingress_class: Vec<String>,
    /// Take Ingresses that name no class.
    #[arg(long)]
    watch_ingress_without_class: bool,
    /// An IngressClass called by a name given with --ingress-class is ours whatever its controller.
    #[arg(long)]
    ingress_class_by_name: bool,
    /// Leave out Ingresses with a default backend of their own.
    #[arg(long)]
    disable_catch_all: bool,
    /// Services of type ExternalName have no endpoints.
    #[arg(long)]
    disable_svc_external_name: bool,
    /// ConfigMap with options of the whole controller, as ingress-nginx reads them; what it says wins
    /// over the flags below.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    configmap: Option<(String, String)>,
    /// Service for requests no rule matches; 404 without it.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    default_backend_service: Option<(String, String)>,
    /// Secret with the certificate for hosts without one; a self-signed one without it.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    default_ssl_certificate: Option<(String, String)>,
    /// Honour the annotation ssl-passthrough: TLS connections go to endpoints as they are.
    #[arg(long)]
    enable_ssl_passthrough: bool,
    /// Do not redirect hosts with a certificate to https unless an annotation says so.
    #[arg(long)]
    no_ssl_redirect: bool,
    /// Port to name in redirects to https, where clients reach HTTPS on another port than 443.
    #[arg(long, value_name = "PORT")]
    https_redirect_port: Option<u16>,
    /// Largest request body unless an annotation says otherwise: bytes, or with k, m, g; 0 is unlimited.
    #[arg(long, value_name = "SIZE", default_value = "1m", value_parser = size)]
    proxy_body_size: u64,
    /// Believe X-Forwarded-* headers, and PROXY headers, from these networks; may be given several times.
    #[arg(long, value_name = "CIDR")]
    proxy_real_ip_cidr: Vec<IpNet>,
    /// Believe X-Forwarded-* headers of proxies in front, from --proxy-real-ip-cidr.
    #[arg(long, requires = "proxy_real_ip_cidr")]
    use_forwarded_headers: bool,
    /// Addresses written into the status of Ingresses, separated by commas.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', conflicts_with = "publish_service")]
    publish_status_address: Vec<String>,
    /// Service whose addresses are written into the status of Ingresses.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = namespaced)]
    publish_service: Option<(String, String)>,
    /// Where neither of both is given, addresses of nodes are written: the ones within the cluster even
    /// of nodes that have others.
    #[arg(long)]
    report_node_internal_ip_address: bool,
    /// Leave the status of Ingresses alone.
    #[arg(long)]
    no_update_status: bool,
    /// Leave addresses in statuses when the last replica ends.
    #[arg(long)]
    no_update_status_on_shutdown: bool,
    /// No Event for each Ingress that is taken in.
    #[arg(long)]
    disable_sync_events: bool,
    /// Lease by which replicas agree on who writes statuses; in the namespace of POD_NAMESPACE.
    #[arg(long, value_name = "NAME", default_value = "podium-ingress-leader")]
    election_id: String,
    /// How long the Lease is held without a renewal.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = ttl)]
    election_ttl: Duration,
    /// This is the only replica: write statuses without a Lease.
    #[arg(long)]
    disable_leader_election: bool,
    /// Access log on standard output.
    #[arg(long, value_enum, default_value = "nginx")]
    access_log: LogFormat,
    /// Threads that serve requests; one for each processor by default.
    #[arg(long, value_name = "COUNT")]
    worker_threads: Option<usize>,
    /// Seconds between failing health checks and closing the listeners.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    shutdown_delay: u64,
    /// Seconds that requests in progress and WebSockets get to finish at shutdown.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    drain_timeout: u64,
    /// Seconds a client may take to send the header of a request.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    header_timeout: u64,
    /// Connections of clients, in all; what is more waits until others end.
    #[arg(long, value_name = "COUNT", default_value_t = 65536)]
    max_connections: usize,
    /// Upgrade in place: a new process started with the same path takes over the listening sockets of the
    /// one that runs, which ends when its connections have.
    #[arg(long, value_name = "PATH")]
    upgrade_socket: Option<PathBuf>,
    /// Every connection begins with a PROXY header (version 1 or 2), from a load balancer in front.
    #[arg(long)]
    use_proxy_protocol: bool,
    /// Idle connections kept to endpoints, in all.
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    upstream_keepalive_connections: usize,
}

fn namespaced(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.into(), name.into()))
        }
        _ => Err("want NAMESPACE/NAME".into()),
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(path) } else { Err("not a folder".into()) }
}

fn size(text: &str) -> Result<u64, String> {
    podium_ingress::parse_size(text)
        .ok_or_else(|| "want a number of bytes, or with k, m or g".into())
}

fn ttl(text: &str) -> Result<Duration, String> {
    match podium_ingress::parse_duration(text) {
        Some(ttl) if (1..=3600).contains(&ttl.as_secs()) => Ok(ttl),
        _ => Err("want a duration from 1s to 1h".into()),
    }
}

fn main() -> ExitCode {
    let translated = match flags::translate(std::env::args().skip(1).collect()) {
        Ok(translated) => translated,
        Err(why) => {
            eprintln!("podium-ingress: {why}");
            return ExitCode::from(2);
        }
    };
    let program = std::env::args().next().unwrap_or_default();
    let arguments = std::iter::once(program).chain(translated.arguments);
    let args = match Cli::parse_from(arguments).command {
        Command::Run(args) => args,
        Command::Check(args) => return checking::check(*args),
    };
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    for warning in translated.warnings {
        tracing::warn!("{warning}");
    }
    match serve(*args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podium-ingress: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: RunArgs) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.worker_threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build().context("starting worker threads")?;
    let result = runtime.block_on(async {
        let config = config(args).await?;
        run(config, terminated()?).await.context("running the ingress")
    });
    // Watches and log writers have nothing to finish.
    runtime.shutdown_background();
    result
}

async fn config(args: RunArgs) -> anyhow::Result<Config> {
    let source = match args.manifests {
        Some(folder) => Source::Manifests(folder),
        None => Source::Api(client(args.kubeconfig).await?, args.watch_namespace),
    };
    Ok(Config {
        source,
        http: args.http_bind_address,
        https: if args.no_https { Vec::new() } else { args.https_bind_address },
        status: args.status_bind_address,
        controller_classes: args.controller_class,
        ingress_classes: args.ingress_class,
        without_class: args.watch_ingress_without_class,
        class_by_name: args.ingress_class_by_name,
        no_catch_all: args.disable_catch_all,
        no_external_names: args.disable_svc_external_name,
        config_map: args.configmap,
        default_backend_service: args.default_backend_service,
        default_ssl_certificate: args.default_ssl_certificate,
        ssl_passthrough: args.enable_ssl_passthrough,
        ssl_redirect: !args.no_ssl_redirect,
        https_redirect_port: args.https_redirect_port,
        body_size_max: args.proxy_body_size,
        proxies: args.proxy_real_ip_cidr,
        forwarded_headers: args.use_forwarded_headers,
        reporting: ReportingConfig {
            publish_addresses: args
                .publish_status_address
                .iter()
                .map(|address| address.trim().to_string())
                .collect(),
            publish_service: args.publish_service,
            update_status: !args.no_update_status,
            update_status_on_shutdown: !args.no_update_status_on_shutdown,
            node_internal_addresses: args.report_node_internal_ip_address,
            sync_events: !args.disable_sync_events,
            election_id: args.election_id,
            election_ttl: args.election_ttl,
            no_election: args.disable_leader_election,
        },
        access_log: match args.access_log {
            LogFormat::Off => AccessLogFormat::Off,
            LogFormat::Nginx => AccessLogFormat::Nginx,
            LogFormat::Json => AccessLogFormat::Json,
        },
        shutdown_delay: Duration::from_secs(args.shutdown_delay),
        drain_timeout: Duration::from_secs(args.drain_timeout),
        header_timeout: Duration::from_secs(args.header_timeout),
        connections_max: args.max_connections,
        upgrade_socket: args.upgrade_socket,
        proxy_protocol: args.use_proxy_protocol,
        upstream_keepalive_connections: args.upstream_keepalive_connections,
    })
}

async fn client(kubeconfig: Option<PathBuf>) -> anyhow::Result<kube::Client> {
    let config = match kubeconfig {
        Some(path) => {
            let read = kube::config::Kubeconfig::read_from(&path)
                .with_context(|| format!("reading kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &Default::default())
                .await
                .with_context(|| format!("using kubeconfig {}", path.display()))?
        }
        None => kube::Config::infer().await.context(
            "no --kubeconfig and no --manifests given, and no cluster found without them",
        )?,
    };
    kube::Client::try_from(config).context("setting up the connection to the cluster")
}

/// Completes on SIGTERM or SIGINT.
fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
