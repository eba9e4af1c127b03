//! The client: exchanges one after the other, each timed from its first system call to the last byte of
//! its answer.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};

use crate::seen::Seen;

/// Length of requests and answers.
pub const REQUEST_BYTES: usize = 64;
/// First byte of a request on a connection that goes on.
pub const AGAIN: u8 = b'+';
/// First byte of the only request of a connection.
const ONCE: u8 = b'.';
/// First byte of a request to be told who answers, and whom.
pub const WHO: u8 = b'?';
/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A connection with one request and its answer.
    TcpFresh,
    /// A request and its answer on a connection that stays.
    TcpKept,
    /// A datagram and its answer, from a socket that is not connected.
    Udp,
}

/// A client that exchanges.
enum Client {
    Fresh,
    Kept(TcpStream),
    Udp(UdpSocket),
}

impl Client {
    fn new(exchange: Exchange, target: SocketAddr) -> io::Result<Client> {
        match exchange {
            Exchange::TcpFresh => Ok(Client::Fresh),
            Exchange::TcpKept => {
                let stream = connect(target)?;
                stream.set_nodelay(true)?;
                Ok(Client::Kept(stream))
            }
            Exchange::Udp => {
                let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(LIMIT))?;
                Ok(Client::Udp(socket))
            }
        }
    }

    /// One exchange; gives how long it took.
    fn exchange(&mut self, target: SocketAddr) -> io::Result<Duration> {
        let mut answer = [0; REQUEST_BYTES];
        let started = Instant::now();
        match self {
            Client::Fresh => {
                let mut stream = connect(target)?;
                stream.write_all(&[ONCE; REQUEST_BYTES])?;
                stream.read_exact(&mut answer)?;
                let took = started.elapsed();
                // The server closes first; its end is waited for outside of the time.
                stream.read(&mut answer).map(|_| took)
            }
            Client::Kept(stream) => {
                stream.write_all(&[AGAIN; REQUEST_BYTES])?;
                stream.read_exact(&mut answer)?;
                Ok(started.elapsed())
            }
            Client::Udp(socket) => {
                socket.send_to(&[ONCE; REQUEST_BYTES], target)?;
                socket.recv_from(&mut answer)?;
                Ok(started.elapsed())
            }
        }
    }
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

impl Seen {
    fn take(&mut self, result: io::Result<Duration>) {
        match result {
            Ok(took) => self.took(took),
            Err(error) => self.fail(error.to_string()),
        }
    }
}

/// Time of the processor that this process has used.
fn cpu_time() -> io::Result<TimeVal> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(usage.user_time() + usage.system_time())
}

/// Who answers at the targets, each asked this often over TCP and over UDP: for each protocol how many
/// answers every pair of endpoint and client address had.
pub fn who(targets: &[SocketAddr], count: u64) -> io::Result<Value> {
    let mut seen: [BTreeMap<String, u64>; 2] = Default::default();
    for target in targets {
        for _ in 0..count {
            let mut answer = [0; REQUEST_BYTES];
            let mut stream = connect(*target)?;
            stream.write_all(&[WHO; REQUEST_BYTES])?;
            stream.read_exact(&mut answer)?;
            *seen[0].entry(named(&answer)).or_default() += 1;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(LIMIT))?;
            socket.send_to(&[WHO; REQUEST_BYTES], target)?;
            socket.recv_from(&mut answer)?;
            *seen[1].entry(named(&answer)).or_default() += 1;
        }
    }
    let [tcp, udp] = seen;
    Ok(json!({ "failed": 0, "tcp": tcp, "udp": udp }))
}

fn named(answer: &[u8]) -> String {
    let text = answer.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// A number of exchanges, over the targets in turn; the first of them are not counted.
pub fn for_count(
    exchange: Exchange,
    targets: &[SocketAddr],
    count: u64,
    warmup: u64,
) -> io::Result<Value> {
    let mut clients = clients(exchange, targets)?;
    let mut seen = Seen::default();
    for turn in 0..warmup {
        let (client, target) = pick(&mut clients, turn);
        client.exchange(target)?;
    }
    seen.expect(usize::try_from(count).unwrap_or(0));
    let (started, cpu_before) = (Instant::now(), cpu_time()?);
    for turn in 0..count {
        let (client, target) = pick(&mut clients, turn);
        let result = client.exchange(target);
        seen.take(result);
    }
    let used = (cpu_time()? - cpu_before).num_nanoseconds();
    let mut report = seen.report(started.elapsed());
    report["cpuNs"] = json!(used);
    Ok(report)
}

/// As many exchanges as fit into a time, by several clients at once.
pub fn for_time(
    exchange: Exchange,
    targets: &[SocketAddr],
    time: Duration,
    count: u64,
) -> io::Result<Value> {
    let started = Instant::now();
    let one = || -> io::Result<Seen> {
        let mut clients = clients(exchange, targets)?;
        let mut seen = Seen::default();
        let mut turn = 0;
        while started.elapsed() < time {
            let (client, target) = pick(&mut clients, turn);
            let result = client.exchange(target);
            seen.take(result);
            turn += 1;
        }
        Ok(seen)
    };
    let all: Vec<io::Result<Seen>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut total = Seen::default();
    for seen in all {
        total.extend(seen?);
    }
    Ok(total.report(started.elapsed()))
}

fn clients(exchange: Exchange, targets: &[SocketAddr]) -> io::Result<Vec<(Client, SocketAddr)>> {
    targets.iter().map(|target| Ok((Client::new(exchange, *target)?, *target))).collect()
}

fn pick(clients: &mut [(Client, SocketAddr)], turn: u64) -> (&mut Client, SocketAddr) {
    let at = usize::try_from(turn).unwrap_or(0) % clients.len();
    let (client, target) = &mut clients[at];
    (client, *target)
}
