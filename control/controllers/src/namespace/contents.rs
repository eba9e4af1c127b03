//! The end of a namespace: everything in it is deleted, of whatever kind the API serves; when nothing
//! is left the namespace's own finalizer is taken away and the server lets it go.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};

use crate::Error;
use crate::informer::Key;
use crate::served::{self, Metadata, Served};
use crate::write::{Context, failed};

const FINALIZER: &str = "kubernetes";
const DELETES_AT_ONCE_MAX: usize = 32;
/// Most ends are told by the watches; this is for those of kinds that have none here.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Deletes what is in a terminating namespace and says when to look again.
pub(super) async fn remove(
    context: &Context,
    namespace: &Namespace,
) -> Result<Option<Duration>, Error> {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    if !finalizers(namespace).iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(None);
    }
    let mut left = 0;
    for served in served::discover(&context.client).await? {
        if served.namespaced {
            left += remove_kind(context, &served, &name).await?;
        }
    }
    if left > 0 {
        tracing::debug!(namespace = name, left, "namespace waits for its contents");
        return Ok(Some(AGAIN_AFTER));
    }
    finalize(context, namespace).await?;
    Ok(None)
}

/// Deletes the objects of one kind; the answer is how many are still there.
async fn remove_kind(context: &Context, served: &Served, namespace: &str) -> Result<usize, Error> {
    let everything = ListParams::default();
    let api = served.metadata(&context.client, namespace);
    let list = |source| served.failed("list", Key::new(namespace, "*"), source);
    let found = api.list(&everything).await.map_err(list)?.items;
    if found.is_empty() {
        return Ok(0);
    }
    let fresh: Vec<&Metadata> =
        found.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).collect();
    for batch in fresh.chunks(DELETES_AT_ONCE_MAX) {
        let deletes = batch.iter().map(|object| delete(context, served, namespace, object));
        for deleted in join_all(deletes).await {
            deleted?;
        }
    }
    Ok(api.list(&everything).await.map_err(list)?.items.len())
}

async fn delete(
    context: &Context,
    served: &Served,
    namespace: &str,
    object: &Metadata,
) -> Result<(), Error> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let uid = object.metadata.uid.clone();
    let parameters =
        DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    match served.objects(&context.client, namespace).delete(name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(served.failed("delete", Key::new(namespace, name), source)),
    }
}

async fn finalize(context: &Context, namespace: &Namespace) -> Result<(), Error> {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let mut new = namespace.clone();
    let kept: Vec<String> =
        finalizers(namespace).iter().filter(|known| *known != FINALIZER).cloned().collect();
    new.spec.get_or_insert_default().finalizers = Some(kept);
    let api: Api<Namespace> = Api::all(context.client.clone());
    match api.replace_subresource("finalize", &name, &PostParams::default(), &new).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(failed::<Namespace>("finalize", Key::new("", name), source)),
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default()
}
