//! Objects in, desired state out. Pure: no clock, no socket, no map.
//!
//! Each Service is translated by itself ([`translate`]) when it or one of its slices changed; what
//! several Services could both want, an address and port, is settled between them ([`settle`]).
//! Both look only at what changed, so that one change costs the same among ten Services and among
//! ten thousand.

pub mod addresses;
pub mod choice;
pub mod claims;
pub mod local_node;
pub mod object;
pub mod settle;
pub mod slice;
pub mod translate;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::Service;

use crate::model::{Desired, LocalNode, ObjectName, Problem};
use settle::{Changed, Settled};
use slice::Slice;
use translate::Translated;

/// One object as it is now, as seen from this node; `None`: it is gone.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service.
    Service(ObjectName, Option<Box<Service>>),
    /// An EndpointSlice.
    Slice(ObjectName, Option<Box<Slice>>),
    /// An Endpoints object. It counts only while its Service has no EndpointSlice.
    Endpoints(ObjectName, Option<Vec<Slice>>),
}

/// All objects, in the form the translation needs, and what became of them.
#[derive(Debug, Default)]
pub struct Index {
    local_node: LocalNode,
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, Slice>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    endpoints: BTreeMap<ObjectName, Vec<Slice>>,
    changed: BTreeSet<ObjectName>,
    slice_problems: BTreeMap<ObjectName, Vec<Problem>>,
    slice_problems_changed: bool,
    settled: Settled,
}

impl Index {
    /// What is known of this node.
    pub const fn local_node(&self) -> &LocalNode {
        &self.local_node
    }

    /// What is known of this node now. What depends on that is translated anew.
    pub fn set_local_node(&mut self, local_node: LocalNode) {
        let old = std::mem::replace(&mut self.local_node, local_node);
        let new = &self.local_node;
        if old.zone != new.zone || old.nodeport_ips != new.nodeport_ips {
            self.changed.extend(self.services.keys().cloned());
            return;
        }
        // Addresses of the host come and go; few of them are endpoints.
        let moved: BTreeSet<IpAddr> =
            old.host_ips.symmetric_difference(&new.host_ips).copied().collect();
        if !moved.is_empty() {
            let affected = (self.slices.values().chain(self.endpoints.values().flatten()))
                .filter(|slice| slice.endpoints.iter().any(|at| moved.contains(&at.ip)))
                .map(|slice| slice.service.clone());
            self.changed.extend(affected);
        }
    }

    /// Takes in one change; [`Index::update`] draws the conclusions.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(name, service) => {
                match service {
                    Some(service) => self.services.insert(name.clone(), trimmed(*service)),
                    None => self.services.remove(&name),
                };
                self.changed.insert(name);
            }
            Change::Slice(name, slice) => self.replace_slice(name, slice.map(|slice| *slice)),
            Change::Endpoints(name, endpoints) => {
                match endpoints {
                    Some(slices) => self.endpoints.insert(name.clone(), slices),
                    None => self.endpoints.remove(&name),
                };
                self.changed.insert(name);
            }
        }
    }

    fn replace_slice(&mut self, name: ObjectName, mut slice: Option<Slice>) {
        let problems = slice.as_mut().map(|slice| std::mem::take(&mut slice.problems));
        let problems = problems.filter(|problems| !problems.is_empty());
        if self.slice_problems.get(&name) != problems.as_ref() {
            self.slice_problems_changed = true;
            match problems {
                Some(problems) => self.slice_problems.insert(name.clone(), problems),
                None => self.slice_problems.remove(&name),
            };
        }
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
                if names.is_empty() {
                    self.slices_of.remove(&old.service);
                }
            }
            self.changed.insert(old.service);
        }
    }

    /// Draws the conclusions from what changed since the last time.
    pub fn update(&mut self) -> Changed {
        let names = std::mem::take(&mut self.changed);
        let translated: Vec<_> = (names.into_iter())
            .map(|name| {
                let translated = self.translate(&name);
                (name, translated)
            })
            .collect();
        let mut changed = self.settled.update(translated);
        changed.problems |= std::mem::take(&mut self.slice_problems_changed);
        changed
    }

    /// What the kernel should hold, as of the last update.
    pub const fn desired(&self) -> &Desired {
        &self.settled.desired
    }

    /// Everything that is wrong with objects, as of the last update.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.settled.problems.values().chain(self.slice_problems.values()).flatten()
    }

    fn translate(&self, name: &ObjectName) -> Option<Translated> {
        let service = self.services.get(name)?;
        let slices: Vec<&Slice> = (self.slices_of.get(name).into_iter().flatten())
            .filter_map(|slice| self.slices.get(slice))
            .collect();
        if !slices.is_empty() {
            return Some(translate::translate(name, service, &slices, &self.local_node));
        }
        let slices: Vec<&Slice> = self.endpoints.get(name).into_iter().flatten().collect();
        let mut translated = translate::translate(name, service, &slices, &self.local_node);
        translated.problems.extend(slices.iter().flat_map(|slice| slice.problems.iter().cloned()));
        Some(translated)
    }
}

/// The Service without what nothing here reads and may be large.
fn trimmed(mut service: Service) -> Service {
    service.metadata.managed_fields = None;
    if let Some(annotations) = &mut service.metadata.annotations {
        annotations.retain(|name, _| name == addresses::SOURCE_RANGES_ANNOTATION);
    }
    if let Some(labels) = &mut service.metadata.labels {
        labels.retain(|name, _| name == translate::PROXY_NAME_LABEL);
    }
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
        spec.ports.iter_mut().for_each(Vec::shrink_to_fit);
    }
    service
}
