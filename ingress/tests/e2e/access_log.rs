//! The access log: ingress-nginx's lines, own formats, and what is not logged.

use crate::backend::Backend;
use crate::harness::{Ingress, ingress, service, wait_until};

const RULES: [(&str, &str, &str, &str); 1] = [("a.example", "/", "Prefix", "web")];

fn start(web: &Backend, annotations: &str, options: &str, flags: &[&str]) -> Ingress {
    let manifests = format!(
        "{}{}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: options}}\ndata: {{{options}}}\n",
        service("web", &[web]),
        ingress("a", annotations, &RULES)
    );
    let all: Vec<&str> = ["--configmap", "default/options"].iter().chain(flags).copied().collect();
    Ingress::start(&[("a.yaml", &manifests)], &all)
}

/// Waits for lines that end in what `mark` says; the last request's line is the last.
fn lines(podium: &Ingress, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    wait_until("the access log has the request", || {
        let log = podium.access_log.lock().unwrap();
        found = log.lines().map(str::to_owned).collect();
        log.ends_with('\n') && found.last().is_some_and(|line| line.contains(mark))
    });
    found
}

#[test]
fn lines_are_those_of_ingress_nginx() {
    let web = Backend::start("web");
    let podium = start(&web, "", "", &[]);
    let request = "GET /app?x=%22 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nUser-Agent: a\"b\r\n\
                   Referer: https://r.example/\r\nAuthorization: Basic bWU6c2VjcmV0\r\nX-Request-ID: id-1\r\n\r\n";
    assert_eq!(podium.send(request).status, 200);
    let line = lines(&podium, "id-1").remove(0);
    let (head, rest) = line.split_once(" [").unwrap();
    assert!(head.ends_with(" - me"), "{line}");
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(time.len(), "21/Nov/2026:19:30:00 +0000".len());
    let expected = "\"GET /app?x=%22 HTTP/1.1\" 200 ";
    assert!(rest.starts_with(expected), "{line}");
    assert!(rest.contains(" \"https://r.example/\" \"a\\x22b\" "), "{line}");
    let fields: Vec<&str> = rest.rsplit(' ').take(7).collect();
    let [id, status, took, bytes, address, alternative, upstream] = fields[..] else {
        panic!("{line}");
    };
    assert_eq!((id, status, address), ("id-1", "200", &*web.address.to_string()));
    assert_eq!((alternative, upstream), ("[]", "[default-web-80]"));
    assert!(bytes.parse::<u64>().unwrap() > 0 && took.parse::<f64>().is_ok(), "{line}");
}

#[test]
fn log_format_upstream_and_log_format_escape_json_are_the_users_own() {
    let web = Backend::start("web");
    let options = r#"log-format-upstream: '{"agent": "$http_user_agent", "x": "$unicorn", "s": $status, "u": "$uri"}', log-format-escape-json: "true""#;
    let podium = start(&web, "", options, &[]);
    let request =
        "GET /end HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nUser-Agent: a\"b\\\r\n\r\n";
    assert_eq!(podium.send(request).status, 200);
    let line = lines(&podium, "/end").remove(0);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["agent"], "a\"b\\");
    assert_eq!((&parsed["s"], &parsed["x"]), (&200.into(), &"".into()));
    let named = "podium_ingress_not_honoured{kind=\"ConfigMap\",name=\"log-format-upstream\"} 1";
    assert!(podium.metrics().contains(named));
}

#[test]
fn json_is_a_flag_away() {
    let web = Backend::start("web");
    let podium = start(&web, "", "", &["--access-log", "json"]);
    assert_eq!(podium.get("a.example", "/end").status, 200);
    let line = lines(&podium, "/end").remove(0);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["upstream_addr"], web.address.to_string());
    assert_eq!((&parsed["ingress"], &parsed["status"]), (&"a".into(), &200.into()));
}

#[test]
fn skip_access_log_urls_and_enable_access_log_for_default_backend_leave_lines_out() {
    let web = Backend::start("web");
    let podium = start(&web, "", "skip-access-log-urls: '/health,~^/quiet/'", &[]);
    for path in ["/health", "/quiet/1", "/health?x=1"] {
        assert_eq!(podium.get("a.example", path).status, 200);
    }
    assert_eq!(podium.get("unknown.example", "/unmatched").status, 404);
    assert_eq!(podium.get("a.example", "/end").status, 200);
    let found = lines(&podium, "/end");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("/health?x=1"));
}

#[test]
fn enable_access_log_is_for_one_location_and_disable_access_log_for_all() {
    let web = Backend::start("web");
    let off = r#""nginx.ingress.kubernetes.io/enable-access-log": "false""#;
    let options = r#"enable-access-log-for-default-backend: "true""#;
    let podium = start(&web, off, options, &[]);
    assert_eq!(podium.get("a.example", "/not-logged").status, 200);
    assert_eq!(podium.get("unknown.example", "/end").status, 404);
    let found = lines(&podium, "/end");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("[upstream-default-backend] [] - - - - "), "{found:?}");

    let podium = start(&web, "", r#"disable-access-log: "true""#, &[]);
    assert_eq!(podium.get("a.example", "/not-logged").status, 200);
    podium.write("a.yaml", &(service("web", &[&web]) + &ingress("a", "", &RULES)));
    wait_until("the log is on again", || {
        podium.get("a.example", "/logged");
        podium.access_log.lock().unwrap().contains("/logged")
    });
    assert!(!podium.access_log.lock().unwrap().contains("/not-logged"));
}
