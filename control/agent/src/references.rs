//! The ConfigMaps and Secrets a pod mentions: which they are (pure), and reading them from the API.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::Api;

use crate::error::Error;
use crate::pod::env::{Data, Referenced};
use crate::pod::{PodExt, all_containers};

/// Names of the ConfigMaps and of the Secrets of a pod.
pub(crate) fn names(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut config_maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    for (container, _) in all_containers(pod.podspec()) {
        for source in container.env_from.iter().flatten() {
            config_maps.extend(source.config_map_ref.as_ref().map(|from| from.name.clone()));
            secrets.extend(source.secret_ref.as_ref().map(|from| from.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            config_maps.extend(source.config_map_key_ref.as_ref().map(|from| from.name.clone()));
            secrets.extend(source.secret_key_ref.as_ref().map(|from| from.name.clone()));
        }
    }
    for volume in pod.podspec().volumes.iter().flatten() {
        config_maps.extend(volume.config_map.as_ref().map(|from| from.name.clone()));
        secrets.extend(volume.secret.as_ref().and_then(|from| from.secret_name.clone()));
        let sources = volume.projected.as_ref().and_then(|projected| projected.sources.as_ref());
        for source in sources.into_iter().flatten() {
            config_maps.extend(source.config_map.as_ref().map(|from| from.name.clone()));
            secrets.extend(source.secret.as_ref().map(|from| from.name.clone()));
        }
    }
    (config_maps, secrets)
}

/// Reads all of them; those the API does not have are `None`.
pub(crate) async fn fetch(client: &kube::Client, pod: &Pod) -> Result<Referenced, Error> {
    let (config_maps, secrets) = names(pod);
    let mut referenced = Referenced::default();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), pod.namespace());
    for name in config_maps {
        let object =
            api.get_opt(&name).await.map_err(|e| Error::api("read ConfigMap", &name, e))?;
        referenced.config_maps.insert(name, object.map(of_config_map));
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), pod.namespace());
    for name in secrets {
        let object = api.get_opt(&name).await.map_err(|e| Error::api("read Secret", &name, e))?;
        referenced.secrets.insert(name, object.map(of_secret));
    }
    Ok(referenced)
}

fn of_config_map(object: ConfigMap) -> Data {
    let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    Data { entries: text.chain(binary).collect() }
}

fn of_secret(object: Secret) -> Data {
    Data { entries: object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect() }
}
