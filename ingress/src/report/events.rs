//! Events: one for each finding, counted instead of repeated, and not more than an API bears.

use crate::objects::{Kind, ObjectKey};
use crate::problem::{Problem, Severity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const COMPONENT: &str = "podium-ingress";
/// Events refuse longer messages.
const MESSAGE_BYTES_MAX: usize = 1024;
/// Findings remembered to be counted when they come again.
const REMEMBERED_MAX: usize = 4096;
/// Events an object may have at once, as client-go's spam filter.
const BURST: u32 = 25;
/// How long until it may have another.
const REFILL: Duration = Duration::from_secs(300);
/// Between two writes: a cluster full of wrong objects must not drown the API.
const PACE: Duration = Duration::from_millis(20);

/// What an Event is about and says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What the object is.
    pub kind: Kind,
    /// Which one.
    pub object: ObjectKey,
    /// Its uid: another object of the same name is another object.
    pub uid: Option<String>,
    /// `Normal` or `Warning`.
    pub type_: &'static str,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Finding {
    /// What a problem says.
    pub fn of(problem: &Problem, uid: Option<String>) -> Finding {
        let mut message = if problem.field.is_empty() {
            problem.message.clone()
        } else {
            format!("{}: {}", problem.field, problem.message)
        };
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        Finding {
            kind: problem.kind,
            object: problem.object.clone(),
            uid,
            type_: "Warning",
            reason: match problem.severity {
                Severity::Error => "Rejected",
                Severity::Warning => "NotHonoured",
            },
            message,
        }
    }

    /// What ingress-nginx says of every Ingress it takes in.
    pub fn synced(object: ObjectKey, uid: Option<String>) -> Finding {
        Finding {
            kind: Kind::Ingress,
            object,
            uid,
            type_: "Normal",
            reason: "Sync",
            message: "Scheduled for sync".into(),
        }
    }

    /// Where the Event goes; cluster-wide objects have theirs in `default`.
    fn namespace(&self) -> &str {
        if self.object.namespace.is_empty() { "default" } else { &self.object.namespace }
    }

    fn event(&self, name: &str, now: Timestamp) -> Event {
        let api_version = match self.kind {
            Kind::Ingress | Kind::IngressClass => "networking.k8s.io/v1",
            Kind::EndpointSlice => "discovery.k8s.io/v1",
            Kind::Service | Kind::Secret | Kind::ConfigMap | Kind::File => "v1",
        };
        let object_namespace = Some(self.object.namespace.to_string()).filter(|n| !n.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(self.namespace().into()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(api_version.into()),
                kind: Some(self.kind.as_str().into()),
                name: Some(self.object.name.to_string()),
                namespace: object_namespace,
                uid: self.uid.clone(),
                ..ObjectReference::default()
            },
            type_: Some(self.type_.into()),
            reason: Some(self.reason.into()),
            message: Some(self.message.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some(COMPONENT.into()), host: None }),
            reporting_component: Some(COMPONENT.into()),
            ..Event::default()
        }
    }
}

/// What to write for a finding.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// A new Event of this name.
    Create(String),
    /// It is known: count it.
    Count(String, i32),
    /// There are too many of this object.
    Drop,
}

struct Allowance {
    left: u32,
    since: Instant,
}

/// What was written before.
#[derive(Default)]
struct Correlator {
    known: BTreeMap<Finding, (String, i32)>,
    oldest_first: VecDeque<Finding>,
    allowances: BTreeMap<(Kind, ObjectKey), Allowance>,
}

impl Correlator {
    fn decide(&mut self, finding: &Finding, wall: Timestamp, now: Instant) -> Decision {
        let object = (finding.kind, finding.object.clone());
        if self.allowances.len() >= REMEMBERED_MAX {
            let full = |allowance: &Allowance| now.duration_since(allowance.since) < REFILL;
            self.allowances.retain(|_, allowance| full(allowance));
        }
        let allowance =
            self.allowances.entry(object).or_insert(Allowance { left: BURST, since: now });
        let refilled = now.duration_since(allowance.since).as_secs() / REFILL.as_secs();
        if refilled > 0 {
            let more = u32::try_from(refilled).unwrap_or(BURST);
            allowance.left = allowance.left.saturating_add(more).min(BURST);
            allowance.since = now;
        }
        let Some(left) = allowance.left.checked_sub(1) else {
            return Decision::Drop;
        };
        allowance.left = left;
        if let Some((name, count)) = self.known.get_mut(finding) {
            *count += 1;
            return Decision::Count(name.clone(), *count);
        }
        // Named as client-go names Events.
        let name = format!("{}.{:x}", finding.object.name, wall.as_nanosecond());
        self.remember(finding, &name);
        Decision::Create(name)
    }

    fn remember(&mut self, finding: &Finding, name: &str) {
        if self.known.insert(finding.clone(), (name.into(), 1)).is_none() {
            self.oldest_first.push_back(finding.clone());
        }
        while self.oldest_first.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Writes Events until nobody sends findings.
pub async fn write_all(client: Client, mut findings: mpsc::Receiver<Finding>) {
    let mut correlator = Correlator::default();
    while let Some(finding) = findings.recv().await {
        let (wall, now) = (Timestamp::now(), Instant::now());
        let api: Api<Event> = Api::namespaced(client.clone(), finding.namespace());
        let written = match correlator.decide(&finding, wall, now) {
            Decision::Drop => continue,
            Decision::Create(name) => create(&api, &finding, &name, wall).await,
            Decision::Count(name, count) => {
                let change = json!({ "count": count, "lastTimestamp": Time(wall) });
                let patch = Patch::Merge(&change);
                match api.patch(&name, &PatchParams::default(), &patch).await {
                    // The API forgets Events after an hour.
                    Err(Error::Api(status)) if status.code == 404 => {
                        let name = format!("{}.{:x}", finding.object.name, wall.as_nanosecond());
                        correlator.remember(&finding, &name);
                        create(&api, &finding, &name, wall).await
                    }
                    other => other.map(drop),
                }
            }
        };
        if let Err(error) = written {
            let error: &dyn std::error::Error = &error;
            let kind = finding.kind.as_str();
            tracing::warn!(error, "writing an Event for {kind} {}", finding.object);
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn create(
    api: &Api<Event>,
    finding: &Finding,
    name: &str,
    now: Timestamp,
) -> Result<(), Error> {
    match api.create(&PostParams::default(), &finding.event(name, now)).await {
        // The namespace is gone or going: nobody is left to read it.
        Err(Error::Api(status))
            if matches!(status.code, 403 | 404) && status.reason != "Forbidden" =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(object: &str, message: &str) -> Finding {
        let key = ObjectKey::new("shop", object);
        Finding::of(&Problem::error(Kind::Ingress, &key, "", message), None)
    }

    #[test]
    fn events_name_field_and_object() {
        let key = ObjectKey::new("shop", "web");
        let problem = Problem::error(Kind::Ingress, &key, "spec.rules[0].host", "é".repeat(900));
        let event = Finding::of(&problem, None).event("web.1", Timestamp::UNIX_EPOCH);
        let message = event.message.unwrap();
        assert!(message.starts_with("spec.rules[0].host: é") && message.len() <= MESSAGE_BYTES_MAX);
        assert_eq!(event.involved_object.name.as_deref(), Some("web"));
        let class = Problem::warning(Kind::IngressClass, &ObjectKey::new("", "nginx"), "", "x");
        let event = Finding::of(&class, None).event("nginx.1", Timestamp::UNIX_EPOCH);
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.involved_object.namespace, None);
    }

    #[test]
    fn what_comes_again_is_counted_and_too_much_is_dropped() {
        let (start, wall) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut correlator = Correlator::default();
        let name = |object: &str| format!("{object}.0");
        let web = finding("web", "one");
        assert_eq!(correlator.decide(&web, wall, start), Decision::Create(name("web")));
        assert_eq!(correlator.decide(&web, wall, start), Decision::Count(name("web"), 2));
        let other = finding("web", "two");
        assert_eq!(correlator.decide(&other, wall, start), Decision::Create(name("web")));
        for _ in 3..BURST {
            assert_ne!(correlator.decide(&web, wall, start), Decision::Drop);
        }
        assert_eq!(correlator.decide(&web, wall, start), Decision::Drop);
        let api = finding("api", "one");
        assert_eq!(correlator.decide(&api, wall, start), Decision::Create(name("api")));
        let later = start + REFILL;
        assert!(matches!(correlator.decide(&web, wall, later), Decision::Count(..)));
        assert_eq!(correlator.decide(&web, wall, later), Decision::Drop);
        for number in 0..2 * REMEMBERED_MAX {
            correlator.decide(&finding(&format!("o{number}"), "x"), wall, start);
        }
        assert_eq!(correlator.known.len(), REMEMBERED_MAX);
        assert_eq!(correlator.oldest_first.len(), REMEMBERED_MAX);
    }
}
