//! Objects as they lie in the store, and the line `kubectl get -o wide` prints for them.

use serde_json::{Value, json};

use super::{IncludeObject, render};
use crate::resource::find_kind;

const NOW: &str = "2026-01-02T00:00:00Z";
const CREATED: &str = "2026-01-01T23:55:00Z";

/// The cells of one object, joined by ` | `.
fn line(group: &str, kind: &str, mut object: Value) -> String {
    let resource = find_kind(group, kind).unwrap();
    object["metadata"]["name"] = json!("x");
    object["metadata"]["creationTimestamp"] = json!(CREATED);
    let table = render(resource, &[&object], NOW.parse().unwrap(), IncludeObject::Metadata);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells.len(), table["columnDefinitions"].as_array().unwrap().len(), "{kind}");
    let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    cells.iter().map(text).collect::<Vec<_>>().join(" | ")
}

#[test]
fn pods() {
    let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
    let cases = [
        (
            json!({
                "spec": {"containers": [{"name": "c"}], "nodeName": "n1"},
                "status": {
                    "phase": "Running",
                    "podIPs": [{"ip": "10.244.0.5"}],
                    "containerStatuses": [running],
                },
            }),
            "x | 1/1 | Running | 0 | 5m | 10.244.0.5 | n1 | <none> | <none>",
        ),
        (
            json!({
                "spec": {"containers": [{"name": "c"}]},
                "status": {"phase": "Running", "containerStatuses": [{
                    "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:30Z"}},
                }]},
            }),
            "x | 0/1 | CrashLoopBackOff | 3 (30s ago) | 5m | <none> | <none> | <none> | <none>",
        ),
        (
            json!({
                "spec": {
                    "containers": [{"name": "c"}],
                    "initContainers": [{"name": "a"}, {"name": "b"}],
                },
                "status": {"phase": "Pending", "initContainerStatuses": [
                    {"name": "a", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "b", "state": {"terminated": {"exitCode": 2}}},
                ]},
            }),
            "x | 0/1 | Init:ExitCode:2 | 0 | 5m | <none> | <none> | <none> | <none>",
        ),
        (
            json!({
                "spec": {
                    "containers": [{"name": "c"}],
                    "initContainers": [{"name": "a"}, {"name": "s", "restartPolicy": "Always"}],
                },
                "status": {
                    "phase": "Running",
                    "initContainerStatuses": [
                        {"name": "a", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
                        {"name": "s", "started": true, "ready": true, "state": {"running": {}}},
                    ],
                    "containerStatuses": [running],
                },
            }),
            "x | 2/2 | Running | 0 | 5m | <none> | <none> | <none> | <none>",
        ),
        (
            json!({
                "metadata": {"deletionTimestamp": NOW},
                "spec": {"containers": [{"name": "c"}], "readinessGates": [{"conditionType": "g"}]},
                "status": {"phase": "Running", "conditions": [{"type": "g", "status": "True"}]},
            }),
            "x | 0/1 | Terminating | 0 | 5m | <none> | <none> | <none> | 1/1",
        ),
        (
            json!({
                "spec": {"containers": [{"name": "c"}]},
                "status": {"phase": "Failed", "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 137, "signal": 9}}},
                ]},
            }),
            "x | 0/1 | Signal:9 | 0 | 5m | <none> | <none> | <none> | <none>",
        ),
    ];
    for (pod, expected) in cases {
        assert_eq!(line("", "Pod", pod), expected);
    }
}

#[test]
fn services_and_their_endpoints() {
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]);
    let cases = [
        (
            json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.96.0.7"], "ports": ports,
                "selector": {"b": "2", "a": "1"}}}),
            "x | ClusterIP | 10.96.0.7 | <none> | 80:30080/TCP,53/UDP | 5m | a=1,b=2",
        ),
        (
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.7"]}}),
            "x | LoadBalancer | 10.96.0.7 | <pending> | <none> | 5m | <none>",
        ),
        (
            json!({
                "spec": {"type": "LoadBalancer", "clusterIPs": ["None"], "externalIPs": ["2.2.2.2"]},
                "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}},
            }),
            "x | LoadBalancer | None | 1.1.1.1,2.2.2.2 | <none> | 5m | <none>",
        ),
        (
            json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}),
            "x | ExternalName | <none> | a.example | <none> | 5m | <none>",
        ),
    ];
    for (service, expected) in cases {
        assert_eq!(line("", "Service", service), expected);
    }
    let addresses =
        json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "10.0.0.3"}, {"ip": "10.0.0.4"}]);
    let subsets = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
    assert_eq!(
        line("", "Endpoints", subsets),
        "x | 10.0.0.1:80,[fd00::1]:80,10.0.0.3:80 + 1 more... | 5m"
    );
    assert_eq!(line("", "Endpoints", json!({})), "x | <none> | 5m");
    let slice = json!({"addressType": "IPv4", "ports": [{"port": 80}, {}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]});
    assert_eq!(
        line("discovery.k8s.io", "EndpointSlice", slice),
        "x | IPv4 | 80,* | 10.0.0.1,10.0.0.2 | 5m"
    );
    let empty = json!({"addressType": "IPv4"});
    assert_eq!(
        line("discovery.k8s.io", "EndpointSlice", empty),
        "x | IPv4 | <unset> | <unset> | 5m"
    );
}

#[test]
fn ingresses() {
    let rules = json!([{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]);
    let cases = [
        (json!({"spec": {"rules": [{}]}}), "x | <none> | * |  | 80 | 5m"),
        (
            json!({
                "spec": {"ingressClassName": "podium", "rules": rules, "tls": [{}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}, {"hostname": "h"}]}},
            }),
            "x | podium | a,b,c + 1 more... | 1.1.1.1,h | 80, 443 | 5m",
        ),
    ];
    for (ingress, expected) in cases {
        assert_eq!(line("networking.k8s.io", "Ingress", ingress), expected);
    }
    let class = json!({"spec": {"controller": "a/b", "parameters":
        {"apiGroup": "g", "kind": "P", "name": "n"}}});
    assert_eq!(line("networking.k8s.io", "IngressClass", class), "x | a/b | P.g/n | 5m");
    let range = json!({"spec": {"cidrs": ["10.96.0.0/16", "fd00::/108"]}});
    let shown = line("networking.k8s.io", "ServiceCIDR", range);
    assert_eq!(shown, "x | 10.96.0.0/16,fd00::/108 | 5m");
}

#[test]
fn workloads() {
    let template = json!({"spec": {"containers": [
        {"name": "a", "image": "i:1"}, {"name": "b", "image": "j:2"},
    ]}});
    let deployment = json!({
        "spec": {
            "replicas": 3,
            "template": template,
            "selector": {
                "matchLabels": {"app": "web"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x", "y"]}],
            },
        },
        "status": {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
    });
    assert_eq!(
        line("apps", "Deployment", deployment),
        "x | 2/3 | 1 | 2 | 5m | a,b | i:1,j:2 | app=web,tier in (x,y)"
    );
    let set = json!({"spec": {"replicas": 2, "template": template}, "status": {"replicas": 1}});
    assert_eq!(line("apps", "ReplicaSet", set), "x | 2 | 1 | 0 | 5m | a,b | i:1,j:2 | <none>");
    let job = json!({
        "spec": {"completions": 1, "template": template},
        "status": {
            "succeeded": 1,
            "startTime": "2026-01-01T23:55:00Z",
            "completionTime": "2026-01-01T23:55:09Z",
            "conditions": [{"type": "Complete", "status": "True"}],
        },
    });
    assert_eq!(line("batch", "Job", job), "x | Complete | 1/1 | 9s | 5m | a,b | i:1,j:2 | <none>");
    let queue = json!({"spec": {"parallelism": 4, "template": template}});
    assert_eq!(
        line("batch", "Job", queue),
        "x | Running | 0/1 of 4 |  | 5m | a,b | i:1,j:2 | <none>"
    );
}

#[test]
fn the_cluster_itself() {
    let node = json!({
        "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"},
        },
    });
    assert_eq!(
        line("", "Node", node),
        "x | Ready,SchedulingDisabled | control-plane | 5m | v1.36.0 | 10.0.0.2 | <none> | Debian | <unknown> | <unknown>"
    );
    assert_eq!(line("", "Namespace", json!({"status": {"phase": "Active"}})), "x | Active | 5m");
    let event = json!({
        "type": "Warning", "reason": "Failed", "message": "no\n",
        "involvedObject": {"kind": "Pod", "name": "p"},
        "source": {"component": "podium", "host": "n1"},
        "firstTimestamp": CREATED, "lastTimestamp": "2026-01-01T23:59:00Z", "count": 4,
    });
    assert_eq!(
        line("", "Event", event),
        "60s | Warning | Failed | pod/p |  | podium, n1 | no | 5m | 4 | x"
    );
    let newer = json!({
        "type": "Normal", "reason": "R", "note": "yes", "regarding": {"kind": "Pod", "name": "p"},
        "reportingController": "c", "reportingInstance": "i", "eventTime": CREATED,
    });
    assert_eq!(
        line("events.k8s.io", "Event", newer),
        "5m | Normal | R | pod/p |  | c, i | yes | 5m | 1 | x"
    );
    assert_eq!(
        line("", "Secret", json!({"type": "Opaque", "data": {"a": ""}})),
        "x | Opaque | 1 | 5m"
    );
    assert_eq!(
        line("", "ConfigMap", json!({"data": {"a": ""}, "binaryData": {"b": ""}})),
        "x | 2 | 5m"
    );
}

#[test]
fn rows_carry_as_much_of_their_object_as_was_asked_for() {
    let resource = find_kind("", "Pod").unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Succeeded"}});
    let row = |include| render(resource, &[&pod], NOW.parse().unwrap(), include)["rows"][0].clone();
    assert_eq!(row(IncludeObject::None)["object"], Value::Null);
    let metadata = row(IncludeObject::Metadata);
    assert_eq!(metadata["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(metadata["object"].get("spec"), None);
    assert_eq!(metadata["conditions"][0]["reason"], "Succeeded");
    assert_eq!(row(IncludeObject::Object)["object"], pod);
}
