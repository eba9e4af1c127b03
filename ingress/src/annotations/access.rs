//! Which clients are let in by address, and whether one guard is enough.

use super::values::{Refusal, networks};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;
use ipnet::IpNet;
use std::net::IpAddr;

const NOT_YET: &str = "not honoured yet";

const ROWS: &[Row] = &[
    honoured("whitelist-source-range"),
    honoured("allowlist-source-range"),
    honoured("denylist-source-range"),
    refused("satisfy", NOT_YET),
];

/// Guards by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// `whitelist-source-range` or `allowlist-source-range`; empty allows all.
    pub allowed_sources: Vec<IpNet>,
    /// `denylist-source-range`.
    pub denied_sources: Vec<IpNet>,
}

impl Group for Access {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "whitelist-source-range" | "allowlist-source-range" => {
                self.allowed_sources = networks(value)?;
            }
            "denylist-source-range" => self.denied_sources = networks(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

impl Access {
    /// Whether a client may use the location. Denied networks come first, as in ingress-nginx.
    pub fn admits(&self, client: IpAddr) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !within(&self.denied_sources)
            && (self.allowed_sources.is_empty() || within(&self.allowed_sources))
    }
}
