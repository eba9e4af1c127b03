//! Events on the objects that are wrong: one for each problem, counted when it comes again.

use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::from_api::start;
use crate::harness::{ingress, service, wait_until};
use serde_json::Value;

const EVENTS: &str = "/api/v1/namespaces/default/events";
const RULE: [(&str, &str, &str, &str); 1] = [("a.example", "/", "Prefix", "web")];
const SNIPPET: &str = r#""nginx.ingress.kubernetes.io/server-snippet": "deny all;""#;

fn about(events: &[Value], reason: &str) -> Vec<Value> {
    events.iter().filter(|event| event["reason"] == reason).cloned().collect()
}

#[test]
fn problems_become_events_on_their_objects_and_are_counted_when_they_come_again() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    let wrong = ingress("a", SNIPPET, &[("a.example", "/", "Prefix", "gone")]);
    cluster.apply(&format!("{}{wrong}", service("web", &[&web])));
    cluster.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: options}\ndata: {use-gzip: \"true\"}\n",
    );
    let podium = start(&cluster, &["--configmap", "default/options"]);
    wait_until("every problem has its Event", || {
        about(&cluster.writes_to("POST", EVENTS), "Rejected").len() >= 3
    });
    let events = about(&cluster.writes_to("POST", EVENTS), "Rejected");
    let said = |kind: &str, text: &str| {
        let own = events.iter().find(|event| {
            event["involvedObject"]["kind"] == kind
                && event["message"].as_str().unwrap().contains(text)
        });
        own.unwrap_or_else(|| panic!("{kind} {text}: {events:#?}")).clone()
    };
    said("Ingress", "Service default/gone does not exist");
    let snippet = said("Ingress", "server-snippet]: snippets are refused");
    assert_eq!(snippet["involvedObject"]["uid"], "uid-\"a\"");
    assert_eq!((&snippet["type"], &snippet["count"]), (&"Warning".into(), &1.into()));
    let option = said("ConfigMap", "data[use-gzip]");
    assert_eq!(option["involvedObject"]["uid"], "uid-\"options\"");

    // Repaired and broken again: the same Event, counted.
    cluster.apply(&ingress("a", "", &RULE));
    wait_until("the repaired Ingress is served", || podium.get("a.example", "/").status == 200);
    cluster.apply(&ingress("a", SNIPPET, &RULE));
    let name = snippet["metadata"]["name"].as_str().unwrap().to_string();
    wait_until("the Event is counted", || {
        cluster.object("/api/v1/events", &name).is_some_and(|event| event["count"] == 2)
    });
    let posted = about(&cluster.writes_to("POST", EVENTS), "Rejected");
    assert_eq!(posted.len(), 3, "{posted:#?}");
}

#[test]
fn every_ingress_taken_in_gets_a_sync_event_unless_switched_off() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    cluster.apply(&format!("{}{}", service("web", &[&web]), ingress("a", "", &RULE)));
    let podium = start(&cluster, &["--publish-status-address", "192.0.2.9"]);
    let synced = || about(&cluster.writes_to("POST", EVENTS), "Sync");
    wait_until("the Sync event is written", || synced().len() == 1);
    assert_eq!(synced()[0]["message"], "Scheduled for sync");
    assert_eq!(synced()[0]["type"], "Normal");
    wait_until("the status is written", || !cluster.writes_to("PATCH", "/a/status").is_empty());
    cluster.apply(&ingress("b", "", &[("b.example", "/", "Prefix", "web")]));
    wait_until("the other has one too", || synced().len() == 2);
    assert_eq!(synced()[1]["involvedObject"]["name"], "b", "a status is not a change");
    drop(podium);

    let cluster = Cluster::start();
    cluster.apply(&format!("{}{}", service("web", &[&web]), ingress("a", SNIPPET, &RULE)));
    let _podium = start(&cluster, &["--disable-sync-events"]);
    wait_until("the problem has its Event", || !cluster.writes_to("POST", EVENTS).is_empty());
    assert!(about(&cluster.writes_to("POST", EVENTS), "Sync").is_empty());
}
