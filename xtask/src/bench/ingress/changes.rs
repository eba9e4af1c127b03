//! How long a change takes to have an effect: from writing an object until the first answer that follows
//! it has been read. Through an API, as in a cluster; through a folder that is watched, where the watch
//! waits 20 ms for the end of a burst of writes; beside them nginx, which reads a configuration again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bench::ingress::asking::Asker;
use crate::bench::ingress::cluster::Cluster;
use crate::bench::ingress::contender::Contender;
use crate::bench::ingress::ground::Ground;
use crate::bench::ingress::routes::{ingress_object, service_object, slice_object};
use crate::bench::report::{Figure, Promise, Report};
use crate::bench::stats::{Bar, Rounds};

/// What a change may take to have an effect.
const EFFECT_MS_MAX: f64 = 30.0;
/// After which it never will.
const LIMIT: Duration = Duration::from_secs(30);
/// Rounds on both sides of the bar that differ by more than this share tell nothing.
const SPREAD_MAX: f64 = 0.5;
/// The service whose endpoints change, and its Ingress.
const NAME: &str = "changing";
const HOST: &str = "changing.bench.example";
const ENDPOINTS_REPLACED: &str = "endpoints of a service replaced";
/// Between two changes, so that each is one of its own.
const PAUSE: Duration = Duration::from_millis(60);

/// How objects are written.
#[derive(Clone, Copy)]
pub enum Pen<'a> {
    /// To an API.
    Cluster(&'a Cluster),
    /// As files of a folder.
    Folder(&'a Path),
}

impl Pen<'_> {
    fn name(self) -> &'static str {
        match self {
            Pen::Cluster(_) => "podium, objects from an API",
            Pen::Folder(_) => "podium, objects from a folder",
        }
    }

    fn write(self, file: &str, object: Value) -> anyhow::Result<()> {
        match self {
            Pen::Cluster(cluster) => cluster.apply(object),
            Pen::Folder(folder) => {
                // Whole, so that it is never read half.
                let (new, path) = (folder.join(format!(".{file}")), folder.join(file));
                fs::write(&new, object.to_string())
                    .and_then(|()| fs::rename(&new, &path))
                    .with_context(|| format!("write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Changes endpoints and routes of a running `podium-ingress`, one by one.
pub fn measure(
    ground: &Ground,
    contender: &Contender,
    pen: Pen<'_>,
    count: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let endpoints = ground.on_client(|| {
        pen.write("service.json", service_object(NAME))?;
        pen.write("ingress.json", ingress_object(NAME, [NAME.to_owned()].into_iter()))?;
        Changes::time(count, contender, |turn| endpoint_change(contender, pen, turn))
    })?;
    let routes = ground
        .on_client(|| Changes::time(count, contender, |turn| route_change(contender, pen, turn)))?;
    let size = contender.routes.count();
    for (what, changes) in [("a route added", routes), (ENDPOINTS_REPLACED, endpoints)] {
        report.figure(Figure {
            part: "ingress",
            what: format!("from a change to its effect: {what}, {size} routes"),
            contender: pen.name().to_owned(),
            unit: "ms",
            value: changes.effect_ms.clone(),
            ratio: None,
            more: json!({ "translationMs": changes.translation_ms.to_json() }),
        });
        report.promise(Promise {
            what: format!("from a change to its effect: {what}, {size} routes, {}", pen.name()),
            unit: "ms",
            found: changes.effect_ms,
            bar: Bar::AtMost(EFFECT_MS_MAX),
            spread_max: SPREAD_MAX,
            steady: false,
        });
    }
    Ok(())
}

/// What changes of one sort took.
#[derive(Default)]
struct Changes {
    effect_ms: Rounds,
    /// What of it `podium-ingress` says that it took from objects to a snapshot.
    translation_ms: Rounds,
}

impl Changes {
    fn time(
        count: u32,
        contender: &Contender,
        one: impl Fn(u32) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Changes> {
        let mut changes = Changes::default();
        for turn in 0..count {
            changes.effect_ms.push(one(turn)?);
            changes.translation_ms.push(translation_ms(contender)?);
        }
        Ok(changes)
    }
}

/// Replaces all endpoints of a service by others; gives milliseconds.
fn endpoint_change(contender: &Contender, pen: Pen<'_>, turn: u32) -> anyhow::Result<f64> {
    let routes = contender.routes;
    // Those of services that do not exist.
    let wanted = routes.endpoints(routes.services + turn);
    let mut asker = Asker::new(contender.http());
    asker.ask(HOST, "/p0/1").context("ask before the change")?;
    std::thread::sleep(PAUSE);
    let started = Instant::now();
    pen.write("slice.json", slice_object(NAME, &wanted))?;
    await_answer(started, &mut asker, HOST, |answer| {
        let by = answer.served_by.as_deref().and_then(|text| text.parse().ok());
        answer.status == 200 && by.is_some_and(|by| wanted.contains(&by))
    })
}

/// Adds an Ingress of a new host; gives milliseconds.
fn route_change(contender: &Contender, pen: Pen<'_>, turn: u32) -> anyhow::Result<f64> {
    let name = format!("new{turn}");
    let host = format!("{name}.bench.example");
    let mut asker = Asker::new(contender.http());
    let answer = asker.ask(&host, "/p0/1").context("ask before the change")?;
    ensure!(answer.status == 404, "{host} answers {} before it exists", answer.status);
    std::thread::sleep(PAUSE);
    let started = Instant::now();
    pen.write(&format!("{name}.json"), ingress_object(&name, [NAME.to_owned()].into_iter()))?;
    await_answer(started, &mut asker, &host, |answer| answer.status == 200)
}

fn await_answer(
    started: Instant,
    asker: &mut Asker,
    host: &str,
    is_it: impl Fn(&crate::bench::ingress::asking::Answer) -> bool,
) -> anyhow::Result<f64> {
    loop {
        let answer = asker.ask(host, "/p0/1").context("ask after the change")?;
        if is_it(&answer) {
            return Ok(started.elapsed().as_secs_f64() * 1000.0);
        }
        ensure!(started.elapsed() < LIMIT, "no effect within {} s: {answer:?}", LIMIT.as_secs());
    }
}

/// Milliseconds that the last snapshot took, as `podium-ingress` says itself.
fn translation_ms(contender: &Contender) -> anyhow::Result<f64> {
    let answer =
        Asker::new(contender.status()).ask("status", "/metrics").context("read metrics")?;
    let name = "podium_ingress_translation_duration_seconds ";
    let value = answer.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value
        .map(|seconds: f64| seconds * 1000.0)
        .with_context(|| format!("no {name}among the metrics"))
}

/// nginx, told to read its configuration with other endpoints of the first service.
pub fn measure_reload(
    ground: &Ground,
    contender: &Contender,
    count: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    let routes = contender.routes;
    let path = contender.folder().join("nginx.conf");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let one = |turn: u32| -> anyhow::Result<f64> {
        let wanted = routes.endpoints(routes.services + turn);
        let servers: String =
            wanted.iter().map(|address| format!(" server {address}:8080;")).collect();
        let line = text.lines().find(|line| line.starts_with("upstream s0 "));
        let line = line.context("no upstream s0")?;
        let keep = line.split_once(" server ").map_or(line, |(before, _)| before);
        let changed = text.replacen(line, &format!("{keep}{servers} }}"), 1);
        let mut asker = Asker::new(contender.http());
        std::thread::sleep(PAUSE);
        let started = Instant::now();
        fs::write(&path, changed).with_context(|| format!("write {}", path.display()))?;
        contender.signal(nix::sys::signal::Signal::SIGHUP)?;
        // The old worker goes on with connections it has.
        loop {
            let taken = await_once(&mut asker, &wanted);
            if taken {
                return Ok(started.elapsed().as_secs_f64() * 1000.0);
            }
            asker = Asker::new(contender.http());
            ensure!(started.elapsed() < LIMIT, "no effect within {} s", LIMIT.as_secs());
        }
    };
    let took = ground.on_client(|| (0..count).map(one).collect::<anyhow::Result<Vec<f64>>>())?;
    report.figure(Figure {
        part: "ingress",
        what: format!(
            "from a change to its effect: {ENDPOINTS_REPLACED}, {} routes",
            routes.count()
        ),
        contender: "nginx, configuration read again".to_owned(),
        unit: "ms",
        value: Rounds::from(took),
        ratio: None,
        more: json!({}),
    });
    Ok(())
}

fn await_once(asker: &mut Asker, wanted: &[std::net::Ipv4Addr]) -> bool {
    // An old worker that ends may cut a connection off.
    let Ok(answer) = asker.ask("h0.bench.example", "/p0/1") else { return false };
    let by = answer.served_by.as_deref().and_then(|text| text.parse().ok());
    by.is_some_and(|by| wanted.contains(&by))
}
