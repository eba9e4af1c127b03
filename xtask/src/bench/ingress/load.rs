//! Load on a contender: what is asked for, by whom, and what came of it.

use anyhow::Context;
use podium_tests::process::Client;
use serde_json::Value;

use crate::bench::Bench;
use crate::bench::ingress::contender::Contender;
use crate::bench::ingress::ground::Ground;

/// Connections of a client, or at most as many where each has one request only.
const CONNECTIONS: u32 = 32;

/// What is asked for over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Over TLS.
    pub tls: bool,
    /// A connection for each request.
    pub fresh: bool,
    /// Length of the body of the answer.
    pub kib: u32,
}

impl Case {
    /// For tables.
    pub fn name(self) -> String {
        let scheme = if self.tls { "HTTPS" } else { "HTTP" };
        let connection = if self.fresh { "fresh" } else { "kept" };
        format!("{scheme}, {connection} connections, {} KiB", self.kib)
    }

    /// For file names.
    pub fn slug(self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}-{}-{}k", if self.fresh { "fresh" } else { "kept" }, self.kib)
    }
}

/// What came of a run.
pub struct Seen {
    /// All that the load generator printed.
    pub json: Value,
    /// The contender's processor time.
    pub cpu_us: f64,
}

impl Seen {
    /// A number the load generator printed.
    pub fn number(&self, pointer: &str) -> f64 {
        self.json.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// The contender's processor time for each request.
    pub fn cpu_us_each(&self) -> f64 {
        self.cpu_us / self.number("/asked")
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.number("/count") / self.number("/seconds")
    }
}

/// Arguments of the load generator. `rate` is that of the open loop; without it the loop is closed.
pub fn args(contender: &Contender, case: Case, time_ms: u32, rate: Option<u32>) -> Vec<String> {
    let to = if case.tls { contender.https() } else { contender.http() };
    let (hosts, paths) = (contender.routes.hosts, contender.routes.paths);
    let (bytes, warmup_ms) = (case.kib * 1024, time_ms / 10);
    let connections = if case.fresh && rate.is_some() { CONNECTIONS * 8 } else { CONNECTIONS };
    let text = format!(
        "--to {to} --hosts {hosts} --paths {paths} --bytes {bytes} --connections {connections} \
         --warmup-ms {warmup_ms} --time-ms {time_ms}"
    );
    let mut args: Vec<String> = text.split(' ').map(str::to_owned).collect();
    args.extend(rate.iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
    args.extend(case.tls.then(|| "--tls".to_owned()));
    args.extend(case.fresh.then(|| "--fresh".to_owned()));
    args
}

/// Runs the load generator on a contender. A failed request is an error, and so is one without a line in
/// the access log.
pub fn run(
    bench: &Bench,
    ground: &Ground,
    contender: &mut Contender,
    args: &[String],
) -> anyhow::Result<Seen> {
    let before = contender.cpu_us()?;
    let json = ground.generate(bench, args).with_context(|| contender.kind.name())?;
    let used = contender.cpu_us()? - before;
    contender.check_log(json["asked"].as_u64().unwrap_or(u64::MAX))?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a run fit a double exactly")]
    let cpu_us = used as f64;
    Ok(Seen { json, cpu_us })
}

/// Starts the load generator and leaves it alone.
pub fn start(bench: &Bench, ground: &Ground, args: &[String]) -> anyhow::Result<Client> {
    ground.client(bench, args)?.start_client()
}
