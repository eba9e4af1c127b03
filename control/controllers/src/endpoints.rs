//! EndpointSlices and the older Endpoints object of Services: from pods where a Service has a
//! selector, mirrored from hand-written Endpoints where it has none.

mod hints;
mod mirror;
mod old_form;
mod plan;
mod pods;
mod slices;
mod trigger_time;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::selector;
use crate::write::Context;
use slices::Changes;
use trigger_time::Seen;

pub(crate) struct Services {
    context: Context,
    /// Services that ended: their Endpoints end too, also hand-written ones. (Endpoints without a
    /// Service are left alone otherwise: the Service may come later.)
    ended: Mutex<HashSet<Key>>,
    /// What the endpoints of each Service were last written for.
    seen: Mutex<HashMap<Key, Seen>>,
}

impl Services {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, ended: Mutex::default(), seen: Mutex::default() }
    }
}

impl Controller for Services {
    const NAME: &'static str = "endpoints";

    fn keys(&self, change: &Change) -> Vec<Key> {
        let (cache, namespace) = (&self.context.cache, &change.key.namespace);
        match change.kind {
            "Service" => {
                if change.new.is_none() {
                    let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                    ended.insert(change.key.clone());
                }
                vec![change.key.clone()]
            }
            "Endpoints" => vec![change.key.clone()],
            "EndpointSlice" => {
                let labels = change.new.iter().chain(&change.old).filter_map(|m| m.labels.as_ref());
                let names = labels.filter_map(|labels| labels.get(slices::SERVICE_NAME));
                let names: HashSet<&String> = names.collect();
                names.into_iter().map(|name| Key::new(namespace, name)).collect()
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
            "Node" if zone(change.old.as_ref()) != zone(change.new.as_ref()) => self.all(),
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.context.cache.services.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let cache = &self.context.cache;
        let Some(service) = cache.services.get(key) else {
            self.end(key).await?;
            return Ok(None);
        };
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let endpoints = cache.endpoints.get(key);
        if plan::has_selector(&service) {
            self.write(Changes::removing(self.slices(key, mirror::CONTROLLER))).await?;
            if !plan::is_external(&service) {
                self.select(key, &service, endpoints.as_deref()).await?;
            }
        } else {
            let slices = self.slices(key, mirror::CONTROLLER);
            self.write(mirror::plan(endpoints.as_deref(), slices)).await?;
        }
        Ok(None)
    }
}

/// Whether a node is there, and in which zone.
fn zone(metadata: Option<&ObjectMeta>) -> Option<Option<&String>> {
    metadata.map(|metadata| metadata.labels.as_ref()?.get(pods::ZONE))
}

impl Services {
    async fn select(
        &self,
        key: &Key,
        service: &Service,
        endpoints: Option<&Endpoints>,
    ) -> Result<(), Error> {
        let cache = &self.context.cache;
        let pods = cache.pods.list_in(&key.namespace);
        let nodes = cache.nodes.list();
        let slices = self.slices(key, plan::CONTROLLER);
        let mut plan = plan::plan(service, &pods, &nodes, slices);
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let ours = pods
            .iter()
            .filter(|pod| selector::matches_pairs(selector, pod.metadata.labels.as_ref()));
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let (trigger, seen) = trigger_time::trigger(seen.as_ref(), service, ours);
        plan.slices.annotate(trigger);
        self.write(plan.slices).await?;
        match endpoints {
            Some(old) => {
                let new = old_form::renewed(old, plan.endpoints, trigger);
                self.context.update(&cache.endpoints, old, &new).await?;
            }
            None => {
                trigger_time::annotate(&mut plan.endpoints.metadata, trigger);
                self.context.create(&cache.endpoints, &plan.endpoints).await?;
            }
        }
        // Only what has been written counts as seen: the next try is for the same changes.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), seen);
        Ok(())
    }

    async fn end(&self, key: &Key) -> Result<(), Error> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        for controller in [plan::CONTROLLER, mirror::CONTROLLER] {
            self.write(Changes::removing(self.slices(key, controller))).await?;
        }
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(key);
        let store = &self.context.cache.endpoints;
        if let Some(endpoints) = store.get(key).filter(|e| ended || old_form::is_ours(e)) {
            self.context.delete(store, &*endpoints).await?;
        }
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        Ok(())
    }

    fn slices(&self, key: &Key, controller: &str) -> Vec<EndpointSlice> {
        let all = self.context.cache.endpoint_slices.list_of_service(key);
        let ours = all.into_iter().filter(|slice| slices::is_of(slice, &key.name, controller));
        ours.map(Arc::unwrap_or_clone).collect()
    }

    /// New slices first: an endpoint that moves is never in none.
    async fn write(&self, changes: Changes) -> Result<(), Error> {
        let store = &self.context.cache.endpoint_slices;
        for slice in &changes.create {
            self.context.create(store, slice).await?;
        }
        for (old, new) in &changes.update {
            self.context.update(store, old, new).await?;
        }
        for slice in &changes.delete {
            self.context.delete(store, slice).await?;
        }
        Ok(())
    }
}
