//! Values of annotations: what they look like, and what is wrong with those that do not.

use super::PREFIX;
use crate::objects::{Kind, ObjectKey};
use crate::problem::Problem;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// Why an annotation does not take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The value is wrong; the default is used. What would be right.
    Invalid(String),
    /// It was meant to guard the location and cannot: the location answers 503. What is wrong.
    Closes(String),
    /// It has no effect. Why, and what to use instead.
    Refused(String),
    /// No annotation of that name exists.
    Unknown,
}

impl Refusal {
    /// The value is wrong.
    pub fn invalid(want: impl Into<String>) -> Refusal {
        Refusal::Invalid(want.into())
    }

    /// The location must not be served.
    pub fn closes(why: impl Into<String>) -> Refusal {
        Refusal::Closes(why.into())
    }

    /// The same as a problem of the Ingress.
    pub fn problem(&self, ingress: &ObjectKey, name: &str, value: Option<&str>) -> Problem {
        // Our own annotations have their prefix with them.
        let prefix = if name.contains('/') { "" } else { PREFIX };
        let field = format!("metadata.annotations[{prefix}{name}]");
        let error = |message: String| Problem::error(Kind::Ingress, ingress, &field, message);
        match self {
            Refusal::Invalid(why) => match value {
                Some(value) => {
                    error(format!("value {value:?} is invalid ({why}); the default is used"))
                }
                None => error(format!("is invalid ({why}); the default is used")),
            },
            Refusal::Closes(why) => error(format!("{why}; its locations answer 503")),
            Refusal::Refused(why) => error(why.clone()),
            Refusal::Unknown => Problem::warning(
                Kind::Ingress,
                ingress,
                field.as_str(),
                "is not an annotation of ingress-nginx and has no effect",
            ),
        }
    }
}

/// As Go's `strconv.ParseBool`.
pub fn boolean(value: &str) -> Result<bool, Refusal> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Refusal::invalid("want true or false")),
    }
}

/// A positive number of seconds, with or without an `s`.
pub fn seconds(value: &str) -> Result<Duration, Refusal> {
    match value.strip_suffix('s').unwrap_or(value).parse::<u32>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(Refusal::invalid("want a positive number of seconds")),
    }
}

/// A whole number.
pub fn number<N: std::str::FromStr>(value: &str) -> Result<N, Refusal> {
    value.parse().map_err(|_| Refusal::invalid("want a whole number"))
}

/// An nginx size: bytes, or with `k`, `m`, `g`.
pub fn parse_size(value: &str) -> Option<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match value[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Something that can stand as the value of a header.
pub fn header_value(value: &str) -> Result<String, Refusal> {
    match http::HeaderValue::from_str(value) {
        Ok(_) if !value.is_empty() => Ok(value.into()),
        _ => Err(Refusal::invalid("not usable as a header value")),
    }
}

/// The entries of a list separated by commas, without empty ones.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// A list of networks and addresses. One wrong entry closes the location: the list was meant to keep
/// clients out.
pub fn networks(value: &str) -> Result<Vec<IpNet>, Refusal> {
    let nets: Result<Vec<IpNet>, _> = list(value)
        .map(|entry| entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)))
        .collect();
    nets.map_err(|_| {
        Refusal::closes("the list holds an entry that is neither an address nor a network")
    })
}

/// The name of an object, `name` or `namespace/name`.
pub fn object_key(value: &str, ingress: &ObjectKey) -> Result<ObjectKey, Refusal> {
    let (namespace, name) = value.split_once('/').unwrap_or((&ingress.namespace, value));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Refusal::invalid("want the name of an object, or namespace/name"));
    }
    Ok(ObjectKey::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            ("1m", Some(1 << 20)),
            ("10K", Some(10240)),
            ("1g", Some(1 << 30)),
            ("m", None),
            ("1x", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}
