//! Figures, plots and promises of what was measured.

use serde_json::json;

use super::{
    AGAIN, DIRECT, EXCHANGES, Group, IPTABLES, Measured, NFTABLES, OUTSIDE, SOCKETS, SOCKETS_FEW,
    Scale, WAYS,
};
use crate::bench::report::{Figure, Promise, Report, Series};
use crate::bench::stats::{Bar, Rounds};

/// How wide the likely range of a ratio may be, as a share of it, to say something of a bar it lies on.
const SPREAD_MAX: f64 = 0.02;
/// Between a smoke run's rounds on a busy machine a ratio of equals strays this far.
const BUSY_MAX: f64 = 1.3;
/// How many services a list of rules must be walked for, to be slower on a busy machine too.
const BUSY_SERVICES_MIN: usize = 500;

/// Adds everything to the report.
pub fn add(measured: &[Measured], scale: &Scale, report: &mut Report) {
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
    let mut compare = |what: String, way, baseline, services, bar: f64, steady: bool| {
        let (Some(one), Some(other)) = (found.p50(way, services), found.p50(baseline, services))
        else {
            return;
        };
        report.promise(Promise {
            what: format!("fresh TCP connection and request, p50, {services} services: {what}"),
            unit: "×",
            found: one.over(other),
            bar: Bar::AtMost(bar),
            spread_max: SPREAD_MAX,
            steady,
        });
    };
    for &services in &scale.sizes {
        compare("sockets ÷ direct".to_owned(), SOCKETS, DIRECT, services, 1.03, false);
        compare("sockets ÷ nftables".to_owned(), SOCKETS, NFTABLES, services, 1.0, false);
        let bar = if services >= 10_000 { 1.0 / 3.0 } else { 1.0 };
        let steady = services >= BUSY_SERVICES_MIN && services < 10_000;
        compare("sockets ÷ iptables".to_owned(), SOCKETS, IPTABLES, services, bar, steady);
    }
    let Some(&many) = scale.sizes.last() else { return };
    compare("sockets ÷ sockets with 1 service".to_owned(), SOCKETS, SOCKETS_FEW, many, 1.02, false);
    let what = "sockets ÷ sockets with 1 service, on a busy machine too".to_owned();
    compare(what, SOCKETS, SOCKETS_FEW, many, BUSY_MAX, true);
    for &services in &scale.sizes {
        compare("direct ÷ direct, the noise".to_owned(), AGAIN, DIRECT, services, 1.01, false);
    }
}
