//! What settings name in Secrets and ConfigMaps, read and checked when the snapshot is built, so that a
//! request never waits for it and never sees it half.

mod custom_headers;

use crate::annotations::Settings;
use crate::annotations::values::Refusal;
use crate::objects::{ObjectKey, World};
use crate::options::Options;
use http::{HeaderName, HeaderValue};

/// The contents of the objects that the settings of an Ingress name.
#[derive(Debug, Default)]
pub struct Resources {
    /// Set in every answer of its locations.
    pub custom_headers: Vec<(HeaderName, HeaderValue)>,
}

impl Resources {
    /// Reads what the settings of an Ingress name. What is wrong comes with the annotation that named it.
    pub fn resolve(
        _ingress: &ObjectKey,
        settings: &Settings,
        world: &World,
        options: &Options,
    ) -> (Resources, Vec<(&'static str, Refusal)>) {
        let mut resources = Resources::default();
        let mut refused = Vec::new();
        if let Some(config_map) = &settings.response.custom_headers {
            match custom_headers::resolve(config_map, world, options) {
                Ok(headers) => resources.custom_headers = headers,
                Err(refusal) => refused.push(("custom-headers", refusal)),
            }
        }
        (resources, refused)
    }
}
