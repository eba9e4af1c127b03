//! Services from outside: node ports and health check ports as they come, stay and go; and the
//! ranges of ClusterIPs as others see them.

use http::StatusCode;
use serde_json::{Value, json};

use crate::cluster::{Cluster, MERGE};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const RANGE: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";

fn service(name: &str, spec: &Value) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

async fn create(cluster: &Cluster, name: &str, spec: Value) -> Result<Value, String> {
    let (status, answer) = cluster.send("POST", SERVICES, service(name, &spec)).await;
    match status {
        StatusCode::CREATED => Ok(answer),
        _ => Err(answer["message"].as_str().unwrap_or_default().to_owned()),
    }
}

async fn patch(cluster: &Cluster, name: &str, spec: Value) -> Result<Value, String> {
    let (path, body) = (format!("{SERVICES}/{name}"), json!({ "spec": spec }));
    let (status, answer) = cluster.send_as("PATCH", &path, MERGE, body).await;
    match status {
        StatusCode::OK => Ok(answer),
        _ => Err(answer["message"].as_str().unwrap_or_default().to_owned()),
    }
}

fn node_port(service: &Value) -> u64 {
    service["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn node_ports_come_stay_and_go_with_the_type() {
    let cluster = Cluster::start().await;
    let given = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]});
    let fixed = create(&cluster, "fixed", given.clone()).await.unwrap();
    assert_eq!(node_port(&fixed), 30_080, "what was asked for");
    assert_eq!(
        create(&cluster, "second", given.clone()).await.unwrap_err(),
        "Service \"second\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided \
         port is already allocated"
    );
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 29_999}]});
    assert_eq!(
        create(&cluster, "outside", outside).await.unwrap_err(),
        "Service \"outside\" is invalid: spec.ports[0].nodePort: Invalid value: 29999: provided \
         port is not in the valid range. The range of valid ports is 30000-32767"
    );

    let any = create(&cluster, "any", json!({"type": "NodePort"})).await.unwrap();
    assert!((30_000..=32_767).contains(&node_port(&any)), "{any}");
    let relabelled = patch(&cluster, "any", json!({"selector": {"app": "web"}})).await.unwrap();
    assert_eq!(node_port(&relabelled), node_port(&any), "kept over updates");
    // As kubectl replaces it: without what the server had filled in.
    let path = format!("{SERVICES}/any");
    let sent = service("any", &json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    let (status, replaced) = cluster.send("PUT", &path, sent).await;
    assert_eq!((status, node_port(&replaced)), (StatusCode::OK, node_port(&any)), "{replaced}");

    let inside = patch(&cluster, "fixed", json!({"type": "ClusterIP"})).await.unwrap();
    assert_eq!(inside["spec"]["ports"][0].get("nodePort"), None, "released");
    assert_eq!(inside["spec"].get("externalTrafficPolicy"), None);
    create(&cluster, "second", given.clone()).await.unwrap();
    cluster.send("DELETE", &format!("{SERVICES}/second"), Value::Null).await;
    create(&cluster, "third", given).await.unwrap();

    let without = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    let without = create(&cluster, "without", without).await.unwrap();
    assert_eq!(node_port(&without), 0, "none asked for");
}

#[tokio::test]
async fn health_check_ports_belong_to_local_load_balancers() {
    let cluster = Cluster::start().await;
    let port = |service: &Value| service["spec"]["healthCheckNodePort"].as_u64();
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let created = create(&cluster, "local", local).await.unwrap();
    let given = port(&created);
    assert!(given.is_some_and(|port| (30_000..=32_767).contains(&port)), "{created}");
    assert_ne!(given, Some(node_port(&created)));
    let changed = patch(&cluster, "local", json!({"selector": {"app": "web"}})).await.unwrap();
    assert_eq!(port(&changed), given, "kept over updates");
    assert_eq!(
        patch(&cluster, "local", json!({"healthCheckNodePort": 30_001})).await.unwrap_err(),
        "Service \"local\" is invalid: spec.healthCheckNodePort: Forbidden: field is immutable"
    );
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": given}]});
    let refused = create(&cluster, "other", taken.clone()).await.unwrap_err();
    assert!(refused.ends_with("provided port is already allocated"), "{refused}");

    let everywhere = json!({"externalTrafficPolicy": "Cluster"});
    let changed = patch(&cluster, "local", everywhere).await.unwrap();
    assert_eq!(port(&changed), None);
    create(&cluster, "other", taken).await.unwrap();
    let asked = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30_007});
    assert_eq!(port(&create(&cluster, "asked", asked).await.unwrap()), Some(30_007));
}

#[tokio::test]
async fn the_range_of_services_can_be_read_and_watched() {
    let cluster = Cluster::configured(|config| {
        config.service_cidrs =
            vec!["10.50.0.0/20".parse().unwrap(), "fd00:50::/112".parse().unwrap()];
    })
    .await;
    let range = cluster.get(RANGE).await;
    assert_eq!(range["spec"]["cidrs"], json!(["10.50.0.0/20", "fd00:50::/112"]));
    let ready = &range["status"]["conditions"][0];
    assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
    let all = "/apis/networking.k8s.io/v1/servicecidrs";
    assert_eq!(cluster.get(all).await["items"].as_array().unwrap().len(), 1);
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.51.0.0/24"]}});
    let version = range["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(cluster.send("POST", all, more).await.0, StatusCode::CREATED);
    let watch = format!("{all}?watch=true&resourceVersion={version}&timeoutSeconds=1");
    let seen = cluster.watch(&watch).await;
    assert_eq!(
        (&seen[0]["type"], &seen[0]["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("more"))
    );
    assert_eq!(seen[0]["object"].get("status"), None, "only the operator's range is in effect");
}

#[tokio::test]
async fn a_cluster_of_one_family_takes_a_second_one() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get(RANGE).await["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    let before = cluster.get(RANGE).await["metadata"]["resourceVersion"].clone();
    let cluster = cluster.restarted().await;
    assert_eq!(cluster.get(RANGE).await["metadata"]["resourceVersion"], before, "left alone");
    let cluster = cluster
        .restarted_with(|config| config.service_cidrs.push("fd00::/112".parse().unwrap()))
        .await;
    assert_eq!(cluster.get(RANGE).await["spec"]["cidrs"], json!(["10.96.0.0/16", "fd00::/112"]));
}
