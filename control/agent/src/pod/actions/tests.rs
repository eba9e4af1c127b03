//! Tables: a pod and what the runtime holds of it on one side, the plan as text on the other.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::pod::memory::ProbeState;
use crate::pod::observed::Sandbox;

fn pod(policy: &str, init: Value, containers: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": containers},
    }))
    .unwrap()
}

/// One container from `name:life[exit code]`, for example `a:exited1`; newest first.
fn runtime(sandbox: &str, containers: &[&str]) -> PodRuntime {
    let sandboxes = match sandbox {
        "" => Vec::new(),
        state => vec![Sandbox {
            id: "s".into(),
            ready: state == "ready",
            ips: vec!["10.0.0.2".into()],
            ..Sandbox::default()
        }],
    };
    let containers = containers.iter().enumerate().map(|(index, text)| {
        let (name, life) = text.split_once(':').unwrap();
        let exit_code = life.strip_prefix("exited").map_or(0, |code| code.parse().unwrap());
        let spec = Container { name: name.into(), ..Container::default() };
        Observed {
            id: format!("{name}{index}"),
            name: name.into(),
            sandbox_id: "s".into(),
            life: match life {
                "created" => Life::Created,
                "running" => Life::Running,
                "unknown" => Life::Unknown,
                _ => Life::Exited,
            },
            restart_count: 0,
            created_at_ns: 1,
            started_at_ns: 1,
            finished_at_ns: 1_000_000_000,
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_id: String::new(),
            hash: container_hash(&spec),
            grace_s: None,
        }
    });
    PodRuntime { sandboxes, containers: containers.collect() }
}

fn check(pod: &Pod, runtime: &PodRuntime, memory: &Memory, expected: Expect) {
    let plan = plan(pod, runtime, memory, Timestamp::from_second(1).unwrap());
    let mut lines: Vec<String> = plan.actions.iter().map(|action| format!("{action:?}")).collect();
    lines.extend(plan.held_back.iter().map(|held| format!("{held:?}")));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_new_pod_gets_a_sandbox_then_its_containers() {
    let two = pod("Always", json!([]), json!([{"name": "a"}, {"name": "b"}]));
    let memory = Memory::default();
    check(&two, &runtime("", &[]), &memory, expect!["CreateSandbox { attempt: 0 }"]);
    check(
        &two,
        &runtime("ready", &[]),
        &memory,
        expect![[r#"
            Start { name: "a", init: false, restart_count: 0 }
            Start { name: "b", init: false, restart_count: 0 }"#]],
    );
    check(&two, &runtime("ready", &["a:running", "b:running"]), &memory, expect![""]);
}

#[test]
fn restart_policies() {
    let memory = Memory::default();
    for (policy, life, expected) in [
        ("Always", "a:exited0", r#"Start { name: "a", init: false, restart_count: 1 }"#),
        ("OnFailure", "a:exited0", "StopSandboxes"),
        ("OnFailure", "a:exited1", r#"Start { name: "a", init: false, restart_count: 1 }"#),
        ("Never", "a:exited1", "StopSandboxes"),
        ("Never", "a:running", ""),
    ] {
        let one = pod(policy, json!([]), json!([{"name": "a"}]));
        let plan = plan(&one, &runtime("ready", &[life]), &memory, Timestamp::UNIX_EPOCH);
        let text: Vec<String> = plan.actions.iter().map(|action| format!("{action:?}")).collect();
        assert_eq!(text.join("\n"), expected, "{policy} {life}");
    }
}

#[test]
fn a_lost_sandbox_is_made_anew_unless_all_is_done() {
    let memory = Memory::default();
    let always = pod("Always", json!([]), json!([{"name": "a"}]));
    check(
        &always,
        &runtime("notready", &["a:running"]),
        &memory,
        expect![[r#"
            StopSandboxes
            CreateSandbox { attempt: 1 }"#]],
    );
    let never = pod("Never", json!([]), json!([{"name": "a"}]));
    check(&never, &runtime("notready", &["a:exited0"]), &memory, expect![""]);
}

#[test]
fn init_containers_run_one_after_another() {
    let memory = Memory::default();
    let two = pod("Always", json!([{"name": "i"}, {"name": "j"}]), json!([{"name": "a"}]));
    for (held, expected) in [
        (vec![], r#"Start { name: "i", init: true, restart_count: 0 }"#),
        (vec!["i:running"], ""),
        (vec!["i:exited0"], r#"Start { name: "j", init: true, restart_count: 0 }"#),
        (vec!["i:exited1"], r#"Start { name: "i", init: true, restart_count: 1 }"#),
        (vec!["j:exited0", "i:exited0"], r#"Start { name: "a", init: false, restart_count: 0 }"#),
        (vec!["a:running", "j:exited0", "i:exited0"], ""),
    ] {
        let plan = plan(&two, &runtime("ready", &held), &memory, Timestamp::UNIX_EPOCH);
        let text: Vec<String> = plan.actions.iter().map(|action| format!("{action:?}")).collect();
        assert_eq!(text.join("\n"), expected, "{held:?}");
    }
    let never = pod("Never", json!([{"name": "i"}]), json!([{"name": "a"}]));
    check(&never, &runtime("ready", &["i:exited1"]), &memory, expect!["StopSandboxes"]);
}

#[test]
fn sidecars_stay_beside_the_main_containers() {
    let memory = Memory::default();
    let sidecar = json!([{"name": "s", "restartPolicy": "Always"}]);
    let job = pod("Never", sidecar, json!([{"name": "a"}]));
    for (held, expected) in [
        (vec![], r#"Start { name: "s", init: true, restart_count: 0 }"#),
        (vec!["s:running"], r#"Start { name: "a", init: false, restart_count: 0 }"#),
        (vec!["a:running", "s:exited1"], r#"Start { name: "s", init: true, restart_count: 1 }"#),
        (vec!["a:exited0", "s:running"], "StopSandboxes"),
    ] {
        let plan = plan(&job, &runtime("ready", &held), &memory, Timestamp::UNIX_EPOCH);
        let text: Vec<String> = plan.actions.iter().map(|action| format!("{action:?}")).collect();
        assert_eq!(text.join("\n"), expected, "{held:?}");
    }
}

#[test]
fn back_off_holds_a_restart_back() {
    let one = pod("Always", json!([]), json!([{"name": "a"}]));
    let mut memory = Memory::default();
    let second = Timestamp::from_second(1).unwrap();
    memory.backoff.attempt("a", second, second);
    check(
        &one,
        &runtime("ready", &["a:exited1"]),
        &memory,
        expect![[r#"HeldBack { name: "a", init: false, delay: 10s, left: 10s }"#]],
    );
}

#[test]
fn probes_hooks_and_changes_end_a_container() {
    let one = pod("Always", json!([]), json!([{"name": "a"}]));
    let held = runtime("ready", &["a:running"]);
    let mut memory = Memory::default();
    let unlive = ProbeState { liveness: Some(false), ..ProbeState::default() };
    memory.probes.insert("a0".into(), unlive);
    check(&one, &held, &memory, expect![[r#"Kill { id: "a0", name: "a", why: LivenessProbe }"#]]);
    memory.post_start.insert("a0".into(), PostStart::Failed);
    check(&one, &held, &memory, expect![[r#"Kill { id: "a0", name: "a", why: PostStartHook }"#]]);
    let other = pod("Always", json!([]), json!([{"name": "a", "image": "new"}]));
    let kill = expect![[r#"Kill { id: "a0", name: "a", why: Changed }"#]];
    check(&other, &held, &Memory::default(), kill);
    let created = runtime("ready", &["a:created"]);
    check(&one, &created, &Memory::default(), expect![[r#"Remove { id: "a0" }"#]]);
}

#[test]
fn only_two_of_a_name_are_kept() {
    let one = pod("Always", json!([]), json!([{"name": "a"}]));
    let held = runtime("ready", &["a:running", "a:exited1", "a:exited1", "a:exited1"]);
    check(
        &one,
        &held,
        &Memory::default(),
        expect![[r#"
            Remove { id: "a2" }
            Remove { id: "a3" }"#]],
    );
}
