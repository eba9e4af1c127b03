//! Endpoints and routes replaced ten times a second under load: how many requests fail.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::bench::ingress::cluster::Cluster;
use crate::bench::ingress::contender::Contender;
use crate::bench::ingress::ground::Ground;
use crate::bench::ingress::load::{self, Case};
use crate::bench::ingress::routes::{ingress_object, slice_object};
use crate::bench::report::{Figure, Promise, Report};
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};

/// Between two replacements.
const PERIOD: Duration = Duration::from_millis(100);

/// Replaces the endpoints of every service and the routes of a host, adds and removes a host, and again,
/// while clients ask for all of them.
pub fn measure(
    bench: &Bench,
    ground: &Ground,
    contender: &Contender,
    cluster: &Cluster,
    time_ms: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut failures = Rounds::default();
    let (mut asked, mut replaced, mut last_failure) = (0.0, 0, Value::Null);
    for _ in 0..ROUNDS_MIN {
        let mut clients = Vec::new();
        for fresh in [false, true] {
            let case = Case { tls: false, fresh, kib: 1 };
            let args = load::args(contender, case, time_ms, None);
            clients.push(load::start(bench, ground, &args)?);
        }
        let until = Instant::now() + Duration::from_millis(u64::from(time_ms));
        while Instant::now() < until {
            let next = Instant::now() + PERIOD;
            replace(contender, cluster, replaced);
            replaced += 1;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let mut failed = 0.0;
        for client in clients {
            let seen: Value =
                serde_json::from_str(&client.finish()?).context("read what the client saw")?;
            failed += seen["failed"].as_f64().unwrap_or(f64::NAN);
            asked += seen["asked"].as_f64().unwrap_or(f64::NAN);
            if !seen["lastFailure"].is_null() {
                last_failure = seen["lastFailure"].clone();
            }
        }
        failures.push(failed);
    }
    ensure!(replaced > 0 && asked > 0.0, "nothing was replaced or nothing was asked");
    let more = json!({ "asked": asked, "replaced": replaced, "lastFailure": last_failure });
    report.figure(Figure {
        part: "ingress",
        what: format!(
            "failed requests of {asked} during {replaced} changes of endpoints and routes"
        ),
        contender: contender.kind.name().to_owned(),
        unit: "",
        value: failures.clone(),
        ratio: None,
        more,
    });
    // Of all rounds together: one failure in one round is one too many.
    let all = failures.sum();
    report.promise(Promise {
        what: "failed requests while endpoints and routes are replaced ten times a second"
            .to_owned(),
        unit: "",
        found: Rounds::from(vec![all; failures.len()]),
        bar: Bar::AtMost(0.0),
        spread_max: 0.0,
        steady: true,
    });
    Ok(())
}

fn replace(contender: &Contender, cluster: &Cluster, turn: u32) {
    let routes = contender.routes;
    for service in 0..routes.services {
        // One of three sets in turn: the old ones serve what they have begun.
        let wanted = routes.endpoints(service + routes.services * (turn % 3));
        cluster.apply(slice_object(&format!("s{service}"), &wanted));
    }
    cluster.apply(routes.ingress(turn % routes.hosts, turn));
    let passing =
        |turn: u32| ingress_object(&format!("passing{turn}"), ["s0".to_owned()].into_iter());
    cluster.apply(passing(turn));
    if turn > 2 {
        cluster.delete(passing(turn - 3));
    }
}
