//! Connections and requests of the whole process, as nginx's own status page counts them, and what
//! happens to requests on their way.

use super::striped::Striped;
use std::fmt::Write;

/// Counts of the whole process.
#[derive(Debug, Default)]
pub struct Traffic {
    accepted: Striped,
    open: Striped,
    requests: Striped,
    in_progress: Striped,
    /// Attempts at another endpoint after one failed.
    pub retries: Striped,
    /// Answers to clients that asked too often.
    pub limited: Striped,
    /// Questions to an authority that its cache answered.
    pub auth_cache_hits: Striped,
    /// Questions that went to an authority.
    pub auth_requests: Striped,
    /// Lines of the access log that nobody read in time.
    pub log_lines_dropped: Striped,
}

/// The process's own.
pub static TRAFFIC: std::sync::LazyLock<Traffic> = std::sync::LazyLock::new(Traffic::default);

/// An open connection, for as long as this exists.
#[derive(Debug)]
pub struct OpenConnection(());

/// A request in progress, for as long as this exists.
#[derive(Debug)]
pub struct OpenRequest(());

/// Counts a connection.
pub fn connection_opened() -> OpenConnection {
    TRAFFIC.accepted.add(1);
    TRAFFIC.open.add(1);
    OpenConnection(())
}

/// Counts a request.
pub fn request_begun() -> OpenRequest {
    TRAFFIC.requests.add(1);
    TRAFFIC.in_progress.add(1);
    OpenRequest(())
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        TRAFFIC.open.add(-1);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        TRAFFIC.in_progress.add(-1);
    }
}

/// Writes everything. `constant` are labels of all of it.
pub fn render(text: &mut String, constant: &str) {
    let traffic = &*TRAFFIC;
    let (open, in_progress) = (traffic.open.get().max(0), traffic.in_progress.get().max(0));
    let name = "nginx_ingress_controller_nginx_process_connections";
    let _ = writeln!(text, "# HELP {name} current number of client connections");
    let _ = writeln!(text, "# TYPE {name} gauge");
    for (state, count) in [
        ("active", open),
        ("reading", 0),
        ("waiting", (open - in_progress).max(0)),
        ("writing", in_progress),
    ] {
        let _ = writeln!(text, "{name}{{state=\"{state}\",{constant}}} {count}");
    }
    let name = "nginx_ingress_controller_nginx_process_connections_total";
    let _ = writeln!(text, "# HELP {name} total number of connections");
    let _ = writeln!(text, "# TYPE {name} counter");
    for state in ["accepted", "handled"] {
        let _ = writeln!(text, "{name}{{state=\"{state}\",{constant}}} {}", traffic.accepted.get());
    }
    for (name, help, count) in [
        (
            "nginx_ingress_controller_nginx_process_requests_total",
            "total number of client requests",
            &traffic.requests,
        ),
        (
            "podium_ingress_upstream_retries_total",
            "Attempts at another endpoint after one failed",
            &traffic.retries,
        ),
        (
            "podium_ingress_limited_requests_total",
            "Requests refused because their client asks too much",
            &traffic.limited,
        ),
        (
            "podium_ingress_auth_cache_hits_total",
            "Questions to an external authority that the cache answered",
            &traffic.auth_cache_hits,
        ),
        (
            "podium_ingress_auth_requests_total",
            "Questions to external authorities",
            &traffic.auth_requests,
        ),
        (
            "podium_ingress_access_log_dropped_lines_total",
            "Lines of the access log dropped because nobody read them in time",
            &traffic.log_lines_dropped,
        ),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}");
        let _ = writeln!(text, "# TYPE {name} counter");
        let _ = writeln!(text, "{name}{{{constant}}} {}", count.get());
    }
}
