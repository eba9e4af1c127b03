//! Who makes a request, and the well-known groups.

use std::collections::BTreeMap;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of everybody who has proven an identity.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The user name of those who have not.
pub(crate) const ANONYMOUS: &str = "system:anonymous";

/// An authenticated user. As a request extension it is the proof of identity; extensions cannot
/// arrive over a socket, so only code in this process can set it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// A name that stays unique when users are made anew; often empty.
    pub uid: String,
    /// The groups the user is in.
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in the given groups and in the group of all authenticated users.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { user: user.into(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// A part of Podium itself, such as a controller, with all rights.
    pub fn system(component: &str) -> Self {
        Self::new(format!("system:{component}"), [MASTERS.to_owned()])
    }
}
