//! What is served beside the objects: health, version, metrics, discovery, OpenAPI.

use http::header::ACCEPT;
use http::{HeaderMap, Response};
use podium_api::status::Status;
use podium_api::{discovery, openapi};
use serde_json::{Value, json};

use crate::answer::{self, AnswerBody};
use crate::negotiate::{self, Clause};
use crate::request::{DiscoveryPath, Query};

/// The release of Kubernetes whose API this is.
const GIT_VERSION: &str = "v1.36.0+podium";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The paths that tell whether the server is well.
const HEALTH_CHECKS: &[&str] = &["healthz", "livez", "readyz"];

/// Answers everybody may have, known or not.
pub(crate) fn public(path: &str, query: &Query, stopping: bool) -> Option<Response<AnswerBody>> {
    let path = path.trim_end_matches('/');
    if path == "/version" {
        return Some(answer::document(200, &version()));
    }
    let check = path.strip_prefix('/').filter(|name| HEALTH_CHECKS.contains(name))?;
    let failed = check == "readyz" && stopping;
    let (code, text) = match (failed, query.has("verbose")) {
        (false, false) => (200, "ok".to_owned()),
        (false, true) => (200, format!("[+]ping ok\n[+]shutdown ok\n{check} check passed\n")),
        (true, _) => (500, format!("[+]ping ok\n[-]shutdown failed\n{check} check failed\n")),
    };
    Some(answer::raw(code, "text/plain; charset=utf-8", text))
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The machine's architecture under its Go name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A discovery document.
pub(crate) fn discover(
    path: &DiscoveryPath,
    headers: &HeaderMap,
    server_address: &str,
) -> Result<Response<AnswerBody>, Status> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let clauses = negotiate::clauses(accept);
    let aggregated = clauses.iter().any(is_aggregated);
    let root = match path {
        DiscoveryPath::Core => Some(discovery::Root::Core),
        DiscoveryPath::Groups => Some(discovery::Root::Groups),
        _ => None,
    };
    if let Some(root) = root.filter(|_| aggregated) {
        let document = discovery::aggregated(root, "v2").to_string();
        return Ok(answer::raw(200, AGGREGATED, document));
    }
    let document = match path {
        DiscoveryPath::Core => Some(discovery::api_versions(server_address)),
        DiscoveryPath::Groups => Some(discovery::api_groups()),
        DiscoveryPath::Group(group) => discovery::api_group(group),
        DiscoveryPath::Version(group, version) => discovery::api_resources(group, version),
    };
    let document = document.ok_or_else(Status::path_not_found)?;
    Ok(answer::document(200, &document))
}

fn is_aggregated(clause: &Clause<'_>) -> bool {
    clause.media_type == "application/json"
        && clause.parameter("g") == Some("apidiscovery.k8s.io")
        && clause.parameter("v") == Some("v2")
}

/// An OpenAPI document; `None` when the path is no such thing.
pub(crate) fn openapi(path: &str, headers: &HeaderMap) -> Option<Response<AnswerBody>> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match path.strip_prefix("/openapi/")? {
        "v2" if accept.contains("protobuf") => {
            // Go's MIME parser refuses the `@` of the name it asked with.
            Some(answer::raw(200, OPENAPI_V2, openapi::v2_protobuf()))
        }
        "v2" => Some(answer::document(200, &openapi::v2())),
        "v3" => Some(answer::document(200, &openapi::v3_index())),
        rest => {
            let path = rest.strip_prefix("v3/")?;
            let (group, version) = match path.strip_prefix("apis/") {
                Some(group_version) => group_version.split_once('/')?,
                None => ("", path.strip_prefix("api/")?),
            };
            openapi::v3(group, version).map(|document| answer::document(200, &document))
        }
    }
}
