//! ServiceAccount admission: every Pod acts as an account, and its containers find a token for the
//! API, the API's CA and their namespace where in-cluster clients look for them.

use podium_api::object;
use rand::Rng;
use serde_json::{Value, json};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";

/// Upstream's lifetime: an hour, and some seconds by which its tokens are told from others.
const TOKEN_SECONDS: i64 = 3607;

/// The name of the account the Pod asks for.
pub(crate) fn name(pod: &Value) -> &str {
    let name = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str);
    name.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// Writes the account's name, and mounts its token unless the Pod or the account declines. `account`
/// is `None` while the account does not exist: the Pod then runs without a token, rather than not
/// at all, as the first Pods of a new namespace would.
pub(crate) fn admit(pod: &mut Value, account: Option<&Value>, random: &mut impl Rng) {
    let account_name = name(pod).to_owned();
    let spec = object::child_mut(pod, "spec");
    spec.insert("serviceAccount".to_owned(), json!(account_name));
    spec.insert("serviceAccountName".to_owned(), json!(account_name));
    let wish = |value: Option<&Value>| value.and_then(Value::as_bool);
    let own = wish(spec.get("automountServiceAccountToken"));
    let accounts = account.and_then(|account| wish(account.get("automountServiceAccountToken")));
    if account.is_some() && own.or(accounts).unwrap_or(true) {
        mount_token(pod, random);
    }
}

fn mount_token(pod: &mut Value, random: &mut impl Rng) {
    let spec = object::child_mut(pod, "spec");
    let present = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let names = present.filter_map(|volume| volume["name"].as_str());
    let known = names.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let volume = known.clone().unwrap_or_else(|| object::generated_name(VOLUME_PREFIX, random));
    let mut is_used = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                continue;
            }
            is_used = true;
            mounts.push(json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
        }
    }
    if is_used && known.is_none() {
        let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&volume));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                } },
                { "downwardAPI": { "items": [{
                    "path": "namespace",
                    "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
                }] } },
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn admitted(mut pod: Value, account: Option<Value>) -> Value {
        admit(&mut pod, account.as_ref(), &mut StdRng::seed_from_u64(1));
        pod
    }

    #[test]
    fn every_container_finds_its_token() {
        let own = json!([{ "name": "mine", "mountPath": MOUNT_PATH }]);
        let pod = json!({ "spec": {
            "containers": [{ "name": "a" }, { "name": "b", "volumeMounts": own }],
            "initContainers": [{ "name": "i" }],
        } });
        let pod = admitted(pod, Some(json!({})));
        let spec = &pod["spec"];
        assert_eq!(spec["serviceAccountName"], "default");
        let volume = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with(VOLUME_PREFIX), "{volume}");
        for container in [&spec["containers"][0], &spec["initContainers"][0]] {
            assert_eq!(container["volumeMounts"][0]["name"], volume);
        }
        assert_eq!(spec["containers"][1]["volumeMounts"], own, "its own mount stays");
        let again = admitted(pod.clone(), Some(json!({})));
        assert_eq!(again, pod, "a Pod admitted before is not changed");
    }

    #[test]
    fn pods_and_accounts_can_decline() {
        let pod = |wish: Value| json!({ "spec": { "containers": [{ "name": "a" }], "automountServiceAccountToken": wish } });
        let declines = || json!({ "automountServiceAccountToken": false });
        let has_token = |pod: Value| pod["spec"].get("volumes").is_some();
        assert!(!has_token(admitted(pod(json!(false)), Some(json!({})))));
        assert!(!has_token(admitted(pod(Value::Null), Some(declines()))));
        assert!(has_token(admitted(pod(json!(true)), Some(declines()))), "the Pod's word counts");
        assert!(!has_token(admitted(pod(json!(true)), None)), "there is no account");
    }
}
