//! The authority of `auth-url`: which Service it is, if any, and the ConfigMap with headers for it.

use crate::annotations::authentication::external::{External, is_of_the_connection};
use crate::annotations::values::Refusal;
use crate::http_client::Destination;
use crate::objects::{ObjectKey, World};
use crate::variables::Template;
use http::{HeaderName, HeaderValue};

/// Who is asked about each request.
#[derive(Debug)]
pub struct Authority {
    /// How.
    pub settings: External,
    /// `auth-proxy-set-headers`.
    pub headers: Vec<(HeaderName, Template)>,
    /// Where, if that is the same for all requests.
    pub fixed: Option<Destination>,
    /// The `Host` header, likewise.
    pub fixed_host: Option<HeaderValue>,
    /// The Service it is, and the port.
    pub service: Option<(ObjectKey, u16)>,
}

impl Authority {
    /// Looks up what the settings name.
    pub fn resolve(settings: &External, world: &World) -> Result<Authority, Refusal> {
        let headers = match &settings.set_headers {
            Some(key) => headers(key, world)?,
            None => Vec::new(),
        };
        let url = &settings.url;
        let fixed = url.authority.constant().and_then(|text| destination(url.https, text));
        let service = fixed.as_ref().and_then(|fixed| Some((service(&fixed.host)?, fixed.port)));
        let fixed_host = url.host.constant().and_then(|host| HeaderValue::from_str(host).ok());
        Ok(Authority { settings: settings.clone(), headers, fixed, fixed_host, service })
    }
}

/// A server from `host` or `host:port`.
pub fn destination(https: bool, authority: &str) -> Option<Destination> {
    let default = if https { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    let usual =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':');
    let sound = !host.is_empty() && host.bytes().all(usual) && !host.contains("..");
    sound.then(|| Destination { https, host: host.into(), port, address: None })
}

fn headers(key: &ObjectKey, world: &World) -> Result<Vec<(HeaderName, Template)>, Refusal> {
    let map = world.config_maps.get(key);
    let map = map.ok_or_else(|| Refusal::closes(format!("ConfigMap {key} does not exist")))?;
    let data = map.data.iter().flatten();
    data.map(|(name, value)| {
        let wrong = |why: String| Refusal::closes(format!("ConfigMap {key}: {name:?} {why}"));
        let usual = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let header = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| usual);
        let header = header.filter(|_| !is_of_the_connection(name));
        let header =
            header.ok_or_else(|| wrong("is not the name of a header that may be set".into()))?;
        let template = Template::parse(value).map_err(|error| wrong(error.to_string()))?;
        match HeaderValue::from_str(value) {
            Ok(_) => Ok((header, template)),
            Err(_) => Err(wrong("has a value no header can have".into())),
        }
    })
    .collect()
}

/// The Service behind a name of the cluster's own, such as `auth.shop.svc.cluster.local`; other names are
/// for DNS.
fn service(host: &str) -> Option<ObjectKey> {
    let mut labels = host.trim_end_matches('.').splitn(4, '.');
    match (labels.next()?, labels.next()?, labels.next()?, labels.next()) {
        (name, namespace, "svc", None | Some("cluster.local")) => {
            Some(ObjectKey::new(namespace, name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_from_other_names() {
        let shop = Some(ObjectKey::new("shop", "auth"));
        for (host, key) in [
            ("auth.shop.svc", &shop),
            ("auth.shop.svc.cluster.local", &shop),
            ("auth.shop.svc.cluster.local.", &shop),
            ("auth.shop", &None),
            ("auth.shop.svc.example.com", &None),
            ("auth", &None),
        ] {
            assert_eq!(&service(host), key, "{host}");
        }
    }

    #[test]
    fn servers_are_host_and_port() {
        let read = |https, text| destination(https, text).map(|d| format!("{} {}", d.host, d.port));
        assert_eq!(read(false, "auth"), Some("auth 80".into()));
        assert_eq!(read(true, "auth"), Some("auth 443".into()));
        assert_eq!(read(true, "[::1]:8443"), Some("[::1] 8443".into()));
        assert_eq!(read(true, "[::1]"), Some("[::1] 443".into()));
        for wrong in ["", ":80", "a@b", "a/b", "a b", "a..b", "a:x"] {
            assert_eq!(read(false, wrong), None, "{wrong}");
        }
    }
}
