//! The cookie of cookie affinity: `KEY|BACKEND`, the key of a session and the backend it belongs to.

use super::Client;
use crate::annotations::upstream::affinity::{Affinity, SameSite};
use crate::balance::Backend;
use crate::snapshot::Route;
use crate::variables::cookie;
use http::header;
use jiff::Timestamp;
use pingora::http::RequestHeader;
use std::fmt::Write;

/// What a client's cookie says.
#[derive(Debug, Default)]
pub struct Session {
    value: Box<[u8]>,
}

impl Session {
    /// Reads the cookie.
    pub fn read(affinity: &Affinity, request: &RequestHeader) -> Session {
        let value = cookie(&request.headers, &affinity.name).unwrap_or_default();
        Session { value: value.into() }
    }

    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.value.split(|byte| *byte == b'|')
    }

    /// The session's key, if there is a session.
    pub fn key(&self) -> Option<&[u8]> {
        self.parts().next().filter(|key| !key.is_empty())
    }

    /// Whether the session belongs to a backend.
    pub fn is_of(&self, backend: &Backend) -> bool {
        self.parts().nth(1).is_some_and(|key| key == backend.affinity_key().as_bytes())
    }
}

/// The `Set-Cookie` of a session that begins.
pub fn set_cookie(
    affinity: &Affinity,
    route: &Route,
    client: &Client<'_>,
    key: &str,
    backend_key: &str,
) -> String {
    let mut text = format!("{}={key}|{backend_key}", affinity.name);
    if let Some(expires) = affinity.expires_s {
        let at = Timestamp::now().as_second().saturating_add(expires);
        if let Ok(at) = Timestamp::from_second(at) {
            let _ = write!(text, "; Expires={}", at.strftime("%a, %d-%b-%y %H:%M:%S GMT"));
        }
    }
    if let Some(max_age) = affinity.max_age_s {
        let _ = write!(text, "; Max-Age={max_age}");
    }
    if let Some(domain) = &affinity.domain {
        let _ = write!(text, "; Domain={domain}");
    }
    let _ = write!(text, "; Path={}", path(affinity, route));
    if affinity.secure.unwrap_or(client.tls) {
        text.push_str("; Secure");
    }
    text.push_str("; HttpOnly");
    if let Some(same_site) = same_site(affinity, client.request) {
        let _ = write!(text, "; SameSite={}", same_site.as_str());
    }
    text
}

/// The rule's path; where that is an expression, everything.
fn path<'a>(affinity: &'a Affinity, route: &'a Route) -> &'a str {
    let rewriting = &route.settings.rewriting;
    let is_expression = rewriting.use_regex || rewriting.target.is_some();
    affinity.path.as_deref().unwrap_or(if is_expression { "/" } else { &route.path })
}

fn same_site(affinity: &Affinity, request: &RequestHeader) -> Option<SameSite> {
    let same_site = affinity.same_site?;
    let conditional = affinity.conditional_same_site_none && same_site == SameSite::None;
    let agent =
        || request.headers.get(header::USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    (!conditional || understands_none(agent())).then_some(same_site)
}

/// Browsers that refuse a cookie with `SameSite=None` altogether, as
/// <https://www.chromium.org/updates/same-site/incompatible-clients> lists them.
fn understands_none(agent: &[u8]) -> bool {
    let has = |part: &str| agent.windows(part.len()).any(|window| window == part.as_bytes());
    let old_chrome = has("Chrome/4") || has("Chrome/5") || has("Chrome/6");
    let old_ios = has("CPU iPhone OS 12") || has("iPad; CPU OS 12");
    let old_safari =
        has("Macintosh") && has("Intel Mac OS X 10_14") && has("Safari") && !has("Chrome");
    !(old_chrome || old_ios || old_safari)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_that_do_not_understand_none() {
        for (agent, understands) in [
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36", true),
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/60.0 Safari/537.36", false),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 12_1 like Mac OS X)", false),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_5) Version/12.1 Safari/605.1.15", false),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_5) Chrome/99 Safari/537.36", true),
            ("", true),
        ] {
            assert_eq!(understands_none(agent.as_bytes()), understands, "{agent}");
        }
    }
}
