//! kube-rs against the server: in memory and over TLS, by certificate and by token.

use std::io::Write as _;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config};
use podium_server::Identity;
use serde_json::json;

use crate::cluster::Cluster;

fn in_memory(cluster: &Cluster) -> Client {
    Client::new(cluster.server.client_service(Identity::system("test")), "default")
}

async fn over_tls(cluster: &Cluster) -> Config {
    let kubeconfig = Kubeconfig::read_from(cluster.server.admin_kubeconfig_path()).unwrap();
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.cluster_url = format!("https://{}", cluster.server.address()).parse().unwrap();
    config
}

fn configmap(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "k": "v" } })).unwrap()
}

/// Creates, changes and deletes while a reflector follows; it ends with what there is.
async fn reflected(client: Client, config: watcher::Config) {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    api.create(&PostParams::default(), &configmap("before")).await.unwrap();
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, watcher(api.clone(), config)).default_backoff();
    let follow = tokio::spawn(stream.for_each(|event| async move { drop(event.unwrap()) }));
    store.wait_until_ready().await.unwrap();
    let key = |name: &str| ObjectRef::<ConfigMap>::new(name).within("default");
    assert!(store.get(&key("before")).is_some());
    api.create(&PostParams::default(), &configmap("after")).await.unwrap();
    let patch = Patch::Merge(json!({ "data": { "k": "changed" } }));
    api.patch("after", &PatchParams::default(), &patch).await.unwrap();
    api.delete("before", &DeleteParams::default()).await.unwrap();
    let mut settled = false;
    for _ in 0..200 {
        let changed = store.get(&key("after")).and_then(|found| found.data.clone());
        let changed = changed.is_some_and(|data| data["k"] == "changed");
        settled = changed && store.get(&key("before")).is_none();
        if settled {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    follow.abort();
    assert!(settled, "the reflector never saw the changes");
    api.delete("after", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn reflectors_follow_in_memory_and_over_tls() {
    let cluster = Cluster::start().await;
    reflected(in_memory(&cluster), watcher::Config::default()).await;
    reflected(in_memory(&cluster), watcher::Config::default().streaming_lists()).await;
    let client = Client::try_from(over_tls(&cluster).await).unwrap();
    reflected(client.clone(), watcher::Config::default()).await;
    reflected(client, watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn tokens_of_the_token_file_are_known_and_others_are_not() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "secret-token,alice,u1,\"team,system:masters\"").unwrap();
    let path = file.path().to_owned();
    let cluster = Cluster::configured(move |config| config.token_file = Some(path)).await;
    let by_token = |token: &str| {
        let token = token.to_owned();
        let cluster = &cluster;
        async move {
            let mut config = over_tls(cluster).await;
            config.auth_info = kube::config::AuthInfo {
                token: Some(token.into()),
                ..kube::config::AuthInfo::default()
            };
            let api: Api<ConfigMap> = Api::namespaced(Client::try_from(config).unwrap(), "default");
            api.list(&ListParams::default()).await
        }
    };
    assert!(by_token("secret-token").await.is_ok());
    let refused = by_token("guessed").await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 401));
}
