//! The embedded store against a model: a list of states, one per revision.

#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use podium_store::{Embedded, Error, ListOptions, Retention, Revision, Store};
use proptest::prelude::*;
use serde_json::{Value, json};

#[derive(Debug, Clone)]
enum Step {
    Create(u8, i32),
    Update { key: u8, stale: bool, value: i32 },
    Delete { key: u8, stale: bool },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, any::<i32>()).prop_map(|(key, value)| Step::Create(key, value)),
        4 => (0..6_u8, prop::bool::weighted(0.2), any::<i32>())
            .prop_map(|(key, stale, value)| Step::Update { key, stale, value }),
        3 => (0..6_u8, prop::bool::weighted(0.2))
            .prop_map(|(key, stale)| Step::Delete { key, stale }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// What each key held, as of each revision since the last start.
struct Model {
    first: Revision,
    states: Vec<BTreeMap<String, (Revision, i32)>>,
}

impl Model {
    fn newest(&self) -> &BTreeMap<String, (Revision, i32)> {
        self.states.last().unwrap()
    }

    fn revision(&self) -> Revision {
        self.first + self.states.len() as Revision - 1
    }

    fn push(&mut self, change: impl FnOnce(&mut BTreeMap<String, (Revision, i32)>, Revision)) {
        let mut state = self.newest().clone();
        change(&mut state, self.revision() + 1);
        self.states.push(state);
    }

    fn reopen(&mut self) {
        self.first = self.revision();
        self.states.drain(..self.states.len() - 1);
    }
}

fn key(number: u8) -> String {
    format!("/registry//pods/default/{number}")
}

fn object(value: i32) -> Value {
    json!({ "metadata": { "name": "x" }, "value": value })
}

async fn step(store: &Embedded, model: &mut Model, step: &Step) {
    match *step {
        Step::Create(number, value) => {
            let key = key(number);
            let result = store.create(&key, object(value)).await;
            if model.newest().contains_key(&key) {
                assert!(matches!(result, Err(Error::Exists { .. })));
            } else {
                model.push(|state, revision| {
                    state.insert(key, (revision, value));
                });
                assert_eq!(result.unwrap().mod_revision, model.revision());
            }
        }
        Step::Update { key: number, stale, value } => {
            let key = key(number);
            let held = model.newest().get(&key).map(|(revision, _)| *revision);
            let expected = held.unwrap_or(1).saturating_sub(u64::from(stale));
            let result = store.update(&key, expected, object(value)).await;
            match held {
                None => assert!(matches!(result, Err(Error::Missing { .. }))),
                Some(_) if stale => assert!(matches!(result, Err(Error::Conflict { .. }))),
                Some(_) => {
                    model.push(|state, revision| {
                        state.insert(key, (revision, value));
                    });
                    assert_eq!(result.unwrap().mod_revision, model.revision());
                }
            }
        }
        Step::Delete { key: number, stale } => {
            let key = key(number);
            let held = model.newest().get(&key).map(|(revision, _)| *revision);
            let expected = held.unwrap_or(1).saturating_sub(u64::from(stale));
            let result = store.delete(&key, expected).await;
            match held {
                None => assert!(matches!(result, Err(Error::Missing { .. }))),
                Some(_) if stale => assert!(matches!(result, Err(Error::Conflict { .. }))),
                Some(_) => {
                    model.push(|state, _| {
                        state.remove(&key);
                    });
                    assert_eq!(result.unwrap().mod_revision, model.revision());
                }
            }
        }
        Step::Reopen => unreachable!("handled by the caller"),
    }
}

async fn check_lists(store: &Embedded, model: &Model) {
    for (offset, state) in model.states.iter().enumerate() {
        let revision = model.first + offset as Revision;
        let mut found = BTreeMap::new();
        let mut after_key = None;
        // In pages of two, to cross a page boundary at every revision.
        loop {
            let options = ListOptions { revision: Some(revision), limit: 2, after_key };
            let page = store.list("/registry//pods/", options).await.unwrap();
            for object in &page.objects {
                let value = i32::try_from(object.value["value"].as_i64().unwrap()).unwrap();
                found.insert(object.key.clone(), (object.mod_revision, value));
            }
            if page.remaining == 0 {
                break;
            }
            after_key = page.objects.last().map(|object| object.key.clone());
        }
        assert_eq!(&found, state, "at revision {revision}");
    }
}

/// Replaying the events from any revision on leads to the newest state.
async fn check_watches(store: &Embedded, model: &Model) {
    for (offset, start) in model.states.iter().enumerate() {
        let mut state = start.clone();
        let mut watch =
            store.watch("/registry//pods/", model.first + offset as Revision).await.unwrap();
        while watch.position() < model.revision() {
            for event in watch.next().await.unwrap() {
                let before = state.get(&event.object.key).map(|(revision, _)| *revision);
                assert_eq!(event.previous.map(|object| object.mod_revision), before);
                if event.deleted {
                    state.remove(&event.object.key);
                } else {
                    let value = event.object.value["value"].as_i64().unwrap();
                    let value = i32::try_from(value).unwrap();
                    state.insert(event.object.key.clone(), (event.revision, value));
                }
                let stamped = event.object.value["metadata"]["resourceVersion"].as_str().unwrap();
                assert_eq!(stamped, event.revision.to_string());
            }
        }
        assert_eq!(&state, model.newest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn behaves_like_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store.redb");
            let mut store = Embedded::open(&path, Retention::default()).unwrap();
            let first = store.revision().await.unwrap();
            let mut model = Model { first, states: vec![BTreeMap::new()] };
            for one in &steps {
                if matches!(one, Step::Reopen) {
                    drop(store);
                    store = Embedded::open(&path, Retention::default()).unwrap();
                    model.reopen();
                } else {
                    step(&store, &mut model, one).await;
                }
            }
            check_lists(&store, &model).await;
            check_watches(&store, &model).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_share_commits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let store = std::sync::Arc::new(Embedded::open(&path, Retention::default()).unwrap());
    let writers: Vec<_> = (0..200)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(
                async move { store.create(&format!("/registry/{number}"), object(1)).await },
            )
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let statistics = store.statistics();
    assert_eq!(statistics.writes, 200);
    assert!(statistics.commits < 100, "200 concurrent writes took {} commits", statistics.commits);
}

#[tokio::test]
async fn history_is_bounded_and_the_rest_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { events_min: 5, age_min: Duration::ZERO, events_max: 10 };
    let store = Embedded::open(&directory.path().join("store.redb"), retention).unwrap();
    let start = store.revision().await.unwrap();
    for number in 0..20_u8 {
        store.create(&key(number), object(0)).await.unwrap();
    }
    let refused = store.watch("/registry/", start).await.err();
    assert!(matches!(refused, Some(Error::Compacted { oldest, .. }) if oldest == start + 15));
    let mut watch = store.watch("/registry/", start + 15).await.unwrap();
    assert_eq!(watch.next().await.unwrap().len(), 5);
    store.compact(start + 18).await.unwrap();
    let options = ListOptions { revision: Some(start + 17), ..ListOptions::default() };
    let refused = store.list("/registry/", options).await;
    assert!(matches!(refused, Err(Error::Compacted { .. })));
    let future = store.watch("/registry/", start + 21).await.err();
    assert!(matches!(future, Some(Error::Future { .. })));
}

#[tokio::test]
async fn a_waiting_watch_wakes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store.redb"), Retention::default()).unwrap();
    let mut watch = store.watch("/registry//pods/", 1).await.unwrap();
    let key = key(1);
    let (events, created) = tokio::join!(watch.next(), store.create(&key, object(7)));
    assert_eq!(events.unwrap()[0].object, created.unwrap());
    store.create("/registry//nodes/a", object(8)).await.unwrap();
    assert!(watch.next().await.unwrap().is_empty());
    assert_eq!(watch.position(), store.revision().await.unwrap());
}
