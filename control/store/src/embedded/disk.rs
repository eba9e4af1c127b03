//! What lies in the redb file: one row per object, and the revision counter.
//!
//! A row is the create revision and the mod revision (8 bytes each, big endian) and the object as
//! JSON, without its resourceVersion.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{Error, Object, Revision};

const OBJECTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'static, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
const REVISIONS_BYTES: usize = 16;

/// Everything a file holds.
pub(super) struct State {
    pub(super) objects: BTreeMap<String, Arc<Object>>,
    pub(super) revision: Revision,
}

/// One row to write (`Some`) or to remove (`None`).
pub(super) struct Row<'a> {
    pub(super) key: &'a str,
    pub(super) content: Option<Vec<u8>>,
}

/// The open file.
pub(super) struct Disk {
    database: Database,
}

fn failed<E: std::fmt::Display>(operation: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Disk { operation, reason: error.to_string() }
}

impl Disk {
    /// Opens or creates the file and reads all of it.
    pub(super) fn open(path: &Path) -> Result<(Self, State), Error> {
        let database = Database::create(path).map_err(failed("open"))?;
        let transaction = database.begin_write().map_err(failed("open"))?;
        transaction.open_table(OBJECTS).map_err(failed("open"))?;
        transaction.open_table(COUNTERS).map_err(failed("open"))?;
        transaction.commit().map_err(failed("open"))?;
        let state = read(&database)?;
        Ok((Self { database }, state))
    }

    /// Writes all rows and the revision in one transaction; durable on return.
    pub(super) fn commit(&self, rows: &[Row<'_>], revision: Revision) -> Result<(), Error> {
        let transaction = self.database.begin_write().map_err(failed("begin"))?;
        {
            let mut objects = transaction.open_table(OBJECTS).map_err(failed("write"))?;
            for row in rows {
                match &row.content {
                    Some(content) => objects.insert(row.key, content.as_slice()),
                    None => objects.remove(row.key),
                }
                .map_err(failed("write"))?;
            }
            let mut counters = transaction.open_table(COUNTERS).map_err(failed("write"))?;
            counters.insert(REVISION, revision).map_err(failed("write"))?;
        }
        transaction.commit().map_err(failed("commit"))
    }
}

fn read(database: &Database) -> Result<State, Error> {
    let transaction = database.begin_read().map_err(failed("read"))?;
    let counters = transaction.open_table(COUNTERS).map_err(failed("read"))?;
    // Revision 0 means "any" to clients, so an empty store stands at 1, like etcd.
    let revision = counters.get(REVISION).map_err(failed("read"))?.map_or(1, |row| row.value());
    let table = transaction.open_table(OBJECTS).map_err(failed("read"))?;
    let mut objects = BTreeMap::new();
    for row in table.iter().map_err(failed("read"))? {
        let (key, content) = row.map_err(failed("read"))?;
        let object = parse(key.value(), content.value())?;
        objects.insert(object.key.clone(), Arc::new(object));
    }
    Ok(State { objects, revision })
}

/// The row of an object; `json` is the object without its resourceVersion.
pub(super) fn row(create_revision: Revision, mod_revision: Revision, json: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(REVISIONS_BYTES + json.len());
    content.extend_from_slice(&create_revision.to_be_bytes());
    content.extend_from_slice(&mod_revision.to_be_bytes());
    content.extend_from_slice(json);
    content
}

fn parse(key: &str, content: &[u8]) -> Result<Object, Error> {
    let damaged =
        |reason: String| Error::Disk { operation: "read", reason: format!("key {key}: {reason}") };
    let (create, rest) =
        content.split_first_chunk::<8>().ok_or_else(|| damaged("row too short".to_owned()))?;
    let (modified, json) =
        rest.split_first_chunk::<8>().ok_or_else(|| damaged("row too short".to_owned()))?;
    let value = serde_json::from_slice(json).map_err(|error| damaged(error.to_string()))?;
    let (create, modified) = (u64::from_be_bytes(*create), u64::from_be_bytes(*modified));
    Ok(Object::stamped(key.to_owned(), value, create, modified))
}
