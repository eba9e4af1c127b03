//! Watches: initial events, selectors over time, bookmarks, the end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use podium_api::status::Status;
use podium_store::{Event, ListOptions, Object, Revision, Store, Watch};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::answer::Presenter;
use crate::body::BoxError;
use crate::failure;
use crate::kind::Kind;
use crate::read::{self, Age};
use crate::request::Query;
use crate::selection::Selection;

/// A watch without a timeout of its own ends after once to twice this, as upstream's do.
const TIMEOUT_MIN_SECONDS: u64 = 1_800;
/// The last bookmark comes this long before the end.
const LAST_BOOKMARK_BEFORE: Duration = Duration::from_secs(2);
/// Frames on their way to one client; a slower client is read from history later.
const FRAMES_MAX: usize = 64;

/// What a client wants of a watch.
pub(crate) struct Wanted {
    /// Where to start; `None` starts with the present state.
    after: Option<Revision>,
    bookmarks: bool,
    /// End the initial events with a bookmark that says so.
    announce_initial: bool,
    timeout: Duration,
}

impl Wanted {
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        let invalid = |message: &str| {
            Status::bad_request(format!("ListOptions.meta.k8s.io \"\" is invalid: {message}"))
        };
        let initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        match (initial, query.get("resourceVersionMatch")) {
            (Some(_), None) => {
                return Err(invalid(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                     resourceVersionMatch to NotOlderThan",
                ));
            }
            (Some(_), Some("NotOlderThan")) | (None, None) => {}
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
                     resourceVersionMatch to NotOlderThan",
                ));
            }
            (None, Some(_)) => {
                return Err(invalid(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch \
                     unless sendInitialEvents is provided",
                ));
            }
        }
        let version = query.get("resourceVersion").map(read::parse_revision).transpose()?;
        let after = match (initial, version) {
            (Some(true), _) | (None, None | Some(0)) => None,
            (Some(false), version) => Some(version.unwrap_or(0)),
            (None, version) => version,
        };
        let seconds = query.number("timeoutSeconds").map_err(Status::bad_request)?;
        let seconds = match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) if seconds > 0 => seconds,
            _ => rand::rng().random_range(TIMEOUT_MIN_SECONDS..2 * TIMEOUT_MIN_SECONDS),
        };
        let bookmarks = query.flag("allowWatchBookmarks");
        Ok(Self {
            after,
            bookmarks,
            announce_initial: initial == Some(true) && bookmarks,
            timeout: Duration::from_secs(seconds),
        })
    }
}

/// What turns writes into what one client sees.
pub(crate) struct Lens {
    pub(crate) kind: Kind,
    pub(crate) selection: Selection,
    pub(crate) presenter: Presenter,
}

impl Lens {
    /// An event as the client sees it; `None` when it concerns nothing that is selected.
    fn event(&self, event: &Event) -> Option<Value> {
        let was =
            event.previous.as_ref().is_some_and(|object| self.selection.matches(&object.value));
        let is = !event.deleted && self.selection.matches(&event.object.value);
        let (what, object) = match (was, is) {
            (false, false) => return None,
            (false, true) => ("ADDED", Cow::Borrowed(&event.object.value)),
            (true, true) => ("MODIFIED", Cow::Borrowed(&event.object.value)),
            // What leaves the selection is shown as it was last seen, at the revision it left.
            (true, false) => ("DELETED", last_seen(event)),
        };
        Some(self.frame(what, &object))
    }

    fn frame(&self, what: &str, object: &Value) -> Value {
        let object = self.presenter.one(&self.kind.outward(object));
        json!({ "type": what, "object": object })
    }

    fn bookmark(&self, revision: Revision, initial_end: bool) -> Value {
        let mut metadata = json!({
            "creationTimestamp": null,
            "resourceVersion": revision.to_string(),
        });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({
            "kind": self.kind.served.kind,
            "apiVersion": self.kind.served.api_version(self.kind.version),
            "metadata": metadata,
        });
        let object = match self.presenter.answer.form {
            crate::negotiate::Form::Object => object,
            _ => self.presenter.one(&object),
        };
        json!({ "type": "BOOKMARK", "object": object })
    }
}

fn last_seen(event: &Event) -> Cow<'_, Value> {
    match &event.previous {
        Some(previous) if !event.deleted => {
            let mut value = previous.value.clone();
            value["metadata"]["resourceVersion"] = json!(event.revision.to_string());
            Cow::Owned(value)
        }
        _ => Cow::Borrowed(&event.object.value),
    }
}

/// Starts a watch. What goes wrong from here on is told in the stream, as upstream does.
pub(crate) async fn start(
    store: Arc<dyn Store>,
    lens: Lens,
    namespace: &str,
    query: &Query,
    bookmark_interval: Duration,
    shutdown: CancellationToken,
) -> Result<impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static, Status> {
    let wanted = Wanted::parse(query)?;
    let age = match (wanted.after, query.get("resourceVersion")) {
        (None, Some(version)) => match read::parse_revision(version)? {
            0 => Age::Any,
            revision => Age::NotOlderThan(revision),
        },
        _ => Age::Any,
    };
    let prefix = lens.kind.prefix(namespace);
    let (sender, mut receiver) = mpsc::channel::<Bytes>(FRAMES_MAX);
    tokio::spawn(async move {
        let deadline = Instant::now() + wanted.timeout;
        let gone = sender.clone();
        let mut frames = Frames { sender };
        let run = async {
            age.check(&*store).await?;
            let begun = begin(&*store, &lens, &prefix, &wanted, &mut frames).await?;
            match begun {
                Some(watch) => {
                    follow(watch, &lens, &wanted, bookmark_interval, deadline, &mut frames).await
                }
                None => Ok(()),
            }
        };
        let ended = tokio::select! {
            ended = run => ended,
            () = shutdown.cancelled() => Ok(()),
            () = gone.closed() => Ok(()),
        };
        if let Err(status) = ended {
            let frame = json!({ "type": "ERROR", "object": status.to_value() });
            frames.send(&frame).await;
        }
    });
    Ok(futures::stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|frame| frame.map(Ok))
    }))
}

/// Where frames go.
struct Frames {
    sender: mpsc::Sender<Bytes>,
}

impl Frames {
    /// False when the client is gone.
    async fn send(&mut self, frame: &Value) -> bool {
        let mut text = frame.to_string();
        text.push('\n');
        self.sender.send(Bytes::from(text)).await.is_ok()
    }
}

/// Sends the initial events, if they are wanted. `None` when the client is gone.
async fn begin(
    store: &dyn Store,
    lens: &Lens,
    prefix: &str,
    wanted: &Wanted,
    frames: &mut Frames,
) -> Result<Option<Watch>, Status> {
    let after = match wanted.after {
        // Asked for no initial events and for no revision: from now on.
        Some(0) => Some(store.revision().await.map_err(failure::of_store)?),
        after => after,
    };
    let Some(after) = after else {
        let listing =
            store.list(prefix, ListOptions::default()).await.map_err(failure::of_store)?;
        let watch = store.watch(prefix, listing.revision).await.map_err(failure::of_store)?;
        for object in listing.objects.iter().filter(|object| selected(lens, object)) {
            if !frames.send(&lens.frame("ADDED", &object.value)).await {
                return Ok(None);
            }
        }
        if wanted.announce_initial && !frames.send(&lens.bookmark(listing.revision, true)).await {
            return Ok(None);
        }
        return Ok(Some(watch));
    };
    store.watch(prefix, after).await.map(Some).map_err(failure::of_store)
}

fn selected(lens: &Lens, object: &Object) -> bool {
    lens.selection.matches(&object.value)
}

/// Sends events until the deadline or until the client is gone.
async fn follow(
    mut watch: Watch,
    lens: &Lens,
    wanted: &Wanted,
    bookmark_interval: Duration,
    deadline: Instant,
    frames: &mut Frames,
) -> Result<(), Status> {
    let mut bookmarks = tokio::time::interval(bookmark_interval);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    bookmarks.tick().await;
    let last_bookmark =
        tokio::time::sleep_until(deadline - LAST_BOOKMARK_BEFORE.min(wanted.timeout / 2));
    tokio::pin!(last_bookmark);
    let mut last_sent = false;
    loop {
        tokio::select! {
            events = watch.next() => {
                for event in events.map_err(failure::of_store)? {
                    if let Some(frame) = lens.event(&event) && !frames.send(&frame).await {
                        return Ok(());
                    }
                }
            }
            _ = bookmarks.tick(), if wanted.bookmarks => {
                if !frames.send(&lens.bookmark(watch.position(), false)).await {
                    return Ok(());
                }
            }
            () = &mut last_bookmark, if wanted.bookmarks && !last_sent => {
                last_sent = true;
                if !frames.send(&lens.bookmark(watch.position(), false)).await {
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(deadline) => return Ok(()),
        }
    }
}
