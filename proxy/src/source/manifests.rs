//! Objects from a folder of YAML (or JSON) files, read again whenever one changes.
//!
//! A document that cannot be read is a problem of its own; the others of its file, and all other
//! files, count. As nobody can say which object the broken text was meant to be, what its file held
//! before and no longer shows stays until the file can be read again.
//!
//! Of what was read only sums are kept, by which the next reading tells what is another now; a
//! document whose text is the same is not even parsed.

mod reading;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{sync::mpsc, time};

use super::{Event, Source, channel};
use reading::Reading;

/// How long the folder must be quiet before it is read: editors write in several steps.
const QUIET: Duration = Duration::from_millis(20);

/// A folder that is never quiet is read after this time all the same.
const UNQUIET_MAX: Duration = Duration::from_secs(1);

/// The folder is read this often even if no change was announced (network file systems).
const REREAD: Duration = Duration::from_secs(10);

/// Starts to follow a folder, as the node with this name.
///
/// # Errors
/// If it cannot be read or watched.
pub fn follow(folder: PathBuf, node_name: String) -> io::Result<Source> {
    fs::read_dir(&folder)?;
    let (wake, woken) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| is_look(event.kind)) {
            return;
        }
        // One token is enough: the folder is read as a whole.
        let _ = wake.try_send(());
    })
    .map_err(io::Error::other)?;
    watcher.watch(&folder, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
    let (sender, events) = channel();
    tokio::spawn(async move {
        follow_changes(&folder, &node_name, woken, &sender).await;
        drop(watcher);
    });
    Ok(Source { events, streams: 1, problems: None })
}

/// Whether a file was only looked at, as reading the folder does: that must not be a reason to read
/// it again. The end of a writer is an access too, and the only sure sign of a whole file.
fn is_look(event: EventKind) -> bool {
    matches!(event, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

async fn follow_changes(
    folder: &Path,
    node_name: &str,
    mut woken: mpsc::Receiver<()>,
    sender: &mpsc::Sender<Event>,
) {
    let mut known = Reading::default();
    let mut synced = false;
    loop {
        let (reading, changes) = reading::read(folder, node_name, &known);
        let mut events = Vec::new();
        let own_node = reading.own_node();
        if own_node != known.own_node() {
            events.push(Event::Node(own_node.cloned()));
        }
        let cidrs = reading.service_cidrs();
        if cidrs != known.service_cidrs() {
            events.push(Event::ServiceCidrs(cidrs));
        }
        if reading.problems != known.problems {
            events.push(Event::Problems(reading.problems.clone()));
        }
        if !changes.is_empty() {
            events.push(Event::Changes { changes, arrived: Instant::now() });
        }
        if !std::mem::replace(&mut synced, true) {
            events.push(Event::Synced);
        }
        for event in events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        known = reading;
        tokio::select! {
            token = woken.recv() => if token.is_none() { return },
            () = time::sleep(REREAD) => {}
        }
        let unquiet_until = time::Instant::now() + UNQUIET_MAX;
        while time::timeout(QUIET, woken.recv()).await.is_ok_and(|token| token.is_some())
            && time::Instant::now() < unquiet_until
        {}
    }
}
