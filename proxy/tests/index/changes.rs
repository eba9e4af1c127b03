//! Changes one by one: they lead where all at once do, and touch what they are about.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Service;
use podium_proxy::{
    index::{Change, Index, object::SliceObject, slice::Slice},
    plan::{
        self,
        held::{Held, Limits},
    },
};
use proptest::prelude::*;
use serde_json::Value;

use crate::{apply, index, node_a, object, slice};

#[test]
fn one_change_touches_one_service() {
    let services: String = (1..=50)
        .map(|number| {
            format!(
                "metadata: {{name: s{number}}}
spec: {{type: NodePort, clusterIP: 10.96.1.{number}, ports: [{{port: 80, nodePort: {}}}]}}
---
",
                30000 + number
            )
        })
        .collect();
    let mut index = index(&services);
    assert_eq!(index.update().ports.len(), 50);
    let before = index.desired().clone();
    assert_eq!(index.update(), podium_proxy::index::settle::Changed::default());
    let slice =
        slice("a", "[{addresses: [10.0.0.1]}]").replace("service-name: web", "service-name: s7");
    apply(&mut index, &slice);
    let changed = index.update();
    let names: Vec<String> = changed.ports.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["default/s7"]);
    for (name, port) in &index.desired().ports {
        let is_same = Arc::ptr_eq(port, &before.ports[name]);
        assert_eq!(is_same, !changed.ports.contains(name), "{name}");
    }
    // The same again is no change, and keeps what is held.
    apply(&mut index, &slice);
    assert!(index.update().ports.is_empty());
}

/// A Service that wants some of few addresses, or its end; or a slice of one.
fn drawn_change() -> impl Strategy<Value = Change> {
    let service = (0..5_u8, any::<bool>(), 0..4_u8, 0..5_u8, 0..3_u8, 0..3_u8).prop_map(
        |(name, exists, cluster_ip, external_ip, created, extra)| {
            let name = format!("s{name}");
            let value = serde_json::json!({
                "metadata": {
                    "name": name, "namespace": "default",
                    "creationTimestamp": format!("2026-01-0{}T00:00:00Z", created + 1),
                },
                "spec": {
                    "type": "LoadBalancer", "clusterIP": format!("10.96.0.{cluster_ip}"),
                    "externalIPs": [format!("10.96.0.{external_ip}")],
                    "externalTrafficPolicy": "Local",
                    "healthCheckNodePort": 32_000 + u32::from(extra),
                    "ports": [{"port": 80, "nodePort": 30_000 + u32::from(extra)}],
                },
            });
            let service = exists.then(|| serde_json::from_value(value).unwrap());
            Change::Service(object(&name), service)
        },
    );
    let slice = (0..3_u8, any::<bool>(), 0..5_u8, 0..3_u8).prop_map(|(name, exists, of, last)| {
        let name = format!("slice{name}");
        let value = serde_json::json!({
            "metadata": {
                "name": name, "namespace": "default",
                "labels": {"kubernetes.io/service-name": format!("s{of}")},
            },
            "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": [format!("10.0.0.{last}")], "nodeName": "node-a"}],
        });
        let slice: SliceObject = serde_json::from_value(value).unwrap();
        let slice = exists.then(|| Box::new(Slice::from_object(&slice, Some("node-a"))));
        Change::Slice(object(&name), slice)
    });
    prop_oneof![service, slice]
}

proptest! {
    /// Whatever the way, the state is that of an index that only ever saw the objects of the end,
    /// and what is said to have changed did.
    #[test]
    fn changes_one_by_one_lead_where_all_at_once_do(
        changes in proptest::collection::vec((drawn_change(), any::<bool>()), 1..40),
    ) {
        let mut index = Index::default();
        index.set_local_node(node_a());
        let mut last = std::collections::BTreeMap::new();
        let mut before = index.desired().clone();
        for (change, update) in changes {
            let key = match &change {
                Change::Service(name, _) => (0, name.clone()),
                Change::Slice(name, _) | Change::Endpoints(name, _) => (1, name.clone()),
            };
            last.insert(key, change.clone());
            index.apply(change);
            if !update {
                continue;
            }
            let changed = index.update();
            let now = index.desired();
            let names = before.ports.keys().chain(now.ports.keys());
            for name in names {
                let differs = before.ports.get(name) != now.ports.get(name);
                prop_assert_eq!(changed.ports.contains(name), differs, "{}", name);
            }
            let ips: BTreeSet<_> =
                before.cluster_ips.symmetric_difference(&now.cluster_ips).copied().collect();
            prop_assert!(ips.is_subset(&changed.cluster_ips));
            let differs = before.health_checks != now.health_checks;
            prop_assert!(changed.health_checks || !differs);
            before = now.clone();
        }
        index.update();
        let mut fresh = Index::default();
        fresh.set_local_node(node_a());
        last.into_values().for_each(|change| fresh.apply(change));
        fresh.update();
        prop_assert_eq!(index.desired(), fresh.desired());
        let problems = |index: &Index| index.problems().cloned().collect::<Vec<_>>();
        prop_assert_eq!(problems(&index), problems(&fresh));
    }
}

/// And prints what it costs among 5,000 Services with 250,000 endpoints.
#[test]
fn one_change_among_many_is_a_few_operations() {
    let mut index = Index::default();
    index.set_local_node(node_a());
    let slice_of = |number: usize, shift: usize| {
        let endpoints: Vec<Value> = (0..50)
            .map(|at| {
                let ip = format!("10.{}.{}.{}", number / 250, number % 250, at + shift);
                serde_json::json!({"addresses": [ip], "nodeName": format!("node-{at}")})
            })
            .collect();
        let value = serde_json::json!({
            "metadata": {
                "name": format!("s{number}-a"), "namespace": "default",
                "labels": {"kubernetes.io/service-name": format!("s{number}")},
            },
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints,
        });
        let slice: SliceObject = serde_json::from_value(value).unwrap();
        let slice = Slice::from_object(&slice, Some("node-a"));
        Change::Slice(object(&format!("s{number}-a")), Some(Box::new(slice)))
    };
    for number in 0..5_000 {
        let value = serde_json::json!({
            "metadata": {"name": format!("s{number}"), "namespace": "default"},
            "spec": {
                "type": "NodePort", "clusterIP": format!("10.96.{}.{}", number / 250, number % 250 + 1),
                "ports": [{"port": 80, "nodePort": 20_000 + number}],
            },
        });
        let service: Service = serde_json::from_value(value).unwrap();
        index.apply(Change::Service(object(&format!("s{number}")), Some(Box::new(service))));
        index.apply(slice_of(number, 0));
    }
    let started = Instant::now();
    assert_eq!(index.update().ports.len(), 5_000);
    println!("all: {:?}", started.elapsed());
    for (maglev, shift) in [(6 << 20, 1), (Limits::default().maglev, 2)] {
        let limits = Limits { endpoints: 1 << 19, maglev, ..Limits::default() };
        let mut held = Held::empty(limits);
        let started = Instant::now();
        plan::plan(&mut held, index.desired());
        let without = held.shortages.problems().len();
        println!("plan of all: {:?}; {without} without a table", started.elapsed());
        let started = Instant::now();
        plan::plan(&mut held, index.desired());
        println!("plan of nothing, everything compared: {:?}", started.elapsed());
        let changes: Vec<Change> = (0..100).map(|number| slice_of(number * 40, shift)).collect();
        let (mut updating, mut planning) = (Duration::ZERO, Duration::ZERO);
        for change in changes {
            index.apply(change);
            let started = Instant::now();
            let changed = index.update();
            updating += started.elapsed();
            assert_eq!(changed.ports.len(), 1);
            let started = Instant::now();
            let desired = index.desired();
            let plan = plan::plan_changed(&mut held, desired, &changed.ports, &changed.cluster_ips);
            planning += started.elapsed();
            assert!(plan.ops.len() < 12, "{} operations", plan.ops.len());
        }
        println!("one change: index {:?}, plan {:?}", updating / 100, planning / 100);
    }
}
