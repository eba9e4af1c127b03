//! EndpointSlices as far as a proxy reads them. A large cluster has hundreds of thousands of endpoints,
//! each with a reference to its pod and more that is skipped while it is read.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    api::discovery::v1::{EndpointConditions, EndpointHints, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Deserializer};

/// An EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceObject {
    /// Name, labels, annotations; nothing of who wrote it.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default, deserialize_with = "or_default")]
    pub address_type: String,
    /// The ports of all its endpoints.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<EndpointObject>,
}

/// One of its endpoints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointObject {
    /// Its addresses, all of them the same endpoint.
    #[serde(default, deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Whether it can take traffic.
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
    /// Whose traffic it should take.
    pub hints: Option<EndpointHints>,
    /// Where it runs.
    pub node_name: Option<String>,
}

/// The part of an object's metadata that anything here reads.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    let Metadata { name, namespace, resource_version, labels, annotations } = or_default(from)?;
    let nothing = ObjectMeta::default();
    Ok(ObjectMeta { name, namespace, resource_version, labels, annotations, ..nothing })
}

/// Kubernetes takes `null` for a list or an object that is not there.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl kube::Resource for SliceObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        EndpointSlice::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        EndpointSlice::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        EndpointSlice::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        EndpointSlice::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_skipped_and_null_is_nothing() {
        let text = r#"{
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1", "namespace": "default", "labels": null,
                "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]
            },
            "addressType": "IPv4", "ports": null,
            "endpoints": [
                {
                    "addresses": ["10.0.0.1"], "conditions": null, "zone": "a", "nodeName": "n",
                    "targetRef": {"kind": "Pod", "name": "web-1-1"}, "deprecatedTopology": {"a": "b"}
                },
                {"addresses": null, "conditions": {"ready": false}}
            ]
        }"#;
        let slice: SliceObject = serde_json::from_str(text).expect("an object");
        assert_eq!(slice.metadata.name.as_deref(), Some("web-1"));
        assert_eq!(slice.metadata.managed_fields, None);
        let [first, second] = &slice.endpoints[..] else { panic!("{slice:?}") };
        assert_eq!((&*first.addresses[0], first.node_name.as_deref()), ("10.0.0.1", Some("n")));
        assert_eq!((second.addresses.len(), second.conditions.ready), (0, Some(false)));
    }
}
