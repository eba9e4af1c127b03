//! Whole rollouts as golden text: the plan is executed on sets whose pods come and go at once, step
//! by step, until nothing is left to do.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn deployment(replicas: i32, image: &str, more: &Value) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
    });
    for (key, field) in more.as_object().into_iter().flatten() {
        value["spec"][key] = field.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn set(name: &str, revision: i32, replicas: i32, available: i32, noted: (i32, i32)) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-0{revision}T00:00:00Z"),
            "annotations": {
                "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": noted.0.to_string(),
                "deployment.kubernetes.io/max-replicas": noted.1.to_string()}},
        "spec": {"replicas": replicas, "selector": {},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": name}]}}},
        "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available},
    }))
    .unwrap()
}

fn condition(status: &DeploymentStatus, kind: &str) -> String {
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    found.map_or("none".to_owned(), |c| c.reason.clone().unwrap_or_default())
}

/// Runs plans until one has nothing to do; pods follow at once, new ones available if `serve`.
fn run(deployment: &mut Deployment, sets: &mut Vec<ReplicaSet>, serve: bool) -> String {
    let mut text = String::new();
    for step in 1..30 {
        let plan = plan(deployment, sets, Timestamp::UNIX_EPOCH);
        for op in &plan.ops {
            match op {
                Op::Create(new) => {
                    let mut new = new.clone();
                    new.metadata.creation_timestamp =
                        serde_json::from_value(json!("2026-02-01T00:00:00Z")).unwrap();
                    sets.push(*new);
                }
                Op::Update { new, .. } => {
                    let name = &new.metadata.name;
                    *sets.iter_mut().find(|set| set.metadata.name == *name).unwrap() =
                        (**new).clone();
                }
                Op::Delete(old) => {
                    sets.retain(|set| set.metadata.name != old.metadata.name);
                    writeln!(text, "{step}: delete {}", old.metadata.name.as_ref().unwrap())
                        .unwrap();
                }
                Op::Annotate(new) => deployment.metadata = new.metadata.clone(),
                Op::Event(event) => writeln!(text, "{step}: {event}").unwrap(),
            }
        }
        let same = deployment.status.as_ref() == Some(&plan.status);
        deployment.status = Some(plan.status);
        if plan.ops.is_empty() && same {
            break;
        }
        for set in sets.iter_mut() {
            let size = replicas(set);
            let status = set.status.get_or_insert_default();
            let serving =
                if serve { size } else { size.min(status.available_replicas.unwrap_or(0)) };
            status.replicas = size;
            status.ready_replicas = Some(serving);
            status.available_replicas = Some(serving);
        }
    }
    let status = deployment.status.clone().unwrap();
    let number = |count: Option<i32>| count.unwrap_or(0);
    writeln!(
        text,
        "{} replicas, {} updated, {} available, {} unavailable; {}, {}; revision {}",
        number(status.replicas),
        number(status.updated_replicas),
        number(status.available_replicas),
        number(status.unavailable_replicas),
        condition(&status, "Available"),
        condition(&status, "Progressing"),
        revision::of(&deployment.metadata),
    )
    .unwrap();
    text
}

fn check(mut deployment: Deployment, mut sets: Vec<ReplicaSet>, serve: bool, expected: Expect) {
    expected.assert_eq(&run(&mut deployment, &mut sets, serve));
}

#[test]
fn first_set_has_all_replicas() {
    check(
        deployment(10, "v1", &json!({})),
        vec![],
        true,
        expect![[r#"
        1: Scaled up replica set web-hvbztdqnz9 from 0 to 10
        10 replicas, 10 updated, 10 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 1
    "#]],
    );
}

#[test]
fn rolling_update_with_defaults() {
    let old = set("v1", 1, 10, 10, (10, 13));
    check(
        deployment(10, "v2", &json!({})),
        vec![old],
        true,
        expect![[r#"
        1: Scaled up replica set web-sj6r4llhr9 from 0 to 3
        1: Scaled down replica set v1 from 10 to 8
        2: Scaled up replica set web-sj6r4llhr9 from 3 to 5
        3: Scaled down replica set v1 from 8 to 3
        4: Scaled up replica set web-sj6r4llhr9 from 5 to 10
        5: Scaled down replica set v1 from 3 to 0
        10 replicas, 10 updated, 10 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 2
    "#]],
    );
}

#[test]
fn rolling_update_without_surge() {
    let more = json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}});
    let old = set("v1", 1, 3, 3, (3, 3));
    check(
        deployment(3, "v2", &more),
        vec![old],
        true,
        expect![[r#"
        1: Scaled down replica set v1 from 3 to 2
        2: Scaled up replica set web-sj6r4llhr9 from 0 to 1
        3: Scaled down replica set v1 from 2 to 1
        4: Scaled up replica set web-sj6r4llhr9 from 1 to 2
        5: Scaled down replica set v1 from 1 to 0
        6: Scaled up replica set web-sj6r4llhr9 from 2 to 3
        3 replicas, 3 updated, 3 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 2
    "#]],
    );
}

#[test]
fn broken_update_stops_at_the_limits() {
    let old = set("v1", 1, 10, 10, (10, 13));
    check(
        deployment(10, "v2", &json!({})),
        vec![old],
        false,
        expect![[r#"
        1: Scaled up replica set web-sj6r4llhr9 from 0 to 3
        1: Scaled down replica set v1 from 10 to 8
        2: Scaled up replica set web-sj6r4llhr9 from 3 to 5
        13 replicas, 5 updated, 8 available, 5 unavailable; MinimumReplicasAvailable, ReplicaSetUpdated; revision 2
    "#]],
    );
}

#[test]
fn pods_that_do_not_serve_go_first() {
    let sets = vec![set("v1", 1, 5, 5, (10, 13)), set("v2", 2, 8, 3, (10, 13))];
    check(
        deployment(10, "v3", &json!({})),
        sets,
        true,
        expect![[r#"
        1: Scaled down replica set v2 from 8 to 3
        2: Scaled up replica set web-qrbr45xgdj from 0 to 5
        3: Scaled down replica set v1 from 5 to 0
        4: Scaled up replica set web-qrbr45xgdj from 5 to 10
        5: Scaled down replica set v2 from 3 to 0
        10 replicas, 10 updated, 10 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 3
    "#]],
    );
}

#[test]
fn recreate() {
    let more = json!({"strategy": {"type": "Recreate"}});
    let old = set("v1", 1, 3, 3, (3, 3));
    check(
        deployment(3, "v2", &more),
        vec![old],
        true,
        expect![[r#"
        1: Scaled down replica set v1 from 3 to 0
        2: Scaled up replica set web-sj6r4llhr9 from 0 to 3
        3 replicas, 3 updated, 3 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 2
    "#]],
    );
}

#[test]
fn scaling_in_the_middle_of_an_update_is_proportional() {
    let sets = || vec![set("v1", 1, 8, 8, (10, 13)), set("v2", 2, 5, 5, (10, 13))];
    check(
        deployment(20, "v2", &json!({"paused": true})),
        sets(),
        true,
        expect![[r#"
        1: Scaled up replica set v2 from 5 to 10
        1: Scaled up replica set v1 from 8 to 15
        25 replicas, 10 updated, 25 available, 0 unavailable; MinimumReplicasAvailable, DeploymentPaused; revision 2
    "#]],
    );
    check(
        deployment(5, "v2", &json!({"paused": true})),
        sets(),
        true,
        expect![[r#"
        1: Scaled down replica set v2 from 5 to 3
        1: Scaled down replica set v1 from 8 to 4
        7 replicas, 3 updated, 7 available, 0 unavailable; MinimumReplicasAvailable, DeploymentPaused; revision 2
    "#]],
    );
    check(
        deployment(0, "v2", &json!({"paused": true})),
        sets(),
        true,
        expect![[r#"
        1: Scaled down replica set v2 from 5 to 0
        1: Scaled down replica set v1 from 8 to 0
        0 replicas, 0 updated, 0 available, 0 unavailable; MinimumReplicasAvailable, DeploymentPaused; revision 2
    "#]],
    );
}

#[test]
fn paused_makes_no_new_set_but_scales() {
    let old = set("v1", 1, 3, 3, (3, 4));
    check(
        deployment(5, "v2", &json!({"paused": true})),
        vec![old],
        true,
        expect![[r#"
        1: Scaled up replica set v1 from 3 to 5
        5 replicas, 0 updated, 5 available, 0 unavailable; MinimumReplicasAvailable, DeploymentPaused; revision 0
    "#]],
    );
}

#[test]
fn going_back_takes_the_old_set_with_a_new_number() {
    let mut sets = vec![set("v1", 1, 0, 0, (2, 3)), set("v2", 2, 2, 2, (2, 3))];
    let mut deployment = deployment(2, "v1", &json!({}));
    expect![[r#"
        1: Scaled up replica set v1 from 0 to 1
        2: Scaled down replica set v2 from 2 to 1
        3: Scaled up replica set v1 from 1 to 2
        4: Scaled down replica set v2 from 1 to 0
        2 replicas, 2 updated, 2 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 3
    "#]].assert_eq(&run(&mut deployment, &mut sets, true));
    let annotations = sets[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn history_is_cut_when_the_rollout_is_complete() {
    let idle = |revision| set(&format!("v{revision}"), revision, 0, 0, (2, 3));
    let sets = vec![idle(1), idle(2), idle(3), set("v4", 4, 2, 2, (2, 3))];
    check(
        deployment(2, "v5", &json!({"revisionHistoryLimit": 2})),
        sets,
        true,
        expect![[r#"
        1: Scaled up replica set web-nsjmhgp74t from 0 to 1
        2: Scaled down replica set v4 from 2 to 1
        3: Scaled up replica set web-nsjmhgp74t from 1 to 2
        4: Scaled down replica set v4 from 1 to 0
        6: delete v1
        6: delete v2
        2 replicas, 2 updated, 2 available, 0 unavailable; MinimumReplicasAvailable, NewReplicaSetAvailable; revision 5
    "#]],
    );
}

#[test]
fn deadline_of_progress() {
    let mut deployment = deployment(1, "v1", &json!({}));
    let mut sets = Vec::new();
    run(&mut deployment, &mut sets, false);
    for (at_s, reason) in [(599, "ReplicaSetUpdated"), (601, "ProgressDeadlineExceeded")] {
        let now = Timestamp::from_second(at_s).unwrap();
        let plan = plan(&deployment, &sets, now);
        assert_eq!(condition(&plan.status, "Progressing"), reason);
        assert_eq!(plan.again.map(|again| again.as_secs()), (at_s == 599).then_some(2));
    }
}
