//! Connected UDP sockets whose endpoint leaves.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};

use crate::node::{Node, PATIENCE, eventually, serve_udp, service, slice};

const IPS: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

fn dns(ips: &[&str]) -> String {
    service("dns", "10.96.0.10", 53, "") + &slice("dns", "IPv4", 5353, ips)
}

fn serve_all() {
    IPS.iter().for_each(|ip| serve_udp(&format!("{ip}:5353")));
}

fn connected(local: &str, to: &str) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// Who answers.
fn ask(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    match socket.send(b"?").and_then(|_| socket.recv(&mut buffer)) {
        Ok(len) => String::from_utf8_lossy(&buffer[..len]).into_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// What a socket that waits is told.
fn wait(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    format!("{:?}", socket.recv(&mut buffer).map_err(|error| error.kind()))
}

/// A sign between a pod and its test.
struct Sign(PathBuf);

impl Sign {
    fn new(folder: &Path, name: &str) -> Self {
        Self(folder.join(name))
    }

    fn give(&self, text: &str) {
        let hidden = self.0.with_extension("new");
        fs::write(&hidden, text).unwrap();
        fs::rename(hidden, &self.0).unwrap();
    }

    fn await_text(&self) -> String {
        eventually(&format!("{} is there", self.0.display()), || self.0.exists());
        fs::read_to_string(&self.0).unwrap()
    }
}

fn others_than(name: &str) -> Vec<&'static str> {
    IPS.into_iter().filter(|ip| !name.starts_with(&format!("{ip}:"))).collect()
}

#[test]
fn kernel_connected_udp_moves_when_its_endpoint_leaves() {
    let mut node = Node::new("follow");
    let signs = tempfile::tempdir().unwrap();
    serve_all();
    node.manifest("dns.yaml", &dns(&IPS));
    node.start();
    let (ready, moved) = (Sign::new(signs.path(), "ready"), Sign::new(signs.path(), "moved"));
    let pod = node.pod(|| {
        let service = connected("0.0.0.0:0", "10.96.0.10:53");
        let first = ask(&service);
        let direct = connected("0.0.0.0:0", &first);
        let unconnected = UdpSocket::bind("0.0.0.0:0").unwrap();
        unconnected.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 64];
        let mut send_to = || {
            unconnected.send_to(b"?", "10.96.0.10:53").unwrap();
            let (len, from) = unconnected.recv_from(&mut buffer).unwrap();
            format!("{} from {from}", String::from_utf8_lossy(&buffer[..len]))
        };
        let before = send_to();
        ready.give(&first);
        let told = wait(&service);
        moved.await_text();
        // The same socket is good for another try.
        service.connect("10.96.0.10:53").unwrap();
        let second = ask(&service);
        let direct_says = ask(&direct);
        let after = send_to();
        let list = [first, told, second, direct_says, before, after];
        list.join("\n")
    });
    let first = ready.await_text();
    node.manifest("dns.yaml", &dns(&others_than(&first)));
    eventually("the endpoint is out of the list", || !node.shown(&["status"]).contains(&first));
    moved.give("");
    let said = pod.said();
    let lines: Vec<&str> = said.lines().collect();
    let [_, told, second, direct, before, after] = lines.as_slice() else {
        panic!("{said}");
    };
    assert_eq!(*told, "Err(ConnectionAborted)", "the socket through the service is told at once");
    assert!(*second != first && second.ends_with(":5353"), "another endpoint: {said}");
    assert_eq!(*direct, first, "the socket straight to the pod goes on");
    assert!(before.ends_with("from 10.96.0.10:53") && after.ends_with("from 10.96.0.10:53"));
    assert!(!after.starts_with(&first), "the unconnected socket moved with its next datagram");
    eventually("it is counted", || {
        metrics().contains("podium_proxy_udp_sockets_destroyed_total 1\n")
    });
}

/// The agent's metrics.
fn metrics() -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect("127.0.0.1:10249").unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn kernel_connected_udp_of_ipv6_and_mapped_addresses() {
    let mut node = Node::new("follow6");
    let signs = tempfile::tempdir().unwrap();
    serve_all();
    serve_udp("[::1]:5353");
    let six =
        |ips: &[&str]| service("six", "fd00:96::10", 53, "") + &slice("six", "IPv6", 5353, ips);
    node.manifest("dns.yaml", &(dns(&IPS[..1]) + &six(&["::1"])));
    node.start();
    let ready = Sign::new(signs.path(), "ready");
    let pod = node.pod(|| {
        let native = connected("[::]:0", "[fd00:96::10]:53");
        let mapped = connected("[::]:0", "[::ffff:10.96.0.10]:53");
        let first = [ask(&native), ask(&mapped)].join(" ");
        ready.give("");
        let told = [wait(&native), wait(&mapped)].join(" ");
        format!("{first}\n{told}")
    });
    ready.await_text();
    // The services go as a whole.
    node.manifest("dns.yaml", "");
    let said = pod.said();
    assert_eq!(said, "[::1]:5353 127.0.0.1:5353\nErr(ConnectionAborted) Err(ConnectionAborted)");
}

#[test]
fn kernel_connected_udp_in_the_namespace_of_a_pod() {
    let mut node = Node::new("follow_ns");
    let signs = tempfile::tempdir().unwrap();
    node.manifest("dns.yaml", &dns(&IPS));
    node.start();
    let ready = Sign::new(signs.path(), "ready");
    let pod = node.pod(|| {
        // A namespace that has no name, as pods have them.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        serve_all();
        let socket = connected("0.0.0.0:0", "10.96.0.10:53");
        let first = ask(&socket);
        ready.give(&first);
        let told = wait(&socket);
        let second = ask(&connected("0.0.0.0:0", "10.96.0.10:53"));
        format!("{told} {}", second != first && second.ends_with(":5353"))
    });
    let first = ready.await_text();
    node.manifest("dns.yaml", &dns(&others_than(&first)));
    assert_eq!(pod.said(), "Err(ConnectionAborted) true");
}

#[test]
fn kernel_udp_connected_before_the_service_had_endpoints() {
    let mut node = Node::new("follow_late");
    let signs = tempfile::tempdir().unwrap();
    serve_all();
    // So that the address can be connected to before anybody translates it; still loopback only.
    let route = Command::new("ip").args(["route", "add", "10.96.0.0/16", "dev", "lo"]).status();
    assert!(route.unwrap().success());
    node.start();
    let (ready, none) = (Sign::new(signs.path(), "ready"), Sign::new(signs.path(), "none"));
    // Not in the cgroup: it would not be translated if it connected again.
    let foreign = connected("0.0.0.0:0", "10.96.0.10:53");
    let pod = node.pod(|| {
        let early = connected("0.0.0.0:0", "10.96.0.10:53");
        ready.give("");
        none.await_text();
        let refused = UdpSocket::bind("0.0.0.0:0").unwrap().connect("10.96.0.10:53");
        let refused = format!("{:?}", refused.map_err(|error| error.kind()));
        ready.give("again");
        let told = wait(&early);
        early.connect("10.96.0.10:53").unwrap();
        format!("{refused}\n{told}\n{}", ask(&early))
    });
    ready.await_text();
    node.manifest("dns.yaml", &dns(&[]));
    eventually("the service is known", || node.shown(&["status"]).contains("10.96.0.10:53"));
    none.give("");
    eventually("the pod was refused", || ready.await_text() == "again");
    node.manifest("dns.yaml", &dns(&IPS[..1]));
    let said = pod.said();
    assert_eq!(said, "Err(ConnectionRefused)\nErr(ConnectionAborted)\n127.0.0.1:5353");
    foreign.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(wait(&foreign), "Err(WouldBlock)", "a socket of nobody's pods is left alone");
}

#[test]
fn kernel_udp_endpoint_left_while_no_agent_ran() {
    endpoint_leaves_before_an_agent("follow_down", &[]);
}

#[test]
fn kernel_udp_endpoint_left_before_an_agent_of_other_sizes() {
    endpoint_leaves_before_an_agent("follow_sizes", &["--max-services", "1000"]);
}

fn endpoint_leaves_before_an_agent(test: &str, flags: &[&str]) {
    let mut node = Node::new(test);
    let signs = tempfile::tempdir().unwrap();
    serve_all();
    node.manifest("dns.yaml", &dns(&IPS));
    node.start();
    let ready = Sign::new(signs.path(), "ready");
    let pod = node.pod(|| {
        let socket = connected("0.0.0.0:0", "10.96.0.10:53");
        ready.give(&ask(&socket));
        wait(&socket)
    });
    let first = ready.await_text();
    node.kill();
    node.manifest("dns.yaml", &dns(&others_than(&first)));
    node.flags(flags);
    node.start();
    assert_eq!(pod.said(), "Err(ConnectionAborted)");
}

#[test]
fn kernel_tcp_goes_on_when_its_endpoint_leaves() {
    use std::io::{Read as _, Write as _};
    let mut node = Node::new("follow_tcp");
    let signs = tempfile::tempdir().unwrap();
    serve_all();
    let listener = std::net::TcpListener::bind("127.0.0.1:5353").unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 1];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).unwrap();
        }
    });
    node.manifest("dns.yaml", &dns(&IPS[..1]));
    node.start();
    let (ready, moved) = (Sign::new(signs.path(), "ready"), Sign::new(signs.path(), "moved"));
    let pod = node.pod(|| {
        let mut stream = std::net::TcpStream::connect("10.96.0.10:53").unwrap();
        let udp = connected("0.0.0.0:0", "10.96.0.10:53");
        ready.give("");
        let told = wait(&udp);
        moved.await_text();
        let mut buffer = [0; 1];
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut buffer).unwrap();
        format!("{told} {}", buffer[0] == b'x')
    });
    ready.await_text();
    node.manifest("dns.yaml", &dns(&IPS[1..]));
    eventually("the list is new", || node.shown(&["status"]).contains("127.0.0.3:5353"));
    moved.give("");
    assert_eq!(pod.said(), "Err(ConnectionAborted) true");
}
