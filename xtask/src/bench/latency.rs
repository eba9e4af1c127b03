//! Latency of exchanges: to an endpoint directly, and through services in every way there is to balance
//! them, for few and for many services. Contenders take turns: a round is short, and its order is another
//! one each time, so that what disturbs the machine for a moment disturbs all of them alike.

mod check;
mod summary;

use std::net::Ipv4Addr;

use anyhow::Context;
use serde_json::Value;

use crate::bench::report::Report;
use crate::bench::site::{
    Contender, ENDPOINT_PORT, ENDPOINTS, From, NODE, Site, endpoint, endpoint_elsewhere, targets,
};
use crate::bench::stats::Rounds;
use crate::bench::workload::{SERVICE_PORT, Workload};
use crate::bench::{Bench, Progress};

/// Percentiles that are reported.
const PERCENTILES: [&str; 4] = ["p50", "p90", "p99", "p99.9"];

/// One way from a client to an endpoint.
struct Way {
    name: &'static str,
    group: Group,
    site: usize,
    from: From,
    to: To,
}

/// What is compared with what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Services, from pods.
    Inside,
    /// Node ports, from beyond the nodes.
    Outside,
    /// Traffic for no service, beside somebody who balances services.
    Beside,
}

/// What a client connects to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Endpoints,
    EndpointsElsewhere,
    ClusterIp,
    NodePort,
}

const SITES: [(&str, Contender); 8] = [
    ("direct", Contender::Direct),
    ("again", Contender::Direct),
    ("podium", Contender::Podium(&[])),
    ("few", Contender::Podium(&[])),
    ("xdp", Contender::Podium(&["--xdp", "native"])),
    ("dsr", Contender::Podium(&["--forwarding-mode", "dsr"])),
    ("iptables", Contender::Iptables),
    ("nftables", Contender::Nftables),
];

/// The site that has one service however many the others have.
const FEW: usize = 3;

const fn way(name: &'static str, group: Group, site: usize, from: From, to: To) -> Way {
    Way { name, group, site, from, to }
}

const DIRECT: &str = "direct";
const AGAIN: &str = "direct, a second time";
const SOCKETS: &str = "podium, sockets";
const SOCKETS_FEW: &str = "podium, sockets, 1 service";
const PACKETS: &str = "podium, by packet";
const IPTABLES: &str = "iptables";
const NFTABLES: &str = "nftables";
const OUTSIDE: &str = "direct, from outside";

const WAYS: [Way; 16] = [
    way(DIRECT, Group::Inside, 0, From::Pod, To::Endpoints),
    way(SOCKETS, Group::Inside, 2, From::Pod, To::ClusterIp),
    way(IPTABLES, Group::Inside, 6, From::Pod, To::ClusterIp),
    way(NFTABLES, Group::Inside, 7, From::Pod, To::ClusterIp),
    way(PACKETS, Group::Inside, 2, From::VmLikePod, To::ClusterIp),
    way(AGAIN, Group::Inside, 1, From::Pod, To::Endpoints),
    way(SOCKETS_FEW, Group::Inside, FEW, From::Pod, To::ClusterIp),
    way(OUTSIDE, Group::Outside, 0, From::Outside, To::EndpointsElsewhere),
    way("podium, node port, tcx", Group::Outside, 2, From::Outside, To::NodePort),
    way("podium, node port, XDP", Group::Outside, 4, From::Outside, To::NodePort),
    way("podium, node port, DSR", Group::Outside, 5, From::Outside, To::NodePort),
    way("iptables, node port", Group::Outside, 6, From::Outside, To::NodePort),
    way("nftables, node port", Group::Outside, 7, From::Outside, To::NodePort),
    way("beside podium", Group::Beside, 2, From::Pod, To::Endpoints),
    way("beside iptables", Group::Beside, 6, From::Pod, To::Endpoints),
    way("beside nftables", Group::Beside, 7, From::Pod, To::Endpoints),
];

/// Steps from one way to the next in a round: no divisor in common with their number.
const STRIDES: [usize; 4] = [1, 5, 11, 15];

const EXCHANGES: [(&str, &str); 3] = [
    ("tcp-fresh", "fresh TCP connection with one request"),
    ("tcp-kept", "request on a kept TCP connection"),
    ("udp", "datagram and its answer"),
];

/// What was measured of one way at one size.
struct Measured {
    way: usize,
    services: usize,
    exchange: usize,
    /// By percentile.
    ns: [Rounds; PERCENTILES.len()],
    /// Exchanges a second, one after the other.
    rate: Rounds,
    /// Time of the client's processor for an exchange: its own, and the kernel's on its behalf.
    cpu_ns: Rounds,
    /// Exchanges that failed; their time is in no other figure.
    failed: Rounds,
}

/// How much is measured.
struct Scale {
    /// Numbers of services.
    sizes: Vec<usize>,
    /// For each kind of exchange; the first one is what promises are about.
    rounds: [usize; EXCHANGES.len()],
    /// Exchanges of a turn.
    count: u64,
}

impl Scale {
    fn new(quick: bool) -> Scale {
        if quick {
            return Scale { sizes: vec![1, 500], rounds: [7, 5, 5], count: 60 };
        }
        Scale { sizes: vec![1, 100, 1_000, 10_000], rounds: [21, 7, 7], count: 400 }
    }
}

/// Measures, and adds what it found to the report.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let scale = Scale::new(bench.quick);
    let mut sites = Vec::new();
    for (name, contender) in SITES {
        sites.push(Site::create(&bench.workdir, &bench.binaries, name, contender)?);
    }
    let mut measured = Vec::new();
    let turns = scale.sizes.len() * scale.rounds.iter().sum::<usize>() * WAYS.len();
    let mut progress = Progress::new("latency", turns);
    for &services in &scale.sizes {
        let workload = workload(services);
        balance(bench, &mut sites, &workload)?;
        check::ways(bench, &sites, &workload)?;
        for exchange in 0..EXCHANGES.len() {
            let run = Run { bench, sites: &sites, workload: &workload, exchange, scale: &scale };
            measured.extend(run.rounds(&mut progress)?);
        }
    }
    summary::add(&measured, &scale, report);
    Ok(())
}

fn workload(services: usize) -> Workload {
    Workload {
        services,
        endpoints: (1..=ENDPOINTS).map(endpoint).collect(),
        endpoints_elsewhere: (1..=ENDPOINTS).map(endpoint_elsewhere).collect(),
        port: ENDPOINT_PORT,
    }
}

fn balance(bench: &Bench, sites: &mut [Site], many: &Workload) -> anyhow::Result<()> {
    for (number, site) in sites.iter_mut().enumerate() {
        if number == FEW {
            site.balance(&bench.workdir, &bench.binaries, &workload(1))?;
        } else {
            site.balance(&bench.workdir, &bench.binaries, many)?;
        }
    }
    sites.iter_mut().try_for_each(Site::wait)
}

/// Where a way leads.
fn destination(way: &Way, many: &Workload) -> String {
    let few = workload(1);
    let workload = if way.site == FEW { &few } else { many };
    let all = |address: fn(u8) -> Ipv4Addr| targets((1..=ENDPOINTS).map(address), ENDPOINT_PORT);
    // As many kept connections and datagram sockets as there are endpoints, whoever chooses these.
    let each = |address, port| targets((1..=ENDPOINTS).map(|_| address), port);
    match way.to {
        To::Endpoints => all(endpoint),
        To::EndpointsElsewhere => all(endpoint_elsewhere),
        To::ClusterIp => each(Workload::cluster_ip(workload.measured()), SERVICE_PORT),
        To::NodePort => each(NODE, workload.outside_port()),
    }
}

/// All rounds of one kind of exchange at one size.
struct Run<'a> {
    bench: &'a Bench<'a>,
    sites: &'a [Site],
    workload: &'a Workload,
    exchange: usize,
    scale: &'a Scale,
}

impl Run<'_> {
    fn rounds(&self, progress: &mut Progress) -> anyhow::Result<Vec<Measured>> {
        let of = |way| Measured {
            way,
            services: self.workload.services,
            exchange: self.exchange,
            ns: Default::default(),
            rate: Rounds::default(),
            cpu_ns: Rounds::default(),
            failed: Rounds::default(),
        };
        let mut measured: Vec<Measured> = (0..WAYS.len()).map(of).collect();
        for round in 0..self.scale.rounds[self.exchange] {
            for turn in 0..WAYS.len() {
                let at = (round * 3 + turn * STRIDES[round % STRIDES.len()]) % WAYS.len();
                measured[at].take(&self.turn(&WAYS[at])?);
                progress.step();
            }
        }
        Ok(measured)
    }

    fn turn(&self, way: &Way) -> anyhow::Result<Value> {
        let to = destination(way, self.workload);
        // Every kept connection is made, and answered once, before the time counts.
        let warmup = (self.scale.count / 10).max(u64::from(ENDPOINTS)).to_string();
        let count = self.scale.count.to_string();
        let (action, _) = EXCHANGES[self.exchange];
        let args = [action, "--to", &to, "--count", &count, "--warmup", &warmup];
        let seen = self.sites[way.site].ask(&self.bench.binaries, way.from, &args);
        seen.with_context(|| format!("{} services, {}", self.workload.services, way.name))
    }
}

impl Measured {
    fn take(&mut self, seen: &Value) {
        for (rounds, percentile) in self.ns.iter_mut().zip(PERCENTILES) {
            rounds.push(seen["ns"][percentile].as_f64().unwrap_or(f64::NAN));
        }
        let figure = |name: &str| seen[name].as_f64().unwrap_or(f64::NAN);
        self.rate.push(figure("count") / figure("seconds"));
        self.cpu_ns.push(figure("cpuNs") / figure("count"));
        self.failed.push(figure("failed"));
    }

    fn p50(&self) -> &Rounds {
        &self.ns[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_way_once() {
        for stride in STRIDES {
            let mut seen: Vec<usize> =
                (0..WAYS.len()).map(|turn| turn * stride % WAYS.len()).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..WAYS.len()).collect::<Vec<_>>(), "{stride}");
        }
    }
}
