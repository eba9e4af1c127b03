//! A path as an expression: case-insensitive, on bytes, matched from the start of a path.

use regex::bytes::{Captures, Regex, RegexBuilder};
use regex_syntax::ast::Ast;
use regex_syntax::ast::parse::Parser;

/// The most memory the program of one expression may take.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// A compiled path. Most paths are plain text and need no regular expression at all.
#[derive(Debug)]
pub struct Expression {
    /// What every path it matches starts with, in lower case.
    literal: Box<[u8]>,
    /// The whole of it, unless the literal is that.
    anchored: Option<Regex>,
    /// The same without the anchor, where that makes a difference: `^/a|/b` may match anywhere.
    loose: Option<Regex>,
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
    /// Compiles a path as nginx's `~*` would. The error is one line.
    pub fn compile(path: &str) -> Result<Expression, String> {
        let ast = Parser::new().parse(path).map_err(|error| last_line(&error))?;
        let (literal, whole) = literal_prefix(&ast);
        if whole {
            return Ok(Expression { literal, anchored: None, loose: None });
        }
        let loose = matches!(ast, Ast::Alternation(_)).then(|| build(path)).transpose()?;
        Ok(Expression { literal, anchored: Some(build(&format!("^{path}"))?), loose })
    }

    /// What every path it matches starts with, in lower case.
    pub fn literal(&self) -> &[u8] {
        &self.literal
    }

    /// Whether it matches at the start of a path.
    pub fn is_match(&self, path: &[u8]) -> bool {
        match &self.anchored {
            Some(regex) => regex.is_match(path),
            None => starts_with(path, &self.literal),
        }
    }

    /// What it captures of a path that it matches anywhere.
    pub fn groups<'p>(&self, path: &'p [u8]) -> Option<Groups<'p>> {
        match self.loose.as_ref().or(self.anchored.as_ref()) {
            Some(regex) => regex.captures(path).map(Groups::Captured),
            None => starts_with(path, &self.literal).then_some(Groups::None),
        }
    }

    /// The number of a named group.
    pub fn group_named(&self, name: &str) -> Option<usize> {
        self.anchored.as_ref()?.capture_names().position(|group| group == Some(name))
    }
}

fn starts_with(path: &[u8], literal: &[u8]) -> bool {
    path.get(..literal.len()).is_some_and(|start| start.eq_ignore_ascii_case(literal))
}

fn build(pattern: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(true).unicode(false).size_limit(PROGRAM_BYTES_MAX);
    builder.build().map_err(|error| last_line(&error))
}

fn last_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string()
}

/// The characters an expression begins with, in lower case, and whether they are all of it.
fn literal_prefix(ast: &Ast) -> (Box<[u8]>, bool) {
    let parts = match ast {
        Ast::Empty(_) => &[],
        Ast::Concat(concat) => concat.asts.as_slice(),
        other => std::slice::from_ref(other),
    };
    let mut literal = Vec::new();
    for part in parts {
        match part {
            Ast::Literal(one) if one.c.is_ascii() => {
                literal.push(one.c.to_ascii_lowercase() as u8);
            }
            _ => return (literal.into(), false),
        }
    }
    (literal.into(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_told_from_expressions() {
        for (path, literal, whole) in [
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
            let expression = Expression::compile(path).unwrap();
            assert_eq!(expression.literal(), literal.as_bytes(), "{path}");
            assert_eq!(expression.anchored.is_none(), whole, "{path}");
        }
        assert_eq!(Expression::compile("/a(").unwrap_err(), "unclosed group");
    }

    #[test]
    fn alternatives_may_capture_anywhere() {
        let expression = Expression::compile("/a/(x)|/b/(y)").unwrap();
        assert!(expression.is_match(b"/c/b/y") && expression.is_match(b"/a/x"));
        let groups = expression.groups(b"/c/b/y/a/x").unwrap();
        assert_eq!((groups.get(1), groups.get(2)), (None, Some(b"y".as_slice())));
    }
}
