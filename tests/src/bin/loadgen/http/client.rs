//! The client. In the open loop every request has a time at which it is meant to be sent, and its latency
//! counts from then: a server that holds up one request makes those behind it late, and that shows
//! (no coordinated omission). In the closed loop each connection asks again once it is answered.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::answer::{Answer, Progress};
use super::connection::{Connection, READ_BYTES};
use super::tls;
use crate::poll::Poll;
use crate::seen::Seen;

/// How long answers may take that are owed when the time is over. In the open loop a server that falls
/// behind owes ever more: those count with the time they have waited.
const LATE_LIMIT_CLOSED: Duration = Duration::from_secs(5);
const LATE_LIMIT_OPEN: Duration = Duration::from_secs(1);
/// A run with more failures than these has nothing to tell.
const FAILURES_MAX: u64 = 1000;

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct Habit {
    /// Whom.
    pub to: SocketAddr,
    /// Over TLS.
    pub tls: bool,
    /// A connection for each request.
    pub fresh: bool,
    /// Hosts `h0.bench.example`…, one at random for each request.
    pub hosts: u32,
    /// Paths `/p0`… of each host, likewise.
    pub paths: u32,
    /// Length of the body that is asked for.
    pub bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Requests a second in the open loop; the closed loop if none.
    pub rate: Option<u32>,
    /// Not counted, before `time`.
    pub warmup: Duration,
    /// Counted.
    pub time: Duration,
}

/// A connection's place.
#[derive(Default)]
struct Slot {
    connection: Option<Connection>,
    answer: Answer,
    /// When the request in progress was meant to be sent.
    meant: Option<Instant>,
}

struct Load<'a> {
    habit: &'a Habit,
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    slots: Vec<Slot>,
    free: Vec<usize>,
    random: u64,
    request: Vec<u8>,
    host: String,
    buffer: Vec<u8>,
    seen: Seen,
    asked: u64,
    /// Requests of the open loop that had no answer when all was over.
    unanswered: u64,
    /// From when on requests are counted.
    counted_from: Instant,
    until: Instant,
}

/// Asks, and says what it saw.
pub fn load(habit: &Habit) -> io::Result<Value> {
    // The kernel may otherwise wake us 50 µs late on purpose.
    nix::sys::prctl::set_timerslack(1)?;
    let tls = if habit.tls { Some(tls::config().map_err(io::Error::other)?) } else { None };
    let started = Instant::now();
    let counted_from = started + habit.warmup;
    let mut load = Load {
        habit,
        tls,
        poll: Poll::new()?,
        slots: (0..habit.connections).map(|_| Slot::default()).collect(),
        free: (0..habit.connections).collect(),
        random: 0x9E37_79B9_7F4A_7C15,
        request: Vec::new(),
        host: String::new(),
        buffer: vec![0; READ_BYTES],
        seen: Seen::default(),
        asked: 0,
        unanswered: 0,
        counted_from,
        until: counted_from + habit.time,
    };
    match habit.rate {
        Some(rate) => load.run_open(started, rate)?,
        None => load.run_closed()?,
    }
    let elapsed = load.counted_from.elapsed().min(habit.time);
    let mut report = load.seen.report(elapsed);
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    report["asked"] = json!(load.asked);
    report["unanswered"] = json!(load.unanswered);
    report["ownCpuSeconds"] = json!(seconds(used.user_time()) + seconds(used.system_time()));
    report["allSeconds"] = json!(started.elapsed().as_secs_f64());
    Ok(report)
}

fn seconds(time: TimeVal) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds of a run are few")]
    let whole = time.tv_sec() as f64;
    #[expect(clippy::cast_precision_loss, reason = "less than a million")]
    let part = time.tv_usec() as f64;
    whole + part / 1e6
}

impl Load<'_> {
    fn run_closed(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if now < self.until {
                while let Some(at) = self.free.pop() {
                    self.ask(at, now);
                }
            } else if !self.is_owed() {
                return Ok(());
            } else if now > self.until + LATE_LIMIT_CLOSED {
                self.give_up("no answer in time");
                return Ok(());
            }
            self.serve(Duration::from_millis(100), &mut ready)?;
        }
    }

    fn run_open(&mut self, started: Instant, rate: u32) -> io::Result<()> {
        let mut ready = Vec::new();
        let mut due: VecDeque<Instant> = VecDeque::new();
        let meant = |number: u64| {
            let ns = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
            started + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
        };
        let mut number = 0;
        loop {
            let now = Instant::now();
            let mut next = meant(number);
            while next <= now && next < self.until {
                due.push_back(next);
                number += 1;
                next = meant(number);
            }
            while !due.is_empty() {
                let Some(at) = self.free.pop() else { break };
                if let Some(meant) = due.pop_front() {
                    self.ask(at, meant);
                }
            }
            if next >= self.until {
                if due.is_empty() && !self.is_owed() {
                    return Ok(());
                }
                if now > self.until + LATE_LIMIT_OPEN {
                    self.leave(&due, now);
                    return Ok(());
                }
            }
            let wait = if next < self.until {
                next.saturating_duration_since(Instant::now())
            } else {
                Duration::from_millis(10)
            };
            self.serve(wait, &mut ready)?;
        }
    }

    /// Whether an answer is still to come.
    fn is_owed(&self) -> bool {
        self.slots.iter().any(|slot| slot.meant.is_some())
    }

    /// What is owed has failed.
    fn give_up(&mut self, why: &str) {
        for _ in self.slots.iter().filter(|slot| slot.meant.is_some()) {
            self.seen.fail(why.to_owned());
        }
    }

    /// What is owed, or was not even sent, took at least as long as until now.
    fn leave(&mut self, due: &VecDeque<Instant>, now: Instant) {
        let owed = self.slots.iter().filter_map(|slot| slot.meant);
        for meant in owed.chain(due.iter().copied()) {
            self.unanswered += 1;
            if meant >= self.counted_from {
                self.seen.took(now.saturating_duration_since(meant));
            }
        }
    }

    /// Handles what is ready.
    fn serve(&mut self, wait: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
        ready.clear();
        self.poll.wait(wait, ready)?;
        for at in ready.drain(..) {
            self.advance(at);
        }
        if self.seen.failed() > FAILURES_MAX {
            self.until = Instant::now();
        }
        Ok(())
    }

    /// Sends a request from a place.
    fn ask(&mut self, at: usize, meant: Instant) {
        self.asked += 1;
        self.write_request();
        let slot = &mut self.slots[at];
        slot.meant = Some(meant);
        slot.answer.reset();
        let connection = match slot.connection.take() {
            Some(connection) => Ok(connection),
            None => {
                let tls = self.tls.as_ref().map(|config| (config, &*self.host));
                Connection::open(self.habit.to, tls, &self.poll, at)
            }
        };
        let sent = connection.and_then(|mut connection| {
            connection.send(&self.request)?;
            Ok(connection)
        });
        match sent {
            Ok(connection) => slot.connection = Some(connection),
            Err(error) => self.finish(at, Err(format!("asking: {error}"))),
        }
    }

    fn write_request(&mut self) {
        use std::fmt::Write as _;
        use std::io::Write as _;
        // xorshift: cheap, and the same for every contender.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let host = (self.random >> 33) % u64::from(self.habit.hosts.max(1));
        let path = (self.random & 0xFFFF_FFFF) % u64::from(self.habit.paths.max(1));
        self.host.clear();
        let _ = write!(self.host, "h{host}.bench.example");
        self.request.clear();
        let close = if self.habit.fresh { "Connection: close\r\n" } else { "" };
        let _ = write!(
            self.request,
            "GET /p{path}/{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) loadgen\r\n\
             Accept: */*\r\nAccept-Encoding: gzip, br\r\n{close}\r\n",
            self.habit.bytes, self.host
        );
    }

    /// Goes on where a connection is ready.
    fn advance(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        let Some(connection) = &mut slot.connection else { return };
        let length = self.habit.bytes;
        let mut whole = None;
        let asking = slot.meant.is_some();
        let answer = &mut slot.answer;
        let result = connection.advance().and_then(|()| {
            connection.receive(&mut self.buffer, |bytes| {
                if !asking || whole.is_some() {
                    return Err("bytes that were not asked for".to_owned());
                }
                if let Progress::Whole { again } = answer.take(bytes, length)? {
                    whole = Some(again);
                }
                Ok(())
            })
        });
        let fresh = self.habit.fresh;
        match (result, whole) {
            (Ok(open), Some(again)) => {
                if !open || !again || fresh {
                    slot.connection = None;
                }
                self.finish(at, Ok(()));
            }
            (Ok(true), None) => {}
            // A kept connection may end while nothing is asked.
            (Ok(false) | Err(_), _) if !asking => slot.connection = None,
            (Ok(false), None) => {
                let what = if slot.answer.is_new() { "no answer" } else { "half an answer" };
                self.finish(at, Err(format!("{what}: the connection ended")));
            }
            (Err(error), _) => self.finish(at, Err(error.to_string())),
        }
    }

    fn finish(&mut self, at: usize, result: Result<(), String>) {
        let slot = &mut self.slots[at];
        let Some(meant) = slot.meant.take() else { return };
        match result {
            Ok(()) if meant >= self.counted_from => self.seen.took(meant.elapsed()),
            Ok(()) => {}
            Err(why) => {
                slot.connection = None;
                self.seen.fail(why);
            }
        }
        self.free.push(at);
    }
}
