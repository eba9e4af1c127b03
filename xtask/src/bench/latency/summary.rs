//! Figures, plots and promises of what was measured.

use serde_json::json;

use super::{
    AGAIN, DIRECT, EXCHANGES, Group, IPTABLES, Measured, NFTABLES, OUTSIDE, SOCKETS, SOCKETS_FEW,
    Scale, WAYS,
};
use crate::bench::report::{Figure, Promise, Report, Series};
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};

/// How wide the likely range of a ratio may be, as a share of it, to say something of a bar it lies on.
const SPREAD_MAX: f64 = 0.02;
/// Processor time of equals strays less than this on a busy machine, and a walk over the services of a
/// smoke run costs more.
const BUSY_MAX: f64 = 1.2;

/// Adds everything to the report.
pub fn add(measured: &[Measured], scale: &Scale, report: &mut Report) {
    lost(measured, report);
    for exchange in 0..EXCHANGES.len() {
        let found = Found { measured, exchange };
        figures(&found, report);
        for (group, name, title) in [
            (Group::Inside, "inside", "from a pod to a service"),
            (Group::Outside, "outside", "from outside to a node port"),
            (Group::Beside, "beside", "from pod to pod, no service"),
        ] {
            plot(&found, scale, report, (group, name, title));
        }
    }
    bars(&Found { measured, exchange: 0 }, scale, report);
}

/// What was measured of one kind of exchange.
struct Found<'a> {
    measured: &'a [Measured],
    exchange: usize,
}

impl<'a> Found<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Measured> {
        let exchange = self.exchange;
        self.measured.iter().filter(move |one| one.exchange == exchange)
    }

    fn of(&self, way: &str, services: usize) -> Option<&'a Measured> {
        self.all().find(|one| WAYS[one.way].name == way && one.services == services)
    }

    fn p50(&self, way: &str, services: usize) -> Option<&'a Rounds> {
        self.of(way, services).map(Measured::p50)
    }
}

/// What failed in a round at worst, of every way through Podium: nothing shall.
fn lost(measured: &[Measured], report: &mut Report) {
    let of_podium = measured.iter().filter(|one| WAYS[one.way].name.starts_with("podium"));
    for one in of_podium.filter(|one| one.failed.max() > 0.0) {
        let mut found = Rounds::default();
        (0..ROUNDS_MIN).for_each(|_| found.push(one.failed.max()));
        let (way, exchange) = (WAYS[one.way].name, EXCHANGES[one.exchange].1);
        report.promise(Promise {
            what: format!(
                "{exchange}, {} services, {way}: failed in a round at worst",
                one.services
            ),
            unit: "exchanges",
            found,
            bar: Bar::AtMost(0.0),
            spread_max: SPREAD_MAX,
            steady: false,
        });
    }
}

fn figures(found: &Found<'_>, report: &mut Report) {
    let (_, title) = EXCHANGES[found.exchange];
    for one in found.all() {
        let way = &WAYS[one.way];
        let baseline = if way.group == Group::Outside { OUTSIDE } else { DIRECT };
        let Some(direct) = found.p50(baseline, one.services) else { continue };
        report.figure(Figure {
            part: "latency",
            what: format!("{title}, {} services: median", one.services),
            contender: way.name.to_owned(),
            unit: "ns",
            value: one.p50().clone(),
            ratio: Some(("direct", one.p50().over(direct))),
            more: json!({
                "p90": one.ns[1].to_json(),
                "p99": one.ns[2].to_json(),
                "p99.9": one.ns[3].to_json(),
                "exchangesPerSecond": one.rate.to_json(),
                "clientCpuNs": one.cpu_ns.to_json(),
                "failed": one.failed.to_json(),
            }),
        });
    }
}

fn plot(
    found: &Found<'_>,
    scale: &Scale,
    report: &mut Report,
    (group, name, title): (Group, &str, &str),
) {
    let (action, exchange) = EXCHANGES[found.exchange];
    let line = |way: &str| Series {
        name: way.to_owned(),
        points: scale
            .sizes
            .iter()
            .filter_map(|&services| {
                #[expect(clippy::cast_precision_loss, reason = "services are few")]
                Some((services as f64, found.p50(way, services)?.median() / 1000.0))
            })
            .collect(),
    };
    // The second baseline and the second small site are there to compare with, not to be seen.
    let shown = |name: &str| ![AGAIN, SOCKETS_FEW].contains(&name);
    let mut lines: Vec<Series> = WAYS
        .iter()
        .filter(|way| way.group == group && shown(way.name))
        .map(|way| line(way.name))
        .collect();
    if group == Group::Beside {
        lines.insert(0, line(DIRECT));
    }
    report.plot(
        &format!("latency-{name}-{action}"),
        &format!("{exchange}, {title}: median"),
        "services",
        "µs",
        lines,
    );
}

/// The promises, as ratios of the same rounds.
fn bars(found: &Found<'_>, scale: &Scale, report: &mut Report) {
    let mut compare = |what: &str, [way, baseline]: [&str; 2], services, bar: f64| {
        let one = found.p50(way, services).zip(found.p50(baseline, services));
        report.promises(what, "p50", services, one, bar, false);
    };
    for &services in &scale.sizes {
        compare("sockets ÷ direct", [SOCKETS, DIRECT], services, 1.03);
        let bar = if services >= 10_000 { 1.0 / 3.0 } else { 1.0 };
        compare("sockets ÷ iptables", [SOCKETS, IPTABLES], services, bar);
        compare("sockets ÷ nftables", [SOCKETS, NFTABLES], services, 1.0);
        compare("direct ÷ direct, which is the noise", [AGAIN, DIRECT], services, 1.01);
    }
    let Some(&many) = scale.sizes.last() else { return };
    compare("sockets ÷ sockets with 1 service", [SOCKETS, SOCKETS_FEW], many, 1.02);
    let mut compare = |what: &str, [way, baseline]: [&str; 2], bar: f64| {
        let one = found.of(way, many).zip(found.of(baseline, many));
        let one = one.map(|(one, other)| (&one.cpu_ns, &other.cpu_ns));
        report.promises(what, "processor time of the client", many, one, bar, true);
    };
    compare("sockets ÷ sockets with 1 service", [SOCKETS, SOCKETS_FEW], BUSY_MAX);
    compare("sockets ÷ iptables", [SOCKETS, IPTABLES], 1.0);
}

impl Report {
    fn promises(
        &mut self,
        what: &str,
        figure: &str,
        services: usize,
        compared: Option<(&Rounds, &Rounds)>,
        bar: f64,
        steady: bool,
    ) {
        let Some((one, other)) = compared else { return };
        self.promise(Promise {
            what: format!("{}, {figure}, {services} services: {what}", EXCHANGES[0].1),
            unit: "×",
            found: one.over(other),
            bar: Bar::AtMost(bar),
            spread_max: SPREAD_MAX,
            steady,
        });
    }
}
