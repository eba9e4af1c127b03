//! A whole node against a Kubernetes API in memory: a real private containerd, real containers, in a
//! network namespace of its own. Needs root, containerd, runc, the CNI plugins and a C compiler, and
//! fails where they are missing.

#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

#[path = "node/api.rs"]
mod api;
#[path = "node/image.rs"]
mod image;

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use api::Api;
use podium_agent::Config;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const NODE: &str = "agent-test";

fn pod_path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn create_pod(api: &Api, name: &str, spec: Value) {
    let mut spec = spec;
    spec["nodeName"] = json!(NODE);
    let metadata = json!({"name": name, "namespace": "default", "generation": 1});
    api.put(&pod_path(name), json!({"metadata": metadata, "spec": spec}));
}

async fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            eprintln!("{what}: after {} ms", begin.elapsed().as_millis());
            return found;
        }
        assert!(begin.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn web() -> Value {
    json!({"terminationGracePeriodSeconds": 2, "containers": [{
        "name": "web", "image": "podium.local/program:latest", "args": ["serve"],
        "readinessProbe": {"httpGet": {"port": 80}}}]})
}

fn serve_node(api: &Api, config: &Config) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let shutdown = CancellationToken::new();
    let run = podium_agent::run(api.client(), config.clone(), shutdown.clone());
    (shutdown, tokio::spawn(async move { run.await.unwrap() }))
}

#[test]
fn a_node_runs_pods() {
    // The runtime's threads are made after this, so all of them live in the new namespace.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    let dir = tempfile::Builder::new().prefix("pa-").tempdir_in("/tmp").unwrap();
    image::write_archive(dir.path());
    let mut config = Config::new(NODE, IpAddr::from([127, 0, 0, 1]));
    config.data_dir = dir.path().join("data");
    config.image_archive_dir = Some(dir.path().join("images"));
    config.cgroup_root = format!("/podium-agent-test-{}", std::process::id());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runtime.block_on(async {
        let scenario = tokio::spawn(scenario(config.clone()));
        let outcome = tokio::time::timeout(Duration::from_secs(120), scenario).await;
        podium_agent::teardown(config.clone()).await.expect("teardown");
        outcome
    });
    assert_nothing_left(dir.path(), &config);
    outcome.expect("in time").expect("scenario");
}

async fn scenario(config: Config) {
    let api = Api::new();
    let (shutdown, agent) = serve_node(&api, &config);
    let node = format!("/api/v1/nodes/{NODE}");
    let limit = Duration::from_secs(20);
    let mut object = wait_for("node registered", limit, || api.get(&node)).await;
    object["spec"]["podCIDR"] = json!("10.244.9.0/24");
    object["spec"]["podCIDRs"] = json!(["10.244.9.0/24"]);
    api.put(&node, object);
    wait_for("node ready", limit, || api.get(&node).filter(is_ready)).await;

    for index in 0..10 {
        create_pod(&api, &format!("web-{index}"), web());
    }
    wait_for("10 pods ready", limit, || {
        let pods = api.list("pods");
        (pods.len() == 10 && pods.iter().all(is_ready)).then_some(())
    })
    .await;
    one_shot_pods(&api).await;

    // An agent that is started again restarts nothing.
    shutdown.cancel();
    agent.await.unwrap();
    let before = container_ids(&api);
    let (shutdown, agent) = serve_node(&api, &config);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(container_ids(&api), before);
    assert!(api.get(&pod_path("web-0")).is_some_and(|pod| is_ready(&pod)));

    let mut pod = api.get(&pod_path("web-0")).unwrap();
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(2);
    api.put(&pod_path("web-0"), pod);
    wait_for("deleted", limit, || api.get(&pod_path("web-0")).is_none().then_some(())).await;
    shutdown.cancel();
    agent.await.unwrap();
}

/// Pods that end: success, failure with back-off, init containers, volumes, environment.
async fn one_shot_pods(api: &Api) {
    let limit = Duration::from_secs(20);
    let config_map = json!({"metadata": {"name": "cm", "namespace": "default"},
        "data": {"greeting": "hello"}});
    api.put("/api/v1/namespaces/default/configmaps/cm", config_map);
    let program = |name: &str, args: Value| json!({"name": name, "image": "podium.local/program:latest", "args": args});
    let mut main = program("main", json!(["print"]));
    main["env"] = json!([{"name": "GREETING", "valueFrom":
        {"configMapKeyRef": {"name": "cm", "key": "greeting"}}}]);
    main["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    let spec = json!({"restartPolicy": "Never", "initContainers": [program("init", json!(["true"]))],
        "containers": [main], "volumes": [{"name": "v", "configMap": {"name": "cm"}}]});
    create_pod(api, "job", spec);
    create_pod(api, "crash", json!({"containers": [program("main", json!(["fail"]))]}));
    let mut absent = program("main", json!([]));
    absent["image"] = json!("podium.local/absent:1");
    absent["imagePullPolicy"] = json!("Never");
    create_pod(api, "absent", json!({"containers": [absent]}));
    wait_for("job succeeded", limit, || {
        api.get(&pod_path("job")).filter(|pod| pod["status"]["phase"] == "Succeeded")
    })
    .await;
    let waits = |name: &str, reason: &str| {
        let state = api.get(&pod_path(name)).unwrap_or_default();
        let state = state["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
        (state == reason).then_some(())
    };
    wait_for("crash loop", limit, || waits("crash", "CrashLoopBackOff")).await;
    wait_for("no such image", limit, || waits("absent", "ErrImageNeverPull")).await;
    let crash = api.get(&pod_path("crash")).unwrap();
    let status = &crash["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 3);
    let events = api.list("events");
    for reason in ["Pulled", "Created", "Started", "BackOff", "ErrImageNeverPull"] {
        assert!(events.iter().any(|event| event["reason"] == reason), "event {reason}");
    }
}

fn container_ids(api: &Api) -> Vec<Value> {
    let webs = api
        .list("pods")
        .into_iter()
        .filter(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("web")));
    webs.map(|pod| pod["status"]["containerStatuses"][0]["containerID"].clone()).collect()
}

fn assert_nothing_left(dir: &Path, config: &Config) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*dir.to_string_lossy()), "mounts left");
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let cgroup = entry.path().join(config.cgroup_root.trim_start_matches('/'));
        assert!(!cgroup.exists(), "cgroup left: {}", cgroup.display());
    }
}
