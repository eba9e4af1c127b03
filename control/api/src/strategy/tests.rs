//! Tables of objects and what becomes of them on their way into the store.

use serde_json::{Value, json};

use super::{Scope, prepare_create, prepare_update};
use crate::resource::{Resource, find_kind};

fn kind(group: &str, kind: &str) -> &'static Resource {
    find_kind(group, kind).expect("a served kind")
}

fn created(resource: &Resource, mut object: Value) -> Value {
    prepare_create(resource, &mut object);
    object
}

fn updated(resource: &Resource, scope: Scope, mut new: Value, old: &Value) -> Value {
    prepare_update(resource, scope, &mut new, old);
    new
}

#[test]
fn clients_do_not_write_the_status_of_new_objects() {
    let deployment = created(
        kind("apps", "Deployment"),
        json!({"metadata": {"name": "a"}, "spec": {}, "status": {"replicas": 7}}),
    );
    assert_eq!(
        deployment,
        json!({"metadata": {"name": "a", "generation": 1}, "spec": {}, "status": {}})
    );
    let namespace = created(kind("", "Namespace"), json!({"metadata": {"name": "a"}}));
    assert_eq!(
        namespace,
        json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
    );
    let node = created(
        kind("", "Node"),
        json!({"metadata": {"name": "a"}, "status": {"capacity": {"cpu": "1"}}}),
    );
    assert_eq!(node["status"]["capacity"]["cpu"], "1");
}

#[test]
fn pods_get_their_class() {
    let class = |resources: Value| {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "resources": resources}]}});
        created(kind("", "Pod"), pod)["status"]["qosClass"].clone()
    };
    let both = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": both, "requests": both})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})), "Burstable");
    let pod =
        created(kind("", "Pod"), json!({"metadata": {"name": "a"}, "spec": {"containers": []}}));
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn jobs_select_the_pods_that_carry_their_uid() {
    let job = created(
        kind("batch", "Job"),
        json!({"metadata": {"name": "a", "uid": "u"}, "spec": {"template": {}}}),
    );
    assert_eq!(
        job["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
    );
    assert_eq!(
        job["spec"]["template"]["metadata"]["labels"],
        json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "a", "controller-uid": "u", "job-name": "a"})
    );
}

#[test]
fn secrets_are_kept_in_base64_only() {
    let secret = created(
        kind("", "Secret"),
        json!({"metadata": {}, "data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}}),
    );
    assert_eq!(secret, json!({"metadata": {}, "data": {"a": "eQ==", "b": "eg=="}}));
}

#[test]
fn scopes_keep_what_they_do_not_write() {
    let resource = kind("apps", "Deployment");
    let old = json!({"metadata": {"name": "a", "generation": 3, "resourceVersion": "5"}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let new = json!({"metadata": {"name": "a", "resourceVersion": "5"}, "spec": {"replicas": 2}, "status": {"replicas": 2}});
    assert_eq!(
        updated(resource, Scope::Main, new.clone(), &old),
        json!({"metadata": {"name": "a", "generation": 4, "resourceVersion": "5"}, "spec": {"replicas": 2}, "status": {"replicas": 1}})
    );
    assert_eq!(
        updated(resource, Scope::Status, new, &old),
        json!({"metadata": {"name": "a", "generation": 3, "resourceVersion": "5"}, "spec": {"replicas": 1}, "status": {"replicas": 2}})
    );
    assert_eq!(updated(resource, Scope::Main, old.clone(), &old)["metadata"]["generation"], 3);
}

#[test]
fn services_keep_and_release_what_was_allocated() {
    let resource = kind("", "Service");
    let ports = |node_port: i64| json!([{"port": 80, "protocol": "TCP", "nodePort": node_port}]);
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster", "ports": ports(30001)}});
    let update = |spec: Value| {
        updated(resource, Scope::Main, json!({"metadata": {}, "spec": spec}), &old)["spec"].clone()
    };
    let kept = update(
        json!({"type": "NodePort", "externalTrafficPolicy": "Cluster", "ports": [{"port": 80, "protocol": "TCP"}]}),
    );
    assert_eq!(kept, old["spec"]);
    let mut cluster_ip = old["spec"].clone();
    cluster_ip["type"] = json!("ClusterIP");
    let released = update(cluster_ip);
    assert_eq!(released["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    assert_eq!(released.get("externalTrafficPolicy"), None);
    assert_eq!(released["clusterIP"], "10.96.0.7");
    let mut external_name = old["spec"].clone();
    external_name["type"] = json!("ExternalName");
    external_name["externalName"] = json!("example.com");
    let released = update(external_name);
    assert_eq!(
        [released.get("clusterIP"), released.get("clusterIPs"), released.get("ipFamilies")],
        [None, None, None]
    );
}
