//! Decisions by tables: nodes, pods on them, a pod, and where it goes or why not.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, more: Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    json_patch_like(&mut node, &more);
    Arc::new(serde_json::from_value(node).unwrap())
}

/// Lays one struct over another.
fn json_patch_like(to: &mut Value, more: &Value) {
    match (to, more) {
        (Value::Object(to), Value::Object(more)) => {
            for (key, value) in more {
                json_patch_like(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, more) => *to = more.clone(),
    }
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "c"}]},
    });
    json_patch_like(&mut pod["spec"], &spec);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn check(nodes: Vec<Arc<Node>>, running: Vec<Arc<Pod>>, incoming: &Pod, expected: Expect) {
    let decision = World::new(nodes, running, Vec::new()).choose(incoming);
    expected.assert_eq(&match decision {
        Ok(node) => format!("-> {node}"),
        Err(message) => message,
    });
}

#[test]
fn the_node_with_more_room_wins() {
    let busy = json!({"nodeName": "a", "containers": asks("1500m")["containers"]});
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    check(nodes(), vec![pod("x", busy)], &pod("p", asks("100m")), expect!["-> b"]);
    check(nodes(), vec![], &pod("p", json!({})), expect!["-> a"]);
}

#[test]
fn every_reason_is_counted() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let full = json!({"status": {"allocatable": {"pods": "0"}}});
    check(
        vec![
            node("a", tainted),
            node("b", cordoned),
            node("c", full),
            node("d", json!({})),
            node("e", json!({})),
        ],
        vec![
            pod("x", json!({"nodeName": "d", "containers": asks("1900m")["containers"]})),
            pod("y", json!({"nodeName": "e", "containers": asks("1900m")["containers"]})),
        ],
        &pod("p", asks("1")),
        expect![
            "0/5 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/5 nodes are available: 2 Preemption is not helpful for scheduling, 3 No preemption victims found for incoming pod."
        ],
    );
    check(vec![], vec![], &pod("p", json!({})), expect!["no nodes available to schedule pods"]);
}

#[test]
fn selectors_affinity_and_tolerations() {
    let ssd = || node("a", json!({"metadata": {"labels": {"disk": "ssd"}}}));
    let plain = || node("b", json!({}));
    let tainted = || {
        node(
            "a",
            json!({"spec": {"taints": [{"key": "gpu", "value": "x", "effect": "NoExecute"}]}}),
        )
    };
    check(
        vec![plain(), ssd()],
        vec![],
        &pod("p", json!({"nodeSelector": {"disk": "ssd"}})),
        expect!["-> a"],
    );
    check(
        vec![plain()],
        vec![],
        &pod("p", json!({"nodeSelector": {"disk": "ssd"}})),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
    let prefers = json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "preference": {
            "matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}],
        }}],
    }}});
    check(vec![ssd(), plain()], vec![], &pod("p", prefers), expect!["-> b"]);
    let tolerates = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
    check(vec![tainted()], vec![], &pod("p", tolerates), expect!["-> a"]);
    let wrong_value = json!({"tolerations": [{"key": "gpu", "value": "y"}]});
    check(
        vec![tainted()],
        vec![],
        &pod("p", wrong_value),
        expect![
            "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: x}. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn pods_keep_apart_and_come_together() {
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    let term = |app: &str| {
        json!([{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": app}},
        }])
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let apart = json!({"affinity": {"podAntiAffinity": {required: term("x")}}});
    let together = json!({"affinity": {"podAffinity": {required: term("x")}}});
    let on = |name: &str, node: &str| pod(name, json!({"nodeName": node}));
    check(nodes(), vec![on("x", "a")], &pod("p", apart.clone()), expect!["-> b"]);
    check(nodes(), vec![on("x", "b")], &pod("p", together.clone()), expect!["-> b"]);
    check(
        nodes(),
        vec![],
        &pod("p", together.clone()),
        expect![
            "0/2 nodes are available: 2 node(s) didn't match pod affinity rules. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
    // The first of a group that wants to be together.
    check(nodes(), vec![], &pod("x", together), expect!["-> a"]);
    // A pod that runs already may refuse the newcomer.
    let mut loner = apart;
    loner["nodeName"] = json!("a");
    check(nodes(), vec![pod("y", loner)], &pod("x", json!({})), expect!["-> b"]);
}

#[test]
fn spreading() {
    let nodes = || vec![node("a", json!({})), node("b", json!({}))];
    let on = |node: &str| pod("p", json!({"nodeName": node}));
    let constraint = json!({"topologySpreadConstraints": [{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "p"}},
    }]});
    check(nodes(), vec![on("a")], &pod("p", constraint.clone()), expect!["-> b"]);
    let mut cordoned = nodes();
    cordoned[1] = node("b", json!({"spec": {"unschedulable": true}}));
    check(
        cordoned,
        vec![on("a")],
        &pod("p", constraint),
        expect![
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        ],
    );
    let owned = |node: Option<&str>| {
        let mut pod = (*pod("p", json!({"nodeName": node}))).clone();
        pod.metadata.owner_references = serde_json::from_value(json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true,
        }]))
        .unwrap();
        Arc::new(pod)
    };
    check(nodes(), vec![owned(Some("a"))], &owned(None), expect!["-> b"]);
}

#[test]
fn host_ports_are_taken_once() {
    let port = |number: u16| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": number}]}]});
    let mut taken = port(80);
    taken["nodeName"] = json!("a");
    check(
        vec![node("a", json!({}))],
        vec![pod("x", taken)],
        &pod("p", port(80)),
        expect![
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
}
