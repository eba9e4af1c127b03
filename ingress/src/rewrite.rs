//! `rewrite-target` of ingress-nginx: `rewrite "(?i)PATH" TARGET break;` of nginx, without nginx.
//!
//! The target replaces the whole path; `$1`… and named groups stand for what the rule's path captured;
//! the query is kept unless the target ends in `?`. Choosing the location is left to the matcher.

use crate::matcher::expression::{Expression, Groups};
use crate::uri::{Escape, escape_into};
use std::sync::Arc;
use thiserror::Error;

/// Why a rewrite target cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// nginx variables are not available: the target is typed, not a template.
    #[error(
        "names the variable ${0}, which is neither a capture group ($1…$9) nor a named group of the path"
    )]
    UnknownVariable(String),
    /// A `$` without a name.
    #[error("ends a variable before its name: write $1…$9 or a named group after each $")]
    BareDollar,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Vec<u8>),
    Group(usize),
}

/// A parsed rewrite target bound to the expression whose groups it names.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pattern: Arc<Expression>,
    path: Vec<Part>,
    query: Option<Vec<Part>>,
    keep_query: bool,
    redirect: bool,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// The new path and query for the endpoint.
    Path(Vec<u8>),
    /// The target is an absolute URL: nginx answers 302 instead of proxying.
    Redirect(Vec<u8>),
}

impl Rewrite {
    /// Parses `target`; `pattern` is the rule's path.
    pub fn parse(target: &str, pattern: Arc<Expression>) -> Result<Rewrite, TargetError> {
        let redirect = target.starts_with("http://") || target.starts_with("https://");
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        // A target ending in `?` drops the client's query.
        let keep_query = query.is_none_or(|query| !query.is_empty() && !query.ends_with('?'));
        let query =
            query.map(|query| query.strip_suffix('?').unwrap_or(query)).filter(|q| !q.is_empty());
        Ok(Rewrite {
            path: parse_parts(path, &pattern)?,
            query: query.map(|query| parse_parts(query, &pattern)).transpose()?,
            keep_query,
            redirect,
            pattern,
        })
    }

    /// What the rule's path captures of a path.
    pub fn groups<'p>(&self, path: &'p [u8]) -> Option<Groups<'p>> {
        self.pattern.groups(path)
    }

    /// Applies the rewrite to a normalised path. `quoted` says that the client sent percent escapes.
    /// `None` when the path does not match, which a matched location rules out.
    ///
    /// A path is escaped as a whole. Captures in a query or a Location are escaped where the client
    /// itself escaped something or wrote a `+`, as nginx does it, and where a query would be none
    /// otherwise.
    pub fn apply(&self, path: &[u8], query: Option<&[u8]>, quoted: bool) -> Option<Rewritten> {
        let captures = self.pattern.groups(path)?;
        let mut new_path = Vec::with_capacity(path.len() + 16);
        let escaped = quoted || path.contains(&b'+');
        let in_location = (self.redirect && escaped).then_some(Escape::Location);
        expand(&mut new_path, &self.path, &captures, in_location);
        let mut out = Vec::with_capacity(new_path.len() + query.map_or(0, |q| q.len() + 1));
        if self.redirect {
            out = new_path;
        } else {
            escape_into(&mut out, &new_path, Escape::Path);
        }
        if let Some(parts) = &self.query {
            out.push(b'?');
            let no_query = || path.iter().any(|b| *b <= b' ' || b"\"<>\x7f".contains(b));
            let in_query = match self.redirect {
                true => in_location,
                false => (escaped || no_query()).then_some(Escape::Args),
            };
            expand(&mut out, parts, &captures, in_query);
        }
        if let Some(query) = query.filter(|query| self.keep_query && !query.is_empty()) {
            out.push(if self.query.is_some() { b'&' } else { b'?' });
            out.extend_from_slice(query);
        }
        if self.redirect {
            return Some(Rewritten::Redirect(out));
        }
        if out.first() != Some(&b'/') {
            out.insert(0, b'/');
        }
        Some(Rewritten::Path(out))
    }
}

fn expand(out: &mut Vec<u8>, parts: &[Part], captures: &Groups<'_>, escape: Option<Escape>) {
    for part in parts {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Group(group) => {
                let Some(captured) = captures.get(*group) else {
                    continue;
                };
                match escape {
                    Some(escape) => escape_into(out, captured, escape),
                    None => out.extend_from_slice(captured),
                }
            }
        }
    }
}

fn parse_parts(text: &str, pattern: &Expression) -> Result<Vec<Part>, TargetError> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        if dollar > 0 {
            parts.push(Part::Literal(rest[..dollar].into()));
        }
        rest = &rest[dollar + 1..];
        let (name, after) = take_name(rest);
        rest = after;
        parts.push(Part::Group(group_of(name, pattern)?));
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest.into()));
    }
    Ok(parts)
}

/// The variable name at the start of `text` (`1`, `name` or `{name}`) and what follows it.
fn take_name(text: &str) -> (&str, &str) {
    if let Some(braced) = text.strip_prefix('{')
        && let Some((name, rest)) = braced.split_once('}')
    {
        return (name, rest);
    }
    // nginx reads exactly one digit as a group number.
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return text.split_at(1);
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

fn group_of(name: &str, pattern: &Expression) -> Result<usize, TargetError> {
    if name.is_empty() {
        return Err(TargetError::BareDollar);
    }
    if let Ok(number @ 1..) = name.parse::<usize>() {
        return Ok(number);
    }
    pattern.group_named(name).ok_or_else(|| TargetError::UnknownVariable(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::expression::build;

    fn check(path: &str, target: &str, sent: &str, expected: &str) {
        let rewrite =
            Rewrite::parse(target, Arc::new(Expression::compile(path, build).unwrap())).unwrap();
        let sent = crate::uri::Target::parse(sent.as_bytes()).unwrap();
        let normal = crate::uri::normalize(sent.path).unwrap();
        let out = match rewrite.apply(&normal.path, sent.query, normal.quoted).unwrap() {
            Rewritten::Path(path) => String::from_utf8(path).unwrap(),
            Rewritten::Redirect(url) => format!("302 {}", String::from_utf8(url).unwrap()),
        };
        assert_eq!(out, expected, "path {path} target {target}");
    }

    #[test]
    fn the_target_replaces_the_whole_path() {
        check("/app", "/", "/app", "/");
        check("/app", "/", "/app/x", "/");
        check("/app", "/", "/application", "/");
        check("/app", "/", "/APP/x?q=1", "/?q=1");
    }

    #[test]
    fn groups_are_numbered_and_named() {
        check("/something(/|$)(.*)", "/$2", "/something", "/");
        check("/something(/|$)(.*)", "/$2", "/something/new?a=b", "/new?a=b");
        check("/v(?<version>[0-9])/(.*)", "/api-$version/$2", "/v2/items", "/api-2/items");
        check("/a/(.*)", "/$1/$7", "/a/b", "/b/");
        check("/a/(.*)", "/${1}0", "/a/b", "/b0");
        check("/a/(.*)", "/$10", "/a/b", "/b0");
    }

    #[test]
    fn queries_are_kept_extended_or_dropped() {
        check("/a/(.*)", "/x?p=$1", "/a/b", "/x?p=b");
        check("/a/(.*)", "/x?p=$1", "/a/b?c=d", "/x?p=b&c=d");
        check("/a/(.*)", "/x?", "/a/b?c=d", "/x");
        check("/a/(.*)", "/x?p=1?", "/a/b?c=d", "/x?p=1");
    }

    #[test]
    fn escapes_survive_a_rewrite() {
        check("/a/(.*)", "/$1", "/a/b%20c", "/b%20c");
        check("/a/(.*)", "/x?p=$1", "/a/b%26c", "/x?p=b%26c");
        check("/a/(.*)", "/$1", "/a//b/../c", "/c");
        check("/a/(.*)", "/$1", "/a/\"b\"|é", "/%22b%22%7C%C3%A9");
        check("/a/(.*)", "/x?p=$1", "/a/b&c", "/x?p=b&c");
        check("/a/(.*)", "/x?p=$1", "/a/b&c+d", "/x?p=b%26c%2Bd");
        check("/a/(.*)", "/x?p=$1", "/a/\"b\"", "/x?p=%22b%22");
    }

    #[test]
    fn an_absolute_target_redirects() {
        check(
            "/old/(.*)",
            "https://new.example/$1",
            "/old/page?x=1",
            "302 https://new.example/page?x=1",
        );
        check("/old/(.*)", "https://new.example/$1", "/old/a%20b", "302 https://new.example/a%20b");
    }

    #[test]
    fn unknown_variables_are_refused() {
        let pattern = Arc::new(Expression::compile("/a", build).unwrap());
        let error = Rewrite::parse("/$host", pattern.clone()).unwrap_err();
        assert_eq!(error, TargetError::UnknownVariable("host".into()));
        assert_eq!(Rewrite::parse("/a$", pattern).unwrap_err(), TargetError::BareDollar);
    }
}
