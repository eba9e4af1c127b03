//! What is counted for each route, under the names and labels of ingress-nginx.
//!
//! A [`Route`](crate::snapshot::Route) holds its series: a request finds its counters by walking a short
//! list, and adds to them without a lock. Routes of the same identity share series, so that they survive a
//! change of the route; they are gone with the last route that holds them. Clients cannot add any: methods
//! are lumped together, hosts and paths are those of rules, and the number of statuses is bounded.

use super::histogram::{Histogram, LENGTH_BYTES, SIZE_BYTES, TIMES_NS};
use crate::objects::ObjectKey;
use http::Method;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Combinations of method, status and canary counted for a route; the rest shares one.
const COMBINATIONS_MAX: usize = 192;
/// The status of the rest.
const OTHER_STATUS: u16 = 0;

/// What makes a route the same route.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// The rule's host; `_` for none.
    pub host: Arc<str>,
    /// The rule's path.
    pub path: Arc<str>,
    /// The Ingress.
    pub ingress: Arc<ObjectKey>,
    /// Of the backend.
    pub service: Arc<str>,
}

/// The series of one route.
#[derive(Debug)]
pub struct RouteSeries {
    key: SeriesKey,
    first: OnceLock<Box<Combination>>,
}

/// A method, a status, and whether the canary answered.
#[derive(Debug)]
struct Combination {
    method: &'static str,
    status: u16,
    canary: Box<str>,
    counted: Counted,
    next: OnceLock<Box<Combination>>,
}

#[derive(Debug, Default)]
struct Counted {
    request_duration: Histogram<{ TIMES_NS.len() }>,
    response_duration: Histogram<{ TIMES_NS.len() }>,
    header_duration: Histogram<{ TIMES_NS.len() }>,
    connect_duration: Histogram<{ TIMES_NS.len() }>,
    request_size: Histogram<{ LENGTH_BYTES.len() }>,
    response_size: Histogram<{ LENGTH_BYTES.len() }>,
    bytes_sent: Histogram<{ SIZE_BYTES.len() }>,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// What was asked.
    pub method: &'a Method,
    /// What was answered.
    pub status: u16,
    /// The canary's upstream name if it took the request.
    pub canary: &'a str,
    /// From the first byte of the request to the last of the answer.
    pub took: Duration,
    /// Of the last attempt: until there was a connection.
    pub connected: Option<Duration>,
    /// Until the header of the answer was there.
    pub answered: Option<Duration>,
    /// Until the answer was complete.
    pub ended: Option<Duration>,
    /// Header and body of the request.
    pub request_bytes: u64,
    /// Header and body of the answer.
    pub response_bytes: u64,
}

/// All series of the process, by the hash of what they are: they know that themselves.
struct Known {
    by_hash: HashMap<u64, Weak<RouteSeries>>,
    hasher: RandomState,
    /// When to look for dead ones next.
    prune_at: usize,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(|| {
    Mutex::new(Known { by_hash: HashMap::new(), hasher: RandomState::new(), prune_at: 1024 })
});

impl RouteSeries {
    /// The series of a route: those it had, while any route holds them.
    pub fn of(key: SeriesKey) -> Arc<RouteSeries> {
        let mut guard = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *guard;
        if known.by_hash.len() >= known.prune_at {
            known.by_hash.retain(|_, series| series.strong_count() > 0);
            known.prune_at = (known.by_hash.len() * 2).max(1024);
        }
        let mut hash = known.hasher.hash_one(&key);
        // Others of the same hash are as good as impossible; they would be next to each other.
        while let Some(series) = known.by_hash.get(&hash).and_then(Weak::upgrade) {
            if series.key == key {
                return series;
            }
            hash = hash.wrapping_add(1);
        }
        let series = Arc::new(RouteSeries { key, first: OnceLock::new() });
        known.by_hash.insert(hash, Arc::downgrade(&series));
        series
    }

    /// Counts a request.
    pub fn observe(&self, request: &Finished<'_>) {
        let counted = self.counted(method_label(request.method), request.status, request.canary);
        counted.request_duration.observe(nanoseconds(request.took));
        for (histogram, took) in [
            (&counted.connect_duration, request.connected),
            (&counted.header_duration, request.answered),
            (&counted.response_duration, request.ended),
        ] {
            if let Some(took) = took {
                histogram.observe(nanoseconds(took));
            }
        }
        counted.request_size.observe(request.request_bytes);
        counted.response_size.observe(request.response_bytes);
        counted.bytes_sent.observe(request.response_bytes);
    }

    fn counted(&self, method: &'static str, status: u16, canary: &str) -> &Counted {
        let mut place = &self.first;
        for _ in 0..COMBINATIONS_MAX {
            let at = place.get_or_init(|| Combination::new(method, status, canary));
            if at.status == status && at.method == method && *at.canary == *canary {
                return &at.counted;
            }
            place = &at.next;
        }
        &place.get_or_init(|| Combination::new(OTHER_METHOD, OTHER_STATUS, "")).counted
    }

    fn combinations(&self) -> impl Iterator<Item = &Combination> {
        std::iter::successors(self.first.get(), |at| at.next.get()).map(|at| &**at)
    }
}

impl Combination {
    fn new(method: &'static str, status: u16, canary: &str) -> Box<Combination> {
        Box::new(Combination {
            method,
            status,
            canary: canary.into(),
            counted: Counted::default(),
            next: OnceLock::new(),
        })
    }
}

const OTHER_METHOD: &str = "OTHER";

/// Clients may invent methods; labels must not grow with them.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER_METHOD,
    }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// Series rendered at a time: a page of all routes is as long as a book.
const SERIES_OF_A_PIECE: usize = 32;

/// One of ingress-nginx's metrics.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    render: fn(&Counted, &mut String, &str, &str),
}

const FAMILIES: [Family; 8] = [
    Family {
        name: "requests",
        kind: "counter",
        help: "The total number of client requests",
        render: |counted, text, name, labels| {
            let count = counted.request_duration.count();
            let _ = writeln!(text, "nginx_ingress_controller_{name}{{{labels}}} {count}");
        },
    },
    Family {
        name: "request_duration_seconds",
        kind: "histogram",
        help: "Time from the first byte of the request to the last of its answer",
        render: |c, text, name, labels| seconds(&c.request_duration, text, name, labels),
    },
    Family {
        name: "response_duration_seconds",
        kind: "histogram",
        help: "The time spent on receiving the response from the upstream server",
        render: |c, text, name, labels| seconds(&c.response_duration, text, name, labels),
    },
    Family {
        name: "header_duration_seconds",
        kind: "histogram",
        help: "The time spent on receiving first header from the upstream server",
        render: |c, text, name, labels| seconds(&c.header_duration, text, name, labels),
    },
    Family {
        name: "connect_duration_seconds",
        kind: "histogram",
        help: "The time spent on establishing a connection with the upstream server",
        render: |c, text, name, labels| seconds(&c.connect_duration, text, name, labels),
    },
    Family {
        name: "request_size",
        kind: "histogram",
        help: "The request length (including request line, header, and request body)",
        render: |c, text, name, labels| {
            c.request_size.render(text, name, labels, &LENGTH_BYTES, 1.0);
        },
    },
    Family {
        name: "response_size",
        kind: "histogram",
        help: "The response length (including status line, header, and body)",
        render: |c, text, name, labels| {
            c.response_size.render(text, name, labels, &LENGTH_BYTES, 1.0);
        },
    },
    Family {
        name: "bytes_sent",
        kind: "histogram",
        help: "DEPRECATED The number of bytes sent to a client",
        render: |c, text, name, labels| {
            c.bytes_sent.render(text, name, labels, &SIZE_BYTES, 1.0);
        },
    },
];

fn seconds(histogram: &Histogram<{ TIMES_NS.len() }>, text: &mut String, name: &str, labels: &str) {
    histogram.render(text, name, labels, &TIMES_NS, 1e9);
}

/// What was counted for every route, piece by piece. `constant` are labels of all of it.
pub fn pieces(constant: &str) -> impl Iterator<Item = String> {
    let mut live: Vec<Arc<RouteSeries>> = {
        let guard = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        guard.by_hash.values().filter_map(Weak::upgrade).collect()
    };
    live.retain(|series| series.first.get().is_some());
    live.sort_by(|a, b| {
        a.key.ingress.cmp(&b.key.ingress).then_with(|| a.key.host.cmp(&b.key.host))
    });
    let of_family = live.len().div_ceil(SERIES_OF_A_PIECE);
    (0..of_family * FAMILIES.len()).map(move |number| {
        let (family, piece) = (&FAMILIES[number / of_family], number % of_family);
        let mut text = String::new();
        if piece == 0 {
            let Family { name, kind, help, .. } = family;
            let _ = writeln!(text, "# HELP nginx_ingress_controller_{name} {help}");
            let _ = writeln!(text, "# TYPE nginx_ingress_controller_{name} {kind}");
        }
        for series in live.iter().skip(piece * SERIES_OF_A_PIECE).take(SERIES_OF_A_PIECE) {
            for at in series.combinations() {
                let labels = labels(&series.key, at, constant);
                (family.render)(&at.counted, &mut text, family.name, &labels);
            }
        }
        text
    })
}

fn labels(key: &SeriesKey, at: &Combination, constant: &str) -> String {
    let mut text = String::with_capacity(256);
    let mut label = |name: &str, value: &str| {
        let _ = write!(text, "{name}=\"");
        escape(&mut text, value);
        text.push_str("\",");
    };
    label("canary", &at.canary);
    label("host", &key.host);
    label("ingress", &key.ingress.name);
    label("method", at.method);
    label("namespace", &key.ingress.namespace);
    label("path", &key.path);
    label("service", &key.service);
    match at.status {
        OTHER_STATUS => label("status", "other"),
        status => label("status", &status.to_string()),
    }
    text.push_str(constant);
    text
}

/// A label's value as the exposition format wants it.
pub fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: &str) -> SeriesKey {
        let ingress = Arc::new(ObjectKey::new("", ""));
        SeriesKey { host: host.into(), path: "/".into(), ingress, service: "".into() }
    }

    fn request(method: &Method, status: u16) -> Finished<'_> {
        Finished {
            method,
            status,
            canary: "",
            took: Duration::from_millis(3),
            connected: None,
            answered: None,
            ended: None,
            request_bytes: 80,
            response_bytes: 146,
        }
    }

    fn rendered(host: &str) -> Vec<String> {
        let text: String = pieces("controller_class=\"podium\"").collect();
        let wanted = format!("host=\"{host}\"");
        text.lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect()
    }

    #[test]
    fn names_and_labels_are_those_of_ingress_nginx() {
        let series = RouteSeries::of(key("names.example"));
        series.observe(&request(&Method::from_bytes(b"BREW").unwrap(), 404));
        let lines = rendered("names.example");
        let labels = "canary=\"\",host=\"names.example\",ingress=\"\",method=\"OTHER\",namespace=\"\",\
                      path=\"/\",service=\"\",status=\"404\",controller_class=\"podium\"";
        for line in [
            format!("nginx_ingress_controller_requests{{{labels}}} 1"),
            format!(
                "nginx_ingress_controller_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 1"
            ),
            format!("nginx_ingress_controller_request_duration_seconds_sum{{{labels}}} 0.003"),
            format!("nginx_ingress_controller_response_size_bucket{{{labels},le=\"100\"}} 0"),
            format!("nginx_ingress_controller_bytes_sent_bucket{{{labels},le=\"1000\"}} 1"),
            format!("nginx_ingress_controller_request_size_count{{{labels}}} 1"),
            format!("nginx_ingress_controller_connect_duration_seconds_count{{{labels}}} 0"),
        ] {
            assert!(lines.contains(&line), "{line}\n{lines:#?}");
        }
    }

    #[test]
    fn series_outlive_a_change_of_their_route_but_not_its_end() {
        let before = RouteSeries::of(key("outlive.example"));
        before.observe(&request(&Method::GET, 200));
        let after = RouteSeries::of(key("outlive.example"));
        drop(before);
        after.observe(&request(&Method::GET, 200));
        assert!(rendered("outlive.example")[0].ends_with(" 2"));
        drop(after);
        assert!(rendered("outlive.example").is_empty());
        assert!(RouteSeries::of(key("outlive.example")).first.get().is_none());
    }

    #[test]
    fn neither_clients_nor_endpoints_make_series_without_end() {
        let series = RouteSeries::of(key("hostile.example"));
        for number in 0..2000 {
            let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
            series.observe(&request(&method, 100 + number % 900));
        }
        assert_eq!(series.combinations().count(), COMBINATIONS_MAX + 1);
        let total: u64 = series.combinations().map(|at| at.counted.request_duration.count()).sum();
        assert_eq!(total, 2000);
    }
}
