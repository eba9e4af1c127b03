//! From described Ingresses to the servers and locations ingress-nginx would write: which exist, in which
//! order, with whose annotations. The text of the configuration is `configuration`'s.
//!
//! The rules are those of ingress-nginx's `createServers`, `getBackendServers`, `updateServerLocations`
//! and `enforceRegexModifier`.

use crate::description::{Annotations, Ingress, Kind, Path, World};

/// The upstream that stands for ingress-nginx's own 404.
pub const DEFAULT_BACKEND: &str = "default_backend";

/// A virtual server; an empty host is the default server.
#[derive(Debug)]
pub struct Server {
    pub host: String,
    pub locations: Vec<Location>,
    /// Some location of it asks for expressions.
    pub regex: bool,
    /// Requests for it find a certificate.
    pub certified: bool,
    /// The host to redirect from, for `from-to-www-redirect`.
    pub www_twin: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Location {
    pub path: String,
    pub exact: bool,
    pub upstream: String,
    pub annotations: Annotations,
    is_default: bool,
}

impl Location {
    fn new(path: &str, exact: bool, upstream: &str, annotations: &Annotations) -> Location {
        Location {
            path: path.into(),
            exact,
            upstream: upstream.into(),
            annotations: annotations.clone(),
            is_default: false,
        }
    }

    /// A target equal to the path is no rewrite.
    pub fn rewrite(&self) -> Option<&str> {
        self.annotations.rewrite_target.as_deref().filter(|target| *target != self.path)
    }

    fn wants_regex(&self) -> bool {
        self.annotations.use_regex || self.rewrite().is_some()
    }
}

/// The servers for a description, the default one first.
pub fn servers(world: &World) -> Vec<Server> {
    let mut servers =
        vec![server("", root(DEFAULT_BACKEND, &without_redirect(&Annotations::default())))];
    for ingress in &world.ingresses {
        open(&mut servers, ingress);
    }
    for ingress in &world.ingresses {
        for rule in &ingress.rules {
            let own = servers.iter_mut().find(|server| server.host == rule.host).unwrap();
            for path in &rule.paths {
                claim(&mut own.locations, path, &ingress.annotations);
            }
            own.certified |= !ingress.tls.is_empty();
            if ingress.annotations.from_to_www && !rule.paths.is_empty() {
                own.www_twin = Some(www_twin(&rule.host));
            }
        }
    }
    finish(&mut servers);
    servers
}

/// The default server and its root are certified and redirected for nobody: nothing asks for `_`.
fn without_redirect(annotations: &Annotations) -> Annotations {
    Annotations { no_ssl_redirect: true, ..annotations.clone() }
}

fn server(host: &str, root: Location) -> Server {
    let (regex, certified) = (false, false);
    Server { host: host.into(), locations: vec![root], regex, certified, www_twin: None }
}

fn root(upstream: &str, annotations: &Annotations) -> Location {
    Location { is_default: true, ..Location::new("/", false, upstream, annotations) }
}

/// Makes the hosts of an Ingress known: whoever names one first decides about its root.
fn open(servers: &mut Vec<Server>, ingress: &Ingress) {
    let fallback = ingress.default_backend.unwrap_or(DEFAULT_BACKEND);
    let default_root = &mut servers[0].locations[0];
    if ingress.default_backend.is_some() && ingress.rules.is_empty() && default_root.is_default {
        // Redirects and rewrites do not count for it.
        let annotations = Annotations {
            rewrite_target: None,
            use_regex: false,
            force_ssl_redirect: false,
            app_root: None,
            permanent_redirect: None,
            temporal_redirect: None,
            from_to_www: false,
            ..without_redirect(&ingress.annotations)
        };
        *default_root = Location { is_default: false, ..root(fallback, &annotations) };
    }
    for rule in &ingress.rules {
        if servers.iter().all(|server| server.host != rule.host) {
            servers.push(server(&rule.host, root(fallback, &ingress.annotations)));
        }
    }
}

/// Takes a path for a server unless an older Ingress has it.
fn claim(locations: &mut Vec<Location>, path: &Path, annotations: &Annotations) {
    let exact = path.kind == Kind::Exact;
    let text = if path.path.is_empty() { "/" } else { &path.path };
    let location = Location::new(text, exact, path.service, annotations);
    match locations.iter_mut().find(|known| known.path == text) {
        Some(known) if known.exact == exact && known.is_default => *known = location,
        Some(known) if known.exact == exact => {}
        _ => locations.push(location),
    }
}

fn www_twin(host: &str) -> String {
    host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), String::from)
}

fn finish(servers: &mut [Server]) {
    let hosts: Vec<(String, bool)> =
        servers.iter().map(|server| (server.host.clone(), server.certified)).collect();
    for server in servers {
        let wild = server.host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let by_wildcard = hosts.iter().any(|(host, sure)| *sure && Some(host) == wild.as_ref());
        server.certified = !server.host.is_empty() && (server.certified || by_wildcard);
        server.www_twin = server
            .www_twin
            .take()
            .filter(|twin| !server.host.is_empty() && hosts.iter().all(|(host, _)| host != twin));
        server.regex = server.locations.iter().any(Location::wants_regex);
        let locations = &mut server.locations;
        locations.sort_by(|a, b| b.path.cmp(&a.path));
        locations.sort_by_key(|location| std::cmp::Reverse(location.path.len()));
        *locations = expand(std::mem::take(locations));
    }
}

/// A plain Prefix becomes two locations: below it, and itself.
fn expand(locations: Vec<Location>) -> Vec<Location> {
    let exact: Vec<String> = locations.iter().filter(|l| l.exact).map(|l| l.path.clone()).collect();
    let mut out = Vec::new();
    for location in locations {
        if location.path == "/" || location.exact || location.wants_regex() {
            out.push(location);
            continue;
        }
        let below = format!("{}/", location.path.strip_suffix('/').unwrap_or(&location.path));
        out.push(Location { path: below, ..location.clone() });
        if !exact.contains(&location.path) {
            out.push(Location { exact: true, ..location });
        }
    }
    out
}
