//! Doing one probe or one lifecycle hook: HTTP, TCP, gRPC health or a command in the container.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio_rustls::rustls;

use crate::cri::Runtime;

/// As much of an answer as may appear in an event (upstream's limit).
const BODY_BYTES_MAX: usize = 10 << 10;

/// Where the container is reached.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) container_id: String,
    pub(crate) pod_ip: Option<IpAddr>,
}

/// Runs the probe once. `Err` is what its event says after `<Kind> probe failed: `.
pub(crate) async fn probe(
    runtime: &Runtime,
    spec: &Container,
    probe: &Probe,
    target: &Target,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        return match runtime.exec(&target.container_id, command, timeout).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => Err(shortened(&answer.output)),
            Err(error) => Err(error.to_string()),
        };
    }
    let attempt = async {
        if let Some(action) = &probe.http_get {
            return match http_get(spec, action, target).await {
                Ok((200..400, _)) => Ok(()),
                Ok((status, _)) => Err(format!("HTTP probe failed with statuscode: {status}")),
                Err(error) => Err(error),
            };
        }
        if let Some(action) = &probe.tcp_socket {
            let port = port_number(spec, &action.port)?;
            return connect(host(action.host.as_deref(), target)?, port).await.map(|_| ());
        }
        if let Some(action) = &probe.grpc {
            return grpc_health(action, target).await;
        }
        Err("missing probe handler".to_owned())
    };
    match tokio::time::timeout(timeout, attempt).await {
        Ok(result) => result,
        Err(_) => Err("context deadline exceeded (probe timed out)".to_owned()),
    }
}

fn shortened(output: &[u8]) -> String {
    let end = output.len().min(BODY_BYTES_MAX);
    String::from_utf8_lossy(&output[..end]).into_owned()
}

/// The number of a port given by number or by the name of one of the container's ports.
pub(crate) fn port_number(spec: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = spec.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("couldn't find port: {port:?}"))
}

fn host(given: Option<&str>, target: &Target) -> Result<String, String> {
    match (given.filter(|host| !host.is_empty()), target.pod_ip) {
        (Some(host), _) => Ok(host.to_owned()),
        (None, Some(ip)) => Ok(ip.to_string()),
        (None, None) => Err("the pod has no address".to_owned()),
    }
}

async fn connect(host: String, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

/// GETs and returns the status and the beginning of the body.
pub(crate) async fn http_get(
    spec: &Container,
    action: &HTTPGetAction,
    target: &Target,
) -> Result<(u16, String), String> {
    let port = port_number(spec, &action.port)?;
    let host = host(action.host.as_deref(), target)?;
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let mut request = http::Request::get(path).header("User-Agent", "kube-probe/1.36");
    let mut has_host = false;
    let mut has_accept = false;
    for header in action.http_headers.iter().flatten() {
        has_host |= header.name.eq_ignore_ascii_case("host");
        has_accept |= header.name.eq_ignore_ascii_case("accept");
        request = request.header(&header.name, &header.value);
    }
    if !has_host {
        request = request.header("Host", format!("{bracketed}:{port}"));
    }
    if !has_accept {
        request = request.header("Accept", "*/*");
    }
    let request = request
        .header("Connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = connect(host, port).await?;
    if action.scheme.as_deref() == Some("HTTPS") {
        let name =
            rustls::pki_types::ServerName::try_from(bracketed.trim_matches(['[', ']']).to_owned())
                .map_err(|error| error.to_string())?;
        let stream = unverified_tls().connect(name, stream).await.map_err(|e| e.to_string())?;
        return exchange(TokioIo::new(stream), request).await;
    }
    exchange(TokioIo::new(stream), request).await
}

async fn exchange<S>(
    stream: S,
    request: http::Request<Empty<Bytes>>,
) -> Result<(u16, String), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    let result = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map(|body| shortened(&body.to_bytes())).unwrap_or_default();
            Ok((status, body))
        }
        Err(error) => Err(format!("Get: {error}")),
    };
    connection.abort();
    result
}

/// TLS that accepts any certificate: probes do not verify, by the API's definition.
fn unverified_tls() -> tokio_rustls::TlsConnector {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap_or_else(|error| unreachable!("ring supports every version: {error}"));
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls::pki_types::CertificateDer<'_>,
        _intermediates: &[rustls::pki_types::CertificateDer<'_>],
        _server_name: &rustls::pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `grpc.health.v1.Health/Check` with its two one-field messages encoded by hand.
async fn grpc_health(action: &GRPCAction, target: &Target) -> Result<(), String> {
    let port = u16::try_from(action.port).map_err(|error| error.to_string())?;
    let stream = connect(host(None, target)?, port).await?;
    let handshake = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        TokioIo::new(stream),
    );
    let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let service = action.service.as_deref().unwrap_or_default();
    let request = http::Request::post("http://pod/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::Full::new(Bytes::from(health_request(service)?)))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }
    .await;
    connection.abort();
    match health_status(&answer?) {
        Some(1) => Ok(()),
        _ => Err("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
    }
}

/// A gRPC frame around `HealthCheckRequest { service = 1 }`.
fn health_request(service: &str) -> Result<Vec<u8>, String> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 126);
    let length = length.ok_or("the gRPC service name is longer than 125 bytes")?;
    let mut frame = vec![0, 0, 0, 0, if length == 0 { 0 } else { length + 2 }];
    if length > 0 {
        frame.extend([0x0a, length]);
        frame.extend_from_slice(service.as_bytes());
    }
    Ok(frame)
}

/// The `status = 1` of a framed `HealthCheckResponse`.
fn health_status(frame: &[u8]) -> Option<u8> {
    match frame.get(5..)? {
        [0x08, status, ..] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn serve_once(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        port
    }

    #[tokio::test]
    async fn http_statuses() {
        let target = Target { container_id: String::new(), pod_ip: Some([127, 0, 0, 1].into()) };
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
                Err("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ] {
            let port = serve_once(answer).await;
            let spec = Container::default();
            let probe_spec = Probe {
                http_get: Some(HTTPGetAction {
                    port: IntOrString::Int(port.into()),
                    ..HTTPGetAction::default()
                }),
                ..Probe::default()
            };
            let runtime = Runtime::at_socket(std::path::Path::new("/nonexistent"));
            let limit = Duration::from_secs(2);
            assert_eq!(probe(&runtime, &spec, &probe_spec, &target, limit).await, expected);
        }
    }

    #[test]
    fn named_ports_and_health_frames() {
        let spec: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
        .unwrap();
        assert_eq!(port_number(&spec, &IntOrString::String("web".into())), Ok(8080));
        assert!(port_number(&spec, &IntOrString::String("none".into())).is_err());
        assert!(port_number(&spec, &IntOrString::Int(70_000)).is_err());
        assert_eq!(health_request("").unwrap(), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab").unwrap(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(health_status(&[0, 0, 0, 0, 0]), None);
    }
}
