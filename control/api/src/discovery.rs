//! Discovery: which kinds are served where, in the form clients older than Kubernetes 1.27 read one
//! group version at a time, and in the aggregated form newer ones read at once (KEP-3352). Everything
//! here follows from [`crate::resource`]; which form a client accepts is the server's to decide.

use serde_json::{Map, Value, json};

use crate::resource::{self, Resource, Subresource, VERBS};

/// The group of the aggregated form; its versions `v2` and `v2beta1` have the same content.
pub const AGGREGATED_GROUP: &str = "apidiscovery.k8s.io";

/// Which of the two roots of the API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/api`: the core group.
    Core,
    /// `/apis`: every other group.
    Groups,
}

impl Root {
    fn has(self, group: &str) -> bool {
        group.is_empty() == (self == Self::Core)
    }
}

/// `/api`: `APIVersions`. `server_address` is where clients of any address reach the server.
pub fn api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": versions(""),
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address},
        ],
    })
}

/// `/apis`: `APIGroupList`.
pub fn api_groups() -> Value {
    let groups: Vec<Value> = groups(Root::Groups)
        .into_iter()
        .map(|group| Value::Object(describe_group(group)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`: `APIGroup`; `None` if nothing of the group is served.
pub fn api_group(group: &str) -> Option<Value> {
    if !groups(Root::Groups).contains(&group) {
        return None;
    }
    let mut described = describe_group(group);
    described.insert("kind".to_owned(), json!("APIGroup"));
    described.insert("apiVersion".to_owned(), json!("v1"));
    Some(Value::Object(described))
}

/// `/api/v1` and `/apis/<group>/<version>`: `APIResourceList`; `None` if nothing of it is served.
pub fn api_resources(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in of_version(group, version) {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for subresource in resource.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, subresource.name()),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": subresource.verbs(),
            });
            // Bodies of another group version say which; upstream leaves its own out.
            if let Some((group, version, kind)) = subresource.kind() {
                entry["kind"] = json!(kind);
                if (group, version) != (resource.group, resource.storage_version) {
                    entry["group"] = json!(group);
                    entry["version"] = json!(version);
                }
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}

/// `/api` and `/apis` in the aggregated form: `APIGroupDiscoveryList` of `version` (`v2` or
/// `v2beta1`).
pub fn aggregated(root: Root, version: &str) -> Value {
    let items: Vec<Value> = groups(root)
        .into_iter()
        .map(|group| {
            let versions: Vec<Value> = versions(group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = of_version(group, version)
                        .map(|resource| aggregated_resource(resource, version))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("{AGGREGATED_GROUP}/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(resource: &Resource, version: &str) -> Value {
    let own_kind = json!({"group": resource.group, "version": version, "kind": resource.kind});
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": own_kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let describe = |subresource: &Subresource| {
            let kind = match subresource.kind() {
                Some((group, version, kind)) => {
                    json!({"group": group, "version": version, "kind": kind})
                }
                None => own_kind.clone(),
            };
            json!({
                "subresource": subresource.name(),
                "responseKind": kind,
                "verbs": subresource.verbs(),
            })
        };
        entry["subresources"] = resource.subresources.iter().map(describe).collect();
    }
    entry
}

fn describe_group(group: &str) -> Map<String, Value> {
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    let mut described = Map::new();
    described.insert("name".to_owned(), json!(group));
    described.insert("preferredVersion".to_owned(), versions.first().cloned().unwrap_or_default());
    described.insert("versions".to_owned(), Value::Array(versions));
    described
}

/// `v1`, `apps/v1`, …
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The groups under a root, in the order of the descriptors.
pub fn groups(root: Root) -> Vec<&'static str> {
    let mut groups = Vec::new();
    for resource in resource::all() {
        if root.has(resource.group) && !groups.contains(&resource.group) {
            groups.push(resource.group);
        }
    }
    groups
}

/// The versions of a group, preferred first.
pub fn versions(group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for resource in resource::all().iter().filter(|resource| resource.group == group) {
        for version in resource.versions {
            if !versions.contains(version) {
                versions.push(version);
            }
        }
    }
    // A stable version goes before the test versions of it, whichever kind named them first.
    versions.sort_by_key(|version| version.contains("beta") || version.contains("alpha"));
    versions
}

/// The resources of one group version.
pub fn of_version<'a>(
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'static Resource> + use<'a> {
    resource::all()
        .iter()
        .filter(move |resource| resource.group == group && resource.versions.contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_name_their_versions_preferred_first() {
        let core = api_versions("10.0.0.1:6443");
        assert_eq!(core["versions"], json!(["v1"]));
        let apps = api_group("apps").unwrap();
        assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
        assert_eq!(apps["versions"][1]["version"], "v1beta1");
        assert_eq!(api_group(""), None);
        assert_eq!(api_group("nonsense"), None);
        let listed = api_groups();
        let names: Vec<&str> = listed["groups"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|g| g["name"].as_str())
            .collect();
        assert!(names.contains(&"networking.k8s.io") && !names.contains(&""), "{names:?}");
    }

    #[test]
    fn resources_come_with_their_subresources() {
        let core = api_resources("", "v1").unwrap();
        let find = |name: &str| {
            core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned()
        };
        assert_eq!(find("pods").unwrap()["shortNames"], json!(["po"]));
        let eviction = find("pods/eviction").unwrap();
        assert_eq!((&eviction["kind"], &eviction["group"]), (&json!("Eviction"), &json!("policy")));
        assert_eq!(find("pods/status").unwrap()["kind"], "Pod");
        assert_eq!(find("pods/binding").unwrap().get("group"), None);
        assert_eq!(find("nodes").unwrap()["namespaced"], false);
        let old = api_resources("apps", "v1beta1").unwrap();
        assert_eq!(old["groupVersion"], "apps/v1beta1");
        assert!(old["resources"].as_array().unwrap().iter().all(|r| r["name"] != "replicasets"));
        assert_eq!(api_resources("apps", "v7"), None);
    }

    #[test]
    fn the_aggregated_form_says_the_same() {
        for root in [Root::Core, Root::Groups] {
            let list = aggregated(root, "v2");
            assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
            for item in list["items"].as_array().unwrap() {
                let group = item["metadata"]["name"].as_str().unwrap_or_default();
                for version in item["versions"].as_array().unwrap() {
                    let plain = api_resources(group, version["version"].as_str().unwrap()).unwrap();
                    let mains: Vec<&Value> = plain["resources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|resource| &resource["name"])
                        .filter(|name| !name.as_str().unwrap().contains('/'))
                        .collect();
                    let aggregated: Vec<&Value> = version["resources"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|resource| &resource["resource"])
                        .collect();
                    assert_eq!(mains, aggregated);
                }
            }
        }
    }
}
