//! How much a client may ask for.

use crate::auth::{get_with, start};
use crate::backend::Backend;
use crate::harness::{Ingress, ingress, parse, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const BEHIND_PROXY: [&str; 3] = ["--use-forwarded-headers", "--proxy-real-ip-cidr", "127.0.0.0/8"];

fn from(podium: &Ingress, host: &str, client: &str) -> u16 {
    get_with(podium, host, "/", &format!("X-Forwarded-For: {client}\r\n")).status
}

/// How many of so many requests are let through; the others are refused with this status.
fn admitted(podium: &Ingress, host: &str, client: &str, requests: usize, refused: u16) -> usize {
    let statuses: Vec<u16> = (0..requests).map(|_| from(podium, host, client)).collect();
    assert!(statuses.iter().all(|status| [200, refused].contains(status)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

#[test]
fn limit_rpm_lets_a_burst_of_five_times_through() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[
            "limit-rpm: 2",
            "limit-rpm: 2\nlimit-burst-multiplier: 1",
            "limit-rpm: many",
            "limit-rpm: 0",
        ],
        "",
        &BEHIND_PROXY,
    );
    // 2 a minute: what leaks while the test runs is no whole request.
    assert_eq!(admitted(&podium, "a.example", "10.0.0.1", 15, 503), 11);
    assert_eq!(admitted(&podium, "a.example", "10.0.0.2", 15, 503), 11, "each client has its own");
    assert_eq!(admitted(&podium, "b.example", "10.0.0.1", 6, 503), 3);
    assert_eq!(
        admitted(&podium, "c.example", "10.0.0.1", 20, 503),
        20,
        "a wrong one limits nothing"
    );
    assert_eq!(admitted(&podium, "d.example", "10.0.0.1", 20, 503), 20);
}

#[test]
fn limit_rps_leaks_with_time() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-rps: 1\nlimit-burst-multiplier: 1"], "", &BEHIND_PROXY);
    let started = Instant::now();
    let passed = admitted(&podium, "a.example", "10.0.0.1", 20, 503);
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    assert!((2..=3 + seconds).contains(&passed), "{passed} in {seconds} s");
    wait_until("a second has passed", || from(&podium, "a.example", "10.0.0.1") == 200);
}

#[test]
fn limit_burst_multiplier_is_at_least_one() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-rpm: 1\nlimit-burst-multiplier: 0"], "", &BEHIND_PROXY);
    assert_eq!(admitted(&podium, "a.example", "10.0.0.1", 10, 503), 6, "the default is used");
    assert!(
        podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 1")
    );
}

#[test]
fn limit_whitelist_frees_clients() {
    let web = Backend::start("web");
    let rpm = "limit-rpm: 1\nlimit-burst-multiplier: 1";
    let podium = start(
        &web,
        &[
            &format!("{rpm}\nlimit-whitelist: 10.0.0.0/24"),
            &format!("{rpm}\nlimit-whitelist: 10.0.0.0/24,nonsense"),
        ],
        "",
        &BEHIND_PROXY,
    );
    for (host, client, passed) in
        [("a.example", "10.0.0.1", 8), ("a.example", "10.0.1.1", 2), ("b.example", "10.0.0.1", 2)]
    {
        assert_eq!(admitted(&podium, host, client, 8, 503), passed, "{host} {client}");
    }
}

#[test]
fn limit_allowlist_is_the_newer_name() {
    let web = Backend::start("web");
    let both = "limit-rpm: 1\nlimit-burst-multiplier: 1\nlimit-allowlist: 10.0.0.0/24\n\
                limit-whitelist: 10.0.1.0/24";
    let podium = start(&web, &[both], "", &BEHIND_PROXY);
    assert_eq!(admitted(&podium, "a.example", "10.0.0.1", 8, 503), 8);
    assert_eq!(admitted(&podium, "a.example", "10.0.1.1", 8, 503), 2);
}

/// A new snapshot is not a new chance.
#[test]
fn limit_rpm_goes_on_through_changes() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-rpm: 1\nlimit-burst-multiplier: 1"], "", &BEHIND_PROXY);
    assert_eq!(admitted(&podium, "a.example", "10.0.0.1", 4, 503), 2);
    let other = ingress("z", "", &[("z.example", "/", "Prefix", "web")]);
    podium.write("z.yaml", other.trim_start_matches("---\n"));
    wait_until("the change is in effect", || podium.get("z.example", "/").status == 200);
    assert_eq!(admitted(&podium, "a.example", "10.0.0.1", 4, 503), 0);
}

#[test]
fn limit_connections_counts_requests_in_progress() {
    let web = Backend::start("web");
    let podium =
        start(&web, &["limit-connections: 2", "limit-connections: two"], "", &BEHIND_PROXY);
    let slow = |host: &str| {
        let mut stream = TcpStream::connect(podium.http).unwrap();
        let request = format!(
            "GET /?sleep=2000 HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let before = web.requests();
    let mut first: Vec<TcpStream> = (0..2).map(|_| slow("a.example")).collect();
    wait_until("both are in progress", || web.requests() == before + 2);
    assert_eq!(from(&podium, "a.example", "10.0.0.1"), 503);
    assert_eq!(from(&podium, "a.example", "10.0.0.2"), 200, "others are not concerned");
    assert_eq!(from(&podium, "b.example", "10.0.0.1"), 200, "a wrong one limits nothing");
    // One is given up by the client, one runs to its end: both count no longer.
    drop(first.pop());
    let mut text = String::new();
    first.pop().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(parse(&text).unwrap().status, 200);
    wait_until("both are free again", || {
        let all: Vec<_> = (0..2).map(|_| slow("a.example")).collect();
        all.into_iter().all(|mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text.starts_with("HTTP/1.1 200")
        })
    });
}

#[test]
fn limit_connections_counts_a_websocket_until_its_end() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-connections: 1"], "", &BEHIND_PROXY);
    let mut socket = TcpStream::connect(podium.http).unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).unwrap();
    let mut buffer = [0; 1024];
    let count = socket.read(&mut buffer).unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 101"));
    assert_eq!(from(&podium, "a.example", "10.0.0.1"), 503);
    socket.write_all(b"x").unwrap();
    assert_eq!(socket.read(&mut buffer).unwrap(), 1, "it still works");
    drop(socket);
    wait_until("it ended", || from(&podium, "a.example", "10.0.0.1") == 200);
}

/// As in nginx, each request of an HTTP/2 connection counts.
#[test]
fn limit_connections_counts_requests_of_one_http_2_connection() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-connections: 2\nssl-redirect: false"], "", &[]);
    let out = Command::new("h2load")
        .args(["-n", "6", "-c", "1", "-m", "6", "--connect-to", &podium.https.to_string()])
        .arg("https://a.example/?sleep=2000")
        .output()
        .expect("h2load is needed: cargo xtask setup");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("status codes: 2 2xx, 0 3xx, 0 4xx, 4 5xx"), "{text}");
}

#[test]
fn limit_rate_leaves_websockets_alone() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-rate: 1"], "", &[]);
    let mut socket = TcpStream::connect(podium.http).unwrap();
    let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n\r\n";
    socket.write_all(upgrade.as_bytes()).unwrap();
    let mut buffer = [0; 1024];
    let count = socket.read(&mut buffer).unwrap();
    assert!(buffer[..count].starts_with(b"HTTP/1.1 101"));
    // At 1 kB a second this would take most of a minute.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut writer = socket.try_clone().unwrap();
    let sending = thread::spawn(move || writer.write_all(&[b'x'; 50_000]).unwrap());
    let mut echoed = vec![0; 50_000];
    socket.read_exact(&mut echoed).unwrap();
    assert!(echoed.iter().all(|byte| *byte == b'X'));
    sending.join().unwrap();
}

/// Headers of 48 kB: the endpoint says what it was sent.
fn long_answer(podium: &Ingress, host: &str) -> Duration {
    let headers: String =
        (0..8).map(|at| format!("X-Long-{at}: {}\r\n", "x".repeat(6000))).collect();
    let started = Instant::now();
    let answer = get_with(podium, host, "/", &headers);
    assert!(answer.status == 200 && answer.body.len() > 48_000, "{}", answer.status);
    started.elapsed()
}

#[test]
fn limit_rate_slows_an_answer_down() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-rate: 16", "limit-rate: slow", "limit-rate: 0"], "", &[]);
    // 16 kB at once, the rest at 16 kB a second.
    assert!(long_answer(&podium, "a.example") >= Duration::from_millis(1800));
    // Nothing is said about how fast the others are; they come whole.
    long_answer(&podium, "b.example");
    long_answer(&podium, "c.example");
    assert!(
        podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 1")
    );
}

#[test]
fn limit_rate_after_begins_later() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &["limit-rate: 8\nlimit-rate-after: 24", "limit-rate: 1\nlimit-rate-after: 1024"],
        "",
        &[],
    );
    // 24 kB and one second's 8 kB at once, the other 16 kB take two seconds.
    assert!(long_answer(&podium, "a.example") >= Duration::from_millis(1800));
    // At 1 kB a second this would take most of a minute.
    assert!(long_answer(&podium, "b.example") < Duration::from_secs(20));
}

/// A body that says its length, and one that only turns out too long.
#[test]
fn proxy_body_size_is_a_megabyte_unless_told() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &["", "proxy-body-size: 1k", "proxy-body-size: 0", "proxy-body-size: big"],
        "",
        &[],
    );
    let post = |host: &str, bytes: usize| {
        let body = "x".repeat(bytes);
        let plain = podium.send(&format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n{body}"
        ));
        let chunked = podium.send(&format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             {bytes:x}\r\n{body}\r\n0\r\n\r\n"
        ));
        assert_eq!(plain.status, chunked.status, "{host} {bytes}");
        plain.status
    };
    for (host, bytes, status) in [
        ("a.example", 1 << 20, 200),
        ("a.example", (1 << 20) + 1, 413),
        ("b.example", 1 << 10, 200),
        ("b.example", (1 << 10) + 1, 413),
        ("c.example", 2 << 20, 200),
        ("d.example", (1 << 20) + 1, 413),
    ] {
        assert_eq!(post(host, bytes), status, "{host} {bytes}");
    }
}

#[test]
fn limit_req_status_code_and_limit_conn_status_code() {
    let web = Backend::start("web");
    let options = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: options}\n\
                   data: {limit-req-status-code: \"429\", limit-conn-status-code: \"420\"}\n";
    let flags = [&BEHIND_PROXY[..], &["--configmap", "default/options"]].concat();
    let podium = start(
        &web,
        &["limit-rpm: 1\nlimit-burst-multiplier: 1", "limit-connections: 1"],
        options,
        &flags,
    );
    assert_eq!(admitted(&podium, "a.example", "10.0.0.1", 5, 429), 2);
    thread::scope(|scope| {
        let before = web.requests();
        let slow = scope.spawn(|| {
            get_with(&podium, "b.example", "/?sleep=1500", "X-Forwarded-For: 10.0.0.1\r\n").status
        });
        wait_until("it is in progress", || web.requests() > before);
        assert_eq!(from(&podium, "b.example", "10.0.0.1"), 420);
        assert_eq!(slow.join().unwrap(), 200);
    });
}

/// All threads share one count, and many clients at once get what is theirs.
#[test]
fn limit_rpm_is_shared_by_all_threads() {
    let web = Backend::start("web");
    let podium = start(&web, &["limit-rpm: 10\nlimit-burst-multiplier: 1"], "", &BEHIND_PROXY);
    let passed: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| admitted(&podium, "a.example", "10.0.0.1", 10, 503)))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    // 11 at once; 10 a minute leak a request in six seconds.
    assert!((11..=13).contains(&passed), "{passed}");
}

#[test]
fn global_rate_limit_is_refused() {
    let web = Backend::start("web");
    let podium = start(&web, &["global-rate-limit: 5\nglobal-rate-limit-window: 1m"], "", &[]);
    assert_eq!(podium.get("a.example", "/").status, 200);
    assert!(
        podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 2")
    );
}
