//! Telling people: problems to the log and as Events on Ingresses, addresses into their status.
//!
//! What to write is decided here by comparing; writing happens in a task of its own, so that a slow API
//! never delays a snapshot.

use crate::objects::{Kind, ObjectKey};
use crate::problem::{Problem, Severity};
use crate::translate::{Index, Update};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Service};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

const COMPONENT: &str = "podium-ingress";
/// Writes waiting for the API; when it is away longer, the next change decides anew.
const QUEUE_MAX: usize = 1024;
/// Events refuse longer messages.
const EVENT_MESSAGE_BYTES_MAX: usize = 1024;

/// One write to the API.
#[derive(Debug)]
enum Write {
    Event(Box<Event>),
    Status(ObjectKey, Value),
}

/// Remembers what was told already.
pub struct Reporter {
    statuses: BTreeMap<ObjectKey, Value>,
    /// The value of the last call.
    wanted: Value,
    addresses: Vec<String>,
    writes: Option<mpsc::Sender<Write>>,
}

impl Reporter {
    /// A reporter that writes to a cluster, if there is one, besides the log.
    pub fn new(client: Option<Client>, addresses: Vec<String>) -> Reporter {
        let writes = client.map(|client| {
            let (writes, queue) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(write_all(client, queue));
            writes
        });
        Reporter { statuses: BTreeMap::new(), wanted: Value::Null, addresses, writes }
    }

    /// Reports what an update changed. `published` is the Service whose addresses go into statuses.
    pub fn report(&mut self, index: &Index, update: &Update, published: Option<&Service>) {
        let ingresses = &index.world().ingresses;
        for problem in &update.problems.new {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
            let ingress = ingresses.get(&problem.object).filter(|_| problem.kind == Kind::Ingress);
            if let Some(ingress) = ingress {
                self.send(Write::Event(Box::new(event(ingress, problem, Timestamp::now()))));
            }
        }
        for problem in &update.problems.gone {
            tracing::info!("no longer: {problem}");
        }
        self.report_statuses(index, update, published);
    }

    /// Writes addresses into the status of Ingresses: of all of ours where the addresses are new, else of
    /// those that are.
    fn report_statuses(&mut self, index: &Index, update: &Update, published: Option<&Service>) {
        let wanted = load_balancer(&self.addresses, published);
        if self.writes.is_none() || wanted.as_array().is_none_or(Vec::is_empty) {
            return;
        }
        let all = self.wanted != wanted;
        let touched: Vec<Arc<Ingress>> = match all {
            true => index.selected().cloned().collect(),
            false => {
                update.ingresses.iter().filter_map(|key| index.ingress(key).cloned()).collect()
            }
        };
        self.wanted = wanted;
        for key in &update.ingresses {
            if index.ingress(key).is_none() {
                self.statuses.remove(key);
            }
        }
        for ingress in touched {
            let key = ObjectKey::of(&ingress.metadata);
            let status = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let present =
                serde_json::to_value(status.and_then(|balancer| balancer.ingress.as_ref()));
            let sent = self.statuses.get(&key);
            if present.ok().as_ref() == Some(&self.wanted) {
                self.statuses.remove(&key);
            } else if sent != Some(&self.wanted)
                && self.send(Write::Status(key.clone(), self.wanted.clone()))
            {
                self.statuses.insert(key, self.wanted.clone());
            }
        }
    }

    fn send(&self, write: Write) -> bool {
        self.writes.as_ref().is_some_and(|writes| writes.try_send(write).is_ok())
    }
}

/// The value of `status.loadBalancer.ingress`: given addresses, else those of the published Service.
fn load_balancer(addresses: &[String], published: Option<&Service>) -> Value {
    if addresses.is_empty() {
        return published.map_or(json!([]), service_addresses);
    }
    addresses.iter().map(|address| address_value(address)).collect()
}

fn address_value(address: &str) -> Value {
    match address.parse::<IpAddr>() {
        Ok(ip) => json!({ "ip": ip }),
        Err(_) => json!({ "hostname": address }),
    }
}

fn service_addresses(service: &Service) -> Value {
    let Some(spec) = &service.spec else {
        return json!([]);
    };
    let external = spec.external_ips.iter().flatten().map(|address| address_value(address));
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let assigned =
        balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten()).filter_map(
            |ingress| ingress.ip.as_deref().or(ingress.hostname.as_deref()).map(address_value),
        );
    let all: Vec<Value> = assigned.chain(external).collect();
    match (all.is_empty(), spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (true, Some("LoadBalancer"), _) | (true, _, None | Some("None" | "")) => json!([]),
        (true, _, Some(cluster_ip)) => json!([{ "ip": cluster_ip }]),
        (false, ..) => Value::Array(all),
    }
}

fn event(ingress: &Ingress, problem: &Problem, now: Timestamp) -> Event {
    let namespace = Some(problem.object.namespace.clone());
    let mut message = if problem.field.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.field, problem.message)
    };
    message.truncate(message.floor_char_boundary(EVENT_MESSAGE_BYTES_MAX));
    let reason = match problem.severity {
        Severity::Error => "Rejected",
        Severity::Warning => "NotHonoured",
    };
    Event {
        metadata: ObjectMeta {
            // Named as client-go names Events; a dot may not end a generateName.
            name: Some(format!("{}.{:x}", problem.object.name, now.as_nanosecond())),
            namespace: namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("networking.k8s.io/v1".into()),
            kind: Some("Ingress".into()),
            name: Some(problem.object.name.clone()),
            namespace,
            uid: ingress.metadata.uid.clone(),
            resource_version: ingress.metadata.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some(reason.into()),
        message: Some(message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: None }),
        reporting_component: Some(COMPONENT.into()),
        ..Event::default()
    }
}

async fn write_all(client: Client, mut queue: mpsc::Receiver<Write>) {
    while let Some(write) = queue.recv().await {
        let (what, result) = match write {
            Write::Event(event) => {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let name = event.involved_object.name.clone().unwrap_or_default();
                let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
                let result = events.create(&PostParams::default(), &event).await.map(drop);
                (format!("creating an Event for Ingress {namespace}/{name}"), result)
            }
            Write::Status(key, addresses) => {
                let ingresses: Api<Ingress> = Api::namespaced(client.clone(), &key.namespace);
                let status = json!({ "status": { "loadBalancer": { "ingress": addresses } } });
                let (how, patch) = (PatchParams::default(), Patch::Merge(&status));
                let result = ingresses.patch_status(&key.name, &how, &patch).await.map(drop);
                (format!("writing the status of Ingress {key}"), result)
            }
        };
        match result {
            Ok(()) => {}
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!("{what}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value, status: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "front"}, "spec": spec, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn addresses_follow_the_type_of_the_published_service() {
        let assigned =
            json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}});
        for (spec, status, expected) in [
            (
                json!({"type": "LoadBalancer"}),
                assigned,
                json!([{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]),
            ),
            (json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9"}), json!({}), json!([])),
            (
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.9"}),
                json!({}),
                json!([{"ip": "10.96.0.9"}]),
            ),
            (
                json!({"type": "NodePort", "clusterIP": "10.96.0.9", "externalIPs": ["203.0.113.5"]}),
                json!({}),
                json!([{"ip": "203.0.113.5"}]),
            ),
            (json!({"clusterIP": "None"}), json!({}), json!([])),
        ] {
            assert_eq!(
                load_balancer(&[], Some(&service(spec.clone(), status))),
                expected,
                "{spec}"
            );
        }
        let given = ["2001:db8::1".to_string(), "front.example".to_string()];
        assert_eq!(
            load_balancer(&given, None),
            json!([{"ip": "2001:db8::1"}, {"hostname": "front.example"}])
        );
    }

    #[test]
    fn events_name_field_and_object() {
        let problem = Problem::error(
            Kind::Ingress,
            &ObjectKey::new("shop", "web"),
            "spec.rules[0].host",
            "é".repeat(900),
        );
        let event = event(&Ingress::default(), &problem, Timestamp::UNIX_EPOCH);
        let message = event.message.unwrap();
        assert!(
            message.starts_with("spec.rules[0].host: é")
                && message.len() <= EVENT_MESSAGE_BYTES_MAX
        );
        assert_eq!(event.involved_object.name.as_deref(), Some("web"));
    }
}
