//! The formats strings must have: DNS names, label keys and values, port and variable names, addresses.
//! Each check returns upstream's complaints (`k8s.io/apimachinery/pkg/util/validation`), none when valid.

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use regex::Regex;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD_SUBDOMAIN: &str =
    r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const HTTP_HEADER: &str = "[-A-Za-z0-9]+";
const CONFIG_KEY: &str = "[-._a-zA-Z0-9]+";
const PERCENT: &str = "[0-9]+%";
const HTTP_PATH: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";

const LABEL_LENGTH_MAX: usize = 63;
const SUBDOMAIN_LENGTH_MAX: usize = 253;
const PORT_NAME_LENGTH_MAX: usize = 15;

/// A pattern that must match the whole text, with its complaint.
struct Pattern {
    pattern: &'static str,
    regex: LazyLock<Option<Regex>>,
    complaint: &'static str,
    examples: &'static [&'static str],
}

macro_rules! pattern {
    ($pattern:expr, $complaint:expr, $examples:expr) => {
        Pattern {
            pattern: $pattern,
            regex: LazyLock::new(|| Regex::new(&anchored($pattern)).ok()),
            complaint: $complaint,
            examples: &$examples,
        }
    };
}

fn anchored(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

static LABEL: Pattern = pattern!(
    DNS1123_LABEL,
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
    ["my-name", "123-abc"]
);
static SUBDOMAIN: Pattern = pattern!(
    DNS1123_SUBDOMAIN,
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
    ["example.com"]
);
static WILDCARD: Pattern = pattern!(
    WILDCARD_SUBDOMAIN,
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    ["*.example.com"]
);
static LABEL_1035: Pattern = pattern!(
    DNS1035_LABEL,
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
    ["my-name", "abc-123"]
);
static KEY: Pattern = pattern!(
    LABEL_KEY,
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    ["MyName", "my.name", "123-abc"]
);
static VALUE: Pattern = pattern!(
    LABEL_VALUE,
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    ["MyValue", "my_value", "12345"]
);
static HEADER: Pattern = pattern!(
    HTTP_HEADER,
    "a valid HTTP header must consist of alphanumeric characters or '-'",
    ["X-Header-Name"]
);
static CONFIG: Pattern = pattern!(
    CONFIG_KEY,
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    ["key.name", "KEY_NAME", "key-name"]
);
static PERCENTAGE: Pattern = pattern!(
    PERCENT,
    "a valid percent string must be a numeric string followed by an ending '%'",
    ["1%", "93%"]
);
static PATH: Pattern = pattern!(HTTP_PATH, "Invalid path", []);

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }

    /// The complaint as upstream words it, with examples and the pattern.
    fn message(&self) -> String {
        let examples: Vec<String> =
            self.examples.iter().map(|example| format!("'{example}'")).collect();
        let pattern = self.pattern;
        match examples.is_empty() {
            true => format!("{} (regex used for validation is '{pattern}')", self.complaint),
            // The two spaces are upstream's.
            false => {
                let examples = examples.join(",  or ");
                format!(
                    "{} (e.g. {examples}, regex used for validation is '{pattern}')",
                    self.complaint
                )
            }
        }
    }

    fn check(&self, text: &str) -> Vec<String> {
        if self.matches(text) { Vec::new() } else { vec![self.message()] }
    }

    fn check_within(&self, text: &str, length_max: usize) -> Vec<String> {
        let mut complaints = too_long(text, length_max);
        complaints.extend(self.check(text));
        complaints
    }
}

fn too_long(text: &str, length_max: usize) -> Vec<String> {
    match text.len() > length_max {
        true => vec![format!("must be no more than {length_max} characters")],
        false => Vec::new(),
    }
}

/// A complaint for a number outside `low..=high`.
pub fn between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// An RFC 1123 label: container names, Namespaces.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut complaints = too_long(text, LABEL_LENGTH_MAX);
    if !LABEL.matches(text) {
        complaints.push(match SUBDOMAIN.matches(text) {
            true => "must not contain dots".to_owned(),
            false => LABEL.message(),
        });
    }
    complaints
}

/// An RFC 1123 subdomain: the names of most objects.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    SUBDOMAIN.check_within(text, SUBDOMAIN_LENGTH_MAX)
}

/// `*.` followed by a subdomain: wildcard hosts.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    WILDCARD.check_within(text, SUBDOMAIN_LENGTH_MAX)
}

/// An RFC 1035 label: Services.
pub fn dns1035_label(text: &str) -> Vec<String> {
    LABEL_1035.check_within(text, LABEL_LENGTH_MAX)
}

/// A label key, or "qualified name": an optional subdomain and `/`, then a name.
pub fn label_key(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                complaints.push("prefix part must be non-empty".to_owned());
            } else {
                complaints.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|complaint| format!("prefix part {complaint}")),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                KEY.message()
            )];
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LENGTH_MAX {
        complaints.push(format!("name part must be no more than {LABEL_LENGTH_MAX} characters"));
    }
    if !KEY.matches(name) {
        complaints.push(format!("name part {}", KEY.message()));
    }
    complaints
}

/// A label value.
pub fn label_value(text: &str) -> Vec<String> {
    VALUE.check_within(text, LABEL_LENGTH_MAX)
}

/// A port number.
pub fn port_number(port: i64) -> Vec<String> {
    match (1..=65535).contains(&port) {
        true => Vec::new(),
        false => vec![between(1, 65535)],
    }
}

/// A port name (RFC 6335 service name).
pub fn port_name(name: &str) -> Vec<String> {
    let mut complaints = too_long(name, PORT_NAME_LENGTH_MAX);
    let mut complain = |wrong: bool, complaint: &str| {
        if wrong {
            complaints.push(complaint.to_owned());
        }
    };
    let charset = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    complain(!charset, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    complain(
        !name.bytes().any(|b| b.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    complain(name.contains("--"), "must not contain consecutive hyphens");
    complain(name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen");
    complaints
}

/// The name of an environment variable, by the rule of Kubernetes 1.34 and later.
pub fn variable_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    match name.bytes().all(|b| (b == b' ' || b.is_ascii_graphic()) && b != b'=') {
        true => Vec::new(),
        false => vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()],
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_key(key: &str) -> Vec<String> {
    let mut complaints = CONFIG.check_within(key, SUBDOMAIN_LENGTH_MAX);
    match key {
        "." => complaints.push("must not be '.'".to_owned()),
        ".." => complaints.push("must not be '..'".to_owned()),
        _ if key.starts_with("..") => complaints.push("must not start with '..'".to_owned()),
        _ => {}
    }
    complaints
}

/// The name of an HTTP header.
pub fn http_header(name: &str) -> Vec<String> {
    HEADER.check(name)
}

/// A percentage such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    PERCENTAGE.check(text)
}

/// The path part of a domain-prefixed path such as `acme.io/foo`.
pub fn http_path(text: &str) -> Vec<String> {
    PATH.check(text)
}

/// A name used as a segment of a URL path.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    let forbidden = ["/", "%"].iter().filter(|part| name.contains(**part));
    forbidden.map(|part| format!("may not contain '{part}'")).collect()
}

/// An IP address.
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// A range of addresses.
pub fn cidr(text: &str) -> Vec<String> {
    match text.parse::<IpNet>() {
        Ok(_) => Vec::new(),
        Err(_) => {
            vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
        }
    }
}

/// An address endpoints may have: not unspecified, loopback or link-local.
pub fn non_special_ip(text: &str) -> Vec<String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return vec!["must be a valid IP address".to_owned()];
    };
    let mut complaints = Vec::new();
    if address.is_unspecified() {
        complaints.push("may not be unspecified (0.0.0.0 or ::)".to_owned());
    }
    if address.is_loopback() {
        complaints.push("may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned());
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        complaints
            .push("may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned());
    }
    if link_local_multicast {
        complaints.push(
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned(),
        );
    }
    complaints
}
