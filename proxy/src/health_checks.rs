//! One HTTP server for each `healthCheckNodePort`: load balancers ask there whether this node has
//! endpoints of the Service. Answers come from memory and wait for nothing.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot, watch},
    time,
};
use tracing::debug;

use crate::{
    model::{HealthCheck, Problem},
    serve::Health,
};

/// How long to wait before trying again to listen on a port.
const RETRY: Duration = Duration::from_secs(5);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Tells weighted load balancers how many endpoints there are.
const WEIGHT_HEADER: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// All the servers. They end when this is dropped.
#[derive(Debug)]
pub struct HealthChecks {
    health: Health,
    servers: BTreeMap<u16, Server>,
    failures: Arc<Mutex<BTreeMap<u16, Problem>>>,
    failures_changed: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Server {
    check: watch::Sender<HealthCheck>,
    /// Dropped with this: the server ends.
    _stop: oneshot::Sender<()>,
}

impl HealthChecks {
    /// No servers yet. The receiver hears of each change of [`HealthChecks::problems`].
    pub fn new(health: Health) -> (Self, mpsc::Receiver<()>) {
        let (failures_changed, heard) = mpsc::channel(1);
        let servers = BTreeMap::new();
        (Self { health, servers, failures: Arc::default(), failures_changed }, heard)
    }

    /// Starts and stops servers so that these are there. Those whose numbers change go on.
    pub fn set(&mut self, wanted: &BTreeMap<u16, HealthCheck>) {
        let before = self.servers.len();
        self.servers.retain(|port, _| wanted.contains_key(port));
        if self.servers.len() < before {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.retain(|port, _| wanted.contains_key(port));
        }
        for (port, check) in wanted {
            let Some(server) = self.servers.get(port) else {
                self.servers.insert(*port, self.start(*port, check.clone()));
                continue;
            };
            server.check.send_if_modified(|known| {
                let differs = known != check;
                known.clone_from(check);
                differs
            });
        }
    }

    /// Ports nobody can be answered on.
    pub fn problems(&self) -> Vec<Problem> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.values().cloned().collect()
    }

    fn start(&self, port: u16, check: HealthCheck) -> Server {
        let (sender, receiver) = watch::channel(check);
        let (stop, stopped) = oneshot::channel();
        let task = ServerTask {
            port,
            shared: Shared { health: self.health.clone(), check: receiver },
            failures: Arc::clone(&self.failures),
            failures_changed: self.failures_changed.clone(),
        };
        tokio::spawn(task.run(stopped));
        Server { check: sender, _stop: stop }
    }
}

#[derive(Clone)]
struct Shared {
    health: Health,
    check: watch::Receiver<HealthCheck>,
}

struct ServerTask {
    port: u16,
    shared: Shared,
    failures: Arc<Mutex<BTreeMap<u16, Problem>>>,
    failures_changed: mpsc::Sender<()>,
}

impl ServerTask {
    async fn run(self, mut stopped: oneshot::Receiver<()>) {
        let listener = tokio::select! {
            listener = self.listen() => listener,
            _ = &mut stopped => return,
        };
        let routes = Router::new().fallback(answer).with_state(self.shared);
        let until = async move {
            let _ = stopped.await;
        };
        // Only the listener is closed at once; who is being answered gets the answer.
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(until).await {
            debug!(port = self.port, "health checks ended: {error}");
        }
    }

    async fn listen(&self) -> TcpListener {
        loop {
            match listen(self.port) {
                Ok(listener) => {
                    self.failed(None);
                    return listener;
                }
                Err(error) => self.failed(Some(&error)),
            }
            time::sleep(RETRY).await;
        }
    }

    fn failed(&self, error: Option<&io::Error>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = error.map(|error| Problem {
            object: format!("Service {}", self.shared.check.borrow().service),
            field: "spec.healthCheckNodePort".to_owned(),
            message: format!(
                "cannot listen on port {}: {error}; load balancers find no healthy node here",
                self.port
            ),
        });
        if failures.get(&self.port) == problem.as_ref() {
            return;
        }
        match problem {
            Some(problem) => failures.insert(self.port, problem),
            None => failures.remove(&self.port),
        };
        drop(failures);
        // A full channel: the reader has yet to hear of the change before.
        let _ = self.failures_changed.try_send(());
    }
}

/// Listens for both families, or for IPv4 where the kernel has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = match TcpSocket::new_v6() {
        Ok(socket) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
            socket.set_reuseaddr(true)?;
            match socket.bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
                // IPv6 is there, but switched off.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => listen_v4(port)?,
                bound => bound.map(|()| socket)?,
            }
        }
        Err(_) => listen_v4(port)?,
    };
    socket.listen(BACKLOG)
}

fn listen_v4(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    Ok(socket)
}

/// The answer's body, in kube-proxy's form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: BodyService<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct BodyService<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// Any path and method, as with kube-proxy.
async fn answer(State(shared): State<Shared>) -> Response {
    let healthy = shared.health.is_healthy();
    let check = shared.check.borrow().clone();
    let body = Body {
        service: BodyService { namespace: &check.service.namespace, name: &check.service.name },
        local_endpoints: check.local_endpoints,
        service_proxy_healthy: healthy,
    };
    let code = if check.local_endpoints > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (WEIGHT_HEADER, HeaderValue::from(check.local_endpoints)),
    ];
    match serde_json::to_vec(&body) {
        Ok(body) => (code, headers, body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;
    use crate::model::ObjectName;

    fn check(name: &str, local_endpoints: usize) -> HealthCheck {
        let service = ObjectName { namespace: "default".to_owned(), name: name.to_owned() };
        HealthCheck { service, local_endpoints }
    }

    /// A port of loopback that was free a moment ago.
    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.local_addr().expect("its address").port()
    }

    async fn connect(port: u16) -> TcpStream {
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(stream) => return stream,
                Err(_) => time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn ask(stream: &mut TcpStream) -> String {
        let request = b"GET /anything HTTP/1.1\r\nHost: node\r\n\r\n";
        stream.write_all(request).await.expect("a server that listens");
        let mut answer = Vec::new();
        // The body's end is that of its object.
        while !answer.ends_with(b"}") {
            let read = stream.read_buf(&mut answer).await.expect("an answer");
            assert_ne!(read, 0, "cut off: {}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).expect("text")
    }

    #[tokio::test]
    async fn health_check_node_port_answers_as_kube_proxy_does() {
        let health = Health::default();
        health.synced();
        let (mut checks, _failures) = HealthChecks::new(health.clone());
        let port = free_port();
        checks.set(&BTreeMap::from([(port, check("web", 2))]));
        let mut stream = connect(port).await;
        let answer = ask(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        for header in [
            "content-type: application/json\r\n",
            "x-content-type-options: nosniff\r\n",
            "x-load-balancing-endpoint-weight: 2\r\n",
        ] {
            assert!(answer.contains(header), "{header} in {answer}");
        }
        let body = r#"{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#;
        assert!(answer.ends_with(body), "{answer}");

        // The same connection lives through changes of numbers and of others.
        let other = free_port();
        checks.set(&BTreeMap::from([(port, check("web", 0)), (other, check("other", 1))]));
        let answer = ask(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains(r#""localEndpoints":0,"serviceProxyHealthy":true"#), "{answer}");
        assert!(ask(&mut connect(other).await).await.starts_with("HTTP/1.1 200 "));
        checks.set(&BTreeMap::from([(port, check("web", 1))]));
        assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200 "));

        health.set_overflow(true);
        let answer = ask(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains(r#""localEndpoints":1,"serviceProxyHealthy":false"#), "{answer}");
    }

    #[tokio::test]
    async fn health_check_servers_come_and_go() {
        let (mut checks, _failures) = HealthChecks::new(Health::default());
        let port = free_port();
        checks.set(&BTreeMap::from([(port, check("web", 1))]));
        drop(connect(port).await);
        checks.set(&BTreeMap::new());
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            time::sleep(Duration::from_millis(5)).await;
        }
        assert!(checks.problems().is_empty());
    }

    #[tokio::test]
    async fn a_health_check_port_that_is_taken_is_a_problem_of_its_service() {
        let (mut checks, mut failures) = HealthChecks::new(Health::default());
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("its address").port();
        checks.set(&BTreeMap::from([(port, check("web", 1))]));
        failures.recv().await.expect("word of the failure");
        let problems = checks.problems();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].object, "Service default/web");
        assert_eq!(problems[0].field, "spec.healthCheckNodePort");
        checks.set(&BTreeMap::new());
        assert!(checks.problems().is_empty(), "nobody wants the port any more");
    }
}
