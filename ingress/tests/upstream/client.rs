//! Requests as a client sends them, over TCP or TLS, and what is expected of the answers.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// The value of `Authorization` for a user and a password.
pub fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("Basic ");
    for chunk in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// How TLS is spoken.
#[derive(Clone, Default)]
pub struct Tls {
    /// The name asked for; none is sent for an empty one.
    pub server_name: String,
    /// Chain and key of the client, as PEM.
    pub identity: Option<(String, String)>,
    /// TLS 1.2 at most.
    pub old: bool,
}

/// A request being put together; nothing is sent before [`Request::send`].
#[derive(Clone)]
pub struct Request {
    address: SocketAddr,
    preface: String,
    method: String,
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    body: String,
    tls: Option<Tls>,
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, host: &str, target: &str) -> Request {
        Request {
            address,
            preface: String::new(),
            method: method.into(),
            target: target.into(),
            host: host.into(),
            headers: Vec::new(),
            body: String::new(),
            tls: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn basic(self, user: &str, password: &str) -> Request {
        self.header("Authorization", &basic(user, password))
    }

    pub fn cookie(self, name: &str, value: &str) -> Request {
        self.header("Cookie", &format!("{name}={value}"))
    }

    pub fn host(mut self, host: &str) -> Request {
        self.host = host.into();
        self
    }

    pub fn body(mut self, body: &str) -> Request {
        self.body = body.into();
        self.header("Content-Length", &body.len().to_string())
    }

    /// Bytes before everything else, TLS included.
    pub fn preface(mut self, text: &str) -> Request {
        self.preface = text.into();
        self
    }

    pub fn tls(mut self, tls: Tls) -> Request {
        self.tls = Some(tls);
        self
    }

    pub fn address(mut self, address: SocketAddr) -> Request {
        self.address = address;
        self
    }

    /// Sends it on a connection of its own.
    #[track_caller]
    pub fn send(self) -> Reply {
        let what = format!("{} {}{}", self.method, self.host, self.target);
        match self.try_send() {
            Ok(reply) => reply,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    pub fn try_send(self) -> Result<Reply, String> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.host.is_empty() {
            write!(text, "Host: {}\r\n", self.host).unwrap();
        }
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        write!(text, "Connection: close\r\n\r\n{}", self.body).unwrap();
        let mut stream = TcpStream::connect(self.address).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(stream.write_all(self.preface.as_bytes()));
        let (bytes, certificates) = match &self.tls {
            None => (exchange(&mut stream, &text), Vec::new()),
            Some(tls) => {
                let mut session = session(tls)?;
                session.complete_io(&mut stream).map_err(|e| format!("TLS: {e}"))?;
                let chain = session.peer_certificates().unwrap_or_default().to_vec();
                let mut stream = rustls::Stream::new(&mut session, &mut stream);
                (exchange(&mut stream, &text), chain)
            }
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer came")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Reply {
            asked: format!("{} {}{}", self.method, self.host, self.target),
            status: status.ok_or("the answer has no status")?,
            head: head.into(),
            body: body.into(),
            certificates,
        })
    }
}

fn exchange(stream: &mut (impl Read + Write), text: &str) -> Vec<u8> {
    // The peer may refuse before it has read everything.
    drop(stream.write_all(text.as_bytes()));
    drop(stream.flush());
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
    }
    bytes
}

fn session(tls: &Tls) -> Result<ClientConnection, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if tls.old { &[&rustls::version::TLS12] } else { rustls::ALL_VERSIONS };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match &tls.identity {
        Some((chain, key)) => {
            let (chain, key) = crate::certificates::parsed(chain, key);
            config.with_client_auth_cert(chain, key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.enable_sni = !tls.server_name.is_empty();
    let name = if config.enable_sni { tls.server_name.clone() } else { "nobody".into() };
    let name = ServerName::try_from(name).map_err(|e| e.to_string())?;
    ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())
}

/// Takes every certificate: tests look at it themselves.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// An answer, and chains of expectations of it that say what was asked when they are not met.
#[derive(Debug)]
pub struct Reply {
    asked: String,
    pub status: u16,
    pub head: String,
    pub body: String,
    pub certificates: Vec<CertificateDer<'static>>,
}

impl Reply {
    /// Every value of a header of the answer.
    pub fn all(&self, name: &str) -> Vec<&str> {
        values(&self.head, name)
    }

    pub fn header(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }

    /// Every value of a header as the endpoint received it.
    pub fn seen(&self, name: &str) -> Vec<&str> {
        values(&self.body, name)
    }

    /// Which endpoint answered.
    pub fn backend(&self) -> &str {
        self.seen("backend").first().copied().unwrap_or_default()
    }

    /// The target the endpoint received.
    pub fn target(&self) -> &str {
        self.body.lines().nth(2).and_then(|line| line.split(' ').nth(1)).unwrap_or_default()
    }

    /// The value of a cookie set by the answer.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.all("set-cookie").iter().find_map(|line| {
            let (key, value) = line.split(';').next()?.split_once('=')?;
            (key == name).then_some(value)
        })
    }

    #[track_caller]
    pub fn expect(&self, met: bool, what: &str) -> &Reply {
        assert!(met, "{}: expected {what}\n{}\n\n{}", self.asked, self.head, self.body);
        self
    }

    #[track_caller]
    pub fn is(&self, status: u16) -> &Reply {
        self.expect(self.status == status, &format!("status {status}"))
    }

    /// 200 from this endpoint.
    #[track_caller]
    pub fn from(&self, backend: &str) -> &Reply {
        self.is(200).expect(self.backend() == backend, &format!("an answer of {backend}"))
    }

    /// The header is there once, with this value.
    #[track_caller]
    pub fn has(&self, name: &str, value: &str) -> &Reply {
        self.expect(self.all(name) == [value], &format!("header {name}: {value}"))
    }

    #[track_caller]
    pub fn lacks(&self, name: &str) -> &Reply {
        self.expect(self.all(name).is_empty(), &format!("no header {name}"))
    }

    /// The endpoint received the header once, with this value.
    #[track_caller]
    pub fn saw(&self, name: &str, value: &str) -> &Reply {
        self.expect(self.seen(name) == [value], &format!("{name}: {value} at the endpoint"))
    }

    #[track_caller]
    pub fn saw_no(&self, name: &str) -> &Reply {
        self.expect(self.seen(name).is_empty(), &format!("no {name} at the endpoint"))
    }

    /// The endpoint received this target.
    #[track_caller]
    pub fn saw_target(&self, target: &str) -> &Reply {
        self.is(200).expect(self.target() == target, &format!("target {target} at the endpoint"))
    }

    /// The body says so.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Reply {
        self.expect(self.body.contains(text), &format!("{text:?} in the body"))
    }
}

fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}
