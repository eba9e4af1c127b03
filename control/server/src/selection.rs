//! Which objects of a list, watch or deletecollection are meant: selectors and namespace.

use podium_api::object;
use podium_api::resource::Resource;
use podium_api::selector::{FieldSelector, LabelSelector};
use podium_api::status::Status;
use serde_json::Value;

use crate::request::Query;

/// Both selectors of a request.
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    name: Option<String>,
    /// Whether it lets everything through.
    pub(crate) everything: bool,
}

impl Selection {
    /// Reads the selectors.
    pub(crate) fn parse(resource: &Resource, query: &Query) -> Result<Self, Status> {
        let labels = query.get("labelSelector").unwrap_or_default();
        let fields = query.get("fieldSelector").unwrap_or_default();
        Ok(Self {
            labels: LabelSelector::parse(labels)?,
            fields: FieldSelector::parse(resource, fields)?,
            name: None,
            everything: labels.is_empty() && fields.is_empty(),
        })
    }

    /// The same, of one object only.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), everything: false, ..self }
    }

    /// Whether an object, in storage form, is meant.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.everything
            || (self.name.as_deref().is_none_or(|name| object::name(object) == name)
                && self.labels.matches(object)
                && self.fields.matches(object))
    }
}
