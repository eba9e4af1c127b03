//! How many packets a second a node passes on from its port to endpoints elsewhere, for each second of
//! processor time: frames come in by the uplink as a network card gives them, and leave by it again.
//!
//! The uplink is a veth whose receiving side runs in a kernel thread of its own, on a processor of its
//! own: its time is all that the node spends, and nothing else. Whoever makes and counts the frames
//! works elsewhere.

mod node;
mod wire;

use serde_json::Value;

use crate::bench::report::{Figure, Promise, Report};
use crate::bench::site::Contender;
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};
use crate::bench::{Bench, Progress};
use node::{Node, Traffic};

/// By XDP at least so many times the packets of iptables.
const OVER_IPTABLES_MIN: f64 = 3.0;
/// Rounds that differ by more than this share of their median tell nothing near the bar.
const SPREAD_MAX: f64 = 0.25;

const CONTENDERS: [(&str, Contender); 6] = [
    ("no balancing", Contender::Direct),
    ("podium, XDP", Contender::Podium(&["--xdp", "native"])),
    ("podium, tcx", Contender::Podium(&[])),
    ("podium, direct return", Contender::Podium(&["--forwarding-mode", "dsr"])),
    ("iptables", Contender::Iptables),
    ("nftables", Contender::Nftables),
];
const XDP: usize = 1;
const IPTABLES: usize = 4;

/// Traffic, and how many bursts of it there are in a round.
const TRAFFICS: [(&str, Traffic, u32); 2] = [
    ("64 established flows", Traffic::Established, 48),
    ("each packet a new flow", Traffic::New, 12),
];

/// Measures, and adds what it found to the report.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let rounds = if bench.quick { ROUNDS_MIN } else { 9 };
    let mut nodes = Vec::new();
    for (number, (_, contender)) in CONTENDERS.into_iter().enumerate() {
        nodes.push(Node::create(bench, number, contender)?);
    }
    nodes.iter_mut().try_for_each(Node::wait)?;
    let mut progress = Progress::new("rate", TRAFFICS.len() * rounds * nodes.len());
    for (name, traffic, bursts) in TRAFFICS {
        let bursts = if bench.quick { bursts / 4 } else { bursts };
        for node in &mut nodes {
            // Opens the flows, and finds neighbours.
            node.pass(Traffic::Established, 4)?;
        }
        let mut found = vec![Rounds::default(); nodes.len()];
        for _ in 0..rounds {
            for (node, found) in nodes.iter_mut().zip(&mut found) {
                found.push(node.pass(traffic, bursts)?);
                progress.step();
            }
        }
        tell(name, &found, report);
    }
    Ok(())
}

fn tell(traffic: &str, found: &[Rounds], report: &mut Report) {
    let what = format!("packets to a node port, for a second of processor time: {traffic}");
    for ((contender, _), value) in CONTENDERS.iter().zip(found) {
        report.figure(Figure {
            part: "rate",
            what: what.clone(),
            contender: (*contender).to_owned(),
            unit: "packets",
            value: value.clone(),
            ratio: Some(("iptables", value.over(&found[IPTABLES]))),
            more: Value::Null,
        });
    }
    let bars: Vec<_> = CONTENDERS
        .iter()
        .zip(found)
        .map(|((name, _), found)| ((*name).to_owned(), found.median()))
        .collect();
    let file = format!("rate-{}", traffic.split(' ').next_back().unwrap_or_default());
    report.plot_bars(&file, &what, "packets", &bars);
    if traffic == TRAFFICS[0].0 {
        report.promise(Promise {
            what: format!("{what}: XDP ÷ iptables"),
            unit: "×",
            found: found[XDP].over(&found[IPTABLES]),
            bar: Bar::AtLeast(OVER_IPTABLES_MIN),
            spread_max: SPREAD_MAX,
            steady: false,
        });
    }
}
