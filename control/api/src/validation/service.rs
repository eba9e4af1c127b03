//! Services.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::field::{Cursor, Error, Path};

use super::{complain, format, metadata, one_of, port_number_or_name};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const TRAFFIC_DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const AFFINITY_SECONDS_MAX: i64 = 86400;

/// A Service.
pub fn service(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    let kind = spec.child("type").text();
    if spec.child("ports").is_empty() && !is_headless(&spec) && kind != "ExternalName" {
        errors.push(Error::required(&spec.path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(&spec) => {
            let path = spec.path.child("clusterIPs").index(0);
            errors.push(Error::invalid(
                &path,
                "None",
                format!("may not be set to 'None' for {kind} services"),
            ));
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    ports(&spec, errors);
    metadata::labels(&spec.child("selector"), errors);
    session_affinity(&spec, errors);
    if kind != "ExternalName" {
        cluster_ips(&spec, errors);
    }
    for address in spec.child("externalIPs").items() {
        let complaints = format::ip(address.text());
        let complaints =
            if complaints.is_empty() { format::non_special_ip(address.text()) } else { complaints };
        complain(&address, complaints, errors);
    }
    one_of(&spec.child("type"), &TYPES, errors);
    port_conflicts(&spec, errors);
    source_ranges(at, errors);
    load_balancer_fields(&spec, errors);
    traffic_policies(&spec, errors);
}

/// What may not change about a Service.
pub fn update(at: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (spec, old) = (at.child("spec"), old.child("spec"));
    let is = |spec: &Cursor<'_>, kind: &str| spec.child("type").text() == kind;
    if !is(&spec, "ExternalName") && !is(&old, "ExternalName") {
        if !(is_headless(&spec) && is_headless(&old)) {
            addresses_update(&spec, &old, errors);
        }
        if !is_headless(&spec) && !is_headless(&old) {
            families_update(&spec, &old, errors);
        }
    }
    let (class, old_class) = (spec.child("loadBalancerClass"), old.child("loadBalancerClass"));
    if is(&spec, "LoadBalancer") && is(&old, "LoadBalancer") && class.value != old_class.value {
        errors.push(class.invalid("may not change once set"));
    }
    let port = spec.child("healthCheckNodePort");
    if needs_health_check(&spec)
        && needs_health_check(&old)
        && port.value != old.child("healthCheckNodePort").value
    {
        errors.push(port.forbidden("field is immutable"));
    }
}

fn is_headless(spec: &Cursor<'_>) -> bool {
    let addresses = spec.child("clusterIPs");
    spec.child("clusterIP").text() == "None"
        || (addresses.len() == 1 && addresses.items().all(|address| address.text() == "None"))
}

fn needs_health_check(spec: &Cursor<'_>) -> bool {
    spec.child("type").text() == "LoadBalancer"
        && spec.child("externalTrafficPolicy").text() == "Local"
}

fn external_name(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let field = spec.child(field);
        if !field.is_empty() {
            errors.push(field.forbidden("may not be set for ExternalName services"));
        }
    }
    let name = spec.child("externalName");
    let host = name.text().strip_suffix('.').unwrap_or(name.text());
    match host.is_empty() {
        true => errors.push(name.required("")),
        false => {
            let complaints = format::dns1123_subdomain(host);
            errors.extend(
                complaints.into_iter().map(|complaint| Error::invalid(&name.path, host, complaint)),
            );
        }
    }
}

fn ports(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let ports = spec.child("ports");
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(name.required(""));
        } else if !name.is_empty() {
            complain(&name, format::dns1123_label(name.text()), errors);
            if !names.insert(name.text()) {
                errors.push(name.duplicate());
            }
        }
        let number = port.child("port");
        let value = number.int_or_zero();
        errors.extend(
            format::port_number(value)
                .into_iter()
                .map(|complaint| Error::invalid(&number.path, value, complaint)),
        );
        one_of(&port.child("protocol"), &PROTOCOLS, errors);
        port_number_or_name(&port.child("targetPort"), errors);
        let app_protocol = port.child("appProtocol");
        if app_protocol.is_set() {
            complain(&app_protocol, format::label_key(app_protocol.text()), errors);
        }
    }
}

fn port_conflicts(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let ports = spec.child("ports");
    let number = |port: &Cursor<'_>, name: &str| port.child(name).int_or_zero();
    if spec.child("type").text() == "ClusterIP" {
        let with_node_port = ports.items().filter(|port| number(port, "nodePort") != 0);
        errors.extend(with_node_port.map(|port| {
            port.child("nodePort").forbidden("may not be used when `type` is 'ClusterIP'")
        }));
    }
    let mut taken = HashSet::new();
    for port in ports.items().filter(|port| number(port, "nodePort") != 0) {
        if !taken.insert((port.child("protocol").text(), number(&port, "nodePort"))) {
            errors.push(port.child("nodePort").duplicate());
        }
    }
    let mut taken = HashSet::new();
    for port in ports.items() {
        let (protocol, value) = (port.child("protocol").text(), number(&port, "port"));
        if !taken.insert((protocol, value)) {
            // The key as upstream prints it: a port of which only these two are set.
            let key = json!({"Name": "", "Protocol": protocol, "AppProtocol": null, "Port": value, "TargetPort": 0, "NodePort": 0});
            errors.push(Error::duplicate(&port.path, key));
        }
    }
}

fn session_affinity(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let affinity = spec.child("sessionAffinity");
    one_of(&affinity, &AFFINITIES, errors);
    let config = spec.child("sessionAffinityConfig");
    if affinity.text() == "None" && config.is_set() {
        errors.push(config.forbidden("must not be set when session affinity is None"));
    }
    if affinity.text() != "ClientIP" {
        return;
    }
    let steps =
        [config.clone(), config.child("clientIP"), config.descend(&["clientIP", "timeoutSeconds"])];
    if let Some(missing) = steps.iter().find(|step| !step.is_set()) {
        errors.push(missing.required("when session affinity type is ClientIP"));
    } else if let [.., timeout] = &steps
        && !(1..=AFFINITY_SECONDS_MAX).contains(&timeout.int_or_zero())
    {
        errors.push(
            timeout.invalid(format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}")),
        );
    }
}

fn cluster_ips(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (address, addresses) = (spec.child("clusterIP"), spec.child("clusterIPs"));
    let first = addresses.items().next();
    match (address.is_empty(), &first) {
        (false, None) => errors.push(Error::required(&addresses.path, "")),
        (false, Some(first)) if first.text() != address.text() => {
            errors.push(addresses.invalid("first value must match `clusterIP`"));
        }
        (true, Some(_)) => {
            errors.push(addresses.invalid("must be empty when `clusterIP` is not specified"))
        }
        _ => {}
    }
    let families = spec.child("ipFamilies");
    let mut seen = HashSet::new();
    for family in families.items() {
        if !FAMILIES.contains(&family.text()) {
            errors.push(family.not_supported(&FAMILIES));
        }
        if !seen.insert(family.text()) {
            errors.push(family.duplicate());
        }
    }
    let policy = spec.child("ipFamilyPolicy");
    if policy.is_set() && !FAMILY_POLICIES.contains(&policy.text()) {
        errors.push(policy.not_supported(&FAMILY_POLICIES));
    }
    let mut broken = false;
    for (index, address) in addresses.items().enumerate() {
        if index == 0 && address.text() == "None" {
            if addresses.len() > 1 {
                broken = true;
                errors.push(addresses.invalid("'None' must be the first and only value"));
            }
            continue;
        }
        let complaints = format::ip(address.text());
        broken |= !complaints.is_empty();
        complain(&address, complaints, errors);
    }
    if addresses.len() > 2 {
        errors.push(addresses.invalid("may only hold up to 2 values"));
    }
    if !broken && !is_headless(spec) {
        address_families(&addresses, &families, errors);
    }
}

fn address_families(addresses: &Cursor<'_>, families: &Cursor<'_>, errors: &mut Vec<Error>) {
    let parsed: Vec<IpAddr> =
        addresses.items().filter_map(|address| address.text().parse().ok()).collect();
    let v6_count = parsed.iter().filter(|address| address.is_ipv6()).count();
    if parsed.len() > 1 && (v6_count == 0 || v6_count == parsed.len()) {
        errors.push(addresses.invalid("may specify no more than one IP for each IP family"));
    }
    for (index, ((address, parsed), family)) in
        addresses.items().zip(&parsed).zip(families.items()).enumerate()
    {
        let expected = family.text();
        let found = if parsed.is_ipv6() { "IPv6" } else { "IPv4" };
        if FAMILIES.contains(&expected) && expected != found {
            errors.push(address.invalid(format!(
                "expected an {expected} value as indicated by `ipFamilies[{index}]`"
            )));
        }
    }
}

fn source_ranges(at: &Cursor<'_>, errors: &mut Vec<Error>) {
    let spec = at.child("spec");
    let ranges = spec.child("loadBalancerSourceRanges");
    let annotation = at.descend(&["metadata", "annotations", SOURCE_RANGES]);
    let (path, listed): (Path, Vec<(Path, &str)>) = if !ranges.is_empty() {
        // Upstream's path starts with a capital.
        let path = spec.path.child("LoadBalancerSourceRanges");
        let listed = ranges
            .items()
            .enumerate()
            .map(|(index, range)| (path.index(index), range.text()))
            .collect();
        (path, listed)
    } else if annotation.is_set() {
        let path = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        let listed = annotation.text().split(',').filter(|range| !range.trim().is_empty());
        (path.clone(), listed.map(|range| (path.clone(), range)).collect())
    } else {
        return;
    };
    if spec.child("type").text() != "LoadBalancer" {
        errors.push(Error::forbidden(&path, "may only be used when `type` is 'LoadBalancer'"));
    }
    for (path, range) in listed {
        let complaints = format::cidr(range.trim());
        errors.extend(
            complaints.into_iter().map(|complaint| Error::invalid(&path, range.trim(), complaint)),
        );
    }
}

fn load_balancer_fields(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let is_load_balancer = spec.child("type").text() == "LoadBalancer";
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        let field = spec.child(field);
        if field.is_set() && !is_load_balancer {
            errors.push(field.forbidden("may only be used when `type` is 'LoadBalancer'"));
        }
    }
    let class = spec.child("loadBalancerClass");
    if is_load_balancer && class.is_set() {
        complain(&class, format::label_key(class.text()), errors);
    }
}

fn traffic_policies(spec: &Cursor<'_>, errors: &mut Vec<Error>) {
    let kind = spec.child("type").text();
    let external = spec.child("externalTrafficPolicy");
    let reachable = matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !spec.child("externalIPs").is_empty());
    if reachable {
        one_of(&external, &POLICIES, errors);
    } else if !external.is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let health_port = spec.child("healthCheckNodePort");
    if health_port.int_or_zero() != 0 {
        match needs_health_check(spec) {
            true => complain(&health_port, format::port_number(health_port.int_or_zero()), errors),
            false => errors.push(health_port.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'")),
        }
    }
    let internal = spec.child("internalTrafficPolicy");
    if internal.is_set() && !POLICIES.contains(&internal.text()) {
        errors.push(internal.not_supported(&POLICIES));
    }
    let distribution = spec.child("trafficDistribution");
    if distribution.is_set() && !TRAFFIC_DISTRIBUTIONS.contains(&distribution.text()) {
        errors.push(distribution.not_supported(&TRAFFIC_DISTRIBUTIONS));
    }
}

fn addresses_update(spec: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (new, old) = (spec.child("clusterIPs"), old.child("clusterIPs"));
    let fixed =
        |index: usize, detail: &str| Error::invalid(&new.path.index(index), list(&new), detail);
    let shared = new.len().min(old.len());
    let compared = if new.len() == old.len() { shared } else { shared.min(1) };
    for (index, (new, old)) in new.items().zip(old.items()).take(compared).enumerate() {
        if new.value != old.value {
            errors.push(fixed(index, "may not change once set"));
        }
    }
    if old.len() > new.len() {
        if new.is_empty() {
            errors.push(fixed(0, "primary clusterIP can not be unset"));
        }
        released_secondary(spec, new.len(), "clusterIP", errors);
    }
}

fn families_update(spec: &Cursor<'_>, old: &Cursor<'_>, errors: &mut Vec<Error>) {
    let (new, old) = (spec.child("ipFamilies"), old.child("ipFamilies"));
    let fixed = |detail: &str| Error::invalid(&new.path.index(0), list(&new), detail);
    let compared = if new.len() == old.len() { new.len() } else { 1 };
    if new.items().zip(old.items()).take(compared).any(|(new, old)| new.value != old.value) {
        errors.push(fixed("may not change once set"));
    }
    if old.len() > new.len() {
        if new.is_empty() {
            errors.push(fixed("primary ipFamily can not be unset"));
        }
        released_secondary(spec, new.len(), "ipFamily", errors);
    }
}

fn released_secondary(spec: &Cursor<'_>, left: usize, what: &str, errors: &mut Vec<Error>) {
    let policy = spec.child("ipFamilyPolicy");
    if left == 1 && policy.text() != "SingleStack" {
        errors.push(
            policy.invalid(format!(
                "must be set to 'SingleStack' when releasing the secondary {what}"
            )),
        );
    }
}

fn list(at: &Cursor<'_>) -> Value {
    at.value.clone()
}
