//! The documents are read here the way kubectl reads them.

use prost::Message as _;
use serde_json::{Value, json};

use super::{gnostic, v2, v2_protobuf, v3, v3_index};
use crate::resource;

#[test]
fn every_kind_says_on_patch_that_fields_are_validated() {
    for resource in resource::all() {
        for version in resource.versions {
            let document = v3(resource.group, version).unwrap();
            let gvk = json!({"group": resource.group, "version": version, "kind": resource.kind});
            let supported = document["paths"].as_object().unwrap().values().any(|path| {
                path["patch"]["x-kubernetes-group-version-kind"] == gvk
                    && path["patch"]["parameters"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|parameter| parameter["name"] == "fieldValidation")
            });
            assert!(supported, "{gvk}");
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let described = schemas.values().any(|schema| {
                schema["x-kubernetes-group-version-kind"][0] == gvk
                    && schema["properties"]["kind"]["type"] == "string"
            });
            assert!(described, "{gvk} has no schema");
        }
    }
    assert_eq!(v3("apps", "v7"), None);
}

#[test]
fn the_index_leads_to_every_document() {
    let index = v3_index();
    let paths = index["paths"].as_object().unwrap();
    let address = paths["apis/apps/v1beta1"]["serverRelativeURL"].as_str().unwrap();
    assert!(address.starts_with("/openapi/v3/apis/apps/v1beta1?hash="), "{address}");
    assert!(paths.contains_key("api/v1"));
}

/// Every `$ref` of a document leads somewhere.
fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference}");
            }
            map.values().for_each(|value| check_references(document, value));
        }
        Value::Array(list) => list.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

#[test]
fn references_are_closed() {
    let all = v2();
    check_references(&all, &all);
    let core = v3("", "v1").unwrap();
    check_references(&core, &core);
}

#[test]
fn schemas_say_how_lists_are_patched() {
    let all = v2();
    let pod = &all["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(pod["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(pod["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(pod["containers"]["items"]["$ref"], "#/definitions/io.k8s.api.core.v1.Container");
    // Inlined structs are no fields of their own.
    let volume = &all["definitions"]["io.k8s.api.core.v1.Volume"]["properties"];
    assert!(volume["emptyDir"].is_object() && volume["volumeSource"].is_null());
}

#[test]
fn protobuf_holds_what_an_old_kubectl_looks_for() {
    let document = gnostic::Document::decode(v2_protobuf()).unwrap();
    assert_eq!(document.swagger, "2.0");
    let definitions = document.definitions.unwrap().named;
    let deployment = definitions
        .iter()
        .find(|named| named.name == "io.k8s.api.apps.v1beta1.Deployment")
        .and_then(|named| named.value.clone())
        .unwrap();
    let kinds = &deployment.vendor_extension[0];
    assert_eq!(kinds.name, "x-kubernetes-group-version-kind");
    let kinds: Value = serde_json::from_str(&kinds.value.clone().unwrap().yaml).unwrap();
    assert_eq!(kinds, json!([{"group": "apps", "version": "v1beta1", "kind": "Deployment"}]));
    let spec = deployment.properties.unwrap().named.into_iter().find(|p| p.name == "spec").unwrap();
    assert_eq!(
        spec.value.unwrap().reference,
        "#/definitions/io.k8s.api.apps.v1beta1.DeploymentSpec"
    );
    let dry_run = document.paths.unwrap().path.into_iter().any(|path| {
        path.name == "/api/v1/namespaces/{namespace}/pods/{name}"
            && path.value.and_then(|value| value.patch).is_some_and(|patch| {
                patch.parameters.iter().any(|item| {
                    let query = item.parameter.as_ref().and_then(|p| p.non_body_parameter.as_ref());
                    query.and_then(|q| q.query.as_ref()).is_some_and(|q| q.name == "dryRun")
                })
            })
    });
    assert!(dry_run);
}
