//! `podium-ingress check`: what becomes of Ingresses written for ingress-nginx, before anybody switches.
//!
//! Objects are translated as they would be for serving; the report is made of what that finds and of what
//! the tables of annotations and options say. Where objects come from is in `read`, how a report looks in
//! `text`.

mod differences;
pub mod read;
mod text;

use crate::annotations::{self, Support};
use crate::certificates::{Certificate, CertificateError};
use crate::class::{CLASS_ANNOTATION, ClassSelection};
pub use crate::objects::Object;
use crate::objects::ingress::Ingress;
use crate::objects::{Kind, ObjectKey, World};
use crate::options::config_map::ConfigMapOptions;
use crate::options::table;
use crate::problem::{Problem, Severity};
use crate::source::Change;
use crate::translate::{Index, Policy};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What to check, and as what.
pub struct Input {
    /// All objects there are.
    pub objects: Vec<Object>,
    /// Which Ingresses are taken.
    pub classes: ClassSelection,
    /// The ConfigMap of options.
    pub config_map: Option<ObjectKey>,
    /// The objects are those of a whole cluster: what is not among them does not exist.
    pub complete: bool,
}

/// How well something does here what it did with ingress-nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does the same.
    Works,
    /// It does nothing, and nothing is lost.
    Harmless,
    /// It does the same, but for what the detail says.
    Differs,
    /// It does not take effect; the detail says what to use instead.
    Refused,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How well it does.
    pub state: State,
    /// The annotation, option or field.
    pub about: String,
    /// What differs or what to use instead; empty if it simply works.
    pub detail: String,
}

/// One Ingress.
#[derive(Clone, Debug, Serialize)]
pub struct IngressReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The class it names.
    pub class: Option<String>,
    /// The controller takes it.
    pub selected: bool,
    /// The worst of its findings.
    pub state: State,
    /// Its locations answer 503: a guard of it does not work.
    pub closed: bool,
    /// All there is to say.
    pub findings: Vec<Finding>,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// By namespace and name.
    pub ingresses: Vec<IngressReport>,
    /// Of the ConfigMap.
    pub options: Vec<Finding>,
    /// Of other objects.
    pub others: Vec<Finding>,
}

impl Report {
    /// Whether nothing is refused.
    pub fn is_fine(&self) -> bool {
        let refused = |findings: &[Finding]| findings.iter().any(|f| f.state == State::Refused);
        !self.ingresses.iter().any(|ingress| refused(&ingress.findings))
            && !refused(&self.options)
            && !refused(&self.others)
    }

    /// For people.
    pub fn text(&self) -> String {
        text::render(self)
    }
}

/// Objects being checked.
pub struct Check {
    objects: Vec<Object>,
    index: Index,
    options: Option<ConfigMapOptions>,
    classes: ClassSelection,
    complete: bool,
}

impl Check {
    /// Takes objects in.
    pub fn new(input: Input) -> Result<Check, CertificateError> {
        let mut policy = Policy::new(Arc::new(Certificate::fake()?));
        policy.classes = input.classes.clone();
        policy.named_config_maps = input.config_map.iter().cloned().collect();
        let options = input.config_map.map(|key| ConfigMapOptions::new(key, &policy));
        let mut check = Check {
            objects: Vec::new(),
            index: Index::new(policy),
            options,
            classes: input.classes,
            complete: input.complete,
        };
        let has_classes = input.objects.iter().any(|o| matches!(o, Object::IngressClass(_)));
        if !input.complete && !has_classes {
            check.objects =
                check.classes.names.iter().filter_map(|name| class(name, &check.classes)).collect();
        }
        check.add(input.objects);
        Ok(check)
    }

    /// Takes more objects in.
    pub fn add(&mut self, objects: Vec<Object>) {
        self.objects.extend(objects);
        self.index.apply([Change::Everything(self.objects.clone(), Vec::new())]);
        if let Some(options) = &mut self.options {
            self.index.refresh_policy(|world, policy| options.refresh(world, policy));
        }
        self.index.update(Timestamp::now());
    }

    /// Secrets and ConfigMaps that are named and not there.
    pub fn missing(&mut self) -> Vec<(Kind, ObjectKey)> {
        let named = self.index.take_named().unwrap_or_default();
        let world = self.index.world();
        let is_there = |kind, key: &ObjectKey| match kind {
            Kind::Secret => world.secrets.contains_key(key),
            _ => world.config_maps.contains_key(key),
        };
        named.into_iter().filter(|(kind, key)| !is_there(*kind, key)).collect()
    }

    /// Says what becomes of them.
    pub fn report(&self) -> Report {
        let index = &self.index;
        let scope = Scope::of(index.world(), self.complete);
        let mut by_object: BTreeMap<(Kind, ObjectKey), Vec<Problem>> = BTreeMap::new();
        for problem in index.problems().filter(|problem| scope.concerns(problem)) {
            let object = (problem.kind, problem.object.clone());
            by_object.entry(object).or_default().push(problem.clone());
        }
        let mut of =
            |kind, key: &ObjectKey| by_object.remove(&(kind, key.clone())).unwrap_or_default();
        let mut ingresses = Vec::new();
        for (key, ingress) in &index.world().ingresses {
            let selected = index.ingress(key).is_some();
            let problems = of(Kind::Ingress, key);
            ingresses.push(ingress_report(key, ingress, selected, &self.classes, problems));
        }
        let mut options = Vec::new();
        for key in &index.policy().named_config_maps {
            let config_map = index.world().config_maps.get(key);
            let data = config_map.and_then(|config_map| config_map.data.clone());
            options.extend(option_findings(&data.unwrap_or_default(), of(Kind::ConfigMap, key)));
        }
        let mut others = Vec::new();
        for ((kind, key), problems) in by_object {
            others.extend(problems.into_iter().map(|problem| {
                let about = format!("{} {key} {}", kind.as_str(), problem.field);
                Finding { about: about.trim_end().into(), ..finding(problem) }
            }));
        }
        Report { version: 1, ingresses, options, others }
    }
}

/// A class as it will be in the cluster: manifests of applications seldom hold it.
fn class(name: &str, classes: &ClassSelection) -> Option<Object> {
    let class = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
        "spec": {"controller": classes.controllers.first()?},
    });
    Object::parse(class).ok().flatten()
}

/// What may be said to be missing: a few manifests are not a cluster.
struct Scope {
    services: bool,
    secrets: bool,
    config_maps: bool,
    classes: bool,
}

impl Scope {
    fn of(world: &World, complete: bool) -> Scope {
        Scope {
            services: complete || !world.services.is_empty(),
            secrets: complete || !world.secrets.is_empty(),
            config_maps: complete || !world.config_maps.is_empty(),
            classes: complete,
        }
    }

    fn concerns(&self, problem: &Problem) -> bool {
        if !problem.message.contains(" does not exist") {
            return true;
        }
        let names = |kind: &str| problem.message.contains(&format!("{kind} "));
        (self.services || !names("Service"))
            && (self.secrets || !names("Secret"))
            && (self.config_maps || !names("ConfigMap"))
            && (self.classes || !names("IngressClass"))
    }
}

fn ingress_report(
    key: &ObjectKey,
    ingress: &Ingress,
    selected: bool,
    classes: &ClassSelection,
    problems: Vec<Problem>,
) -> IngressReport {
    let all = &ingress.annotations;
    let class = all.get(CLASS_ANNOTATION).filter(|class| !class.is_empty());
    let class = class.or(ingress.class_name.as_ref());
    let closed = problems.iter().any(|problem| problem.message.ends_with("answer 503"));
    let mut findings = Vec::new();
    if selected {
        for name in all.iter().filter_map(|(name, _)| name.strip_prefix(annotations::PREFIX)) {
            let field = format!("metadata.annotations[{}{name}]", annotations::PREFIX);
            if !problems.iter().any(|problem| problem.field == field) {
                findings.push(annotation(name));
            }
        }
        findings.extend(problems.into_iter().map(finding));
        findings.sort_by(|a, b| b.state.cmp(&a.state).then_with(|| a.about.cmp(&b.about)));
    } else {
        findings.push(Finding {
            state: State::Harmless,
            about: "class".into(),
            detail: not_selected(class, classes),
        });
    }
    let state = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Works);
    IngressReport {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        class: class.map(ToString::to_string),
        selected,
        state: if selected { state } else { State::Works },
        closed: selected && closed,
        findings,
    }
}

fn not_selected(class: Option<&Arc<str>>, classes: &ClassSelection) -> String {
    match class {
        Some(class) => format!(
            "{class:?} is no class of this controller ({}): another one serves it",
            classes.names.join(", ")
        ),
        None => "it names no class: it is taken with --watch-ingress-without-class, or where a class of \
                 this controller is the default"
            .into(),
    }
}

/// An annotation nothing is wrong with.
fn annotation(name: &str) -> Finding {
    let about = name.to_string();
    match annotations::support(name) {
        Some(Support::Harmless(why)) => {
            Finding { state: State::Harmless, about, detail: why.into() }
        }
        _ => match differences::of_annotation(name) {
            Some(difference) => Finding { state: State::Differs, about, detail: difference.into() },
            None => Finding { state: State::Works, about, detail: String::new() },
        },
    }
}

fn option_findings(data: &BTreeMap<String, String>, problems: Vec<Problem>) -> Vec<Finding> {
    let blamed = |name: &str| problems.iter().any(|p| p.field == format!("data[{name}]"));
    let mut findings: Vec<Finding> = Vec::new();
    for name in data.keys().filter(|name| !blamed(name)) {
        let Some(row) = table::row(name) else {
            continue;
        };
        let (state, detail) = match row.support() {
            Support::Harmless(why) => (State::Harmless, why),
            Support::Honoured | Support::Refused(_) => (State::Works, ""),
        };
        findings.push(Finding { state, about: name.clone(), detail: detail.into() });
    }
    findings.extend(problems.into_iter().map(finding));
    findings.sort_by(|a, b| b.state.cmp(&a.state).then_with(|| a.about.cmp(&b.about)));
    findings
}

fn finding(problem: Problem) -> Finding {
    let state = match problem.severity {
        Severity::Warning => State::Differs,
        Severity::Error => State::Refused,
    };
    let inner = |prefix: &str| problem.field.strip_prefix(prefix)?.strip_suffix(']');
    let annotation = inner("metadata.annotations[")
        .map(|name| name.strip_prefix(annotations::PREFIX).unwrap_or(name));
    let about = annotation.or_else(|| inner("data[")).unwrap_or(&problem.field).to_string();
    Finding { state, about, detail: problem.message }
}
