//! Headers added for endpoints: who the client was and how it came, as ingress-nginx sets them.

use super::connection::Connection;
use crate::snapshot::Route;
use crate::variables::Values;
use http::HeaderValue;
use http::header::{HOST, HeaderMap, HeaderName};
use ipnet::IpNet;
use pingora::Result;
use pingora::http::RequestHeader;
use std::net::{IpAddr, Ipv4Addr};

/// The host of a request that names none.
const NO_HOST: HeaderValue = HeaderValue::from_static("_");

/// Whose `X-Forwarded-*` headers are believed.
#[derive(Clone, Debug, Default)]
pub struct ForwardedTrust {
    /// Networks of proxies in front; empty believes nobody.
    pub proxies: Vec<IpNet>,
}

/// Where a request came from.
#[derive(Debug)]
pub struct Forwarded {
    /// The client, beyond trusted proxies.
    pub client: IpAddr,
    trusted: bool,
    tls: bool,
    port: u16,
    host: Option<HeaderValue>,
    proto: Option<HeaderValue>,
    forwarded_port: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Default for Forwarded {
    fn default() -> Forwarded {
        Forwarded {
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            trusted: false,
            tls: false,
            port: 0,
            host: None,
            proto: None,
            forwarded_port: None,
            request_id: None,
        }
    }
}

impl Forwarded {
    /// `http` or `https`, as the client used it.
    pub fn scheme(&self) -> &str {
        let told = self.proto.as_ref().and_then(|value| value.to_str().ok());
        told.unwrap_or(if self.tls { "https" } else { "http" })
    }

    /// The host as the client wrote it to the first proxy, with its port.
    pub fn best_host<'a>(&'a self, values: &Values<'a>) -> &'a [u8] {
        // Every proxy adds its own; the client's comes first.
        let first = |hosts: &'a HeaderValue| hosts.as_bytes().split(|byte| *byte == b',').next();
        match self.host.as_ref().and_then(first).map(<[u8]>::trim_ascii) {
            Some(host) => host,
            // Without a host nginx names its default server.
            None if values.http_host().is_empty() => b"_",
            None => values.http_host(),
        }
    }

    /// The port a trusted proxy was reached on.
    pub fn port_text(&self) -> Option<&str> {
        self.forwarded_port.as_ref().and_then(|port| port.to_str().ok())
    }

    /// A trusted proxy is in front.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The id of the request: the same for everybody who is told of it.
    pub fn identify(&mut self, request: &RequestHeader) -> HeaderValue {
        self.request_id.get_or_insert_with(|| request_id(request)).clone()
    }

    /// The id of the request, once somebody was told of it.
    pub fn request_id(&self) -> &str {
        self.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default()
    }
}

impl ForwardedTrust {
    fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|net| net.contains(&address))
    }

    /// Reads what a request says about its origin, as far as the peer is trusted to say it.
    pub fn read(&self, request: &RequestHeader, connection: &Connection) -> Forwarded {
        let Connection { peer, tls, port } = *connection;
        let mut forwarded = Forwarded { client: peer, tls, port, ..Forwarded::default() };
        if self.proxies.is_empty() || !self.trusts(peer) {
            return forwarded;
        }
        forwarded.trusted = true;
        let single = |name: &str| request.headers.get(name).cloned();
        forwarded.client = self.client_beyond(&request.headers, peer);
        forwarded.host = single("x-forwarded-host");
        forwarded.forwarded_port = single("x-forwarded-port");
        forwarded.proto =
            single("x-forwarded-proto").filter(|proto| *proto == "http" || *proto == "https");
        forwarded
    }

    /// The last address of X-Forwarded-For that is no trusted proxy (`real_ip_recursive on`).
    fn client_beyond(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let values =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        let mut client = peer;
        for hop in hops.iter().rev() {
            let Ok(address) = hop.parse::<IpAddr>() else {
                break;
            };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// Sets the headers of a request to an endpoint. What the client sent under these names is gone.
pub fn write(upstream: &mut RequestHeader, forwarded: &mut Forwarded, route: &Route) -> Result<()> {
    let client = ip_value(forwarded.client);
    let scheme = match forwarded.scheme() {
        "https" => HeaderValue::from_static("https"),
        _ => HeaderValue::from_static("http"),
    };
    let host = forwarded.host.clone().or_else(|| {
        let authority = || HeaderValue::from_str(upstream.uri.authority()?.as_str()).ok();
        upstream.headers.get(HOST).cloned().or_else(authority)
    });
    if host.is_none() {
        // HTTP/1.0 needs none, HTTP/1.1 to the endpoint does: nginx names its default server.
        upstream.insert_header(HOST, NO_HOST)?;
    }
    let request_id = forwarded.identify(upstream);
    // Clients reach https at its own port, whatever the listener binds.
    let own_port = if forwarded.tls { 443 } else { forwarded.port };
    let port = forwarded.forwarded_port.clone().unwrap_or_else(|| HeaderValue::from(own_port));
    drop_unusual_names(upstream);
    keep_original(upstream, "X-Forwarded-For", "X-Original-Forwarded-For")?;
    keep_original(upstream, "X-Forwarded-Host", "X-Original-Forwarded-Host")?;
    upstream.insert_header("X-Request-ID", request_id)?;
    upstream.insert_header("X-Real-IP", client.clone())?;
    upstream.insert_header("X-Forwarded-For", client)?;
    upstream.insert_header("X-Forwarded-Host", host.unwrap_or(NO_HOST))?;
    upstream.insert_header("X-Forwarded-Port", port)?;
    upstream.insert_header("X-Forwarded-Proto", scheme.clone())?;
    upstream.insert_header("X-Forwarded-Scheme", scheme.clone())?;
    upstream.insert_header("X-Scheme", scheme)?;
    // A CGI endpoint would take it for its own proxy setting (HTTPoxy).
    upstream.remove_header("Proxy");
    if let Some(prefix) =
        route.settings.rewriting.forwarded_prefix.as_ref().filter(|_| route.rewrite.is_some())
    {
        upstream.insert_header("X-Forwarded-Prefix", prefix.as_str())?;
    }
    if let Some(vhost) =
        route.settings.response.upstream_host.as_ref().and_then(|vhost| vhost.constant())
    {
        upstream.insert_header(HOST, vhost)?;
    }
    Ok(())
}

/// Removes headers nginx would ignore (`underscores_in_headers off`, `ignore_invalid_headers on`). A CGI
/// endpoint takes `X_Real_IP` for `X-Real-IP`.
fn drop_unusual_names(upstream: &mut RequestHeader) {
    let usual = |name: &HeaderName| {
        name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    while let Some(name) = upstream.headers.keys().find(|name| !usual(name)).cloned() {
        upstream.remove_header(&name);
    }
}

/// Passes on what the client sent as `from` under the name `to`, and nothing else under that name.
fn keep_original(upstream: &mut RequestHeader, from: &str, to: &'static str) -> Result<()> {
    let mut values = upstream.headers.get_all(from).iter();
    let joined = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(only), None) => Some(only.clone()),
        _ => {
            let all: Vec<&[u8]> =
                upstream.headers.get_all(from).iter().map(HeaderValue::as_bytes).collect();
            HeaderValue::from_bytes(&all.join(&b", "[..])).ok()
        }
    };
    match joined {
        Some(original) => upstream.insert_header(to, original)?,
        None => drop(upstream.remove_header(to)),
    }
    Ok(())
}

/// The client's id where it sent one, else a new one; as ingress-nginx does it.
fn request_id(request: &RequestHeader) -> HeaderValue {
    let sent = request.headers.get("x-request-id").filter(|id| !id.is_empty());
    sent.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        HeaderValue::from_maybe_shared(bytes::Bytes::from(id))
            .unwrap_or(HeaderValue::from_static(""))
    })
}

fn ip_value(ip: IpAddr) -> HeaderValue {
    let text = bytes::Bytes::from(ip.to_string());
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, chain: &str) -> String {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("X-Forwarded-For", chain).unwrap();
        request.insert_header("X-Forwarded-Proto", "https").unwrap();
        let trust =
            ForwardedTrust { proxies: trusted.iter().map(|net| net.parse().unwrap()).collect() };
        let connection = Connection { peer: peer.parse().unwrap(), port: 80, tls: false };
        let read = trust.read(&request, &connection);
        format!("{} {}", read.client, read.scheme())
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        assert_eq!(client(&[], "192.0.2.1", "203.0.113.9"), "192.0.2.1 http");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", "203.0.113.9"), "192.0.2.1 http");
        assert_eq!(client(&["192.0.2.0/24"], "192.0.2.1", "203.0.113.9"), "203.0.113.9 https");
        assert_eq!(
            client(&["192.0.2.0/24"], "192.0.2.1", "198.51.100.7, 203.0.113.9, 192.0.2.8"),
            "203.0.113.9 https"
        );
        assert_eq!(client(&["192.0.2.0/24"], "192.0.2.1", "garbage"), "192.0.2.1 https");
    }
}
