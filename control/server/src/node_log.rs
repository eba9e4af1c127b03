//! `pods/log`: asked of the node the Pod runs on, over its agent's HTTPS port.
//!
//! The agent's serving certificate is self-signed and not checked, as upstream's default is; the
//! agent checks ours.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use podium_api::object;
use podium_api::status::Status;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::answer::{self, AnswerBody};
use crate::body::BoxError;
use crate::kind::Kind;
use crate::objects::ObjectsCall;
use crate::pki::Credentials;

const CONNECT_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// What a log request may ask for; passed on to the agent.
const LOG_OPTIONS: &[&str] = &[
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "stream",
    "tailLines",
    "timestamps",
];

/// A client of the agents.
pub(crate) struct NodeClient {
    connector: TlsConnector,
}

impl NodeClient {
    /// A client that shows the given certificate.
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from(credentials.certificate_der.clone())];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(credentials.key_der.clone()));
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_client_auth_cert(chain, key)
            .map_err(|error| error.to_string())?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    async fn get(
        &self,
        address: &str,
        port: u16,
        path: &str,
    ) -> Result<Response<hyper::body::Incoming>, BoxError> {
        let stream = TcpStream::connect((address, port)).await?;
        let name = ServerName::try_from(address.to_owned())?;
        let stream = self.connector.connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an agent");
            }
        });
        let host = if address.contains(':') {
            format!("[{address}]:{port}")
        } else {
            format!("{address}:{port}")
        };
        let request = Request::get(path)
            .header(http::header::HOST, host)
            .body(Empty::<bytes::Bytes>::new())?;
        Ok(sender.send_request(request).await?)
    }
}

/// Answers `GET …/pods/<name>/log`.
pub(crate) async fn answer(
    objects: &ObjectsCall<'_>,
    name: &str,
) -> Result<Response<AnswerBody>, Status> {
    let namespace = &objects.path.namespace;
    let pod = objects.api.registry.get(&objects.kind, namespace, name).await?;
    let container = container(&pod.value, objects.call.query.get("container"))?;
    let node_name = pod.value["spec"]["nodeName"].as_str().unwrap_or_default();
    if node_name.is_empty() {
        // Nothing runs yet, so nothing has been written.
        return Ok(answer::raw(200, "text/plain", ""));
    }
    let nodes = Kind::internal("", "Node")?;
    let node = objects.api.registry.get(&nodes, "", node_name).await?;
    let (address, port) = endpoint(&node.value).ok_or_else(|| {
        Status::internal(format!("node {node_name:?} has no address or agent port to ask for logs"))
    })?;
    let path = format!("/containerLogs/{namespace}/{name}/{container}?{}", options(objects));
    let asked = objects.api.node_client.get(&address, port, &path);
    let unreachable = |reason: String| {
        Status::internal(format!("Get \"https://{address}:{port}{path}\": {reason}"))
    };
    let response = tokio::time::timeout(CONNECT_MAX, asked)
        .await
        .map_err(|_| unreachable("timed out".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    relay(objects, response).await
}

/// The options of the request that an agent understands, as a query.
fn options(objects: &ObjectsCall<'_>) -> String {
    let mut options = form_urlencoded::Serializer::new(String::new());
    for option in LOG_OPTIONS {
        if let Some(value) = objects.call.query.get(option) {
            options.append_pair(option, value);
        }
    }
    options.finish()
}

/// Passes a log on; an agent's error becomes a Status.
async fn relay(
    objects: &ObjectsCall<'_>,
    response: Response<hyper::body::Incoming>,
) -> Result<Response<AnswerBody>, Status> {
    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        let text = body.collect().await.map_err(Status::internal)?.to_bytes();
        let message = String::from_utf8_lossy(&text).trim().to_owned();
        return Err(match parts.status {
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Status::bad_request(message),
            _ => Status::internal(message),
        });
    }
    let guard = objects.api.metrics.long_running("pods/log");
    let stopping = objects.api.stopping.clone();
    let stream =
        futures::stream::unfold((body, guard, stopping), |(mut body, guard, stopping)| async {
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame?,
                    () = stopping.cancelled() => return None,
                };
                match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => return Some((Ok(data), (body, guard, stopping))),
                    Ok(Err(_trailers)) => {}
                    Err(error) => {
                        let error: BoxError = Box::new(error);
                        return Some((Err(error), (body, guard, stopping)));
                    }
                }
            }
        });
    let mut answer = Response::new(answer::streamed(stream));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}

/// The container meant: the one named, the annotated one, or the only one.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let name = object::name(pod);
    if let Some(asked) = asked {
        if main.iter().chain(&init).any(|known| known == asked) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    if let [only] = &main[..]
        && init.is_empty()
    {
        return Ok(only.clone());
    }
    let default = object::annotation(pod, "kubectl.kubernetes.io/default-container");
    if let Some(default) = default.filter(|default| main.iter().any(|known| known == default)) {
        return Ok(default.to_owned());
    }
    let mut message = format!(
        "a container name must be specified for pod {name}, choose one of: [{}]",
        main.join(" ")
    );
    if !init.is_empty() {
        message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(Status::bad_request(message))
}

/// Where a node's agent listens.
fn endpoint(node: &Value) -> Option<(String, u16)> {
    let status = &node["status"];
    let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64()?;
    let addresses = status["addresses"].as_array()?;
    let of_type = |wanted: &str| addresses.iter().find(|address| address["type"] == wanted);
    let address = of_type("InternalIP").or_else(|| of_type("Hostname"))?;
    Some((address["address"].as_str()?.to_owned(), u16::try_from(port).ok()?))
}

/// Accepts any server certificate, but still checks that the server holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
