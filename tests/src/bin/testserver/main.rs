//! What runs in the containers of demo and tests, and the client that measures them: one small static
//! program that acts by its first argument, or by the name it is started under.

mod http;
mod load;
mod serve;
mod tasks;
mod udp;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: testserver serve|gateway [--port N] [--name NAME] [--model HOST:PORT] [--drain-ms N]
       testserver load --url URL [--count N] [--seconds N] [--clients N] [--pause-ms N]
       testserver compare --direct URL,URL... --service URL [--count N]
       testserver udp [--port N]
       testserver ask-udp --to HOST:PORT [--count N]
       testserver tell env:NAME|file:PATH...
       testserver train|hello|pause|sleep SECONDS|fail|exit N";

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<String> = args.collect();
    // The images hold this program under the names that the user's own manifests call.
    let (action, rest) = match name.as_str() {
        "pause" | "hello" => (name.as_str(), args.as_slice()),
        "python" => ("python", args.as_slice()),
        _ => match args.split_first() {
            Some((action, rest)) => (action.as_str(), rest),
            None => return wrong_usage("an action is missing"),
        },
    };
    match run(action, rest) {
        Ok(code) => code,
        Err(message) => wrong_usage(&message),
    }
}

fn wrong_usage(message: &str) -> ExitCode {
    eprintln!("testserver: {message}\n{USAGE}");
    ExitCode::from(2)
}

fn run(action: &str, args: &[String]) -> Result<ExitCode, String> {
    let flags = Flags(args);
    match action {
        "serve" | "gateway" => {
            let drain_ms = flags.number("--drain-ms", 2000)?;
            let model = match action {
                "gateway" => Some(serve::Model::find(flags.text("--model"))?),
                _ => None,
            };
            let name = flags.text("--name").unwrap_or("testserver").to_owned();
            Ok(serve::run(flags.port()?, serve::Server { name, model }, drain_ms))
        }
        "udp" => Ok(udp::echo(flags.port()?)),
        "ask-udp" => {
            let target = flags.text("--to").ok_or("--to is missing")?;
            Ok(udp::ask(target, flags.number("--count", 1)?.min(100_000)))
        }
        "tell" => tasks::tell(args),
        "load" => load::run(&load::Plan {
            url: flags.text("--url").ok_or("--url is missing")?.to_owned(),
            count: flags.number("--count", u64::MAX)?,
            seconds: flags.number("--seconds", 10)?,
            clients: flags.number("--clients", 1)?,
            pause_ms: flags.number("--pause-ms", 0)?,
        }),
        "compare" => load::compare(&load::Comparison {
            direct: flags
                .text("--direct")
                .unwrap_or_default()
                .split(',')
                .map(str::to_owned)
                .collect(),
            service: flags.text("--service").ok_or("--service is missing")?.to_owned(),
            count: flags.number("--count", 200)?.min(100_000),
        }),
        "hello" => Ok(tasks::hello()),
        "pause" => Ok(tasks::pause()),
        "python" => Ok(tasks::python(args)),
        "train" => Ok(tasks::train(3)),
        "sleep" => tasks::sleep(args.first()),
        "fail" => {
            eprintln!("failing as asked");
            Ok(ExitCode::FAILURE)
        }
        "exit" => {
            let code = args.first().ok_or("a code is missing")?;
            code.parse::<u8>().map(ExitCode::from).map_err(|_| format!("{code:?} is no exit code"))
        }
        other => Err(format!("{other:?} is no action")),
    }
}

/// Arguments of the form `--flag value`.
struct Flags<'a>(&'a [String]);

impl Flags<'_> {
    fn text(&self, flag: &str) -> Option<&str> {
        let at = self.0.iter().position(|arg| arg == flag)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, flag: &str, default: u64) -> Result<u64, String> {
        match self.text(flag) {
            Some(text) => text.parse().map_err(|_| format!("{flag}: {text:?} is no number")),
            None => Ok(default),
        }
    }

    fn port(&self) -> Result<u16, String> {
        u16::try_from(self.number("--port", 80)?).map_err(|_| "--port: above 65535".to_owned())
    }
}
