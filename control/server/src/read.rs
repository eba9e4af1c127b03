//! GET of one object and of lists: resourceVersion semantics, pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podium_api::status::Status;
use podium_store::{Error, ListOptions, Listing, Object, Revision, Store};
use serde_json::{Map, Value, json};
use std::sync::Arc;

use crate::failure;
use crate::kind::Kind;
use crate::request::Query;
use crate::selection::Selection;

/// The revision in a continue token that goes on from wherever the cluster is now.
const INCONSISTENT: i64 = -1;
const TOKEN_VERSION: &str = "meta.k8s.io/v1";
/// So many objects are read at once while looking for ones that match.
const PAGE_READ_MIN: usize = 500;
const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a \
    consistent list result. You can start a new list without the continue parameter, or use the \
    continue token in this response to retrieve the remainder of the results. Continuing with the \
    provided token results in an inconsistent list - objects that were created, modified, or \
    deleted between the time the first chunk was returned and now may show up in the list.";

/// Why there is no page.
pub(crate) enum Refused {
    Status(Status),
    /// The continue token is too old; this one goes on all the same, for clients that can live with
    /// an inconsistent list.
    Expired(String),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl Refused {
    /// The answer's code and body.
    pub(crate) fn to_value(&self) -> (u16, Value) {
        match self {
            Self::Status(status) => (status.code, status.to_value()),
            Self::Expired(token) => {
                let status = Status::expired(CONTINUE_TOO_OLD);
                let mut value = status.to_value();
                value["metadata"] = json!({ "continue": token });
                (status.code, value)
            }
        }
    }
}

/// A page of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// `ListMeta`.
    pub(crate) metadata: Value,
}

/// What a client demands of the age of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    Any,
    NotOlderThan(Revision),
    Exact(Revision),
}

impl Age {
    /// Reads `resourceVersion` and `resourceVersionMatch` of a list.
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        let version = query.get("resourceVersion");
        let wanted = version.map(parse_revision).transpose()?;
        let forbidden = |detail: &str| {
            let message = format!("resourceVersionMatch: Forbidden: {detail}");
            Err(Status::bad_request(message))
        };
        match (query.get("resourceVersionMatch"), wanted) {
            (Some(_), None) if !query.flag("watch") && !query.flag("sendInitialEvents") => {
                forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
            }
            (Some("Exact"), Some(0)) => {
                forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
            }
            (Some("Exact"), Some(revision)) => Ok(Self::Exact(revision)),
            (Some("NotOlderThan") | None, Some(0) | None) => Ok(Self::Any),
            (None, Some(revision)) if query.get("limit").is_some_and(|limit| limit != "0") => {
                // The old meaning, kept by upstream for paged lists.
                Ok(Self::Exact(revision))
            }
            (Some("NotOlderThan") | None, Some(revision)) => Ok(Self::NotOlderThan(revision)),
            (Some(other), _) => {
                let message = format!("resourceVersionMatch: Unsupported value: \"{other}\"");
                Err(Status::bad_request(message))
            }
        }
    }

    /// Waits for nothing: a revision that is not reached yet is an error the client retries.
    pub(crate) async fn check(self, store: &dyn Store) -> Result<(), Status> {
        if let Self::NotOlderThan(wanted) = self {
            let current = store.revision().await.map_err(failure::of_store)?;
            if wanted > current {
                return Err(Status::resource_version_too_large(wanted, current));
            }
        }
        Ok(())
    }
}

/// A resourceVersion is a number here, whatever clients may assume.
pub(crate) fn parse_revision(text: &str) -> Result<Revision, Status> {
    text.parse().map_err(|_| {
        Status::bad_request(format!("Invalid value: \"{text}\": resourceVersion must be a number"))
    })
}

/// Lists objects as the query asks.
pub(crate) async fn list(
    store: &dyn Store,
    kind: &Kind,
    namespace: &str,
    selection: &Selection,
    query: &Query,
) -> Result<Page, Refused> {
    let limit = query.number("limit").map_err(Status::bad_request)?.unwrap_or(0);
    let limit = usize::try_from(limit).unwrap_or(0);
    let prefix = kind.prefix(namespace);
    let age = Age::parse(query)?;
    let (revision, after_key) = match query.get("continue") {
        Some(token) => {
            if query.get("resourceVersion").is_some_and(|version| version != "0") {
                let message = "specifying resource version is not allowed when using continue";
                return Err(Status::bad_request(message).into());
            }
            let (revision, after) = decode_token(token)?;
            (u64::try_from(revision).ok(), Some(format!("{prefix}{after}")))
        }
        None => {
            age.check(store).await?;
            match age {
                Age::Exact(revision) => (Some(revision), None),
                Age::Any | Age::NotOlderThan(_) => (None, None),
            }
        }
    };
    let continued = after_key.clone();
    let mut options = ListOptions { revision, limit: 0, after_key };
    let mut objects = Vec::new();
    loop {
        options.limit = if limit == 0 { 0 } else { (limit - objects.len()).max(PAGE_READ_MIN) };
        let listing = match store.list(&prefix, options.clone()).await {
            Ok(listing) => listing,
            Err(Error::Compacted { .. }) if continued.is_some() => {
                let after = continued.as_deref().and_then(|key| key.strip_prefix(&prefix));
                return Err(Refused::Expired(encode_token(
                    INCONSISTENT,
                    after.unwrap_or_default(),
                )));
            }
            Err(error) => return Err(failure::of_store(error).into()),
        };
        options.revision = Some(listing.revision);
        if let Some(page) = collect(&mut objects, &listing, selection, limit, &prefix) {
            return Ok(Page { objects, metadata: page });
        }
        options.after_key = objects_end(&listing);
    }
}

fn objects_end(listing: &Listing) -> Option<String> {
    listing.objects.last().map(|object| object.key.clone())
}

/// Adds what matches; the metadata of the list once it is complete or full.
fn collect(
    objects: &mut Vec<Arc<Object>>,
    listing: &Listing,
    selection: &Selection,
    limit: usize,
    prefix: &str,
) -> Option<Value> {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), json!(listing.revision.to_string()));
    for (index, object) in listing.objects.iter().enumerate() {
        if !selection.matches(&object.value) {
            continue;
        }
        objects.push(object.clone());
        let left = listing.objects.len() - index - 1 + listing.remaining;
        if limit > 0 && objects.len() == limit && left > 0 {
            let revision = i64::try_from(listing.revision).unwrap_or(INCONSISTENT);
            let after = object.key.strip_prefix(prefix).unwrap_or_default();
            metadata.insert("continue".to_owned(), json!(encode_token(revision, after)));
            if selection.everything {
                metadata.insert("remainingItemCount".to_owned(), json!(left));
            }
            return Some(Value::Object(metadata));
        }
    }
    (listing.remaining == 0).then_some(Value::Object(metadata))
}

fn encode_token(revision: i64, after: &str) -> String {
    let token = json!({ "v": TOKEN_VERSION, "rv": revision, "start": after });
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn decode_token(token: &str) -> Result<(i64, String), Status> {
    let invalid = || Status::bad_request("continue key is not valid");
    let json = URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Value = serde_json::from_slice(&json).map_err(|_| invalid())?;
    if token["v"] != TOKEN_VERSION {
        return Err(invalid());
    }
    let revision = token["rv"].as_i64().ok_or_else(invalid)?;
    Ok((revision, token["start"].as_str().ok_or_else(invalid)?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(query: &str) -> Result<Age, String> {
        Age::parse(&Query::parse(Some(query))).map_err(|status| status.message)
    }

    #[test]
    fn resource_versions_mean_what_upstream_says() {
        for (query, want) in [
            ("", Age::Any),
            ("resourceVersion=0", Age::Any),
            ("resourceVersion=7", Age::NotOlderThan(7)),
            ("resourceVersion=7&resourceVersionMatch=NotOlderThan", Age::NotOlderThan(7)),
            ("resourceVersion=7&resourceVersionMatch=Exact", Age::Exact(7)),
            ("resourceVersion=7&limit=10", Age::Exact(7)),
            ("resourceVersion=0&limit=10", Age::Any),
        ] {
            assert_eq!(age(query), Ok(want), "{query}");
        }
        for query in [
            "resourceVersion=x",
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=1&resourceVersionMatch=Newest",
        ] {
            assert!(age(query).is_err(), "{query}");
        }
    }

    #[test]
    fn tokens_survive_the_way_to_the_client_and_back() {
        let token = encode_token(7, "default/a");
        assert_eq!(decode_token(&token).unwrap(), (7, "default/a".to_owned()));
        assert!(decode_token("nonsense").is_err());
    }
}
