//! Ingress controllers: what a request costs and how long it takes, through Podium, nginx and haproxy, with
//! the same routes, forwarded headers and log. Contenders have one thread on the same processor and take
//! turns within each round; the client and the endpoints have another processor.

mod asking;
mod contender;
mod ground;
mod routes;

use serde_json::{Value, json};

use crate::bench::report::{Figure, Promise, Report};
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};
use crate::bench::{Bench, Progress};
use crate::setup;
use contender::{Contender, Kind};
use ground::Ground;
use routes::Routes;

/// Rounds that differ by more than this share of their median tell nothing near a bar.
const SPREAD_MAX: f64 = 0.10;

/// What is asked for over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    tls: bool,
    fresh: bool,
    kib: u32,
}

impl Case {
    fn name(self) -> String {
        let scheme = if self.tls { "HTTPS" } else { "HTTP" };
        let connection = if self.fresh { "fresh" } else { "kept" };
        format!("{scheme}, {connection} connections, {} KiB", self.kib)
    }
}

/// What one contender did in one case with so many routes.
struct Measured {
    kind: Kind,
    case: Case,
    routes: u32,
    cpu_us: Rounds,
    rate: Rounds,
    /// Share of the contender's processor that it used.
    busy: Rounds,
    /// Share of their processor that client and endpoints used.
    p50_ns: Rounds,
    p99_ns: Rounds,
}

/// Measures, and adds what it found to the report.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    setup::peers()?;
    contender::check_room(&bench.workdir)?;
    let ground = Ground::create(bench)?;
    let kinds = [Kind::Podium, Kind::Nginx, Kind::NginxByLine, Kind::Haproxy];
    let case = Case { tls: false, fresh: false, kib: 1 };
    let rounds = 7;
    let mut progress = Progress::new("ingress", rounds * kinds.len());
    let measured = throughput(bench, &ground, &kinds, Routes::new(1), case, rounds, &mut progress)?;
    summarise(&measured, report);
    Ok(())
}

fn throughput(
    bench: &Bench,
    ground: &Ground,
    kinds: &[Kind],
    routes: Routes,
    case: Case,
    rounds: usize,
    progress: &mut Progress,
) -> anyhow::Result<Vec<Measured>> {
    let mut contenders = Vec::new();
    for kind in kinds {
        contenders.push(Contender::start(bench, ground, *kind, routes)?);
    }
    let mut measured: Vec<Measured> = kinds
        .iter()
        .map(|kind| Measured {
            kind: *kind,
            case,
            routes: routes.count(),
            cpu_us: Rounds::default(),
            rate: Rounds::default(),
            busy: Rounds::default(),
            p50_ns: Rounds::default(),
            p99_ns: Rounds::default(),
        })
        .collect();
    for contender in &mut contenders {
        run(bench, ground, contender, routes, case, 300, None)?;
    }
    for _ in 0..rounds {
        for (contender, measured) in contenders.iter_mut().zip(&mut measured) {
            let time_ms = if bench.quick { 300 } else { 2000 };
            let (seen, cpu_us) = run(bench, ground, contender, routes, case, time_ms, None)?;
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            measured.cpu_us.push(cpu_us / number(&seen["asked"]));
            measured.rate.push(number(&seen["count"]) / number(&seen["seconds"]));
            measured.busy.push(cpu_us / number(&seen["allSeconds"]) / 1e6);
            measured.p50_ns.push(number(&seen["ns"]["p50"]));
            measured.p99_ns.push(number(&seen["ns"]["p99"]));
            progress.step();
        }
    }
    Ok(measured)
}

/// Runs the load generator on a contender; gives what it saw and the contender's microseconds.
fn run(
    bench: &Bench,
    ground: &Ground,
    contender: &mut Contender,
    routes: Routes,
    case: Case,
    time_ms: u32,
    rate: Option<u32>,
) -> anyhow::Result<(Value, f64)> {
    let to = if case.tls { contender.https() } else { contender.http() };
    let bytes = case.kib * 1024;
    let mut args: Vec<String> = format!(
        "--to {to} --hosts {} --paths {} --bytes {bytes} --connections 32 --warmup-ms {} --time-ms {time_ms}",
        routes.hosts, routes.paths, time_ms / 10
    )
    .split(' ')
    .map(str::to_owned)
    .collect();
    args.extend(rate.map(|rate| ["--rate".to_owned(), rate.to_string()]).into_iter().flatten());
    args.extend(case.tls.then(|| "--tls".to_owned()));
    args.extend(case.fresh.then(|| "--fresh".to_owned()));
    let before = contender.cpu_us()?;
    let seen = ground.generate(bench, &args)?;
    let used = contender.cpu_us()? - before;
    contender.check_log(seen["asked"].as_u64().unwrap_or(u64::MAX))?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run fit a double exactly")]
    Ok((seen, used as f64))
}

fn summarise(measured: &[Measured], report: &mut Report) {
    for one in measured {
        let nginx = measured.iter().find(|other| {
            other.kind == Kind::Nginx && other.case == one.case && other.routes == one.routes
        });
        let Some(nginx) = nginx else { continue };
        report.figure(Figure {
            part: "ingress",
            what: format!("CPU a request: {}, {} routes", one.case.name(), one.routes),
            contender: one.kind.name().to_owned(),
            unit: "µs",
            value: one.cpu_us.clone(),
            ratio: Some(("nginx", one.cpu_us.over(&nginx.cpu_us))),
            more: json!({
                "requestsPerSecond": one.rate.to_json(),
                "busy": one.busy.to_json(),
                "p50": one.p50_ns.to_json(),
                "p99": one.p99_ns.to_json(),
            }),
        });
        if one.kind == Kind::Podium {
            report.promise(Promise {
                what: format!(
                    "CPU a request, podium ÷ nginx: {}, {} routes",
                    one.case.name(),
                    one.routes
                ),
                unit: "×",
                found: one.cpu_us.over(&nginx.cpu_us),
                bar: Bar::AtMost(1.0),
                spread_max: SPREAD_MAX,
                steady: false,
            });
        }
    }
    for one in measured {
        report.figure(Figure {
            part: "ingress",
            what: format!("most requests a second: {}, {} routes", one.case.name(), one.routes),
            contender: one.kind.name().to_owned(),
            unit: "/s",
            value: one.rate.clone(),
            ratio: None,
            more: json!({ "busy": one.busy.to_json() }),
        });
    }
    debug_assert!(measured.iter().all(|one| one.cpu_us.len() >= ROUNDS_MIN));
}
