//! `affinity` and `session-cookie-*`: a client stays with an endpoint.

use crate::annotations::values::{Refusal, boolean, number};

/// Settings of cookie affinity.
#[derive(Clone, Debug, PartialEq)]
pub struct Affinity {
    /// `affinity: cookie`.
    pub cookie: bool,
    /// `affinity-mode: persistent`: sessions never move while their endpoint is there, even if others
    /// have less to do.
    pub persistent: bool,
    /// `affinity-canary-behavior: legacy`: a canary has its own affinity or none.
    pub canary_legacy: bool,
    /// `session-cookie-name`.
    pub name: String,
    /// `session-cookie-path`; else the rule's path.
    pub path: Option<String>,
    /// `session-cookie-domain`.
    pub domain: Option<String>,
    /// `session-cookie-secure`; what is not forced so is left to whether the client uses TLS.
    pub secure: Option<bool>,
    /// `session-cookie-samesite`.
    pub same_site: Option<SameSite>,
    /// `session-cookie-conditional-samesite-none`.
    pub conditional_same_site_none: bool,
    /// `session-cookie-expires`, in seconds from now.
    pub expires_s: Option<i64>,
    /// `session-cookie-max-age`.
    pub max_age_s: Option<i64>,
    /// `session-cookie-change-on-failure`.
    pub change_on_failure: bool,
}

impl Default for Affinity {
    fn default() -> Affinity {
        Affinity {
            cookie: false,
            persistent: false,
            canary_legacy: false,
            name: "INGRESSCOOKIE".into(),
            path: None,
            domain: None,
            secure: None,
            same_site: None,
            conditional_same_site_none: false,
            expires_s: None,
            max_age_s: None,
            change_on_failure: false,
        }
    }
}

/// The `SameSite` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent from anywhere.
    None,
    /// Sent when the user follows a link.
    Lax,
    /// Sent by the site itself only.
    Strict,
}

impl SameSite {
    /// As the attribute has it.
    pub fn as_str(self) -> &'static str {
        match self {
            SameSite::None => "None",
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
        }
    }
}

impl Affinity {
    /// Takes the value of one of its annotations.
    pub fn apply(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "affinity" => {
                self.cookie = either(value, "", "cookie", "want cookie, the only kind there is")?;
            }
            "affinity-mode" => {
                self.persistent =
                    either(value, "balanced", "persistent", "want balanced or persistent")?;
            }
            "affinity-canary-behavior" => {
                self.canary_legacy = either(value, "sticky", "legacy", "want sticky or legacy")?;
            }
            "session-cookie-name" => self.name = cookie_name(value)?,
            "session-cookie-path" => self.path = Some(attribute(value)?),
            "session-cookie-domain" => self.domain = Some(attribute(value)?),
            "session-cookie-secure" => self.secure = boolean(value)?.then_some(true),
            "session-cookie-samesite" => self.same_site = Some(same_site(value)?),
            "session-cookie-conditional-samesite-none" => {
                self.conditional_same_site_none = boolean(value)?;
            }
            "session-cookie-expires" => self.expires_s = Some(number(value)?),
            "session-cookie-max-age" => self.max_age_s = Some(number(value)?),
            "session-cookie-change-on-failure" => self.change_on_failure = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

fn either(value: &str, no: &str, yes: &str, want: &str) -> Result<bool, Refusal> {
    if value == yes {
        return Ok(true);
    }
    if value == no { Ok(false) } else { Err(Refusal::invalid(want)) }
}

fn cookie_name(value: &str) -> Result<String, Refusal> {
    let usable = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if value.is_empty() || !value.bytes().all(usable) {
        return Err(Refusal::invalid("not usable as the name of a cookie"));
    }
    Ok(value.into())
}

fn attribute(value: &str) -> Result<String, Refusal> {
    if value.is_empty() || !value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b';') {
        return Err(Refusal::invalid("not usable as an attribute of a cookie"));
    }
    Ok(value.into())
}

fn same_site(value: &str) -> Result<SameSite, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "none" => Ok(SameSite::None),
        "lax" => Ok(SameSite::Lax),
        "strict" => Ok(SameSite::Strict),
        _ => Err(Refusal::invalid("want None, Lax or Strict")),
    }
}
