//! Every deliberate difference to ingress-nginx, named and justified; anything else is a bug.

use crate::client::{Body, Request};
use crate::comparison::Difference;
use crate::description::{Kind, World};

pub struct Exception {
    pub name: &'static str,
    /// For the reader; nothing computes with it.
    _why: &'static str,
    applies: fn(&Case<'_>) -> bool,
}

/// What an exception may look at.
pub struct Case<'a> {
    pub world: &'a World,
    pub request: &'a Request,
    pub difference: &'a Difference,
    /// podium-ingress has not come to see it as a request.
    pub by_library: bool,
}

impl Case<'_> {
    fn is(&self, what: &str) -> bool {
        self.difference.what == what
    }

    /// Refused here, not by nginx.
    fn refused(&self) -> bool {
        self.is("status") && self.difference.podium == "400"
    }

    fn path(&self) -> &str {
        self.request.target.split('?').next().unwrap_or_default()
    }
}

/// The exception that explains a difference.
pub fn explain(case: &Case<'_>) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|exception| (exception.applies)(case))
}

pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        name: "request id",
        _why: "each makes one up where the client sends none",
        applies: |case| {
            case.is("seen:x-request-id")
                && [&case.difference.nginx, &case.difference.podium]
                    .iter()
                    .all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        },
    },
    Exception {
        name: "streamed body",
        _why: "a body of unknown length is passed on in chunks as it comes; nginx reads all of it first \
               and then knows its length, or that there is too much of it",
        applies: |case| {
            let early = case.is("status")
                && case.difference.nginx == "413"
                && ["404", "503"].contains(&case.difference.podium.as_str());
            (early || case.is("seen:content-length") || case.is("seen:transfer-encoding"))
                && matches!(case.request.body, Body::Chunked(_))
        },
    },
    Exception {
        name: "prefix with a trailing slash",
        _why: "the Ingress specification has a Prefix /foo/ match /foo; nginx redirects to /foo/",
        applies: |case| {
            let slashed = |path: &crate::description::Path| {
                path.kind != Kind::Exact && path.path.len() > 1 && path.path.ends_with('/')
            };
            case.difference.nginx == "301"
                && case.is("status")
                && case.world.rules().flat_map(|rule| &rule.paths).any(slashed)
                && !case.path().ends_with('/')
        },
    },
    Exception {
        name: "hosts no name can be",
        _why: "a Host with ?, # or a backslash in it is answered 400; nginx serves it as an unknown host",
        applies: |case| {
            let host = case.request.host.as_deref().unwrap_or_default();
            case.refused() && host.contains(['?', '#', '\\', '@'])
        },
    },
    Exception {
        name: "characters no target has",
        _why: "the HTTP library answers 400 where a path holds them (RFC 3986 has them encoded)",
        applies: |case| case.refused() && case.request.target.contains(['<', '>', '`']),
    },
    Exception {
        name: "spaces in a target",
        _why: "the HTTP library encodes them, so that the endpoint sees one request line of three \
               words; nginx answers 400",
        applies: |case| {
            case.is("status") && case.difference.nginx == "400" && case.request.target.contains(' ')
        },
    },
    Exception {
        name: "fragments",
        _why: "no part of a request (RFC 9112 section 3.2), so endpoints do not see them; nginx passes \
               them on, and refuses a target that is nothing else",
        applies: |case| {
            case.request.target.contains('#')
                && (case.is("target") || (case.is("status") && case.request.target == "#"))
        },
    },
    Exception {
        name: "a target against its Host",
        _why: "an absolute target that names another host or port than Host is answered 400, so that no \
               endpoint takes the one for the other; nginx ignores Host for routing and passes it on",
        applies: |case| {
            let host = case.request.host.as_deref().unwrap_or_default();
            case.refused()
                && case.request.target.contains("://")
                && !case.request.target.starts_with(&format!("http://{host}/"))
        },
    },
    Exception {
        name: "long request lines",
        _why: "the whole head may have about a megabyte; nginx answers 414 from 8 KiB on",
        applies: |case| case.is("status") && case.difference.nginx == "414",
    },
    Exception {
        name: "hop-by-hop headers",
        _why: "they end at a proxy (RFC 9110 section 7.6.1); nginx passes some of them on",
        applies: |case| {
            case.difference.podium == "(absent)"
                && ["seen:proxy-connection", "seen:proxy-authorization", "seen:trailer"]
                    .contains(&case.difference.what.as_str())
        },
    },
    Exception {
        name: "words of the HTTP library",
        _why: "what cannot be parsed is answered before there is a request",
        applies: |case| {
            let answer = ["body", "answer:server", "answer:cache-control", "answer:content-type"];
            answer.contains(&case.difference.what.as_str()) && case.by_library
        },
    },
    Exception {
        name: "a rewrite without a slash",
        _why: "the target gets one in front; nginx asks the endpoint for a path without, or answers 500",
        applies: |case| {
            case.world.ingresses.iter().any(|ingress| {
                let target = ingress.annotations.rewrite_target.as_deref();
                target.is_some_and(|target| !target.starts_with('/') && !target.contains("://"))
            }) && (case.difference.nginx == "500"
                || format!("/{}", case.difference.nginx) == case.difference.podium)
        },
    },
    Exception {
        name: "quotes in a query",
        _why: "a captured quote is encoded where it gets into the query; nginx does it only where the client \
               encoded something",
        applies: |case| {
            case.is("target")
                && case.request.target.contains('"')
                && case.difference.podium == case.difference.nginx.replace('"', "%22")
        },
    },
    Exception {
        name: "challenges",
        _why: "a request below /.well-known/acme-challenge is never redirected to https; in ingress-nginx \
               only a rule of that path prevents it",
        applies: |case| {
            case.is("status")
                && case.difference.nginx == "308"
                && case.request.target.replace("%6F", "o").contains("/.well-known/acme-challenge")
        },
    },
    Exception {
        name: "a rule for / beside a catch-all",
        _why: "a rule without a host for / is served before an Ingress that has a default backend and no \
               rules; ingress-nginx lets the latter win, even a younger one",
        applies: |case| {
            let ingresses = &case.world.ingresses;
            let mut rules = case.world.rules().filter(|rule| rule.host.is_empty());
            ingresses.iter().any(|ingress| ingress.rules.is_empty())
                && rules.any(|rule| rule.paths.iter().any(|path| path.path == "/"))
                && OUTCOMES.contains(&case.difference.what.as_str())
        },
    },
];

/// What is different where a request takes another route.
const OUTCOMES: [&str; 4] = ["status", "service", "requests seen", "answer:location"];
