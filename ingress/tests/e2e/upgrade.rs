//! A new process takes over the sockets of a running one: nothing is dropped, and failures harm nobody.

use crate::backend::Backend;
use crate::harness::{Ingress, ingress, parse, service, try_get, wait_until};
use crate::tls::{Pair, certificate, secret};
use crate::tls_client;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A process started beside a running one, ended with the test.
struct Successor(Child);

impl Drop for Successor {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn path(podium: &Ingress) -> String {
    podium.folder.path().join("upgrade.sock").to_str().unwrap().into()
}

/// The flags of the running process, and more.
fn succeed(podium: &Ingress, http: &[SocketAddr], more: &[&str]) -> Successor {
    let folder = podium.folder.path().to_str().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podium-ingress"));
    command
        .args(["run", "--watch-ingress-without-class", "--ingress-class", "nginx"])
        .args(["--worker-threads", "2", "--access-log", "off", "--manifests", folder])
        .args(["--https-bind-address", &podium.https.to_string()])
        .args(["--status-bind-address", &podium.status.to_string()])
        .args(["--upgrade-socket", &path(podium)])
        .args(more)
        .stdout(Stdio::null());
    for address in http {
        command.args(["--http-bind-address", &address.to_string()]);
    }
    Successor(command.spawn().unwrap())
}

fn start(web: &Backend) -> (Ingress, Pair) {
    let pair = certificate(&["a.example"]);
    let rules = ingress(
        "a",
        r#""nginx.ingress.kubernetes.io/ssl-redirect": "false""#,
        &[("a.example", "/", "Prefix", "web")],
    );
    let rules = rules.replace("spec:\n", "spec:\n  tls: [{secretName: one}]\n");
    let manifests = format!("{}{rules}---\n{}", service("web", &[web]), secret("one", &pair));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), manifests).unwrap();
    let source = folder.path().to_str().unwrap().to_string();
    let socket = folder.path().join("upgrade.sock");
    let flags = ["--upgrade-socket", socket.to_str().unwrap(), "--access-log", "off"];
    (Ingress::start_from(folder, &["--manifests", &source], &flags), pair)
}

/// Clients that ask until they are told to stop. Every answer that is not complete is a failure.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn new() -> Load {
        Load { stop: Arc::default(), done: Arc::default(), clients: Vec::new() }
    }

    fn add<S: Read + Write>(
        &mut self,
        what: &'static str,
        keeps: bool,
        connect: impl Fn() -> S + Send + 'static,
    ) {
        let (stop, done) = (self.stop.clone(), self.done.clone());
        self.clients.push(thread::spawn(move || {
            let (mut failures, mut stream) = (Vec::new(), None);
            while !stop.load(Ordering::Relaxed) {
                let mut open = stream.take().unwrap_or_else(&connect);
                match ask(&mut open, keeps) {
                    Ok(closes) => stream = Some(open).filter(|_| keeps && !closes),
                    Err(why) => failures.push(format!("{what}: {why}")),
                }
                done.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            failures
        }));
    }

    /// Waits until every client had answers since.
    fn goes_on(&self) {
        let target = self.done.load(Ordering::Relaxed) + 200;
        wait_until("clients get answers", || self.done.load(Ordering::Relaxed) >= target);
    }

    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (self.done.load(Ordering::Relaxed), failures)
    }
}

/// One request; whether the server ends the connection after its answer.
fn ask(stream: &mut (impl Read + Write), keeps: bool) -> Result<bool, String> {
    let close = if keeps { "" } else { "Connection: close\r\n" };
    let request = format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{close}\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| format!("writing: {error}"))?;
    stream.flush().map_err(|error| format!("flushing: {error}"))?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
            other => return Err(format!("{other:?} after {:?}", String::from_utf8_lossy(&bytes))),
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some(answer) = parse(&text) else { continue };
        if answer.header("content-length") == answer.body.len().to_string() {
            let closes = answer.header("connection").eq_ignore_ascii_case("close");
            return if answer.status == 200 { Ok(closes) } else { Err(text.into_owned()) };
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn is_ready(podium: &Ingress) -> bool {
    try_get(podium.status, "status", "/healthz").is_some_and(|answer| answer.status == 200)
}

#[test]
fn three_upgrades_under_load_drop_nothing() {
    let web = Backend::start("web");
    let (mut podium, pair) = start(&web);
    let (http, https, status) = (podium.http, podium.https, podium.status);
    let mut load = Load::new();
    let chain = Arc::new(pair.chain.clone());
    let secure = move || tls_client::connect(https, "a.example", &chain, "http/1.1");
    for _ in 0..2 {
        load.add("kept", true, move || connect(http));
        load.add("fresh", false, move || connect(http));
        load.add("kept, TLS", true, secure.clone());
        load.add("fresh, TLS", false, secure.clone());
    }
    // Answers that take longer than an upgrade, and a request that is not complete yet.
    let slow: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(move || {
                let mut stream = connect(http);
                let request =
                    "GET /?sleep=6000 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
                stream.write_all(request.as_bytes()).unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).map(|_| text)
            })
        })
        .collect();
    let mut half = connect(http);
    half.write_all(b"GET /x HTTP/1.1\r\nHost: a.exam").unwrap();
    load.goes_on();

    let mut running: Option<Successor> = None;
    for round in 0..3 {
        let next = succeed(&podium, &[http], &[]);
        // The old process says itself that it was succeeded: it ends.
        let old_id = running.as_ref().map_or(podium.process.id(), |running| running.0.id());
        let metrics = || try_get(status, "status", "/metrics").is_some();
        wait_until("the status port answers", metrics);
        load.goes_on();
        if round == 0 {
            half.write_all(b"ple\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            half.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        }
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        match &mut running {
            None => wait_until("the first process ends", || ended(&mut podium.process)),
            Some(old) => wait_until("the old process ends", || ended(&mut old.0)),
        }
        assert_ne!(old_id, next.0.id());
        running = Some(next);
        load.goes_on();
        assert!(is_ready(&podium), "round {round}");
    }
    for client in slow {
        let text = client.join().unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    let (done, failures) = load.end();
    assert!(failures.is_empty(), "{} of {done} failed: {:#?}", failures.len(), &failures[..1]);
}

#[test]
fn a_new_process_that_fails_harms_nobody() {
    let web = Backend::start("web");
    let (mut podium, _) = start(&web);
    // It cannot have this address, and ends before it is ready.
    let taken = std::net::TcpListener::bind((podium.http.ip(), 0)).unwrap();
    let mut next = succeed(&podium, &[podium.http, taken.local_addr().unwrap()], &[]);
    wait_until("the new process gives up", || next.0.try_wait().unwrap().is_some());
    // Another waits for a cluster that is not there, and is killed.
    let mut stuck = Command::new(env!("CARGO_BIN_EXE_podium-ingress"))
        .args(["run", "--manifests", "/nonexistent-folder"])
        .args(["--upgrade-socket", &path(&podium)])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(stuck.kill());
    drop(stuck.wait());
    assert!(podium.process.try_wait().unwrap().is_none() && is_ready(&podium));
    assert_eq!(podium.get("a.example", "/x").status, 200);
    // And a third takes over as if nothing had been.
    let _next = succeed(&podium, &[podium.http], &[]);
    wait_until("the old process ends", || podium.process.try_wait().unwrap().is_some());
    assert_eq!(podium.get("a.example", "/x").status, 200);
}

#[test]
fn a_new_process_may_serve_other_addresses() {
    let web = Backend::start("web");
    let (mut podium, _) = start(&web);
    let more = SocketAddr::new(podium.http.ip(), 8081);
    let _both = succeed(&podium, &[podium.http, more], &[]);
    wait_until("the old process ends", || podium.process.try_wait().unwrap().is_some());
    for address in [podium.http, more] {
        assert_eq!(try_get(address, "a.example", "/x").unwrap().status, 200, "{address}");
    }
    let _one = succeed(&podium, &[more], &[]);
    wait_until("the first address is given up", || TcpStream::connect(podium.http).is_err());
    assert_eq!(try_get(more, "a.example", "/x").unwrap().status, 200);
}
