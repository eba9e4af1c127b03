//! How long requests take at a fixed pace: the open loop, in which latency counts from when a request was
//! meant to be sent. Everybody gets the same requests a second: shares of the most that nginx served.

use serde_json::json;

use crate::bench::ingress::contender::{Contender, Kind};
use crate::bench::ingress::cost::{self, Cost, Course};
use crate::bench::ingress::ground::Ground;
use crate::bench::ingress::load;
use crate::bench::report::{Figure, Promise, Report, Series};
use crate::bench::stats::{Bar, Rounds};
use crate::bench::{Bench, Progress};

/// Percentiles that are reported.
const PERCENTILES: [&str; 4] = ["p50", "p90", "p99", "p99.9"];
/// Latencies of the tail vary more than processor time.
const SPREAD_MAX: f64 = 0.25;

/// What one contender did at one pace.
struct Pace {
    kind: Kind,
    course: Course,
    percent: u32,
    rate: u32,
    /// By percentile.
    ns: [Rounds; PERCENTILES.len()],
    cpu_us: Rounds,
    /// Requests that had no answer when all was over.
    unanswered: Rounds,
}

/// Runs every course at every share of nginx's most, and adds what came of it to the report.
pub fn measure(
    bench: &Bench,
    ground: &Ground,
    contenders: &mut [Contender],
    costs: &[Cost],
    plan: &Plan,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut paces = Vec::new();
    for course in &plan.courses {
        let Some(most) = cost::find(costs, Kind::Nginx, *course) else { continue };
        for &percent in &plan.percents {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "requests a second"
            )]
            let rate = (most.rate.median() * f64::from(percent) / 100.0).max(1.0) as u32;
            let kinds = contenders.iter().filter(|one| runs(one, *course)).map(|one| one.kind);
            paces.extend(kinds.map(|kind| Pace::new(kind, *course, percent, rate)));
        }
    }
    let mut progress = Progress::new("ingress, latency", plan.rounds * paces.len());
    for _ in 0..plan.rounds {
        for pace in &mut paces {
            let of = |one: &&mut Contender| one.kind == pace.kind && runs(one, pace.course);
            let Some(contender) = contenders.iter_mut().find(of) else { continue };
            let args = load::args(contender, pace.course.case, plan.time_ms, Some(pace.rate));
            pace.take(&load::run(bench, ground, contender, &args)?);
            progress.step();
        }
    }
    summarise(&paces, plan, report);
    Ok(())
}

/// What is measured.
pub struct Plan {
    /// On these courses.
    pub courses: Vec<Course>,
    /// At these shares of the most that nginx served.
    pub percents: Vec<u32>,
    /// So often.
    pub rounds: usize,
    /// For so long.
    pub time_ms: u32,
}

fn runs(contender: &Contender, course: Course) -> bool {
    contender.routes.count() == course.routes && contender.kind != Kind::NginxByLine
}

impl Pace {
    fn new(kind: Kind, course: Course, percent: u32, rate: u32) -> Pace {
        let (ns, cpu_us, unanswered) = Default::default();
        Pace { kind, course, percent, rate, ns, cpu_us, unanswered }
    }

    fn take(&mut self, seen: &load::Seen) {
        for (rounds, percentile) in self.ns.iter_mut().zip(PERCENTILES) {
            rounds.push(seen.number(&format!("/ns/{percentile}")) / 1000.0);
        }
        self.cpu_us.push(seen.cpu_us_each());
        self.unanswered.push(seen.number("/unanswered"));
    }

    fn name(&self) -> String {
        format!(
            "{}, {} requests a second ({} % of nginx's most)",
            self.course.name(),
            self.rate,
            self.percent
        )
    }

    /// One that falls behind says so.
    fn contender(&self) -> String {
        let behind = if self.unanswered.max() > 0.0 { ", falls behind" } else { "" };
        format!("{}{behind}", self.kind.name())
    }
}

fn summarise(paces: &[Pace], plan: &Plan, report: &mut Report) {
    let nginx = |pace: &Pace| {
        paces.iter().find(|other| {
            other.kind == Kind::Nginx
                && other.course == pace.course
                && other.percent == pace.percent
        })
    };
    for (at, percentile) in PERCENTILES.iter().enumerate() {
        for pace in paces {
            let Some(nginx) = nginx(pace) else { continue };
            report.figure(Figure {
                part: "ingress",
                what: format!("latency, {percentile}: {}", pace.name()),
                contender: pace.contender(),
                unit: "µs",
                value: pace.ns[at].clone(),
                ratio: Some(("nginx", pace.ns[at].over(&nginx.ns[at]))),
                more: json!({ "unanswered": pace.unanswered.to_json() }),
            });
        }
    }
    for pace in paces {
        let Some(nginx) = nginx(pace) else { continue };
        report.figure(Figure {
            part: "ingress",
            what: format!("CPU a request at a fixed pace: {}", pace.name()),
            contender: pace.contender(),
            unit: "µs",
            value: pace.cpu_us.clone(),
            ratio: Some(("nginx", pace.cpu_us.over(&nginx.cpu_us))),
            more: json!({}),
        });
        if pace.kind == Kind::Podium && pace.percent == 50 {
            report.promise(Promise {
                what: format!("p99 at 50 % load, podium ÷ nginx: {}", pace.course.name()),
                unit: "×",
                found: pace.ns[2].over(&nginx.ns[2]),
                bar: Bar::AtMost(1.0),
                spread_max: SPREAD_MAX,
                steady: false,
            });
        }
    }
    plots(paces, plan, report);
}

fn plots(paces: &[Pace], plan: &Plan, report: &mut Report) {
    for course in &plan.courses {
        let mut series = Vec::new();
        for kind in Kind::ALL {
            for (at, percentile) in [(0, "p50"), (2, "p99")] {
                let of = paces.iter().filter(|pace| pace.kind == kind && pace.course == *course);
                let points: Vec<(f64, f64)> =
                    of.map(|pace| (f64::from(pace.percent), pace.ns[at].median())).collect();
                if !points.is_empty() {
                    series.push(Series { name: format!("{}, {percentile}", kind.name()), points });
                }
            }
        }
        report.plot(
            &format!("ingress-latency-{}-{}", course.case.slug(), course.routes),
            &format!("latency over load: {}", course.name()),
            "% of the most that nginx serves",
            "µs",
            series,
        );
    }
}
