//! Statuses as golden text: the pod and what the runtime holds in, the fields users look at out.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::pod::memory::ProbeState;
use crate::pod::observed::Sandbox;

fn observed(name: &str, life: Life, exit_code: i32) -> Observed {
    Observed {
        id: format!("{name}-id"),
        name: name.into(),
        sandbox_id: "s".into(),
        life,
        restart_count: 1,
        created_at_ns: 1_000_000_000,
        started_at_ns: 2_000_000_000,
        finished_at_ns: if life == Life::Exited { 3_000_000_000 } else { 0 },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "docker.io/library/x:1".into(),
        image_id: "sha256:1".into(),
        hash: String::new(),
        grace_s: None,
    }
}

fn check(spec: Value, containers: Vec<Observed>, memory: &Memory, expected: Expect) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3}, "spec": spec,
    }))
    .unwrap();
    let sandbox =
        Sandbox { id: "s".into(), ready: true, ips: vec!["10.0.0.2".into()], ..Sandbox::default() };
    let runtime = PodRuntime { sandboxes: vec![sandbox], containers };
    let status = status(&Input {
        pod: &pod,
        runtime: &runtime,
        memory,
        host_ips: &["192.168.0.1".into()],
        ending: false,
        now: Timestamp::from_second(10).unwrap(),
    });
    let mut lines = vec![format!(
        "{} ip={} qos={}",
        status.phase.unwrap(),
        status.pod_ip.unwrap(),
        status.qos_class.unwrap()
    )];
    for condition in status.conditions.unwrap() {
        let why = [condition.reason, condition.message].into_iter().flatten();
        let why: Vec<String> = why.collect();
        lines.push(format!("{}={} {}", condition.type_, condition.status, why.join(": ")));
    }
    let statuses = status.init_container_statuses.into_iter().flatten();
    for container in statuses.chain(status.container_statuses.into_iter().flatten()) {
        lines.push(format!(
            "{} ready={} started={:?} state={} last={}",
            container.name,
            container.ready,
            container.started,
            serde_json::to_string(&container.state).unwrap(),
            serde_json::to_string(&container.last_state).unwrap(),
        ));
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn running_and_not_ready_until_probed() {
    let spec = json!({"containers": [{"name": "a", "readinessProbe": {}}]});
    let mut memory = Memory::default();
    check(
        spec.clone(),
        vec![observed("a", Life::Running, 0)],
        &memory,
        expect![[r#"
            Running ip=10.0.0.2 qos=BestEffort
            PodReadyToStartContainers=True
            Initialized=True
            Ready=False ContainersNotReady: containers with unready status: [a]
            ContainersReady=False ContainersNotReady: containers with unready status: [a]
            PodScheduled=True
            a ready=false started=Some(true) state={"running":{"startedAt":"1970-01-01T00:00:02Z"}} last=null"#]],
    );
    let ready = ProbeState { readiness: Some(true), ..ProbeState::default() };
    memory.probes.insert("a-id".into(), ready);
    check(
        spec,
        vec![observed("a", Life::Running, 0)],
        &memory,
        expect![[r#"
            Running ip=10.0.0.2 qos=BestEffort
            PodReadyToStartContainers=True
            Initialized=True
            Ready=True
            ContainersReady=True
            PodScheduled=True
            a ready=true started=Some(true) state={"running":{"startedAt":"1970-01-01T00:00:02Z"}} last=null"#]],
    );
}

#[test]
fn crash_loop_shows_the_last_run() {
    let mut memory = Memory::default();
    memory.wait("a", "CrashLoopBackOff", "back-off 10s".into());
    check(
        json!({"containers": [{"name": "a"}]}),
        vec![observed("a", Life::Exited, 1)],
        &memory,
        expect![[r#"
            Running ip=10.0.0.2 qos=BestEffort
            PodReadyToStartContainers=True
            Initialized=True
            Ready=False ContainersNotReady: containers with unready status: [a]
            ContainersReady=False ContainersNotReady: containers with unready status: [a]
            PodScheduled=True
            a ready=false started=Some(false) state={"waiting":{"message":"back-off 10s","reason":"CrashLoopBackOff"}} last={"terminated":{"containerID":"containerd://a-id","exitCode":1,"finishedAt":"1970-01-01T00:00:03Z","reason":"Error","startedAt":"1970-01-01T00:00:02Z"}}"#]],
    );
}

#[test]
fn init_containers_hold_the_pod_back() {
    check(
        json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
        vec![observed("i", Life::Running, 0)],
        &Memory::default(),
        expect![[r#"
            Pending ip=10.0.0.2 qos=BestEffort
            PodReadyToStartContainers=True
            Initialized=False ContainersNotInitialized: containers with incomplete status: [i]
            Ready=False ContainersNotReady: containers with unready status: [a]
            ContainersReady=False ContainersNotReady: containers with unready status: [a]
            PodScheduled=True
            i ready=false started=Some(true) state={"running":{"startedAt":"1970-01-01T00:00:02Z"}} last=null
            a ready=false started=Some(false) state={"waiting":{"reason":"PodInitializing"}} last=null"#]],
    );
}

#[test]
fn a_finished_job_pod() {
    check(
        json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}),
        vec![observed("a", Life::Exited, 0)],
        &Memory::default(),
        expect![[r#"
            Succeeded ip=10.0.0.2 qos=BestEffort
            PodReadyToStartContainers=True
            Initialized=True PodCompleted
            Ready=False PodCompleted
            ContainersReady=False PodCompleted
            PodScheduled=True
            a ready=false started=Some(false) state={"terminated":{"containerID":"containerd://a-id","exitCode":0,"finishedAt":"1970-01-01T00:00:03Z","reason":"Completed","startedAt":"1970-01-01T00:00:02Z"}} last=null"#]],
    );
}
