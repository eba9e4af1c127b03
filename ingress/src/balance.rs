//! The endpoints of a Service port, and which of them a request goes to.
//!
//! A backend outlives snapshots: a change of endpoints replaces its [`EndpointSet`] as a whole and keeps
//! what is known of the endpoints that stay. Finding out which endpoints there are is left to `translate`.

use crate::objects::ObjectKey;
use arc_swap::{ArcSwap, Guard};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where an endpoint is, as objects say it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An address and port.
    Ip(SocketAddr),
    /// The DNS name of an ExternalName Service, and a port: to be resolved, again and again.
    Name(Arc<str>, u16),
}

/// A Service and the port an Ingress names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// The Service.
    pub service: ObjectKey,
    /// Port number or name, as the Ingress writes it; empty for the first port.
    pub port: String,
    /// Through the cluster IP instead of endpoints.
    pub by_cluster_ip: bool,
}

/// A Service port that requests go to.
#[derive(Debug)]
pub struct Backend {
    /// What it is.
    pub key: BackendKey,
    /// `namespace-service-port`, the name ingress-nginx logs.
    pub upstream_name: String,
    set: ArcSwap<EndpointSet>,
}

impl Backend {
    /// A backend seen for the first time.
    pub fn new(key: BackendKey, addresses: &[Address]) -> Backend {
        let upstream_name = format!("{}-{}-{}", key.service.namespace, key.service.name, key.port);
        let set = EndpointSet::new(addresses, None);
        Backend { key, upstream_name, set: ArcSwap::from_pointee(set) }
    }

    /// The endpoints of this moment.
    pub fn endpoints(&self) -> Guard<Arc<EndpointSet>> {
        self.set.load()
    }

    /// Replaces the endpoints; those that stay keep their state.
    pub fn replace(&self, addresses: &[Address]) {
        let next = EndpointSet::new(addresses, Some(&self.set.load()));
        self.set.store(Arc::new(next));
    }
}

/// One endpoint and what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
}

/// All endpoints of a backend at one moment.
#[derive(Debug)]
pub struct EndpointSet {
    all: Box<[Arc<Endpoint>]>,
    next: AtomicUsize,
}

impl EndpointSet {
    fn new(addresses: &[Address], previous: Option<&EndpointSet>) -> EndpointSet {
        let addresses = addresses.iter().filter_map(|address| match address {
            Address::Ip(address) => Some(address),
            Address::Name(..) => None,
        });
        let known = |address: &SocketAddr| {
            let mut all = previous.iter().flat_map(|set| set.all.iter());
            all.find(|endpoint| endpoint.address == *address).cloned()
        };
        let endpoint = |address: &SocketAddr| {
            known(address).unwrap_or_else(|| Arc::new(Endpoint { address: *address }))
        };
        let next = previous.map_or(0, |set| set.next.load(Ordering::Relaxed));
        EndpointSet { all: addresses.map(endpoint).collect(), next: AtomicUsize::new(next) }
    }

    /// Nothing to send requests to.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Where they are.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.all.iter().map(|endpoint| endpoint.address)
    }

    /// The next endpoint in turn, one not in `tried` if there is any.
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let count = self.all.len();
        if count == 0 {
            return None;
        }
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |step: usize| &self.all[start.wrapping_add(step) % count];
        let fresh = (0..count).map(turn).find(|endpoint| !tried.contains(&endpoint.address));
        Some(fresh.unwrap_or_else(|| turn(0)).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(endpoints: &[&str]) -> Backend {
        let key = BackendKey {
            service: ObjectKey::new("shop", "web"),
            port: "80".into(),
            by_cluster_ip: false,
        };
        Backend::new(key, &addresses(endpoints))
    }

    fn addresses(endpoints: &[&str]) -> Vec<Address> {
        endpoints.iter().map(|e| Address::Ip(e.parse().unwrap())).collect()
    }

    fn pick(backend: &Backend, tried: &[SocketAddr]) -> Option<SocketAddr> {
        backend.endpoints().pick(tried).map(|endpoint| endpoint.address)
    }

    #[test]
    fn endpoints_take_turns() {
        let web = backend(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let mut picks = (0..).map(|_| pick(&web, &[]).unwrap().ip().to_string());
        let first: Vec<String> = picks.by_ref().take(4).collect();
        assert_eq!(first, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
        web.replace(&addresses(&["10.0.0.1:80", "10.0.0.2:80"]));
        assert_eq!(picks.next().unwrap(), "10.0.0.1");
    }

    #[test]
    fn a_retry_avoids_what_was_tried() {
        let web = backend(&["10.0.0.1:80", "10.0.0.2:80"]);
        let first = pick(&web, &[]).unwrap();
        for _ in 0..4 {
            assert_ne!(pick(&web, &[first]).unwrap(), first);
        }
        let single = backend(&["10.0.0.1:80"]);
        assert_eq!(pick(&single, &[first]), Some(first));
        assert_eq!(pick(&backend(&[]), &[]), None);
    }
}
