//! kill -9 of a process that writes: whatever it acknowledged is there afterwards.

#![expect(clippy::unwrap_used, reason = "all of this file is a test")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use podium_store::{Embedded, ListOptions, Retention, Store};
use serde_json::json;

/// Tells the child half of this test where to write.
const CHILD_VARIABLE: &str = "PODIUM_STORE_TEST_CHILD";
const ROUNDS: usize = 5;
const ACKNOWLEDGED_PER_ROUND: usize = 120;
const WRITERS: usize = 8;

/// Not a test of its own: the process the parent kills. Prints one line per acknowledged write.
#[tokio::test]
async fn child_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD_VARIABLE).map(PathBuf::from) else { return };
    let store = Arc::new(Embedded::open(&path, Retention::default()).unwrap());
    let start = store.revision().await.unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for count in 0.. {
                let key = format!("/registry/test/{start}/{writer}-{count}");
                let value = json!({ "metadata": { "name": key }, "count": count });
                let object = store.create(&key, value).await.unwrap();
                println!("ack {key} {}", object.mod_revision);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

fn write_and_kill(path: &Path) -> Vec<(String, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_VARIABLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while acknowledged.len() < ACKNOWLEDGED_PER_ROUND {
        acknowledged.extend(parse(&lines.next().unwrap().unwrap()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was printed before the kill was acknowledged as well. The last line may be cut off.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    rest.pop();
    acknowledged.extend(rest.iter().filter_map(|line| parse(line)));
    acknowledged
}

fn parse(line: &str) -> Option<(String, u64)> {
    // The test harness prints its own text in front of the first line.
    let (_, text) = line.split_once("ack ")?;
    let (key, revision) = text.split_once(' ')?;
    Some((key.to_owned(), revision.parse().ok()?))
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut acknowledged = Vec::new();
    for _ in 0..ROUNDS {
        acknowledged.extend(write_and_kill(&path));
        let store = Embedded::open(&path, Retention::default()).unwrap();
        for (key, revision) in &acknowledged {
            let object = store.get(key).await.unwrap().unwrap_or_else(|| panic!("{key} is lost"));
            assert_eq!(object.mod_revision, *revision, "{key}");
            assert_eq!(object.value["metadata"]["name"], **key);
        }
        let listing = store.list("/registry/", ListOptions::default()).await.unwrap();
        assert!(listing.objects.len() >= acknowledged.len());
        let newest = acknowledged.iter().map(|(_, revision)| *revision).max().unwrap();
        assert!(listing.revision >= newest, "the revision went back");
    }
}
