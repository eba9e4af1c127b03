//! Which clients are let in by address, and whether one guard is enough.

use super::values::{Refusal, networks};
use super::{Group, Row, honoured};
use crate::objects::ObjectKey;
use crate::source_ranges::SourceRanges;
use std::net::IpAddr;

const ROWS: &[Row] = &[
    honoured("whitelist-source-range"),
    honoured("allowlist-source-range"),
    honoured("denylist-source-range"),
    honoured("satisfy"),
];

/// Guards by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// `allowlist-source-range`, or `whitelist-source-range`; empty allows all.
    pub allowed: SourceRanges,
    /// `denylist-source-range`.
    pub denied: SourceRanges,
    /// `satisfy: any`: one guard that lets a client in is enough.
    pub any: bool,
    /// The newer of the two names was there; the older one no longer counts.
    newer_name: bool,
}

/// What the networks say of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is named among those let in.
    Allowed,
    /// It is named among those kept out, or not among those let in.
    Denied,
    /// Nothing is said.
    Neither,
}

impl Group for Access {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "allowlist-source-range" => {
                self.newer_name = true;
                self.allowed = ranges(value)?;
            }
            "whitelist-source-range" if self.newer_name => {}
            "whitelist-source-range" => self.allowed = ranges(value)?,
            "denylist-source-range" => self.denied = ranges(value)?,
            "satisfy" => match value {
                "any" => self.any = true,
                "all" => self.any = false,
                _ => return Err(Refusal::invalid("want any or all")),
            },
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

/// Networks and addresses. An empty list was meant to keep clients out like any other.
fn ranges(value: &str) -> Result<SourceRanges, Refusal> {
    let ranges = SourceRanges::new(networks(value)?);
    if ranges.is_empty() {
        return Err(Refusal::closes("the list is empty"));
    }
    Ok(ranges)
}

impl Access {
    /// What the networks say of a client. Denied ones come first, as in ingress-nginx.
    pub fn verdict(&self, client: IpAddr) -> Verdict {
        if self.denied.contains(client) {
            Verdict::Denied
        } else if self.allowed.is_empty() {
            Verdict::Neither
        } else if self.allowed.contains(client) {
            Verdict::Allowed
        } else {
            Verdict::Denied
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Access {
        let mut access = Access::default();
        for (name, value) in pairs {
            access.apply(name, value, &ObjectKey::new("shop", "web")).unwrap();
        }
        access
    }

    #[test]
    fn sources_are_admitted_deny_first() {
        let access = read(&[
            ("whitelist-source-range", "10.0.0.0/8, 192.0.2.7"),
            ("denylist-source-range", "10.1.0.0/16"),
        ]);
        for (client, verdict) in [
            ("10.2.0.1", Verdict::Allowed),
            ("10.1.0.1", Verdict::Denied),
            ("192.0.2.7", Verdict::Allowed),
            ("192.0.2.8", Verdict::Denied),
        ] {
            assert_eq!(access.verdict(client.parse().unwrap()), verdict, "{client}");
        }
        let denying = read(&[("denylist-source-range", "10.1.0.0/16")]);
        assert_eq!(denying.verdict("10.2.0.1".parse().unwrap()), Verdict::Neither);
    }

    #[test]
    fn the_newer_name_counts() {
        let both = [("allowlist-source-range", "10.0.0.1"), ("whitelist-source-range", "10.0.0.2")];
        assert_eq!(read(&both).verdict("10.0.0.1".parse().unwrap()), Verdict::Allowed);
        assert_eq!(read(&both).verdict("10.0.0.2".parse().unwrap()), Verdict::Denied);
    }

    #[test]
    fn lists_that_cannot_be_read_close() {
        for value in ["", " , ", "10.0.0.0/33", "10.0.0.1,nonsense", "10.0.0.1-10.0.0.9"] {
            let refusal = Access::default().apply(
                "denylist-source-range",
                value,
                &ObjectKey::new("shop", "web"),
            );
            assert!(matches!(refusal, Err(Refusal::Closes(_))), "{value:?}");
        }
    }
}
