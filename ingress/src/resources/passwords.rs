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

/// Reads the Secret. Without one the location closes; what is wrong with an entry is named, and it lets
/// nobody in.
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
    let mut problems: Vec<Refusal> = problems
        .into_iter()
        .map(|(user, error)| {
            Refusal::Refused(format!(
                "Secret {key}: the entry of {user:?} {error}; it lets nobody in"
            ))
        })
        .collect();
    if passwords.is_empty() && problems.is_empty() {
        problems.push(Refusal::Refused(format!("Secret {key} lets nobody in: it has no entries")));
    }
    match HeaderValue::try_from(format!("Basic realm=\"{}\"", basic.realm)) {
        Ok(challenge) => {
            let passwords = Arc::new(passwords);
            (Some(PasswordGuard { passwords, challenge }), problems)
        }
        Err(_) => closed("the realm is not usable in a header".into()),
    }
}
