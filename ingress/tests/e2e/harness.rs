//! Starting the binary, writing manifests, and asking it things.

use crate::backend::Backend;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running podium-ingress with its folder of manifests.
pub struct Ingress {
    pub folder: tempfile::TempDir,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub status: SocketAddr,
    pub process: Child,
    pub access_log: Arc<Mutex<String>>,
}

impl Drop for Ingress {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A loopback address of its own for each instance: a port that was free a moment ago may since be the
/// other end of somebody's connection, an address nobody else uses stays free.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed)])
}

impl Ingress {
    /// Starts with these files and waits until it is ready.
    pub fn start(files: &[(&str, &str)], flags: &[&str]) -> Ingress {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            write_file(folder.path(), name, text);
        }
        let path = folder.path().to_str().unwrap().to_string();
        Ingress::start_from(folder, &["--manifests", &path], flags)
    }

    /// Starts from a source named by flags and waits until it is ready.
    pub fn start_from(folder: tempfile::TempDir, source: &[&str], flags: &[&str]) -> Ingress {
        Ingress::start_in(folder, source, flags, &[])
    }

    /// The same with variables in its environment.
    pub fn start_in(
        folder: tempfile::TempDir,
        source: &[&str],
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Ingress {
        let classes = ["--watch-ingress-without-class", "--ingress-class", "nginx"];
        Ingress::start_as(folder, &[&classes, source, flags].concat(), environment)
    }

    /// Starts with these flags only, and addresses of its own, and waits until it is ready.
    pub fn start_as(
        folder: tempfile::TempDir,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Ingress {
        let address = own_address();
        let [http, https, status] = [8080, 8443, 10254].map(|port| SocketAddr::new(address, port));
        let mut process = Command::new(env!("CARGO_BIN_EXE_podium-ingress"))
            .args(["run", "--worker-threads", "2"])
            .args(["--http-bind-address", &http.to_string()])
            .args(["--https-bind-address", &https.to_string()])
            .args(["--status-bind-address", &status.to_string()])
            .args(flags)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let access_log = Arc::new(Mutex::new(String::new()));
        let (mut out, log) = (process.stdout.take().unwrap(), access_log.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                log.lock().unwrap().push_str(&text);
            }
        });
        let ingress = Ingress { folder, http, https, status, process, access_log };
        wait_until("/healthz answers 200", || {
            try_get(ingress.status, "status", "/healthz").is_some_and(|answer| answer.status == 200)
        });
        ingress
    }

    /// Writes a manifest; whole, so that it is never seen half.
    pub fn write(&self, name: &str, text: &str) {
        write_file(self.folder.path(), name, text);
    }

    pub fn get(&self, host: &str, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    }

    /// The same with more headers, each line ended by CR LF.
    pub fn ask(&self, method: &str, host: &str, path: &str, headers: &str) -> Answer {
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n"
        ))
    }

    /// Sends bytes as they are and reads until the connection ends.
    pub fn send(&self, request: &str) -> Answer {
        exchange(self.http, request.as_bytes()).unwrap()
    }

    pub fn metrics(&self) -> String {
        try_get(self.status, "status", "/metrics").unwrap().body
    }
}

fn write_file(folder: &Path, name: &str, text: &str) {
    let temporary = folder.join(format!(".{name}.tmp"));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, folder.join(name)).unwrap();
}

/// A parsed response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// A response header, or empty.
    pub fn header(&self, name: &str) -> String {
        value_of(&self.head, name)
    }

    /// All response headers of a name.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.into()).collect()
    }

    /// A line of what the backend said: `backend`, or a header it received.
    pub fn seen(&self, name: &str) -> String {
        value_of(&self.body, name)
    }

    /// The request line the backend saw.
    pub fn seen_target(&self) -> String {
        self.body.lines().nth(2).unwrap_or_default().split(' ').nth(1).unwrap_or_default().into()
    }
}

fn value_of(text: &str, name: &str) -> String {
    let found = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(n, _)| n.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_string()).unwrap_or_default()
}

pub fn try_get(address: SocketAddr, host: &str, path: &str) -> Option<Answer> {
    exchange(
        address,
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes(),
    )
}

/// One request, one response, until the peer closes.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The peer may refuse before it has read everything.
    drop(stream.write_all(request));
    let mut bytes = Vec::new();
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    parse(&String::from_utf8_lossy(&bytes))
}

pub fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.into(), body: body.into() })
}

/// Runs the real curl; returns its standard output and whether it succeeded.
pub fn curl(arguments: &[&str]) -> (String, bool) {
    let out = Command::new("curl")
        .args(["-sS", "-m", "15"])
        .args(arguments)
        .output()
        .expect("curl is needed");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        return (format!("{text}{}", String::from_utf8_lossy(&out.stderr)), false);
    }
    (text, true)
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(10));
    }
}

/// A Service in namespace `default` with one slice for each backend.
pub fn service(name: &str, backends: &[&Backend]) -> String {
    let named = backends.iter().map(|backend| (backend.name.clone(), backend.address));
    slices(name, named)
}

/// A Service in namespace `default` with one slice for each endpoint.
pub fn service_at(name: &str, endpoints: &[SocketAddr]) -> String {
    slices(name, endpoints.iter().enumerate().map(|(at, address)| (at.to_string(), *address)))
}

fn slices(name: &str, endpoints: impl Iterator<Item = (String, SocketAddr)>) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
    );
    for (slice, address) in endpoints {
        write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{slice}, labels: \
             {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {}}}]\nendpoints: \
             [{{addresses: [{}]}}]\n",
            address.port(),
            address.ip()
        )
        .unwrap();
    }
    text
}

/// `name: value` lines of ingress-nginx's annotations as the inside of a JSON object.
pub fn annotated(lines: &str) -> String {
    let pairs = lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        format!("\"nginx.ingress.kubernetes.io/{name}\": {value:?}")
    });
    pairs.collect::<Vec<_>>().join(", ")
}

/// Ingresses of the hosts `a.example`, `b.example`…, each with the path `/app` to the Service `web` and
/// these annotations, as `name: value` lines.
pub fn annotated_ingresses(annotations: &[&str]) -> String {
    let one = |(name, lines): (char, &&str)| {
        let host = format!("{name}.example");
        ingress(&name.to_string(), &annotated(lines), &[(&host, "/app", "Prefix", "web")])
    };
    ('a'..='z').zip(annotations).map(one).collect()
}

/// An Ingress in namespace `default`; rules are (host, path, path type, service).
pub fn ingress(name: &str, annotations: &str, rules: &[(&str, &str, &str, &str)]) -> String {
    let mut text = format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: \
         {{{annotations}}}}}\nspec:\n  rules:\n"
    );
    for (host, path, path_type, service) in rules {
        write!(
            text,
            "  - host: \"{host}\"\n    http: {{paths: [{{path: {path:?}, pathType: {path_type}, backend: {{service: \
             {{name: {service}, port: {{number: 80}}}}}}}}]}}\n"
        )
        .unwrap();
    }
    text
}
