//! Changes under load, bad objects beside good ones, and the orderly end.

use crate::backend::Backend;
use crate::harness::{Ingress, ingress, parse, service, wait_until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A client that keeps its connection, as browsers do.
fn load(
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let mut failures = Vec::new();
        let mut stream = TcpStream::connect(address).unwrap();
        while !stop.load(Ordering::Relaxed) {
            let sent = stream.write_all(b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n");
            let mut text = Vec::new();
            let mut buffer = [0; 8192];
            let complete = loop {
                match stream.read(&mut buffer) {
                    Ok(count @ 1..) => text.extend_from_slice(&buffer[..count]),
                    _ => break false,
                }
                let answer = parse(&String::from_utf8_lossy(&text));
                if answer.is_some_and(|answer| {
                    answer.header("content-length") == answer.body.len().to_string()
                }) {
                    break true;
                }
            };
            let text = String::from_utf8_lossy(&text);
            if sent.is_err() || !complete || !text.starts_with("HTTP/1.1 200") {
                failures.push(format!("{sent:?} {text}"));
                stream = TcpStream::connect(address).unwrap();
            } else if text.contains("\r\nConnection: close\r\n") {
                stream = TcpStream::connect(address).unwrap();
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        failures
    })
}

#[test]
fn endpoints_and_routes_change_under_load_without_a_failed_request() {
    let rules = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    let first = Backend::start("0");
    let podium = Ingress::start(
        &[
            ("rules.yaml", rules.trim_start_matches("---\n")),
            ("web.yaml", &service("web", &[&first])),
        ],
        &["--access-log", "off"],
    );
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4).map(|_| load(podium.http, stop.clone(), done.clone())).collect();
    let deadline = Instant::now() + Duration::from_secs(6);
    let mut alive = vec![first];
    for round in 1.. {
        if Instant::now() > deadline {
            break;
        }
        let fresh = Backend::start(&round.to_string());
        alive.push(fresh);
        // As a rollout does it: the new one joins, the old one leaves the list, then it dies.
        let listed: Vec<&Backend> = alive.iter().rev().take(2).collect();
        podium.write("web.yaml", &service("web", &listed));
        let other = ingress("b", "", &[("b.example", &format!("/{round}"), "Exact", "web")]);
        podium.write("other.yaml", other.trim_start_matches("---\n"));
        let newest = alive.last().unwrap();
        wait_until("the new endpoint gets requests", || newest.requests() > 0);
        if alive.len() > 3 {
            alive.remove(0).kill();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let failures: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let count = done.load(Ordering::Relaxed);
    assert!(failures.is_empty(), "{} of {count} failed, first: {}", failures.len(), failures[0]);
    assert!(count > 500, "only {count} requests: not much of a load");
}

/// Killed before anybody took it off the list: retries find the other one.
#[test]
fn a_killed_endpoint_fails_no_idempotent_request() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let manifests = format!(
        "{}{}",
        service("web", &[&one, &two]),
        ingress("a", "", &[("a.example", "/", "Prefix", "web")])
    );
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    for _ in 0..10 {
        assert_eq!(podium.get("a.example", "/").status, 200);
    }
    one.kill();
    for _ in 0..40 {
        let answer = podium.get("a.example", "/");
        assert_eq!((answer.status, answer.seen("backend").as_str()), (200, "two"));
    }
}

#[test]
fn bad_files_and_objects_leave_others_alone() {
    let web = Backend::start("web");
    let good = format!(
        "{}{}",
        service("web", &[&web]),
        ingress("good", "", &[("a.example", "/", "Prefix", "web")])
    );
    let lost = ingress("lost", "", &[("a.example", "/lost", "Prefix", "nowhere")]);
    let podium = Ingress::start(
        &[
            ("good.yaml", &good),
            ("broken.yaml", "kind: [unclosed"),
            (
                "shape.yaml",
                "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: x}\nspec: {rules: 7}\n",
            ),
            ("lost.yaml", lost.trim_start_matches("---\n")),
        ],
        &[],
    );
    assert_eq!(podium.get("a.example", "/").status, 200);
    assert_eq!(podium.get("a.example", "/lost").status, 503);
    let metrics = podium.metrics();
    assert!(
        metrics.contains("podium_ingress_problems{kind=\"File\",severity=\"error\"} 2"),
        "{metrics}"
    );
    assert!(
        metrics.contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 1"),
        "{metrics}"
    );

    // The good file breaks while it is served: what it said stays, until it says something again.
    podium.write("good.yaml", "{{{{");
    wait_until("the broken file is reported", || {
        podium.metrics().contains("kind=\"File\",severity=\"error\"} 3")
    });
    assert_eq!(podium.get("a.example", "/").status, 200);
    podium.write("good.yaml", &good.replace("path: \"/\"", "path: \"/new\""));
    wait_until("the new rule is in effect", || podium.get("a.example", "/").status == 404);
    assert_eq!(podium.get("a.example", "/new").status, 200);
}

#[test]
fn sigterm_finishes_requests_in_progress() {
    let web = Backend::start("web");
    let manifests = format!(
        "{}{}",
        service("web", &[&web]),
        ingress("a", "", &[("a.example", "/", "Prefix", "web")])
    );
    let mut podium = Ingress::start(&[("a.yaml", &manifests)], &["--drain-timeout", "3600"]);
    let address = podium.http;
    let slow = thread::spawn(move || crate::harness::try_get(address, "a.example", "/?sleep=1000"));
    wait_until("the slow request is at the backend", || web.requests() == 1);
    let idle = TcpStream::connect(address).unwrap();
    let pid = podium.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(slow.join().unwrap().unwrap().status, 200);
    // Were the idle connection waited for, the limit of draining would be, which is longer than
    // this test waits.
    let mut ended = None;
    wait_until("it ends, an idle connection being open", || {
        ended = podium.process.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success(), "{ended:?}");
    drop(idle);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn wrong_usage_exits_with_2_and_says_why() {
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_podium-ingress")).args(arguments).output().unwrap()
    };
    for (arguments, said) in [
        (&["run", "--manifests", "/nonexistent"][..], "not a folder"),
        (
            &["run", "--manifests", "/tmp", "--default-backend-service", "nonamespace"],
            "want NAMESPACE/NAME",
        ),
        (&["run", "--manifests", "/tmp", "--use-forwarded-headers"], "--proxy-real-ip-cidr"),
    ] {
        let out = run(arguments);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}
