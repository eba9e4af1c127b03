//! Namespaces: what each holds from its start (ServiceAccount `default`, ConfigMap
//! `kube-root-ca.crt`), and the end of all it holds when it is deleted.

mod contents;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Error;
use crate::informer::{Change, Key};
use crate::queue::Controller;
use crate::write::Context;

const ROOT_CA: &str = "kube-root-ca.crt";

pub(crate) struct Namespaces(pub(crate) Context);

impl Controller for Namespaces {
    const NAME: &'static str = "namespace";

    fn keys(&self, change: &Change) -> Vec<Key> {
        let namespace = || Key::new("", &change.key.namespace);
        match change.kind {
            "Namespace" => vec![change.key.clone()],
            "ServiceAccount" | "ConfigMap" => vec![namespace()],
            // One less that a terminating namespace waits for.
            "Pod" if change.new.is_none() => vec![namespace()],
            _ => Vec::new(),
        }
    }

    fn all(&self) -> Vec<Key> {
        self.0.cache.namespaces.keys()
    }

    async fn sync(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(namespace) = self.0.cache.namespaces.get(key) else { return Ok(None) };
        if namespace.metadata.deletion_timestamp.is_some() {
            return contents::remove(&self.0, &namespace).await;
        }
        self.fill(&namespace).await?;
        Ok(None)
    }
}

impl Namespaces {
    async fn fill(&self, namespace: &Namespace) -> Result<(), Error> {
        let cache = &self.0.cache;
        let namespace = namespace.metadata.name.clone().unwrap_or_default();
        let metadata = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        };
        if cache.service_accounts.get(&Key::new(&namespace, "default")).is_none() {
            let account =
                ServiceAccount { metadata: metadata("default"), ..ServiceAccount::default() };
            self.0.create(&cache.service_accounts, &account).await?;
        }
        let data = BTreeMap::from([("ca.crt".to_owned(), self.0.config.ca_pem.clone())]);
        let wanted =
            ConfigMap { metadata: metadata(ROOT_CA), data: Some(data), ..ConfigMap::default() };
        match cache.config_maps.get(&Key::new(&namespace, ROOT_CA)) {
            None => {
                self.0.create(&cache.config_maps, &wanted).await?;
            }
            Some(known) if known.data != wanted.data => {
                let mut new = (*known).clone();
                new.data = wanted.data;
                self.0.update(&cache.config_maps, &*known, &new).await?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}
