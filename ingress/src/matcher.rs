//! Choosing a rule of one host by path: pure, changed rule by rule, read by every request.
//!
//! Two modes, as in ingress-nginx. Normally paths are Exact or Prefix (by element). In regex mode every
//! path of the host is an expression. In both the cost of a look-up does not depend on the number of
//! rules, only on the path and on how many rules could match it.

pub mod expression;
mod expressions;
mod paths;

pub use expressions::ExpressionMatcher;
pub use paths::PathMatcher;

/// How a rule's path is compared (Ingress v1 path types). ImplementationSpecific is Prefix, as in
/// ingress-nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathType {
    /// Byte for byte.
    Exact,
    /// Whole path elements; a trailing slash does not matter.
    Prefix,
}

/// The rules of one host in the order of their precedence. A copy shares what does not change.
#[derive(Clone, Debug)]
pub enum Matcher<R> {
    /// No rule of the host asked for expressions.
    Paths(PathMatcher<R>),
    /// Some rule has `use-regex` or a rewrite: all paths are expressions, longest text first.
    Expressions(Box<ExpressionMatcher<R>>),
}

impl<R> Default for Matcher<R> {
    fn default() -> Matcher<R> {
        Matcher::Paths(PathMatcher::default())
    }
}

impl<R: Clone> Matcher<R> {
    /// The rule for a normalised path.
    pub fn find(&self, path: &[u8]) -> Option<&R> {
        match self {
            Matcher::Paths(paths) => paths.find(path),
            Matcher::Expressions(expressions) => expressions.find(path),
        }
    }
}

/// The form under which a Prefix path is stored: `/foo` and `/foo/` are the same.
pub fn prefix_key(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

#[cfg(test)]
mod tests;
