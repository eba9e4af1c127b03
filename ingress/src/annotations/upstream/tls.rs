//! `proxy-ssl-*`: TLS with endpoints.

use crate::annotations::values::{Refusal, object_key};
use crate::objects::ObjectKey;

/// TLS with the endpoints of a location, where `backend-protocol` says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamTls {
    /// `proxy-ssl-secret`: client certificate and trusted authorities.
    pub secret: Option<ObjectKey>,
    /// `proxy-ssl-verify`.
    pub verify: bool,
    /// `proxy-ssl-name`: the name the certificate must have, also sent as SNI when asked for.
    pub name: Option<String>,
    /// `proxy-ssl-server-name`: send SNI.
    pub server_name: bool,
}

/// What is spoken with endpoints: the versions rustls has.
const PROTOCOLS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

impl UpstreamTls {
    /// Takes the value of one of its annotations. All of them guard the way to the endpoint: one that
    /// cannot be honoured closes the location.
    pub fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "proxy-ssl-secret" => {
                let secret = object_key(value, ingress);
                let secret = secret.map_err(|_| {
                    Refusal::closes(format!("{value:?} is not the name of a Secret"))
                })?;
                if secret.namespace != ingress.namespace {
                    return Err(Refusal::closes("only a Secret of the same namespace can be used"));
                }
                self.secret = Some(secret);
            }
            "proxy-ssl-verify" => self.verify = on_off(value)?,
            "proxy-ssl-name" => self.name = Some(server_name(value)?),
            "proxy-ssl-server-name" => self.server_name = on_off(value)?,
            "proxy-ssl-ciphers" => ciphers(value)?,
            "proxy-ssl-protocols" => protocols(value)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }

    /// Looks at them together.
    pub fn finish(&self) -> Vec<(&'static str, Refusal)> {
        let mut refused = Vec::new();
        if self.verify && self.secret.is_none() {
            let why = "needs proxy-ssl-secret: there is no authority to trust";
            refused.push(("proxy-ssl-verify", Refusal::closes(why)));
        }
        if self.verify && self.name.is_none() {
            let why = "needs proxy-ssl-name: there is no name to look for in the certificate";
            refused.push(("proxy-ssl-verify", Refusal::closes(why)));
        }
        if self.server_name && self.name.is_none() {
            let why = "has no effect without proxy-ssl-name, the name to send";
            refused.push(("proxy-ssl-server-name", Refusal::Refused(why.into())));
        }
        refused
    }
}

fn on_off(value: &str) -> Result<bool, Refusal> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Refusal::closes(format!("{value:?} is neither on nor off"))),
    }
}

fn server_name(value: &str) -> Result<String, Refusal> {
    match rustls::pki_types::DnsName::try_from(value) {
        Ok(_) => Ok(value.into()),
        Err(_) => Err(Refusal::closes(format!("{value:?} is not a DNS name"))),
    }
}

fn ciphers(value: &str) -> Result<(), Refusal> {
    if matches!(value, "" | "DEFAULT" | "HIGH") {
        return Ok(());
    }
    Err(Refusal::Refused(
        "has no effect: endpoints are offered the cipher suites of rustls, all of them AEAD with \
         forward secrecy; leave it out or use DEFAULT"
            .into(),
    ))
}

fn protocols(value: &str) -> Result<(), Refusal> {
    let known = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let mut words = value.split_whitespace();
    if let Some(wrong) = words.clone().find(|word| !known.contains(word)) {
        return Err(Refusal::invalid(format!("{wrong:?} is not a protocol")));
    }
    if words.any(|word| PROTOCOLS.contains(&word)) || value.is_empty() {
        return Ok(());
    }
    Err(Refusal::closes("names only versions that are not spoken here; TLSv1.2 and TLSv1.3 are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_that_do_not_work_close_the_location() {
        let ingress = ObjectKey::new("shop", "web");
        for pairs in [
            &[("proxy-ssl-verify", "on")][..],
            &[("proxy-ssl-verify", "maybe")],
            &[("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "shop/ca")],
            &[("proxy-ssl-verify", "on"), ("proxy-ssl-name", "web.example")],
            &[("proxy-ssl-secret", "other/ca")],
            &[("proxy-ssl-secret", "a/b/c")],
            &[("proxy-ssl-name", "no name")],
            &[("proxy-ssl-protocols", "TLSv1 TLSv1.1")],
        ] {
            let mut tls = UpstreamTls::default();
            let results = pairs.iter().map(|(name, value)| tls.apply(name, value, &ingress));
            let mut refused: Vec<Refusal> = results.filter_map(Result::err).collect();
            refused.extend(tls.finish().into_iter().map(|(_, refusal)| refusal));
            assert!(refused.iter().any(|r| matches!(r, Refusal::Closes(_))), "{pairs:?}");
        }
    }

    #[test]
    fn what_rustls_cannot_do_is_said() {
        let ingress = ObjectKey::new("shop", "web");
        let mut tls = UpstreamTls::default();
        assert_eq!(tls.apply("proxy-ssl-ciphers", "DEFAULT", &ingress), Ok(()));
        assert_eq!(tls.apply("proxy-ssl-protocols", "TLSv1.1 TLSv1.2", &ingress), Ok(()));
        let narrow = tls.apply("proxy-ssl-ciphers", "AES256-SHA", &ingress);
        assert!(matches!(narrow, Err(Refusal::Refused(_))));
        tls.apply("proxy-ssl-server-name", "on", &ingress).unwrap();
        assert!(matches!(tls.finish()[..], [("proxy-ssl-server-name", Refusal::Refused(_))]));
    }
}
