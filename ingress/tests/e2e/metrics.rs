//! Metrics: the names and labels of ingress-nginx, series that follow their routes, and what is not
//! honoured by its name.

use crate::backend::Backend;
use crate::harness::{Ingress, ingress, service, wait_until};
use crate::tls::{certificate, secret, secured};

const RULE: [(&str, &str, &str, &str); 1] = [("a.example", "/app", "Prefix", "web")];

/// The value of the one series with all of these labels.
fn value(podium: &Ingress, name: &str, labels: &[&str]) -> Option<f64> {
    let metrics = podium.metrics();
    let mut lines = metrics.lines().filter(|line| {
        line.split(['{', ' ']).next() == Some(name)
            && labels.iter().all(|label| line.contains(label))
    });
    let line = lines.next()?;
    assert!(lines.next().is_none(), "more than one {name} with {labels:?}");
    line.rsplit(' ').next()?.parse().ok()
}

fn requests(podium: &Ingress, labels: &[&str]) -> Option<f64> {
    value(podium, "nginx_ingress_controller_requests", labels)
}

#[test]
fn requests_are_counted_under_the_labels_of_ingress_nginx() {
    let web = Backend::start("web");
    let manifests = service("web", &[&web]) + &ingress("a", "", &RULE);
    let podium = Ingress::start(&[("a.yaml", &manifests)], &["--controller-class", "c"]);
    assert_eq!(podium.get("a.example", "/app/x?y=1").status, 200);
    let labels = "{canary=\"\",host=\"a.example\",ingress=\"a\",method=\"GET\",namespace=\"default\",\
                  path=\"/app\",service=\"web\",status=\"200\",controller_class=\"c\",\
                  controller_namespace=\"\",controller_pod=\"\"";
    wait_until("the request is counted", || requests(&podium, &[labels]) == Some(1.0));
    for name in [
        "request_duration_seconds",
        "response_duration_seconds",
        "request_size",
        "response_size",
        "bytes_sent",
    ] {
        let count = format!("nginx_ingress_controller_{name}_count");
        assert_eq!(value(&podium, &count, &[labels]), Some(1.0), "{name}");
        let all = format!("nginx_ingress_controller_{name}_bucket");
        assert_eq!(value(&podium, &all, &[labels, "le=\"+Inf\""]), Some(1.0), "{name}");
    }
    let process = "nginx_ingress_controller_nginx_process";
    assert!(value(&podium, &format!("{process}_requests_total"), &[]).unwrap() >= 1.0);
    let accepted = format!("{process}_connections_total");
    assert!(value(&podium, &accepted, &["state=\"accepted\""]).unwrap() >= 1.0);
    assert!(value(&podium, "nginx_ingress_controller_build_info", &["release="]).is_some());
    let reloaded = "nginx_ingress_controller_config_last_reload_successful";
    assert_eq!(value(&podium, reloaded, &[]), Some(1.0));
}

#[test]
fn series_follow_their_routes_and_clients_make_none() {
    let web = Backend::start("web");
    let rules = service("web", &[&web]) + &ingress("a", "", &RULE);
    let podium = Ingress::start(&[("a.yaml", &rules)], &[]);
    assert_eq!(podium.get("a.example", "/app").status, 200);
    for number in 0..50 {
        assert_eq!(podium.get(&format!("host-{number}.example"), "/app").status, 404);
        let request = format!(
            "BREW{number} /app/{number} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"
        );
        podium.send(&request);
    }
    let brewed = ["method=\"OTHER\""];
    wait_until("all are counted", || {
        requests(&podium, &brewed) == Some(50.0)
            && requests(&podium, &["host=\"_\"", "status=\"404\""]) == Some(50.0)
    });
    assert!(!podium.metrics().contains("BREW") && !podium.metrics().contains("host-1"));

    let annotation = r#""nginx.ingress.kubernetes.io/proxy-body-size": "2m""#;
    podium.write("a.yaml", &(service("web", &[&web]) + &ingress("a", annotation, &RULE)));
    wait_until("the change is in effect", || {
        value(&podium, "podium_ingress_translations_total", &[]).unwrap() >= 2.0
    });
    assert_eq!(podium.get("a.example", "/app").status, 200);
    let served = ["host=\"a.example\"", "method=\"GET\""];
    wait_until("the route goes on counting", || requests(&podium, &served) == Some(2.0));
    podium.write("a.yaml", "");
    wait_until("the series are gone with the route", || requests(&podium, &served).is_none());
}

#[test]
fn what_is_not_honoured_is_named() {
    let annotations = r#""nginx.ingress.kubernetes.io/server-snippet": "deny all;", "nginx.ingress.kubernetes.io/unicorns": "1""#;
    let podium = Ingress::start(&[("a.yaml", &ingress("a", annotations, &RULE))], &[]);
    let count = |name: &str| value(&podium, "podium_ingress_not_honoured", &[name]);
    assert_eq!(count("name=\"server-snippet\""), Some(1.0));
    assert_eq!(count("name=\"unknown\""), Some(1.0));
}

#[test]
fn certificates_say_when_they_expire_and_who_they_are() {
    let made = certificate(&["a.example"]);
    let manifests = secured("a.example", "one") + "---\n" + &secret("one", &made);
    let podium = Ingress::start(&[("a.yaml", &manifests)], &[]);
    let labels = ["host=\"a.example\"", "secret_name=\"one\"", "namespace=\"default\""];
    let expires = value(&podium, "nginx_ingress_controller_ssl_expire_time_seconds", &labels);
    assert!(expires.unwrap() > 1e9);
    let info = value(&podium, "nginx_ingress_controller_ssl_certificate_info", &labels);
    assert_eq!(info, Some(1.0));
}
