//! `nginx.ingress.kubernetes.io` annotations into typed settings of a location.
//!
//! Each group of settings has a file that lists the annotations it reads, one [`Row`] each; together
//! the rows are what this controller knows. What is not honoured is named; what would guard a location
//! and cannot be honoured closes it.

pub mod access;
pub mod authentication;
pub mod canary;
pub mod forbidden;
pub mod limits;
pub mod logging;
pub mod redirects;
pub mod response;
pub mod rewriting;
pub mod tls;
pub mod upstream;
pub mod values;

use crate::objects::ingress::Annotations;
use crate::objects::{Kind, ObjectKey};
use crate::problem::Problem;
use access::Access;
use authentication::Authentication;
use canary::Canary;
use limits::Limits;
use logging::Logging;
use redirects::Redirects;
use response::Response;
use rewriting::Rewriting;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::LazyLock;
use tls::Tls;
use upstream::Upstream;
use values::Refusal;

/// The prefix all of these annotations share.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// What becomes of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it does in ingress-nginx.
    Honoured,
    /// It tunes something that is not there, and nothing is lost without it; why.
    Harmless(&'static str),
    /// It has no effect and its user has to know; what to use instead.
    Refused(&'static str),
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Support::Honoured => f.write_str("honoured"),
            Support::Harmless(why) => write!(f, "harmless: {why}"),
            Support::Refused(instead) => write!(f, "refused: {instead}"),
        }
    }
}

/// One annotation, by its name without the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Such as `ssl-redirect`.
    pub name: &'static str,
    /// What becomes of it.
    pub support: Support,
}

/// A row of an annotation that works.
pub const fn honoured(name: &'static str) -> Row {
    Row { name, support: Support::Honoured }
}

/// A row of an annotation that may be left out.
pub const fn harmless(name: &'static str, why: &'static str) -> Row {
    Row { name, support: Support::Harmless(why) }
}

/// A row of an annotation whose users need something else.
pub const fn refused(name: &'static str, instead: &'static str) -> Row {
    Row { name, support: Support::Refused(instead) }
}

/// Settings that are read from annotations of their own.
pub trait Group {
    /// The annotations of the group.
    fn rows(&self) -> &'static [Row];

    /// Takes the value of an honoured annotation. `ingress` is whose it is: names of Secrets and the
    /// like are relative to its namespace.
    fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal>;

    /// Looks at what several annotations say together, once all of them were taken. The name is that
    /// of the annotation to blame.
    fn finish(&mut self) -> Vec<(&'static str, Refusal)> {
        Vec::new()
    }

    /// Objects the settings name: the only Secrets and ConfigMaps that are read.
    fn named_objects(&self) -> Vec<(Kind, ObjectKey)> {
        Vec::new()
    }
}

/// Settings of the locations of one Ingress, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Which clients are let in by address, and whether one guard is enough.
    pub access: Access,
    /// Passwords and external authorities.
    pub authentication: Authentication,
    /// This Ingress is the variant of another.
    pub canary: Canary,
    /// How much a client may ask for.
    pub limits: Limits,
    /// What is logged.
    pub logging: Logging,
    /// Answers that send the client elsewhere.
    pub redirects: Redirects,
    /// What is changed in answers, and what stands in for errors.
    pub response: Response,
    /// What the endpoint sees as path.
    pub rewriting: Rewriting,
    /// TLS with the client.
    pub tls: Tls,
    /// How endpoints are chosen and spoken to.
    pub upstream: Upstream,
}

impl Settings {
    fn groups(&self) -> [&dyn Group; 10] {
        [
            &self.access,
            &self.authentication,
            &self.canary,
            &self.limits,
            &self.logging,
            &self.redirects,
            &self.response,
            &self.rewriting,
            &self.tls,
            &self.upstream,
        ]
    }

    fn groups_mut(&mut self) -> [&mut dyn Group; 10] {
        [
            &mut self.access,
            &mut self.authentication,
            &mut self.canary,
            &mut self.limits,
            &mut self.logging,
            &mut self.redirects,
            &mut self.response,
            &mut self.rewriting,
            &mut self.tls,
            &mut self.upstream,
        ]
    }

    /// Takes the value of an annotation.
    pub fn apply(&mut self, name: &str, value: &str, ingress: &ObjectKey) -> Result<(), Refusal> {
        match KNOWN.get(name) {
            Some((Row { support: Support::Honoured, .. }, group)) => {
                self.groups_mut()[*group].apply(name, value.trim(), ingress)
            }
            Some((Row { support: Support::Harmless(_), .. }, _)) => Ok(()),
            Some((Row { support: Support::Refused(instead), .. }, _)) => {
                Err(Refusal::Refused((*instead).into()))
            }
            None => Err(Refusal::Unknown),
        }
    }

    /// Objects the settings name.
    pub fn named_objects(&self) -> BTreeSet<(Kind, ObjectKey)> {
        self.groups().iter().flat_map(|group| group.named_objects()).collect()
    }
}

/// Every annotation known, by name: its row and the place of its group.
static KNOWN: LazyLock<HashMap<&'static str, (Row, usize)>> = LazyLock::new(|| {
    let settings = Settings::default();
    let groups = settings.groups().into_iter().enumerate();
    groups
        .flat_map(|(at, group)| group.rows().iter().map(move |row| (row.name, (*row, at))))
        .collect()
});

/// Every annotation known, by name.
pub fn known() -> BTreeMap<&'static str, Support> {
    KNOWN.iter().map(|(name, (row, _))| (*name, row.support)).collect()
}

/// What becomes of an annotation; `None` if there is none of that name.
pub fn support(name: &str) -> Option<Support> {
    KNOWN.get(name).map(|(row, _)| row.support)
}

/// What the annotations of an Ingress say.
#[derive(Debug)]
pub struct Annotated {
    /// The settings for its locations.
    pub settings: Settings,
    /// Its locations answer 503: something meant to guard them does not work.
    pub closed: bool,
    /// What was wrong.
    pub problems: Vec<Problem>,
}

/// Reads the annotations of an Ingress over the given defaults.
pub fn parse(ingress: &ObjectKey, annotations: &Annotations, defaults: &Settings) -> Annotated {
    let mut read = Annotated { settings: defaults.clone(), closed: false, problems: Vec::new() };
    for (name, value) in annotations.iter() {
        // Our own annotations keep their prefix as part of the name.
        let own = name.starts_with(upstream::health::PREFIX).then_some(name);
        let Some(short) = name.strip_prefix(PREFIX).or(own) else {
            continue;
        };
        if let Err(refusal) = read.settings.apply(short, value, ingress) {
            read.refuse(ingress, short, Some(value), refusal);
        }
    }
    let finished: Vec<_> =
        read.settings.groups_mut().into_iter().flat_map(|group| group.finish()).collect();
    for (name, refusal) in finished {
        read.refuse(ingress, name, None, refusal);
    }
    read
}

impl Annotated {
    /// Notes what is wrong with an annotation.
    pub fn refuse(
        &mut self,
        ingress: &ObjectKey,
        name: &str,
        value: Option<&str>,
        refusal: Refusal,
    ) {
        let problem = refusal.problem(ingress, name, value);
        self.closed |= matches!(refusal, Refusal::Closes(_));
        self.problems.push(problem);
    }
}

#[cfg(test)]
mod tests {
    use super::upstream::BackendProtocol;
    use super::*;
    use expect_test::{Expect, expect};
    use std::time::Duration;

    fn read(pairs: &[(&str, &str)]) -> Annotated {
        let annotations =
            pairs.iter().map(|(n, v)| (format!("{PREFIX}{n}"), v.to_string())).collect();
        parse(&ObjectKey::new("shop", "web"), &annotations, &Settings::default())
    }

    fn check(pairs: &[(&str, &str)], expected: Expect) {
        let read = read(pairs);
        let mut text: String = read.problems.iter().map(|p| format!("{p}\n")).collect();
        if read.closed {
            text.push_str("closed\n");
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn good_values_are_taken() {
        let pairs = [
            ("proxy-body-size", "8m"),
            ("proxy-read-timeout", "5"),
            ("rewrite-target", "/$1"),
            ("use-regex", "true"),
            ("ssl-redirect", "false"),
            ("backend-protocol", "grpc"),
            ("proxy-buffer-size", "8k"),
        ];
        let Annotated { settings, closed, problems, .. } = read(&pairs);
        assert!(problems.is_empty() && !closed, "{problems:?}");
        assert_eq!(settings.limits.body_bytes_max, 8 << 20);
        assert_eq!(settings.upstream.read_timeout, Duration::from_secs(5));
        assert_eq!(settings.rewriting.target.as_deref(), Some("/$1"));
        assert!(settings.rewriting.use_regex && !settings.redirects.to_https);
        assert_eq!(settings.upstream.protocol, BackendProtocol::Grpc);
    }

    #[test]
    fn wrong_values_name_annotation_and_default() {
        check(
            &[("proxy-body-size", "big"), ("use-regex", "yes")],
            expect![[r#"
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/proxy-body-size]: value "big" is invalid (want a number of bytes with k, m or g); the default is used
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/use-regex]: value "yes" is invalid (want true or false); the default is used
            "#]],
        );
    }

    #[test]
    fn guards_that_do_not_work_close_the_location() {
        check(
            &[("auth-url", "auth"), ("whitelist-source-range", "10.0.0.0/8,nonsense")],
            expect![[r#"
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/auth-url]: want a URL that begins with http:// or https://; its locations answer 503
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/whitelist-source-range]: the list holds an entry that is neither an address nor a network; its locations answer 503
                closed
            "#]],
        );
    }

    #[test]
    fn unknown_ones_and_snippets_are_named() {
        check(
            &[("enable-unicorns", "true"), ("server-snippet", "deny all;")],
            expect![[r#"
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/enable-unicorns]: is not an annotation of ingress-nginx and has no effect
                Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/server-snippet]: snippets are refused: there is no nginx to run them. Use server-alias for server_name, app-root, permanent-redirect or from-to-www-redirect for return, a path of an Ingress for location, custom-headers for add_header, auth-tls-secret for ssl_verify_client, and the ConfigMap options block-user-agents, block-referers and block-cidrs for if with return 403
            "#]],
        );
    }
}

#[cfg(test)]
mod table {
    use super::*;

    #[test]
    fn every_annotation_belongs_to_one_group() {
        let settings = Settings::default();
        let rows: usize = settings.groups().iter().map(|group| group.rows().len()).sum();
        assert_eq!(rows, KNOWN.len());
    }

    fn problems(name: &str, value: &str) -> Vec<String> {
        let annotations = [(format!("{PREFIX}{name}"), value.to_string())].into_iter().collect();
        let read = parse(&ObjectKey::new("shop", "web"), &annotations, &Settings::default());
        read.problems.iter().map(|problem| problem.message.clone()).collect()
    }

    #[test]
    fn every_harmless_annotation_is_no_problem_whatever_it_says() {
        for (name, support) in known() {
            if matches!(support, Support::Harmless(_)) {
                assert_eq!(problems(name, "whatever"), Vec::<String>::new(), "{name}");
            }
        }
    }

    #[test]
    fn every_refused_annotation_is_named_with_what_to_use_instead() {
        for (name, support) in known() {
            if let Support::Refused(instead) = support {
                let found = problems(name, "whatever");
                assert!(found.len() == 1 && found[0].contains(instead), "{name}: {found:?}");
                assert!(instead.len() > 10, "{name}: {instead:?} helps nobody");
            }
        }
    }
}
