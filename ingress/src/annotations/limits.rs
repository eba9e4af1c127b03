//! How much a client may ask for: bodies, rates, requests at a time, bandwidth.

use super::values::{Refusal, networks, number, parse_size};
use super::{Group, Row, honoured, refused};
use crate::objects::ObjectKey;
use crate::rates::Rate;
use crate::source_ranges::SourceRanges;

const GLOBAL: &str = "limits shared by all controllers need a memcached; limit-rps, limit-rpm and limit-connections hold for each controller";

const ROWS: &[Row] = &[
    honoured("proxy-body-size"),
    honoured("limit-rps"),
    honoured("limit-rpm"),
    honoured("limit-connections"),
    honoured("limit-whitelist"),
    honoured("limit-allowlist"),
    honoured("limit-burst-multiplier"),
    honoured("limit-rate"),
    honoured("limit-rate-after"),
    refused("global-rate-limit", GLOBAL),
    refused("global-rate-limit-window", GLOBAL),
    refused("global-rate-limit-key", GLOBAL),
    refused("global-rate-limit-ignored-cidrs", GLOBAL),
];

/// Limits of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `proxy-body-size` in bytes; 0 is unlimited.
    pub body_bytes_max: u64,
    /// `limit-rps` and `limit-rpm`, for each client.
    pub rates: [Option<Rate>; 2],
    /// `limit-connections`: requests in progress, for each client; 0 is unlimited.
    pub connections_max: u32,
    /// `limit-allowlist`, or `limit-whitelist`: clients without limits.
    pub unlimited: SourceRanges,
    /// `limit-rate` in bytes a second, for each answer; 0 is unlimited.
    pub answer_bytes_per_second: u64,
    /// `limit-rate-after`: so many bytes of an answer come before that.
    pub answer_bytes_free: u64,
    told: Told,
}

/// What single annotations say.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    per_second: u32,
    per_minute: u32,
    burst_multiplier: u32,
    newer_name: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 1 << 20,
            rates: [None; 2],
            connections_max: 0,
            unlimited: SourceRanges::default(),
            answer_bytes_per_second: 0,
            answer_bytes_free: 0,
            told: Told { per_second: 0, per_minute: 0, burst_multiplier: 5, newer_name: false },
        }
    }
}

impl Group for Limits {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        let told = &mut self.told;
        match name {
            "proxy-body-size" => {
                self.body_bytes_max = parse_size(value)
                    .ok_or_else(|| Refusal::invalid("want a number of bytes with k, m or g"))?;
            }
            "limit-rps" => told.per_second = limit(value)?,
            "limit-rpm" => told.per_minute = limit(value)?,
            "limit-connections" => self.connections_max = limit(value)?,
            "limit-burst-multiplier" => match limit(value)? {
                0 => return Err(Refusal::invalid("want a positive number")),
                multiplier => told.burst_multiplier = multiplier,
            },
            "limit-allowlist" => {
                told.newer_name = true;
                self.unlimited = clients(value)?;
            }
            "limit-whitelist" if told.newer_name => {}
            "limit-whitelist" => self.unlimited = clients(value)?,
            "limit-rate" => self.answer_bytes_per_second = u64::from(limit(value)?) << 10,
            "limit-rate-after" => self.answer_bytes_free = u64::from(limit(value)?) << 10,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        let Told { per_second, per_minute, burst_multiplier, .. } = self.told;
        let rate = |requests: u32, seconds| {
            (requests > 0).then(|| Rate::new(requests, seconds, burst_multiplier))
        };
        self.rates = [rate(per_second, 1), rate(per_minute, 60)];
        Vec::new()
    }
}

impl Limits {
    /// The defaults with another limit of bodies.
    pub fn of_bodies(body_bytes_max: u64) -> Limits {
        Limits { body_bytes_max, ..Limits::default() }
    }

    /// Clients are counted one by one.
    pub fn by_client(&self) -> bool {
        self.connections_max > 0 || self.rates.iter().any(Option::is_some)
    }
}

/// A whole number; as in ingress-nginx one below zero sets no limit either.
fn limit(value: &str) -> Result<u32, Refusal> {
    let value: i64 = number(value)?;
    u32::try_from(value.max(0)).map_err(|_| Refusal::invalid("the number is too large"))
}

/// Clients that go free. A wrong list frees none, which opens nothing.
fn clients(value: &str) -> Result<SourceRanges, Refusal> {
    let networks = networks(value).map_err(|_| Refusal::invalid("want addresses and networks"))?;
    Ok(SourceRanges::new(networks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Limits, Vec<Refusal>) {
        let mut limits = Limits::default();
        let ingress = ObjectKey::new("shop", "web");
        let refused =
            pairs.iter().filter_map(|(name, value)| limits.apply(name, value, &ingress).err());
        let refused = refused.collect();
        assert!(limits.finish().is_empty());
        (limits, refused)
    }

    #[test]
    fn limits_come_together() {
        let (limits, refused) = read(&[
            ("limit-burst-multiplier", "3"),
            ("limit-rpm", "60"),
            ("limit-rps", "2"),
            ("limit-rate", "10"),
            ("limit-rate-after", "1"),
            ("limit-allowlist", "10.0.0.1"),
            ("limit-whitelist", "10.0.0.2"),
        ]);
        assert!(refused.is_empty() && limits.by_client());
        assert_eq!(limits.rates, [Some(Rate::new(2, 1, 3)), Some(Rate::new(60, 60, 3))]);
        assert_eq!((limits.answer_bytes_per_second, limits.answer_bytes_free), (10240, 1024));
        assert!(limits.unlimited.contains("10.0.0.1".parse().unwrap()));
        assert!(!limits.unlimited.contains("10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn wrong_ones_limit_nothing_or_as_usual() {
        let (limits, refused) = read(&[
            ("limit-rps", "many"),
            ("limit-rpm", "-1"),
            ("limit-connections", "0"),
            ("limit-burst-multiplier", "0"),
            ("limit-whitelist", "10.0.0.1,nonsense"),
            ("limit-rate", "99999999999"),
        ]);
        assert_eq!(refused.len(), 4, "{refused:?}");
        assert!(refused.iter().all(|refusal| matches!(refusal, Refusal::Invalid(_))));
        assert_eq!(limits, Limits::default());
    }
}
