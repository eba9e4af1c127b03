//! `podium-proxy`: command line and wiring only.

use std::{
    io::IsTerminal as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use kube::config::{KubeConfigOptions, Kubeconfig};
use podium_proxy::{
    datapath::{
        Datapath as _,
        config::{Forwarding, ForwardingMode, NodePortRange},
        kernel,
        pins::PinDir,
    },
    devices::{self, DeviceOptions},
    index::{
        Index,
        local_node::{NodePortAddresses, NodeSettings},
    },
    kube_proxy::{self, Takeover},
    metrics::Metrics,
    monitor::{self, MonitorArgs},
    plan::held::{Held, Limits},
    preflight,
    reconcile::Reconciler,
    serve::{self, Health},
    sockets::Follower,
    source::{self, Source},
    status, trace,
};
use podium_proxy_ebpf::maps;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// The machine lacks something, or the command line is wrong.
const EXIT_USAGE: u8 = 2;

/// Service load balancer of a Kubernetes node, in eBPF.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Balance services on this node until stopped; what is in the kernel then stays.
    Run(Box<RunArgs>),
    /// Show what the kernel holds: services, endpoints, hits.
    Status {
        #[command(flatten)]
        pins: PinArgs,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Say what a connection or a packet would get, and why.
    Trace {
        /// ADDRESS:PORT, with /udp or /sctp for these.
        target: trace::Target,
        /// Where it comes from.
        #[arg(long, value_name = "ADDRESS:PORT")]
        from: Option<SocketAddr>,
        /// How it comes to this node.
        #[arg(long, value_enum, default_value_t)]
        via: trace::Via,
        #[command(flatten)]
        pins: PinArgs,
    },
    /// Show decisions of the kernel programs as they are made.
    Monitor {
        #[command(flatten)]
        args: MonitorArgs,
        #[command(flatten)]
        pins: PinArgs,
    },
    /// Remove links, programs and maps from the kernel.
    Cleanup {
        #[command(flatten)]
        pins: PinArgs,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct PinArgs {
    /// Folder on a bpffs for links and maps.
    #[arg(long, default_value = "/sys/fs/bpf/podium")]
    pin_dir: PathBuf,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Take objects from the API this file leads to; without it and --manifests: in-cluster.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Take objects from the YAML files of this folder instead, and follow their changes.
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Name of this node, for policies that want endpoints of the node [default: host name].
    #[arg(long, env = "NODE_NAME")]
    node_name: Option<String>,
    /// Where node ports are served: the word primary (the node's InternalIP of each family), or
    /// blocks of addresses, separated by commas.
    #[arg(long, value_name = "CIDRS", default_value = "primary")]
    nodeport_addresses: NodePortAddresses,
    /// Primary address of this node; once for each family. Counts where its Node object names none
    /// [default: of the device with the default route].
    #[arg(long, value_name = "IP", env = "NODE_IP", value_delimiter = ',')]
    node_ip: Vec<IpAddr>,
    /// Blocks that ClusterIPs are allocated from, for clusters without ServiceCIDR objects;
    /// traffic to addresses in there that no Service has is dropped.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    service_cidrs: Vec<IpNet>,
    /// Cgroup (v2) that holds all pods [default: root of the cgroup v2 mount].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    pins: PinArgs,
    /// Where /healthz and /livez answer.
    #[arg(long, default_value = "0.0.0.0:10256")]
    healthz_bind_address: SocketAddr,
    /// Where /metrics answers.
    #[arg(long, default_value = "127.0.0.1:10249")]
    metrics_bind_address: SocketAddr,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    devices: DeviceOptions,
    /// How traffic from outside reaches endpoints on other nodes: with this node's address as its
    /// source (snat), or with the client's, so that answers go straight to the client (dsr).
    #[arg(long, value_enum, default_value_t)]
    forwarding_mode: ForwardingMode,
    /// Ports that node ports are allocated from, as the API server knows them: kept free of
    /// rewritten sources.
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767")]
    service_node_port_range: NodePortRange,
    /// Seconds between two looks for flows that are over.
    #[arg(long, hide = true, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    flow_collect_interval: u64,
    /// Run although there are rules of kube-proxy on this node, and leave them alone.
    #[arg(long, conflicts_with = "takeover")]
    allow_kube_proxy: bool,
    /// Remove kube-proxy's rules from this node as soon as services are balanced. Stop it before.
    #[arg(long)]
    takeover: bool,
}

/// Sizes of the maps. Changed ones take effect at the next start, without breaking a flow.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes")]
struct LimitArgs {
    /// Services map: one entry for each address, port and protocol, and each ClusterIP. 40
    /// bytes each and 24 a CPU, 128 more while in use; and 256 for each service port.
    #[arg(long, default_value_t = maps::SERVICES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_services: u32,
    /// Endpoints array: lists in use, and those that were just replaced. 24 bytes each.
    #[arg(long, default_value_t = maps::ENDPOINTS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_endpoints: u32,
    /// Tables for the consistent choice, in blocks of 8 bytes: 1,024 for each service port that is
    /// reached from outside and has 2 to 400 endpoints, 16,381 for one that has more.
    #[arg(long, default_value_t = maps::MAGLEV_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_maglev_blocks: u32,
    /// Source ranges: one for each loadBalancerSourceRanges element and service port. 64 to
    /// 128 bytes each while in use.
    #[arg(long, default_value_t = maps::SOURCE_RANGES_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_source_ranges: u32,
    /// Clients whose endpoint is remembered: one for each client of a Service with session
    /// affinity, and for each unconnected UDP socket and Service. 120 bytes each, at once.
    #[arg(long, default_value_t = maps::AFFINITY_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_affinity: u32,
    /// Sockets whose service address is remembered: one for each socket of a pod or the host and
    /// endpoint it was sent to. 120 bytes each, at once.
    #[arg(long, default_value_t = maps::SOCKET_PEERS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_socket_peers: u32,
    /// Translations of packets: two for each flow from outside or of a pod without sockets here,
    /// four where the source is rewritten for a pod of this node. 160 bytes each, at once.
    #[arg(long, default_value_t = maps::FLOWS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..))]
    max_flows: u32,
}

impl LimitArgs {
    const fn limits(&self) -> Limits {
        Limits {
            services: self.max_services,
            endpoints: self.max_endpoints,
            maglev: self.max_maglev_blocks,
            source_ranges: self.max_source_ranges,
            affinity: self.max_affinity,
            socket_peers: self.max_socket_peers,
            flows: self.max_flows,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let result = match cli.command {
        Command::Run(args) => run(&args),
        Command::Status { pins, output } => show_status(&pins, output),
        Command::Trace { target, from, via, pins } => {
            show_trace(&pins, trace::Query { target, from, via })
        }
        Command::Monitor { args, pins } => {
            monitor::run(&PinDir::new(&pins.pin_dir), &args).map_err(Into::into)
        }
        Command::Cleanup { pins } => cleanup(&pins),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podium-proxy: {error:#}");
            let lacking = error.is::<preflight::Lack>() || error.is::<kube_proxy::Refusal>();
            if lacking { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(args: &RunArgs) -> Result<()> {
    preflight::check_kernel()?;
    let cgroup = preflight::cgroup(args.cgroup.as_deref())?;
    preflight::pin_dir(&args.pins.pin_dir)?;
    if !args.allow_kube_proxy && !args.takeover {
        kube_proxy::refuse()?;
    }
    let node_name = node_name(args)?;
    for sysctl in preflight::forwarding_off() {
        warn!("{sysctl} is 0: packets from outside to pods of this node will not get there");
    }
    let pins = PinDir::new(&args.pins.pin_dir);
    let (programs, mut datapath) = kernel::load(&pins, args.limits.limits())?;
    datapath.set_forwarding(&Forwarding {
        mode: args.forwarding_mode,
        node_ports: args.service_node_port_range.clone(),
    })?;
    let collector = datapath.collector()?;
    let sockets = Follower::start(pins, cgroup.clone()).context("cannot start a thread")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let metrics = Metrics::new().context("cannot set up metrics")?;
        metrics.show(sockets.destroyed.clone()).context("cannot set up metrics")?;
        let takeover = if args.takeover { Some(takeover(&metrics)?) } else { None };
        let health = Health::default();
        let datapath = Arc::new(Mutex::new(datapath));
        metrics.count_from(Arc::clone(&datapath) as _);
        serve(args, &health, &metrics).await?;
        tokio::spawn(collector.run(Duration::from_secs(args.flow_collect_interval)));
        let source = open_source(args, node_name).await?;
        let node_settings = NodeSettings {
            nodeport_addresses: args.nodeport_addresses.clone(),
            node_ips: args.node_ip.clone(),
            service_cidrs: args.service_cidrs.clone(),
        };
        let reconciler = Reconciler {
            index: Index::default(),
            datapath,
            programs,
            cgroup,
            devices: args.devices.clone(),
            health,
            metrics,
            node_settings,
            sockets,
            takeover,
        };
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        tokio::select! {
            result = reconciler.run(source) => result.context("cannot balance services"),
            _ = terminate.recv() => stopped(),
            _ = tokio::signal::ctrl_c() => stopped(),
        }
    })
}

fn node_name(args: &RunArgs) -> Result<String> {
    if let Some(name) = &args.node_name {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context("cannot read the host name; give --node-name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

async fn serve(args: &RunArgs, health: &Health, metrics: &Metrics) -> Result<()> {
    let routes = serve::health_routes(health.clone(), metrics.clone());
    serve::serve(args.healthz_bind_address, routes)
        .await
        .with_context(|| format!("cannot serve healthz on {}", args.healthz_bind_address))?;
    let routes = serve::metrics_routes(health.clone(), metrics.clone());
    serve::serve(args.metrics_bind_address, routes)
        .await
        .with_context(|| format!("cannot serve metrics on {}", args.metrics_bind_address))
}

fn takeover(metrics: &Metrics) -> Result<Takeover> {
    let takeover = Takeover::new().context("cannot set up metrics")?;
    metrics.show(takeover.remaining.clone()).context("cannot set up metrics")?;
    Ok(takeover)
}

#[expect(clippy::unnecessary_wraps, reason = "one of the ways `run` ends, all of one type")]
fn stopped() -> Result<()> {
    info!("stopped; services stay balanced as they are (`podium-proxy cleanup` removes that)");
    Ok(())
}

async fn open_source(args: &RunArgs, node_name: String) -> Result<Source> {
    if let Some(folder) = &args.manifests {
        return source::manifests::follow(folder.clone(), node_name)
            .with_context(|| format!("cannot follow --manifests {}", folder.display()));
    }
    let config = match &args.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read --kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use --kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("not in a cluster: give --kubeconfig FILE or --manifests DIR")?,
    };
    let client = kube::Client::try_from(config).context("cannot set up the API client")?;
    Ok(source::api::watch(client, Some(&node_name)))
}

fn show_status(pins: &PinArgs, output: Output) -> Result<()> {
    let status = status::read(&PinDir::new(&pins.pin_dir))?;
    match output {
        Output::Table => print!("{status}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(())
}

fn show_trace(pins: &PinArgs, query: trace::Query) -> Result<()> {
    let datapath = kernel::KernelDatapath::open_current(&PinDir::new(&pins.pin_dir))?;
    let snapshot = datapath.snapshot()?;
    let held = Held::rebuild(&snapshot, datapath.limits());
    print!("{}", trace::trace(&snapshot, &held, &datapath.config()?, query));
    Ok(())
}

fn cleanup(pins: &PinArgs) -> Result<()> {
    let pin_dir = PinDir::new(&pins.pin_dir);
    let on_devices = devices::cleanup(&pin_dir.links())?;
    let found = pin_dir.remove_all()? || on_devices;
    let pin_dir = pins.pin_dir.display();
    if found {
        println!("removed what was pinned under {pin_dir}");
    } else {
        println!("nothing was pinned under {pin_dir}");
    }
    Ok(())
}
