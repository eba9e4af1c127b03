//! Latency of exchanges: to an endpoint directly, and through services in every way there is to balance
//! them, for few and for many services. Contenders take turns within each round.

use podium_tests::binaries::Binaries;
use serde_json::{Value, json};

use crate::bench::report::{Figure, Promise, Report, Series};
use crate::bench::site::{Contender, ENDPOINT_PORT, ENDPOINTS, NODE, Site, endpoint};
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};
use crate::bench::workload::{SERVICE_PORT, Workload};
use crate::bench::{Bench, Progress};

/// Percentiles that are reported.
const PERCENTILES: [&str; 4] = ["p50", "p90", "p99", "p99.9"];
/// Rounds that differ by more than this share of their median tell nothing near a bar.
const SPREAD_MAX: f64 = 0.10;

/// One way from a client to an endpoint.
struct Way {
    name: &'static str,
    site: usize,
    from: From,
    to: To,
}

/// Where the client runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Node,
    Client,
}

/// What it connects to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Endpoints,
    ClusterIp,
    NodePort,
}

const SITES: [(&str, Contender); 5] = [
    ("direct", Contender::Direct),
    ("podium", Contender::Podium(&[])),
    ("xdp", Contender::Podium(&["--xdp", "native"])),
    ("iptables", Contender::Iptables),
    ("nftables", Contender::Nftables),
];

const WAYS: [Way; 10] = [
    Way { name: "direct", site: 0, from: From::Node, to: To::Endpoints },
    Way { name: "podium, sockets", site: 1, from: From::Node, to: To::ClusterIp },
    Way { name: "iptables", site: 3, from: From::Node, to: To::ClusterIp },
    Way { name: "nftables", site: 4, from: From::Node, to: To::ClusterIp },
    Way { name: "direct, from outside", site: 0, from: From::Client, to: To::Endpoints },
    Way { name: "podium, node port, tcx", site: 1, from: From::Client, to: To::NodePort },
    Way { name: "podium, node port, XDP and tcx", site: 2, from: From::Client, to: To::NodePort },
    Way { name: "podium, cluster IP by packet", site: 1, from: From::Client, to: To::ClusterIp },
    Way { name: "iptables, node port", site: 3, from: From::Client, to: To::NodePort },
    Way { name: "nftables, node port", site: 4, from: From::Client, to: To::NodePort },
];

const EXCHANGES: [(&str, &str); 3] = [
    ("tcp-fresh", "a connection with one request"),
    ("tcp-kept", "a request on a kept connection"),
    ("udp", "a datagram and its answer"),
];

/// What was measured of one way at one size.
struct Measured {
    way: usize,
    services: usize,
    exchange: usize,
    /// By percentile.
    ns: [Rounds; PERCENTILES.len()],
}

/// How much is measured.
struct Scale {
    /// Numbers of services.
    sizes: Vec<usize>,
    rounds: usize,
    /// Exchanges of a run.
    count: u64,
}

impl Scale {
    fn new(quick: bool) -> Scale {
        if quick {
            return Scale { sizes: vec![1, 200], rounds: ROUNDS_MIN, count: 100 };
        }
        Scale { sizes: vec![1, 100, 1_000, 10_000], rounds: 7, count: 2_000 }
    }
}

/// Measures, and adds what it found to the report.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let Bench { workdir, binaries, .. } = bench;
    let scale = &Scale::new(bench.quick);
    let mut sites = Vec::new();
    for (name, contender) in SITES {
        sites.push(Site::create(workdir, binaries, name, contender)?);
    }
    let mut measured: Vec<Measured> = Vec::new();
    let rounds_in_all = scale.sizes.len() * EXCHANGES.len() * scale.rounds * WAYS.len();
    let mut progress = Progress::new("latency", rounds_in_all);
    for &services in &scale.sizes {
        let endpoints = (1..=ENDPOINTS).map(endpoint).collect();
        let workload = Workload { services, endpoints, port: ENDPOINT_PORT };
        for site in &mut sites {
            site.balance(workdir, binaries, &workload)?;
        }
        for (exchange, (action, _)) in EXCHANGES.iter().enumerate() {
            let first = measured.len();
            measured.extend((0..WAYS.len()).map(|way| Measured {
                way,
                services,
                exchange,
                ns: Default::default(),
            }));
            for _ in 0..scale.rounds {
                for (at, way) in WAYS.iter().enumerate() {
                    let seen = ask(&sites[way.site], binaries, way, &workload, action, scale)?;
                    measured[first + at].take(&seen);
                    progress.step();
                }
            }
        }
    }
    summarise(&measured, scale, report);
    Ok(())
}

impl Measured {
    fn take(&mut self, seen: &Value) {
        for (rounds, percentile) in self.ns.iter_mut().zip(PERCENTILES) {
            rounds.push(seen["ns"][percentile].as_f64().unwrap_or(f64::NAN));
        }
    }

    fn p50(&self) -> &Rounds {
        &self.ns[0]
    }
}

fn ask(
    site: &Site,
    binaries: &Binaries,
    way: &Way,
    workload: &Workload,
    action: &str,
    scale: &Scale,
) -> anyhow::Result<Value> {
    let to = match way.to {
        To::Endpoints => {
            let all = (1..=ENDPOINTS).map(|number| format!("{}:{ENDPOINT_PORT}", endpoint(number)));
            all.collect::<Vec<_>>().join(",")
        }
        To::ClusterIp => format!("{}:{SERVICE_PORT}", Workload::cluster_ip(workload.measured())),
        To::NodePort => {
            let port = Workload::node_port(workload.measured_node_port()).unwrap_or_default();
            format!("{NODE}:{port}")
        }
    };
    let (count, warmup) = (scale.count.to_string(), (scale.count / 10).to_string());
    let args = [action, "--to", &to, "--count", &count, "--warmup", &warmup];
    match way.from {
        From::Node => site.on_node(binaries, &args),
        From::Client => site.on_client(binaries, &args),
    }
}

fn summarise(measured: &[Measured], scale: &Scale, report: &mut Report) {
    for (exchange, (_, title)) in EXCHANGES.iter().enumerate() {
        let of = |way: usize, services: usize| {
            measured
                .iter()
                .find(|one| one.way == way && one.services == services && one.exchange == exchange)
        };
        for one in measured.iter().filter(|one| one.exchange == exchange) {
            let way = &WAYS[one.way];
            let baseline = if way.from == From::Node { 0 } else { 4 };
            let Some(direct) = of(baseline, one.services) else { continue };
            report.figure(Figure {
                part: "latency",
                what: format!("{title}, {} services", one.services),
                contender: way.name.to_owned(),
                unit: "ns",
                value: one.p50().clone(),
                ratio: Some(("direct", one.p50().over(direct.p50()))),
                more: json!({
                    "p90": one.ns[1].to_json(),
                    "p99": one.ns[2].to_json(),
                    "p99.9": one.ns[3].to_json(),
                }),
            });
        }
        let line = |way: usize| Series {
            name: WAYS[way].name.to_owned(),
            points: scale
                .sizes
                .iter()
                .filter_map(|&services| {
                    #[expect(clippy::cast_precision_loss, reason = "services are few")]
                    Some((services as f64, of(way, services)?.p50().median() / 1000.0))
                })
                .collect(),
        };
        report.plot(
            &format!("latency-{}", EXCHANGES[exchange].0),
            &format!("{title}: median over the number of services"),
            "services",
            "µs",
            (0..WAYS.len()).map(line).collect(),
        );
    }
    bars(measured, scale, report);
}

/// The promises, as ratios of the same rounds.
fn bars(measured: &[Measured], scale: &Scale, report: &mut Report) {
    let fresh = |way: usize, services: usize| {
        measured
            .iter()
            .find(|one| one.way == way && one.services == services && one.exchange == 0)
            .map(Measured::p50)
    };
    let mut compare = |what: String, contender: Option<&Rounds>, baseline, bar| {
        if let (Some(contender), Some(baseline)) = (contender, baseline) {
            let found = contender.over(baseline);
            let bar = Bar::AtMost(bar);
            let spread_max = SPREAD_MAX;
            report.promise(Promise { what, unit: "×", found, bar, spread_max, steady: false });
        }
    };
    for &services in &scale.sizes {
        let podium = fresh(1, services);
        let of = format!("fresh TCP connection and request, p50, {services} services");
        compare(format!("{of}: sockets ÷ direct"), podium, fresh(0, services), 1.03);
        compare(format!("{of}: sockets ÷ nftables"), podium, fresh(3, services), 1.0);
        let against_iptables = if services >= 10_000 { 1.0 / 3.0 } else { 1.0 };
        compare(format!("{of}: sockets ÷ iptables"), podium, fresh(2, services), against_iptables);
    }
    if let (Some(&few), Some(&many)) = (scale.sizes.first(), scale.sizes.last()) {
        let of = format!("fresh TCP connection and request, p50: {many} services ÷ {few}");
        compare(of, fresh(1, many), fresh(1, few), 1.02);
    }
}
