//! What settings name in Secrets and ConfigMaps, read and checked when the snapshot is built, so that a
//! request never waits for it and never sees it half.

use crate::annotations::Settings;
use crate::annotations::values::Refusal;
use crate::objects::World;

/// The contents of the objects that the settings of an Ingress name.
#[derive(Debug, Default)]
pub struct Resources {}

impl Resources {
    /// Reads what the settings name. What is wrong comes with the annotation that named it.
    pub fn resolve(_: &Settings, _: &World) -> (Resources, Vec<(&'static str, Refusal)>) {
        (Resources::default(), Vec::new())
    }
}
