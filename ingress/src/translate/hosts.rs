//! Rules gathered by host, and the choice between plain paths and expressions for each host.

use crate::matcher::{Matcher, PathMatcher, PathType, compile, prefix_key, sort_for_regex};
use crate::objects::{Kind, ObjectKey};
use crate::problem::Problem;
use crate::rewrite::Rewrite;
use crate::snapshot::{HostRoutes, Route, Snapshot};
use regex::bytes::Regex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A path an Ingress wants for a host.
pub struct Claim {
    pub path_type: PathType,
    pub path: String,
    pub field: String,
    pub route: Route,
}

#[derive(Default)]
struct Host {
    claims: Vec<Claim>,
    owners: HashMap<(PathType, String), ObjectKey>,
    fallback: Option<Route>,
    app_root: Option<Arc<str>>,
    regex: bool,
    tls: bool,
}

/// All hosts of a translation; the empty name stands for rules without a host.
pub struct Hosts<'a> {
    hosts: BTreeMap<String, Host>,
    previous: &'a Snapshot,
    expressions: HashMap<String, Arc<Regex>>,
}

/// The finished tables.
#[derive(Default)]
pub struct Built {
    pub exact: HashMap<String, Arc<HostRoutes>>,
    pub wildcard: HashMap<String, Arc<HostRoutes>>,
    pub any: Option<Arc<HostRoutes>>,
}

/// Whether a host of a rule can be served: empty, a DNS name, or one with `*` as its first label.
pub fn check_host(host: &str) -> Result<(), String> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.is_empty() || (host.len() <= 253 && name.split('.').all(label)) {
        return Ok(());
    }
    Err(format!("{host:?} is not a DNS name, nor one with * as its whole first label"))
}

impl<'a> Hosts<'a> {
    pub fn new(previous: &'a Snapshot) -> Hosts<'a> {
        Hosts { hosts: BTreeMap::new(), previous, expressions: HashMap::new() }
    }

    /// Makes a host known. The first Ingress to name it provides its default backend, or none.
    pub fn open(&mut self, host: &str, fallback: Option<Route>) {
        self.hosts.entry(host.into()).or_insert_with(|| Host { fallback, ..Host::default() });
    }

    /// An Ingress with a default backend and no rules: it serves hosts nobody else names.
    pub fn catch_all(&mut self, route: Route) {
        self.hosts.entry(String::new()).or_default().fallback.get_or_insert(route);
    }

    /// Sends `/` of a host elsewhere; the oldest Ingress that says so wins.
    pub fn send_root_to(&mut self, host: &str, path: &Arc<str>) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.app_root.get_or_insert_with(|| path.clone());
        }
    }

    /// Marks a host as one to be reached by TLS.
    pub fn mark_tls(&mut self, host: &str) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.tls = true;
        }
    }

    /// Takes a path for a host unless an older Ingress has it or its expressions are wrong.
    pub fn claim(&mut self, host: &str, mut claim: Claim) -> Result<(), Problem> {
        let ingress = claim.route.ingress.clone();
        let settings = claim.route.settings.clone();
        // As in ingress-nginx, a target equal to the path is no rewrite.
        let target = settings.rewriting.target.as_ref().filter(|target| **target != claim.path);
        let regex = settings.rewriting.use_regex || target.is_some();
        if regex {
            let pattern = self.expression(&claim.path).map_err(|why| {
                Problem::error(Kind::Ingress, &ingress, format!("{}.path", claim.field), why)
            })?;
            if let Some(target) = target {
                match Rewrite::parse(target, pattern) {
                    Ok(rewrite) => claim.route.rewrite = Some(rewrite),
                    Err(error) => {
                        let field =
                            "metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]";
                        return Err(Problem::error(
                            Kind::Ingress,
                            &ingress,
                            field,
                            format!("{target:?} {error}"),
                        ));
                    }
                }
            }
        }
        let host_name = if host.is_empty() { "any host" } else { host };
        let entry = self.hosts.entry(host.into()).or_default();
        let text = match claim.path_type {
            PathType::Prefix => prefix_key(&claim.path).to_string(),
            _ => claim.path.clone(),
        };
        if let Some(owner) = entry.owners.get(&(claim.path_type, text.clone())) {
            let why =
                format!("{:?} of {host_name} belongs to the older Ingress {owner}", claim.path);
            return Err(Problem::error(
                Kind::Ingress,
                &ingress,
                format!("{}.path", claim.field),
                why,
            ));
        }
        entry.owners.insert((claim.path_type, text), ingress);
        entry.regex |= regex;
        entry.claims.push(claim);
        Ok(())
    }

    /// Compiles an expression, or takes it from this or the previous snapshot.
    fn expression(&mut self, pattern: &str) -> Result<Arc<Regex>, String> {
        if let Some(known) =
            self.expressions.get(pattern).or_else(|| self.previous.expressions.get(pattern))
        {
            let known = known.clone();
            self.expressions.insert(pattern.into(), known.clone());
            return Ok(known);
        }
        let compiled = compile(pattern).map_err(|error| {
            let last = error
                .to_string()
                .lines()
                .last()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_string();
            format!("{pattern:?} cannot be used as an expression: {last}")
        })?;
        let compiled = Arc::new(compiled);
        self.expressions.insert(pattern.into(), compiled.clone());
        Ok(compiled)
    }

    /// Builds the tables; also returns the expressions in use.
    pub fn build(mut self) -> (Built, HashMap<String, Arc<Regex>>) {
        let mut built = Built::default();
        for (name, host) in std::mem::take(&mut self.hosts) {
            let routes = Arc::new(self.build_host(host));
            match name.strip_prefix("*.") {
                _ if name.is_empty() => built.any = Some(routes),
                Some(suffix) => drop(built.wildcard.insert(suffix.into(), routes)),
                None => drop(built.exact.insert(name, routes)),
            }
        }
        (built, self.expressions)
    }

    fn build_host(&mut self, host: Host) -> HostRoutes {
        let matcher = if host.regex {
            let mut rules: Vec<(String, Arc<Route>)> =
                host.claims.into_iter().map(|claim| (claim.path, Arc::new(claim.route))).collect();
            sort_for_regex(&mut rules);
            let compiled = rules.into_iter().filter_map(|(path, route)| {
                // A plain path of another Ingress that is no expression cannot match as one either.
                Some((self.expression(&format!("^{path}")).ok()?, route))
            });
            Matcher::Regex(compiled.collect())
        } else {
            let rules = host.claims.into_iter().map(|c| (c.path_type, c.path, Arc::new(c.route)));
            Matcher::Paths(PathMatcher::new(rules))
        };
        HostRoutes {
            matcher,
            fallback: host.fallback.map(Arc::new),
            www_redirect: None,
            app_root: host.app_root,
            tls: host.tls,
        }
    }
}
