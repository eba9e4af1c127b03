//! A path as an expression: case-insensitive, on bytes, matched from the start of a path.

use regex::bytes::{Captures, Regex, RegexBuilder};
use regex_syntax::ast::Ast;
use regex_syntax::ast::parse::Parser;
use std::sync::Arc;

/// The most memory the program of one expression may take.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// A compiled path. Most paths are plain text, and most of the others differ in nothing but the text they
/// begin with: what follows it is compiled by itself, to be shared.
#[derive(Debug)]
pub struct Expression {
    /// What every path it matches starts with, in lower case.
    literal: Box<[u8]>,
    rest: Rest,
}

/// What there is besides the literal.
#[derive(Debug)]
enum Rest {
    Nothing,
    /// For what comes after the literal.
    After(Arc<Regex>),
    /// For the whole path: it looks at what is around a place.
    Whole(Arc<Regex>),
    /// For the whole path, anchored and not: `^/a|/b` may match anywhere.
    Alternatives(Arc<Regex>, Arc<Regex>),
}

/// What the groups of an expression captured.
pub enum Groups<'p> {
    /// It has none.
    None,
    /// These.
    Captured(Captures<'p>),
}

impl<'p> Groups<'p> {
    /// The bytes a group captured.
    pub fn get(&self, group: usize) -> Option<&'p [u8]> {
        match self {
            Groups::None => None,
            Groups::Captured(captures) => captures.get(group).map(|group| group.as_bytes()),
        }
    }
}

impl Expression {
    /// Compiles a path as nginx's `~*` would. `build` makes a regular expression of a text, or finds one
    /// made before. The error is one line.
    pub fn compile(
        path: &str,
        mut build: impl FnMut(&str) -> Result<Arc<Regex>, String>,
    ) -> Result<Expression, String> {
        let ast = Parser::new().parse(path).map_err(|error| last_line(&error))?;
        let (literal, end) = literal_prefix(&ast);
        let rest = if end == path.len() {
            Rest::Nothing
        } else if matches!(ast, Ast::Alternation(_)) {
            Rest::Alternatives(build(&format!("^{path}"))?, build(path)?)
        } else if looks_around(&path[end..]) {
            Rest::Whole(build(&format!("^{path}"))?)
        } else {
            Rest::After(build(&format!("^{}", &path[end..]))?)
        };
        Ok(Expression { literal, rest })
    }

    /// What every path it matches starts with, in lower case.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Whether it matches at the start of a path.
    pub fn is_match(&self, path: &[u8]) -> bool {
        match &self.rest {
            Rest::Nothing => self.after_literal(path).is_some(),
            Rest::After(regex) => self.after_literal(path).is_some_and(|rest| regex.is_match(rest)),
            Rest::Whole(regex) | Rest::Alternatives(regex, _) => regex.is_match(path),
        }
    }

    /// What it captures of a path that it matches anywhere.
    pub fn groups<'p>(&self, path: &'p [u8]) -> Option<Groups<'p>> {
        let captures = match &self.rest {
            Rest::Nothing => return self.after_literal(path).map(|_| Groups::None),
            Rest::After(regex) => regex.captures(self.after_literal(path)?),
            Rest::Whole(regex) | Rest::Alternatives(_, regex) => regex.captures(path),
        };
        captures.map(Groups::Captured)
    }

    /// The number of a named group.
    pub fn group_named(&self, name: &str) -> Option<usize> {
        let (Rest::After(regex) | Rest::Whole(regex) | Rest::Alternatives(regex, _)) = &self.rest
        else {
            return None;
        };
        regex.capture_names().position(|group| group == Some(name))
    }

    fn after_literal<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let (start, rest) = path.split_at_checked(self.literal.len())?;
        start.eq_ignore_ascii_case(&self.literal).then_some(rest)
    }
}

/// Whether something in an expression depends on what is before it. To say yes is safe.
fn looks_around(rest: &str) -> bool {
    rest.contains('^') || rest.contains('\\')
}

/// Makes a regular expression as nginx's `~*` has them.
pub fn build(pattern: &str) -> Result<Arc<Regex>, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(true).unicode(false).size_limit(PROGRAM_BYTES_MAX);
    builder.build().map(Arc::new).map_err(|error| last_line(&error))
}

fn last_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
}

/// The characters an expression begins with, in lower case, and where in its text they end.
fn literal_prefix(ast: &Ast) -> (Box<[u8]>, usize) {
    let parts = match ast {
        Ast::Empty(_) => &[],
        Ast::Concat(concat) => concat.asts.as_slice(),
        other => std::slice::from_ref(other),
    };
    let (mut literal, mut end) = (Vec::new(), 0);
    for part in parts {
        match part {
            Ast::Literal(one) if one.c.is_ascii() => {
                literal.push(one.c.to_ascii_lowercase() as u8);
                end = one.span.end.offset;
            }
            _ => break,
        }
    }
    (literal.into(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_told_from_expressions() {
        for (path, literal, plain) in [
            ("/", "/", true),
            ("/Foo-bar", "/foo-bar", true),
            (r"/a\.b", "/a.b", true),
            ("/a.b", "/a", false),
            ("/foo(/|$)(.*)", "/foo", false),
            ("/foo?", "/fo", false),
            ("/foo|/bar", "", false),
            ("/a/(?-i)B", "/a/", false),
            ("(?-i)/B", "", false),
            ("/caf\u{e9}", "/caf", false),
            ("", "", true),
        ] {
            let expression = Expression::compile(path, build).unwrap();
            assert_eq!(expression.literal(), literal.as_bytes(), "{path}");
            assert_eq!(matches!(expression.rest, Rest::Nothing), plain, "{path}");
        }
        assert_eq!(Expression::compile("/a(", build).unwrap_err(), "unclosed group");
    }

    #[test]
    fn alternatives_may_capture_anywhere() {
        let expression = Expression::compile("/a/(x)|/b/(y)", build).unwrap();
        assert!(expression.is_match(b"/c/b/y") && expression.is_match(b"/a/x"));
        let groups = expression.groups(b"/c/b/y/a/x").unwrap();
        assert_eq!((groups.get(1), groups.get(2)), (None, Some(b"y".as_slice())));
    }

    #[test]
    fn what_follows_the_text_is_shared() {
        let mut built = Vec::new();
        for path in ["/one(/|$)(.*)", "/two(/|$)(.*)", r"/a.b\b", "/a.(^/b)"] {
            let make = |pattern: &str| {
                built.push(pattern.to_string());
                build(pattern)
            };
            Expression::compile(path, make).unwrap();
        }
        assert_eq!(built, ["^(/|$)(.*)", "^(/|$)(.*)", r"^/a.b\b", "^/a.(^/b)"]);
        let expression = Expression::compile("/one(/|$)(.*)", build).unwrap();
        let groups = expression.groups(b"/ONE/x").unwrap();
        assert_eq!((groups.get(1), groups.get(2)), (Some(b"/".as_slice()), Some(b"x".as_slice())));
        assert!(expression.groups(b"/onex").is_none() && expression.groups(b"/on").is_none());
        assert!(!Expression::compile("/a.(^/b)", build).unwrap().is_match(b"/ax/b"));
    }
}
