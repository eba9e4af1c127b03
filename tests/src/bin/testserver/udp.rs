//! UDP: the echo that tells which pod answered, and the client that asks it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::serve::pod_name;
use crate::tasks;

const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Answers each datagram with the pod's name and the same bytes, until SIGTERM.
pub fn echo(port: u16) -> ExitCode {
    tasks::block_signals();
    let bound = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| UdpSocket::bind(("0.0.0.0", port)));
    let socket = match bound {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("listen on UDP port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let mut answer = format!("{} ", pod_name()).into_bytes();
            answer.extend_from_slice(&buffer[..length]);
            // An answer that cannot be sent is lost, as datagrams may be.
            let _lost = socket.send_to(&answer, peer);
        }
    });
    tasks::wait_for_end_signal();
    ExitCode::SUCCESS
}

/// Sends `count` datagrams, each from a fresh socket, by turns a connected one and one that names
/// the target with each datagram, and prints who answered. An answer from any address but the one
/// that was asked is a failure.
pub fn ask(target: &str, count: u64) -> ExitCode {
    let mut pods: BTreeMap<String, u64> = BTreeMap::new();
    let mut failures = Vec::new();
    for number in 0..count {
        match ask_once(target, number % 2 == 0) {
            Ok(pod) => *pods.entry(pod).or_default() += 1,
            Err(error) => failures.push(error.to_string()),
        }
    }
    let shown = &failures[..failures.len().min(20)];
    println!("{}", json!({"pods": pods, "failed": failures.len(), "failures": shown}));
    ExitCode::SUCCESS
}

fn ask_once(target: &str, connected: bool) -> io::Result<String> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let address = target.to_socket_addrs()?.next();
    let address = address.ok_or_else(|| invalid(format!("{target} has no address")))?;
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    let mut buffer = [0; 2048];
    let length = if connected {
        socket.connect(address)?;
        socket.send(b"ping")?;
        let length = socket.recv(&mut buffer)?;
        let peer = socket.peer_addr()?;
        if peer != address {
            return Err(invalid(format!("asked {address}, the peer is {peer}")));
        }
        length
    } else {
        socket.send_to(b"ping", address)?;
        let (length, peer) = socket.recv_from(&mut buffer)?;
        if peer != address {
            return Err(invalid(format!("asked {address}, {peer} answered")));
        }
        length
    };
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    match answer.split_once(' ') {
        Some((pod, "ping")) => Ok(pod.to_owned()),
        _ => Err(invalid(format!("not an echo: {answer:?}"))),
    }
}
