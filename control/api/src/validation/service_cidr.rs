//! ServiceCIDRs: ranges that ClusterIPs are taken from.

use ipnet::IpNet;

use crate::field::{Cursor, Error};

use super::{complain, format};

/// A ServiceCIDR: one range, or one of each family.
pub fn service_cidr(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let cidrs = at.child("spec").child("cidrs");
    match cidrs.len() {
        0 => errors.push(cidrs.required("at least one CIDR required")),
        1 | 2 => cidrs.items().for_each(|cidr| complain(&cidr, format::cidr(cidr.text()), errors)),
        _ => errors.push(cidrs.invalid("may only hold up to 2 values")),
    }
    let families: Vec<bool> = cidrs
        .items()
        .filter_map(|cidr| cidr.text().parse::<IpNet>().ok())
        .map(|cidr| cidr.addr().is_ipv4())
        .collect();
    if matches!(families[..], [first, second] if first == second) {
        errors.push(cidrs.invalid(
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
             2001:db8::/64",
        ));
    }
}

/// Ranges stay; one of the other family may be added.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    const IMMUTABLE: &str = "field is immutable";
    let (new, old) = (at.child("spec").child("cidrs"), old.child("spec").child("cidrs"));
    if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
        errors.push(new.invalid(IMMUTABLE));
        return;
    }
    for (new, old) in new.items().zip(old.items()) {
        if new.value != old.value {
            errors.push(new.invalid(IMMUTABLE));
        }
    }
}
