//! The load client: a fresh connection for every request, bounded by count and by time, with what it
//! saw as one JSON object on standard output.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http;

const REQUEST_LIMIT: Duration = Duration::from_secs(3);
/// How many failures are told one by one.
const FAILURES_SHOWN: usize = 20;

/// What to send.
pub struct Plan {
    pub url: String,
    pub count: u64,
    pub seconds: u64,
    pub clients: u64,
    pub pause_ms: u64,
}

/// What to compare: the same request to each pod directly and through the service.
pub struct Comparison {
    pub direct: Vec<String>,
    pub service: String,
    pub count: u64,
}

/// Asks directly and through the service in turns, so that both see the same machine, and prints
/// the latencies of a fresh connection with its request.
pub fn compare(comparison: &Comparison) -> Result<ExitCode, String> {
    let (mut direct_us, mut service_us) = (Vec::new(), Vec::new());
    for url in comparison.direct.iter().cycle().take(usize::try_from(comparison.count).unwrap_or(0))
    {
        direct_us.push(timed_us(url)?);
        service_us.push(timed_us(&comparison.service)?);
    }
    direct_us.sort_unstable();
    service_us.sort_unstable();
    let report = json!({"count": direct_us.len(), "directUs": percentiles(&direct_us),
                        "serviceUs": percentiles(&service_us)});
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

fn timed_us(url: &str) -> Result<u128, String> {
    let started = Instant::now();
    match http::get(url, REQUEST_LIMIT) {
        Ok((200, _)) => Ok(started.elapsed().as_micros()),
        Ok((status, _)) => Err(format!("{url}: status {status}")),
        Err(error) => Err(format!("{url}: {error}")),
    }
}

/// Of a sorted list; null where it is empty.
fn percentiles(sorted: &[u128]) -> Value {
    let at =
        |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().max(1) - 1));
    json!({"p50": at(50), "p90": at(90), "p99": at(99)})
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u128>,
    pods: BTreeMap<String, u64>,
    /// The addresses that pods took the requests to come from.
    sources: BTreeMap<String, u64>,
    failures: Vec<(u128, String)>,
}

/// Sends the load and prints the report.
pub fn run(plan: &Plan) -> Result<ExitCode, String> {
    if plan.seconds > 600 || plan.clients > 256 {
        return Err("--seconds is at most 600 and --clients at most 256".to_owned());
    }
    let taken = AtomicU64::new(0);
    let started = Instant::now();
    let deadline = started + Duration::from_secs(plan.seconds);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..plan.clients).map(|_| scope.spawn(|| client(plan, &taken, deadline))).collect();
        clients.into_iter().filter_map(|client| client.join().ok()).collect()
    });
    println!("{}", report(seen, started.elapsed()));
    Ok(ExitCode::SUCCESS)
}

fn client(plan: &Plan, taken: &AtomicU64, deadline: Instant) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < deadline && taken.fetch_add(1, Ordering::Relaxed) < plan.count {
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let started = Instant::now();
        match http::get(&plan.url, REQUEST_LIMIT) {
            Ok((200, body)) => {
                seen.latencies_us.push(started.elapsed().as_micros());
                let answer: Value = serde_json::from_str(&body).unwrap_or_default();
                let pod = answer["pod"].as_str().unwrap_or("unknown").to_owned();
                *seen.pods.entry(pod).or_default() += 1;
                if let Some(Ok(peer)) = answer["peer"].as_str().map(str::parse::<SocketAddr>) {
                    // IPv4 shows itself in IPv6 form to sockets of both.
                    let source = peer.ip().to_canonical().to_string();
                    *seen.sources.entry(source).or_default() += 1;
                }
            }
            Ok((status, _)) => seen.failures.push((at_ms, format!("status {status}"))),
            Err(error) => seen.failures.push((at_ms, error.to_string())),
        }
        if plan.pause_ms > 0 {
            std::thread::sleep(Duration::from_millis(plan.pause_ms));
        }
    }
    seen
}

fn report(all: Vec<Seen>, elapsed: Duration) -> Value {
    let mut total = Seen::default();
    for seen in all {
        total.latencies_us.extend(seen.latencies_us);
        total.failures.extend(seen.failures);
        for (pod, count) in seen.pods {
            *total.pods.entry(pod).or_default() += count;
        }
        for (source, count) in seen.sources {
            *total.sources.entry(source).or_default() += count;
        }
    }
    total.latencies_us.sort_unstable();
    total.failures.sort();
    let failures: Vec<Value> = total
        .failures
        .iter()
        .take(FAILURES_SHOWN)
        .map(|(at_ms, why)| json!({"atUnixMs": at_ms, "why": why}))
        .collect();
    json!({
        "requests": total.latencies_us.len() + total.failures.len(),
        "failed": total.failures.len(),
        "firstFailureUnixMs": total.failures.first().map(|(at_ms, _)| at_ms),
        "lastFailureUnixMs": total.failures.last().map(|(at_ms, _)| at_ms),
        "failures": failures,
        "latencyUs": percentiles(&total.latencies_us),
        "pods": total.pods,
        "sources": total.sources,
        "seconds": elapsed.as_secs_f64(),
    })
}
