//! The routes that everybody serves: the same list as Ingresses for Podium, as a configuration of nginx and
//! as one of haproxy.
//!
//! All three forward what ingress-nginx forwards and log what it logs. nginx and haproxy collect their log
//! as Podium does, keep connections to endpoints as ingress-nginx does, and state what is the same for all
//! routes once, as people write it who write it by hand.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};

/// Port of every endpoint.
pub const ENDPOINT_PORT: u16 = 8080;
/// Of every object.
pub const NAMESPACE: &str = "bench";
/// Endpoints of all services together.
const ENDPOINTS: u32 = 40;
/// Idle connections that are kept to endpoints, as ingress-nginx does; nginx counts those of each service.
const KEEPALIVE: u32 = 320;
const KEEPALIVE_EACH_MIN: u32 = 1;

/// Hosts with paths, each of which leads to one of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Hosts `h0.bench.example`…
    pub hosts: u32,
    /// Paths `/p0`… of each.
    pub paths: u32,
    /// Services, to which routes lead in turn.
    pub services: u32,
    /// Endpoints of each service.
    pub endpoints_each: u32,
    /// nginx serves them over TLS too. It makes a context of TLS for each host, which takes it minutes
    /// where hosts are thousands.
    nginx_tls: bool,
}

/// What nginx does for all routes: what it forwards is what ingress-nginx forwards.
const NGINX_HTTP: &str = "\
sendfile on;
tcp_nopush on;
tcp_nodelay on;
server_tokens off;
keepalive_timeout 75s;
keepalive_requests 1000;
client_max_body_size 1m;
server_names_hash_max_size 65536;
server_names_hash_bucket_size 128;
ssl_protocols TLSv1.2 TLSv1.3;
ssl_session_cache shared:SSL:10m;
map $https $hsts { default ''; on 'max-age=31536000; includeSubDomains'; }
add_header Strict-Transport-Security $hsts;
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
proxy_set_header Proxy '';
";

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
    /// So many routes, ten of each host where there are many; up to ten services, and as many endpoints
    /// however many those are: routes are to make the difference, not connections.
    pub fn new(count: u32) -> Routes {
        let paths = count.clamp(1, 10);
        let hosts = count.div_ceil(paths);
        Routes { hosts, paths, services: paths, endpoints_each: ENDPOINTS / paths, nginx_tls: true }
    }

    /// So many routes, each of a host and a service of its own.
    pub fn apart(count: u32) -> Routes {
        Routes { hosts: count, paths: 1, services: count, endpoints_each: 2, nginx_tls: false }
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        self.hosts * self.paths
    }

    /// Endpoints of a service, every one with an address of its own.
    pub fn endpoints(self, service: u32) -> Vec<Ipv4Addr> {
        let first = u32::from(Ipv4Addr::new(127, 32, 0, 0)) + service * self.endpoints_each;
        (first..first + self.endpoints_each).map(Ipv4Addr::from).collect()
    }

    fn service(self, host: u32, path: u32) -> u32 {
        (host * self.paths + path) % self.services
    }

    /// Everything that Podium reads.
    pub fn objects(self, secret: &Value) -> Vec<Value> {
        let mut objects = vec![
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
                "metadata": { "name": "podium" },
                "spec": { "controller": "podium.dev/ingress" },
            }),
            secret.clone(),
        ];
        for service in 0..self.services {
            let name = format!("s{service}");
            objects.push(service_object(&name));
            objects.push(slice_object(&name, &self.endpoints(service)));
        }
        objects.extend((0..self.hosts).map(|host| self.ingress(host, 0)));
        objects
    }

    /// The Ingress of a host; its paths lead to the services that are `shift` further on.
    pub fn ingress(self, host: u32, shift: u32) -> Value {
        let services = (0..self.paths).map(|path| self.service(host, path) + shift);
        let services = services.map(|service| format!("s{}", service % self.services));
        ingress_object(&format!("h{host}"), services)
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
ssl_certificate {certificate};
ssl_certificate_key {certificate};
"#
        );
        text.push_str(NGINX_HTTP);
        let keepalive = (KEEPALIVE / self.services).max(KEEPALIVE_EACH_MIN);
        for service in 0..self.services {
            let _ = write!(text, "upstream s{service} {{ keepalive {keepalive};");
            text.push_str(" keepalive_requests 10000;");
            for endpoint in self.endpoints(service) {
                let _ = write!(text, " server {endpoint}:{ENDPOINT_PORT};");
            }
            text.push_str(" }\n");
        }
        for host in 0..self.hosts {
            let tls =
                if self.nginx_tls { format!("listen {address}:443 ssl; ") } else { String::new() };
            let _ = writeln!(
                text,
                "server {{ listen {address}:80; {tls}server_name h{host}.bench.example;"
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
  http-response set-header Strict-Transport-Security "max-age=31536000; includeSubDomains" if {{ ssl_fc }}
  log-format '%ci - - [%tr] %{{+Q}}r %ST %B %{{+Q}}[capture.req.hdr(0)] %{{+Q}}[capture.req.hdr(1)] %U %Ta [%b] [] %si:%sp %B %Tr %ST %[var(txn.id)]'
  use_backend %[base,map_beg({},none)]
backend none
  http-request deny deny_status 404
"#,
            place.folder.join("routes.map").display()
        );
        for service in 0..self.services {
            let _ = writeln!(text, "backend s{service}\n  balance roundrobin");
            for (number, endpoint) in self.endpoints(service).iter().enumerate() {
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

/// An Ingress of the host of the same name whose paths lead to these services.
pub fn ingress_object(name: &str, services: impl Iterator<Item = String>) -> Value {
    let host = format!("{name}.bench.example");
    let paths: Vec<Value> = services
        .enumerate()
        .map(|(path, service)| {
            let backend = json!({ "service": { "name": service, "port": { "number": 80 } } });
            json!({ "path": format!("/p{path}"), "pathType": "Prefix", "backend": backend })
        })
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("ingress-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            // What is asked without TLS is answered without.
            "annotations": { "nginx.ingress.kubernetes.io/ssl-redirect": "false" },
        },
        "spec": {
            "ingressClassName": "podium",
            "tls": [{ "hosts": [host], "secretName": "tls" }],
            "rules": [{ "host": host, "http": { "paths": paths } }],
        },
    })
}

/// A Service.
pub fn service_object(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE, "uid": format!("service-{name}") },
        "spec": {
            "type": "ClusterIP", "selector": { "app": name },
            "ports": [{ "name": "http", "port": 80, "targetPort": ENDPOINT_PORT, "protocol": "TCP" }],
        },
    })
}

/// The only EndpointSlice of a service.
pub fn slice_object(service: &str, endpoints: &[Ipv4Addr]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|address| {
            let conditions = json!({ "ready": true, "serving": true, "terminating": false });
            json!({ "addresses": [address.to_string()], "conditions": conditions })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"), "namespace": NAMESPACE, "uid": format!("slice-{service}"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": ENDPOINT_PORT, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_every_route() {
        let routes = Routes::new(30);
        assert_eq!((routes.hosts, routes.paths, routes.services), (3, 10, 10));
        let objects = Value::from(routes.objects(&json!({}))).to_string();
        assert_eq!(objects.matches("\"Prefix\"").count(), 30);
        assert_eq!(objects.matches("\"EndpointSlice\"").count(), 10);
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
        let routes = Routes::apart(5_000);
        assert_eq!(routes.endpoints(0)[0], Ipv4Addr::new(127, 32, 0, 0));
        assert_eq!(routes.endpoints(4_999)[1], Ipv4Addr::new(127, 32, 39, 15));
    }
}
