//! The server: tells who answered what, or, as the gateway, asks the model service for each request.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{self, Request};
use crate::tasks;

const CALL_LIMIT: Duration = Duration::from_secs(5);
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// How long requests under way are given after the last one was accepted.
const FINISH_LIMIT: Duration = Duration::from_secs(20);
/// How much work one unit of `/work` is.
const WORK_ROUNDS: u64 = 1_000_000;

/// Who answers.
pub struct Server {
    pub name: String,
    pub model: Option<Model>,
}

/// The service a gateway asks.
pub struct Model {
    authority: String,
}

impl Model {
    /// From the flag, else from the variables Kubernetes gives the pods for Service `ml-model-svc`.
    pub fn find(flag: Option<&str>) -> Result<Self, String> {
        if let Some(authority) = flag {
            return Ok(Self { authority: authority.to_owned() });
        }
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                format!("{name} is not set: create Service ml-model-svc first, or give --model")
            })
        };
        let host = variable("ML_MODEL_SVC_SERVICE_HOST")?;
        let port = variable("ML_MODEL_SVC_SERVICE_PORT")?;
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(Self { authority: format!("{host}:{port}") })
    }
}

/// What all connections share.
struct Shared {
    server: Server,
    draining: AtomicBool,
    running: AtomicUsize,
}

/// Serves until SIGTERM; then goes on for `drain_ms`, in which the endpoint leaves the services,
/// finishes what is under way, and ends.
pub fn run(port: u16, server: Server, drain_ms: u64) -> ExitCode {
    tasks::block_signals();
    let listener = match listen(port) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{} {} serves on port {port}", server.name, pod_name());
    let shared =
        Arc::new(Shared { server, draining: AtomicBool::new(false), running: AtomicUsize::new(0) });
    let accepting = Arc::clone(&shared);
    std::thread::spawn(move || accept(&listener, &accepting));
    tasks::wait_for_end_signal();
    println!("SIGTERM: accepting for another {drain_ms} ms");
    shared.draining.store(true, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(drain_ms));
    let deadline = Instant::now() + FINISH_LIMIT;
    while shared.running.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    ExitCode::SUCCESS
}

/// Both families where the machine has them.
fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            // A client that goes away is not the server's concern.
            let _client_gone = converse(stream, &shared);
        });
    }
}

fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = Request::read(&mut reader)? {
        shared.running.fetch_add(1, Ordering::SeqCst);
        let (status, body) = respond(&request, peer, &shared.server);
        let close = !request.keeps_alive() || shared.draining.load(Ordering::SeqCst);
        let sent = http::answer(&mut stream, status, &body.to_string(), close);
        shared.running.fetch_sub(1, Ordering::SeqCst);
        sent?;
        if close {
            break;
        }
    }
    Ok(())
}

fn respond(request: &Request, peer: SocketAddr, server: &Server) -> (&'static str, Value) {
    let number = |default: u64| request.query.parse().unwrap_or(default);
    match request.path.as_str() {
        "/healthz" => return ("200 OK", json!({"status": "ok", "pod": pod_name()})),
        "/delay" => std::thread::sleep(Duration::from_millis(number(100).min(10_000))),
        "/work" => {
            std::hint::black_box(work(number(1).min(1000)));
        }
        _ => {}
    }
    let headers: BTreeMap<&str, &str> =
        request.headers.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut body = json!({
        "server": server.name,
        "pod": pod_name(),
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "bodyBytes": request.body.len(),
        "peer": peer.to_string(),
    });
    if let Some(model) = &server.model {
        match http::get(&format!("http://{}/predict", model.authority), CALL_LIMIT) {
            Ok((200, text)) => body["model"] = serde_json::from_str(&text).unwrap_or(json!(text)),
            Ok((status, _)) => return bad_gateway(body, &format!("the model answers {status}")),
            Err(error) => return bad_gateway(body, &error.to_string()),
        }
    }
    ("200 OK", body)
}

fn bad_gateway(mut body: Value, why: &str) -> (&'static str, Value) {
    body["error"] = json!(why);
    ("502 Bad Gateway", body)
}

/// Something for a CPU to do: a xorshift of many rounds.
fn work(units: u64) -> u64 {
    (0..units * WORK_ROUNDS).fold(0x9E37_79B9_7F4A_7C15, |mut state: u64, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^ (state << 17)
    })
}

/// Kubernetes sets the host name of a pod to the pod's name.
pub fn pod_name() -> String {
    let name = std::env::var("HOSTNAME").ok();
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.unwrap_or_default().trim().to_owned()
}
