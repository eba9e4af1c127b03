//! The Secret of `auth-secret`.

use crate::annotations::authentication::basic::{Basic, SecretForm};
use crate::annotations::values::Refusal;
use crate::htpasswd::Passwords;
use crate::objects::World;
use http::HeaderValue;
use std::sync::Arc;

/// Who may log in, and what others are asked for.
#[derive(Debug)]
pub struct PasswordGuard {
    /// Names and passwords.
    pub passwords: Arc<Passwords>,
    /// `WWW-Authenticate`.
    pub challenge: HeaderValue,
}

/// Reads the Secret. Without a single usable entry the location closes; a broken one is only named.
pub fn resolve(basic: &Basic, world: &World) -> (Option<PasswordGuard>, Vec<Refusal>) {
    let closed = |why: String| (None, vec![Refusal::closes(why)]);
    let key = &basic.secret;
    let Some(secret) = world.secrets.get(key) else {
        return closed(format!("Secret {key} does not exist"));
    };
    let strings = secret.string_data.iter().flatten().map(|(k, v)| (k.as_str(), v.as_bytes()));
    let data = secret.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.as_slice()));
    let mut entries = data.chain(strings);
    let (passwords, problems) = match basic.form {
        SecretForm::File => match entries.find(|(name, _)| *name == "auth") {
            Some((_, file)) => Passwords::from_file(file),
            None => return closed(format!("Secret {key} has no key \"auth\"")),
        },
        SecretForm::Map => {
            Passwords::from_entries(entries.map(|(user, hash)| (user.as_bytes(), Some(hash))))
        }
    };
    if passwords.is_empty() {
        let first = problems.first().map(|(user, error)| format!(": {user:?} {error}"));
        return closed(format!("Secret {key} lets nobody in{}", first.unwrap_or_default()));
    }
    let problems = problems.into_iter().map(|(user, error)| {
        Refusal::Refused(format!("Secret {key}: the entry of {user:?} {error}; it lets nobody in"))
    });
    match HeaderValue::try_from(format!("Basic realm=\"{}\"", basic.realm)) {
        Ok(challenge) => {
            let passwords = Arc::new(passwords);
            (Some(PasswordGuard { passwords, challenge }), problems.collect())
        }
        Err(_) => closed("the realm is not usable in a header".into()),
    }
}
