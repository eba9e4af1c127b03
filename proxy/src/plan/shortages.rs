//! What found no room, and how much it needs: it is tried again when there may be as much, not
//! at every plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Limit, held::Held};
use crate::model::{PortName, Problem};

/// Room that was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Where.
    pub limit: Limit,
    /// Elements that would have been needed, at least.
    pub need: u32,
}

impl Shortage {
    /// Of so many elements.
    pub fn new(limit: Limit, need: usize) -> Self {
        Self { limit, need: u32::try_from(need).unwrap_or(u32::MAX) }
    }
}

/// All that found no room.
#[derive(Clone, Debug, Default)]
pub struct Shortages {
    ports: BTreeMap<PortName, Shortage>,
    cluster_ips: BTreeSet<IpAddr>,
    changed: bool,
}

impl Shortages {
    /// What became of a port.
    pub fn set_port(&mut self, name: &PortName, shortage: Option<Shortage>) {
        self.changed |= match shortage {
            Some(shortage) => self.ports.insert(name.clone(), shortage) != Some(shortage),
            None => self.ports.remove(name).is_some(),
        };
    }

    /// What became of a ClusterIP.
    pub fn set_cluster_ip(&mut self, ip: IpAddr, is_missing: bool) {
        self.changed |=
            if is_missing { self.cluster_ips.insert(ip) } else { self.cluster_ips.remove(&ip) };
    }

    /// Forgets what nobody wants any more.
    pub fn retain(
        &mut self,
        ports: impl Fn(&PortName) -> bool,
        cluster_ips: impl Fn(&IpAddr) -> bool,
    ) {
        let before = self.ports.len() + self.cluster_ips.len();
        self.ports.retain(|name, _| ports(name));
        self.cluster_ips.retain(cluster_ips);
        self.changed |= self.ports.len() + self.cluster_ips.len() < before;
    }

    /// Whether they are others than when this was asked last.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Whether everything found room.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.cluster_ips.is_empty()
    }

    /// The maps that have no room.
    pub fn full(&self) -> BTreeSet<Limit> {
        let marks = (!self.cluster_ips.is_empty()).then_some(Limit::Services);
        self.ports.values().map(|shortage| shortage.limit).chain(marks).collect()
    }

    /// The same in words.
    pub fn problems(&self) -> BTreeSet<Problem> {
        let problem = |object, message| Problem { object, field: String::new(), message };
        let ports = (self.ports.iter()).map(|(name, shortage)| {
            problem(format!("Service {}", name.service), message(shortage.limit))
        });
        let marks = self.cluster_ips.iter().map(|ip| {
            let message = format!(
                "the services map is full: raise {}; its unknown ports are not refused",
                Limit::Services.flag()
            );
            problem(format!("ClusterIP {ip}"), message)
        });
        ports.chain(marks).collect()
    }

    /// The ports and ClusterIPs for which there may be room now. No more tables than there is room
    /// for, as trying one means to make it; of the rest, lists may not fit between others though
    /// there are elements enough, and must not keep others from trying.
    pub fn worth_a_try(&self, held: &Held) -> (BTreeSet<PortName>, BTreeSet<IpAddr>) {
        if self.is_empty() {
            return Default::default();
        }
        let mut room: BTreeMap<Limit, (u32, u32)> = (self.full().into_iter())
            .map(|limit| (limit, (held.room(limit), held.gap(limit))))
            .collect();
        let mut fits = |limit: Limit, need: u32| {
            room.get_mut(&limit).is_some_and(|(room, gap)| {
                // Endpoints are two lists, which may fit where they would not in one piece.
                let piece = if limit == Limit::Endpoints { need.div_ceil(2) } else { need };
                let fits = piece <= *gap && need <= *room;
                if fits && limit == Limit::Maglev {
                    *room -= need;
                }
                fits
            })
        };
        let ports = (self.ports.iter())
            .filter(|(_, shortage)| fits(shortage.limit, shortage.need))
            .map(|(name, _)| name.clone())
            .collect();
        let marks = self.cluster_ips.iter().filter(|_| fits(Limit::Services, 1)).copied().collect();
        (ports, marks)
    }
}

fn message(limit: Limit) -> String {
    let what = match limit {
        Limit::Services => "the services map",
        Limit::Endpoints => "the endpoints array",
        Limit::SourceRanges => "the map of source ranges",
        Limit::Maglev => {
            return format!(
                "no room for its table of the consistent choice: raise {}; until then more flows \
                 from outside than need to move when its endpoints change",
                limit.flag()
            );
        }
    };
    format!("{what} is full: raise {}; its old state stays", limit.flag())
}
