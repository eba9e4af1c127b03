//! Changing a text of an endpoint's answer as `proxy_cookie_*` and `proxy_redirect` of nginx do: what to
//! look for, and what to put in its place.

use crate::annotations::values::Refusal;
use crate::variables::{Template, Values};
use regex::bytes::{Regex, RegexBuilder};

/// What to look for and what to put there.
#[derive(Clone, Debug)]
pub struct Replacement {
    from: Pattern,
    to: Template,
}

#[derive(Clone, Debug)]
enum Pattern {
    Text(Box<[u8]>),
    Expression(Regex),
}

impl PartialEq for Replacement {
    fn eq(&self, other: &Replacement) -> bool {
        let same = match (&self.from, &other.from) {
            (Pattern::Text(own), Pattern::Text(other)) => own == other,
            (Pattern::Expression(own), Pattern::Expression(other)) => {
                own.as_str() == other.as_str()
            }
            _ => false,
        };
        same && self.to == other.to
    }
}

impl Replacement {
    /// Reads `from to`; `~` and `~*` before `from` make it a regular expression, with and without regard
    /// to case. Either may stand in quotes. `off` is none.
    pub fn parse(value: &str) -> Result<Option<Replacement>, Refusal> {
        if matches!(value, "" | "off") {
            return Ok(None);
        }
        let mut words = words(value).into_iter();
        match (words.next(), words.next(), words.next()) {
            (Some(from), Some(to), None) => Replacement::new(&from, &to).map(Some),
            _ => Err(Refusal::invalid("want off, or what to replace and its replacement")),
        }
    }

    /// A replacement of one text or expression.
    pub fn new(from: &str, to: &str) -> Result<Replacement, Refusal> {
        let refused = |why: String| Refusal::Refused(format!("{from:?} to {to:?}: {why}"));
        let expression = |text: &str, insensitive: bool| {
            let built = RegexBuilder::new(text).case_insensitive(insensitive).build();
            built
                .map(Pattern::Expression)
                .map_err(|_| refused("the first is not an expression of the regex crate".into()))
        };
        let from = match from.strip_prefix('~') {
            Some(rest) => match rest.strip_prefix('*') {
                Some(rest) => expression(rest, true)?,
                None => expression(rest, false)?,
            },
            None if from.contains('$') => {
                return Err(refused(
                    "what is replaced cannot hold variables; use an expression".into(),
                ));
            }
            None => Pattern::Text(from.as_bytes().into()),
        };
        let to = match &from {
            Pattern::Expression(_) => Template::parse_with_captures(to),
            Pattern::Text(_) => Template::parse(to),
        };
        let to = to.map_err(|error| refused(format!("the second {error}")))?;
        Ok(Replacement { from, to })
    }

    /// Replaces the beginning of a text, or all of one an expression is found in.
    pub fn of_beginning(&self, text: &[u8], values: &Values<'_>) -> Option<Vec<u8>> {
        match &self.from {
            Pattern::Text(from) => {
                let rest = text.strip_prefix(&**from)?;
                let mut out = self.to.expand(values);
                out.extend_from_slice(rest);
                Some(out)
            }
            Pattern::Expression(from) => self.of_found(from, text, values),
        }
    }

    /// Replaces a domain, without regard to case; a dot before it stays.
    pub fn of_domain(&self, text: &[u8], values: &Values<'_>) -> Option<Vec<u8>> {
        match &self.from {
            Pattern::Text(from) => {
                let domain = text.strip_prefix(b".").unwrap_or(text);
                let from = from.strip_prefix(b".").unwrap_or(from);
                if !domain.eq_ignore_ascii_case(from) {
                    return None;
                }
                let mut out = text[..text.len() - domain.len()].to_vec();
                out.extend_from_slice(&self.to.expand(values));
                Some(out)
            }
            Pattern::Expression(from) => self.of_found(from, text, values),
        }
    }

    fn of_found(&self, from: &Regex, text: &[u8], values: &Values<'_>) -> Option<Vec<u8>> {
        let captures = from.captures(text)?;
        Some(
            self.to
                .expand_captured(values, |group| captures.get(group).map(|found| found.as_bytes())),
        )
    }
}

/// Words separated by spaces; quotes keep one together.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let quoted = matches!(first, '"' | '\'').then(|| rest[1..].split_once(first)).flatten();
        let (word, after) = match quoted {
            Some(parts) => parts,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::http::RequestHeader;

    fn replaced(value: &str, text: &str, domain: bool) -> Option<String> {
        let request = RequestHeader::build("GET", b"/x", None).unwrap();
        let values = Values {
            request: &request,
            request_uri: b"/x",
            path: b"/x",
            host: "shop.example",
            tls: true,
            forwarded_scheme: "https",
            client: "192.0.2.7".parse().unwrap(),
            port: 443,
            request_id: "",
            route: None,
        };
        let replacement = Replacement::parse(value).unwrap().unwrap();
        let out = match domain {
            true => replacement.of_domain(text.as_bytes(), &values),
            false => replacement.of_beginning(text.as_bytes(), &values),
        };
        out.map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn beginnings_and_expressions() {
        for (value, text, expected) in [
            ("/two/ /", "/two/some", Some("/some")),
            ("/two/ /", "/TWO/some", None),
            ("/ /app/", "/", Some("/app/")),
            (r#""/one two" /x"#, "/one two/y", Some("/x/y")),
            ("~*^/user/([^/]+) /u/$1", "/USER/ann/x", Some("/u/ann")),
            ("~^/user/ /u", "/USER/ann", None),
            ("http://in:80/ $scheme://$host/", "http://in:80/a", Some("https://shop.example/a")),
        ] {
            assert_eq!(replaced(value, text, false).as_deref(), expected, "{value}: {text}");
        }
    }

    #[test]
    fn domains_without_regard_to_case_and_dot() {
        for (value, text, expected) in [
            ("localhost shop.example", "LocalHost", Some("shop.example")),
            (".localhost shop.example", ".localhost", Some(".shop.example")),
            ("localhost shop.example", "a.localhost", None),
            ("~\\.internal$ $host", "a.internal", Some("shop.example")),
        ] {
            assert_eq!(replaced(value, text, true).as_deref(), expected, "{value}: {text}");
        }
    }

    #[test]
    fn what_is_no_replacement() {
        assert_eq!(Replacement::parse("off").unwrap(), None);
        for value in ["one", "one two three", "$host x", "a $unicorn", "~( x", "a $1"] {
            assert!(Replacement::parse(value).is_err(), "{value}");
        }
    }
}
