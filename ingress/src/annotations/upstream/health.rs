//! `podium.dev/*`: which endpoints are left alone for a while. Annotations of this controller's own;
//! ingress-nginx has nothing of the kind.

use super::BackendProtocol;
use super::tls::UpstreamTls;
use crate::annotations::values::{Refusal, number, seconds};
use std::time::Duration;

/// The prefix of this controller's own annotations.
pub const PREFIX: &str = "podium.dev/";

/// Health of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `max-fails`: connections that fail within `fail_timeout` until an endpoint rests; 0 is never.
    pub fails_max: u32,
    /// `fail-timeout`: within what time they count, and how long it rests.
    pub fail_timeout: Duration,
    /// `health-check-*`.
    pub check: HealthCheck,
    /// `slow-start`: how long a new endpoint takes to its full share; zero is at once.
    pub slow_start: Duration,
}

/// Requests of our own that find out whether an endpoint works.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HealthCheck {
    /// `health-check-path`; `None` turns them off.
    pub path: Option<String>,
    /// In TLS.
    pub tls: bool,
    /// `health-check-interval`.
    pub interval: Duration,
    /// `health-check-timeout`.
    pub timeout: Duration,
    /// `health-check-healthy-threshold`: good answers in a row until it is used again.
    pub healthy: u32,
    /// `health-check-unhealthy-threshold`: bad answers in a row until it is not used.
    pub unhealthy: u32,
}

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        HealthCheck {
            path: None,
            tls: false,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            healthy: 2,
            unhealthy: 3,
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            fails_max: 3,
            fail_timeout: Duration::from_secs(10),
            check: HealthCheck::default(),
            slow_start: Duration::ZERO,
        }
    }
}

impl Health {
    /// Takes the value of one of its annotations, named without the prefix.
    pub fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "health-check-path" => self.check.path = Some(path(value)?),
            "health-check-interval" => self.check.interval = seconds(value)?,
            "health-check-timeout" => self.check.timeout = seconds(value)?,
            "health-check-healthy-threshold" => self.check.healthy = threshold(value)?,
            "health-check-unhealthy-threshold" => self.check.unhealthy = threshold(value)?,
            "max-fails" => self.fails_max = number(value)?,
            "fail-timeout" => self.fail_timeout = seconds(value)?,
            "slow-start" => self.slow_start = super::retry::timeout(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    /// Looks at them together.
    pub fn finish(
        &mut self,
        protocol: BackendProtocol,
        tls: &UpstreamTls,
    ) -> Vec<(&'static str, Refusal)> {
        self.check.tls = protocol.is_tls(false);
        if self.check.path.is_none() || !(protocol.is_h2() || tls.secret.is_some()) {
            return Vec::new();
        }
        self.check.path = None;
        let why = "is for endpoints that speak HTTP/1.1 and ask for no certificate; use a readiness \
                   probe of the pods";
        vec![("podium.dev/health-check-path", Refusal::Refused(why.into()))]
    }
}

fn path(value: &str) -> Result<String, Refusal> {
    if !value.starts_with('/') || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::invalid("want a path that begins with a slash"));
    }
    Ok(value.into())
}

fn threshold(value: &str) -> Result<u32, Refusal> {
    match value.parse() {
        Ok(times @ 1..) => Ok(times),
        _ => Err(Refusal::invalid("want a positive number of answers")),
    }
}
