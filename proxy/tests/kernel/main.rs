//! The agent and its programs in the real kernel. Need root, cgroup v2 and iproute2, and fail
//! where they lack it; `--skip kernel_` leaves them out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod maps;
mod node;

use std::{
    collections::BTreeMap,
    net::{TcpStream, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use node::{Node, ask, eventually, serve_tcp, serve_udp, service, slice};
use podium_proxy::{
    datapath::{kernel, pins::PinDir, programs::PACKET_PROGRAMS},
    plan::held::Limits,
};

const SERVERS: [&str; 3] = ["127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.3:8080"];
const IPS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

fn three_endpoints(more: &str) -> String {
    service("web", "10.96.0.10", 80, more) + &slice("web", "IPv4", 8080, &IPS)
}

fn serve_three() {
    SERVERS.iter().for_each(|at| serve_tcp(at));
    SERVERS.iter().for_each(|at| serve_udp(at));
}

/// How often each answer came.
fn tally(text: &str) -> BTreeMap<String, usize> {
    text.lines().fold(BTreeMap::new(), |mut counts, line| {
        *counts.entry(line.to_owned()).or_default() += 1;
        counts
    })
}

fn ask_often(at: &str, times: usize) -> String {
    (0..times).map(|_| ask(at) + "\n").collect()
}

#[test]
fn kernel_tcp_v4_spreads_over_endpoints() {
    let mut node = Node::new("tcp4");
    serve_three();
    node.manifest("web.yaml", &three_endpoints("externalIPs: [192.0.2.7]"));
    node.start();
    let counts = tally(&node.in_pod(|| ask_often("10.96.0.10:80", 300)));
    println!("{counts:?}");
    assert_eq!(counts.keys().collect::<Vec<_>>(), SERVERS.iter().collect::<Vec<_>>());
    assert!(counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
    assert!(node.in_pod(|| ask("192.0.2.7:80")).ends_with(":8080"), "external address");
    let peer = node.in_pod(|| {
        let stream = TcpStream::connect("10.96.0.10:80").unwrap();
        stream.peer_addr().unwrap().to_string()
    });
    assert_eq!(peer, "10.96.0.10:80", "getpeername");
    let shown = node.shown(&["status", "-o", "json"]);
    assert!(shown.contains("\"hits\": 302"), "{shown}");
    assert!(node.shown(&["trace", "10.96.0.10:80"]).contains("one of these 3 at random"));
}

#[test]
fn kernel_tcp_v6_and_v4_mapped() {
    let mut node = Node::new("tcp6");
    serve_tcp("127.0.0.1:8080");
    serve_tcp("[::1]:8080");
    let dual = service("web", "10.96.0.10", 80, "clusterIPs: [\"10.96.0.10\", \"fd00:96::10\"]")
        + &slice("web", "IPv4", 8080, &["127.0.0.1"])
        + &slice("web", "IPv6", 8080, &["::1"]);
    node.manifest("web.yaml", &dual);
    node.start();
    assert_eq!(node.in_pod(|| ask("[fd00:96::10]:80")), "[::1]:8080");
    assert_eq!(node.in_pod(|| ask("[::ffff:10.96.0.10]:80")), "127.0.0.1:8080");
    let peers = node.in_pod(|| {
        let peer = |at: &str| TcpStream::connect(at).unwrap().peer_addr().unwrap().to_string();
        peer("[fd00:96::10]:80") + " " + &peer("[::ffff:10.96.0.10]:80")
    });
    assert_eq!(peers, "[fd00:96::10]:80 [::ffff:10.96.0.10]:80");
}

#[test]
fn kernel_refuses_at_once_without_endpoints_or_port() {
    let mut node = Node::new("refuse");
    serve_three();
    let far = service("far", "10.96.0.12", 80, "internalTrafficPolicy: Local")
        + &slice("far", "IPv4", 8080, &["127.0.0.1@node-b"]);
    let none = service("none", "10.96.0.11", 80, "") + &slice("none", "IPv4", 8080, &[]);
    node.manifest("all.yaml", &(three_endpoints("") + &none + &far));
    node.start();
    // What is not refused at once but lost would be told as `TimedOut`.
    assert_eq!(node.in_pod(|| ask("10.96.0.11:80")), "ConnectionRefused", "no endpoints");
    assert_eq!(node.in_pod(|| ask("10.96.0.10:81")), "ConnectionRefused", "unknown port");
    assert_eq!(node.in_pod(|| ask("10.96.0.12:80")), "HostUnreachable", "none on this node");
    assert_eq!(node.in_pod(|| ask("10.97.0.1:80")), "NetworkUnreachable", "not a service");
    assert_eq!(node.in_pod(|| ask("127.0.0.1:8080")), "127.0.0.1:8080", "not a service");
    let datagram = node.in_pod(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let kind = |at: &str| format!("{:?}", socket.send_to(b"?", at).unwrap_err().kind());
        kind("10.96.0.11:80") + " " + &kind("10.96.0.10:81")
    });
    assert_eq!(datagram, "ConnectionRefused ConnectionRefused");
    assert!(node.shown(&["trace", "10.96.0.11:80"]).contains("no endpoints"));
    assert!(node.shown(&["trace", "10.96.0.10:81/udp"]).contains("none of its ports"));
    assert!(node.shown(&["trace", "10.97.0.1:80"]).contains("untouched"));
}

fn ask_datagram(socket: &UdpSocket, at: &str) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(b"?", at).unwrap();
    let mut buffer = [0; 64];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    format!("{} from {from}", String::from_utf8_lossy(&buffer[..len]))
}

#[test]
fn kernel_udp_unconnected_shows_the_service_address() {
    let mut node = Node::new("udp");
    serve_three();
    serve_udp("[::1]:8080");
    let six = service("six", "fd00:96::10", 80, "") + &slice("six", "IPv6", 8080, &["::1"]);
    node.manifest("all.yaml", &(three_endpoints("") + &six));
    node.start();
    let answers = node.in_pod(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..10).map(|_| ask_datagram(&socket, "10.96.0.10:80") + "\n").collect()
    });
    let counts = tally(&answers);
    assert_eq!(counts.len(), 1, "one socket stays with one endpoint: {counts:?}");
    assert!(answers.lines().all(|line| line.ends_with("from 10.96.0.10:80")), "{answers}");
    let spread = node.in_pod(|| {
        let socket = || UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..60).map(|_| ask_datagram(&socket(), "10.96.0.10:80") + "\n").collect()
    });
    assert_eq!(tally(&spread).len(), 3, "sockets spread: {spread}");
    let six = node.in_pod(|| {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        let native = ask_datagram(&socket, "[fd00:96::10]:80");
        let mapped = ask_datagram(&socket, "[::ffff:10.96.0.10]:80");
        format!("{native}\n{mapped}")
    });
    assert!(six.starts_with("[::1]:8080 from [fd00:96::10]:80\n"), "{six}");
    assert!(six.ends_with("from [::ffff:10.96.0.10]:80"), "{six}");
}

#[test]
fn kernel_udp_connected() {
    let mut node = Node::new("udpc");
    serve_three();
    node.manifest("web.yaml", &three_endpoints(""));
    node.start();
    let said = node.in_pod(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect("10.96.0.10:80").unwrap();
        socket.send(b"?").unwrap();
        let mut buffer = [0; 64];
        let (_, from) = socket.recv_from(&mut buffer).unwrap();
        format!("{} {from}", socket.peer_addr().unwrap())
    });
    assert_eq!(said, "10.96.0.10:80 10.96.0.10:80");
}

#[test]
fn kernel_session_affinity() {
    let mut node = Node::new("affinity");
    serve_three();
    let sticky = |ips: &[&str], secs: u32| {
        let more = format!(
            "sessionAffinity: ClientIP\n  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {secs}}}}}"
        );
        service("web", "10.96.0.10", 80, &more) + &slice("web", "IPv4", 8080, ips)
    };
    node.manifest("web.yaml", &sticky(&IPS, 600));
    node.start();
    let counts = tally(&node.in_pod(|| ask_often("10.96.0.10:80", 30)));
    assert_eq!(counts.len(), 1, "{counts:?}");
    let first = counts.keys().next().unwrap().clone();
    let others: Vec<&str> =
        IPS.into_iter().filter(|ip| !first.starts_with(&format!("{ip}:"))).collect();
    node.manifest("web.yaml", &sticky(&others, 600));
    eventually("the endpoint is out of the list", || !node.shown(&["status"]).contains(&first));
    let moved = tally(&node.in_pod(|| ask_often("10.96.0.10:80", 30)));
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(!moved.contains_key(&first), "the endpoint that left is chosen no more");
    node.manifest("web.yaml", &sticky(&IPS, 1));
    eventually("the timeout is short", || node.shown(&["status"]).contains(" 1s "));
    let mut seen = BTreeMap::new();
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(1100));
        *seen.entry(node.in_pod(|| ask("10.96.0.10:80"))).or_insert(0) += 1;
    }
    assert!(seen.len() > 1, "each was a free choice after the timeout: {seen:?}");
}

/// Connects for a while; returns the number of connections and every error.
fn load(at: &'static str, length: Duration) -> impl FnOnce() -> String {
    move || {
        let started = Instant::now();
        let (mut count, mut errors) = (0, String::new());
        while started.elapsed() < length {
            count += 1;
            let answer = ask(at);
            if !answer.ends_with(":8080") {
                errors += &format!(" {answer}");
            }
        }
        format!("{count} connections, errors:{errors}")
    }
}

fn assert_no_failure(said: &str) {
    println!("{said}");
    let count: u32 = said.split(' ').next().unwrap().parse().expect(said);
    assert!(count > 100, "too few to mean anything: {said}");
    assert!(said.ends_with("errors:"), "{said}");
}

#[test]
fn kernel_agent_killed_and_replaced_loses_no_connection() {
    let mut node = Node::new("kill");
    serve_three();
    node.manifest("web.yaml", &three_endpoints(""));
    node.start();
    let pod = node.pod(load("10.96.0.10:80", Duration::from_secs(4)));
    thread::sleep(Duration::from_millis(500));
    node.kill();
    let status = node.shown(&["status"]);
    assert!(status.starts_with("programs: 8 of 8 attached"), "{status}");
    node.manifest("web.yaml", &(three_endpoints("") + &service("new", "10.96.0.20", 80, "")));
    thread::sleep(Duration::from_millis(300));
    node.start();
    node.kill();
    // Other sizes: a new set of maps, filled before the programs go over to it.
    node.flags(&["--max-services", "1000", "--max-endpoints", "2000"]);
    node.start();
    assert_no_failure(&pod.said());
    let status = node.shown(&["status"]);
    assert!(status.contains("SERVICES 6/1000 "), "{status}");
    assert!(status.contains("ENDPOINTS 6/2000 "), "{status}");
    let sets = std::fs::read_dir(node.pin_dir()).unwrap().count();
    assert_eq!(sets, 2, "links and one set of maps");
    assert_eq!(node.in_pod(|| ask("10.96.0.20:80")), "ConnectionRefused");
}

#[test]
fn kernel_lists_swapped_under_load_lose_no_connection() {
    let mut node = Node::new("swap");
    serve_three();
    node.manifest("web.yaml", &three_endpoints(""));
    // Little room: spans are given out again within the test.
    node.flags(&["--max-services", "8", "--max-endpoints", "8"]);
    node.start();
    let pod = node.pod(load("10.96.0.10:80", Duration::from_secs(4)));
    let started = Instant::now();
    let lists: [&[&str]; 4] = [&IPS[..2], &IPS[1..], &IPS[2..], &IPS];
    for list in lists.iter().cycle() {
        if started.elapsed() > Duration::from_millis(3500) {
            break;
        }
        let text = service("web", "10.96.0.10", 80, "") + &slice("web", "IPv4", 8080, list);
        node.manifest("web.yaml", &text);
        thread::sleep(Duration::from_millis(40));
    }
    assert_no_failure(&pod.said());
}

#[test]
fn kernel_bad_manifest_leaves_the_others_alone() {
    let mut node = Node::new("bad");
    serve_three();
    node.manifest("web.yaml", &three_endpoints(""));
    node.start();
    node.manifest("web.yaml", "apiVersion: v1\nkind: [");
    node.manifest("nameless.yaml", "apiVersion: v1\nkind: Service\nspec: {clusterIP: 10.96.0.9}\n");
    let addressless =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n";
    node.manifest("addressless.yaml", addressless);
    let two = service("two", "10.96.0.13", 80, "") + &slice("two", "IPv4", 8080, &IPS[..1]);
    node.manifest("two.yaml", &two);
    eventually("the good file counts", || node.in_pod(|| ask("10.96.0.13:80")) == "127.0.0.1:8080");
    let counts = tally(&node.in_pod(|| ask_often("10.96.0.10:80", 50)));
    assert_eq!(counts.len(), 3, "what the broken file held stays: {counts:?}");
}

#[test]
fn kernel_verifier_instruction_counts() {
    let node = Node::new("verifier");
    let limits = Limits { services: 16, endpoints: 16, ..Limits::default() };
    preflight_pins(node.pin_dir());
    let (programs, _maps) = kernel::load(&PinDir::new(node.pin_dir()), limits).unwrap();
    for (program, instructions) in programs.verified_instructions().unwrap() {
        println!("{program}: {instructions} instructions verified");
        // Well below the kernel's limit of a million, as other versions of it walk more; the larger
        // programs are those that see packets.
        let is_of_packets = PACKET_PROGRAMS.contains(&program);
        let most = if is_of_packets { 500_000 } else { 100_000 };
        assert!((1..most).contains(&instructions), "{program}: {instructions}");
    }
}

fn preflight_pins(path: &Path) {
    podium_proxy::preflight::pin_dir(path).expect("no bpffs");
}

#[test]
fn kernel_two_agents_do_not_share_a_pin_dir() {
    let mut node = Node::new("two");
    node.start();
    let cgroup = node.cgroup().to_str().unwrap();
    let output = node.command(&["run", "--manifests", "/", "--cgroup", cgroup]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("another podium-proxy runs with --pin-dir"), "{said}");
}

#[test]
fn kernel_wrong_cgroup_is_one_clear_sentence() {
    let node = Node::new("wrong");
    let output = Command::new(env!("CARGO_BIN_EXE_podium-proxy"))
        .args(["run", "--manifests", "/", "--cgroup", "/tmp", "--pin-dir"])
        .arg(node.pin_dir())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "podium-proxy: --cgroup /tmp: is no folder of a cgroup v2 mount\n");
    let status = node.command(&["status"]);
    assert_eq!(status.status.code(), Some(1), "nothing pinned");
}
