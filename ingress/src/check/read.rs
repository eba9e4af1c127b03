//! Where `check` gets its objects: files, folders, standard input, or a cluster that is asked once.

use crate::objects::ingress::Ingress;
use crate::objects::{Kind, Object, ObjectKey};
use crate::source::files::{self, parse_manifests};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{self as api, IngressClass};
use kube::api::{Api, ListParams};
use kube::{Client, Error, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error as ThisError;

/// How many objects one answer of the API holds.
const PAGE: u32 = 500;

/// Why there is nothing to check.
#[derive(Debug, ThisError)]
pub enum ReadError {
    /// A file or folder.
    #[error("reading {0}: {1}")]
    File(String, #[source] io::Error),
    /// What it says.
    #[error("{0}: {1}")]
    Manifest(String, String),
    /// The cluster.
    #[error("listing objects of kind {0}: {1}")]
    List(&'static str, #[source] Box<Error>),
}

/// Objects of files, of all files of folders, and of standard input for `-`.
pub fn files(paths: &[PathBuf]) -> Result<Vec<Object>, ReadError> {
    let mut objects = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = Vec::new();
            let named = || "standard input".to_string();
            io::stdin().read_to_end(&mut text).map_err(|error| ReadError::File(named(), error))?;
            objects
                .extend(parse_manifests(&text).map_err(|why| ReadError::Manifest(named(), why))?);
            continue;
        }
        let named = |path: &Path| path.display().to_string();
        let mut all = vec![path.clone()];
        if path.is_dir() {
            all.clear();
            files::list(path, &mut all).map_err(|error| ReadError::File(named(path), error))?;
            all.sort();
        }
        for path in all {
            let text =
                std::fs::read(&path).map_err(|error| ReadError::File(named(&path), error))?;
            let parsed = parse_manifests(&text);
            objects.extend(parsed.map_err(|why| ReadError::Manifest(named(&path), why))?);
        }
    }
    Ok(objects)
}

/// Objects of a cluster. Secrets and ConfigMaps are left to [`named`].
pub async fn cluster(client: &Client) -> Result<Vec<Object>, ReadError> {
    let mut objects = Vec::new();
    let ingresses = all::<api::Ingress>(client).await?;
    objects.extend(ingresses.iter().map(|o| Object::Ingress(Ingress::of(o).into())));
    let classes = all::<IngressClass>(client).await?;
    objects.extend(classes.into_iter().map(|o| Object::IngressClass(o.into())));
    objects.extend(all::<Service>(client).await?.iter().map(Object::of_service));
    let slices = all::<EndpointSlice>(client).await?;
    objects.extend(slices.iter().map(Object::of_slice));
    Ok(objects)
}

/// The Secrets and ConfigMaps of these names, as far as they are there.
pub async fn named(
    client: &Client,
    names: impl IntoIterator<Item = (Kind, ObjectKey)>,
) -> Result<Vec<Object>, ReadError> {
    let mut objects = Vec::new();
    for (kind, key) in names {
        let (client, namespace) = (client.clone(), &*key.namespace);
        let failed = |error| ReadError::List(kind.as_str(), Box::new(error));
        if kind == Kind::Secret {
            let found = Api::<Secret>::namespaced(client, namespace).get_opt(&key.name).await;
            objects.extend(found.map_err(failed)?.map(|o| Object::Secret(o.into())));
        } else if kind == Kind::ConfigMap {
            let found = Api::<ConfigMap>::namespaced(client, namespace).get_opt(&key.name).await;
            objects.extend(found.map_err(failed)?.map(|o| Object::ConfigMap(o.into())));
        }
    }
    Ok(objects)
}

async fn all<K>(client: &Client) -> Result<Vec<K>, ReadError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + KindName,
{
    let api: Api<K> = Api::all(client.clone());
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await;
        let page = page.map_err(|error| ReadError::List(K::NAME, Box::new(error)))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(found),
        }
    }
}

trait KindName {
    const NAME: &'static str;
}

impl KindName for api::Ingress {
    const NAME: &'static str = "Ingress";
}

impl KindName for IngressClass {
    const NAME: &'static str = "IngressClass";
}

impl KindName for Service {
    const NAME: &'static str = "Service";
}

impl KindName for EndpointSlice {
    const NAME: &'static str = "EndpointSlice";
}
