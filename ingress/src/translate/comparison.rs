//! The index after any changes against an index made from nothing of the same objects: routes, redirects,
//! endpoints, certificates, problems and names of Secrets must be the same.

use super::*;
use crate::objects::{Object, Read};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::LazyLock;

const HOSTS: [&str; 7] =
    ["", "a.example", "www.a.example", "b.example", "*.example", "x.example", "Not_A_Host"];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/a/b(/|$)(.*)", "/A", "/(", ""];
const TYPES: [&str; 4] = ["Exact", "Prefix", "Prefix", "ImplementationSpecific"];
const NAMES: [&str; 6] = ["i0", "i1", "i2", "i3", "i4", "i5"];
const REQUESTS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/a/bc", "/a/b/c", "/A/B", "/other"];
const ANNOTATIONS: [(&str, &str); 13] = [
    ("rewrite-target", "/$2"),
    ("rewrite-target", "/a"),
    ("use-regex", "true"),
    ("canary", "true"),
    ("server-alias", "x.example, www.a.example"),
    ("server-alias", "alias.example,b.example"),
    ("from-to-www-redirect", "true"),
    ("default-backend", "s1"),
    ("service-upstream", "true"),
    ("app-root", "/root"),
    ("auth-type", "basic"),
    ("auth-secret", "k1"),
    ("whitelist-source-range", "nonsense"),
];

/// A change of one object.
#[derive(Clone, Debug)]
enum Step {
    Apply(Kind, Value),
    Delete(Kind, &'static str),
    /// All Ingresses anew, as after a watch was lost: only those of these names are left.
    Relist(Vec<&'static str>),
    /// Hours pass.
    Wait,
}

static CERTIFICATES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let make = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    vec![make(&["a.example", "www.a.example"]), make(&["b.example", "*.example"])]
});

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "n"})
}

fn any_backend() -> impl Strategy<Value = Value> {
    let port = prop_oneof![
        3 => Just(json!({"number": 80})), 1 => Just(json!({"name": "http"})), 1 => Just(json!({"number": 9}))
    ];
    prop_oneof![
        9 => (select(&["s0", "s1", "s2"][..]), port)
            .prop_map(|(name, port)| json!({"service": {"name": name, "port": port}})),
        1 => Just(json!({"resource": {"kind": "Bucket", "name": "b"}})),
    ]
}

fn any_rule() -> impl Strategy<Value = Value> {
    let path = (select(&PATHS[..]), select(&TYPES[..]), any_backend()).prop_map(
        |(path, path_type, backend)| {
            json!({"path": path, "pathType": path_type, "backend": backend})
        },
    );
    (select(&HOSTS[..]), prop::collection::vec(path, 0..4))
        .prop_map(|(host, paths)| json!({"host": host, "http": {"paths": paths}}))
}

fn any_ingress() -> impl Strategy<Value = Step> {
    let tls = (select(&HOSTS[..]), select(&["k0", "k1", "k2", ""][..]), any::<bool>()).prop_map(
        |(host, secret, named)| match named {
            true => json!({"hosts": [host], "secretName": secret}),
            false => json!({"secretName": secret}),
        },
    );
    (
        select(&NAMES[..]),
        prop::collection::vec(any_rule(), 0..4),
        prop::collection::vec(select(&ANNOTATIONS[..]), 0..3),
        prop::option::weighted(0.2, any_backend()),
        prop::option::weighted(0.8, 1..4u8),
        prop::option::weighted(0.3, tls),
        select(&["", "", "c0", "c1"][..]),
    )
        .prop_map(|(name, rules, annotations, default, created, tls, class)| {
            let annotations: BTreeMap<String, &str> = annotations
                .into_iter()
                .map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), value))
                .collect();
            let mut metadata = json!({"name": name, "namespace": "n", "annotations": annotations});
            if let Some(second) = created {
                metadata["creationTimestamp"] = json!(format!("2025-01-01T00:00:0{second}Z"));
            }
            let mut spec = json!({"rules": rules, "tls": Vec::from_iter(tls)});
            if !class.is_empty() {
                spec["ingressClassName"] = json!(class);
            }
            if let Some(default) = default {
                spec["defaultBackend"] = default;
            }
            Step::Apply(
                Kind::Ingress,
                json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": metadata, "spec": spec}),
            )
        })
}

fn any_service() -> impl Strategy<Value = Step> {
    (select(&["s0", "s1", "s2"][..]), 0..4).prop_map(|(name, form)| {
        let spec = match form {
            0 => json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
            1 => json!({"clusterIP": "None", "ports": [{"port": 80, "targetPort": "web"}]}),
            2 => json!({"type": "ExternalName", "externalName": "else.where.example"}),
            _ => json!({"ports": []}),
        };
        Step::Apply(Kind::Service, json!({"apiVersion": "v1", "kind": "Service", "metadata": meta(name), "spec": spec}))
    })
}

fn any_slice() -> impl Strategy<Value = Step> {
    let endpoint = (1..5u8, any::<bool>()).prop_map(
        |(ip, ready)| json!({"addresses": [format!("10.0.0.{ip}")], "conditions": {"ready": ready}}),
    );
    (
        select(&["e0", "e1", "e2"][..]),
        select(&["s0", "s1"][..]),
        prop::collection::vec(endpoint, 0..3),
    )
        .prop_map(|(name, service, endpoints)| {
            let metadata = json!({"name": name, "namespace": "n", "labels": {"kubernetes.io/service-name": service}});
            Step::Apply(Kind::EndpointSlice, json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": metadata, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints}))
        })
}

fn any_secret() -> impl Strategy<Value = Step> {
    (select(&["k0", "k1"][..]), 0..2usize).prop_map(|(name, which)| {
        let (chain, key) = &CERTIFICATES[which];
        Step::Apply(
            Kind::Secret,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta(name),
            "stringData": {"tls.crt": chain, "tls.key": key}}),
        )
    })
}

fn any_class() -> impl Strategy<Value = Step> {
    (select(&["c0", "c1"][..]), any::<bool>(), any::<bool>()).prop_map(|(name, ours, default)| {
        let controller = if ours { "podium.dev/ingress" } else { "another" };
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": default.to_string()});
        Step::Apply(Kind::IngressClass, json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name, "annotations": annotations}, "spec": {"controller": controller}}))
    })
}

fn any_deletion() -> impl Strategy<Value = Step> {
    let of = |kind: Kind, names: &'static [&'static str]| {
        select(names).prop_map(move |name| Step::Delete(kind, name))
    };
    prop_oneof![
        6 => of(Kind::Ingress, &NAMES),
        1 => of(Kind::Service, &["s0", "s1", "s2"]),
        1 => of(Kind::EndpointSlice, &["e0", "e1", "e2"]),
        1 => of(Kind::Secret, &["k0", "k1"]),
        1 => of(Kind::IngressClass, &["c0", "c1"]),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let broken = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta("i0"), "spec": 1});
    prop_oneof![
        20 => any_ingress(),
        4 => any_service(),
        4 => any_slice(),
        3 => any_secret(),
        2 => any_class(),
        8 => any_deletion(),
        1 => Just(Step::Apply(Kind::Ingress, broken)),
        1 => prop::sample::subsequence(NAMES.to_vec(), 0..NAMES.len()).prop_map(Step::Relist),
        1 => Just(Step::Wait),
    ]
}

/// Everything there is to see, as text.
fn state(index: &Index) -> String {
    let mut text = String::new();
    for host in HOSTS.into_iter().chain(["alias.example", "y.example", "other.org"]) {
        let rules = index.snapshot.host(host);
        if let Some(rules) = rules {
            writeln!(text, "{host}: {:?} {:?} {}", rules.www_redirect, rules.app_root, rules.tls)
                .unwrap();
        }
        if let Some(certificate) = index.snapshot.certificates.get(host) {
            let names: Vec<_> = certificate.certificates.iter().map(|one| &one.names).collect();
            writeln!(text, "{host}: {names:?}").unwrap();
        }
        for path in REQUESTS {
            let Some(route) = index.snapshot.route_by(rules, path.as_bytes()) else {
                continue;
            };
            let canary = route.canary.as_ref().map(|canary| &canary.backend.key);
            let default = route.default_backend.as_ref().map(|backend| &backend.key);
            writeln!(
                text,
                "{host}{path} {:?} {} {} {:?} {:?} {:?} {:?} {} {}",
                route.ingress,
                route.host,
                route.path,
                route.backend.key,
                canary,
                default,
                route.rewrite,
                route.closed,
                route.unclaimed,
            )
            .unwrap();
        }
    }
    for (key, addresses) in index.backends.addresses() {
        let known = index.snapshot.backends.get(key).is_some();
        writeln!(text, "{key:?} {addresses:?} {known}").unwrap();
    }
    writeln!(text, "{:?} {}", index.named, index.snapshot.backends.len()).unwrap();
    writeln!(text, "{:?}", index.entries.keys().collect::<Vec<_>>()).unwrap();
    index.problems().for_each(|problem| writeln!(text, "{problem}").unwrap());
    text
}

/// Objects as they came last.
type Written = BTreeMap<(Kind, String), Value>;

/// An index of the same objects, made at once.
fn from_nothing(index: &Index, written: &Written, now: Timestamp) -> Index {
    let world = index.world();
    let mut objects: Vec<Object> = world.ingresses.values().cloned().map(Object::Ingress).collect();
    objects.extend(world.classes.values().cloned().map(Object::IngressClass));
    let services = world.services.iter();
    objects.extend(services.map(|(key, one)| Object::Service(key.clone(), one.clone())));
    let slices = written.iter().filter(|((kind, _), _)| *kind == Kind::EndpointSlice);
    objects.extend(slices.map(|(_, slice)| Object::parse(slice.clone()).unwrap().unwrap()));
    objects.extend(world.secrets.values().cloned().map(Object::Secret));
    let problems = world.unreadable.values().cloned().collect();
    let mut fresh = Index::new(index.policy.clone());
    fresh.apply([Change::Everything(objects, problems)]);
    fresh.update(now);
    fresh
}

fn change(step: Step, index: &Index, written: &Written) -> Option<Change> {
    Some(match step {
        Step::Apply(kind, value) => Change::Apply(kind, value),
        Step::Delete(Kind::IngressClass, name) => {
            Change::Delete(Kind::IngressClass, ObjectKey::new("default", name))
        }
        Step::Delete(kind, name) => Change::Delete(kind, ObjectKey::new("n", name)),
        Step::Relist(names) => {
            let kept = index.world().ingresses.keys().map(|key| &*key.name);
            let values = kept.filter(|name| names.contains(name)).map(|name| {
                let value = written[&(Kind::Ingress, json!(name).to_string())].clone();
                Read::of(Kind::Ingress, value)
            });
            Change::Replace(Kind::Ingress, None, values.collect())
        }
        Step::Wait => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn an_index_after_changes_is_one_made_from_nothing(
        batches in prop::collection::vec(prop::collection::vec(any_step(), 1..4), 1..14),
        without_class in any::<bool>(),
        default_backend in any::<bool>(),
    ) {
        let mut policy = super::tests::policy();
        policy.classes.without_class = without_class;
        policy.default_backend = default_backend.then(|| ObjectKey::new("n", "s0"));
        policy.default_certificate = Some(ObjectKey::new("n", "k0"));
        let mut index = Index::new(policy);
        let mut now = Timestamp::UNIX_EPOCH;
        let mut known: BTreeSet<Problem> = BTreeSet::new();
        // The index keeps no more of objects than it reads.
        let mut written = Written::new();
        for batch in batches {
            for step in batch.iter().cloned() {
                match &step {
                    Step::Apply(kind, value) => {
                        written.insert((*kind, value["metadata"]["name"].to_string()), value.clone());
                    }
                    Step::Delete(kind, name) => {
                        written.remove(&(*kind, json!(name).to_string()));
                    }
                    _ => {}
                }
                match change(step, &index, &written) {
                    Some(change) => index.apply([change]),
                    None => now += jiff::SignedDuration::from_hours(5),
                }
            }
            let update = index.update(now);
            for problem in update.problems.gone {
                prop_assert!(known.remove(&problem), "gone without having been there: {problem}");
            }
            for problem in update.problems.new {
                prop_assert!(known.insert(problem.clone()), "new for the second time: {problem}");
            }
            prop_assert!(known.iter().eq(index.problems()));
            let (incremental, fresh) = (state(&index), state(&from_nothing(&index, &written, now)));
            prop_assert_eq!(&incremental, &fresh, "after {:#?}\n{}\n{}", batch, incremental, fresh);
        }
        let all: Vec<_> = index.world().ingresses.keys().cloned().collect();
        index.apply(all.into_iter().map(|key| Change::Delete(Kind::Ingress, key)));
        index.update(now);
        prop_assert!(index.hosts.is_empty(), "left over: {:?}", index.hosts.keys());
        prop_assert!(index.snapshot.hosts.len() == 0 && index.snapshot.wildcards.len() == 0);
    }
}
