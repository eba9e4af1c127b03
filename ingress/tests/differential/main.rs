//! podium-ingress beside nginx as ingress-nginx would configure it: the same Ingresses, the same endpoints,
//! the same requests, and everything that differs is an exception with a name or a bug.
//!
//! Random cases come from a seed that is printed; `PODIUM_DIFFERENTIAL_SEED` repeats a run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod comparison;
mod configuration;
mod description;
mod exceptions;
mod locations;
mod nginx;
mod random;
mod table;

#[path = "../e2e/backend.rs"]
#[expect(dead_code, reason = "the harness speaks of it")]
mod backend;
#[path = "../e2e/harness.rs"]
#[expect(dead_code, reason = "only starting the binary is needed here")]
mod harness;
#[path = "../e2e/recorder.rs"]
mod recorder;

use client::Request;
use description::{SERVICES, World};
use exceptions::Case;
use nginx::Nginx;
use rand::SeedableRng;
use rand::rngs::StdRng;
use recorder::Recorder;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Differences shown before a report ends.
const SHOWN_MAX: usize = 12;
const RANDOM_WORLDS: usize = 25;
const RANDOM_REQUESTS: usize = 60;

/// Services, endpoints and the certificate that every description may use, and its Ingresses.
fn manifests(world: &World, recorder: &Recorder) -> String {
    let mut out = String::new();
    for (name, address) in &recorder.addresses {
        write!(
            out,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: \
             {{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\nports: [{{port: {}}}]\n\
             endpoints: [{{addresses: [{}]}}]\n",
            address.port(),
            address.ip()
        )
        .unwrap();
    }
    out.push_str("---\napiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec: {ports: [{port: 80}]}\n");
    let secured: BTreeSet<String> =
        world.ingresses.iter().flat_map(|ingress| ingress.tls.clone()).collect();
    if !secured.is_empty() {
        let made = rcgen::generate_simple_self_signed(Vec::from_iter(secured)).unwrap();
        let data = serde_json::json!({
            "tls.crt": made.cert.pem(),
            "tls.key": made.signing_key.serialize_pem(),
        });
        writeln!(
            out,
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: all}}\ntype: kubernetes.io/tls\nstringData: {data}"
        )
        .unwrap();
    }
    out + &world.manifests()
}

/// Asks both; gives what nobody has an excuse for, and the names of the excuses used.
fn compare(world: &World, requests: &[Request]) -> (Vec<String>, BTreeSet<&'static str>) {
    let recorder = Recorder::start(&SERVICES);
    let nginx = Nginx::start(world, &recorder);
    let all = manifests(world, &recorder);
    let podium = harness::Ingress::start(
        &[("all.yaml", all.trim_start_matches("---\n"))],
        &["--access-log", "off"],
    );
    let (mut bugs, mut used) = (Vec::new(), BTreeSet::new());
    for request in requests {
        let by_nginx = comparison::ask(nginx.address, request, &recorder);
        let by_podium = comparison::ask(podium.http, request, &recorder);
        let mut unexplained = Vec::new();
        let mut excused = false;
        let by_library = by_podium.answer.as_ref().is_some_and(|a| a.header("server").is_some());
        for difference in comparison::differences(&by_nginx, &by_podium) {
            let case = Case { world, request, difference: &difference, by_library };
            match exceptions::explain(&case) {
                // Where even the status may differ, so may all the rest.
                Some(exception) => {
                    used.insert(exception.name);
                    excused |=
                        ["status", "service", "requests seen"].contains(&difference.what.as_str());
                }
                None => unexplained.push(difference),
            }
        }
        if !excused && !unexplained.is_empty() {
            bugs.push(report(request, &unexplained));
        }
    }
    if !bugs.is_empty() {
        bugs.insert(0, format!("{}\n{}", world.manifests(), nginx.configuration()));
    }
    (bugs, used)
}

fn report(request: &Request, differences: &[comparison::Difference]) -> String {
    let bytes = request.bytes();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(400)]);
    let mut out = format!("{}\n", shown.trim_end());
    for difference in differences {
        writeln!(
            out,
            "    {}: nginx {:?}, podium {:?}",
            difference.what, difference.nginx, difference.podium
        )
        .unwrap();
    }
    out
}

fn fail_if_any(bugs: &[String]) {
    let shown: Vec<&str> = bugs.iter().take(SHOWN_MAX).map(String::as_str).collect();
    assert!(bugs.is_empty(), "{} differences:\n{}", bugs.len(), shown.join("\n"));
}

#[test]
fn fixed_cases_are_answered_alike() {
    let (mut bugs, mut used) = (Vec::new(), BTreeSet::new());
    for (name, world, requests) in table::cases() {
        let (more, excuses) = compare(&world, &requests);
        bugs.extend(more.into_iter().map(|bug| format!("== {name}: {bug}")));
        used.extend(excuses);
    }
    fail_if_any(&bugs);
    let unused: Vec<&str> = exceptions::EXCEPTIONS
        .iter()
        .filter(|exception| !used.contains(exception.name))
        .map(|exception| exception.name)
        .collect();
    assert!(unused.is_empty(), "exceptions that excuse nothing: {unused:?}");
}

#[test]
fn random_ingresses_are_served_alike() {
    let seed = match std::env::var("PODIUM_DIFFERENTIAL_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => rand::random::<u64>(),
    };
    println!("PODIUM_DIFFERENTIAL_SEED={seed}");
    let mut bugs = Vec::new();
    for at in 0..RANDOM_WORLDS {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(at as u64));
        let world = random::world(&mut rng);
        let requests = random::requests(&mut rng, &world, RANDOM_REQUESTS);
        let (more, _) = compare(&world, &requests);
        if !more.is_empty() {
            bugs.push(format!("PODIUM_DIFFERENTIAL_SEED={} gives:", seed.wrapping_add(at as u64)));
            bugs.extend(more);
        }
    }
    fail_if_any(&bugs);
}
