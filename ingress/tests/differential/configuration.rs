//! nginx's configuration for a description, as ingress-nginx would write it.
//!
//! What ingress-nginx does in Lua is written in nginx's own terms: the choice of an endpoint (an
//! `upstream` for each Service; one that answers 503 where there are no endpoints), the redirect to https
//! (a `return` after the location's other redirects, whose host and path come from maps) and the
//! redirect between a host and its `www.` twin.

use crate::description::{Annotations, Cors};
use crate::locations::{DEFAULT_BACKEND, Location, Server};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

const HEADERS_MORE: &str = "/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so";

/// Where everything is.
pub struct Places<'a> {
    pub folder: &'a Path,
    pub listen: SocketAddr,
    pub endpoints: &'a BTreeMap<&'static str, SocketAddr>,
}

/// The whole file.
pub fn write(servers: &[Server], places: &Places<'_>) -> String {
    let folder = places.folder.display();
    let mut out = format!(
        "load_module {HEADERS_MORE};\ndaemon off;\nmaster_process off;\npid {folder}/pid;\n\
         error_log {folder}/error.log warn;\nevents {{ worker_connections 512; }}\nhttp {{\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(out, "{kind}_temp_path {folder}/{kind};").unwrap();
    }
    out.push_str(HTTP);
    for (service, address) in places.endpoints {
        writeln!(out, "upstream {service} {{ server {address}; keepalive 320; }}").unwrap();
    }
    for (name, status) in [(DEFAULT_BACKEND, 404), ("empty", 503)] {
        writeln!(
            out,
            "upstream {name} {{ server unix:{folder}/{name}.sock; keepalive 320; }}\n\
             server {{ listen unix:{folder}/{name}.sock; client_max_body_size 0; location / {{ return {status}; }} }}"
        )
        .unwrap();
    }
    for server in servers {
        write_server(&mut out, server, places);
    }
    out.push_str("}\n");
    out
}

const HTTP: &str = r#"
access_log off;
server_tokens off;
more_clear_headers Server;
default_type text/html;
server_names_hash_bucket_size 256;
underscores_in_headers off;
ignore_invalid_headers on;
client_header_buffer_size 1k;
large_client_header_buffers 4 8k;
server_name_in_redirect off;
port_in_redirect off;
uninitialized_variable_warn off;
map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
map $http_x_request_id $req_id { default $http_x_request_id; '' $request_id; }
map $http_host $best_http_host { default $http_host; '' $host; }
map $best_http_host $redirect_host { '~^(?<before_port>[^:]*)' $before_port; }
map $request_uri $uri_without_slash { '~^(?<before_slash>.*)/$' $before_slash; default $request_uri; }
"#;

fn write_server(out: &mut String, server: &Server, places: &Places<'_>) {
    let listen = places.listen;
    let (name, default) = match server.host.as_str() {
        "" => ("_".to_string(), " default_server"),
        host => (server_name(host), ""),
    };
    writeln!(out, "server {{\nlisten {listen}{default};\nserver_name \"{name}\";").unwrap();
    for location in &server.locations {
        if let Some(root) = &location.annotations.app_root {
            writeln!(out, "if ($uri = /) {{ return 302 $scheme://$http_host{root}; }}").unwrap();
        }
        write_location(out, location, server);
    }
    out.push_str("}\n");
    if let Some(twin) = &server.www_twin {
        writeln!(
            out,
            "server {{\nlisten {listen};\nserver_name \"{twin}\";\n\
             return 308 $scheme://{}:$server_port$uri_without_slash;\n}}",
            server.host
        )
        .unwrap();
    }
}

/// One label for the wildcard, as ingress-nginx has it; nginx's own takes several.
fn server_name(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(parent) => format!(r"~^(?<subdomain>[\w-]+)\.{}$", parent.replace('.', r"\.")),
        None => host.into(),
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', r"\\").replace('"', "\\\"")
}

fn write_location(out: &mut String, location: &Location, server: &Server) {
    let path = quoted(&location.path);
    let modifier = match (server.regex, location.exact) {
        (true, _) => format!("~* \"^{path}\""),
        (false, true) => format!("= \"{path}\""),
        (false, false) => format!("\"{path}\""),
    };
    let annotations = &location.annotations;
    writeln!(out, "location {modifier} {{").unwrap();
    for range in &annotations.denied {
        writeln!(out, "deny {range};").unwrap();
    }
    for range in &annotations.allowed {
        writeln!(out, "allow {range};").unwrap();
    }
    if !annotations.allowed.is_empty() {
        out.push_str("deny all;\n");
    }
    if let Some(cors) = &annotations.cors {
        write_cors(out, cors);
    }
    writeln!(out, "client_max_body_size {};", annotations.body_size.unwrap_or("1m")).unwrap();
    match &annotations.upstream_vhost {
        Some(vhost) => writeln!(out, "proxy_set_header Host \"{vhost}\";").unwrap(),
        None => out.push_str("proxy_set_header Host $best_http_host;\n"),
    }
    out.push_str("include proxy.conf;\n");
    write_redirects(out, annotations);
    let absolute = location.rewrite().is_some_and(|target| target.starts_with("http"));
    if !absolute {
        write_https_redirect(out, location, server);
    }
    if let Some(target) = location.rewrite() {
        writeln!(out, "rewrite \"(?i){path}\" {target} break;").unwrap();
        if let Some(prefix) = &annotations.forwarded_prefix {
            writeln!(out, "proxy_set_header X-Forwarded-Prefix \"{prefix}\";").unwrap();
        }
    }
    writeln!(out, "proxy_pass http://{};\nproxy_redirect off;\n}}", location.upstream).unwrap();
}

/// What every location says; a file of its own keeps reports short.
pub const PROXY: &str = "\
proxy_set_header Upgrade $http_upgrade;
proxy_set_header Connection $connection_upgrade;
proxy_set_header X-Request-ID $req_id;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $remote_addr;
proxy_set_header X-Forwarded-Host $best_http_host;
proxy_set_header X-Forwarded-Port $server_port;
proxy_set_header X-Forwarded-Proto $scheme;
proxy_set_header X-Forwarded-Scheme $scheme;
proxy_set_header X-Scheme $scheme;
proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for;
proxy_set_header X-Original-Forwarded-Host $http_x_forwarded_host;
proxy_set_header Proxy '';
proxy_connect_timeout 5s;
proxy_send_timeout 60s;
proxy_read_timeout 60s;
proxy_buffering off;
proxy_request_buffering on;
proxy_http_version 1.1;
proxy_cookie_domain off;
proxy_cookie_path off;
proxy_next_upstream error timeout;
proxy_next_upstream_tries 3;
";

fn write_redirects(out: &mut String, annotations: &Annotations) {
    let temporal = annotations.temporal_redirect.as_ref();
    let permanent = annotations.permanent_redirect.as_ref();
    let chosen = match (temporal, permanent) {
        (Some((url, code)), _) => Some((url, code.unwrap_or(302))),
        (None, Some((url, code))) => Some((url, code.unwrap_or(301))),
        (None, None) => None,
    };
    if let Some((url, code)) = chosen {
        writeln!(out, "return {code} {url};").unwrap();
    }
}

/// Lua's part in ingress-nginx. It runs after the other directives of the rewrite phase, but a `break`
/// would end those, so it stands before the rewrite.
fn write_https_redirect(out: &mut String, location: &Location, server: &Server) {
    let annotations = &location.annotations;
    let wanted =
        annotations.force_ssl_redirect || (!annotations.no_ssl_redirect && server.certified);
    if wanted && !location.path.starts_with("/.well-known/acme-challenge") {
        let uri = match annotations.preserve_trailing_slash {
            true => "$request_uri",
            false => "$uri_without_slash",
        };
        writeln!(out, "return 308 https://$redirect_host{uri};").unwrap();
    }
}

fn write_cors(out: &mut String, cors: &Cors) {
    if cors.origins.is_empty() || cors.origins.contains(&"*") {
        out.push_str("set $http_origin *;\nset $cors 'true';\n");
    } else {
        let origins: Vec<String> =
            cors.origins.iter().map(|origin| format!("({})", origin_expression(origin))).collect();
        writeln!(out, "if ($http_origin ~* ({})$ ) {{ set $cors 'true'; }}", origins.join("|"))
            .unwrap();
    }
    out.push_str("if ($request_method = 'OPTIONS') { set $cors ${cors}options; }\n");
    for (state, preflight) in [("true", false), ("trueoptions", true)] {
        writeln!(out, "if ($cors = \"{state}\") {{").unwrap();
        let mut set = |name: &str, value: &str| {
            writeln!(out, "more_set_headers 'Access-Control-{name}: {value}';").unwrap();
        };
        set("Allow-Origin", "$http_origin");
        if !cors.no_credentials {
            set("Allow-Credentials", "true");
        }
        set("Allow-Methods", cors.methods.unwrap_or("GET, PUT, POST, DELETE, PATCH, OPTIONS"));
        set("Allow-Headers", cors.headers.unwrap_or(CORS_HEADERS));
        if let Some(exposed) = cors.exposed {
            set("Expose-Headers", exposed);
        }
        set("Max-Age", &cors.max_age_seconds.unwrap_or(1_728_000).to_string());
        if preflight {
            out.push_str(
                "more_set_headers 'Content-Type: text/plain charset=UTF-8';\n\
                 more_set_headers 'Content-Length: 0';\nreturn 204;\n",
            );
        }
        out.push_str("}\n");
    }
}

const CORS_HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,\
                            Cache-Control,Content-Type,Range,Authorization";

fn origin_expression(origin: &str) -> String {
    let mut out = String::new();
    for character in origin.chars() {
        if ".+*?()|[]{}^$\\".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out.replacen(r"\*", r"[A-Za-z0-9\-]+", 1)
}
