//! `proxy-ssl-secret`: the client certificate for endpoints, and the authorities they are trusted by.

use crate::annotations::upstream::tls::UpstreamTls;
use crate::annotations::values::Refusal;
use crate::objects::World;
use k8s_openapi::api::core::v1::Secret;
use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a Secret says about TLS with endpoints.
pub struct EndpointTls {
    /// Shown to endpoints that ask for it.
    pub client: Option<Arc<CertKey>>,
    /// Who may vouch for an endpoint.
    pub authorities: Option<Arc<CaType>>,
    /// Of the contents: connections made with others are not shared.
    pub digest: u64,
}

impl fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointTls").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// Reads the Secret that the settings name. Without it the location is closed: it was to protect the way
/// to the endpoint.
pub fn resolve(
    settings: &UpstreamTls,
    world: &World,
) -> Result<Option<Arc<EndpointTls>>, (&'static str, Refusal)> {
    let Some(key) = &settings.secret else {
        return Ok(None);
    };
    let closes = |why: String| ("proxy-ssl-secret", Refusal::closes(why));
    let secret = world.secrets.get(key);
    let secret = secret.ok_or_else(|| closes(format!("Secret {key} does not exist")))?;
    let read = read(secret).map_err(|why| closes(format!("Secret {key}: {why}")))?;
    if settings.verify && read.authorities.is_none() {
        return Err(closes(format!(
            "Secret {key} has no key ca.crt, which proxy-ssl-verify needs"
        )));
    }
    Ok(Some(Arc::new(read)))
}

fn read(secret: &Secret) -> Result<EndpointTls, String> {
    let (chain, key) = (field(secret, "tls.crt"), field(secret, "tls.key"));
    let authorities = field(secret, "ca.crt");
    let client = match (chain, key) {
        (Some(chain), Some(key)) => Some(client(chain, key)?),
        (None, None) => None,
        _ => return Err("tls.crt and tls.key belong together".into()),
    };
    if client.is_none() && authorities.is_none() {
        return Err("has neither tls.crt and tls.key nor ca.crt".into());
    }
    let mut hash = Sha256::new();
    for part in [chain, key, authorities] {
        hash.update((part.map_or(0, <[u8]>::len) as u64).to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    let authorities = authorities.map(trusted).transpose()?;
    Ok(EndpointTls { client, authorities, digest: u64::from_be_bytes(first) })
}

fn client(chain: &[u8], key: &[u8]) -> Result<Arc<CertKey>, String> {
    let chain = certificates("tls.crt", chain)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| format!("key tls.key is not a private key in PEM: {error}"))?;
    // Checked here, where it can be told; the connector would only fail.
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
        .map_err(|error| format!("tls.key does not serve tls.crt: {error}"))?;
    let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
    Ok(Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
}

/// Certificates as authorities.
pub fn trusted(pem: &[u8]) -> Result<Arc<CaType>, String> {
    let certificates = certificates("ca.crt", pem)?;
    let wrap = |certificate: CertificateDer<'_>| WrappedX509::new(certificate.to_vec(), parse_x509);
    Ok(certificates.into_iter().map(wrap).collect())
}

fn certificates(name: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let parsed = parsed.map_err(|error| format!("key {name} is not valid PEM: {error}"))?;
    if parsed.is_empty() {
        return Err(format!("key {name} holds no certificate"));
    }
    for certificate in &parsed {
        X509Certificate::from_der(certificate)
            .map_err(|error| format!("key {name} holds no valid certificate: {error}"))?;
    }
    Ok(parsed)
}

fn field<'a>(secret: &'a Secret, name: &str) -> Option<&'a [u8]> {
    let written = secret.string_data.as_ref().and_then(|data| data.get(name)).map(String::as_bytes);
    let stored =
        secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
    written.or(stored).filter(|bytes| !bytes.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ObjectKey;
    use std::collections::BTreeMap;

    fn check(pairs: &[(&str, String)], verify: bool) -> Result<Option<Arc<EndpointTls>>, String> {
        let data: BTreeMap<String, String> =
            pairs.iter().map(|(name, text)| (name.to_string(), text.clone())).collect();
        let mut world = World::default();
        let key = ObjectKey::new("shop", "tls");
        let secret = Secret { string_data: Some(data), ..Secret::default() };
        world.secrets.insert(key.clone(), Arc::new(secret));
        let settings = UpstreamTls { secret: Some(key), verify, ..UpstreamTls::default() };
        resolve(&settings, &world).map_err(|(name, refusal)| format!("{name}: {refusal:?}"))
    }

    #[test]
    fn what_a_secret_may_hold() {
        let make = || rcgen::generate_simple_self_signed(vec!["a.example".to_string()]).unwrap();
        let (one, other) = (make(), make());
        let certificate = ("tls.crt", one.cert.pem());
        let key = ("tls.key", one.signing_key.serialize_pem());
        let authority = ("ca.crt", other.cert.pem());
        let all = check(&[certificate.clone(), key.clone(), authority.clone()], true);
        let all = all.unwrap().unwrap();
        assert!(all.client.is_some() && all.authorities.is_some());
        let only_authority = check(std::slice::from_ref(&authority), true).unwrap().unwrap();
        assert!(only_authority.client.is_none());
        assert_ne!(all.digest, only_authority.digest);
        for (pairs, verify, why) in [
            (&[][..], false, "neither"),
            (&[certificate.clone(), key.clone()], true, "no key ca.crt"),
            (std::slice::from_ref(&certificate), false, "belong together"),
            (&[certificate.clone(), ("tls.key", "no key".into())], false, "tls.key"),
            (
                &[certificate.clone(), ("tls.key", other.signing_key.serialize_pem())],
                false,
                "does not serve",
            ),
            (&[("ca.crt", "nonsense".into())], false, "ca.crt"),
        ] {
            let error = check(pairs, verify).unwrap_err();
            assert!(error.contains("Closes") && error.contains(why), "{error}");
        }
        let missing =
            UpstreamTls { secret: Some(ObjectKey::new("shop", "none")), ..UpstreamTls::default() };
        assert!(resolve(&missing, &World::default()).is_err());
    }
}
