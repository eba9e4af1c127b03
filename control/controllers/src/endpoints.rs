//! EndpointSlices and the older Endpoints object of Services that have a selector.

mod plan;

use std::time::Duration;

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::selector;
use crate::write::Context;

pub(crate) struct Services(pub(crate) Context);

impl Controller for Services {
    const NAME: &'static str = "endpoints";

    fn keys(&self, change: &Change) -> Vec<Key> {
        let (cache, namespace) = (&self.0.cache, &change.key.namespace);
        match change.kind {
            "Service" | "Endpoints" => vec![change.key.clone()],
            "EndpointSlice" => {
                let labels = change.new.iter().chain(&change.old).filter_map(|m| m.labels.as_ref());
                let names = labels.filter_map(|labels| labels.get(plan::SERVICE_NAME));
                names.map(|name| Key::new(namespace, name)).take(1).collect()
            }
            "Pod" => {
                let services = cache.services.list_in(namespace);
                let concerned = services.iter().filter(|service| {
                    let pairs = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                    let sides = change.new.iter().chain(&change.old);
                    sides.into_iter().any(|m| selector::matches_pairs(pairs, m.labels.as_ref()))
                });
                concerned.map(|service| Key::of(&service.metadata)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.services.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let cache = &self.0.cache;
        let slices: Vec<_> = cache
            .endpoint_slices
            .list_in(&key.namespace)
            .into_iter()
            .filter(|slice| plan::is_ours(slice, &key.name))
            .map(|slice| (*slice).clone())
            .collect();
        let Some(service) = cache.services.get(key) else {
            for slice in &slices {
                self.0.delete(&cache.endpoint_slices, slice).await?;
            }
            if let Some(endpoints) = cache.endpoints.get(key) {
                self.0.delete(&cache.endpoints, &*endpoints).await?;
            }
            return Ok(None);
        };
        let spec = service.spec.clone().unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        if spec.selector.as_ref().is_none_or(|s| s.is_empty()) || external {
            return Ok(None);
        }
        let pods = cache.pods.list_in(&key.namespace);
        let nodes = cache.nodes.list();
        let plan = plan::plan(&service, &pods, &nodes, slices);
        for slice in &plan.create {
            self.0.create(&cache.endpoint_slices, slice).await?;
        }
        for (old, new) in &plan.update {
            self.0.update(&cache.endpoint_slices, old, new).await?;
        }
        for slice in &plan.delete {
            self.0.delete(&cache.endpoint_slices, slice).await?;
        }
        match cache.endpoints.get(key) {
            Some(old) => {
                let mut new = (*old).clone();
                new.subsets = plan.endpoints.subsets;
                self.0.update(&cache.endpoints, &*old, &new).await?;
            }
            None => {
                self.0.create(&cache.endpoints, &plan.endpoints).await?;
            }
        }
        Ok(None)
    }
}
