//! Passwords, and authorities that are asked about each request.
//!
//! Whatever is wrong here closes the location: an Ingress that asks for a guard never gets less.

pub mod basic;
pub mod external;

use super::values::{Refusal, boolean, object_key};
use super::{Group, Row, harmless, honoured, refused};
use crate::objects::{Kind, ObjectKey};
use basic::{Basic, SecretForm};
use external::{AuthorityUrl, External, ExternalText};
use std::collections::BTreeSet;

const KEPT: &str = "connections to authorities are always kept, whatever their number";

const ROWS: &[Row] = &[
    honoured("auth-type"),
    honoured("auth-secret"),
    honoured("auth-secret-type"),
    honoured("auth-realm"),
    honoured("auth-url"),
    honoured("auth-method"),
    honoured("auth-signin"),
    honoured("auth-signin-redirect-param"),
    honoured("auth-response-headers"),
    honoured("auth-request-redirect"),
    honoured("auth-proxy-set-headers"),
    honoured("auth-cache-key"),
    honoured("auth-cache-duration"),
    honoured("auth-always-set-cookie"),
    honoured("enable-global-auth"),
    harmless("auth-keepalive", KEPT),
    harmless("auth-keepalive-requests", KEPT),
    harmless("auth-keepalive-timeout", KEPT),
    harmless("auth-keepalive-share-vars", "both requests always carry the same X-Request-ID"),
    refused(
        "auth-snippet",
        "snippets are refused: there is no nginx to run them; use auth-response-headers or auth-proxy-set-headers",
    ),
];

/// Guards that ask who the client is.
#[derive(Clone, Debug, PartialEq)]
pub struct Authentication {
    /// User names and passwords.
    pub basic: Option<Basic>,
    /// An authority that is asked.
    pub external: Option<Box<External>>,
    /// `enable-global-auth`: the controller's own authority is asked where no other is named.
    pub global: bool,
    /// Secrets and ConfigMaps of other namespaces may be named.
    pub cross_namespace: bool,
    told: Told,
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            basic: None,
            external: None,
            global: true,
            cross_namespace: false,
            told: Told::default(),
        }
    }
}

/// What single annotations say; they make sense together only.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    kind: Option<&'static str>,
    secret: Option<ObjectKey>,
    form: SecretForm,
    realm: String,
    external: ExternalText,
    /// What was wrong already; what is missing because of that is not worth a word.
    broken: BTreeSet<String>,
}

impl Group for Authentication {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        let result = self.take(name, value, ingress);
        match result {
            Err(Refusal::Closes(_)) => self.told.broken.insert(name.into()),
            // A value that was right before may stand in for a wrong one.
            _ => self.told.broken.remove(name),
        };
        result
    }

    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        let told = std::mem::take(&mut self.told);
        if !told.broken.is_empty() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        match (told.kind, told.secret) {
            (Some(_), Some(secret)) => {
                self.basic = Some(Basic { secret, form: told.form, realm: told.realm });
            }
            (Some(_), None) => {
                problems.push(("auth-type", Refusal::closes("auth-secret is missing")));
            }
            (None, Some(_)) => {
                problems.push(("auth-secret", Refusal::closes("auth-type is missing")));
            }
            (None, None) => {}
        }
        match told.external.finish() {
            Ok(Some(external)) => self.external = Some(Box::new(external)),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
        problems
    }

    fn named_objects(&self) -> Vec<(Kind, ObjectKey)> {
        let secret = self.basic.iter().map(|basic| (Kind::Secret, basic.secret.clone()));
        let headers = self.external.iter().filter_map(|external| external.set_headers.clone());
        secret.chain(headers.map(|key| (Kind::ConfigMap, key))).collect()
    }
}

impl Authentication {
    fn take(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        if let "auth-secret" | "auth-proxy-set-headers" = name {
            let key = self.guard_object(value, ingress)?;
            match name {
                "auth-secret" => self.told.secret = Some(key),
                _ => self.told.external.set_headers = Some(key),
            }
            return Ok(());
        }
        let told = &mut self.told;
        let external = &mut told.external;
        match name {
            "auth-type" => match value {
                "basic" => told.kind = Some("basic"),
                "digest" => {
                    return Err(Refusal::closes(
                        "digest authentication is not available: it needs passwords in a form that is \
                         easily broken; use basic over TLS",
                    ));
                }
                _ => return Err(Refusal::closes("want basic")),
            },
            "auth-secret-type" => told.form = SecretForm::parse(value)?,
            "auth-realm" => told.realm = basic::realm(value)?,
            "auth-url" => external.url = Some(AuthorityUrl::parse(value)?),
            "auth-method" => external.method = Some(external::method(value)?),
            "auth-signin" => external.signin = Some(value.into()),
            "auth-signin-redirect-param" => {
                external.signin_parameter = Some(external::signin_parameter(value)?);
            }
            "auth-response-headers" => external.response_headers = external::header_names(value)?,
            "auth-request-redirect" => {
                external.request_redirect = Some(external::request_redirect(value)?);
            }
            "auth-cache-key" => external.cache_key = external::cache_key(value)?,
            "auth-cache-duration" => external.cache_durations = external::cache_durations(value)?,
            "auth-always-set-cookie" => external.always_set_cookie = boolean(value)?,
            "enable-global-auth" => self.global = boolean(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    /// An object that guards depend on.
    fn guard_object(&self, value: &str, ingress: &ObjectKey) -> Result<ObjectKey, Refusal> {
        let key = object_key(value, ingress)
            .map_err(|_| Refusal::closes("want the name of an object, or namespace/name"))?;
        if key.namespace != ingress.namespace && !self.cross_namespace {
            return Err(Refusal::closes(
                "objects of other namespaces may not be named (allow-cross-namespace-resources)",
            ));
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
