//! Traffic: questions to services by all ways there are, at a bounded rate, and what is right and
//! wrong about the answers.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    os::unix::net::UnixStream as StdUnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::{Mutex as AsyncMutex, oneshot},
    time,
};

use crate::{
    asker::{CLOSE, Manner, Question},
    oracle::{Asked, Result, Tally, judge},
    plan::{Door, Right, SERVICES, Service},
    random::Random,
};

/// Between two questions of one asker.
const PACE: Duration = Duration::from_millis(12);
/// Between two questions over a socket that is kept.
const KEPT_PACE: Duration = Duration::from_millis(250);
/// How long to wait for what should come, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait for what should not.
const IMPATIENCE: Duration = Duration::from_millis(1500);
/// A part of the services that is asked and changed more often than others.
pub const HOT: usize = 60;

/// Where questions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum From {
    /// Another machine, by packets.
    Client,
    /// A pod whose sockets no hook sees: by packets, from a device towards pods.
    Plain,
    /// A process of a pod, by its sockets.
    Pod,
    /// A process of the host, by its sockets.
    Host,
}

impl From {
    pub const ALL: [Self; 4] = [Self::Client, Self::Plain, Self::Pod, Self::Host];

    pub const fn by_sockets(self) -> bool {
        matches!(self, Self::Pod | Self::Host)
    }

    /// The ways a service offers to it.
    fn doors(self, service: &Service) -> &'static [Door] {
        match self {
            Self::Client if service.has_balancer() => &[Door::NodePort, Door::Balancer],
            Self::Client if service.has_node_port() => &[Door::NodePort],
            Self::Client => &[],
            Self::Host if service.has_node_port() => &[Door::ClusterIp, Door::Loopback],
            Self::Plain | Self::Pod | Self::Host => &[Door::ClusterIp],
        }
    }
}

/// The way to an asker and back.
struct Line {
    writer: AsyncMutex<OwnedWriteHalf>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<String>>>,
}

impl Line {
    async fn ask(&self, question: &Question) -> Result {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(question.id, sender);
        let text = question.line();
        self.writer.lock().await.write_all(text.as_bytes()).await.expect("the asker is gone");
        let text = answer.await.expect("the asker is gone");
        text.parse::<IpAddr>().map_err(|_| text)
    }
}

/// What all who ask have in common.
pub struct Traffic {
    pub services: Mutex<Vec<Service>>,
    pub tally: Mutex<Tally>,
    /// Whether to go on.
    on: AtomicBool,
    /// Questions that wait for their answer.
    open: AtomicUsize,
    next_id: AtomicU64,
    lines: BTreeMap<From, Line>,
}

impl Traffic {
    /// Connects to askers; to be called on a runtime.
    pub fn new(services: Vec<Service>, askers: Vec<(From, StdUnixStream)>) -> Arc<Self> {
        let mut lines = BTreeMap::new();
        let mut readers = Vec::new();
        for (from, socket) in askers {
            socket.set_nonblocking(true).unwrap();
            let (reader, writer) = UnixStream::from_std(socket).unwrap().into_split();
            readers.push((from, reader));
            let line = Line { writer: AsyncMutex::new(writer), waiting: Mutex::default() };
            lines.insert(from, line);
        }
        let traffic = Arc::new(Self {
            services: Mutex::new(services),
            tally: Mutex::default(),
            on: AtomicBool::new(true),
            open: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            lines,
        });
        for (from, reader) in readers {
            let traffic = Arc::clone(&traffic);
            tokio::spawn(async move {
                let mut lines = BufReader::new(reader).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let (id, text) = line.split_once(' ').unwrap();
                    let mut waiting = traffic.lines[&from].waiting.lock().unwrap();
                    if let Some(sender) = waiting.remove(&id.parse().unwrap()) {
                        let _ = sender.send(text.to_owned());
                    }
                }
            });
        }
        traffic
    }

    /// Asks until [`Traffic::stop`].
    pub fn start(self: &Arc<Self>, random: &mut Random) {
        for from in From::ALL {
            tokio::spawn(Arc::clone(self).short(from, Random(random.next())));
        }
        for slot in 0..24 {
            let from = From::ALL[slot % 4];
            let family = slot / 4 % 2;
            for is_tcp in [true, false] {
                let kept = self.some_kept(random, from, family, is_tcp, slot);
                tokio::spawn(Arc::clone(self).keep(kept));
            }
        }
    }

    /// Asks no more, waits for the last answers and closes what was kept.
    pub async fn stop(&self) {
        self.on.store(false, Ordering::Relaxed);
        time::sleep(KEPT_PACE * 2).await;
        while self.open.load(Ordering::Relaxed) > 0 {
            time::sleep(Duration::from_millis(20)).await;
        }
        for line in self.lines.values() {
            let text = format!("{CLOSE}\n");
            line.writer.lock().await.write_all(text.as_bytes()).await.expect("the asker is gone");
        }
    }

    fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Short connections and datagrams.
    async fn short(self: Arc<Self>, from: From, mut random: Random) {
        let mut ticks = time::interval(PACE);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        while self.is_on() {
            ticks.tick().await;
            let asked = self.some(from, &mut random);
            let traffic = Arc::clone(&self);
            tokio::spawn(async move {
                let kept = traffic.tally.lock().unwrap().keeps(&asked);
                let result = traffic.ask(&asked).await;
                traffic.judge(&asked, &result);
                let services = traffic.services.lock().unwrap();
                let service = &services[asked.number];
                traffic.tally.lock().unwrap().affinity(&asked, service, kept, &result);
            });
        }
    }

    /// A question at random.
    fn some(&self, from: From, random: &mut Random) -> Asked {
        let among = if random.one_in(2) { HOT } else { SERVICES };
        let services = self.services.lock().unwrap();
        let (number, doors) = loop {
            let number = random.below(among);
            match from.doors(&services[number]) {
                [] => {}
                doors => break (number, doors),
            }
        };
        let service = &services[number];
        let door = doors[random.below(doors.len())];
        let manner = match random.below(20) {
            0..8 => Manner::Tcp,
            8..13 => Manner::Udp,
            13 => Manner::UdpLarge,
            _ => Manner::UdpSend,
        };
        let since = service.settled;
        Asked { from, door, manner, family: random.below(2), number, since, before: since }
    }

    /// A socket that stays, to a service with endpoints.
    fn some_kept(
        &self,
        random: &mut Random,
        from: From,
        family: usize,
        is_tcp: bool,
        slot: usize,
    ) -> Asked {
        let services = self.services.lock().unwrap();
        loop {
            let number = random.below(HOT);
            let service = &services[number];
            let doors = from.doors(service);
            if doors.is_empty() {
                continue;
            }
            let door = doors[random.below(doors.len())];
            if matches!(service.now().right(door), Right::Answer(_)) {
                let manner = if is_tcp { Manner::KeptTcp(slot) } else { Manner::KeptUdp(slot) };
                return Asked { from, door, manner, family, number, since: 0, before: 0 };
            }
        }
    }

    async fn keep(self: Arc<Self>, mut asked: Asked) {
        let mut first = None;
        while self.is_on() {
            asked.before = asked.since;
            // Sockets and flows are told of a change after the maps are.
            asked.since = self.services.lock().unwrap()[asked.number].settled_before;
            let result = self.ask(&asked).await;
            if matches!(asked.manner, Manner::KeptTcp(_)) {
                // A connection stays with its endpoint, whatever becomes of the service.
                let is_right = result.is_ok() && *first.get_or_insert(result.clone()) == result;
                self.tally.lock().unwrap().kept(&asked, &result, is_right);
                if !is_right {
                    return;
                }
            } else {
                self.judge(&asked, &result);
            }
            time::sleep(KEPT_PACE).await;
        }
    }

    async fn ask(&self, asked: &Asked) -> Result {
        self.open.fetch_add(1, Ordering::Relaxed);
        let (to, comes) = {
            let services = self.services.lock().unwrap();
            let service = &services[asked.number];
            let mut states = service.states[asked.since..].iter();
            let comes = states.all(|state| matches!(state.right(asked.door), Right::Answer(_)));
            (service.address(asked.door, asked.family), comes)
        };
        let is_kept = matches!(asked.manner, Manner::KeptTcp(_));
        let patience = if comes || is_kept { PATIENCE } else { IMPATIENCE };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let question = Question { id, manner: asked.manner, to, patience };
        let result = self.lines[&asked.from].ask(&question).await;
        self.open.fetch_sub(1, Ordering::Relaxed);
        result
    }

    fn judge(&self, asked: &Asked, result: &Result) {
        let services = self.services.lock().unwrap();
        let service = &services[asked.number];
        let verdict = judge(asked, &service.states, result);
        self.tally.lock().unwrap().count(asked, service, result, verdict);
    }
}
