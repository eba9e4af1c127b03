//! `enable-cors` and `cors-*`: which pages of other origins may ask, and what they are told.

use crate::annotations::values::{Refusal, boolean, list, number};
use http::HeaderValue;

const METHODS: HeaderValue = HeaderValue::from_static("GET, PUT, POST, DELETE, PATCH, OPTIONS");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
);
const MAX_AGE: HeaderValue = HeaderValue::from_static("1728000");

/// Cross-origin resource sharing of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// `enable-cors`.
    pub enabled: bool,
    /// `cors-allow-origin`.
    pub origins: Origins,
    /// `cors-allow-methods`.
    pub methods: HeaderValue,
    /// `cors-allow-headers`.
    pub headers: HeaderValue,
    /// `cors-expose-headers`.
    pub exposed: Option<HeaderValue>,
    /// `cors-allow-credentials`.
    pub credentials: bool,
    /// `cors-max-age`, in seconds.
    pub max_age: HeaderValue,
}

impl Default for Cors {
    fn default() -> Cors {
        Cors {
            enabled: false,
            origins: Origins::Any,
            methods: METHODS,
            headers: HEADERS,
            exposed: None,
            credentials: true,
            max_age: MAX_AGE,
        }
    }
}

/// Origins that may ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Origins {
    /// `*`: every request is answered so, with an Origin or without.
    Any,
    /// These.
    Listed(Vec<Origin>),
}

/// One origin, or those of one more label.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Lower-case; up to the `*` if there is one.
    start: String,
    /// What follows the `*`.
    end: Option<String>,
}

impl Cors {
    /// Takes the value of an annotation of this group.
    pub fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "enable-cors" => self.enabled = boolean(value)?,
            "cors-allow-credentials" => self.credentials = boolean(value)?,
            "cors-allow-methods" => {
                let method = |text: &str| text.bytes().all(|b| b.is_ascii_alphabetic());
                self.methods = names(value, method, "methods")?;
            }
            "cors-allow-headers" => self.headers = names(value, is_header, "names of headers")?,
            "cors-expose-headers" => {
                let exposed = |text: &str| text == "*" || is_header(text);
                self.exposed = Some(names(value, exposed, "names of headers, or *")?);
            }
            "cors-max-age" => self.max_age = HeaderValue::from(number::<i64>(value)?),
            "cors-allow-origin" => return self.take_origins(value),
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    fn take_origins(&mut self, value: &str) -> Result<(), Refusal> {
        if value.is_empty() || list(value).any(|entry| entry == "*") {
            self.origins = Origins::Any;
            return Ok(());
        }
        let mut refused = Vec::new();
        let mut origins = Vec::new();
        for entry in list(value) {
            match Origin::parse(entry) {
                Some(origin) => origins.push(origin),
                None => refused.push(format!("{entry:?}")),
            }
        }
        // What is left stays a list: a wrong entry must not open the location to every origin.
        self.origins = Origins::Listed(origins);
        match refused.is_empty() {
            true => Ok(()),
            false => Err(Refusal::Refused(format!(
                "{} left out: want scheme://host or scheme://host:port, where the host may begin with *. for \
                 any one label, or null, or * alone",
                refused.join(", ")
            ))),
        }
    }

    /// What `Access-Control-Allow-Origin` says to a request; `None` if its origin may not ask.
    pub fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(origins) => {
                let origin = origin?;
                let admitted = |own: &Origin| own.admits(origin.as_bytes());
                origins.iter().any(admitted).then(|| origin.clone())
            }
        }
    }
}

impl Origin {
    fn parse(text: &str) -> Option<Origin> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Some(Origin { start: text, end: None });
        }
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let wildcard = host.starts_with("*.");
        let name = host.strip_prefix("*.").unwrap_or(host);
        let good = !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_lowercase())
            && !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
            && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
        if !good {
            return None;
        }
        Some(match text.split_once('*').filter(|_| wildcard) {
            Some((start, end)) => Origin { start: start.into(), end: Some(end.into()) },
            None => Origin { start: text, end: None },
        })
    }

    fn admits(&self, origin: &[u8]) -> bool {
        let Some(end) = &self.end else {
            return origin.eq_ignore_ascii_case(self.start.as_bytes());
        };
        let fixed = self.start.len() + end.len();
        if origin.len() <= fixed {
            return false;
        }
        let (start, rest) = origin.split_at(self.start.len());
        let (label, rest) = rest.split_at(origin.len() - fixed);
        start.eq_ignore_ascii_case(self.start.as_bytes())
            && rest.eq_ignore_ascii_case(end.as_bytes())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    }
}

fn is_header(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Names separated by commas or spaces, sent as they are written.
fn names(value: &str, good: impl Fn(&str) -> bool, want: &str) -> Result<HeaderValue, Refusal> {
    let wrong = || Refusal::invalid(format!("want {want} separated by commas"));
    let mut entries = value.split([',', ' ']).filter(|entry| !entry.is_empty()).peekable();
    if entries.peek().is_none() || !entries.all(good) {
        return Err(wrong());
    }
    HeaderValue::from_str(value).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cors(origins: &str) -> (Cors, Option<Refusal>) {
        let mut cors = Cors::default();
        let refused = cors.apply("cors-allow-origin", origins).err();
        (cors, refused)
    }

    fn admits(origins: &str, origin: &str) -> bool {
        let origin = HeaderValue::from_str(origin).unwrap();
        cors(origins).0.allowed(Some(&origin)).is_some()
    }

    #[test]
    fn origins_are_whole_and_wildcards_one_label() {
        for (origins, origin, admitted) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example.evil", false),
            ("https://a.example", "xhttps://a.example", false),
            ("https://*.example", "https://a.example", true),
            ("https://*.example", "https://a.b.example", false),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://example", false),
            ("https://*.example:8443", "https://a.example:8443", true),
            ("https://*.example", "https://evil/.example", false),
            ("https://b.example, app://*.c.example", "app://x.c.example", true),
            ("null", "null", true),
            ("null", "https://null", false),
            ("*", "https://anything", true),
            ("https://a.example,*", "https://anything", true),
        ] {
            assert_eq!(admits(origins, origin), admitted, "{origins} asked by {origin}");
        }
        assert_eq!(cors("*").0.allowed(None).unwrap(), "*");
        assert!(cors("https://a.example").0.allowed(None).is_none());
    }

    #[test]
    fn wrong_origins_open_nothing() {
        for origins in
            ["a.example", "https://a.*.example", "https://*a.example", "https://a b", "https://"]
        {
            let (cors, refused) = cors(origins);
            assert_eq!(cors.origins, Origins::Listed(Vec::new()), "{origins}");
            assert!(matches!(refused, Some(Refusal::Refused(_))), "{origins}");
        }
        assert!(admits("nonsense, https://a.example", "https://a.example"));
    }

    #[test]
    fn lists_of_names() {
        for (name, value, good) in [
            ("cors-allow-methods", "GET, PUT", true),
            ("cors-allow-methods", "GET;PUT", false),
            ("cors-allow-methods", "", false),
            ("cors-allow-headers", "X-One,X_Two", true),
            ("cors-allow-headers", "*", false),
            ("cors-expose-headers", "*, X-One", true),
            ("cors-expose-headers", "X-One: 1", false),
            ("cors-max-age", "600", true),
            ("cors-max-age", "10m", false),
            ("cors-allow-credentials", "no", false),
        ] {
            assert_eq!(Cors::default().apply(name, value).is_ok(), good, "{name} {value}");
        }
    }

    proptest! {
        #[test]
        fn a_wildcard_admits_its_labels_only(label in "[a-zA-Z0-9./:@-]{0,12}") {
            let origin = format!("https://{label}.shop.example");
            let one_label = !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            prop_assert_eq!(admits("https://*.shop.example", &origin), one_label);
        }
    }
}
