//! Endpoints and EndpointSlices.

use std::collections::HashSet;

use crate::field::{Cursor, Error};

use super::{complain, format, immutable, metadata, one_of};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

/// Endpoints.
pub fn endpoints(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    for subset in at.child("subsets").items() {
        let (ready, not_ready) = (subset.child("addresses"), subset.child("notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for address in ready.items().chain(not_ready.items()) {
            let ip = address.child("ip");
            let complaints = format::ip(ip.text());
            let complaints =
                if complaints.is_empty() { format::non_special_ip(ip.text()) } else { complaints };
            errors.extend(
                complaints
                    .into_iter()
                    .map(|complaint| Error::invalid(&ip.path, ip.text(), complaint)),
            );
            let hostname = address.child("hostname");
            if !hostname.is_empty() {
                complain(&hostname, format::dns1123_label(hostname.text()), errors);
            }
        }
        let ports = subset.child("ports");
        for port in ports.items() {
            let name = port.child("name");
            if name.is_empty() && ports.len() > 1 {
                errors.push(name.required(""));
            } else if !name.is_empty() {
                complain(&name, format::dns1123_label(name.text()), errors);
            }
            let number = port.child("port");
            let value = number.int_or_zero();
            errors.extend(
                format::port_number(value)
                    .into_iter()
                    .map(|complaint| Error::invalid(&number.path, value, complaint)),
            );
            one_of(&port.child("protocol"), &PROTOCOLS, errors);
        }
    }
}

/// An EndpointSlice.
pub fn slice(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let address_type = at.child("addressType");
    if address_type.is_empty() {
        errors.push(address_type.required(""));
    } else if !ADDRESS_TYPES.contains(&address_type.text()) {
        errors.push(address_type.not_supported(&ADDRESS_TYPES));
    }
    slice_endpoints(&at.child("endpoints"), address_type.text(), errors);
    slice_ports(&at.child("ports"), errors);
}

/// The address type of an EndpointSlice stays.
pub fn slice_update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    immutable(&at.child("addressType"), &old.child("addressType"), errors);
}

fn slice_endpoints(at: &Cursor<'_>, address_type: &str, errors: &mut Vec<Error>) {
    if at.len() > ENDPOINTS_MAX {
        errors.push(Error::too_many(&at.path, at.len(), ENDPOINTS_MAX));
        return;
    }
    for endpoint in at.items() {
        let addresses = endpoint.child("addresses");
        match addresses.len() {
            0 => errors.push(Error::required(&addresses.path, "must contain at least 1 address")),
            count if count > ADDRESSES_MAX => {
                errors.push(Error::too_many(&addresses.path, count, ADDRESSES_MAX))
            }
            _ => {
                addresses.items().for_each(|address| slice_address(&address, address_type, errors))
            }
        }
        let node_name = endpoint.child("nodeName");
        if node_name.is_set() {
            complain(&node_name, format::dns1123_subdomain(node_name.text()), errors);
        }
        let hostname = endpoint.child("hostname");
        if hostname.is_set() {
            complain(&hostname, format::dns1123_label(hostname.text()), errors);
        }
        topology(&endpoint.child("deprecatedTopology"), errors);
        hints(&endpoint.descend(&["hints", "forZones"]), format::label_value, errors);
        hints(&endpoint.descend(&["hints", "forNodes"]), format::dns1123_subdomain, errors);
    }
}

/// Zones or nodes an endpoint is meant for.
fn hints(at: &Cursor<'_>, valid: fn(&str) -> Vec<String>, errors: &mut Vec<Error>) {
    if at.len() > HINTS_MAX {
        errors.push(Error::too_many(&at.path, at.len(), HINTS_MAX));
        return;
    }
    let mut seen = HashSet::new();
    for hint in at.items() {
        let name = hint.child("name");
        if !seen.insert(name.text()) {
            errors.push(Error::duplicate(&name.path, name.text()));
        }
        let complaints = valid(name.text());
        errors.extend(
            complaints
                .into_iter()
                .map(|complaint| Error::invalid(&name.path, name.text(), complaint)),
        );
    }
}

fn slice_address(at: &Cursor<'_>, address_type: &str, errors: &mut Vec<Error>) {
    let complaints = match address_type {
        "IPv4" if at.text().parse::<std::net::Ipv4Addr>().is_err() => {
            vec!["must be a valid IPv4 address".to_owned()]
        }
        "IPv6" if at.text().parse::<std::net::Ipv6Addr>().is_err() => {
            vec!["must be a valid IPv6 address".to_owned()]
        }
        "IPv4" | "IPv6" => format::non_special_ip(at.text()),
        "FQDN" => format::dns1123_subdomain(at.text().strip_suffix('.').unwrap_or(at.text())),
        _ => Vec::new(),
    };
    complain(at, complaints, errors);
}

fn topology(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    metadata::labels(at, errors);
    if at.value.get("kubernetes.io/hostname").is_some() {
        errors.push(Error::invalid(
            &at.path.key("kubernetes.io/hostname"),
            "kubernetes.io/hostname",
            "set nodeName instead",
        ));
    }
}

fn slice_ports(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    if at.len() > PORTS_MAX {
        errors.push(Error::too_many(&at.path, at.len(), PORTS_MAX));
        return;
    }
    let mut names = HashSet::new();
    for port in at.items() {
        let name = port.child("name");
        if !name.is_empty() {
            complain(&name, format::dns1123_label(name.text()), errors);
        }
        if !names.insert(name.text()) {
            errors.push(Error::duplicate(&name.path, name.text()));
        }
        let number = port.child("port");
        if number.is_set() {
            complain(&number, format::port_number(number.int_or_zero()), errors);
        }
        one_of(&port.child("protocol"), &PROTOCOLS, errors);
        let app_protocol = port.child("appProtocol");
        if app_protocol.is_set() {
            complain(&app_protocol, format::label_key(app_protocol.text()), errors);
        }
    }
}
