//! Golden texts of defaulted objects.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::apply;
use crate::resource::find_kind;

fn check(group: &str, kind: &str, mut object: Value, expected: &Expect) {
    apply(find_kind(group, kind).expect("a served kind"), &mut object);
    expected.assert_eq(&serde_json::to_string_pretty(&object).expect("JSON"));
}

#[test]
fn deployment() {
    let containers = json!([{"name": "a", "image": "nginx", "ports": [{"containerPort": 80}],
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "readinessProbe": {"httpGet": {"port": 80}}}]);
    check(
        "apps",
        "Deployment",
        json!({"spec": {"template": {"spec": {"containers": containers}}}}),
        &expect![[r#"
        {
          "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "strategy": {
              "rollingUpdate": {
                "maxSurge": "25%",
                "maxUnavailable": "25%"
              },
              "type": "RollingUpdate"
            },
            "template": {
              "spec": {
                "containers": [
                  {
                    "env": [
                      {
                        "name": "N",
                        "valueFrom": {
                          "fieldRef": {
                            "apiVersion": "v1",
                            "fieldPath": "metadata.name"
                          }
                        }
                      }
                    ],
                    "image": "nginx",
                    "imagePullPolicy": "Always",
                    "name": "a",
                    "ports": [
                      {
                        "containerPort": 80,
                        "protocol": "TCP"
                      }
                    ],
                    "readinessProbe": {
                      "failureThreshold": 3,
                      "httpGet": {
                        "path": "/",
                        "port": 80,
                        "scheme": "HTTP"
                      },
                      "periodSeconds": 10,
                      "successThreshold": 1,
                      "timeoutSeconds": 1
                    },
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          }
        }"#]],
    );
}

#[test]
fn pod() {
    let spec = json!({"hostNetwork": true, "serviceAccountName": "s",
        "containers": [{"name": "a", "image": "a:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "ports": [{"containerPort": 80}], "lifecycle": {"preStop": {"httpGet": {"port": 1}}}}],
        "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/a"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]});
    check(
        "",
        "Pod",
        json!({"spec": spec}),
        &expect![[r#"
        {
          "spec": {
            "containers": [
              {
                "image": "a:1",
                "imagePullPolicy": "IfNotPresent",
                "lifecycle": {
                  "preStop": {
                    "httpGet": {
                      "path": "/",
                      "port": 1,
                      "scheme": "HTTP"
                    }
                  }
                },
                "name": "a",
                "ports": [
                  {
                    "containerPort": 80,
                    "hostPort": 80,
                    "protocol": "TCP"
                  }
                ],
                "resources": {
                  "limits": {
                    "cpu": "1",
                    "memory": "1Gi"
                  },
                  "requests": {
                    "cpu": "500m",
                    "memory": "1Gi"
                  }
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"
              }
            ],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true,
            "hostNetwork": true,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "s",
            "serviceAccountName": "s",
            "terminationGracePeriodSeconds": 30,
            "volumes": [
              {
                "emptyDir": {},
                "name": "e"
              },
              {
                "name": "s",
                "secret": {
                  "defaultMode": 420,
                  "secretName": "s"
                }
              },
              {
                "hostPath": {
                  "path": "/a",
                  "type": ""
                },
                "name": "h"
              },
              {
                "name": "p",
                "projected": {
                  "defaultMode": 420,
                  "sources": [
                    {
                      "serviceAccountToken": {
                        "expirationSeconds": 3600,
                        "path": "t"
                      }
                    }
                  ]
                }
              }
            ]
          },
          "status": {
            "phase": "Pending"
          }
        }"#]],
    );
}

#[test]
fn services() {
    check(
        "",
        "Service",
        json!({"spec": {"ports": [{"port": 80}]}}),
        &expect![[r#"
        {
          "spec": {
            "internalTrafficPolicy": "Cluster",
            "ports": [
              {
                "port": 80,
                "protocol": "TCP",
                "targetPort": 80
              }
            ],
            "sessionAffinity": "None",
            "type": "ClusterIP"
          }
        }"#]],
    );
    let balancer = json!({"spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": "http"}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    check(
        "",
        "Service",
        balancer,
        &expect![[r#"
        {
          "spec": {
            "allocateLoadBalancerNodePorts": true,
            "externalTrafficPolicy": "Cluster",
            "internalTrafficPolicy": "Cluster",
            "ports": [
              {
                "port": 80,
                "protocol": "TCP",
                "targetPort": "http"
              }
            ],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {
              "clientIP": {
                "timeoutSeconds": 10800
              }
            },
            "type": "LoadBalancer"
          },
          "status": {
            "loadBalancer": {
              "ingress": [
                {
                  "ip": "10.0.0.1",
                  "ipMode": "VIP"
                }
              ]
            }
          }
        }"#]],
    );
    check(
        "",
        "Service",
        json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
        &expect![[r#"
        {
          "spec": {
            "externalName": "a.b",
            "sessionAffinity": "None",
            "type": "ExternalName"
          }
        }"#]],
    );
}

#[test]
fn jobs() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [], "restartPolicy": "Never"}});
    check(
        "batch",
        "Job",
        json!({"metadata": {}, "spec": {"template": template}}),
        &expect![[r#"
        {
          "metadata": {
            "labels": {
              "a": "b"
            }
          },
          "spec": {
            "backoffLimit": 6,
            "completionMode": "NonIndexed",
            "completions": 1,
            "manualSelector": false,
            "parallelism": 1,
            "podReplacementPolicy": "TerminatingOrFailed",
            "suspend": false,
            "template": {
              "metadata": {
                "labels": {
                  "a": "b"
                }
              },
              "spec": {
                "containers": [],
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Never",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          }
        }"#]],
    );
    check(
        "batch",
        "Job",
        json!({"metadata": {}, "spec": {"completions": 3, "backoffLimitPerIndex": 1, "podFailurePolicy": {"rules": []}}}),
        &expect![[r#"
        {
          "metadata": {},
          "spec": {
            "backoffLimit": 2147483647,
            "backoffLimitPerIndex": 1,
            "completionMode": "NonIndexed",
            "completions": 3,
            "manualSelector": false,
            "parallelism": 1,
            "podFailurePolicy": {
              "rules": []
            },
            "podReplacementPolicy": "Failed",
            "suspend": false,
            "template": {
              "spec": {
                "dnsPolicy": "ClusterFirst",
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30
              }
            }
          }
        }"#]],
    );
}

#[test]
fn the_smaller_kinds() {
    check(
        "",
        "Namespace",
        json!({"metadata": {"name": "a"}}),
        &expect![[r#"
        {
          "metadata": {
            "labels": {
              "kubernetes.io/metadata.name": "a"
            },
            "name": "a"
          },
          "status": {
            "phase": "Active"
          }
        }"#]],
    );
    check(
        "",
        "Secret",
        json!({"metadata": {"name": "a"}}),
        &expect![[r#"
        {
          "metadata": {
            "name": "a"
          },
          "type": "Opaque"
        }"#]],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"ports": [{"port": 80}]}),
        &expect![[r#"
        {
          "ports": [
            {
              "name": "",
              "port": 80,
              "protocol": "TCP"
            }
          ]
        }"#]],
    );
    check(
        "",
        "Endpoints",
        json!({"subsets": [{"ports": [{"port": 80}]}]}),
        &expect![[r#"
        {
          "subsets": [
            {
              "ports": [
                {
                  "port": 80,
                  "protocol": "TCP"
                }
              ]
            }
          ]
        }"#]],
    );
    check(
        "networking.k8s.io",
        "IngressClass",
        json!({"spec": {"parameters": {"kind": "A", "name": "b"}}}),
        &expect![[r#"
        {
          "spec": {
            "parameters": {
              "kind": "A",
              "name": "b",
              "scope": "Cluster"
            }
          }
        }"#]],
    );
    check(
        "",
        "Node",
        json!({"status": {"capacity": {"cpu": "1"}}}),
        &expect![[r#"
        {
          "status": {
            "allocatable": {
              "cpu": "1"
            },
            "capacity": {
              "cpu": "1"
            }
          }
        }"#]],
    );
}
