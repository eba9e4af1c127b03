//! `proxy-next-upstream*`: after which failures another endpoint is tried. As nginx decides it, with every
//! fact as an argument.

use crate::annotations::values::Refusal;
use http::Method;
use std::time::Duration;

/// The most attempts any request makes: the limit of the proxy underneath.
const TRIES_LIMIT: usize = 16;

/// What went wrong with an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Error,
    /// It took too long.
    Timeout,
    /// The answer is not HTTP.
    InvalidHeader,
    /// The endpoint answered with this status.
    Status(u16),
}

impl Failure {
    /// The status nginx gives the attempt, and the client if it was the last.
    pub fn status(self) -> u16 {
        match self {
            Failure::Error | Failure::InvalidHeader => 502,
            Failure::Timeout => 504,
            Failure::Status(status) => status,
        }
    }
}

/// `proxy-next-upstream`: a set of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions(u16);

const NAMES: &[(&str, u16)] = &[
    ("error", 1),
    ("timeout", 1 << 1),
    ("invalid_header", 1 << 2),
    ("http_500", 1 << 3),
    ("http_502", 1 << 4),
    ("http_503", 1 << 5),
    ("http_504", 1 << 6),
    ("http_403", 1 << 7),
    ("http_404", 1 << 8),
    ("http_429", 1 << 9),
    ("non_idempotent", NON_IDEMPOTENT),
];
const NON_IDEMPOTENT: u16 = 1 << 10;

impl Conditions {
    /// Reads the value of the annotation. `off` among others turns all off.
    pub fn parse(value: &str) -> Result<Conditions, Refusal> {
        let mut set = 0;
        let mut off = value.is_empty();
        for word in value.split_whitespace() {
            match NAMES.iter().find(|(name, _)| *name == word) {
                Some((_, bit)) => set |= bit,
                None if word == "off" => off = true,
                None => {
                    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                    let want = format!("{word:?} is none of {}, off", names.join(", "));
                    return Err(Refusal::invalid(want));
                }
            }
        }
        Ok(Conditions(if off { 0 } else { set }))
    }

    /// Whether any answer of an endpoint is a reason to ask another one.
    pub fn any_status(self) -> bool {
        self.0 & !(1 | 1 << 1 | 1 << 2 | NON_IDEMPOTENT) != 0
    }

    fn holds(self, failure: Failure) -> bool {
        let bit = match failure {
            Failure::Error => 1,
            Failure::Timeout => 1 << 1,
            Failure::InvalidHeader => 1 << 2,
            Failure::Status(500) => 1 << 3,
            Failure::Status(502) => 1 << 4,
            Failure::Status(503) => 1 << 5,
            Failure::Status(504) => 1 << 6,
            Failure::Status(403) => 1 << 7,
            Failure::Status(404) => 1 << 8,
            Failure::Status(429) => 1 << 9,
            Failure::Status(_) => 0,
        };
        self.0 & bit != 0
    }
}

/// All of `proxy-next-upstream*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After what.
    pub on: Conditions,
    /// How many attempts in all; 0 is as many as possible.
    pub tries_max: usize,
    /// How long after the first attempt another may begin; zero is forever.
    pub timeout: Duration,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { on: Conditions(1 | 1 << 1), tries_max: 3, timeout: Duration::ZERO }
    }
}

/// What a retry is decided on.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// Of the request.
    pub method: &'a Method,
    /// Some of the request may be with the endpoint.
    pub sent: bool,
    /// Attempts made, the failed one included.
    pub tries: usize,
    /// Since the first attempt began.
    pub elapsed: Duration,
}

impl Retry {
    /// Whether to try another endpoint.
    pub fn goes_on(&self, failure: Failure, attempted: Attempted<'_>) -> bool {
        let tries_max = if self.tries_max == 0 { TRIES_LIMIT } else { self.tries_max };
        let in_time = self.timeout.is_zero() || attempted.elapsed < self.timeout;
        let repeatable = !attempted.sent
            || !is_non_idempotent(attempted.method)
            || self.on.0 & NON_IDEMPOTENT != 0;
        attempted.tries < tries_max.min(TRIES_LIMIT)
            && in_time
            && repeatable
            && self.on.holds(failure)
    }
}

/// As nginx: every method but these may be repeated.
pub fn is_non_idempotent(method: &Method) -> bool {
    *method == Method::POST || *method == Method::PATCH || method.as_str() == "LOCK"
}

/// Seconds, where zero turns the limit off.
pub fn timeout(value: &str) -> Result<Duration, Refusal> {
    let seconds = value.strip_suffix('s').unwrap_or(value).parse::<u32>();
    let seconds = seconds.map_err(|_| Refusal::invalid("want a number of seconds"))?;
    Ok(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_on(on: &str, method: Method, sent: bool, tries: usize, failure: Failure) -> bool {
        let retry = Retry { on: Conditions::parse(on).unwrap(), ..Retry::default() };
        let attempted = Attempted { method: &method, sent, tries, elapsed: Duration::from_secs(9) };
        retry.goes_on(failure, attempted)
    }

    #[test]
    fn conditions_methods_and_tries() {
        let (error, timeout) = (Failure::Error, Failure::Timeout);
        let default = "error timeout";
        for (on, method, sent, tries, failure, expected) in [
            (default, Method::GET, true, 1, error, true),
            (default, Method::GET, true, 2, timeout, true),
            (default, Method::GET, true, 3, error, false),
            (default, Method::PUT, true, 1, error, true),
            (default, Method::POST, false, 1, error, true),
            (default, Method::POST, true, 1, error, false),
            (default, Method::PATCH, true, 1, timeout, false),
            ("error timeout non_idempotent", Method::POST, true, 1, error, true),
            (default, Method::GET, true, 1, Failure::InvalidHeader, false),
            ("invalid_header", Method::GET, true, 1, Failure::InvalidHeader, true),
            (default, Method::GET, true, 1, Failure::Status(502), false),
            ("http_502", Method::GET, true, 1, Failure::Status(502), true),
            ("http_502", Method::GET, true, 1, Failure::Status(500), false),
            ("http_502", Method::GET, true, 1, error, false),
            ("http_404 http_429", Method::GET, true, 1, Failure::Status(429), true),
            ("http_502", Method::POST, true, 1, Failure::Status(502), false),
            ("off", Method::GET, false, 1, error, false),
            ("error off", Method::GET, false, 1, error, false),
        ] {
            let described = format!("{on} {method} {sent} {tries} {failure:?}");
            assert_eq!(goes_on(on, method, sent, tries, failure), expected, "{described}");
        }
    }

    #[test]
    fn a_limit_of_time_ends_them() {
        let attempted = |elapsed: u64| Attempted {
            method: &Method::GET,
            sent: true,
            tries: 1,
            elapsed: Duration::from_secs(elapsed),
        };
        let retry = Retry { timeout: Duration::from_secs(5), ..Retry::default() };
        assert!(retry.goes_on(Failure::Error, attempted(4)));
        assert!(!retry.goes_on(Failure::Error, attempted(5)));
        let endless = Retry { tries_max: 0, ..Retry::default() };
        let tried = |tries| Attempted { tries, ..attempted(1000) };
        assert!(endless.goes_on(Failure::Error, tried(15)));
        assert!(!endless.goes_on(Failure::Error, tried(16)));
    }
}
