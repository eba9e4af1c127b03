//! Which ports differ between what is held and what is wanted, without looking into those that do
//! not: they are compared by pointer, and where it is known what changed not even that.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use podium_proxy_ebpf::ServiceKey;

use super::held::{Held, HeldPort};
use crate::model::{Desired, PortName, ServicePort};

/// The ports and ClusterIPs that a plan deals with. All others stay as they are, with all their
/// addresses: an address belongs to one port only.
#[derive(Default)]
pub struct Changes<'a> {
    /// To be placed, or placed anew.
    pub placed: Vec<(&'a PortName, &'a Arc<ServicePort>)>,
    /// Held, but not wanted.
    pub gone: Vec<PortName>,
    /// ClusterIPs to be marked as such.
    pub marked: Vec<IpAddr>,
    /// ClusterIPs that are none any more.
    pub unmarked: Vec<IpAddr>,
    /// The ids of `placed` that have one.
    ids: HashMap<&'a PortName, u32>,
    /// The addresses of `placed`, with the id that the port has already.
    wanted: HashMap<ServiceKey, Option<u32>>,
}

impl<'a> Changes<'a> {
    /// Compares everything. What is the same in content is held by the newer pointer from now on,
    /// so that the next comparison is quick.
    pub fn between(held: &mut Held, desired: &'a Desired) -> Self {
        let mut changes = Self {
            marked: desired.cluster_ips.difference(&held.cluster_ips).copied().collect(),
            unmarked: held.cluster_ips.difference(&desired.cluster_ips).copied().collect(),
            ..Self::default()
        };
        held.shortages
            .retain(|name| desired.ports.contains_key(name), |ip| desired.cluster_ips.contains(ip));
        let mut kept = held.ports.iter_mut().peekable();
        for (name, port) in &desired.ports {
            while let Some((gone, _)) = kept.next_if(|(held, _)| *held < name) {
                changes.gone.push(gone.clone());
            }
            let old = kept.next_if(|(held, _)| *held == name).map(|(_, old)| old);
            changes.compare(old, name, port);
        }
        changes.gone.extend(kept.map(|(name, _)| name.clone()));
        changes
    }

    /// Compares these, and what found no room before where there may be some now.
    pub fn among(
        held: &mut Held,
        desired: &'a Desired,
        ports: &BTreeSet<PortName>,
        cluster_ips: &BTreeSet<IpAddr>,
    ) -> Self {
        let mut changes = Self::default();
        let (mut names, mut ips) = held.shortages.worth_a_try(held);
        names.extend(ports.iter().cloned());
        ips.extend(cluster_ips);
        for name in names {
            match desired.ports.get_key_value(&name) {
                Some((name, port)) => changes.compare(held.ports.get_mut(name), name, port),
                None => {
                    held.shortages.set_port(&name, None);
                    if held.ports.contains_key(&name) {
                        changes.gone.push(name);
                    }
                }
            }
        }
        for ip in ips {
            match (desired.cluster_ips.contains(&ip), held.cluster_ips.contains(&ip)) {
                (true, false) => changes.marked.push(ip),
                (false, true) => changes.unmarked.push(ip),
                (false, false) => held.shortages.set_cluster_ip(ip, false),
                (true, true) => {}
            }
        }
        changes
    }

    fn compare(
        &mut self,
        old: Option<&mut HeldPort>,
        name: &'a PortName,
        port: &'a Arc<ServicePort>,
    ) {
        let id = old.as_ref().map(|old| old.id);
        match old {
            Some(old) if old.settled && Arc::ptr_eq(&old.content, port) => {}
            Some(old) if old.settled && old.content == *port => {
                old.content = Arc::clone(port);
            }
            _ => {
                let keys = port.addresses.keys();
                let keys = keys.map(|at| (ServiceKey::new(at, name.protocol), id));
                self.wanted.extend(keys);
                self.ids.extend(id.map(|id| (name, id)));
                self.placed.push((name, port));
            }
        }
    }

    /// The ports that are dealt with.
    pub fn ports(&self) -> BTreeSet<PortName> {
        self.placed.iter().map(|(name, _)| *name).chain(&self.gone).cloned().collect()
    }

    /// The id that a port to be placed had before this plan.
    pub fn id_of(&self, name: &PortName) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// Whether one of the ports to be placed has this address.
    pub fn is_wanted(&self, key: &ServiceKey) -> bool {
        self.wanted.contains_key(key)
    }

    /// Addresses that nobody wants any more.
    pub fn unwanted(&self, held: &Held) -> Vec<ServiceKey> {
        let changed = self.placed.iter().map(|(name, _)| *name).chain(&self.gone);
        let mut keys = Vec::new();
        for name in changed {
            let Some(port) = held.ports.get(name) else {
                continue;
            };
            for at in port.content.addresses.keys() {
                let key = ServiceKey::new(at, name.protocol);
                let is_its_own = held.entries.get(&key).is_some_and(|entry| entry.id == port.id);
                if is_its_own && !self.is_wanted(&key) {
                    keys.push(key);
                }
            }
        }
        keys
    }

    /// The addresses that go over from one port to another, and the ids that they go from.
    pub fn given_away(&self, held: &Held) -> (HashSet<ServiceKey>, HashSet<u32>) {
        (self.wanted.iter())
            .filter_map(|(key, owner)| {
                let id = held.entries.get(key)?.id;
                (*owner != Some(id)).then_some((*key, id))
            })
            .unzip()
    }
}
