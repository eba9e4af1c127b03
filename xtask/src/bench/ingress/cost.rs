//! What a request costs and how many fit into a second: the closed loop, in which clients ask as fast as
//! they are answered, for few and for many routes.

use serde_json::json;

use crate::bench::ingress::contender::{Contender, Kind};
use crate::bench::ingress::ground::Ground;
use crate::bench::ingress::load::{self, Case};
use crate::bench::report::{Figure, Promise, Report, Series};
use crate::bench::stats::{Bar, Rounds};
use crate::bench::{Bench, Progress};

/// Rounds that differ by more than this share of their median tell nothing near a bar.
const SPREAD_MAX: f64 = 0.10;

/// A case with so many routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// What is asked.
    pub case: Case,
    /// Of how many routes.
    pub routes: u32,
}

impl Course {
    /// For tables.
    pub fn name(self) -> String {
        let routes =
            if self.routes == 1 { "1 route".to_owned() } else { format!("{} routes", self.routes) };
        format!("{}, {routes}", self.case.name())
    }
}

/// What one contender did.
pub struct Cost {
    /// Who.
    pub kind: Kind,
    /// Where.
    pub course: Course,
    /// Processor time of a request.
    pub cpu_us: Rounds,
    /// Requests a second.
    pub rate: Rounds,
    /// Share of its processor that the contender used.
    busy: Rounds,
    /// Share of its processor that the client used; the server beside it uses about as much.
    client_busy: Rounds,
}

/// Runs every course on every contender that has its routes, in turns.
pub fn measure(
    bench: &Bench,
    ground: &Ground,
    contenders: &mut [Contender],
    courses: &[Course],
    rounds: usize,
    time_ms: u32,
) -> anyhow::Result<Vec<Cost>> {
    let mut costs: Vec<Cost> = Vec::new();
    for course in courses {
        for contender in contenders.iter_mut().filter(|one| runs(one, *course)) {
            // The first connections, pages and caches are nobody's figure.
            load::run(
                bench,
                ground,
                contender,
                &load::args(contender, course.case, time_ms / 4, None),
            )?;
            costs.push(Cost::new(contender.kind, *course));
        }
    }
    let mut progress = Progress::new("ingress, cost", rounds * costs.len());
    for _ in 0..rounds {
        let mut next = costs.iter_mut();
        for course in courses {
            for contender in contenders.iter_mut().filter(|one| runs(one, *course)) {
                let Some(cost) = next.next() else { break };
                let args = load::args(contender, course.case, time_ms, None);
                cost.take(&load::run(bench, ground, contender, &args)?);
                progress.step();
            }
        }
    }
    Ok(costs)
}

fn runs(contender: &Contender, course: Course) -> bool {
    let plain = !course.case.tls && !course.case.fresh && course.case.kib == 1;
    contender.routes.count() == course.routes && (plain || contender.kind != Kind::NginxByLine)
}

impl Cost {
    fn new(kind: Kind, course: Course) -> Cost {
        let [cpu_us, rate, busy, client_busy] = [const { Vec::new() }; 4].map(Rounds::from);
        Cost { kind, course, cpu_us, rate, busy, client_busy }
    }

    fn take(&mut self, seen: &load::Seen) {
        let seconds = seen.number("/allSeconds");
        self.cpu_us.push(seen.cpu_us_each());
        self.rate.push(seen.rate());
        self.busy.push(seen.cpu_us / seconds / 1e6);
        self.client_busy.push(seen.number("/ownCpuSeconds") / seconds);
    }
}

/// The cost of a kind on a course.
pub fn find(costs: &[Cost], kind: Kind, course: Course) -> Option<&Cost> {
    costs.iter().find(|cost| cost.kind == kind && cost.course == course)
}

/// Figures, plots and promises.
pub fn summarise(costs: &[Cost], flat_max: f64, report: &mut Report) {
    for cost in costs {
        let Some(nginx) = find(costs, Kind::Nginx, cost.course) else { continue };
        let more = json!({ "busy": cost.busy.to_json(), "clientBusy": cost.client_busy.to_json() });
        report.figure(Figure {
            part: "ingress",
            what: format!("CPU a request: {}", cost.course.name()),
            contender: cost.kind.name().to_owned(),
            unit: "µs",
            value: cost.cpu_us.clone(),
            ratio: Some(("nginx", cost.cpu_us.over(&nginx.cpu_us))),
            more,
        });
        if cost.kind == Kind::Podium {
            report.promise(Promise {
                what: format!("CPU a request, podium ÷ nginx: {}", cost.course.name()),
                unit: "×",
                found: cost.cpu_us.over(&nginx.cpu_us),
                bar: Bar::AtMost(1.0),
                spread_max: SPREAD_MAX,
                steady: false,
            });
        }
    }
    for cost in costs {
        let Some(nginx) = find(costs, Kind::Nginx, cost.course) else { continue };
        report.figure(Figure {
            part: "ingress",
            what: format!("most requests a second: {}", cost.course.name()),
            contender: cost.kind.name().to_owned(),
            unit: "/s",
            value: cost.rate.clone(),
            ratio: Some(("nginx", cost.rate.over(&nginx.rate))),
            more: json!({}),
        });
    }
    flatness(costs, flat_max, report);
    plots(costs, report);
}

/// From the fewest routes to the most.
fn flatness(costs: &[Cost], flat_max: f64, report: &mut Report) {
    for few in costs.iter().filter(|cost| cost.kind == Kind::Podium) {
        let same = costs
            .iter()
            .filter(|cost| cost.kind == few.kind && cost.course.case == few.course.case);
        let Some(many) = same.max_by_key(|cost| cost.course.routes) else { continue };
        let fewest = costs.iter().map(|cost| cost.course.routes).min();
        if Some(few.course.routes) != fewest || many.course.routes == few.course.routes {
            continue;
        }
        let (from, to) = (few.course.routes, many.course.routes);
        report.promise(Promise {
            what: format!("CPU a request, {to} routes ÷ {from}: {}", few.course.case.name()),
            unit: "×",
            found: many.cpu_us.over(&few.cpu_us),
            bar: Bar::AtMost(flat_max),
            spread_max: 2.0 * SPREAD_MAX,
            // Processor time, and both ends of the ratio in the same round.
            steady: true,
        });
    }
}

fn plots(costs: &[Cost], report: &mut Report) {
    let mut done: Vec<Case> = Vec::new();
    for first in costs {
        let case = first.course.case;
        if done.contains(&case) {
            continue;
        }
        done.push(case);
        let of = |kind: Kind| {
            costs.iter().filter(move |cost| cost.kind == kind && cost.course.case == case)
        };
        let at = first.course;
        let bars: Vec<(String, f64)> = costs
            .iter()
            .filter(|cost| cost.course == at)
            .map(|cost| (cost.kind.name().to_owned(), cost.cpu_us.median()))
            .collect();
        let title = format!("CPU a request: {}", at.name());
        report.plot_bars(&format!("ingress-cpu-{}", case.slug()), &title, "µs", &bars);
        if of(Kind::Podium).count() < 2 {
            continue;
        }
        let series =
            Kind::ALL.into_iter().filter(|kind| of(*kind).count() > 1).map(|kind| Series {
                name: kind.name().to_owned(),
                points: of(kind)
                    .map(|cost| (f64::from(cost.course.routes), cost.cpu_us.median()))
                    .collect(),
            });
        report.plot(
            &format!("ingress-routes-{}", case.slug()),
            &format!("CPU a request over the number of routes: {}", case.name()),
            "routes",
            "µs",
            series.collect(),
        );
    }
}
