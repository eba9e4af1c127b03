//! Settled points: the kernel's whole state is compared with the model until they are the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use podium_proxy::{
    datapath::pins::PinDir,
    status::{self, ServiceStatus, Status},
};

use crate::{
    island::PATIENCE,
    plan::{Door, ENDPOINTS, LOCAL, POD_PORT, Ranges, Service, endpoint_ip},
};

/// Name, protocol and family of a service port.
type Port = (String, &'static str, usize);

/// A service port, as `status` shows it and the model wants it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shown {
    /// Address, kind, and the three words there may be about it.
    addresses: BTreeSet<(String, &'static str, [bool; 3])>,
    endpoints: BTreeSet<String>,
    local: Option<BTreeSet<String>>,
    source_ranges: Vec<String>,
    affinity_secs: u32,
}

/// Waits until the kernel holds these services and nothing else.
pub fn settle(pins: &PinDir, services: &[Service]) -> Status {
    let (wanted, entries) = (wanted(services), entries(services));
    let started = Instant::now();
    loop {
        let status = status::read(pins).expect("cannot read the kernel's state");
        match difference(&wanted, entries, &status) {
            None => return status,
            Some(text) => {
                assert!(started.elapsed() < PATIENCE, "the kernel does not hold the model: {text}");
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn difference(wanted: &BTreeMap<Port, Shown>, entries: u32, status: &Status) -> Option<String> {
    if let Some(port) = status.services.iter().find(|service| service.addresses.is_empty()) {
        return Some(format!("{} has no addresses", port.name));
    }
    let shown: BTreeMap<Port, Shown> = status.services.iter().map(shown).collect();
    for (port, wanted) in wanted {
        match shown.get(port) {
            Some(shown) if shown == wanted => {}
            shown => return Some(format!("{port:?}: {shown:#?}, not {wanted:#?}")),
        }
    }
    if let Some(port) = shown.keys().find(|port| !wanted.contains_key(*port)) {
        return Some(format!("{port:?} is too much"));
    }
    let used = status.maps.iter().find(|map| map.map == "SERVICES").unwrap().used;
    (used != entries).then(|| format!("{used} entries of the services map, not {entries}"))
}

fn shown(status: &ServiceStatus) -> (Port, Shown) {
    let first: SocketAddr = status.addresses[0].at.parse().unwrap();
    let port = (status.name.clone(), status.protocol, usize::from(first.is_ipv6()));
    let set = |texts: &[String]| texts.iter().cloned().collect();
    let shown = Shown {
        addresses: (status.addresses.iter())
            .map(|one| {
                let words = [one.internal_local, one.external_local, one.restricted];
                (one.at.clone(), one.kind, words)
            })
            .collect(),
        endpoints: set(&status.endpoints),
        local: status.local_endpoints.as_deref().map(set),
        source_ranges: status.source_ranges.clone(),
        affinity_secs: status.affinity_seconds,
    };
    (port, shown)
}

fn wanted(services: &[Service]) -> BTreeMap<Port, Shown> {
    let mut all = BTreeMap::new();
    for service in services.iter().filter(|service| service.now().exists) {
        for family in 0..2 {
            for protocol in ["TCP", "UDP"] {
                all.insert((service.name(), protocol, family), wanted_port(service, family));
            }
        }
    }
    all
}

fn wanted_port(service: &Service, family: usize) -> Shown {
    let state = service.now();
    let set = |set: u64| -> BTreeSet<String> {
        (0..ENDPOINTS)
            .filter(|endpoint| set & 1 << endpoint != 0)
            .map(|endpoint| address(endpoint_ip(endpoint, family), POD_PORT))
            .collect()
    };
    let at = |door| service.address(door, family).to_string();
    let (internal, external) = (state.internal_local, state.external_local);
    let restricted = state.ranges != Ranges::Everybody;
    let mut addresses =
        BTreeSet::from([(at(Door::ClusterIp), "ClusterIP", [internal, internal, false])]);
    if service.has_node_port() {
        addresses.insert((at(Door::NodePort), "NodePort", [false, external, false]));
        addresses.insert((at(Door::Loopback), "loopback NodePort", [false, false, false]));
    }
    if service.has_balancer() {
        addresses.insert((at(Door::Balancer), "LoadBalancer", [false, external, restricted]));
    }
    let only_local = internal || external && service.has_node_port();
    let source_ranges = if service.has_balancer() && restricted {
        vec![state.ranges.texts()[family].to_owned()]
    } else {
        Vec::new()
    };
    Shown {
        addresses,
        endpoints: set(state.endpoints),
        local: only_local.then(|| set(state.endpoints & LOCAL)),
        source_ranges,
        affinity_secs: if state.affinity { 10_800 } else { 0 },
    }
}

fn address(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// How many entries the services map has then: an address of a port each, and each ClusterIP.
fn entries(services: &[Service]) -> u32 {
    let of = |service: &Service| {
        let addresses =
            1 + 2 * u32::from(service.has_node_port()) + u32::from(service.has_balancer());
        2 + 4 * addresses
    };
    services.iter().filter(|service| service.now().exists).map(of).sum()
}
