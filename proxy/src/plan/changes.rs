//! Which ports differ between what is held and what is wanted, without looking into those that do
//! not: they are compared by pointer.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use podium_proxy_ebpf::ServiceKey;

use super::held::Held;
use crate::model::{Desired, PortName, ServicePort};

/// The ports that a plan deals with. All others stay as they are, with all their addresses: an
/// address belongs to one port only.
pub struct Changes<'a> {
    /// To be placed, or placed anew.
    pub placed: Vec<(&'a PortName, &'a Arc<ServicePort>)>,
    /// Held, but not wanted.
    pub gone: Vec<PortName>,
    /// The ids of `placed` that have one.
    ids: HashMap<&'a PortName, u32>,
    /// The addresses of `placed`, with the id that the port has already.
    wanted: HashMap<ServiceKey, Option<u32>>,
}

impl<'a> Changes<'a> {
    /// Compares both. What is the same in content is held by the newer pointer from now on, so that
    /// the next comparison is quick.
    pub fn between(held: &mut Held, desired: &'a Desired) -> Self {
        let mut changes = Self {
            placed: Vec::new(),
            gone: Vec::new(),
            ids: HashMap::new(),
            wanted: HashMap::new(),
        };
        let mut kept = held.ports.iter_mut().peekable();
        for (name, port) in &desired.ports {
            while let Some((gone, _)) = kept.next_if(|(held, _)| *held < name) {
                changes.gone.push(gone.clone());
            }
            let old = kept.next_if(|(held, _)| *held == name).map(|(_, old)| old);
            let id = old.as_ref().map(|old| old.id);
            match old {
                Some(old) if old.settled && Arc::ptr_eq(&old.content, port) => {}
                Some(old) if old.settled && old.content == *port => {
                    old.content = Arc::clone(port);
                }
                _ => {
                    let keys = port.addresses.keys();
                    let keys = keys.map(|at| (ServiceKey::new(at, name.protocol), id));
                    changes.wanted.extend(keys);
                    changes.ids.extend(id.map(|id| (name, id)));
                    changes.placed.push((name, port));
                }
            }
        }
        changes.gone.extend(kept.map(|(name, _)| name.clone()));
        changes
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
