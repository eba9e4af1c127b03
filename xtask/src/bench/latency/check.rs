//! Before anything is timed: every way leads to the endpoints it should, to all of them and to no others,
//! and they see the client address that this way shows them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use podium_tests::netns::Netns;
use serde_json::Value;

use super::{SITES, To, WAYS, Way, destination};
use crate::bench::Bench;
use crate::bench::site::{
    CLIENT, Contender, ENDPOINTS, From, NODE, POD, Site, endpoint, endpoint_elsewhere,
};
use crate::bench::workload::Workload;

/// Questions to each of the ten targets of a way.
const QUESTIONS: &str = "8";
/// Fewer of the ten endpoints than this answer 80 questions once in far more than a million runs.
const ENDPOINTS_MIN: usize = 8;

/// Checks all ways.
pub fn ways(bench: &Bench, sites: &[Site], workload: &Workload) -> anyhow::Result<()> {
    for way in &WAYS {
        let site = &sites[way.site];
        let before = sent_by_xdp(site.node())?;
        let args = ["who", "--to", &destination(way, workload), "--count", QUESTIONS];
        let seen = site.ask(&bench.binaries, way.from, &args);
        let seen = seen.and_then(|seen| answers(way, &seen));
        seen.with_context(|| format!("{} services, {}", workload.services, way.name))?;
        let uses_xdp =
            matches!(SITES[way.site].1, Contender::Podium(flags) if flags.contains(&"--xdp"));
        let sent = sent_by_xdp(site.node())? - before;
        ensure!(!uses_xdp || sent > 0, "{}: no packet was sent by XDP", way.name);
    }
    Ok(())
}

fn answers(way: &Way, seen: &Value) -> anyhow::Result<()> {
    let address: fn(u8) -> Ipv4Addr = match way.to {
        To::Endpoints | To::ClusterIp => endpoint,
        To::EndpointsElsewhere | To::NodePort => endpoint_elsewhere,
    };
    let client = shown(way);
    let expected: BTreeSet<String> =
        (1..=ENDPOINTS).map(|number| format!("{} {client}", address(number))).collect();
    for protocol in ["tcp", "udp"] {
        let answers = seen[protocol].as_object().with_context(|| format!("{seen}"))?;
        let strange: Vec<&String> =
            answers.keys().filter(|answer| !expected.contains(*answer)).collect();
        ensure!(strange.is_empty(), "{protocol}: answers of {strange:?}, not of {expected:?}");
        ensure!(
            answers.len() >= ENDPOINTS_MIN,
            "{protocol}: only {} endpoints answer: {answers:?}",
            answers.len()
        );
    }
    Ok(())
}

/// The client that endpoints see.
fn shown(way: &Way) -> Ipv4Addr {
    let dsr = matches!(SITES[way.site].1, Contender::Podium(flags) if flags.contains(&"dsr"));
    match (way.from, way.to) {
        (From::Outside, To::NodePort) if !dsr => NODE,
        (From::Outside, _) => CLIENT,
        (From::Pod | From::VmLikePod, _) => POD,
    }
}

/// How many packets XDP sent back out of a node's uplink.
fn sent_by_xdp(node: &Netns) -> anyhow::Result<u64> {
    let run = || std::process::Command::new("ethtool").args(["-S", "eth0"]).output();
    let output = node.run(run)?.context("run ethtool")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts = text.lines().filter_map(|line| line.trim().split_once("_xdp_tx: "));
    Ok(counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
}
