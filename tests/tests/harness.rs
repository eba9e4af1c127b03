//! The harness tested on itself: what it makes works, and nothing of it is left afterwards.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use podium_tests::binaries::Binaries;
use podium_tests::cgroup::Cgroup;
use podium_tests::down::down;
use podium_tests::fabric::{CONTROL_ADDRESS, Fabric, node_address};
use podium_tests::machine;
use podium_tests::process::Launch;
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;

const LIMIT: Duration = Duration::from_secs(10);

fn workdir(name: &str) -> (Binaries, Workdir) {
    machine::check().expect("this test needs the machine");
    let binaries = Binaries::from_env().unwrap();
    let dir = binaries.tests_dir().join(name);
    (binaries, Workdir::create(&dir, &format!("podium-test-{name}")).unwrap())
}

fn in_any_hierarchy(path: &str) -> bool {
    let found = machine::cgroup_hierarchies();
    found.v2.iter().chain(&found.v1).any(|root| root.join(path.trim_start_matches('/')).exists())
}

#[test]
fn namespaces_reach_each_other_and_nothing_else() {
    let (binaries, workdir) = workdir("fabric");
    let fabric = Fabric::create(&workdir).unwrap();
    let server = fabric.join(&workdir, "a", node_address(1)).unwrap();
    let client = fabric.join(&workdir, "b", node_address(2)).unwrap();
    let testserver = binaries.static_testserver();
    let _serving = Launch::new("testserver", &testserver)
        .args(["serve", "--drain-ms", "0"])
        .inside(Some(server.name()), None)
        .unwrap()
        .spawn(&workdir)
        .unwrap();
    let url = format!("http://{}/some/path?a=b", node_address(1));
    let curl = |netns: &str, url: &str| {
        Launch::new("curl", Path::new("curl"))
            .args(["--silent", "--show-error", "--max-time", "2", url])
            .inside(Some(netns), None)
            .and_then(Launch::output)
            .map_err(|error| format!("{error:#}"))
    };
    let answer = wait_until("the server answers", LIMIT, || curl(client.name(), &url)).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["path"], &answer["query"]), (&"/some/path".into(), &"a=b".into()));
    assert!(curl(client.name(), &format!("http://{CONTROL_ADDRESS}/")).is_err(), "nobody there");
    assert!(client.ip(&["route"]).unwrap().lines().all(|line| !line.starts_with("default")));
    let report = Launch::new("load", &testserver)
        .args(["load", "--url", &url, "--count", "50", "--clients", "2"])
        .inside(Some(client.name()), None)
        .unwrap()
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["requests"], &report["failed"]), (&50.into(), &0.into()), "{report}");
    down(workdir.path()).unwrap();
    assert!(!Path::new("/run/netns").join(server.name()).exists());
    assert!(!workdir.path().exists());
}

#[test]
fn a_program_finishes_its_requests_when_asked_to_end() {
    let (binaries, workdir) = workdir("drain");
    let fabric = Fabric::create(&workdir).unwrap();
    let netns = fabric.join(&workdir, "a", node_address(1)).unwrap();
    let testserver = binaries.static_testserver();
    let mut serving = Launch::new("testserver", &testserver)
        .args(["serve", "--drain-ms", "300"])
        .inside(Some(netns.name()), None)
        .unwrap()
        .spawn(&workdir)
        .unwrap();
    let url = format!("http://{}/delay?800", node_address(1));
    let client = |count: &str, url: &str| {
        Launch::new("load", &testserver)
            .args(["load", "--count", count, "--url", url])
            .inside(Some(netns.name()), None)
            .unwrap()
    };
    let ready = format!("http://{}/healthz", node_address(1));
    wait_until("the server answers", LIMIT, || {
        let report = client("1", &ready).output().map_err(|error| error.to_string())?;
        if report.contains("\"failed\":0") { Ok(()) } else { Err(report) }
    })
    .unwrap();
    let slow = client("1", &url).start_client().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    serving.stop();
    let report: serde_json::Value = serde_json::from_str(&slow.finish().unwrap()).unwrap();
    assert_eq!(report["failed"], 0, "{report}");
    down(workdir.path()).unwrap();
}

#[test]
fn what_a_crash_left_is_taken_down_from_the_record() {
    let (binaries, workdir) = workdir("crash");
    let group = Cgroup::create(&workdir, "node-1").unwrap();
    let fabric = Fabric::create(&workdir).unwrap();
    let process = Launch::new("sleeper", &binaries.static_testserver())
        .args(["sleep", "600"])
        .inside(None, Some(&group))
        .unwrap()
        .spawn(&workdir)
        .unwrap();
    let pid = process.pid();
    let members = fs::read_to_string(group.dir().join("cgroup.procs")).unwrap();
    assert_eq!(members.trim(), pid.to_string());
    // As after a crash: nothing is dropped in order.
    std::mem::forget((process, fabric));
    down(workdir.path()).unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(status.is_empty() || status.contains(") Z "), "still alive: {status}");
    assert!(!in_any_hierarchy("/podium-test-crash"));
    assert!(!Path::new("/run/netns/podium-test-crash-fabric").exists());
    down(workdir.path()).unwrap();
}
