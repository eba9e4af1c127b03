//! The client and the server of the benchmarks: as little as possible besides the connections that are
//! measured. Prints what it saw as one JSON object.

mod client;
mod http;
mod poll;
mod seen;
mod server;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const USAGE: &str = "\
usage: loadgen serve --listen IP:PORT[,IP:PORT...]
       loadgen tcp-fresh|tcp-kept|udp --to IP:PORT[,IP:PORT...] --count N [--warmup N]
       loadgen tcp-fresh|tcp-kept|udp --to IP:PORT[,IP:PORT...] --seconds N [--clients N]
       loadgen who --to IP:PORT[,IP:PORT...] --count N
       loadgen http-serve --listen IP:PORT
       loadgen http --to IP:PORT [--tls] [--fresh] [--hosts N] [--paths N] [--bytes N]
                    [--connections N] [--rate N] [--warmup-ms N] --time-ms N
every one of them with --cpu N to stay on one processor";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("loadgen: {message}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<String, String> {
    let (action, flags) = args.split_first().ok_or("an action is missing")?;
    let flags = Flags(flags);
    stay_on(flags.text("--cpu"))?;
    match action.as_str() {
        "serve" => {
            let listen = flags.addresses("--listen")?;
            return server::serve(&listen)
                .map_err(|error| format!("serving on {listen:?}: {error}"));
        }
        "http-serve" => {
            let listen = flags.addresses("--listen")?[0];
            return http::serve::serve(listen)
                .map_err(|error| format!("serving on {listen}: {error}"));
        }
        "http" => {
            let seen = http::load(&flags.habit()?).map_err(|error| format!("http: {error}"))?;
            return Ok(seen.to_string());
        }
        _ => {}
    }
    let targets = flags.addresses("--to")?;
    if action == "who" {
        let seen = client::who(&targets, flags.number("--count", 1)?.min(1_000));
        return seen.map(|seen| seen.to_string()).map_err(|error| format!("{action}: {error}"));
    }
    let exchange = match action.as_str() {
        "tcp-fresh" => client::Exchange::TcpFresh,
        "tcp-kept" => client::Exchange::TcpKept,
        "udp" => client::Exchange::Udp,
        other => return Err(format!("{other:?} is no action")),
    };
    let seen = match flags.number("--count", 0)? {
        0 => {
            let seconds = flags.number("--seconds", 0)?;
            let clients = flags.number("--clients", 1)?;
            if !(1..=120).contains(&seconds) || !(1..=64).contains(&clients) {
                return Err("want --count, or --seconds up to 120 and --clients up to 64".into());
            }
            client::for_time(exchange, &targets, Duration::from_secs(seconds), clients)
        }
        count if count > 1_000_000 => return Err("--count is at most 1000000".into()),
        count => client::for_count(exchange, &targets, count, flags.number("--warmup", 0)?),
    };
    seen.map(|seen| seen.to_string()).map_err(|error| format!("{action}: {error}"))
}

/// Keeps this process on one processor.
fn stay_on(cpu: Option<&str>) -> Result<(), String> {
    let Some(text) = cpu else { return Ok(()) };
    let cpu = text.parse().map_err(|_| format!("--cpu: {text:?} is no number"))?;
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| format!("staying on processor {cpu}: {error}"))
}

/// Arguments of the form `--flag value`.
struct Flags<'a>(&'a [String]);

impl Flags<'_> {
    fn text(&self, flag: &str) -> Option<&str> {
        let at = self.0.iter().position(|arg| arg == flag)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn addresses(&self, flag: &str) -> Result<Vec<SocketAddr>, String> {
        let text = self.text(flag).ok_or_else(|| format!("{flag} is missing"))?;
        let parse = |one: &str| one.parse().map_err(|_| format!("{flag}: {one:?} is no IP:PORT"));
        text.split(',').map(parse).collect()
    }

    fn number(&self, flag: &str, default: u64) -> Result<u64, String> {
        match self.text(flag) {
            Some(text) => text.parse().map_err(|_| format!("{flag}: {text:?} is no number")),
            None => Ok(default),
        }
    }

    fn small<T: TryFrom<u64>>(&self, flag: &str, default: u64) -> Result<T, String> {
        T::try_from(self.number(flag, default)?).map_err(|_| format!("{flag} is too large"))
    }

    fn is_set(&self, flag: &str) -> bool {
        self.0.iter().any(|arg| arg == flag)
    }

    fn habit(&self) -> Result<http::Habit, String> {
        let to = self.addresses("--to")?[0];
        let rate = self.small("--rate", 0)?;
        let time_ms = self.number("--time-ms", 0)?;
        let connections = self.small("--connections", 32)?;
        if !(1..=120_000).contains(&time_ms) || !(1..=4096).contains(&connections) {
            return Err("want --time-ms up to 120000 and --connections up to 4096".into());
        }
        Ok(http::Habit {
            to,
            tls: self.is_set("--tls"),
            fresh: self.is_set("--fresh"),
            hosts: self.small("--hosts", 1)?,
            paths: self.small("--paths", 1)?,
            bytes: self.small("--bytes", 1024)?,
            connections,
            rate: Some(rate).filter(|rate| *rate > 0),
            warmup: Duration::from_millis(self.number("--warmup-ms", 0)?),
            time: Duration::from_millis(time_ms),
        })
    }
}
