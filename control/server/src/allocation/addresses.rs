//! ClusterIPs: ranges, and filling in `spec.clusterIPs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use podium_api::field::{self, Path};
use serde_json::{Value, json};

use crate::allocation::pool::Pool;
use crate::allocation::{Shared, Taken};

/// Larger ranges are used up to this size, as upstream does.
const RANGE_BITS_MAX: u32 = 16;

/// One range of Service addresses.
pub(super) struct AddressRange {
    cidr: IpNet,
    pool: Pool,
    first: u128,
}

impl AddressRange {
    pub(super) fn new(cidr: IpNet) -> Self {
        let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
        let bits = if cidr.addr().is_ipv6() { bits.min(RANGE_BITS_MAX) } else { bits };
        // Neither the network's own address nor an IPv4 broadcast address.
        let usable = (1_u128 << bits) - if cidr.addr().is_ipv4() { 2 } else { 1 };
        let pool = Pool::new(usable, reserved(usable));
        Self { cidr, pool, first: number(cidr.network()) + 1 }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address)
    }

    pub(super) fn family(&self) -> &'static str {
        if self.cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" }
    }

    pub(super) fn take(&mut self, address: IpAddr) -> bool {
        number(address).checked_sub(self.first).is_some_and(|offset| self.pool.take(offset))
    }

    pub(super) fn release(&mut self, address: IpAddr) {
        if let Some(offset) = number(address).checked_sub(self.first) {
            self.pool.release(offset);
        }
    }

    fn take_any(&mut self) -> Option<IpAddr> {
        let number = self.first + self.pool.take_any()?;
        Some(match self.cidr {
            IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).ok()?).into(),
            IpNet::V6(_) => Ipv6Addr::from(number).into(),
        })
    }
}

/// KEP-3070: `min(max(16, size/16), 256)`, nothing in ranges too small for it.
fn reserved(size: u128) -> u128 {
    if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The addresses in a Service's spec, in order, without `None` and empty ones.
pub(super) fn of(spec: &Value) -> impl Iterator<Item = &str> {
    let list = spec["clusterIPs"].as_array().filter(|list| !list.is_empty());
    let single = if list.is_none() { spec["clusterIP"].as_str() } else { None };
    let listed = list.into_iter().flatten().filter_map(Value::as_str);
    listed.chain(single).filter(|text| !text.is_empty() && *text != "None")
}

/// Fills in the addresses a Service lacks, one for each of its families.
pub(super) fn fill(
    shared: &mut Shared,
    new: &mut Value,
    had: &[Taken],
    taken: &mut Vec<Taken>,
    errors: &mut Vec<field::Error>,
) {
    let spec = &mut new["spec"];
    if spec["type"] == "ExternalName" || spec["clusterIP"] == "None" {
        return;
    }
    let path = Path::new("spec").child("clusterIPs");
    let mut texts: Vec<String> = of(spec).map(str::to_owned).collect();
    for text in &texts {
        let Ok(address) = text.parse::<IpAddr>() else {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(field::Error::invalid(&path.index(0), json!(texts), detail));
            return;
        };
        let wanted = Taken::Address(address);
        if had.contains(&wanted) || taken.contains(&wanted) {
            continue;
        }
        if shared.range_of(address).is_none() {
            let ranges: Vec<String> =
                shared.ranges.iter().map(|range| range.cidr.to_string()).collect();
            let detail = format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid \
                 range. The range of valid IPs is {}",
                ranges.join(",")
            );
            errors.push(field::Error::invalid(&path, json!(texts), detail));
        } else if shared.take(wanted) {
            taken.push(wanted);
        } else {
            let detail =
                format!("failed to allocate IP {address}: provided IP is already allocated");
            errors.push(field::Error::invalid(&path, json!(texts), detail));
        }
    }
    let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    for family in families.iter().filter_map(Value::as_str).skip(texts.len()) {
        let range = shared.ranges.iter_mut().find(|range| range.family() == family);
        let Some(address) = range.and_then(AddressRange::take_any) else {
            let detail = "failed to allocate a serviceIP: range is full".to_owned();
            errors.push(field::Error::invalid(&path, json!(texts), detail));
            return;
        };
        taken.push(Taken::Address(address));
        texts.push(address.to_string());
    }
    texts.truncate(families.len().max(1));
    if let Some(first) = texts.first() {
        spec["clusterIP"] = json!(first);
        spec["clusterIPs"] = json!(texts);
    }
}
