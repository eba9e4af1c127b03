//! gRPC: tonic's client, bytes for messages, and an endpoint that speaks HTTP/2 only.

use super::start;
use bytes::{Buf, BufMut, Bytes};
use futures::StreamExt;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

const GRPC: &str = r#""nginx.ingress.kubernetes.io/backend-protocol": "GRPC""#;

type Body = StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>>;

/// Sends every frame back as it comes, then trailers; `/t.T/Fail` fails without an answer.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (send, receive) = mpsc::unbounded();
    let mut answer = Response::builder().header("content-type", "application/grpc");
    let te = request.headers().get("te").is_some_and(|te| te == "trailers");
    if request.uri().path() == "/t.T/Fail" || !te {
        // Trailers only: they stand in the head.
        answer = answer.header("grpc-status", "5").header("grpc-message", "not%20here");
        return Ok(answer.body(StreamBody::new(receive)).unwrap());
    }
    tokio::spawn(async move {
        let mut body = request.into_body();
        let mut count = 0_u64;
        while let Some(Ok(frame)) = body.frame().await {
            // The end of a request is an empty frame, which means nothing in an answer.
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                count += data.len() as u64;
                drop(send.unbounded_send(Ok(Frame::data(data))));
            }
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("x-bytes", count.into());
        drop(send.unbounded_send(Ok(Frame::trailers(trailers))));
    });
    Ok(answer.body(StreamBody::new(receive)).unwrap())
}

async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(echo));
            tokio::spawn(served);
        }
    });
    address
}

/// Messages are bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A channel by TLS with HTTP/2, as gRPC clients reach an ingress.
async fn channel(address: SocketAddr, trusted_pem: &str) -> Channel {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("a.example").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://a.example")
        .origin("https://a.example".parse().unwrap())
        .timeout(Duration::from_secs(20))
        .connect_with_connector(connect)
        .await
        .unwrap()
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

#[test]
fn grpc_unary_streams_and_failures() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all();
    runtime.build().unwrap().block_on(async {
        let endpoint = serve().await;
        let (podium, pair) =
            tokio::task::spawn_blocking(move || start(endpoint, GRPC)).await.unwrap();
        let mut client = Grpc::new(channel(podium.https, &pair.chain).await);

        for length in [0, 5, 100_000] {
            client.ready().await.unwrap();
            let sent = Bytes::from(vec![7; length]);
            let request = tonic::Request::new(sent.clone());
            let answer = client.unary(request, path("/t.T/Echo"), Raw).await.unwrap();
            assert_eq!(answer.metadata().get("x-bytes").unwrap(), &(length + 5).to_string());
            assert!(answer.into_inner() == sent);
        }

        client.ready().await.unwrap();
        let request = tonic::Request::new(Bytes::from_static(b"x"));
        let failed = client.unary(request, path("/t.T/Fail"), Raw).await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::NotFound, "not here"));

        // Both directions at once: each message is answered before the next is sent.
        client.ready().await.unwrap();
        let (say, said) = mpsc::unbounded();
        say.unbounded_send(Bytes::from_static(b"first")).unwrap();
        let request = tonic::Request::new(said);
        let mut answers =
            client.streaming(request, path("/t.T/Echo"), Raw).await.unwrap().into_inner();
        assert_eq!(answers.next().await.unwrap().unwrap(), "first");
        for at in 0..200 {
            let message = Bytes::from(format!("message {at}"));
            say.unbounded_send(message.clone()).unwrap();
            assert_eq!(answers.next().await.unwrap().unwrap(), message);
        }
        drop(say);
        assert!(answers.next().await.is_none());
        let trailers = answers.trailers().await.unwrap().unwrap();
        assert!(trailers.contains_key("x-bytes"));

        // Many at once on one connection.
        let calls = (0..200).map(|at| {
            let mut client = client.clone();
            async move {
                client.ready().await.unwrap();
                let request = tonic::Request::new(Bytes::from(format!("call {at}")));
                client.unary(request, path("/t.T/Echo"), Raw).await.unwrap().into_inner()
            }
        });
        for (at, answer) in futures::future::join_all(calls).await.into_iter().enumerate() {
            assert_eq!(answer, format!("call {at}"));
        }
        tokio::task::spawn_blocking(move || drop(podium)).await.unwrap();
    });
}
