//! TLS with the client: its certificate, versions and ciphers, and connections passed through.
//!
//! These settings are those of a whole host: the oldest Ingress that names the host and says something
//! decides. Putting them together is left to `translate::tls`.

use super::values::{Refusal, boolean, object_key};
use super::{Group, Row, honoured};
use crate::objects::{Kind, ObjectKey};
use crate::tls::ciphers::{self, CipherSelection};
use regex::Regex;

const ROWS: &[Row] = &[
    honoured("auth-tls-secret"),
    honoured("auth-tls-verify-client"),
    honoured("auth-tls-verify-depth"),
    honoured("auth-tls-error-page"),
    honoured("auth-tls-pass-certificate-to-upstream"),
    honoured("auth-tls-match-cn"),
    honoured("ssl-ciphers"),
    honoured("ssl-prefer-server-ciphers"),
    honoured("ssl-passthrough"),
];

/// Whether a client has to show a certificate (`auth-tls-verify-client`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// Yes, a valid one.
    #[default]
    On,
    /// Its certificate is not asked for.
    Off,
    /// One it shows must be valid.
    Optional,
    /// One it shows may come from any authority.
    OptionalNoCa,
}

/// TLS of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// `auth-tls-secret`: where the authorities (`ca.crt`) and revocations (`ca.crl`) are.
    pub client_ca: Option<ObjectKey>,
    /// `auth-tls-verify-client`.
    pub verify_client: VerifyClient,
    /// `auth-tls-verify-depth`: intermediate certificates allowed between the client's and a root.
    pub verify_depth: usize,
    /// `auth-tls-error-page`: where to send clients that fail.
    pub error_page: Option<String>,
    /// `auth-tls-pass-certificate-to-upstream`.
    pub pass_certificate: bool,
    /// `auth-tls-match-cn`: an expression for the client's subject.
    pub match_cn: Option<String>,
    /// A value of `auth-tls-*` guards nothing as written: the host answers 403.
    pub client_auth_broken: bool,
    /// `ssl-ciphers`.
    pub ciphers: Option<CipherSelection>,
    /// `ssl-prefer-server-ciphers`.
    pub prefer_server_ciphers: Option<bool>,
    /// `ssl-passthrough`.
    pub passthrough: bool,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            client_ca: None,
            verify_client: VerifyClient::On,
            verify_depth: 1,
            error_page: None,
            pass_certificate: false,
            match_cn: None,
            client_auth_broken: false,
            ciphers: None,
            prefer_server_ciphers: None,
            passthrough: false,
        }
    }
}

impl Tls {
    fn broken(&mut self, why: &str) -> Refusal {
        self.client_auth_broken = true;
        forbidden(why)
    }
}

/// Client certificates that cannot be checked: as in ingress-nginx the whole host answers 403.
pub fn forbidden(why: impl std::fmt::Display) -> Refusal {
    Refusal::Refused(format!("{why}; its hosts answer 403"))
}

impl Group for Tls {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "auth-tls-secret" => match object_key(value, ingress) {
                Ok(key) if key.namespace == ingress.namespace => self.client_ca = Some(key),
                Ok(_) => return Err(self.broken("a Secret of another namespace is not read")),
                Err(_) => return Err(self.broken("want namespace/name of a Secret")),
            },
            "auth-tls-verify-client" => {
                self.verify_client = match value {
                    "on" => VerifyClient::On,
                    "off" => VerifyClient::Off,
                    "optional" => VerifyClient::Optional,
                    "optional_no_ca" => VerifyClient::OptionalNoCa,
                    _ => {
                        return Err(Refusal::invalid("want on, off, optional or optional_no_ca"));
                    }
                };
            }
            "auth-tls-verify-depth" => match value.parse() {
                Ok(depth @ 1..) => self.verify_depth = depth,
                _ => return Err(Refusal::invalid("want a positive number")),
            },
            "auth-tls-error-page" => self.error_page = Some(error_page(value)?),
            "auth-tls-pass-certificate-to-upstream" => self.pass_certificate = boolean(value)?,
            "auth-tls-match-cn" => {
                if !value.contains("CN=") {
                    return Err(self.broken("want an expression that holds CN="));
                }
                if Regex::new(value).is_err() {
                    return Err(self.broken("the value is not a regular expression"));
                }
                self.match_cn = Some(value.into());
            }
            "ssl-ciphers" => self.ciphers = Some(ciphers::select(value).map_err(Refusal::invalid)?),
            "ssl-prefer-server-ciphers" => self.prefer_server_ciphers = Some(boolean(value)?),
            "ssl-passthrough" => self.passthrough = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        let unknown = self.ciphers.as_ref().map_or("", |ciphers| ciphers.unknown.as_str());
        if unknown.is_empty() {
            return Vec::new();
        }
        let why = format!("{unknown}: not offered here; the other ciphers are");
        vec![("ssl-ciphers", Refusal::Refused(why))]
    }

    fn named_objects(&self) -> Vec<(Kind, ObjectKey)> {
        self.client_ca.iter().map(|key| (Kind::Secret, key.clone())).collect()
    }
}

/// An absolute URL, or a path of the host itself.
fn error_page(value: &str) -> Result<String, Refusal> {
    let usable = value.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b';' | b'$'));
    let absolute = ["http://", "https://", "/"].iter().any(|start| value.starts_with(start));
    if usable && absolute {
        return Ok(value.into());
    }
    Err(Refusal::invalid("want a URL, or a path that starts with a slash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, value: &str) -> (Tls, Result<(), Refusal>) {
        let mut tls = Tls::default();
        let result = tls.apply(name, value, &ObjectKey::new("shop", "web"));
        (tls, result)
    }

    #[test]
    fn values_that_would_guard_nothing_break_the_guard() {
        for (name, value, broken) in [
            ("auth-tls-secret", "shop/ca", false),
            ("auth-tls-secret", "ca", false),
            ("auth-tls-secret", "other/ca", true),
            ("auth-tls-secret", "a/b/c", true),
            ("auth-tls-secret", "", true),
            ("auth-tls-match-cn", "CN=(one|two)", false),
            ("auth-tls-match-cn", "one", true),
            ("auth-tls-match-cn", "CN=(", true),
        ] {
            let (tls, result) = apply(name, value);
            assert_eq!(
                (tls.client_auth_broken, result.is_err()),
                (broken, broken),
                "{name} {value}"
            );
        }
    }

    #[test]
    fn other_wrong_values_leave_the_default() {
        for (name, value) in [
            ("auth-tls-verify-client", "maybe"),
            ("auth-tls-verify-depth", "0"),
            ("auth-tls-error-page", "error"),
            ("auth-tls-pass-certificate-to-upstream", "yes"),
            ("ssl-ciphers", "RC4-MD5"),
            ("ssl-prefer-server-ciphers", "yes"),
        ] {
            let (tls, result) = apply(name, value);
            assert!(matches!(result, Err(Refusal::Invalid(_))), "{name}: {result:?}");
            assert_eq!(tls, Tls::default(), "{name}");
        }
    }
}
