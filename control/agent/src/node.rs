//! The Node object of this agent: registration, status, and the Lease that says it is alive.
//! Pod CIDRs are given by the controllers; see [`crate::network`].

use std::time::Duration;

use jiff::Timestamp;
use k8s_cri::v1::RuntimeCondition;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::cri::Runtime;
use crate::error::{Error, is_conflict, is_not_found};
use crate::machine::Machine;

/// How often the status is compared with what was last written.
const STATUS_PERIOD: Duration = Duration::from_secs(10);
/// How often it is compared until the node is ready for the first time.
const UNREADY_PERIOD: Duration = Duration::from_millis(200);
/// How often an unchanged status is written again, as upstream does.
const STATUS_REPEAT: Duration = Duration::from_secs(300);
const LEASE_PERIOD: Duration = Duration::from_secs(10);
const LEASE_DURATION_S: i32 = 40;
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Creates the Node, or completes the labels of the one that is there.
pub(crate) async fn register(
    client: &kube::Client,
    config: &Config,
    machine: &Machine,
) -> Result<Node, Error> {
    let api: Api<Node> = Api::all(client.clone());
    let failed = |operation| {
        move |source| Error::api(operation, format!("Node {}", config.node_name), source)
    };
    let labels = labels(config, machine);
    let annotations = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
    let node = Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: serde_json::from_value(labels.clone()).ok(),
            annotations: serde_json::from_value(annotations).ok(),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            ..NodeSpec::default()
        }),
        status: None,
    };
    match api.create(&PostParams::default(), &node).await {
        Ok(node) => Ok(node),
        Err(error) if is_conflict(&error) => {
            let patch = json!({"metadata": {"labels": labels}});
            api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(failed("update"))
        }
        Err(error) => Err(failed("create")(error)),
    }
}

fn labels(config: &Config, machine: &Machine) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": config.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
    });
    for (key, value) in &config.labels {
        labels[key] = json!(value);
    }
    labels
}

/// Whether the node can take pods, and the reason and message of its Ready condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    ready: bool,
    message: String,
}

impl Readiness {
    /// From the runtime's own conditions, or from why it does not answer.
    pub(crate) fn of_runtime(conditions: Result<Vec<RuntimeCondition>, Error>) -> Self {
        let conditions = match conditions {
            Ok(conditions) => conditions,
            Err(error) => {
                let message = format!("container runtime is down: {error}");
                return Self { ready: false, message };
            }
        };
        let unmet: Vec<String> = conditions
            .iter()
            .filter(|condition| !condition.status)
            .map(|condition| {
                let what = match condition.r#type.as_str() {
                    "NetworkReady" => "container runtime network",
                    _ => "container runtime",
                };
                format!(
                    "{what} not ready: {}=false reason:{} message:{}",
                    condition.r#type, condition.reason, condition.message
                )
            })
            .collect();
        if unmet.is_empty() {
            return Self {
                ready: true,
                message: "podium agent is posting ready status".to_owned(),
            };
        }
        Self { ready: false, message: unmet.join(", ") }
    }
}

/// The status to write. Conditions keep their transition times while they do not change.
pub(crate) fn status(
    config: &Config,
    machine: &Machine,
    images: &[Value],
    readiness: &Readiness,
    before: Option<&Value>,
    now: Timestamp,
) -> Value {
    let mut addresses: Vec<Value> =
        config.node_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": config.node_name}));
    let capacity = json!({
        "cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", machine.storage_bytes / 1024),
        "pods": config.max_pods.to_string(),
    });
    let healthy = |kind: &str, reason: &str, message: &str| {
        condition(before, now, kind, "False", reason, message)
    };
    let ready = if readiness.ready {
        condition(before, now, "Ready", "True", "KubeletReady", &readiness.message)
    } else {
        condition(before, now, "Ready", "False", "KubeletNotReady", &readiness.message)
    };
    json!({
        "addresses": addresses,
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            healthy("MemoryPressure", "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available"),
            healthy("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            healthy("PIDPressure", "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available"),
            ready,
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "nodeInfo": machine.node_info(),
        "images": images,
    })
}

fn condition(
    before: Option<&Value>,
    now: Timestamp,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> Value {
    let now = json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    let old = before
        .and_then(|status| status.get("conditions"))
        .and_then(Value::as_array)
        .and_then(|list| list.iter().find(|condition| condition["type"] == kind));
    let since = old
        .filter(|old| old["status"] == status)
        .map_or_else(|| now.clone(), |old| old["lastTransitionTime"].clone());
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": since,
    })
}

/// What of a status makes it worth writing: all but the heartbeats.
fn essence(status: &Value) -> Value {
    let mut status = status.clone();
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            condition.remove("lastHeartbeatTime");
        }
    }
    status
}

fn ready_of(status: &Value) -> Option<&Value> {
    let mut conditions = status.get("conditions")?.as_array()?.iter();
    conditions.find(|condition| condition["type"] == "Ready")?.get("status")
}

/// Keeps the Node's status true until shutdown.
pub(crate) async fn keep_status(
    client: kube::Client,
    config: Config,
    machine: Machine,
    runtime: Runtime,
    shutdown: CancellationToken,
) {
    let api: Api<Node> = Api::all(client.clone());
    let mut written: Option<(Value, Timestamp)> = None;
    loop {
        let readiness = Readiness::of_runtime(runtime.conditions().await);
        // Read anew each time: the controllers turn Ready to Unknown when leases were late.
        let live = match api.get_opt(&config.node_name).await {
            Ok(node) => node.and_then(|node| serde_json::to_value(node.status).ok()),
            Err(_) => written.as_ref().map(|(status, _)| status.clone()),
        };
        let images = images(&runtime).await;
        let now = Timestamp::now();
        let status = status(&config, &machine, &images, &readiness, live.as_ref(), now);
        let due = written.as_ref().is_none_or(|(last, at)| {
            essence(last) != essence(&status)
                || live.as_ref().is_none_or(|live| ready_of(live) != ready_of(&status))
                || now.duration_since(*at).unsigned_abs() >= STATUS_REPEAT
        });
        if due {
            match write_status(&client, &config, &machine, &status).await {
                Ok(()) => written = Some((status, now)),
                Err(error) => tracing::warn!(%error, "node status not written"),
            }
        }
        let pause = if readiness.ready { STATUS_PERIOD } else { UNREADY_PERIOD };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn write_status(
    client: &kube::Client,
    config: &Config,
    machine: &Machine,
    status: &Value,
) -> Result<(), Error> {
    let api: Api<Node> = Api::all(client.clone());
    // Strategic: conditions merge by type, so that those of others (NetworkUnavailable) stay.
    let patch = Patch::Strategic(json!({"status": status}));
    match api.patch_status(&config.node_name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => {
            register(client, config, machine).await?;
            Ok(())
        }
        Err(error) => {
            Err(Error::api("update status of", format!("Node {}", config.node_name), error))
        }
    }
}

/// The largest images of the node, as the scheduler may want to know.
async fn images(runtime: &Runtime) -> Vec<Value> {
    const REPORTED_MAX: usize = 50;
    let mut images = runtime.list_images().await.unwrap_or_default();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    images
        .iter()
        .take(REPORTED_MAX)
        .map(|image| {
            let names: Vec<&String> =
                image.repo_digests.iter().chain(&image.repo_tags).take(5).collect();
            json!({"names": names, "sizeBytes": image.size})
        })
        .collect()
}

/// Renews the node's Lease until shutdown.
pub(crate) async fn keep_lease(client: kube::Client, node: Node, shutdown: CancellationToken) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let api: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
    loop {
        if let Err(error) = renew_lease(&api, &name, &node).await {
            tracing::warn!(lease = name, %error, "lease not renewed");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(LEASE_PERIOD)).await.is_none() {
            return;
        }
    }
}

async fn renew_lease(api: &Api<Lease>, name: &str, node: &Node) -> Result<(), kube::Error> {
    let renew_time = MicroTime(Timestamp::now());
    let spec = json!({"spec": {
        "holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": renew_time,
    }});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(spec)).await {
        Ok(_) => return Ok(()),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(error),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.to_owned(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LEASE_DURATION_S),
            renew_time: Some(renew_time),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(|_| ())
}
