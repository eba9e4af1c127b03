//! What is right: an answer must come from an endpoint that was the service's at some moment since
//! the kernel was last seen to hold what the model does, before the question began; where there was
//! none, or a policy was against it, the way of not being answered must be the right one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use crate::{
    asker::Manner,
    plan::{Door, Right, Service, State, endpoint_at},
    traffic::From,
};

/// The endpoint that answered, or the name of an error.
pub type Result = std::result::Result<IpAddr, String>;

/// A question that was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub from: From,
    pub door: Door,
    pub manner: Manner,
    pub family: usize,
    /// Of the service.
    pub number: usize,
    /// The service's state at the last settled point.
    pub since: usize,
    /// That when the socket was last used.
    pub before: usize,
}

/// Whether a result is right, given all states the service was in.
pub fn judge(asked: &Asked, all: &[State], result: &Result) -> bool {
    let states = &all[asked.since..];
    match result {
        Ok(ip) => {
            let endpoint = endpoint_at(*ip);
            endpoint.is_some_and(|endpoint| {
                states.iter().any(|state| allowed(asked, state) & 1 << endpoint != 0)
            })
        }
        // A connected socket whose endpoint leaves is ended, so that its owner opens another.
        Err(error) if asked.has_ended(error) && all.len() > asked.before + 1 => true,
        Err(error) => is_error_right(asked, states, error),
    }
}

impl Asked {
    /// Who asks whom, to the service.
    pub fn client(&self) -> Client {
        (self.from, self.number, self.manner == Manner::Tcp, self.family)
    }

    /// Whether this is how sockets see that they were ended: in a call, or before the next one.
    fn has_ended(&self, error: &str) -> bool {
        self.from.by_sockets()
            && self.manner != Manner::Tcp
            && ["ECONNABORTED", "EDESTADDRREQ"].contains(&error)
    }
}

/// The endpoints that may answer.
fn allowed(asked: &Asked, state: &State) -> u64 {
    match state.right(asked.door) {
        // A flow goes on under the policy it began with, while its endpoint is there.
        _ if matches!(asked.manner, Manner::KeptUdp(_)) && state.exists => state.endpoints,
        Right::Answer(set) => set,
        Right::Refused | Right::NoAnswer => 0,
    }
}

fn is_error_right(asked: &Asked, states: &[State], error: &str) -> bool {
    states.iter().any(|state| match state.right(asked.door) {
        Right::Answer(_) => false,
        // Fragments are not refused, and a socket without a peer is not told.
        Right::Refused
            if matches!(asked.manner, Manner::UdpLarge | Manner::UdpSend)
                && !asked.from.by_sockets() =>
        {
            error == "TimedOut"
        }
        Right::Refused => error == "ECONNREFUSED",
        // Nobody's address: whatever the network says.
        Right::NoAnswer if !state.exists => true,
        Right::NoAnswer if asked.from.by_sockets() => error == "EHOSTUNREACH",
        Right::NoAnswer => error == "TimedOut",
    })
}

/// Whose endpoint is kept: a client of a service port, by any of the port's addresses.
type Client = (From, usize, bool, usize);

/// The endpoint a client keeps, and for which state of the service.
type Keeps = (usize, IpAddr);

/// More say nothing new.
const WRONG_SHOWN: u64 = 50;

/// What came of all questions.
#[derive(Debug, Default)]
pub struct Tally {
    keeps: HashMap<Client, Keeps>,
    stuck: u64,
    counts: BTreeMap<(From, &'static str), Counts>,
    errors: BTreeMap<String, u64>,
    wrong: u64,
}

#[derive(Debug, Default)]
struct Counts {
    questions: u64,
    answers: u64,
    /// Asked of a service that had not changed since the last settled point.
    strict: u64,
}

const fn manner_text(manner: Manner) -> &'static str {
    match manner {
        Manner::Tcp => "TCP",
        Manner::Udp => "UDP, connected",
        Manner::UdpLarge => "UDP, fragments",
        Manner::UdpSend => "UDP, unconnected",
        Manner::KeptTcp(_) => "TCP, kept",
        Manner::KeptUdp(_) => "UDP, kept",
    }
}

impl Tally {
    /// Counts a question about a service.
    pub fn count(&mut self, asked: &Asked, service: &Service, result: &Result, is_right: bool) {
        let states = &service.states[asked.since..];
        self.add(asked, result, states.len() == 1);
        if !is_right {
            let name = service.name();
            self.blame(format!("{name}: {asked:?} had {result:?}; states {states:x?}"));
        }
    }

    /// What the client of a question keeps as far as is known before it is asked.
    pub fn keeps(&self, asked: &Asked) -> Option<Keeps> {
        self.keeps.get(&asked.client()).copied()
    }

    /// Judges a question to a service with session affinity: a client that had an answer before it
    /// asked again, the service being the same all the time, gets the same endpoint.
    pub fn affinity(
        &mut self,
        asked: &Asked,
        service: &Service,
        kept: Option<Keeps>,
        result: &Result,
    ) {
        let now = service.now();
        let is_plain = now.affinity && !now.internal_local && !now.external_local;
        let is_new = matches!(asked.manner, Manner::Tcp | Manner::Udp | Manner::UdpLarge);
        let is_same = service.states.len() == asked.since + 1;
        let Ok(ip) = result else { return };
        if !(is_plain && is_new && is_same) {
            return;
        }
        match kept {
            Some((since, kept)) if since == asked.since => {
                self.stuck += 1;
                if kept != *ip {
                    let name = service.name();
                    self.blame(format!("{name}: {asked:?} had {ip}, the client had {kept}"));
                }
            }
            // Of two that were asked at once, neither may be the one that is kept.
            _ => {
                let known = self.keeps.get(&asked.client()).copied();
                if known == kept {
                    self.keeps.insert(asked.client(), (asked.since, *ip));
                }
            }
        }
    }

    /// Counts a question over a connection that is kept.
    pub fn kept(&mut self, asked: &Asked, result: &Result, is_right: bool) {
        self.add(asked, result, true);
        if !is_right {
            self.blame(format!("{asked:?} had {result:?}, not as at first"));
        }
    }

    fn add(&mut self, asked: &Asked, result: &Result, is_strict: bool) {
        let counts = self.counts.entry((asked.from, manner_text(asked.manner))).or_default();
        counts.questions += 1;
        counts.strict += u64::from(is_strict);
        match result {
            Ok(_) => counts.answers += 1,
            Err(error) => *self.errors.entry(error.clone()).or_default() += 1,
        }
    }

    fn blame(&mut self, what: String) {
        self.wrong += 1;
        if self.wrong <= WRONG_SHOWN {
            println!("WRONG {what}");
        }
    }

    /// Questions so far.
    pub fn questions(&self) -> u64 {
        self.counts.values().map(|counts| counts.questions).sum()
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.counts.values().map(|counts| counts.answers).sum()
    }

    /// How many were wrong.
    pub const fn wrong(&self) -> u64 {
        self.wrong
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((from, manner), Counts { questions, answers, strict }) in &self.counts {
            writeln!(
                f,
                "{from:?}, {manner}: {questions} questions ({strict} of unchanged services), \
                 {answers} answers"
            )?;
        }
        let errors: u64 = self.errors.values().sum();
        writeln!(f, "not answered: {errors}, {:?}", self.errors)?;
        writeln!(f, "with session affinity, asked again: {}", self.stuck)?;
        write!(
            f,
            "in all {} questions, {} answers, {} wrong",
            self.questions(),
            self.answers(),
            self.wrong
        )
    }
}
