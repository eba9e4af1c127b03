//! What the fuzz targets in `fuzz/` and their short run in `tests/fuzzing.rs` call: each takes any bytes, and
//! panics where something does not hold. No part of the interface.

#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use crate::annotations::{self, PREFIX, Settings};
use crate::htpasswd::Passwords;
use crate::matcher::expression::{Expression, build};
use crate::matcher::{ExpressionMatcher, PathMatcher, PathType, prefix_key};
use crate::objects::ObjectKey;
use crate::objects::ingress::Annotations;
use crate::proxy::framing;
use crate::proxy::target::RequestTarget;
use crate::rewrite::{Rewrite, Rewritten};
use crate::uri::{self, Escape, Target};
use pingora::protocols::http::ServerSession;
use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

/// Lines of `name=value`; names of a number stand for the known annotations in turn.
pub fn annotations(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let names: Vec<&str> = annotations::known().into_keys().collect();
    let lines = text.split('\n').filter_map(|line| line.split_once('='));
    let written: Annotations = lines
        .map(|(name, value)| {
            let known = name.parse::<usize>().ok().and_then(|at| names.get(at % names.len()));
            (format!("{PREFIX}{}", known.unwrap_or(&name)), value.to_string())
        })
        .collect();
    let key = ObjectKey::new("shop", "web");
    let read = annotations::parse(&key, &written, &Settings::default());
    let again = annotations::parse(&key, &written, &Settings::default());
    assert_eq!(read.settings, again.settings);
    assert_eq!((read.closed, read.problems.len()), (again.closed, again.problems.len()));
    assert!(!read.closed || !read.problems.is_empty(), "closed without saying why");
    let named = read.settings.named_objects();
    assert!(named.iter().all(|(_, key)| !key.name.is_empty()), "names nothing: {named:?}");
}

/// A path, then rules, a line each, `=` before an Exact one: the longest rule that matches is found.
pub fn matcher(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n').take(64);
    let path = lines.next().unwrap_or_default().as_bytes();
    if path.first() != Some(&b'/') {
        return;
    }
    let mut rules: HashMap<(PathType, Arc<str>), usize> = HashMap::new();
    let mut matcher = PathMatcher::default();
    for (at, line) in lines.enumerate() {
        let (path_type, rule) = match line.strip_prefix('=') {
            Some(rule) => (PathType::Exact, rule),
            None => (PathType::Prefix, prefix_key(line)),
        };
        if rule.starts_with('/') {
            // Every third one takes its rule away again.
            let set = (at % 3 != 2).then_some(at);
            let key: Arc<str> = rule.into();
            matcher.set(path_type, &key, set);
            match set {
                Some(at) => drop(rules.insert((path_type, key), at)),
                None => drop(rules.remove(&(path_type, key))),
            }
        }
    }
    let matching = rules.iter().filter(|((path_type, rule), _)| {
        let rest = path.strip_prefix(rule.as_bytes());
        match path_type {
            PathType::Exact => rest == Some(b""),
            PathType::Prefix => {
                rest.is_some_and(|rest| &**rule == "/" || rest.is_empty() || rest[0] == b'/')
            }
        }
    });
    let best =
        matching.max_by_key(|((path_type, rule), _)| (*path_type == PathType::Exact, rule.len()));
    assert_eq!(matcher.find(path), best.map(|(_, at)| at), "{rules:?}");
}

/// A path, then expressions, a line each: the first in order that matches is found.
pub fn expressions(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n').take(32);
    let path = lines.next().unwrap_or_default().as_bytes();
    let mut matcher = ExpressionMatcher::default();
    let mut all: Vec<(Arc<str>, Regex)> = Vec::new();
    for line in lines.filter(|line| line.starts_with('/') && line.len() < 200) {
        let text: Arc<str> = line.into();
        let mut whole = RegexBuilder::new(&format!("^{text}"));
        let whole = whole.case_insensitive(true).unicode(false).size_limit(1 << 20).build();
        if let (Ok(expression), Ok(whole)) = (Expression::compile(&text, build), whole)
            && all.iter().all(|(known, _)| *known != text)
        {
            let expression = Arc::new(expression);
            matcher.set(&text, &expression, [(expression.clone(), text.clone())]);
            all.push((text, whole));
        }
    }
    all.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| b.cmp(a)));
    let first = all.iter().find(|(_, whole)| whole.is_match(path));
    assert_eq!(matcher.find(path), first.map(|(text, _)| text));
}

/// A request target, an expression and a rewrite target, a line each.
pub fn uri(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    // The HTTP library lets nothing else through.
    let Some(target) = Target::parse(target).filter(|_| target.iter().all(|b| *b > b' ')) else {
        return;
    };
    let Some(normal) = uri::normalize(target.path).filter(|_| target.path.starts_with(b"/")) else {
        return;
    };
    assert_eq!(normal.path.first(), Some(&b'/'));
    let segments = normal.path[1..].split(|byte| *byte == b'/');
    assert!(segments.clone().all(|segment| segment != b".." && segment != b"."));
    assert!(!normal.path.windows(2).any(|two| two == b"//"));
    let mut escaped = Vec::new();
    uri::escape_into(&mut escaped, &normal.path, Escape::Path);
    assert_eq!(uri::normalize(&escaped).unwrap().path, normal.path);

    let mut text = || String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (path, to) = (text(), text());
    let Some(rewrite) = Expression::compile(&path, build)
        .ok()
        .and_then(|expression| Rewrite::parse(&to, Arc::new(expression)).ok())
    else {
        return;
    };
    match rewrite.apply(&normal.path, None, normal.quoted) {
        Some(Rewritten::Path(path)) => {
            assert_eq!(path.first(), Some(&b'/'));
            // The target itself is written by whoever writes the Ingress.
            let plain = to.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(!plain || path.iter().all(|byte| *byte > b' '), "breaks a request line");
        }
        Some(Rewritten::Redirect(_)) | None => {}
    }
}

/// A file of passwords, with names and passwords.
pub fn passwords(data: &[u8]) {
    let (passwords, problems) = Passwords::from_file(data);
    let lines = data.split(|byte| b"\r\n".contains(byte)).filter(|line| !line.is_empty()).count();
    assert!(problems.len() <= lines);
    assert!(passwords.is_empty() || lines > 0);
}

/// What a client sends on an HTTP/1 connection: a request is refused, or has one target, one host and one
/// length.
pub fn http_edge(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut session = ServerSession::new_http1(Box::new(Cursor::new(data.to_vec())));
        if !matches!(session.read_request().await, Ok(true)) || framing::check(&session).is_err() {
            return;
        }
        let request = session.req_header();
        let Some(target) = RequestTarget::read(request) else {
            return;
        };
        assert_eq!(target.path.first(), Some(&b'/'));
        assert!(!target.path.contains(&0));
        assert!(!target.host.bytes().any(|byte| byte <= b' ' || byte.is_ascii_uppercase()));
        assert!(request.headers.get_all("host").iter().count() <= 1);
        assert!(request.headers.get_all("content-length").iter().count() <= 1);
        let framings = ["content-length", "transfer-encoding"];
        assert!(!framings.iter().all(|name| request.headers.contains_key(*name)), "two framings");
        for value in request.headers.values() {
            assert!(!value.as_bytes().iter().any(|byte| b"\r\n\0".contains(byte)), "{value:?}");
        }
        let mut bytes = 0;
        while let Ok(Some(part)) = session.read_request_body().await {
            bytes += part.len();
        }
        assert!(bytes <= data.len(), "more body than was sent");
    });
}
