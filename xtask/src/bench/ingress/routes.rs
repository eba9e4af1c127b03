//! The routes that everybody serves: the same list as Ingresses for Podium, as a configuration of nginx and
//! as one of haproxy.
//!
//! All three forward what ingress-nginx forwards and log what it logs. nginx and haproxy collect their log
//! as Podium does, keep connections to endpoints as ingress-nginx does, and state what is the same for all
//! routes once, as people write it who write it by hand.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;

/// Port of every endpoint.
pub const ENDPOINT_PORT: u16 = 8080;
/// Endpoints of a service.
const ENDPOINTS: u32 = 4;
/// Idle connections that are kept to the endpoints of a service.
const KEEPALIVE: u32 = 320;

/// Hosts with paths, each of which leads to one of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Hosts `h0.bench.example`…
    pub hosts: u32,
    /// Paths `/p0`… of each.
    pub paths: u32,
    /// Services, to which routes lead in turn.
    pub services: u32,
}

/// Where a contender listens, and where its files are.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its own address.
    pub address: Ipv4Addr,
    /// Its own folder.
    pub folder: &'a Path,
    /// Certificate and key, in one file.
    pub certificate: &'a Path,
}

impl Routes {
    /// So many routes, ten of each host where there are many; up to ten services.
    pub fn new(count: u32) -> Routes {
        let paths = count.clamp(1, 10);
        Routes { hosts: count.div_ceil(paths), paths, services: count.clamp(1, 10) }
    }

    /// So many routes, each of a host and a service of its own.
    pub fn apart(count: u32) -> Routes {
        Routes { hosts: count, paths: 1, services: count }
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.hosts * self.paths
    }

    fn service(self, host: u32, path: u32) -> u32 {
        (host * self.paths + path) % self.services
    }

    /// Ingresses, Services and EndpointSlices as a stream of YAML documents. `certificate` and `key` are
    /// PEM in base64, for all hosts.
    pub fn manifests(self, certificate: &str, key: &str) -> String {
        let mut text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {{name: podium}}\n\
             spec: {{controller: podium.dev/ingress}}\n---\napiVersion: v1\nkind: Secret\n\
             metadata: {{name: tls, namespace: bench}}\ntype: kubernetes.io/tls\n\
             data: {{tls.crt: {certificate}, tls.key: {key}}}\n"
        );
        for service in 0..self.services {
            text.push_str("---\n");
            text.push_str(&service_manifests(&format!("s{service}"), &endpoints(service)));
        }
        for host in 0..self.hosts {
            let name = format!("h{host}.bench.example");
            // What is asked without TLS is answered without.
            let _ = write!(
                text,
                "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: h{host}\n  \
                 namespace: bench\n  annotations: {{nginx.ingress.kubernetes.io/ssl-redirect: \"false\"}}\n\
                 spec:\n  ingressClassName: podium\n  tls: [{{hosts: [{name}], secretName: tls}}]\n  \
                 rules:\n  - host: {name}\n    http:\n      paths:\n"
            );
            for path in 0..self.paths {
                let service = self.service(host, path);
                let _ = writeln!(
                    text,
                    "      - {{path: /p{path}, pathType: Prefix, backend: {{service: {{name: s{service}, \
                     port: {{number: 80}}}}}}}}"
                );
            }
        }
        text
    }

    /// For nginx. `log` is what `access_log` takes besides the format.
    pub fn nginx(self, place: Place<'_>, log: &str) -> String {
        let (address, certificate) = (place.address, place.certificate.display());
        let folder = place.folder.display();
        let mut text = format!(
            r#"daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; multi_accept on; use epoll; }}
http {{
log_format upstreaminfo '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent '
  '"$http_referer" "$http_user_agent" $request_length $request_time [$proxy_host] [] $upstream_addr '
  '$upstream_response_length $upstream_response_time $upstream_status $req_id';
access_log {folder}/access.log upstreaminfo{log};
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
map $http_x_request_id $req_id {{ default $http_x_request_id; '' $request_id; }}
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
sendfile on;
tcp_nopush on;
tcp_nodelay on;
server_tokens off;
keepalive_timeout 75s;
keepalive_requests 1000;
client_max_body_size 1m;
server_names_hash_max_size 65536;
server_names_hash_bucket_size 128;
ssl_certificate {certificate};
ssl_certificate_key {certificate};
ssl_protocols TLSv1.2 TLSv1.3;
ssl_session_cache shared:SSL:10m;
proxy_http_version 1.1;
proxy_connect_timeout 5s;
proxy_next_upstream error timeout;
proxy_set_header Host $http_host;
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
proxy_set_header X-Request-ID $req_id;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Host $http_host;
proxy_set_header X-Forwarded-Port $server_port;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Scheme $scheme;
proxy_set_header X-Scheme $scheme;
proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
proxy_set_header Proxy "";
"#
        );
        for service in 0..self.services {
            let _ = write!(text, "upstream s{service} {{ keepalive {KEEPALIVE};");
            text.push_str(" keepalive_requests 10000;");
            for endpoint in endpoints(service) {
                let _ = write!(text, " server {endpoint}:{ENDPOINT_PORT};");
            }
            text.push_str(" }\n");
        }
        for host in 0..self.hosts {
            let _ = writeln!(
                text,
                "server {{ listen {address}:80; listen {address}:443 ssl; server_name h{host}.bench.example;"
            );
            for path in 0..self.paths {
                let service = self.service(host, path);
                // A Prefix is a path and what is below it.
                for location in [format!("= /p{path}"), format!("/p{path}/")] {
                    let _ =
                        writeln!(text, "location {location} {{ proxy_pass http://s{service}; }}");
                }
            }
            text.push_str("}\n");
        }
        text.push_str("}\n");
        text
    }

    /// For haproxy, and its map of routes.
    pub fn haproxy(self, place: Place<'_>) -> (String, String) {
        let (address, certificate) = (place.address, place.certificate.display());
        let mut text = format!(
            r#"global
  nbthread 1
  maxconn 8192
  log stdout format raw local0
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  timeout http-keep-alive 75s
  timeout http-request 60s
frontend web
  bind {address}:80
  bind {address}:443 ssl crt {certificate}
  http-request capture req.hdr(Referer) len 128
  http-request capture req.hdr(User-Agent) len 256
  http-request set-var(txn.id) req.hdr(X-Request-ID)
  http-request set-var(txn.id) uuid() unless {{ var(txn.id) -m found }}
  http-request set-header X-Request-ID %[var(txn.id)]
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Original-Forwarded-For %[req.hdr(X-Forwarded-For)] if {{ req.hdr(X-Forwarded-For) -m found }}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-var(txn.scheme) str(http)
  http-request set-var(txn.scheme) str(https) if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto %[var(txn.scheme)]
  http-request set-header X-Forwarded-Scheme %[var(txn.scheme)]
  http-request set-header X-Scheme %[var(txn.scheme)]
  http-request del-header Proxy
  log-format '%ci - - [%tr] %{{+Q}}r %ST %B %{{+Q}}[capture.req.hdr(0)] %{{+Q}}[capture.req.hdr(1)] %U %Ta [%b] [] %si:%sp %B %Tr %ST %[var(txn.id)]'
  use_backend %[base,map_beg({},none)]
backend none
  http-request deny deny_status 404
"#,
            place.folder.join("routes.map").display()
        );
        for service in 0..self.services {
            let _ = writeln!(text, "backend s{service}\n  balance roundrobin");
            for (number, endpoint) in endpoints(service).iter().enumerate() {
                let _ = writeln!(text, "  server e{number} {endpoint}:{ENDPOINT_PORT}");
            }
        }
        let mut map = String::new();
        for host in 0..self.hosts {
            for path in 0..self.paths {
                let service = self.service(host, path);
                let _ = writeln!(map, "h{host}.bench.example/p{path}/ s{service}");
            }
        }
        (text, map)
    }
}

/// A Service with one EndpointSlice.
pub fn service_manifests(name: &str, endpoints: &[Ipv4Addr]) -> String {
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|address| format!("{{addresses: [{address}], conditions: {{ready: true}}}}"))
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bench}}\n\
         spec: {{ports: [{{port: 80, targetPort: {ENDPOINT_PORT}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-1\n  \
         namespace: bench\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
         ports: [{{port: {ENDPOINT_PORT}}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// Endpoints of a service, every one with an address of its own.
pub fn endpoints(service: u32) -> Vec<Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(127, 32, 0, 0)) + service * ENDPOINTS;
    (first..first + ENDPOINTS).map(Ipv4Addr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_every_route() {
        let routes = Routes::new(30);
        assert_eq!((routes.hosts, routes.paths, routes.services), (3, 10, 10));
        let manifests = routes.manifests("Yw==", "aw==");
        assert_eq!(manifests.matches("pathType: Prefix").count(), 30);
        assert_eq!(manifests.matches("kind: EndpointSlice").count(), 10);
        let folder = Path::new("/bench");
        let address = Ipv4Addr::new(127, 1, 0, 1);
        let place = Place { address, folder, certificate: Path::new("/bench/tls.pem") };
        let nginx = routes.nginx(place, "");
        assert_eq!(nginx.matches("proxy_pass http://").count(), 2 * 30);
        assert_eq!(nginx.matches("upstream s").count(), 10);
        let (haproxy, map) = routes.haproxy(place);
        assert_eq!((haproxy.matches("backend s").count(), map.lines().count()), (10, 30));
        assert!(map.contains("h2.bench.example/p9/ s9"));
    }

    #[test]
    fn endpoints_are_nobody_else_s() {
        assert_eq!(endpoints(0)[0], Ipv4Addr::new(127, 32, 0, 0));
        assert_eq!(endpoints(4_999)[3], Ipv4Addr::new(127, 32, 78, 31));
    }
}
