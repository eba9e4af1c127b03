//! Golden plans: a Job and its pods in, what is done and the new status out.

use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::{Op, Plan, plan};
use super::template::TRACKING;

const NOW_S: i64 = 1000;

fn at(second: i64) -> Value {
    json!(Timestamp::from_second(second).unwrap().to_string())
}

fn job(spec: Value, status: Value) -> Job {
    let mut full = json!({
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}},
        "completions": 1, "parallelism": 1, "backoffLimit": 6,
    });
    for (key, value) in spec.as_object().unwrap() {
        full[key] = value.clone();
    }
    let metadata = json!({"name": "j", "namespace": "ns", "uid": "u"});
    serde_json::from_value(json!({"metadata": metadata, "spec": full, "status": status})).unwrap()
}

/// `name phase [words]`, where a word is `untracked`, `deleted`, `ready`, an exit code `=N`, a time
/// of its end `@N`, restarts `*N`, failures before it `!N`, or an index `#N`.
fn pod(line: &str) -> Arc<Pod> {
    let mut words = line.split_whitespace();
    let (name, phase) = (words.next().unwrap(), words.next().unwrap());
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"),
            "finalizers": [TRACKING], "annotations": {}},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": phase, "conditions": [], "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0},
        ]},
    });
    let (mut code, mut end_s) = (None, NOW_S);
    for word in words {
        let number = || word[1..].parse::<i64>().unwrap();
        let annotations = "/metadata/annotations";
        match &word[..1] {
            "u" => pod["metadata"]["finalizers"] = json!([]),
            "d" => pod["metadata"]["deletionTimestamp"] = at(NOW_S),
            "r" => pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            "=" => code = Some(number()),
            "@" => end_s = number(),
            "*" => pod["status"]["containerStatuses"][0]["restartCount"] = json!(number()),
            "!" => {
                pod.pointer_mut(annotations).unwrap()["batch.kubernetes.io/job-index-failure-count"] =
                    json!(number().to_string());
            }
            "#" => {
                pod.pointer_mut(annotations).unwrap()["batch.kubernetes.io/job-completion-index"] =
                    json!(number().to_string());
            }
            other => panic!("{other}"),
        }
    }
    if matches!(phase, "Succeeded" | "Failed") {
        let code = code.unwrap_or(i64::from(phase == "Failed"));
        let terminated = json!({"exitCode": code, "finishedAt": at(end_s)});
        pod["status"]["containerStatuses"][0]["state"] = json!({"terminated": terminated});
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn render(plan: &Plan) -> String {
    let mut text = String::new();
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
    for op in &plan.ops {
        match op {
            Op::Create(pod) => {
                let prefix = pod.metadata.generate_name.as_deref().unwrap_or_default();
                let failures = pod.annotations().get("batch.kubernetes.io/job-index-failure-count");
                let failures = failures.map(|count| format!(" failures={count}"));
                writeln!(text, "create {prefix}{}", failures.unwrap_or_default()).unwrap();
            }
            Op::Delete(pod) => writeln!(text, "delete {}", pod.name_any()).unwrap(),
            Op::Discard(pod) => writeln!(text, "discard {}", pod.name_any()).unwrap(),
            Op::RemoveJob => writeln!(text, "remove the Job").unwrap(),
        }
    }
    let mut status = serde_json::to_value(&plan.status).unwrap();
    let conditions = status.as_object_mut().unwrap().remove("conditions").unwrap_or_default();
    for time in ["startTime", "completionTime"] {
        if let Some(at) = status.get(time).and_then(Value::as_str) {
            status[time] = json!(at.parse::<Timestamp>().unwrap().as_second());
        }
    }
    writeln!(text, "status {status}").unwrap();
    for condition in conditions.as_array().into_iter().flatten() {
        let [kind, holds, reason, message] = ["type", "status", "reason", "message"]
            .map(|key| condition[key].as_str().unwrap_or_default().to_owned());
        writeln!(text, "{kind}={holds} {reason}: {message}").unwrap();
    }
    if !plan.counted.is_empty() {
        writeln!(text, "counted {}", names(&plan.counted).join(" ")).unwrap();
    }
    for event in &plan.events {
        let kind = if event.warning { "Warning" } else { "Normal" };
        writeln!(text, "event {kind} {}: {}", event.reason, event.message).unwrap();
    }
    if let Some(wait) = plan.requeue {
        writeln!(text, "again in {} s", wait.as_secs()).unwrap();
    }
    text
}

#[track_caller]
fn check(spec: Value, status: Value, pods: &[&str], expected: Expect) {
    let pods: Vec<_> = pods.iter().map(|line| pod(line)).collect();
    let now = Timestamp::from_second(NOW_S).unwrap();
    expected.assert_eq(&render(&plan(&job(spec, status), &pods, now)));
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": "why",
        "lastTransitionTime": at(NOW_S - 10)})
}

#[test]
fn starts_pods() {
    check(
        json!({}),
        json!({}),
        &[],
        expect![[r#"
        create j-
        status {"active":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
    "#]],
    );
    let three = json!({"completions": 5, "parallelism": 3});
    check(
        three.clone(),
        json!({"startTime": at(900)}),
        &["a Running ready"],
        expect![[r#"
        create j-
        create j-
        status {"active":3,"ready":1,"startTime":900,"terminating":0,"uncountedTerminatedPods":{}}
    "#]],
    );
    check(
        three,
        json!({"succeeded": 4}),
        &["a Running", "b Pending"],
        expect![[r#"
        discard b
        status {"active":1,"ready":0,"startTime":1000,"succeeded":4,"terminating":1,"uncountedTerminatedPods":{}}
    "#]],
    );
}

#[test]
fn counts_a_success_in_two_steps() {
    check(
        json!({}),
        json!({"active": 1}),
        &["a Succeeded"],
        expect![[r#"
        status {"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{"succeeded":["uid-a"]}}
        SuccessCriteriaMet=True CompletionsReached: Reached expected number of succeeded pods
        counted a
    "#]],
    );
    let status = json!({
        "uncountedTerminatedPods": {"succeeded": ["uid-a"]},
        "conditions": [condition("SuccessCriteriaMet", "CompletionsReached")],
    });
    check(
        json!({}),
        status.clone(),
        &["a Succeeded untracked"],
        expect![[r#"
        status {"completionTime":1000,"ready":0,"startTime":1000,"succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
        SuccessCriteriaMet=True CompletionsReached: why
        Complete=True CompletionsReached: why
        event Normal Completed: Job completed
    "#]],
    );
    check(
        json!({}),
        status.clone(),
        &[],
        expect![[r#"
        status {"completionTime":1000,"ready":0,"startTime":1000,"succeeded":1,"terminating":0,"uncountedTerminatedPods":{}}
        SuccessCriteriaMet=True CompletionsReached: why
        Complete=True CompletionsReached: why
        event Normal Completed: Job completed
    "#]],
    );
    // The finalizer is still there: the first step was not finished.
    check(
        json!({}),
        status,
        &["a Succeeded"],
        expect![[r#"
        status {"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{"succeeded":["uid-a"]}}
        SuccessCriteriaMet=True CompletionsReached: why
        counted a
    "#]],
    );
}

#[test]
fn work_queue_waits_for_its_pods() {
    let queue = json!({"completions": null, "parallelism": 2});
    check(
        queue.clone(),
        json!({}),
        &[],
        expect![[r#"
        create j-
        create j-
        status {"active":2,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
    "#]],
    );
    check(
        queue.clone(),
        json!({}),
        &["a Succeeded", "b Running"],
        expect![[r#"
        status {"active":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{"succeeded":["uid-a"]}}
        counted a
    "#]],
    );
    check(
        queue,
        json!({"succeeded": 1}),
        &["b Succeeded"],
        expect![[r#"
        status {"ready":0,"startTime":1000,"succeeded":1,"terminating":0,"uncountedTerminatedPods":{"succeeded":["uid-b"]}}
        SuccessCriteriaMet=True CompletionsReached: Reached expected number of succeeded pods
        counted b
    "#]],
    );
}

#[test]
fn failures_back_off_up_to_the_limit() {
    check(
        json!({}),
        json!({}),
        &["a Failed @998"],
        expect![[r#"
        status {"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        counted a
        again in 8 s
    "#]],
    );
    check(
        json!({}),
        json!({"failed": 1}),
        &["a Failed untracked @980"],
        expect![[r#"
        create j-
        status {"active":1,"failed":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
    "#]],
    );
    let one = json!({"backoffLimit": 1, "parallelism": 2, "completions": 2});
    let status = json!({"failed": 1});
    check(
        one.clone(),
        status,
        &["b Failed", "c Running ready"],
        expect![[r#"
        delete c
        status {"failed":1,"ready":0,"startTime":1000,"terminating":1,"uncountedTerminatedPods":{"failed":["uid-b","uid-c"]}}
        FailureTarget=True BackoffLimitExceeded: Job has reached the specified backoff limit
        counted b c
    "#]],
    );
    let status = json!({
        "failed": 1, "uncountedTerminatedPods": {"failed": ["uid-b", "uid-c"]},
        "conditions": [condition("FailureTarget", "BackoffLimitExceeded")],
    });
    let going = ["b Failed untracked", "c Running untracked deleted"];
    check(
        one.clone(),
        status.clone(),
        &going,
        expect![[r#"
        status {"failed":3,"ready":0,"startTime":1000,"terminating":1,"uncountedTerminatedPods":{}}
        FailureTarget=True BackoffLimitExceeded: why
    "#]],
    );
    check(
        one,
        status,
        &["b Failed untracked"],
        expect![[r#"
        status {"failed":3,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
        FailureTarget=True BackoffLimitExceeded: why
        Failed=True BackoffLimitExceeded: why
        event Warning BackoffLimitExceeded: why
    "#]],
    );
    let mut restarting = json!({"backoffLimit": 3});
    restarting["template"] = json!({"spec": {"restartPolicy": "OnFailure", "containers": []}});
    check(
        restarting.clone(),
        json!({}),
        &["a Running *2"],
        expect![[r#"
        status {"active":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
    "#]],
    );
    check(
        restarting,
        json!({}),
        &["a Running *3"],
        expect![[r#"
        delete a
        status {"ready":0,"startTime":1000,"terminating":1,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        FailureTarget=True BackoffLimitExceeded: Job has reached the specified backoff limit
        counted a
    "#]],
    );
}

#[test]
fn deleted_pods_are_replaced() {
    check(
        json!({}),
        json!({}),
        &["a Running deleted"],
        expect![[r#"
        status {"ready":0,"startTime":1000,"terminating":1,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        counted a
        again in 10 s
    "#]],
    );
    let patient = json!({"podReplacementPolicy": "Failed"});
    check(
        patient,
        json!({}),
        &["a Running deleted"],
        expect![[r#"
        status {"ready":0,"startTime":1000,"terminating":1,"uncountedTerminatedPods":{}}
    "#]],
    );
}

#[test]
fn deadline_suspension_time_to_live() {
    let status = json!({"startTime": at(900)});
    let running = ["a Running ready"];
    check(
        json!({"activeDeadlineSeconds": 130}),
        status.clone(),
        &running,
        expect![[r#"
        status {"active":1,"ready":1,"startTime":900,"terminating":0,"uncountedTerminatedPods":{}}
        again in 30 s
    "#]],
    );
    check(
        json!({"activeDeadlineSeconds": 100}),
        status.clone(),
        &running,
        expect![[r#"
        delete a
        status {"ready":0,"startTime":900,"terminating":1,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        FailureTarget=True DeadlineExceeded: Job was active longer than specified deadline
        counted a
    "#]],
    );
    check(
        json!({"suspend": true}),
        status,
        &running,
        expect![[r#"
        discard a
        status {"ready":0,"startTime":900,"terminating":1,"uncountedTerminatedPods":{}}
        Suspended=True JobSuspended: Job suspended
        event Normal Suspended: Job suspended
    "#]],
    );
    let suspended = json!({"conditions": [condition("Suspended", "JobSuspended")]});
    check(
        json!({"suspend": false}),
        suspended,
        &[],
        expect![[r#"
        create j-
        status {"active":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
        Suspended=False JobResumed: Job resumed
        event Normal Resumed: Job resumed
    "#]],
    );
    let done = json!({"conditions": [condition("Complete", "CompletionsReached")]});
    check(
        json!({"ttlSecondsAfterFinished": 15}),
        done.clone(),
        &[],
        expect![[r#"
        status {}
        Complete=True CompletionsReached: why
        again in 5 s
    "#]],
    );
    check(
        json!({"ttlSecondsAfterFinished": 10}),
        done,
        &["a Failed"],
        expect![[r#"
        remove the Job
        status {}
        Complete=True CompletionsReached: why
        counted a
    "#]],
    );
}

#[test]
fn indexes() {
    let spec = json!({"completionMode": "Indexed", "completions": 6, "parallelism": 3});
    let pods = ["a Succeeded #1", "b Running #3", "c Running ready #3", "d Running #9"];
    let status = json!({"completedIndexes": "0,2"});
    check(
        spec.clone(),
        status.clone(),
        &pods,
        expect![[r#"
        discard b
        discard d
        status {"active":1,"completedIndexes":"0-2","ready":1,"startTime":1000,"succeeded":3,"terminating":2,"uncountedTerminatedPods":{}}
        counted a
    "#]],
    );
    check(
        spec.clone(),
        status,
        &["a Succeeded #1", "c Running #3"],
        expect![[r#"
        create j-4-
        create j-5-
        status {"active":3,"completedIndexes":"0-2","ready":0,"startTime":1000,"succeeded":3,"terminating":0,"uncountedTerminatedPods":{}}
        counted a
    "#]],
    );
    let mut rule = spec;
    rule["successPolicy"] = json!({"rules": [{"succeededIndexes": "0-2", "succeededCount": 2}]});
    let status = json!({"completedIndexes": "0"});
    check(
        rule,
        status,
        &["a Succeeded #1", "c Running #3"],
        expect![[r#"
        delete c
        status {"completedIndexes":"0,1","ready":0,"startTime":1000,"succeeded":2,"terminating":1,"uncountedTerminatedPods":{}}
        SuccessCriteriaMet=True SuccessPolicy: Matched rules at index 0
        counted a c
    "#]],
    );
}

#[test]
fn indexes_that_fail_one_by_one() {
    let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "backoffLimit": null, "backoffLimitPerIndex": 1});
    check(
        spec.clone(),
        json!({}),
        &["a Failed #0 !0 @985", "b Running #1 !0"],
        expect![[r#"
        create j-0- failures=1
        status {"active":2,"failedIndexes":"","ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
    "#]],
    );
    let replaced = ["a Failed #0 !0 @985", "c Running #0 !1", "b Succeeded #1"];
    check(
        spec.clone(),
        json!({}),
        &replaced,
        expect![[r#"
        status {"active":1,"completedIndexes":"1","failedIndexes":"","ready":0,"startTime":1000,"succeeded":1,"terminating":0,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        counted a b
    "#]],
    );
    check(
        spec,
        json!({"completedIndexes": "1"}),
        &["c Failed #0 !1"],
        expect![[r#"
        status {"completedIndexes":"1","failedIndexes":"0","ready":0,"startTime":1000,"succeeded":1,"terminating":0,"uncountedTerminatedPods":{"failed":["uid-c"]}}
        FailureTarget=True FailedIndexes: Job has failed indexes
        counted c
    "#]],
    );
}

#[test]
fn failure_policies() {
    let policy = |rules: Value| json!({"podFailurePolicy": {"rules": rules}});
    let code = |action: &str| json!([{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]);
    let failed = ["a Failed =42 @900"];
    check(
        policy(code("FailJob")),
        json!({}),
        &failed,
        expect![[r#"
        status {"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        FailureTarget=True PodFailurePolicy: Container c for pod ns/a failed with exit code 42 matching FailJob rule at index 0
        counted a
    "#]],
    );
    check(
        policy(code("Ignore")),
        json!({}),
        &failed,
        expect![[r#"
        create j-
        status {"active":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{}}
        counted a
    "#]],
    );
    check(
        policy(code("Count")),
        json!({}),
        &failed,
        expect![[r#"
        create j-
        status {"active":1,"ready":0,"startTime":1000,"terminating":0,"uncountedTerminatedPods":{"failed":["uid-a"]}}
        counted a
    "#]],
    );
}
