//! The kinds the API serves, as discovery tells them: for controllers that work on objects of every
//! kind by their metadata alone.

use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::discovery::{ApiResource, Discovery, Scope, verbs};

use crate::Error;
use crate::informer::Key;

/// An object of which only the metadata is read.
pub(crate) type Metadata = PartialObjectMeta<DynamicObject>;

/// A kind whose objects can be listed, watched and deleted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

impl Served {
    /// Requests that read metadata, of one namespace or of all when there is none.
    pub(crate) fn metadata(&self, client: &Client, namespace: &str) -> Api<Metadata> {
        if self.namespaced && !namespace.is_empty() {
            return Api::namespaced_with(client.clone(), namespace, &self.resource);
        }
        Api::all_with(client.clone(), &self.resource)
    }

    /// Requests that write.
    pub(crate) fn objects(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced && !namespace.is_empty() {
            return Api::namespaced_with(client.clone(), namespace, &self.resource);
        }
        Api::all_with(client.clone(), &self.resource)
    }

    /// The error of a request about one object of this kind.
    pub(crate) fn failed(&self, operation: &'static str, key: Key, source: kube::Error) -> Error {
        let kind = self.resource.kind.clone();
        Error::Api { operation, kind, key, source: Box::new(source) }
    }

    /// `pods`, `deployments.apps`.
    pub(crate) fn name(&self) -> String {
        let ApiResource { group, plural, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// Asks for all kinds, each in one version.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Served>, Error> {
    let found = Discovery::new(client.clone()).run().await.map_err(|source| Error::Api {
        operation: "discover",
        kind: "APIGroup".to_owned(),
        key: Key::new("", "*"),
        source: Box::new(source),
    })?;
    let mut served = Vec::new();
    for (resource, capabilities) in found.groups().flat_map(|group| group.resources_by_stability())
    {
        let able = [verbs::LIST, verbs::WATCH, verbs::DELETE]
            .into_iter()
            .all(|verb| capabilities.supports_operation(verb));
        if able {
            served.push(Served { resource, namespaced: capabilities.scope == Scope::Namespaced });
        }
    }
    Ok(served)
}

/// Whether objects of this kind are events, in either of their groups.
pub(crate) fn is_event(served: &Served) -> bool {
    served.resource.kind == "Event"
}
