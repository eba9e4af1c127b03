//! Which Service gets which address. Pure.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;

/// What changes for one Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// These are its addresses from now on.
    Addresses(Vec<IpAddr>),
    /// It goes without, for this reason.
    None(String),
}

/// The Services something changes for. Addresses that are given stay given, the older Service first.
pub(super) fn plan(services: &[Arc<Service>], pools: &[IpNet]) -> Vec<(Arc<Service>, Outcome)> {
    let mut services = services.to_vec();
    services.sort_by_key(|service| service.metadata.creation_timestamp.as_ref().map(|t| t.0));
    let mut taken = HashSet::new();
    let mut kept: Vec<Vec<IpAddr>> = Vec::new();
    for service in &services {
        let mut mine = given(service);
        if is_load_balancer(service) {
            if is_ours(service) {
                mine.retain(|address| holds(pools, *address) && fits(service, *address));
            }
            mine.retain(|address| taken.insert(*address));
        }
        kept.push(mine);
    }
    let mut outcomes = Vec::new();
    for (service, kept) in services.into_iter().zip(kept) {
        let outcome = if !is_load_balancer(&service) {
            (!kept.is_empty()).then(|| Outcome::Addresses(Vec::new()))
        } else if is_ours(&service) && !pools.is_empty() {
            assign(&service, kept, pools, &mut taken)
        } else {
            None
        };
        outcomes.extend(outcome.map(|outcome| (service, outcome)));
    }
    outcomes
}

fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

/// A Service of another class gets its address elsewhere.
fn is_ours(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_ref());
    class.is_none() && service.metadata.deletion_timestamp.is_none()
}

fn given(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.as_ref()?.parse().ok()).collect()
}

fn asked(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.load_balancer_ip.as_ref()?.parse().ok()
}

fn families(service: &Service) -> Vec<&str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    families.map_or(vec!["IPv4"], |all| all.iter().map(String::as_str).collect())
}

fn is_of(address: IpAddr, family: &str) -> bool {
    address.is_ipv6() == (family == "IPv6")
}

fn holds(pools: &[IpNet], address: IpAddr) -> bool {
    pools.iter().any(|pool| pool.contains(&address))
}

/// Whether the Service still wants an address like this one.
fn fits(service: &Service, address: IpAddr) -> bool {
    families(service).iter().any(|family| is_of(address, family))
        && asked(service)
            .is_none_or(|asked| asked == address || asked.is_ipv4() != address.is_ipv4())
}

/// One address of each of the Service's families that has a pool.
fn assign(
    service: &Service,
    kept: Vec<IpAddr>,
    pools: &[IpNet],
    taken: &mut HashSet<IpAddr>,
) -> Option<Outcome> {
    let before = given(service);
    let (mut addresses, mut problem) = (Vec::new(), None);
    for family in families(service) {
        if let Some(known) = kept.iter().find(|address| is_of(**address, family)) {
            addresses.push(*known);
            continue;
        }
        let pools = pools.iter().filter(|pool| is_of(pool.addr(), family));
        let chosen = choose(asked(service).filter(|asked| is_of(*asked, family)), pools, taken);
        match chosen {
            Ok(address) => {
                taken.insert(address);
                addresses.push(address);
            }
            Err(reason) => problem = problem.or(Some(format!("{reason} ({family})"))),
        }
    }
    if addresses != before {
        return Some(match problem.filter(|_| addresses.is_empty() && before.is_empty()) {
            Some(reason) => Outcome::None(reason),
            None => Outcome::Addresses(addresses),
        });
    }
    problem.filter(|_| addresses.is_empty()).map(Outcome::None)
}

/// The address asked for if it is free, or else the first free one.
fn choose<'a>(
    asked: Option<IpAddr>,
    pools: impl Iterator<Item = &'a IpNet>,
    taken: &HashSet<IpAddr>,
) -> Result<IpAddr, String> {
    let pools: Vec<&IpNet> = pools.collect();
    if pools.is_empty() {
        return Err("no load balancer range of this family".to_owned());
    }
    let Some(asked) = asked else {
        let mut free = pools.iter().flat_map(|pool| hosts(pool)).filter(|one| !taken.contains(one));
        return free.next().ok_or_else(|| "no free address in the load balancer range".to_owned());
    };
    if !pools.iter().any(|pool| pool.contains(&asked)) {
        return Err(format!("spec.loadBalancerIP {asked} is not in the load balancer range"));
    }
    if taken.contains(&asked) {
        return Err(format!("spec.loadBalancerIP {asked} is given to another Service"));
    }
    Ok(asked)
}

/// Addresses that may be given: not the subnet-router anycast address of RFC 4291.
fn hosts(pool: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let skipped = usize::from(pool.addr().is_ipv6() && pool.prefix_len() < 127);
    pool.hosts().skip(skipped)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(services: &[(&str, Value, &[&str])], expected: &[(&str, &str)]) {
        let pools = ["192.0.2.0/30".parse().unwrap(), "2001:db8::/126".parse().unwrap()];
        let services: Vec<Arc<Service>> = services
            .iter()
            .map(|(name, spec, ips)| {
                let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
                let mut service = json!({"metadata": {"name": name}, "spec": spec,
                    "status": {"loadBalancer": {"ingress": ingress}}});
                let kind = &mut service["spec"]["type"];
                if kind.is_null() {
                    *kind = json!("LoadBalancer");
                }
                Arc::new(serde_json::from_value(service).unwrap())
            })
            .collect();
        let seen: Vec<(String, String)> = plan(&services, &pools)
            .into_iter()
            .map(|(service, outcome)| {
                let text = match outcome {
                    Outcome::Addresses(all) => {
                        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
                    }
                    Outcome::None(reason) => reason,
                };
                (service.metadata.name.clone().unwrap(), text)
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn first_free_and_exhausted() {
        check(
            &[("a", json!({}), &[]), ("b", json!({}), &["192.0.2.1"]), ("c", json!({}), &[])],
            &[("a", "192.0.2.2"), ("c", "no free address in the load balancer range (IPv4)")],
        );
    }

    #[test]
    fn never_twice() {
        check(
            &[("a", json!({}), &["192.0.2.1"]), ("b", json!({}), &["192.0.2.1"])],
            &[("b", "192.0.2.2")],
        );
        check(
            &[
                ("class", json!({"loadBalancerClass": "other"}), &["192.0.2.1"]),
                ("b", json!({}), &[]),
            ],
            &[("b", "192.0.2.2")],
        );
    }

    #[test]
    fn freed_when_the_type_changes() {
        check(
            &[("a", json!({"type": "ClusterIP"}), &["192.0.2.1"]), ("b", json!({}), &[])],
            &[("a", ""), ("b", "192.0.2.1")],
        );
    }

    #[test]
    fn asked_for() {
        let asked = |ip: &str| json!({"loadBalancerIP": ip});
        check(&[("a", asked("192.0.2.2"), &[])], &[("a", "192.0.2.2")]);
        check(&[("a", asked("192.0.2.2"), &["192.0.2.1"])], &[("a", "192.0.2.2")]);
        check(&[("a", asked("192.0.2.2"), &["192.0.2.2"])], &[]);
        check(
            &[("a", json!({}), &["192.0.2.2"]), ("b", asked("192.0.2.2"), &[])],
            &[("b", "spec.loadBalancerIP 192.0.2.2 is given to another Service (IPv4)")],
        );
        check(
            &[("a", asked("198.51.100.1"), &[])],
            &[("a", "spec.loadBalancerIP 198.51.100.1 is not in the load balancer range (IPv4)")],
        );
    }

    #[test]
    fn families_and_moved_ranges() {
        let both = json!({"ipFamilies": ["IPv6", "IPv4"]});
        check(&[("a", both.clone(), &[])], &[("a", "2001:db8::1 192.0.2.1")]);
        check(&[("a", both, &["192.0.2.2"])], &[("a", "2001:db8::1 192.0.2.2")]);
        check(&[("a", json!({}), &["203.0.113.7"])], &[("a", "192.0.2.1")]);
    }
}
