//! Values of options that no annotation has.

use crate::annotations::values::{Refusal, list};
use http::HeaderName;
use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// A number of seconds; zero is one.
pub fn seconds_or_zero(value: &str) -> Result<Duration, Refusal> {
    let digits = value.strip_suffix('s').unwrap_or(value);
    let seconds = digits.parse::<u32>();
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .map_err(|_| Refusal::invalid("want a number of seconds"))
}

/// An nginx or Go duration: numbers with `ms`, `s`, `m`, `h`, `d`; seconds without a unit.
pub fn duration(value: &str) -> Result<Duration, Refusal> {
    let wrong = || Refusal::invalid("want a duration such as 240s, 5m or 1h30m");
    let mut rest = value;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(unit_ms * u64::from(count));
        rest = &rest[letters..];
    }
    Ok(total)
}

/// Names of headers, separated by commas.
pub fn header_names(value: &str) -> Result<Vec<HeaderName>, Refusal> {
    let names: Result<Vec<_>, _> =
        list(value).map(|name| HeaderName::from_bytes(name.as_bytes())).collect();
    names.map_err(|_| Refusal::invalid("want names of headers, separated by commas"))
}

/// The name of one header.
pub fn header_name(value: &str) -> Result<HeaderName, Refusal> {
    HeaderName::from_bytes(value.as_bytes())
        .map_err(|_| Refusal::invalid("want the name of a header"))
}

/// Networks of proxies. A wrong entry trusts nobody more than before: the default is not used then,
/// as it trusts everybody.
pub fn proxies(value: &str) -> Result<Vec<IpNet>, Refusal> {
    let networks: Result<Vec<IpNet>, _> = list(value)
        .map(|entry| entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from)))
        .collect();
    networks.map_err(|_| {
        Refusal::closes("the list holds an entry that is neither an address nor a network")
    })
}

/// Texts separated by commas, such as beginnings of paths.
pub fn texts(value: &str) -> Vec<String> {
    list(value).map(str::to_owned).collect()
}

/// A status for clients that ask too much.
pub fn error_status(value: &str) -> Result<u16, Refusal> {
    match value.parse::<u16>() {
        Ok(status @ 400..=599) => Ok(status),
        _ => Err(Refusal::invalid("want a status from 400 to 599")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("240s", Some(240_000)),
            ("5", Some(5000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("1d", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
        ] {
            assert_eq!(duration(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
    }
}
