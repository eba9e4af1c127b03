//! The measurements of the demo. Clients run on the first node, inside its network namespace and its
//! cgroup, so that their connections meet the kernel programs as any local socket does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use podium_tests::cluster::is_condition_true;
use podium_tests::process::Client;
use podium_tests::wait::wait_until;
use serde_json::Value;

use crate::demo::Demo;
use crate::demo::https;
use crate::demo::outside;
use crate::demo::pods;
use crate::demo::section::Section;

/// One measurement.
pub type Measure = fn(&mut Demo) -> anyhow::Result<Section>;

/// All of them, in the order of the report.
pub const ALL: [Measure; 9] =
    [ingress, https::measure, gateway, spread, latency, kill, delete, job, outside::measure];

const MODEL_SELECTOR: &str = "app=ml-model";
const LOAD_SECONDS: u64 = 8;
const KILL_AFTER: Duration = Duration::from_secs(2);
const POD_LIMIT: Duration = Duration::from_secs(60);
/// How long after the kill requests may still fail: the time until the kernel knows.
const RECOVERY_MS_MAX: u64 = 2000;

fn ingress(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("requests to /app through the ingress");
    let url = format!("http://{}/app", demo.cluster.nodes[0].address);
    let answer = curl(demo, &url)?;
    section.line(format!("GET {url}: pod {} saw the path {}", answer["pod"], answer["path"]));
    section.check(answer["path"] == "/", "rewrite-target: / was applied");
    let seen = load(demo, &["--url", &url, "--count", "40"])?.report()?;
    for line in table(&seen) {
        section.line(line);
    }
    section.check(
        seen["failed"] == 0,
        format!("{} of {} requests failed", seen["failed"], seen["requests"]),
    );
    section.check(pods_in(&seen) == 2, "both user-interface pods answered");
    Ok(section)
}

fn gateway(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section =
        Section::new("a request through gateway (LoadBalancer) to the model (ClusterIP)");
    let address = wait_until("an address for Service gateway", POD_LIMIT, || {
        let service = demo.kubectl.json(&["get", "service", "gateway"]);
        let service = service.map_err(|error| format!("{error:#}"))?;
        let ip = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str();
        ip.map(str::to_owned).ok_or_else(|| "status.loadBalancer is empty".to_owned())
    })?;
    let url = format!("http://{address}/");
    let answer = curl(demo, &url)?;
    section.line(format!("GET {url}: gateway pod {}", answer["pod"]));
    section.line(format!("  which asked the model: pod {}", answer["model"]["pod"]));
    section.check(answer["server"] == "gateway", "a gateway pod answered");
    section.check(answer["model"]["server"] == "ml-serving", "a model pod answered the gateway");
    Ok(section)
}

fn spread(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("how connections to the ClusterIP spread over the model's pods");
    let url = model_url(demo)?;
    let count: u64 = 2000;
    let seen =
        load(demo, &["--url", &url, "--count", &count.to_string(), "--clients", "4"])?.report()?;
    for line in table(&seen) {
        section.line(line);
    }
    let expected = pods::ready(demo, MODEL_SELECTOR)?.len();
    section.check(
        seen["failed"] == 0,
        format!("{} of {} requests failed", seen["failed"], seen["requests"]),
    );
    section.check(pods_in(&seen) == expected, format!("all {expected} pods answered"));
    let fair = count / expected.max(1) as u64;
    let counts = seen["pods"].as_object().into_iter().flatten();
    let even = counts.filter_map(|(_, n)| n.as_u64()).all(|n| n.abs_diff(fair) <= fair * 2 / 5);
    section.check(even, format!("every pod within 40 % of its share of {fair}"));
    Ok(section)
}

fn latency(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("latency of a fresh connection with one request, in turns");
    let direct = pods::ready(demo, MODEL_SELECTOR)?;
    let direct: Vec<String> = direct.iter().map(|pod| format!("http://{}:80/", pod.ip)).collect();
    let service = model_url(demo)?;
    let client = demo.cluster.nodes[0].client(&testserver(demo))?;
    let args = ["compare", "--direct", &direct.join(","), "--service", &service, "--count", "1000"];
    let text = client.args(args).output()?;
    let seen: Value = serde_json::from_str(&text).context("read the comparison")?;
    let number = |who: &str, which: &str| seen[who][which].as_u64().unwrap_or(0);
    for (label, who) in [("to a pod directly", "directUs"), ("through ClusterIP", "serviceUs")] {
        section.line(format!(
            "{label}: median {:4} µs, 90 % {:4} µs, 99 % {:5} µs",
            number(who, "p50"),
            number(who, "p90"),
            number(who, "p99")
        ));
    }
    let ratio_percent = number("serviceUs", "p50") * 100 / number("directUs", "p50").max(1);
    section.line(format!(
        "ClusterIP ÷ direct = {}.{:02} (medians of {} each)",
        ratio_percent / 100,
        ratio_percent % 100,
        seen["count"]
    ));
    section.check(ratio_percent < 150, "the service costs less than half of a connection");
    Ok(section)
}

fn kill(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("a model pod's server killed (SIGKILL) under load");
    let victim = pods::ready(demo, MODEL_SELECTOR)?.into_iter().next().context("no model pod")?;
    let load = model_load(demo)?;
    std::thread::sleep(KILL_AFTER);
    let killed_ms = unix_ms();
    victim.kill_server(demo)?;
    wait_until("the killed container runs again", POD_LIMIT, || {
        let pod = demo.kubectl.json(&["get", "pod", &victim.name]).map_err(|e| format!("{e:#}"))?;
        let status = &pod["status"]["containerStatuses"][0];
        let again = status["restartCount"].as_u64() >= Some(1) && status["ready"] == true;
        if again { Ok(()) } else { Err(format!("its status: {}", status["state"])) }
    })?;
    let back_ms = unix_ms().saturating_sub(killed_ms);
    let seen = load.report()?;
    let last_ms = seen["lastFailureUnixMs"].as_u64().unwrap_or(killed_ms);
    let recovery_ms = last_ms.saturating_sub(killed_ms);
    section.line(format!("killed the server in {} after {} s", victim.name, KILL_AFTER.as_secs()));
    section.line(format!(
        "{} of {} requests failed, the last one sent {recovery_ms} ms after the kill",
        seen["failed"], seen["requests"]
    ));
    for failure in seen["failures"].as_array().into_iter().flatten().take(3) {
        section.line(format!("  such as: {}", failure["why"].as_str().unwrap_or_default()));
    }
    section.line(format!("its container was restarted and seen ready {back_ms} ms after the kill"));
    section.check(
        recovery_ms <= RECOVERY_MS_MAX,
        format!("0 failed later than {RECOVERY_MS_MAX} ms after the kill: the kernel knew"),
    );
    Ok(section)
}

fn delete(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("a model pod deleted with kubectl under load");
    let victim = pods::ready(demo, MODEL_SELECTOR)?.into_iter().last().context("no model pod")?;
    let expected = pods::ready(demo, MODEL_SELECTOR)?.len();
    let load = model_load(demo)?;
    std::thread::sleep(KILL_AFTER);
    demo.kubectl.run(&["delete", "pod", &victim.name, "--wait=false"])?;
    let seen = load.report()?;
    section.line(format!("deleted {} after {} s", victim.name, KILL_AFTER.as_secs()));
    for failure in seen["failures"].as_array().into_iter().flatten().take(3) {
        section.line(format!("failed: {}", failure["why"].as_str().unwrap_or_default()));
    }
    section.check(
        seen["failed"] == 0,
        format!("{} of {} requests failed", seen["failed"], seen["requests"]),
    );
    wait_until("the deleted pod is replaced", POD_LIMIT, || {
        let now = pods::ready(demo, MODEL_SELECTOR).map_err(|error| format!("{error:#}"))?;
        let replaced = now.len() == expected && now.iter().all(|pod| pod.name != victim.name);
        if replaced { Ok(()) } else { Err(format!("{} of {expected} ready", now.len())) }
    })?;
    section.check(true, "it was replaced");
    Ok(section)
}

fn job(demo: &mut Demo) -> anyhow::Result<Section> {
    let mut section = Section::new("the training Job");
    let job = wait_until("Job model-train-job completes", POD_LIMIT, || {
        let job = demo.kubectl.json(&["get", "job", "model-train-job"]);
        let job = job.map_err(|error| format!("{error:#}"))?;
        let complete = is_condition_true(&job, "Complete");
        if complete { Ok(job) } else { Err(format!("its status: {}", job["status"])) }
    })?;
    let log = demo.kubectl.run(&["logs", "job/model-train-job"])?;
    for line in log.lines() {
        section.line(line);
    }
    section.check(job["status"]["succeeded"] == 1, "one pod succeeded");
    section.check(log.contains("training finished"), "kubectl logs shows its end");
    Ok(section)
}

/// A load client under way.
struct Load(Client);

impl Load {
    fn report(self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.0.finish()?).context("read the report of the load client")
    }
}

fn load(demo: &Demo, args: &[&str]) -> anyhow::Result<Load> {
    let client = demo.cluster.nodes[0].client(&testserver(demo))?;
    Ok(Load(client.args(["load"]).args(args).start_client()?))
}

fn model_load(demo: &Demo) -> anyhow::Result<Load> {
    let (url, seconds) = (model_url(demo)?, LOAD_SECONDS.to_string());
    load(demo, &["--url", &url, "--seconds", &seconds, "--clients", "4", "--pause-ms", "5"])
}

fn testserver(demo: &Demo) -> std::path::PathBuf {
    demo.cluster.binaries().static_testserver()
}

fn model_url(demo: &Demo) -> anyhow::Result<String> {
    let service = demo.kubectl.json(&["get", "service", "ml-model-svc"])?;
    let ip = service["spec"]["clusterIP"].as_str().context("ml-model-svc has no clusterIP")?;
    Ok(format!("http://{ip}/"))
}

fn curl(demo: &Demo, url: &str) -> anyhow::Result<Value> {
    let curl = demo.cluster.nodes[0].client("curl".as_ref())?;
    let text =
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "5", url]).output()?;
    serde_json::from_str(&text).with_context(|| format!("read the answer of {url}"))
}

/// How many pods answered.
pub fn pods_in(seen: &Value) -> usize {
    seen["pods"].as_object().map_or(0, serde_json::Map::len)
}

/// Pods and their counts, with bars.
pub fn table(seen: &Value) -> Vec<String> {
    let counts: Vec<(&String, u64)> = seen["pods"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(pod, count)| (pod, count.as_u64().unwrap_or(0)))
        .collect();
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let bar = |count: u64| "█".repeat(usize::try_from(count * 30 / most).unwrap_or(0));
    counts.iter().map(|(pod, count)| format!("{pod:<36} {count:>5} {}", bar(*count))).collect()
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
