//! `auth-type: basic`: which Secret holds the passwords, and what clients are told.

use crate::annotations::values::Refusal;
use crate::objects::ObjectKey;

/// Names and passwords.
#[derive(Clone, Debug, PartialEq)]
pub struct Basic {
    /// Where they are.
    pub secret: ObjectKey,
    /// How they are written there.
    pub form: SecretForm,
    /// What a client is asked for.
    pub realm: String,
}

/// How passwords are written in a Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretForm {
    /// `auth-file`: an htpasswd file under the key `auth`.
    #[default]
    File,
    /// `auth-map`: each key is a user.
    Map,
}

impl SecretForm {
    /// Reads `auth-secret-type`.
    pub fn parse(value: &str) -> Result<SecretForm, Refusal> {
        match value {
            "auth-file" => Ok(SecretForm::File),
            "auth-map" => Ok(SecretForm::Map),
            _ => Err(Refusal::closes("want auth-file or auth-map")),
        }
    }
}

/// Text that can stand between the quotes of `WWW-Authenticate`.
pub fn realm(value: &str) -> Result<String, Refusal> {
    if value.bytes().any(|b| matches!(b, b'"' | b'\\' | b'$') || !(b' '..=b'~').contains(&b)) {
        return Err(Refusal::closes("a realm holds printable characters without \", \\ and $"));
    }
    Ok(value.into())
}
