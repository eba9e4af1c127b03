//! The endpoints of a Service port, and which of them a request goes to.
//!
//! A backend outlives snapshots: a change of endpoints replaces its [`EndpointSet`] as a whole and keeps
//! what is known of the endpoints that stay. Finding out which endpoints there are is left to `translate`
//! and `names`, asking them how they are to `probes`; what a request wants is decided by `proxy`.

pub mod active;
pub mod kept;
pub mod latency;
pub mod names;
pub mod passive;
mod pick;
pub mod probes;
mod ring;
mod tokens;

use crate::annotations::upstream::health::HealthCheck;
use crate::objects::ObjectKey;
use active::Probed;
use arc_swap::{ArcSwap, Guard};
use kept::Kept;
use latency::Latency;
use passive::Passive;
pub use pick::{Ask, Policy};
use ring::Ring;
pub use ring::hash;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokens::Tokens;

/// Where an endpoint is, as objects say it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An address and port.
    Ip(SocketAddr),
    /// The DNS name of an ExternalName Service, and a port: to be resolved, again and again.
    Name(Arc<str>, u16),
}

/// Milliseconds since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// That of an instant.
    pub fn of(instant: Instant) -> Moment {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        let elapsed = instant.saturating_duration_since(*START).as_millis();
        // Never 0, which stands for never.
        Moment(u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1))
    }

    /// The current one.
    pub fn now() -> Moment {
        Moment::of(Instant::now())
    }

    /// A later one.
    pub fn plus(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A Service and the port an Ingress names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// The Service.
    pub service: ObjectKey,
    /// Port number or name, as the Ingress writes it; empty for the first port.
    pub port: Arc<str>,
    /// Through the cluster IP instead of endpoints.
    pub by_cluster_ip: bool,
    /// How its endpoints are watched. Ingresses that want it differently do not share what is known.
    pub care: Care,
}

/// What is done about endpoints beside sending requests to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Care {
    /// Requests of our own.
    pub check: Option<Arc<HealthCheck>>,
    /// How long a new endpoint takes to its full share.
    pub slow_start: Duration,
}

/// A Service port that requests go to.
#[derive(Debug)]
pub struct Backend {
    /// What it is.
    pub key: Arc<BackendKey>,
    /// `namespace-service-port`, the name ingress-nginx logs.
    pub upstream_name: Box<str>,
    set: ArcSwap<EndpointSet>,
    source: Mutex<Source>,
    affinity_key: OnceLock<Box<str>>,
}

/// A DNS name and a port.
type Name = (Arc<str>, u16);

/// Where endpoints are said to be, and what names among them stand for.
#[derive(Debug, Default)]
struct Source {
    addresses: Arc<[Address]>,
    /// In no order; most have none.
    resolved: Vec<(Name, Vec<SocketAddr>)>,
}

impl Source {
    fn flat(&self) -> Vec<SocketAddr> {
        let mut flat = Vec::with_capacity(self.addresses.len());
        for address in &*self.addresses {
            match address {
                Address::Ip(address) => flat.push(*address),
                Address::Name(name, port) => {
                    flat.extend(self.resolved(&(name.clone(), *port)).into_iter().flatten());
                }
            }
        }
        flat
    }

    /// What a name stands for, if that is known.
    fn resolved(&self, name: &Name) -> Option<&Vec<SocketAddr>> {
        self.resolved.iter().find(|(known, _)| known == name).map(|(_, found)| found)
    }
}

impl Backend {
    /// A backend seen for the first time.
    pub fn new(key: Arc<BackendKey>, addresses: Arc<[Address]>) -> Backend {
        let upstream_name = format!("{}-{}-{}", key.service.namespace, key.service.name, key.port);
        let upstream_name = upstream_name.into();
        let source = Source { addresses, resolved: Vec::new() };
        let set = EndpointSet::new(&source.flat(), None, &key.care, Moment::default());
        Backend {
            key,
            upstream_name,
            set: ArcSwap::from_pointee(set),
            source: Mutex::new(source),
            affinity_key: OnceLock::new(),
        }
    }

    /// The endpoints of this moment.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Replaces the endpoints; those that stay keep their state.
    pub fn replace(&self, addresses: Arc<[Address]>) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |name: &Arc<str>, port| addresses.contains(&Address::Name(name.clone(), port));
        source.resolved.retain(|((name, port), _)| wanted(name, *port));
        source.addresses = addresses;
        self.rebuild(&source);
    }

    /// Names among the addresses.
    fn names(&self) -> Vec<Name> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let names = source.addresses.iter().filter_map(|address| match address {
            Address::Name(name, port) => Some((name.clone(), *port)),
            Address::Ip(_) => None,
        });
        names.collect()
    }

    /// Whether the backend waits for what a name stands for.
    fn lacks(&self, name: &Name) -> bool {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.addresses.contains(&Address::Name(name.0.clone(), name.1))
            && source.resolved(name).is_none()
    }

    /// Takes what a name stands for.
    fn resolve(&self, name: &Name, found: &[SocketAddr]) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = source.addresses.contains(&Address::Name(name.0.clone(), name.1));
        let known = source.resolved(name).is_some_and(|known| known == found);
        if wanted && !known {
            source.resolved.retain(|(other, _)| other != name);
            source.resolved.push((name.clone(), found.into()));
            self.rebuild(&source);
        }
    }

    fn rebuild(&self, source: &Source) {
        let previous = self.set.load();
        let now = Moment::now();
        let next = EndpointSet::new(&source.flat(), Some(&previous), &self.key.care, now);
        self.set.store(Arc::new(next));
    }

    /// What names the backend in affinity cookies.
    pub fn affinity_key(&self) -> &str {
        self.affinity_key.get_or_init(|| tokens::digest(&[&self.upstream_name]).into())
    }
}

/// One endpoint and what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// When it joined others that were there before, unless it never had to start slowly.
    joined: Moment,
    slow_start_ms: u32,
    /// Connections that failed.
    pub passive: Passive,
    /// What probes say.
    pub probed: Probed,
    /// How fast it answers.
    pub latency: Latency,
    /// Connections to it that wait for a request.
    pub kept: Kept,
}

impl Endpoint {
    fn new(
        address: SocketAddr,
        joined: Moment,
        slow_start: Duration,
        latency: Latency,
    ) -> Endpoint {
        let (passive, probed) = (Passive::default(), Probed::default());
        let slow_start_ms = u32::try_from(slow_start.as_millis()).unwrap_or(u32::MAX);
        let kept = Kept::default();
        Endpoint { address, joined, slow_start_ms, passive, probed, latency, kept }
    }

    /// Its share of requests, 0.1 to 1.
    fn share(&self, now: Moment) -> f64 {
        if self.joined == Moment::default() {
            return 1.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a start are few")]
        let age_ms = now.0.saturating_sub(self.joined.0) as f64;
        let full_ms = f64::from(self.slow_start_ms);
        (0.1 + 0.9 * age_ms / full_ms).min(1.0)
    }
}

/// All endpoints of a backend at one moment.
#[derive(Debug)]
pub struct EndpointSet {
    all: Box<[Arc<Endpoint>]>,
    next: AtomicUsize,
    /// Made when first needed.
    ring: OnceLock<Ring>,
    tokens: OnceLock<Box<Tokens>>,
}

impl EndpointSet {
    fn new(
        addresses: &[SocketAddr],
        previous: Option<&EndpointSet>,
        care: &Care,
        now: Moment,
    ) -> EndpointSet {
        let before: &[Arc<Endpoint>] = previous.map_or(&[], |set| &set.all);
        let known: HashMap<SocketAddr, &Arc<Endpoint>> =
            before.iter().map(|endpoint| (endpoint.address, endpoint)).collect();
        // The first ones have nobody to leave the work to.
        let starts_slowly = !before.is_empty() && !care.slow_start.is_zero();
        let joined = if starts_slowly { now } else { Moment::default() };
        let average = || Latency::average(before.iter().map(|endpoint| &endpoint.latency), now);
        let endpoint = |address: &SocketAddr| match known.get(address) {
            Some(known) => (*known).clone(),
            None => Arc::new(Endpoint::new(*address, joined, care.slow_start, average())),
        };
        let next = previous.map_or(0, |set| set.next.load(Ordering::Relaxed));
        let set = EndpointSet {
            all: addresses.iter().map(endpoint).collect(),
            next: AtomicUsize::new(next),
            ring: OnceLock::new(),
            tokens: OnceLock::new(),
        };
        // Made here where it was in use, so that no request has to wait for it.
        if previous.is_some_and(|set| set.ring.get().is_some()) {
            set.ring();
        }
        set
    }

    /// Nothing to send requests to.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Where they are.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|endpoint| endpoint.address)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.all.iter()
    }

    fn ring(&self) -> &Ring {
        self.ring.get_or_init(|| Ring::new(self.addresses()))
    }

    fn tokens(&self, backend_name: &str) -> &Tokens {
        self.tokens.get_or_init(|| Box::new(Tokens::new(backend_name, self.addresses())))
    }
}

#[cfg(test)]
mod tests;
