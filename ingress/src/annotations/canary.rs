//! An Ingress that is a variant of another: which requests it gets.

use super::values::{Refusal, boolean, number};
use super::{Group, Row, honoured};
use crate::objects::ObjectKey;
use crate::variables::cookie;
use http::{HeaderMap, HeaderName};
use regex::bytes::Regex;
use std::borrow::Cow;
use std::sync::Arc;

const ROWS: &[Row] = &[
    honoured("canary"),
    honoured("canary-by-header"),
    honoured("canary-by-header-value"),
    honoured("canary-by-header-pattern"),
    honoured("canary-by-cookie"),
    honoured("canary-weight"),
    honoured("canary-weight-total"),
];

/// `canary-*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// `canary`: the Ingress claims no paths for itself.
    pub enabled: bool,
    header: Option<HeaderName>,
    header_value: Option<String>,
    header_pattern: Option<Pattern>,
    cookie: Option<String>,
    weight: i64,
    weight_total: i64,
}

impl Default for Canary {
    fn default() -> Canary {
        Canary {
            enabled: false,
            header: None,
            header_value: None,
            header_pattern: None,
            cookie: None,
            weight: 0,
            weight_total: 100,
        }
    }
}

/// A pattern for the header. One that is no expression matches nothing, as in ingress-nginx.
#[derive(Clone, Debug)]
struct Pattern(Option<Arc<Regex>>);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        let text = |pattern: &Pattern| pattern.0.as_ref().map(|regex| regex.as_str().to_string());
        text(self) == text(other)
    }
}

impl Group for Canary {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "canary" => self.enabled = boolean(value)?,
            "canary-by-header" => {
                let name = HeaderName::from_bytes(value.as_bytes());
                let name = name.map_err(|_| Refusal::invalid("not the name of a header"))?;
                self.header = Some(name);
            }
            "canary-by-header-value" => self.header_value = Some(value.into()),
            "canary-by-header-pattern" => {
                let compiled = Regex::new(value);
                self.header_pattern = Some(Pattern(compiled.as_ref().ok().cloned().map(Arc::new)));
                compiled.map_err(|_| {
                    Refusal::Refused(format!(
                        "{value:?} is no expression here (there is no look-around and no \
                         back-reference), so it matches nothing"
                    ))
                })?;
            }
            "canary-by-cookie" => self.cookie = Some(value.into()),
            "canary-weight" => self.weight = number(value)?,
            "canary-weight-total" => self.weight_total = number(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        let by_header = self.header_value.is_some() || self.header_pattern.is_some();
        if !self.enabled && (self.weight > 0 || self.header.is_some() || self.cookie.is_some()) {
            let why = "is not set to true, so the other canary annotations have no effect";
            return vec![("canary", Refusal::Refused(why.into()))];
        }
        if self.enabled && by_header && self.header.is_none() {
            let why = "is missing, so the header's value has no effect";
            return vec![("canary-by-header", Refusal::Refused(why.into()))];
        }
        Vec::new()
    }
}

impl Canary {
    /// Whether a request goes to the variant: the header decides, else the cookie, else chance.
    /// `random` gives a number below its argument.
    pub fn takes(&self, headers: &HeaderMap, random: impl FnOnce(u64) -> u64) -> bool {
        let by_header = self.header.as_ref().and_then(|name| self.by_header(name, headers));
        let by_cookie = || match self.cookie.as_ref().and_then(|name| cookie(headers, name)) {
            Some(b"always") => Some(true),
            Some(b"never") => Some(false),
            _ => None,
        };
        by_header.or_else(by_cookie).unwrap_or_else(|| self.by_chance(random))
    }

    fn by_header(&self, name: &HeaderName, headers: &HeaderMap) -> Option<bool> {
        let sent = header_text(headers, name)?;
        if let Some(value) = self.header_value.as_ref().filter(|value| !value.is_empty()) {
            return (*sent == *value.as_bytes()).then_some(true);
        }
        if let Some(Pattern(pattern)) = &self.header_pattern {
            let Some(pattern) = pattern else {
                return Some(false);
            };
            return pattern.is_match(&sent).then_some(true);
        }
        match &*sent {
            b"always" => Some(true),
            b"never" => Some(false),
            _ => None,
        }
    }

    fn by_chance(&self, random: impl FnOnce(u64) -> u64) -> bool {
        let Ok(weight @ 1..) = u64::try_from(self.weight) else {
            return false;
        };
        let total = u64::try_from(self.weight_total).map_or(100, |total| total.max(100));
        random(total) < weight
    }
}

/// The value of a header; several lines are one value, as nginx has it.
fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(|value| value.as_bytes());
    let first = lines.next()?;
    let mut all: Vec<&[u8]> = lines.collect();
    if all.is_empty() {
        return Some(Cow::Borrowed(first));
    }
    all.insert(0, first);
    Some(Cow::Owned(all.join(&b", "[..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(pairs: &[(&str, &str)]) -> (Canary, Vec<(&'static str, Refusal)>) {
        let mut canary = Canary { enabled: true, ..Canary::default() };
        let ingress = ObjectKey::new("shop", "web");
        for (name, value) in pairs {
            drop(canary.apply(&format!("canary-{name}"), value, &ingress));
        }
        let refused = canary.finish();
        (canary, refused)
    }

    fn takes(pairs: &[(&str, &str)], sent: &[(&str, &str)], random: u64) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        canary(pairs).0.takes(&headers, |below| random.min(below - 1))
    }

    #[test]
    fn header_before_cookie_before_weight() {
        let all = [("by-header", "X-Canary"), ("by-cookie", "canary"), ("weight", "30")];
        let value = [("by-header", "X-Canary"), ("by-header-value", "yes"), ("by-cookie", "c")];
        let pattern = [("by-header", "X-Canary"), ("by-header-pattern", "^(a|b)$")];
        let broken = [("by-header", "X-Canary"), ("by-header-pattern", "(?=a)"), ("weight", "100")];
        for (canary, sent, random, expected) in [
            (&all[..], &[][..], 29, true),
            (&all, &[], 30, false),
            (&all, &[("x-canary", "always")], 99, true),
            (&all, &[("x-canary", "never")], 0, false),
            (&all, &[("x-canary", "other")], 0, true),
            (&all, &[("x-canary", "other"), ("cookie", "canary=never")], 0, false),
            (&all, &[("x-canary", "never"), ("cookie", "canary=always")], 0, false),
            (&all, &[("cookie", "a=b; canary=always")], 99, true),
            (&all, &[("cookie", "canary=maybe")], 99, false),
            (&all, &[("x-canary", "always"), ("x-canary", "always")], 99, false),
            (&value, &[("x-canary", "yes")], 99, true),
            (&value, &[("x-canary", "always")], 0, false),
            (&value, &[("x-canary", "never"), ("cookie", "c=always")], 99, true),
            (&pattern, &[("x-canary", "a")], 99, true),
            (&pattern, &[("x-canary", "ab")], 0, false),
            (&broken, &[("x-canary", "a")], 0, false),
            (&broken, &[], 0, true),
        ] {
            assert_eq!(takes(canary, sent, random), expected, "{canary:?} {sent:?} {random}");
        }
    }

    #[test]
    fn weights_have_a_total() {
        let thousand = [("weight", "5"), ("weight-total", "1000")];
        assert!(takes(&thousand, &[], 4) && !takes(&thousand, &[], 5));
        // A total below 100 is not used.
        let small = [("weight", "50"), ("weight-total", "60")];
        assert!(takes(&small, &[], 49) && !takes(&small, &[], 50));
        assert!(!takes(&[("weight", "-5")], &[], 0));
        assert!(takes(&[("weight", "100")], &[], 99));
    }

    #[test]
    fn what_has_no_effect_is_said() {
        assert_eq!(canary(&[("by-header-value", "yes")]).1[0].0, "canary-by-header");
        let mut off = Canary { weight: 10, ..Canary::default() };
        assert_eq!(off.finish()[0].0, "canary");
    }
}
