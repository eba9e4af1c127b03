//! Ingress controllers: what a request costs and how long it takes, through Podium, nginx and haproxy, with
//! the same routes, forwarded headers and log; what a change takes, what fails meanwhile, what memory holds.
//!
//! Contenders have one thread each on the same processor and take turns within each round; the client and
//! the endpoints have another processor. Sizes take turns too: all contenders of all sizes run at once, and
//! the others are idle.

mod asking;
mod changes;
mod churn;
mod cluster;
mod contender;
mod cost;
mod ground;
mod load;
mod memory;
mod pace;
mod routes;

use std::net::{Ipv4Addr, SocketAddr};

use crate::bench::report::Report;
use crate::bench::stats::ROUNDS_MIN;
use crate::bench::{Bench, Progress};
use crate::setup;
use changes::Pen;
use cluster::Cluster;
use contender::{Contender, Kind, Source};
use cost::Course;
use ground::Ground;
use load::Case;
use memory::Memory;
use routes::Routes;

const HTTP_KEPT: Case = Case { tls: false, fresh: false, kib: 1 };
const HTTP_FRESH: Case = Case { tls: false, fresh: true, kib: 1 };
const HTTPS_KEPT: Case = Case { tls: true, fresh: false, kib: 1 };
const HTTPS_FRESH: Case = Case { tls: true, fresh: true, kib: 1 };

/// How much is measured.
struct Scale {
    kinds: &'static [Kind],
    courses: Vec<Course>,
    paced: Vec<Course>,
    percents: &'static [u32],
    rounds: usize,
    cost_ms: u32,
    pace_ms: u32,
    churn_ms: u32,
    /// Routes with a service each.
    apart: u32,
    /// Changes that are timed.
    changes: u32,
    /// Processor time of a request, most routes ÷ fewest.
    flat_max: f64,
}

impl Scale {
    fn new(quick: bool) -> Scale {
        let course = |case: Case, routes: u32| Course { case, routes };
        if quick {
            return Scale {
                kinds: &[Kind::Podium, Kind::Nginx],
                courses: vec![
                    course(HTTP_KEPT, 1),
                    course(HTTP_KEPT, 1_000),
                    course(HTTPS_FRESH, 1),
                ],
                paced: vec![course(HTTP_KEPT, 1)],
                percents: &[50],
                rounds: ROUNDS_MIN,
                cost_ms: 200,
                pace_ms: 150,
                churn_ms: 500,
                apart: 500,
                changes: 5,
                // What is not optimised has other costs.
                flat_max: 1.4,
            };
        }
        let hundred = |case: Case| Case { kib: 100, ..case };
        Scale {
            kinds: &Kind::ALL,
            courses: vec![
                course(HTTP_KEPT, 1),
                course(HTTP_KEPT, 1_000),
                course(HTTP_KEPT, 10_000),
                course(hundred(HTTP_KEPT), 1),
                course(HTTP_FRESH, 1),
                course(HTTP_FRESH, 10_000),
                course(HTTPS_KEPT, 1),
                course(HTTPS_KEPT, 10_000),
                course(hundred(HTTPS_KEPT), 1),
                course(HTTPS_FRESH, 1),
                course(HTTPS_FRESH, 10_000),
            ],
            paced: vec![
                course(HTTP_KEPT, 1),
                course(HTTP_KEPT, 10_000),
                course(HTTPS_KEPT, 1),
                course(HTTP_FRESH, 1),
            ],
            percents: &[25, 50, 70],
            rounds: ROUNDS_MIN,
            cost_ms: 900,
            pace_ms: 1_000,
            churn_ms: 4_000,
            apart: 5_000,
            changes: 20,
            flat_max: 1.1,
        }
    }
}

/// Measures, and adds what it found to the report.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    setup::peers()?;
    contender::check_room(&bench.workdir)?;
    let scale = &Scale::new(bench.quick);
    let ground = &Ground::create(bench)?;
    requests(bench, ground, scale, report)?;
    changes_of_few(bench, ground, scale, report)?;
    many_apart(bench, ground, scale, report)
}

/// Requests: their cost, and how long they take.
fn requests(
    bench: &Bench,
    ground: &Ground,
    scale: &Scale,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut sizes: Vec<u32> = scale.courses.iter().map(|course| course.routes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut contenders = Vec::new();
    for size in sizes {
        // How nginx writes its log does not depend on routes: one figure tells.
        let kinds = scale.kinds.iter().filter(|kind| size == 1 || **kind != Kind::NginxByLine);
        for kind in kinds {
            let routes = Routes::new(size);
            contenders.push(Contender::start(bench, ground, *kind, routes, Source::Folder)?);
        }
    }
    let costs =
        cost::measure(bench, ground, &mut contenders, &scale.courses, scale.rounds, scale.cost_ms)?;
    cost::summarise(&costs, scale.flat_max, report);
    let plan = pace::Plan {
        courses: scale.paced.clone(),
        percents: scale.percents.to_vec(),
        rounds: scale.rounds,
        time_ms: scale.pace_ms,
    };
    pace::measure(bench, ground, &mut contenders, &costs, &plan, report)
}

/// Changes of a folder, and of an API under load.
fn changes_of_few(
    bench: &Bench,
    ground: &Ground,
    scale: &Scale,
    report: &mut Report,
) -> anyhow::Result<()> {
    let routes = Routes::new(100);
    let mut progress = Progress::new("ingress, changes", 3);
    {
        let watched = Contender::start(bench, ground, Kind::Podium, routes, Source::Folder)?;
        let pen = Pen::Folder(watched.folder());
        changes::measure(ground, &watched, pen, scale.changes, report)?;
        progress.step();
    }
    let cluster = &start_cluster(ground, routes, 1)?;
    let podium = Contender::start(bench, ground, Kind::Podium, routes, Source::Cluster(cluster))?;
    changes::measure(ground, &podium, Pen::Cluster(cluster), scale.changes, report)?;
    progress.step();
    churn::measure(bench, ground, &podium, cluster, scale.churn_ms, report)?;
    progress.step();
    Ok(())
}

/// Memory with many routes that share nothing, and changes among them.
fn many_apart(
    bench: &Bench,
    ground: &Ground,
    scale: &Scale,
    report: &mut Report,
) -> anyhow::Result<()> {
    let routes = Routes::apart(scale.apart);
    let kinds = || scale.kinds.iter().filter(|kind| **kind != Kind::NginxByLine);
    let peers = kinds().count() - 1;
    let mut progress = Progress::new("ingress, many routes", scale.rounds + peers);
    let cluster = &start_cluster(ground, routes, 2)?;
    let time_ms = scale.cost_ms;
    let mut all = Vec::new();
    for &kind in kinds() {
        let mut memory = Memory::default();
        // Only one of them promised something.
        let rounds = if kind == Kind::Podium { scale.rounds } else { 1 };
        for round in 0..rounds {
            let source = Source::Cluster(cluster);
            let mut one = Contender::start(bench, ground, kind, routes, source)?;
            memory.take_idle(&one)?;
            if kind == Kind::Podium && round == 0 {
                // Before the load: all metrics are read after each change, of all routes that were asked.
                changes::measure(ground, &one, Pen::Cluster(cluster), scale.changes, report)?;
            }
            memory.take_served(bench, ground, &mut one, time_ms)?;
            if kind == Kind::Nginx {
                changes::measure_reload(ground, &one, 3, report)?;
            }
            progress.step();
        }
        all.push((kind, memory));
    }
    memory::summarise(&all, scale.apart, !bench.quick, report);
    Ok(())
}

fn start_cluster(ground: &Ground, routes: Routes, number: u8) -> anyhow::Result<Cluster> {
    let address = SocketAddr::new(Ipv4Addr::new(127, 8, 0, number).into(), 8001);
    Cluster::start(&ground.netns, address, routes.objects(&ground.secret))
}
