//! Gives addresses of a pool to Services of type LoadBalancer. The objects are the only record of
//! what is given, so a restart changes nothing.

mod plan;

use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus};

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::write::Context;
use plan::Outcome;

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
        let mut result = Ok(None);
        for (service, outcome) in plan::plan(&store.list(), &self.0.config.load_balancer_cidrs) {
            let addresses = match outcome {
                Outcome::Addresses(addresses) => addresses,
                Outcome::None(reason) => {
                    let message = format!(
                        "Error syncing load balancer: failed to ensure load balancer: {reason}"
                    );
                    let events = &self.0.events;
                    events.warning(COMPONENT, &*service, "SyncLoadBalancerFailed", message);
                    continue;
                }
            };
            let ingress = addresses.iter().map(|address| LoadBalancerIngress {
                ip: Some(address.to_string()),
                ip_mode: Some("VIP".to_owned()),
                ..LoadBalancerIngress::default()
            });
            let ingress = Some(ingress.collect()).filter(|all: &Vec<_>| !all.is_empty());
            let mut new = (*service).clone();
            new.status.get_or_insert_default().load_balancer = Some(LoadBalancerStatus { ingress });
            match self.0.update_status(store, &*service, &new).await {
                Ok(()) if !addresses.is_empty() => {
                    let message = "Ensured load balancer";
                    self.0.events.normal(COMPONENT, &*service, "EnsuredLoadBalancer", message);
                }
                Ok(()) => {}
                // The others must not wait for this one.
                Err(error) => result = Err(error),
            }
        }
        result
    }
}
