//! Listening to decisions.

use std::{
    net::UdpSocket,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use podium_proxy::datapath::pins::PinDir;
use podium_proxy_ebpf::{Monitor, maps::MONITOR};

use crate::node::{Node, PATIENCE, ask, eventually, serve_tcp, service, slice};

const PROGRAM: &str = env!("CARGO_BIN_EXE_podium-proxy");

fn monitor(node: &Node, args: &[&str]) -> Child {
    Command::new(PROGRAM)
        .args(["monitor", "--pin-dir"])
        .arg(node.pin_dir())
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn end(child: Child, with: Signal) -> (Option<i32>, String) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), with).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Waits for a listener that ends by itself.
fn ended(mut child: Child) -> Output {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    child.wait_with_output().unwrap()
}

/// What the programs are told.
fn lease(node: &Node) -> Monitor {
    let (set, _) = PinDir::new(node.pin_dir()).current().unwrap();
    let data = MapData::from_pin(set.join(MONITOR)).and_then(Map::from_map_data).unwrap();
    Array::<_, Monitor>::try_from(data).unwrap().get(&0, 0).unwrap()
}

fn listens(node: &Node) {
    eventually("the monitor listens", || lease(node).until_ns != 0);
}

#[test]
fn kernel_monitor_leases_the_programs_attention() {
    let mut node = Node::new("lease");
    node.start();
    assert_eq!(lease(&node), Monitor::default(), "off by default");
    let first = monitor(&node, &["--one-in", "50"]);
    listens(&node);
    let before = lease(&node);
    assert_eq!(before.one_in, 50);
    let second = monitor(&node, &[]);
    let second = ended(second);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(said, "podium-proxy: another podium-proxy monitor listens already\n");
    eventually("the lease is renewed", || lease(&node).until_ns > before.until_ns);
    assert_eq!(end(first, Signal::SIGTERM).0, Some(0));
    assert_eq!(lease(&node), Monitor::default(), "given back");
    let third = monitor(&node, &[]);
    listens(&node);
    end(third, Signal::SIGKILL);
    let left = lease(&node);
    assert!(left.until_ns != 0, "nobody gave it back");
    // Not renewed by anybody: it runs out.
    let fourth = monitor(&node, &[]);
    eventually("the next one listens", || lease(&node).until_ns > left.until_ns);
    assert_eq!(end(fourth, Signal::SIGINT).0, Some(0));
}

fn services() -> String {
    service("web", "10.96.0.10", 80, "")
        + &slice("web", "IPv4", 8080, &["127.0.0.1"])
        + &service("none", "10.96.0.11", 80, "")
        + &slice("none", "IPv4", 8080, &[])
}

/// Everything after the time.
fn decisions(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split_once(' ').unwrap().1).collect()
}

#[test]
fn kernel_monitor_shows_decisions_of_sockets() {
    let mut node = Node::new("monitor");
    serve_tcp("127.0.0.1:8080");
    node.manifest("all.yaml", &services());
    node.start();
    node.in_pod(|| ask("10.96.0.10:80"));
    let listener = monitor(&node, &["--count", "4"]);
    listens(&node);
    node.in_pod(|| {
        ask("10.96.0.10:80");
        ask("10.96.0.11:80");
        ask("10.96.0.10:81");
        ask("127.0.0.1:8080");
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        format!("{:?}", socket.send_to(b"?", "10.96.0.10:80"))
    });
    let text = String::from_utf8(ended(listener).stdout).unwrap();
    assert_eq!(
        decisions(&text),
        [
            "socket tcp -> 10.96.0.10:80 socket-connected default/web:a endpoint 127.0.0.1:8080",
            "socket tcp -> 10.96.0.11:80 no-endpoints default/none:a",
            "socket tcp -> 10.96.0.10:81 unknown-port",
            "socket udp -> 10.96.0.10:80 socket-connected default/web:b endpoint 127.0.0.1:8080",
        ],
        "what was decided before and what is no service's is not there"
    );
}

#[test]
fn kernel_monitor_of_one_service_or_outcome() {
    let mut node = Node::new("monitor_one");
    serve_tcp("127.0.0.1:8080");
    node.manifest("all.yaml", &services());
    node.start();
    let calls = || {
        for at in ["10.96.0.11:80", "10.96.0.10:80", "10.96.0.11:80", "10.96.0.10:81"] {
            ask(at);
        }
        String::new()
    };
    let said = |args: &[&str]| {
        let listener = monitor(&node, args);
        listens(&node);
        node.in_pod(calls);
        let output = ended(listener);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let none = said(&["--service", "default/none", "--count", "2"]);
    let refused = "socket tcp -> 10.96.0.11:80 no-endpoints default/none:a";
    assert_eq!(decisions(&none), [refused, refused]);
    let json = said(&["--outcome", "socket-connected", "--count", "1", "-o", "json"]);
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&line["service"], &line["endpoint"]), (&"web".into(), &"127.0.0.1:8080".into()));
    let wrong = ended(monitor(&node, &["--outcome", "good"]));
    assert_eq!(wrong.status.code(), Some(2));
}
