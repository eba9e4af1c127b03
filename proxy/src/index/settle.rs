//! Joins all Services into one state. Only what changed is looked at again: a Service, and those
//! that want an address of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use podium_proxy_ebpf::{AddressPort, Family, Protocol};

use super::{
    claims::{Claim, Claims},
    translate::Translated,
};
use crate::model::{Desired, ObjectName, PortName, Problem, ServicePort};

/// What differs from the last state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Service ports that are new, other or gone.
    pub ports: BTreeSet<PortName>,
    /// ClusterIPs that are new or gone.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Whether any health check is.
    pub health_checks: bool,
    /// Whether any problem is.
    pub problems: bool,
}

/// The joined state.
#[derive(Debug, Default)]
pub struct Settled {
    /// What the kernel should hold.
    pub desired: Desired,
    /// Problems of Services, by Service.
    pub problems: BTreeMap<ObjectName, Vec<Problem>>,
    translated: BTreeMap<ObjectName, Translated>,
    addresses: Claims<(AddressPort, Protocol), PortName>,
    health_ports: Claims<u16, ObjectName>,
    cluster_ip_uses: HashMap<IpAddr, usize>,
}

impl Settled {
    /// Takes in what became of some Services; `None`: they are gone.
    pub fn update(
        &mut self,
        services: impl IntoIterator<Item = (ObjectName, Option<Translated>)>,
    ) -> Changed {
        let mut changed = Changed::default();
        let mut unsettled = BTreeSet::new();
        for (name, translated) in services {
            self.replace(&name, translated, &mut unsettled, &mut changed);
            unsettled.insert(name);
        }
        for name in unsettled {
            self.settle(&name, &mut changed);
        }
        changed
    }

    fn replace(
        &mut self,
        name: &ObjectName,
        translated: Option<Translated>,
        unsettled: &mut BTreeSet<ObjectName>,
        changed: &mut Changed,
    ) {
        let old = self.translated.remove(name).unwrap_or_default();
        let mut new = translated;
        if let Some(new) = &mut new {
            new.keep_unchanged(&old);
        }
        let nothing = Translated::default();
        let now = new.as_ref().unwrap_or(&nothing);
        if !claims_the_same(&old, now) {
            self.count_cluster_ips(&old, now, changed);
            for (key, claim) in address_claims(&old) {
                self.addresses.remove(&key, &claim);
                unsettled.extend(self.addresses.claimants(&key).map(|port| port.service.clone()));
            }
            for (key, claim) in address_claims(now) {
                unsettled.extend(self.addresses.claimants(&key).map(|port| port.service.clone()));
                self.addresses.add(key, claim);
            }
            if let Some((port, claim)) = health_claim(&old) {
                self.health_ports.remove(&port, &claim);
                unsettled.extend(self.health_ports.claimants(&port).cloned());
                if self.desired.health_checks.get(&port).is_some_and(|is| is.service == *name) {
                    self.desired.health_checks.remove(&port);
                    changed.health_checks = true;
                }
            }
            if let Some((port, claim)) = health_claim(now) {
                unsettled.extend(self.health_ports.claimants(&port).cloned());
                self.health_ports.add(port, claim);
            }
        }
        if let Some(new) = new {
            self.translated.insert(name.clone(), new);
        }
    }

    fn count_cluster_ips(&mut self, old: &Translated, now: &Translated, changed: &mut Changed) {
        for ip in &now.cluster_ips {
            *self.cluster_ip_uses.entry(*ip).or_default() += 1;
            if self.desired.cluster_ips.insert(*ip) {
                changed.cluster_ips.insert(*ip);
            }
        }
        for ip in &old.cluster_ips {
            let uses = self.cluster_ip_uses.entry(*ip).or_default();
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.cluster_ip_uses.remove(ip);
                self.desired.cluster_ips.remove(ip);
                changed.cluster_ips.insert(*ip);
            }
        }
    }

    /// Puts one Service into the state, less what others have a better claim to.
    fn settle(&mut self, name: &ObjectName, changed: &mut Changed) {
        let mut placed: BTreeSet<PortName> = (self.desired.ports.range(first_port(name)..))
            .take_while(|(port, _)| port.service == *name)
            .map(|(port, _)| port.clone())
            .collect();
        let mut problems = Vec::new();
        if let Some(translated) = self.translated.get(name) {
            problems.clone_from(&translated.problems);
            for port in &translated.ports {
                let Some(port) = self.owned(port, &mut problems) else {
                    continue;
                };
                placed.remove(&port.name);
                let old = self.desired.ports.get(&port.name);
                if old.is_some_and(|old| Arc::ptr_eq(old, &port) || **old == *port) {
                    continue;
                }
                changed.ports.insert(port.name.clone());
                self.desired.ports.insert(port.name.clone(), port);
            }
        }
        for gone in placed {
            self.desired.ports.remove(&gone);
            changed.ports.insert(gone);
        }
        self.settle_health_check(name, &mut problems, changed);
        let old = self.problems.get(name).map_or(&[][..], Vec::as_slice);
        if old != problems {
            changed.problems = true;
            if problems.is_empty() {
                self.problems.remove(name);
            } else {
                self.problems.insert(name.clone(), problems);
            }
        }
    }

    /// The port with those of its addresses that are its own; `None` if none is.
    fn owned(
        &self,
        port: &Arc<ServicePort>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<ServicePort>> {
        let mut lost = Vec::new();
        for address in port.addresses.keys() {
            match self.addresses.owner(&(*address, port.name.protocol)) {
                Some(owner) if *owner != port.name => {
                    lost.push(*address);
                    let at = address.socket_addr();
                    problems.push(taken(&port.name.service, "spec", &at, &owner.service));
                }
                _ => {}
            }
        }
        if lost.is_empty() {
            return Some(Arc::clone(port));
        }
        if lost.len() == port.addresses.len() {
            return None;
        }
        let mut rest = ServicePort::clone(port);
        rest.addresses.retain(|address, _| !lost.contains(address));
        Some(Arc::new(rest))
    }

    fn settle_health_check(
        &mut self,
        name: &ObjectName,
        problems: &mut Vec<Problem>,
        changed: &mut Changed,
    ) {
        let Some((port, check)) =
            (self.translated.get(name)).and_then(|translated| translated.health_check.as_ref())
        else {
            return;
        };
        match self.health_ports.owner(port) {
            Some(owner) if owner != name => {
                let what = format!("port {port}");
                problems.push(taken(name, "spec.healthCheckNodePort", &what, owner));
            }
            _ => {
                if self.desired.health_checks.insert(*port, check.clone()).as_ref() != Some(check) {
                    changed.health_checks = true;
                }
            }
        }
    }
}

/// A port name that comes before all of a Service.
fn first_port(service: &ObjectName) -> PortName {
    PortName {
        service: service.clone(),
        port: String::new(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    }
}

fn claims_the_same(a: &Translated, b: &Translated) -> bool {
    let health_port = |of: &Translated| of.health_check.as_ref().map(|(port, _)| *port);
    a.created_unix_ms == b.created_unix_ms
        && a.cluster_ips == b.cluster_ips
        && health_port(a) == health_port(b)
        && a.ports.len() == b.ports.len()
        && a.ports.iter().zip(&b.ports).all(|(a, b)| {
            a.name == b.name && (Arc::ptr_eq(a, b) || a.addresses.keys().eq(b.addresses.keys()))
        })
}

fn address_claims(
    of: &Translated,
) -> impl Iterator<Item = ((AddressPort, Protocol), Claim<PortName>)> {
    of.ports.iter().flat_map(move |port| {
        port.addresses.keys().map(move |address| {
            let claim = Claim {
                foreign: !of.cluster_ips.contains(&address.socket_addr().ip()),
                created_unix_ms: of.created_unix_ms,
                name: port.name.clone(),
            };
            ((*address, port.name.protocol), claim)
        })
    })
}

fn health_claim(of: &Translated) -> Option<(u16, Claim<ObjectName>)> {
    let (port, check) = of.health_check.as_ref()?;
    let name = check.service.clone();
    Some((*port, Claim { foreign: true, created_unix_ms: of.created_unix_ms, name }))
}

fn taken(
    service: &ObjectName,
    field: &str,
    what: &dyn std::fmt::Display,
    owner: &ObjectName,
) -> Problem {
    Problem {
        object: format!("Service {service}"),
        field: field.to_owned(),
        message: format!("{what} already belongs to Service {owner}; not served here"),
    }
}
