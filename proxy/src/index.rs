//! Objects in, desired state out. Pure: no clock, no socket, no map.
//!
//! Each Service is translated by itself ([`translate`]) when it or one of its slices changed; what
//! several Services could both want, an address and port, is settled over all of them at the end.

pub mod slice;
pub mod translate;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};
use podium_proxy_ebpf::{AddressPort, Protocol};

use crate::model::{Desired, LocalNode, ObjectName, PortName, Problem, ServicePort};
use slice::Slice;
use translate::Translated;

/// One object as it is now; `None`: it is gone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service.
    Service(ObjectName, Option<Box<Service>>),
    /// An EndpointSlice.
    Slice(ObjectName, Option<Box<EndpointSlice>>),
    /// An Endpoints object. It counts only while its Service has no EndpointSlice.
    Endpoints(ObjectName, Option<Box<Endpoints>>),
}

/// All objects, in the form the translation needs, and what became of them.
#[derive(Debug, Default)]
pub struct Index {
    node_name: Option<String>,
    local_node: LocalNode,
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, Slice>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    endpoints: BTreeMap<ObjectName, Vec<Slice>>,
    translated: BTreeMap<ObjectName, Translated>,
    changed: BTreeSet<ObjectName>,
}

impl Index {
    /// An empty index. Without a node name no endpoint counts as local.
    pub fn new(node_name: Option<String>) -> Self {
        Self { node_name, ..Self::default() }
    }

    /// What is known of this node now. Everything is translated anew if it changed.
    pub fn set_local_node(&mut self, local_node: LocalNode) {
        if self.local_node != local_node {
            self.local_node = local_node;
            self.changed.extend(self.services.keys().cloned());
        }
    }

    /// Takes in one change; [`Index::desired`] draws the conclusions.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(name, service) => {
                match service {
                    Some(service) => self.services.insert(name.clone(), *service),
                    None => self.services.remove(&name),
                };
                self.changed.insert(name);
            }
            Change::Slice(name, slice) => {
                let node = self.node_name.as_deref();
                self.replace_slice(name, slice.map(|slice| Slice::from_object(&slice, node)));
            }
            Change::Endpoints(name, endpoints) => {
                let node = self.node_name.as_deref();
                match endpoints {
                    Some(object) => {
                        self.endpoints.insert(name.clone(), Slice::from_endpoints(&object, node))
                    }
                    None => self.endpoints.remove(&name),
                };
                self.changed.insert(name);
            }
        }
    }

    fn replace_slice(&mut self, name: ObjectName, slice: Option<Slice>) {
        let old = match slice {
            Some(slice) => {
                let service = slice.service.clone();
                let old = self.slices.insert(name.clone(), slice);
                self.slices_of.entry(service.clone()).or_default().insert(name.clone());
                self.changed.insert(service.clone());
                old.filter(|old| old.service != service)
            }
            None => self.slices.remove(&name),
        };
        if let Some(old) = old {
            if let Some(names) = self.slices_of.get_mut(&old.service) {
                names.remove(&name);
            }
            self.changed.insert(old.service);
        }
    }

    /// What the kernel should hold now, and every problem there is.
    pub fn desired(&mut self) -> (Desired, Vec<Problem>) {
        for name in std::mem::take(&mut self.changed) {
            match self.translate(&name) {
                Some(mut translated) => {
                    if let Some(before) = self.translated.get(&name) {
                        translated.keep_unchanged(before);
                    }
                    self.translated.insert(name, translated);
                }
                None => {
                    self.translated.remove(&name);
                }
            }
        }
        self.settle()
    }

    fn translate(&self, name: &ObjectName) -> Option<Translated> {
        let service = self.services.get(name)?;
        let mut slices: Vec<&Slice> = (self.slices_of.get(name).into_iter().flatten())
            .filter_map(|slice| self.slices.get(slice))
            .collect();
        if slices.is_empty() {
            slices.extend(self.endpoints.get(name).into_iter().flatten());
        }
        Some(translate::translate(name, service, &slices))
    }

    /// Joins all Services. An address and port that two of them want belongs to the one whose
    /// ClusterIP it is (an external address must not capture another Service's traffic,
    /// CVE-2020-8554), then to the older one, then to the one whose name comes first.
    fn settle(&self) -> (Desired, Vec<Problem>) {
        let mut desired = Desired::default();
        let mut problems = Vec::new();
        let mut by_age: Vec<_> = self.translated.iter().collect();
        by_age.sort_by_key(|(name, translated)| (translated.created_unix_ms, *name));
        let mut owners: HashMap<(AddressPort, Protocol), &PortName> = HashMap::new();
        for as_cluster_ip in [true, false] {
            for (_, translated) in &by_age {
                for (address, port) in translated.claims(as_cluster_ip) {
                    owners.entry((address, port.protocol)).or_insert(port);
                }
            }
        }
        for (_, translated) in by_age {
            problems.extend(translated.problems.iter().cloned());
            desired.cluster_ips.extend(translated.cluster_ips.iter().copied());
            for port in &translated.ports {
                let mut lost = Vec::new();
                for address in port.addresses.keys() {
                    match owners.get(&(*address, port.name.protocol)) {
                        Some(owner) if **owner != port.name => {
                            lost.push(*address);
                            problems.push(taken(&port.name, *address, owner));
                        }
                        _ => {}
                    }
                }
                if lost.len() == port.addresses.len() {
                    continue;
                }
                let port = if lost.is_empty() { Arc::clone(port) } else { without(port, &lost) };
                desired.ports.insert(port.name.clone(), port);
            }
        }
        problems.extend(self.slices.values().flat_map(|slice| slice.problems.iter().cloned()));
        (desired, problems)
    }
}

fn taken(port: &PortName, address: AddressPort, owner: &PortName) -> Problem {
    Problem {
        object: format!("Service {}", port.service),
        field: "spec".to_owned(),
        message: format!(
            "{} already belongs to Service {}; not served here",
            address.socket_addr(),
            owner.service
        ),
    }
}

fn without(port: &ServicePort, lost: &[AddressPort]) -> Arc<ServicePort> {
    let mut port = port.clone();
    port.addresses.retain(|address, _| !lost.contains(address));
    Arc::new(port)
}
