//! Where a request came from: what the connection says, and what trusted proxies in front say.

use super::connection::Connection;
use crate::options::{ForwardedOptions, HeaderOptions};
use crate::variables::Values;
use http::HeaderValue;
use http::header::{HeaderMap, HeaderName};
use pingora::http::RequestHeader;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where a request came from.
#[derive(Debug)]
pub struct Forwarded {
    /// The client, beyond trusted proxies.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The connection is TLS.
    pub tls: bool,
    /// Our port.
    pub port: u16,
    trusted: bool,
    host: Option<HeaderValue>,
    proto: Option<HeaderValue>,
    forwarded_port: Option<HeaderValue>,
    request_id: RequestId,
}

#[derive(Debug)]
enum RequestId {
    None,
    Sent(HeaderValue),
    Own([u8; 32]),
}

impl Default for Forwarded {
    fn default() -> Forwarded {
        let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Forwarded {
            client: none,
            peer: none,
            tls: false,
            port: 0,
            trusted: false,
            host: None,
            proto: None,
            forwarded_port: None,
            request_id: RequestId::None,
        }
    }
}

impl Forwarded {
    /// Reads what a request says about its origin, as far as the peer is trusted to say it.
    pub fn read(
        request: &RequestHeader,
        connection: &Connection,
        trust: &ForwardedOptions,
        headers: &HeaderOptions,
    ) -> Forwarded {
        let Connection { peer, tls, port } = *connection;
        let request_id = RequestId::of(request, headers.generate_request_id);
        let mut forwarded =
            Forwarded { client: peer, peer, tls, port, request_id, ..Forwarded::default() };
        if !trust.reads_client() || !trusts(trust, peer) {
            return forwarded;
        }
        forwarded.trusted = trust.trusted;
        forwarded.client = client_beyond(trust, &request.headers, peer);
        if trust.trusted {
            let single = |name: &HeaderName| request.headers.get(name).cloned();
            forwarded.host = single(&X_FORWARDED_HOST);
            forwarded.forwarded_port = single(&X_FORWARDED_PORT);
            forwarded.proto = single(&X_FORWARDED_PROTO).filter(|proto| !proto.is_empty());
        }
        forwarded
    }

    /// `http` or `https`, as the client used it.
    pub fn scheme(&self) -> &'static str {
        match &self.proto {
            Some(proto) if proto == "https" => "https",
            Some(proto) if proto == "http" => "http",
            _ if self.tls => "https",
            _ => "http",
        }
    }

    /// What endpoints are told of it: the word of a trusted proxy, whatever that is.
    pub fn scheme_value(&self) -> HeaderValue {
        const HTTP: HeaderValue = HeaderValue::from_static("http");
        const HTTPS: HeaderValue = HeaderValue::from_static("https");
        match &self.proto {
            Some(proto) => proto.clone(),
            None if self.tls => HTTPS,
            None => HTTP,
        }
    }

    /// The host as the client wrote it to the first trusted proxy, with its port.
    pub fn host(&self) -> Option<&[u8]> {
        // Every proxy adds its own; the client's comes first.
        let hosts = self.host.as_ref()?.as_bytes();
        hosts.split(|byte| *byte == b',').next().map(<[u8]>::trim_ascii)
    }

    /// The same, or what the request itself says.
    pub fn best_host<'a>(&'a self, values: &Values<'a>) -> &'a [u8] {
        match self.host() {
            Some(host) => host,
            // Without a host nginx names its default server.
            None if values.http_host().is_empty() => b"_",
            None => values.http_host(),
        }
    }

    /// A trusted proxy is in front.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The port a trusted proxy was reached on.
    pub fn port_value(&self) -> Option<&HeaderValue> {
        self.forwarded_port.as_ref()
    }

    /// The same as text.
    pub fn port_text(&self) -> Option<&str> {
        self.forwarded_port.as_ref().and_then(|port| port.to_str().ok())
    }

    /// The id of the request: the client's, else our own, else empty.
    pub fn request_id(&self) -> &str {
        match &self.request_id {
            RequestId::None => "",
            RequestId::Sent(id) => id.to_str().unwrap_or_default(),
            RequestId::Own(id) => std::str::from_utf8(id).unwrap_or_default(),
        }
    }

    /// The same as a header's value.
    pub fn request_id_value(&self) -> Option<HeaderValue> {
        match &self.request_id {
            RequestId::None => None,
            RequestId::Sent(id) => Some(id.clone()),
            RequestId::Own(id) => HeaderValue::from_bytes(id).ok(),
        }
    }
}

impl RequestId {
    fn of(request: &RequestHeader, generate: bool) -> RequestId {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        match request.headers.get(&X_REQUEST_ID).filter(|id| !id.is_empty()) {
            Some(id) => RequestId::Sent(id.clone()),
            None if !generate => RequestId::None,
            None => {
                let mut text = [0; 32];
                let random = rand::random::<[u8; 16]>();
                for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
                    pair[0] = HEX[usize::from(byte >> 4)];
                    pair[1] = HEX[usize::from(byte & 15)];
                }
                RequestId::Own(text)
            }
        }
    }
}

fn trusts(trust: &ForwardedOptions, address: IpAddr) -> bool {
    trust.proxies.iter().any(|net| net.contains(&address))
}

/// The last address of the chain that is no trusted proxy (`real_ip_recursive on`).
fn client_beyond(trust: &ForwardedOptions, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let lines = headers.get_all(&trust.for_header).iter().rev();
    let hops = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
    let mut client = peer;
    for hop in hops {
        let Some(address) = address(hop.trim()) else {
            break;
        };
        client = address;
        if !trusts(trust, client) {
            break;
        }
    }
    client
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse::<IpAddr>().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(trust: &ForwardedOptions, peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let connection = Connection { peer: peer.parse().unwrap(), port: 80, tls: false };
        let read = Forwarded::read(&request, &connection, trust, &HeaderOptions::default());
        let host = String::from_utf8_lossy(read.host().unwrap_or_default()).into_owned();
        format!("{} {} {host}", read.client, read.scheme())
    }

    fn trusting(proxies: &[&str]) -> ForwardedOptions {
        ForwardedOptions {
            trusted: true,
            proxies: proxies.iter().map(|net| net.parse().unwrap()).collect(),
            ..ForwardedOptions::default()
        }
    }

    #[test]
    fn only_trusted_peers_are_believed() {
        let peer = "192.0.2.1";
        for (proxies, chain, expected) in [
            (&[][..], "203.0.113.9", "192.0.2.1 http "),
            (&["10.0.0.0/8"], "203.0.113.9", "192.0.2.1 http "),
            (&["192.0.2.0/24"], "203.0.113.9", "203.0.113.9 https "),
            (&["192.0.2.0/24"], "198.51.100.7, 203.0.113.9, 192.0.2.8", "203.0.113.9 https "),
            (&["192.0.2.0/24"], "garbage", "192.0.2.1 https "),
            (&["192.0.2.0/24"], "garbage, 203.0.113.9:4711", "203.0.113.9 https "),
            (&["0.0.0.0/0", "::/0"], "[2001:db8::1]:80, 203.0.113.9", "2001:db8::1 https "),
        ] {
            let headers = [("X-Forwarded-For", chain), ("X-Forwarded-Proto", "https")];
            assert_eq!(read(&trusting(proxies), peer, &headers), expected, "{proxies:?} {chain}");
        }
    }

    #[test]
    fn the_real_address_alone_may_be_believed() {
        let real_ip = ForwardedOptions {
            trusted: false,
            real_ip: true,
            for_header: HeaderName::from_static("cf-connecting-ip"),
            ..trusting(&["192.0.2.0/24"])
        };
        let headers = [
            ("CF-Connecting-IP", "203.0.113.9"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "evil"),
        ];
        assert_eq!(read(&real_ip, "192.0.2.1", &headers), "203.0.113.9 http ");
    }

    #[test]
    fn several_lines_are_one_chain_and_the_first_host_counts() {
        let headers = [
            ("X-Forwarded-For", "203.0.113.9"),
            ("X-Forwarded-For", "192.0.2.8"),
            ("X-Forwarded-Host", "shop.example, inner"),
        ];
        let trust = trusting(&["192.0.2.0/24"]);
        assert_eq!(read(&trust, "192.0.2.1", &headers), "203.0.113.9 http shop.example");
    }
}
