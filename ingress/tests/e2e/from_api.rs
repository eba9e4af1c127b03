//! Objects from a Kubernetes API: watches, Secrets by name only, Events, status, and an API that is away.

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::harness::{Ingress, ingress, service, wait_until};
use crate::tls::{certificate, fetch, secret, secured};
use serde_json::json;
use std::time::Duration;

pub fn start(cluster: &Cluster, flags: &[&str]) -> Ingress {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, cluster.kubeconfig()).unwrap();
    Ingress::start_from(folder, &["--kubeconfig", path.to_str().unwrap()], flags)
}

#[test]
fn changes_arrive_and_survive_an_api_that_is_away() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let mut cluster = Cluster::start();
    cluster.apply(&format!(
        "{}{}",
        service("web", &[&one]),
        ingress("a", "", &[("a.example", "/", "Prefix", "web")])
    ));
    let podium = start(&cluster, &[]);
    assert_eq!(podium.get("a.example", "/").seen("backend"), "one");

    let later = ingress("b", "", &[("b.example", "/", "Prefix", "web")]);
    cluster.apply(&later);
    wait_until("the new Ingress is served", || podium.get("b.example", "/").status == 200);
    cluster.delete(&later);
    wait_until("the deleted Ingress is gone", || podium.get("b.example", "/").status == 404);

    cluster.restart(Duration::from_millis(300), |cluster| {
        assert_eq!(podium.get("a.example", "/").status, 200, "what was known stays in effect");
        cluster.delete(service("web", &[&one]).split("---\n").nth(1).unwrap());
        cluster.apply(&service("web", &[&two]));
    });
    wait_until("the endpoint of the new list serves", || {
        (0..4).all(|_| podium.get("a.example", "/").seen("backend") == "two")
    });
}

/// Kubernetes before 1.19 knows only the old forms.
#[test]
fn an_old_api_server_is_asked_for_the_old_forms() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    cluster.lacks("/apis/networking.k8s.io/v1/ingresses");
    cluster.apply(&service("web", &[&web]));
    cluster.apply(
        "apiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: old}\nspec: {rules: [{host: \
         a.example, http: {paths: [{path: /app, backend: {serviceName: web, servicePort: 80}}]}}]}\n",
    );
    let podium = start(&cluster, &[]);
    assert_eq!(podium.get("a.example", "/app").seen("backend"), "web");
}

#[test]
fn secrets_are_read_by_name_only() {
    let web = Backend::start("web");
    let (first, renewed) = (certificate(&["a.example"]), certificate(&["a.example"]));
    let cluster = Cluster::start();
    cluster.apply(&format!(
        "{}{}---\n{}",
        service("web", &[&web]),
        secured("a.example", "one"),
        secret("one", &first)
    ));
    let podium = start(&cluster, &[]);
    assert!(fetch(&podium, "a.example", &first, &[]).1, "served from the first moment on");
    cluster.apply(&secret("one", &renewed));
    wait_until("the renewed certificate is served", || {
        fetch(&podium, "a.example", &renewed, &[]).1
    });
    for read in cluster.reads().iter().filter(|read| read.contains("/secrets")) {
        assert!(
            read.contains("/namespaces/default/secrets?")
                && read.contains("fieldSelector=metadata.name%3Done"),
            "{read}"
        );
    }
}

#[test]
fn problems_become_events_and_addresses_become_status() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    let rules = ingress(
        "a",
        r#""nginx.ingress.kubernetes.io/server-snippet": "deny all;""#,
        &[("a.example", "/", "Prefix", "gone")],
    );
    cluster.apply(&format!("{}{rules}", service("web", &[&web])));
    let podium = start(&cluster, &["--publish-status-address", "192.0.2.9"]);
    wait_until("two Events and a status are written", || cluster.writes().len() >= 3);
    let writes = cluster.writes();
    let events: Vec<_> = writes
        .iter()
        .filter(|(_, path, _)| path.starts_with("/api/v1/namespaces/default/events"))
        .collect();
    let messages: Vec<&str> =
        events.iter().map(|(_, _, event)| event["message"].as_str().unwrap()).collect();
    assert!(
        messages.iter().any(|m| m.contains("Service default/gone does not exist")),
        "{messages:?}"
    );
    assert!(messages.iter().any(|m| m.contains("server-snippet]: snippets are refused")), "{messages:?}");
    assert_eq!(events[0].2["involvedObject"]["kind"], "Ingress");
    assert_eq!(events[0].2["involvedObject"]["uid"], "uid-\"a\"");
    let (method, _, status) =
        writes.iter().find(|(_, path, _)| path.contains("/ingresses/a/status")).unwrap();
    assert_eq!(method, "PATCH");
    assert_eq!(status["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.9"}]));

    // Written already: nothing is written again.
    let written = ingress("a", "", &[("a.example", "/", "Prefix", "web")]);
    cluster
        .apply(&format!("{written}status: {{loadBalancer: {{ingress: [{{ip: 192.0.2.9}}]}}}}\n"));
    wait_until("the repaired Ingress is served", || podium.get("a.example", "/").status == 200);
    assert_eq!(cluster.writes().len(), 3);
}
