//! Objects from a Kubernetes API: watches, Secrets by name only, Events, status, and an API that is away.

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::harness::{Ingress, ingress, service, wait_until};
use crate::tls::{certificate, fetch, secret, secured};
use std::time::Duration;

pub fn start(cluster: &Cluster, flags: &[&str]) -> Ingress {
    start_as(cluster, flags, ("", ""))
}

/// The same as a pod, of this namespace and name.
pub fn start_as(cluster: &Cluster, flags: &[&str], pod: (&str, &str)) -> Ingress {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, cluster.kubeconfig()).unwrap();
    let source = ["--kubeconfig", path.to_str().unwrap()];
    let environment = [("POD_NAMESPACE", pod.0), ("POD_NAME", pod.1)];
    Ingress::start_in(folder, &source, flags, &environment)
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
