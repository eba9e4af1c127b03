//! The same request to both, and what is different afterwards.

use crate::client::{Answer, Request};
use crate::recorder::{Recorder, Seen};
use std::net::SocketAddr;

/// What became of a request.
#[derive(Debug)]
pub struct Outcome {
    pub answer: Option<Answer>,
    pub seen: Vec<Seen>,
}

/// One thing that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `status`, `answer:NAME` for a header of the answer, `seen:NAME` for one at the endpoint, …
    pub what: String,
    pub nginx: String,
    pub podium: String,
}

/// Headers of an answer that say nothing about routing or annotations: each side frames and dates its
/// answers itself.
const ANSWER_HEADERS_IGNORED: [&str; 5] =
    ["connection", "date", "keep-alive", "transfer-encoding", "content-length"];

pub fn ask(address: SocketAddr, request: &Request, recorder: &Recorder) -> Outcome {
    drop(recorder.take());
    let answer = request.send(address);
    Outcome { answer, seen: recorder.take() }
}

pub fn differences(nginx: &Outcome, podium: &Outcome) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut compare = |what: &str, nginx: String, podium: String| {
        if nginx != podium {
            out.push(Difference { what: what.into(), nginx, podium });
        }
    };
    let status = |outcome: &Outcome| {
        outcome.answer.as_ref().map_or("none".to_string(), |answer| answer.status.to_string())
    };
    compare("status", status(nginx), status(podium));
    if let (Some(one), Some(other)) = (&nginx.answer, &podium.answer) {
        let names = names(&one.headers, &other.headers);
        for name in names.iter().filter(|name| !ANSWER_HEADERS_IGNORED.contains(&name.as_str())) {
            compare(
                &format!("answer:{name}"),
                values(&one.headers, name),
                values(&other.headers, name),
            );
        }
        let text = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
        compare("body", text(one), text(other));
    }
    compare("requests seen", nginx.seen.len().to_string(), podium.seen.len().to_string());
    if let ([one], [other]) = (&nginx.seen[..], &podium.seen[..]) {
        compare("service", one.service.clone(), other.service.clone());
        compare("method", one.method.clone(), other.method.clone());
        compare("target", one.target.clone(), other.target.clone());
        compare("version", one.version.clone(), other.version.clone());
        compare("body seen", one.body.len().to_string(), other.body.len().to_string());
        for name in names(&one.headers, &other.headers) {
            compare(
                &format!("seen:{name}"),
                values(&one.headers, &name),
                values(&other.headers, &name),
            );
        }
    }
    out
}

fn names(one: &[(String, String)], other: &[(String, String)]) -> Vec<String> {
    let mut names: Vec<String> =
        one.iter().chain(other).map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// All values of a header, a line each; an absent one is told from an empty one.
fn values(headers: &[(String, String)], name: &str) -> String {
    let found = headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
    let found: Vec<&str> = found.map(|(_, value)| value.as_str()).collect();
    if found.is_empty() { "(absent)".into() } else { found.join("\n") }
}
