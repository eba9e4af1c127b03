//! ClusterIPs and node ports of Services. The Services in the store are the truth; what is here is
//! rebuilt from them at start and kept in step with every write.
//!
//! A request claims what it needs first, and gives it back by dropping the [`Claim`] unless the
//! write succeeded.

mod addresses;
mod families;
mod pool;
mod ports;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use podium_api::field;
use serde_json::Value;

use crate::allocation::addresses::AddressRange;
use crate::allocation::pool::Pool;

/// All that Services share.
pub(crate) struct Allocators {
    shared: Arc<Mutex<Shared>>,
}

/// What is taken.
pub(crate) struct Shared {
    /// The first is the primary one.
    ranges: Vec<AddressRange>,
    ports: Pool,
    ports_first: u16,
}

/// Something taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Address(IpAddr),
    Port(u16),
}

/// What a request has taken; given back when dropped before [`Claim::keep`].
pub(crate) struct Claim {
    shared: Arc<Mutex<Shared>>,
    taken: Vec<Taken>,
    /// What the old Service held and the new one does not.
    released: Vec<Taken>,
}

impl Claim {
    /// The write succeeded: what was taken stays taken, and what was left is free.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
        let released = std::mem::take(&mut self.released);
        let mut shared = lock(&self.shared);
        for taken in released {
            shared.release(taken);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        let mut shared = lock(&self.shared);
        for taken in taken {
            shared.release(taken);
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Allocators {
    pub(crate) fn new(cidrs: &[IpNet], node_ports: &RangeInclusive<u16>) -> Self {
        let count = node_ports.end().saturating_sub(*node_ports.start()) as usize + 1;
        let shared = Shared {
            ranges: cidrs.iter().map(|cidr| AddressRange::new(*cidr)).collect(),
            ports: Pool::new(count as u128, ports::reserved(count)),
            ports_first: *node_ports.start(),
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// Takes what a stored Service holds. Tells of what another one holds already.
    pub(crate) fn restore(&self, service: &Value) -> Vec<String> {
        let mut shared = lock(&self.shared);
        let mut problems = Vec::new();
        for taken in held(service) {
            if !shared.take(taken) {
                problems.push(format!("{taken:?} is out of range or held twice"));
            }
        }
        problems
    }

    /// Gives back what a Service held that is gone.
    pub(crate) fn release(&self, service: &Value) {
        let mut shared = lock(&self.shared);
        for taken in held(service) {
            shared.release(taken);
        }
    }

    /// Fills in the addresses and ports of a new Service.
    pub(crate) fn create(&self, new: &mut Value) -> Result<Claim, Vec<field::Error>> {
        self.claim(new, None)
    }

    /// The same for a changed one, which keeps what it had where it can.
    pub(crate) fn update(&self, new: &mut Value, old: &Value) -> Result<Claim, Vec<field::Error>> {
        self.claim(new, Some(old))
    }

    fn claim(&self, new: &mut Value, old: Option<&Value>) -> Result<Claim, Vec<field::Error>> {
        let had = old.map(held).unwrap_or_default();
        let mut claim =
            Claim { shared: self.shared.clone(), taken: Vec::new(), released: Vec::new() };
        let mut errors = Vec::new();
        {
            let mut shared = lock(&self.shared);
            families::fill(&mut shared, new, old, &mut errors);
            if errors.is_empty() {
                addresses::fill(&mut shared, new, &had, &mut claim.taken, &mut errors);
                ports::fill(&mut shared, new, &had, &mut claim.taken, &mut errors);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let has = held(new);
        claim.released = had.into_iter().filter(|taken| !has.contains(taken)).collect();
        Ok(claim)
    }
}

impl Shared {
    fn take(&mut self, taken: Taken) -> bool {
        match taken {
            Taken::Address(address) => {
                self.range_of(address).is_some_and(|range| range.take(address))
            }
            Taken::Port(port) => {
                self.port_offset(port).is_some_and(|offset| self.ports.take(offset))
            }
        }
    }

    fn release(&mut self, taken: Taken) {
        match taken {
            Taken::Address(address) => {
                if let Some(range) = self.range_of(address) {
                    range.release(address);
                }
            }
            Taken::Port(port) => {
                if let Some(offset) = self.port_offset(port) {
                    self.ports.release(offset);
                }
            }
        }
    }

    fn range_of(&mut self, address: IpAddr) -> Option<&mut AddressRange> {
        self.ranges.iter_mut().find(|range| range.contains(address))
    }

    fn port_offset(&self, port: u16) -> Option<u128> {
        port.checked_sub(self.ports_first).map(u128::from).filter(|at| *at < self.ports.size())
    }

    fn port_at(&self, offset: u128) -> Option<u16> {
        u16::try_from(offset).ok().and_then(|offset| self.ports_first.checked_add(offset))
    }
}

/// All a Service holds.
fn held(service: &Value) -> Vec<Taken> {
    let mut all: Vec<Taken> = Vec::new();
    let spec = &service["spec"];
    let mut add = |taken| {
        // Two protocols may share one port; it is held once.
        if !all.contains(&taken) {
            all.push(taken);
        }
    };
    if spec["type"] != "ExternalName" {
        for text in addresses::of(spec) {
            if let Ok(address) = IpAddr::from_str(text) {
                add(Taken::Address(address));
            }
        }
    }
    let of_ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    for port in of_ports.chain([&spec["healthCheckNodePort"]]) {
        if let Some(port) = port.as_u64().and_then(|port| u16::try_from(port).ok())
            && port > 0
        {
            add(Taken::Port(port));
        }
    }
    all
}

#[cfg(test)]
mod tests;
