//! What a pod may ask of its node: probes, init containers, configuration, logs, a good end. All pods
//! of a test are created at once; what is wrong with one must not hold up the others.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::time::Duration;

use podium_tests::cluster::{Cluster, is_condition_true};
use podium_tests::kubectl::Kubectl;
use podium_tests::wait::wait_until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);

/// A pod of one container that runs the test server with `args`; `more` is YAML below the container.
fn pod(name: &str, args: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 5\n  containers:\n  - name: main\n    image: testserver\n    \
         imagePullPolicy: IfNotPresent\n    command: [/bin/testserver, {args}]\n{more}"
    )
}

fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn wait_pod(kubectl: &Kubectl, name: &str, what: &str, right: impl Fn(&Value) -> bool) -> Value {
    let what = format!("Pod {name} {what}");
    kubectl.wait_for(&what, LIMIT, &["get", "pod", name], right).unwrap()
}

fn cluster(name: &str) -> (Cluster, Kubectl) {
    let mut cluster = Cluster::for_test(name).unwrap();
    cluster.add_node().unwrap();
    let kubectl = cluster.kubectl("1.36");
    cluster.wait_nodes_ready(&kubectl).unwrap();
    (cluster, kubectl)
}

/// Pods that a node cannot run, or not entirely.
fn impossible_pods() -> String {
    let missing_image =
        pod("no-image", "serve", "").replace("image: testserver", "image: podium.invalid/none:1");
    let missing_config = pod(
        "no-config",
        "serve",
        "    env: [{name: A, valueFrom: {configMapKeyRef: {name: nowhere, key: a}}}]\n",
    );
    let missing_command = pod("no-command", "serve", "").replace("/bin/testserver", "/bin/absent");
    let too_big = pod("too-big", "serve", "    resources: {requests: {cpu: \"4000\"}}\n");
    [missing_image, missing_config, missing_command, too_big].concat()
}

fn probed_pods() -> String {
    let http = |path: &str| format!("httpGet: {{path: {path}, port: web}}, periodSeconds: 1");
    let ready = pod(
        "ready",
        "serve, --drain-ms, \"0\"",
        &format!(
            "    ports: [{{name: web, containerPort: 80}}]\n    readinessProbe: {{{}}}\n    \
             livenessProbe: {{tcpSocket: {{port: 80}}, periodSeconds: 1}}\n    startupProbe: \
             {{exec: {{command: [/bin/testserver, exit, \"0\"]}}, periodSeconds: 1}}\n",
            http("/healthz")
        ),
    );
    let probes = [
        ("unready", "readinessProbe: {tcpSocket: {port: 81}, periodSeconds: 1}"),
        (
            "dead-exec",
            "livenessProbe: {exec: {command: [/bin/testserver, exit, \"3\"]}, periodSeconds: 1, failureThreshold: 1}",
        ),
        (
            "dead-tcp",
            "livenessProbe: {tcpSocket: {port: 81}, periodSeconds: 1, failureThreshold: 1}",
        ),
        (
            "dead-http",
            "livenessProbe: {httpGet: {path: /, port: 81}, periodSeconds: 1, failureThreshold: 1}",
        ),
    ];
    let others = probes
        .iter()
        .map(|(name, probe)| pod(name, "serve, --drain-ms, \"0\"", &format!("    {probe}\n")));
    std::iter::once(ready).chain(others).collect()
}

#[test]
fn what_is_wrong_with_one_pod_leaves_the_others_alone() {
    let (cluster, kubectl) = cluster("pods-wrong");
    kubectl.apply(&[impossible_pods(), probed_pods(), pod("fails", "fail", "")].concat()).unwrap();

    wait_pod(&kubectl, "ready", "ready", |pod| is_condition_true(pod, "Ready"));
    for (name, reasons, words) in [
        ("no-image", &["ImagePullBackOff", "ErrImagePull"][..], "podium.invalid/none:1"),
        ("no-config", &["CreateContainerConfigError"], "nowhere"),
        ("no-command", &["CrashLoopBackOff", "RunContainerError", "StartError"], ""),
    ] {
        let found = wait_pod(&kubectl, name, "waiting", |pod| {
            let reason = main_status(pod)["state"]["waiting"]["reason"].as_str();
            reason.is_some_and(|reason| reasons.contains(&reason))
        });
        let message = main_status(&found)["state"]["waiting"]["message"].to_string();
        assert!(message.contains(words), "{name}: {message}");
    }
    let unscheduled = wait_pod(&kubectl, "too-big", "refused", |pod| {
        pod["status"]["conditions"].to_string().contains("Insufficient cpu")
    });
    assert!(unscheduled["spec"]["nodeName"].is_null());

    // Liveness restarts, and repeated failure backs off; what never gets ready is not restarted.
    for name in ["dead-exec", "dead-tcp", "dead-http"] {
        let found = wait_pod(&kubectl, name, "restarted", |pod| {
            main_status(pod)["restartCount"].as_u64() >= Some(1)
        });
        assert!(main_status(&found)["lastState"]["terminated"].is_object(), "{found}");
    }
    wait_pod(&kubectl, "fails", "backing off", |pod| {
        main_status(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert!(kubectl.run(&["logs", "fails", "--previous"]).unwrap().contains("failing as asked"));
    let unready = kubectl.json(&["get", "pod", "unready"]).unwrap();
    assert_eq!(main_status(&unready)["ready"], false);
    for name in ["unready", "ready"] {
        let found = kubectl.json(&["get", "pod", name]).unwrap();
        assert_eq!(main_status(&found)["restartCount"], 0, "{found}");
    }
    for (name, words) in [
        ("unready", "Readiness probe failed"),
        ("dead-exec", "Liveness probe failed"),
        ("dead-tcp", "Liveness probe failed"),
        ("dead-http", "Liveness probe failed"),
        ("fails", "Back-off restarting failed container"),
        ("too-big", "Insufficient cpu"),
    ] {
        let described = kubectl.run(&["describe", "pod", name]).unwrap();
        assert!(described.contains(words), "{name}: {described}");
    }
    cluster.stop().unwrap();
}

/// A namespace with what its pods refer to, and a pod that tells what it was given.
const CONFIGURED: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {color: blue, size: "7"}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: shop}
stringData: {token: s3cret}
---
apiVersion: v1
kind: Pod
metadata: {name: told, namespace: shop, labels: {app: told}, annotations: {note: hello}}
spec:
  restartPolicy: Never
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: settings, configMap: {name: settings, items: [{key: color, path: sub/color}]}}
  - {name: keys, secret: {secretName: keys}}
  - {name: about, downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}}
  initContainers:
  - name: first
    image: testserver:latest
    imagePullPolicy: IfNotPresent
    command: [/bin/testserver, tell, "env:STEP"]
    env: [{name: STEP, value: first}]
  - name: second
    image: testserver:latest
    imagePullPolicy: IfNotPresent
    command: [/bin/testserver, train]
  containers:
  - name: main
    image: testserver:latest
    imagePullPolicy: IfNotPresent
    command: [/bin/testserver]
    args: [tell, "env:COLOR", "env:P_size", "env:TOKEN", "env:NAME", "env:POD_IP", "env:NODE",
           "env:LIMIT", "env:BOTH", "file:/etc/settings/sub/color", "file:/etc/keys/token",
           "file:/etc/about/note", "file:/etc/hostname"]
    envFrom: [{prefix: P_, configMapRef: {name: settings}}]
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: BOTH, value: "$(NAME)-$(COLOR)-$$(COLOR)"}
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: settings, mountPath: /etc/settings}
    - {name: keys, mountPath: /etc/keys, readOnly: true}
    - {name: about, mountPath: /etc/about}
---
apiVersion: v1
kind: Pod
metadata: {name: serving, namespace: shop}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: testserver:latest
    imagePullPolicy: IfNotPresent
    args: [serve, --drain-ms, "500"]
    readinessProbe: {httpGet: {path: /healthz, port: 80}, periodSeconds: 1}
"#;

fn in_shop<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["-n", "shop"], args].concat()
}

#[test]
fn pods_are_given_what_they_ask_for_and_end_well() {
    let (cluster, kubectl) = cluster("pods-given");
    kubectl.apply(CONFIGURED).unwrap();
    let told = kubectl
        .wait_for("Pod told ended", LIMIT, &in_shop(&["get", "pod", "told"]), |pod| {
            pod["status"]["phase"] == "Succeeded"
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.last_words()));
    let log = kubectl.run(&in_shop(&["logs", "told", "-c", "main"])).unwrap();
    let ip = told["status"]["podIP"].as_str().unwrap();
    for line in [
        "env:COLOR=blue",
        "env:P_size=7",
        "env:TOKEN=s3cret",
        "env:NAME=told",
        &format!("env:POD_IP={ip}"),
        "env:NODE=node-1",
        "env:LIMIT=64",
        "env:BOTH=told-blue-$(COLOR)",
        "file:/etc/settings/sub/color=blue",
        "file:/etc/keys/token=s3cret",
        "file:/etc/about/note=hello",
        "file:/etc/hostname=told",
    ] {
        assert!(log.lines().any(|found| found == line), "no {line:?} in:\n{log}");
    }
    let first = kubectl.run(&in_shop(&["logs", "told", "-c", "first"])).unwrap();
    assert_eq!(first.trim(), "env:STEP=first");
    let second = kubectl.run(&in_shop(&["logs", "told", "-c", "second"])).unwrap();
    assert!(second.contains("training finished"), "{second}");
    let began = |list: &str, number: usize| {
        let state = &told["status"][list][number]["state"]["terminated"];
        (state["startedAt"].to_string(), state["finishedAt"].to_string())
    };
    assert!(began("initContainerStatuses", 0).1 <= began("initContainerStatuses", 1).0, "{told}");
    assert!(began("initContainerStatuses", 1).1 <= began("containerStatuses", 0).0, "{told}");

    // A namespace takes its pods along, and a pod may finish: its log says so up to the last line.
    kubectl
        .wait_for("Pod serving ready", LIMIT, &in_shop(&["get", "pod", "serving"]), |pod| {
            is_condition_true(pod, "Ready")
        })
        .unwrap();
    let following = kubectl.start(&in_shop(&["logs", "-f", "serving"])).unwrap();
    // It has to have begun before the pod ends.
    std::thread::sleep(Duration::from_millis(700));
    kubectl.run(&["delete", "namespace", "shop", "--timeout=90s"]).unwrap();
    let followed = following.finish().unwrap();
    assert!(followed.contains("SIGTERM: accepting"), "{followed}");
    wait_until("nothing of the namespace is left", LIMIT, || {
        let left = kubectl.run(&in_shop(&["get", "pods,configmaps,secrets", "-o", "name"]));
        match left.map_err(|error| format!("{error:#}"))? {
            left if left.trim().is_empty() => Ok(()),
            left => Err(left),
        }
    })
    .unwrap();
    cluster.stop().unwrap();
}
