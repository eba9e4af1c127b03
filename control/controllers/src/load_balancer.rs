//! Gives addresses of a pool to Services of type LoadBalancer. The objects are the only record of
//! what is given, so a restart changes nothing.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::write::Context;

const COMPONENT: &str = "service-controller";
/// One key for all: two Services worked on at once could be given the same address.
const ALL: &str = "services";

pub(crate) struct LoadBalancers(pub(crate) Context);

impl Controller for LoadBalancers {
    const NAME: &'static str = "load-balancer";

    fn keys(&self, change: &Change) -> Vec<Key> {
        if change.kind == "Service" { self.all() } else { Vec::new() }
    }

    fn all(&self) -> Vec<Key> {
        vec![Key::new("", ALL)]
    }

    async fn sync(&self, _: &Key) -> Result<Option<Duration>, Error> {
        let store = &self.0.cache.services;
        let services = store.list();
        let mut taken: HashSet<IpAddr> =
            services.iter().filter(|service| wants(service)).filter_map(|s| given(s)).collect();
        for service in &services {
            let mut new = (**service).clone();
            let ingress = if wants(service) {
                if given(service).is_some() || self.0.config.load_balancer_cidrs.is_empty() {
                    continue;
                }
                let Some(address) = choose(service, &self.0.config.load_balancer_cidrs, &taken)
                else {
                    let message = "no free address in the load balancer pool";
                    self.0.events.warning(COMPONENT, &**service, "AllocationFailed", message);
                    continue;
                };
                taken.insert(address);
                Some(vec![LoadBalancerIngress {
                    ip: Some(address.to_string()),
                    ip_mode: Some("VIP".to_owned()),
                    ..LoadBalancerIngress::default()
                }])
            } else if given(service).is_some() && !is_load_balancer(service) {
                None
            } else {
                continue;
            };
            let status = new.status.get_or_insert_with(ServiceStatus::default);
            status.load_balancer = Some(LoadBalancerStatus { ingress });
            self.0.update_status(store, &**service, &new).await?;
        }
        Ok(None)
    }
}

fn is_load_balancer(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

fn wants(service: &Service) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_ref());
    is_load_balancer(service) && class.is_none() && service.metadata.deletion_timestamp.is_none()
}

fn given(service: &Service) -> Option<IpAddr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.iter().find_map(|one| one.ip.as_ref()?.parse().ok())
}

/// The address asked for if it is free, or else the first free one.
fn choose(service: &Service, pools: &[IpNet], taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    let asked = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_ref());
    if let Some(asked) = asked.and_then(|text| text.parse::<IpAddr>().ok()) {
        let free = pools.iter().any(|pool| pool.contains(&asked)) && !taken.contains(&asked);
        return free.then_some(asked);
    }
    pools.iter().flat_map(IpNet::hosts).find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn never_twice() {
        let pools = ["192.0.2.0/30".parse().unwrap()];
        let service = |ip: Option<&str>| -> Service {
            serde_json::from_value(json!({"spec": {"loadBalancerIP": ip}})).unwrap()
        };
        let taken = |all: &[&str]| all.iter().map(|text| text.parse().unwrap()).collect();
        for (asked, used, got) in [
            (None, vec![], Some("192.0.2.1")),
            (None, vec!["192.0.2.1"], Some("192.0.2.2")),
            (None, vec!["192.0.2.1", "192.0.2.2"], None),
            (Some("192.0.2.2"), vec![], Some("192.0.2.2")),
            (Some("192.0.2.2"), vec!["192.0.2.2"], None),
            (Some("198.51.100.1"), vec![], None),
        ] {
            let chosen = choose(&service(asked), &pools, &taken(&used));
            assert_eq!(chosen.map(|address| address.to_string()).as_deref(), got);
        }
    }
}
