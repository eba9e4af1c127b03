//! The ConfigMap of options: from files and from an API by its name, over flags, and while running.

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::harness::{Ingress, ingress, service, wait_until};
use std::fmt::Write as _;

fn options(data: &[(&str, &str)]) -> String {
    let mut text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: options}\ndata:\n".to_string();
    for (name, value) in data {
        writeln!(text, "  {name}: {value:?}").unwrap();
    }
    text
}

const FLAG: [&str; 2] = ["--configmap", "default/options"];

#[test]
fn options_are_defaults_of_annotations_and_change_while_running() {
    let web = Backend::start("web");
    let rules = [("a.example", "/", "Prefix", "web")];
    let annotated = r#""nginx.ingress.kubernetes.io/proxy-body-size": "20""#;
    let manifests = format!(
        "{}{}{}",
        service("web", &[&web]),
        ingress("plain", "", &rules),
        ingress("own", annotated, &[("b.example", "/", "Prefix", "web")])
    );
    let podium = Ingress::start(
        &[("all.yaml", &manifests), ("options.yaml", &options(&[("proxy-body-size", "4")]))],
        &["--configmap", "default/options", "--proxy-body-size", "30"],
    );
    let post = |host: &str| {
        let body = "0123456789";
        podium
            .send(&format!(
                "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\nConnection: close\r\n\r\n{body}"
            ))
            .status
    };
    assert_eq!((post("a.example"), post("b.example")), (413, 200), "the annotation wins");
    podium.write("options.yaml", &options(&[("proxy-body-size", "nonsense")]));
    wait_until("the flag is the default again", || post("a.example") == 200);
    assert!(podium.metrics().contains("podium_ingress_problems{kind=\"ConfigMap\""));
    podium.write("options.yaml", &options(&[("proxy-body-size", "9")]));
    wait_until("the new option is in effect", || post("a.example") == 413);
}

#[test]
fn the_config_map_is_read_from_the_api_by_its_name() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    cluster.apply(&service("web", &[&web]));
    cluster.apply(&ingress("web", "", &[("a.example", "/", "Prefix", "web")]));
    cluster.apply(&options(&[("denylist-source-range", "127.0.0.0/8")]));
    let podium = crate::from_api::start(&cluster, &FLAG);
    assert_eq!(podium.get("a.example", "/").status, 403, "in effect from the first moment on");
    cluster.apply(&options(&[]));
    wait_until("the option is gone", || podium.get("a.example", "/").status == 200);
    let reads = cluster.reads();
    let mut lists = reads.iter().filter(|read| read.contains("/configmaps")).peekable();
    assert!(lists.peek().is_some());
    assert!(lists.all(|read| read.contains("/namespaces/default/configmaps?")
        && read.contains("fieldSelector=metadata.name%3Doptions")));
}

#[test]
fn a_guard_that_never_was_right_closes_all_locations() {
    let web = Backend::start("web");
    let manifests = service("web", &[&web])
        + &ingress("web", "", &[("a.example", "/", "Prefix", "web")])
        + "---\n"
        + &options(&[("whitelist-source-range", "127.0.0.1/99")]);
    let podium = Ingress::start(&[("all.yaml", &manifests)], &FLAG);
    assert_eq!(podium.get("a.example", "/").status, 503);
}
