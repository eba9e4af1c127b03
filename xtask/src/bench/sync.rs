//! How long the kernel takes to follow: `podium server` holds the objects, `podium-proxy` watches them
//! as it would anywhere, and a client in a pod's cgroup tells when it is answered, and by whom.

mod agent;
mod follower;
mod http;
mod objects;

use std::time::Duration;

use anyhow::Context;
use podium_tests::cgroup::Cgroup;
use podium_tests::cluster::Cluster;
use podium_tests::process::Launch;
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;
use serde_json::json;

use crate::bench::report::{Figure, Promise, Report, Series};
use crate::bench::stats::{Bar, ROUNDS_MIN, Rounds};
use crate::bench::{Bench, PREFIX, Progress};
use crate::down::BENCH_DIRS;
use crate::setup::KUBECTL_NEWEST;
use agent::{Agent, Maps};
use follower::{Follower, now, serve};
use http::Connection;
use objects::{ENDPOINT_BLOCK, PORT, PORT_CHANGED, SIZES, SIZES_QUICK, Service, Size};

/// Where `kubectl proxy` listens.
const API_PORT: u16 = 8001;
const API_LIMIT: Duration = Duration::from_secs(20);
/// Clients that write objects at once.
const WRITERS: usize = 8;
/// Changes in one round, back and forth.
const CHANGES: usize = 10;
/// Elements of the array of endpoints by default, of as many endpoints as the largest size has.
const ARRAY_SHARE: f64 = 262_144.0 / 250_011.0;
/// Elements that are left at least, for lists that replace others.
const ARRAY_ROOM: f64 = 200.0;

/// What is found of one size, once for each round.
#[derive(Default)]
struct Found {
    /// From all objects in the agent's memory to the first answer of the last service.
    cold_ms: Rounds,
    /// The agent's own figure: one pass, with attaching the programs.
    pass_ms: Rounds,
    /// From the start of the process to that answer.
    start_s: Rounds,
    /// From an event's arrival at the agent to the kernel: the agent's own figure.
    event_us: Rounds,
    /// From sending the write of an EndpointSlice to the first connection that follows.
    write_ms: Rounds,
    /// From the API's answer to that connection.
    answered_ms: Rounds,
    /// Map operations for that write.
    operations: Rounds,
    memory_mib: Rounds,
    memory_peak_mib: Rounds,
    /// Kernel memory of endpoints and services, over the endpoints.
    kernel_bytes: Rounds,
    /// All maps.
    maps_mib: Rounds,
    /// Writing all objects while the agent watches.
    fill_s: Rounds,
    /// From the last of these writes to the answer of the last service.
    filled_ms: Rounds,
}

/// Measures every size, and says what of it was promised.
pub fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let sizes: &[Size] = if bench.quick { &SIZES_QUICK } else { &SIZES };
    let mut progress = Progress::new("sync", sizes.len() * (ROUNDS_MIN + 1));
    let mut all = Vec::new();
    for size in sizes {
        let found = measure_size(bench, *size, &mut progress)
            .with_context(|| format!("measure {}", size.name))?;
        all.push((*size, found));
    }
    plots(&all, report);
    promises(bench, &all, report);
    for (size, found) in all {
        figures(size, found, report);
    }
    Ok(())
}

/// A control plane with an agent beside it.
struct Site {
    cluster: Cluster,
    cgroup: Cgroup,
    flags: Vec<String>,
    size: Size,
}

fn measure_size(bench: &Bench, size: Size, progress: &mut Progress) -> anyhow::Result<Found> {
    let folder = bench.project.target_dir().join(BENCH_DIRS[1]);
    let workdir = Workdir::create(&folder, &format!("{PREFIX}-api"))?;
    let cluster = Cluster::start(workdir, bench.binaries.clone())?;
    let cgroup = Cgroup::create(cluster.workdir(), "pods")?;
    let flags = flags(bench, size);
    let site = Site { cluster, cgroup, flags, size };
    let result = site.measure(bench.quick, progress);
    let words = || site.cluster.last_words();
    let found = result.with_context(words)?;
    site.cluster.stop()?;
    Ok(found)
}

/// The agent's defaults; a smoke run has an array that is as full as that of the largest size.
fn flags(bench: &Bench, size: Size) -> Vec<String> {
    if !bench.quick {
        return Vec::new();
    }
    let endpoints = to_f64(size.endpoints());
    let elements = (endpoints * ARRAY_SHARE).max(endpoints + ARRAY_ROOM);
    vec![format!("--max-endpoints={elements:.0}")]
}

impl Site {
    fn measure(&self, quick: bool, progress: &mut Progress) -> anyhow::Result<Found> {
        let _server = serve(&self.cluster, ENDPOINT_BLOCK, &[PORT, PORT_CHANGED])?;
        let kubectl = self.cluster.kubectl(KUBECTL_NEWEST);
        let _proxy = Launch::new("kubectl-proxy", kubectl.binary())
            .args(["proxy", &format!("--port={API_PORT}")])
            .env("KUBECONFIG", self.cluster.control.admin_kubeconfig())
            .env("HOME", self.cluster.workdir().path())
            .inside(Some(self.cluster.control.netns.name()), None)?
            .spawn(self.cluster.workdir())?;
        wait_until("kubectl proxy answers", API_LIMIT, || {
            let ask = || self.api()?.request("GET", "/readyz", "");
            ask().map_err(|error| format!("{error:#}"))
        })?;
        let mut found = Found::default();
        let empty = self.fill(&mut found)?;
        progress.step();
        let mut agent = None;
        for _ in 0..ROUNDS_MIN {
            // A smoke run starts it once.
            if !quick || agent.is_none() {
                drop(agent.take());
                agent = Some(self.start(&mut found)?);
            }
            let agent = agent.as_ref().context("just started")?;
            self.change(agent, &mut found)?;
            self.read(agent, &empty, &mut found)?;
            progress.step();
        }
        Ok(found)
    }

    fn api(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.cluster.control.netns, API_PORT)
    }

    fn last(&self) -> anyhow::Result<Service> {
        self.size.last().context("a size without services")
    }

    /// Writes all objects while an agent watches, and gives its maps before.
    fn fill(&self, found: &mut Found) -> anyhow::Result<Maps> {
        let agent = Agent::start(&self.cluster, &self.cgroup, &self.flags)?;
        agent.wait_in_step()?;
        let empty = agent.maps()?;
        let mut follower = Follower::start(&self.cluster, &self.cgroup, &self.last()?.address())?;
        let started = now();
        self.write_all()?;
        let written = now();
        let answered = follower.wait(PORT, started)?;
        found.fill_s.push(written - started);
        found.filled_ms.push((answered - written).max(0.0) * 1e3);
        Ok(empty)
    }

    fn write_all(&self) -> anyhow::Result<()> {
        let all: Vec<Service> = self.size.all().collect();
        // The last one is written when all others are there.
        let (last, rest) = all.split_last().context("a size without services")?;
        let write = |services: &[Service]| -> anyhow::Result<()> {
            let mut api = self.api()?;
            for service in services {
                for (path, body) in [service.service(), service.slice(PORT)] {
                    api.request("POST", &path, &body.to_string())?;
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let parts = rest.chunks(rest.len().div_ceil(WRITERS).max(1));
            let writers: Vec<_> = parts.map(|part| scope.spawn(move || write(part))).collect();
            writers.into_iter().try_for_each(|writer| {
                writer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a writer panicked")))
            })
        })?;
        write(&[*last])
    }

    /// Starts an agent on a node that has nothing of it.
    fn start(&self, found: &mut Found) -> anyhow::Result<Agent<'_>> {
        let mut follower = Follower::start(&self.cluster, &self.cgroup, &self.last()?.address())?;
        let started = now();
        let agent = Agent::start(&self.cluster, &self.cgroup, &self.flags)?;
        let answered = follower.wait(PORT, started)?;
        // It answers while the programs for packets are still being attached.
        let metrics = agent.wait_in_step()?;
        let complete = metrics.value("podium_proxy_objects_complete_timestamp_seconds")?;
        let pass = metrics.value("kubeproxy_sync_proxy_rules_duration_seconds_sum")?;
        found.start_s.push(answered - started);
        found.cold_ms.push((answered - complete) * 1e3);
        found.pass_ms.push(pass * 1e3);
        Ok(agent)
    }

    /// Changes all endpoints of one EndpointSlice, so that every connection shows it.
    fn change(&self, agent: &Agent<'_>, found: &mut Found) -> anyhow::Result<()> {
        const SUM: &str = "podium_proxy_change_duration_seconds_sum";
        const OPERATIONS: &str = "podium_proxy_operations_total";
        let service = self.size.changed();
        let mut follower = Follower::start(&self.cluster, &self.cgroup, &service.address())?;
        follower.wait(PORT, 0.0)?;
        let mut api = self.api()?;
        let [mut event, mut write, mut answered, mut operations] = [const { Vec::new() }; 4];
        for port in [PORT_CHANGED, PORT].repeat(CHANGES / 2) {
            let (path, body) = service.slice(port);
            let (path, body) = (format!("{path}/{}", service.slice_name()), body.to_string());
            let before = agent.metrics()?;
            let sent_at = now();
            api.request("PUT", &path, &body)?;
            let answered_at = now();
            let followed_at = follower.wait(port, sent_at)?;
            let after = agent.metrics()?;
            let grown = |name: &str| anyhow::Ok(after.value(name)? - before.value(name)?);
            event.push(grown(SUM)? * 1e6);
            operations.push(grown(OPERATIONS)?);
            write.push((followed_at - sent_at) * 1e3);
            answered.push((followed_at - answered_at).max(0.0) * 1e3);
        }
        found.event_us.push(median(event));
        found.operations.push(median(operations));
        found.write_ms.push(median(write));
        found.answered_ms.push(median(answered));
        Ok(())
    }

    fn read(&self, agent: &Agent<'_>, empty: &Maps, found: &mut Found) -> anyhow::Result<()> {
        let [now, peak] = agent.memory_mib()?;
        found.memory_mib.push(now);
        found.memory_peak_mib.push(peak);
        let maps = agent.maps()?;
        let bytes = maps.endpoints + maps.growing - empty.growing;
        found.kernel_bytes.push(bytes / to_f64(self.size.endpoints()));
        found.maps_mib.push(maps.all / f64::from(1 << 20));
        Ok(())
    }
}

fn median(values: Vec<f64>) -> f64 {
    let mut rounds = Rounds::default();
    values.into_iter().for_each(|value| rounds.push(value));
    rounds.median()
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}

fn figures(size: Size, found: Found, report: &mut Report) {
    let what = format!("Following the API, {}", size.name);
    let rows: [(&str, &'static str, Rounds); 13] = [
        ("objects in memory to last service answering", "ms", found.cold_ms),
        ("of that, the agent's pass", "ms", found.pass_ms),
        ("agent's start to last service answering", "s", found.start_s),
        ("event arrived to kernel, in the agent", "µs", found.event_us),
        ("API write sent to connections following", "ms", found.write_ms),
        ("API write answered to connections following", "ms", found.answered_ms),
        ("map operations of that write", "", found.operations),
        ("agent memory", "MiB", found.memory_mib),
        ("agent memory, peak", "MiB", found.memory_peak_mib),
        ("kernel memory an endpoint, with its services", "bytes", found.kernel_bytes),
        ("all maps, at the sizes of their flags", "MiB", found.maps_mib),
        ("writing all objects while the agent watches", "s", found.fill_s),
        ("last of these writes to last service answering", "ms", found.filled_ms),
    ];
    for (contender, unit, value) in rows {
        let more = json!({ "services": size.services(), "endpoints": size.endpoints() });
        let contender = contender.to_owned();
        let what = what.clone();
        report.figure(Figure { part: "sync", what, contender, unit, value, ratio: None, more });
    }
}

fn plots(all: &[(Size, Found)], report: &mut Report) {
    let line = |name: &str, pick: fn(&Found) -> &Rounds| Series {
        name: name.to_owned(),
        points: (all.iter())
            .map(|(size, found)| (to_f64(size.endpoints()), pick(found).median()))
            .filter(|(_, value)| *value > 0.0)
            .collect(),
    };
    let series = vec![
        line("all objects, in the kernel", |found| &found.cold_ms),
        line("one slice, from API write", |found| &found.write_ms),
    ];
    let title = "From objects to connections that follow them";
    report.plot("sync", title, "endpoints", "ms", series);
    let series = vec![
        line("agent, now", |found| &found.memory_mib),
        line("agent, peak", |found| &found.memory_peak_mib),
    ];
    report.plot("sync-memory", "Memory of the agent", "endpoints", "MiB", series);
}

fn promises(bench: &Bench, all: &[(Size, Found)], report: &mut Report) {
    let Some((size, found)) = all.last() else { return };
    let mut promise = |what: &str, unit, found: &Rounds, bar, steady| {
        let (what, found) = (format!("{what}, {}", size.name), found.clone());
        let bar = Bar::AtMost(bar);
        report.promise(Promise { what, unit, found, bar, spread_max: 0.5, steady });
    };
    // A smoke run starts it once, which is no measurement.
    if !bench.quick {
        let what = "cold: objects in memory to last service answering";
        promise(what, "ms", &found.cold_ms, 1e3, false);
    }
    promise("event arrived to kernel", "µs", &found.event_us, 1e3, false);
    // A smoke run has a fiftieth of the endpoints: what there is without any must leave room.
    let memory_max = if bench.quick { 110.0 } else { 150.0 };
    promise("agent memory, peak", "MiB", &found.memory_peak_mib, memory_max, true);
    promise("kernel memory an endpoint", "bytes", &found.kernel_bytes, 40.0, true);
    for (size, found) in all {
        let (what, found) = (format!("map operations of one EndpointSlice, {}", size.name), found);
        let (found, bar) = (found.operations.clone(), Bar::AtMost(3.0));
        report.promise(Promise { what, unit: "", found, bar, spread_max: 0.5, steady: true });
    }
}
