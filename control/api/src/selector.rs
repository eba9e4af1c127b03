//! Label selectors, in the text form of queries and in the form of specs, and field selectors.

use std::fmt;

use serde_json::Value;

use crate::object;
use crate::resource::Resource;
use crate::status::Status;

/// A conjunction of requirements on labels; the empty one takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    /// Reads the text form: `app=web,tier!=db,env in (a, b),zone notin (c),canary,!old,n>3`.
    ///
    /// # Errors
    /// 400 BadRequest naming what was expected and found.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        let mut parser = Parser { text, at: 0 };
        parser.skip_space();
        while !parser.rest().is_empty() {
            requirements.push(parser.requirement()?);
            parser.skip_space();
            if parser.rest().is_empty() {
                break;
            }
            if !parser.take(",") {
                return Err(parser.unexpected("',' or 'end of string'"));
            }
            parser.skip_space();
            if parser.rest().is_empty() {
                return Err(parser.unexpected("identifier after ','"));
            }
        }
        Ok(Self { requirements })
    }

    /// Reads a `metav1.LabelSelector` that validation has passed. `None` selects nothing.
    pub fn from_spec(selector: &Value) -> Option<Self> {
        let selector = selector.as_object()?;
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let values = vec![value.as_str()?.to_owned()];
                requirements.push(Requirement { key: key.clone(), operator: Operator::In(values) });
            }
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let values = || {
                let list = expression.get("values").and_then(Value::as_array).into_iter().flatten();
                list.filter_map(|value| value.as_str().map(str::to_owned)).collect()
            };
            let operator = match expression.get("operator")?.as_str()? {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return None,
            };
            let key = expression.get("key")?.as_str()?.to_owned();
            requirements.push(Requirement { key, operator });
        }
        Some(Self { requirements })
    }

    /// Whether the object's labels satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_labels(|key| object::label(object, key))
    }

    /// Whether labels, given as a look-up, satisfy every requirement.
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => {
                value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
            }
            // A missing label is not in any set.
            Operator::NotIn(values) => {
                value.is_none_or(|value| values.iter().all(|refused| refused != value))
            }
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// The text form, which is also what `scale` reports as the selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Operator::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn unexpected(&self, expected: &str) -> Status {
        let found = self.rest().split_whitespace().next().unwrap_or_default();
        Status::bad_request(format!(
            "unable to parse requirement: found {found:?}, expected: {expected}"
        ))
    }

    fn requirement(&mut self) -> Result<Requirement, Status> {
        if self.take("!") {
            let key = self.key()?;
            return Ok(Requirement { key, operator: Operator::DoesNotExist });
        }
        let key = self.key()?;
        self.skip_space();
        let operator = if self.take("==") || self.take("=") {
            Operator::In(vec![self.value()?])
        } else if self.take("!=") {
            Operator::NotIn(vec![self.value()?])
        } else if self.take(">") {
            Operator::GreaterThan(self.number()?)
        } else if self.take("<") {
            Operator::LessThan(self.number()?)
        } else if self.rest().is_empty() || self.rest().starts_with(',') {
            Operator::Exists
        } else {
            match self.word() {
                "in" => Operator::In(self.values()?),
                "notin" => Operator::NotIn(self.values()?),
                _ => return Err(self.unexpected("in, notin, =, ==, !=, gt, lt")),
            }
        };
        Ok(Requirement { key, operator })
    }

    fn key(&mut self) -> Result<String, Status> {
        let key = self.word();
        if key.is_empty() {
            return Err(self.unexpected("identifier"));
        }
        let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
        if !is_label_text(name) || name.is_empty() || prefix.is_some_and(str::is_empty) {
            return Err(Status::bad_request(format!(
                "unable to parse requirement: key: Invalid value: {key:?}: name part must consist \
                 of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
                 for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            )));
        }
        Ok(key.to_owned())
    }

    fn value(&mut self) -> Result<String, Status> {
        let value = self.word();
        if !is_label_text(value) {
            return Err(Status::bad_request(format!(
                "unable to parse requirement: values[0]: Invalid value: {value:?}: a valid label \
                 must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                 and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            )));
        }
        Ok(value.to_owned())
    }

    fn number(&mut self) -> Result<i64, Status> {
        let text = self.value()?;
        text.parse().map_err(|_| {
            Status::bad_request(format!(
                "unable to parse requirement: values[0]: Invalid value: {text:?}: for 'Gt', 'Lt' \
                 operators, the value must be an integer"
            ))
        })
    }

    fn values(&mut self) -> Result<Vec<String>, Status> {
        if !self.take("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if !self.take(")") {
            return Err(self.unexpected("',', or ')'"));
        }
        Ok(values)
    }
}

/// Label values, and the name part of keys: at most 63 characters, alphanumeric at both ends.
fn is_label_text(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ends_well = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(inner)
        && ends_well(text.chars().next())
        && ends_well(text.chars().next_back())
}

/// A conjunction of requirements on fields; the empty one takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// Field, whether it must be equal, value.
    requirements: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Reads `metadata.name=a,status.phase!=Running`, with `\` before `,`, `=` and `\` in values.
    ///
    /// # Errors
    /// 400 BadRequest for broken text and for fields the kind cannot be selected by.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, Status> {
        let mut requirements = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let (field, equal, value) = split_term(&term).ok_or_else(|| {
                Status::bad_request(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                ))
            })?;
            if !is_selectable(resource, field) {
                let what = if field.starts_with("metadata.") {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                };
                return Err(Status::bad_request(what));
            }
            requirements.push((field.to_owned(), equal, unescape(value)));
        }
        Ok(Self { requirements })
    }

    /// Whether the object's fields satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements
            .iter()
            .all(|(field, equal, value)| (field_text(object, field) == *value) == *equal)
    }

    /// The name every match has, when there is one: such a list is one look-up.
    pub fn name(&self) -> Option<&str> {
        let mut names =
            self.requirements.iter().filter(|(field, equal, _)| field == "metadata.name" && *equal);
        names.next().map(|(_, _, value)| value.as_str())
    }

    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
}

fn is_selectable(resource: &Resource, field: &str) -> bool {
    let more: &[&str] = match (resource.group, resource.kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("apps", "ReplicaSet") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "Event") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        _ => &[],
    };
    field == "metadata.name"
        || (field == "metadata.namespace" && resource.namespaced)
        || more.contains(&field)
}

/// The text of a field of a stored object, as upstream's field sets give it.
fn field_text(object: &Value, field: &str) -> String {
    // Events are stored as core/v1, whichever group they are asked for through.
    let path = match field {
        "source" => "source.component",
        "reportingController" => "reportingComponent",
        "status.successful" => "status.succeeded",
        other => other,
    };
    let regarding = path.strip_prefix("regarding.").map(|rest| format!("involvedObject.{rest}"));
    let path = regarding.as_deref().unwrap_or(path);
    let value = path.split('.').try_fold(object, |value, key| value.get(key));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            _ => String::new(),
        },
    }
}

/// Splits at commas that no `\` escapes.
fn split_terms(text: &str) -> Vec<String> {
    let (mut terms, mut term, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(std::mem::take(&mut term));
            continue;
        }
        escaped = c == '\\' && !escaped;
        term.push(c);
    }
    terms.push(term);
    terms
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(value) = rest.strip_prefix(operator) {
            return Some((field.trim(), equal, value));
        }
    }
    None
}

fn unescape(value: &str) -> String {
    let (mut text, mut escaped) = (String::new(), false);
    for c in value.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests;
