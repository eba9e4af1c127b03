//! Passwords as `htpasswd` writes them: read when a Secret changes, verified for requests.
//!
//! Known are apr1 and MD5 (`$apr1$`, `$1$`), bcrypt (`$2y$` and its kin), SHA-crypt (`$5$`, `$6$`),
//! `{SHA}`, `{SSHA}` and `{PLAIN}`. What libc's old `crypt` made of DES is refused: it keeps only the
//! first eight characters of a password.

mod crypt;
mod verifier;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use std::collections::HashMap;
use subtle::ConstantTimeEq;
use thiserror::Error;
pub use verifier::Verifier;

/// Longer passwords are wrong: some of the forms take quadratic time.
const PASSWORD_BYTES_MAX: usize = 1024;
/// A bcrypt cost that takes more than seconds.
const BCRYPT_COST_MAX: u32 = 14;

/// Why an entry cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// There is no colon.
    #[error("is not of the form user:password")]
    Shape,
    /// The hash is of no known form.
    #[error("has a password in a form that is not supported; use bcrypt (htpasswd -B)")]
    Form,
    /// Verifying it would take too long.
    #[error("has a password that would take too long to verify")]
    Cost,
}

/// Users and their passwords.
#[derive(Debug, Default)]
pub struct Passwords {
    users: HashMap<Box<[u8]>, Hash>,
}

/// What is kept of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hash {
    /// `{PLAIN}`.
    Plain(Box<[u8]>),
    /// `{SHA}`, `{SSHA}`: the digest, and the salt after it.
    Sha1(Box<[u8]>),
    /// `$apr1$`, `$1$`.
    Md5(Box<str>),
    /// `$5$`, `$6$`.
    Sha(Box<str>),
    /// `$2?$`.
    Bcrypt(Box<str>),
}

impl Passwords {
    /// Reads the lines of a file. What is wrong comes with the user's name.
    pub fn from_file(text: &[u8]) -> (Passwords, Vec<(String, EntryError)>) {
        let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
        let entries = lines.filter(|line| !line.is_empty() && line[0] != b'#').map(|line| {
            // What follows a second colon is a comment.
            let mut fields = line.splitn(3, |byte| *byte == b':');
            (fields.next().unwrap_or_default(), fields.next())
        });
        Passwords::from_entries(entries)
    }

    /// Reads names and passwords.
    pub fn from_entries<'a>(
        entries: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> (Passwords, Vec<(String, EntryError)>) {
        let mut passwords = Passwords::default();
        let mut problems = Vec::new();
        for (user, password) in entries {
            let hash = password.filter(|_| !user.is_empty()).ok_or(EntryError::Shape);
            match hash.and_then(Hash::parse) {
                // As in nginx, the first line of a user counts.
                Ok(hash) => drop(passwords.users.entry(user.into()).or_insert(hash)),
                Err(error) => problems.push((String::from_utf8_lossy(user).into_owned(), error)),
            }
        }
        (passwords, problems)
    }

    /// Nobody can log in.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

impl Hash {
    fn parse(text: &[u8]) -> Result<Hash, EntryError> {
        let text = text.trim_ascii_end();
        if let Some(plain) = text.strip_prefix(b"{PLAIN}") {
            return Ok(Hash::Plain(plain.into()));
        }
        if let Some(encoded) = text.strip_prefix(b"{SHA}").or_else(|| text.strip_prefix(b"{SSHA}"))
        {
            let salted = text.starts_with(b"{SSHA}");
            let bytes = STANDARD.decode(encoded).map_err(|_| EntryError::Form)?;
            let fits = if salted { bytes.len() > 20 } else { bytes.len() == 20 };
            return fits.then(|| Hash::Sha1(bytes.into())).ok_or(EntryError::Form);
        }
        let text = std::str::from_utf8(text).map_err(|_| EntryError::Form)?;
        match text.get(1..).and_then(|rest| rest.split('$').next()) {
            _ if !text.starts_with('$') => Err(EntryError::Form),
            Some("apr1" | "1") => {
                crypt::Md5Crypt::parse(text).map(|_| Hash::Md5(text.into())).ok_or(EntryError::Form)
            }
            Some("5" | "6") => {
                let crypt = crypt::ShaCrypt::parse(text).ok_or(EntryError::Form)?;
                crypt.is_bearable().then(|| Hash::Sha(text.into())).ok_or(EntryError::Cost)
            }
            Some("2a" | "2b" | "2x" | "2y") => {
                let parts: bcrypt::HashParts = text.parse().map_err(|_| EntryError::Form)?;
                let bearable = parts.get_cost() <= BCRYPT_COST_MAX;
                bearable.then(|| Hash::Bcrypt(text.into())).ok_or(EntryError::Cost)
            }
            _ => Err(EntryError::Form),
        }
    }

    /// Takes so long that no thread serving others may do it.
    fn is_costly(&self) -> bool {
        !matches!(self, Hash::Plain(_) | Hash::Sha1(_))
    }

    /// What tells this hash from any other.
    fn identity(&self) -> &[u8] {
        match self {
            Hash::Plain(bytes) | Hash::Sha1(bytes) => bytes,
            Hash::Md5(text) | Hash::Sha(text) | Hash::Bcrypt(text) => text.as_bytes(),
        }
    }

    fn matches(&self, password: &[u8]) -> bool {
        let same = |one: &[u8], other: &[u8]| bool::from(one.ct_eq(other));
        match self {
            Hash::Plain(plain) => same(plain, password),
            Hash::Sha1(stored) => {
                let (stored, salt) = stored.split_at(digest::SHA1_OUTPUT_LEN);
                let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
                context.update(password);
                context.update(salt);
                same(context.finish().as_ref(), stored)
            }
            Hash::Md5(text) => crypt::Md5Crypt::parse(text).is_some_and(|crypt| {
                same(crypt.hash(password).as_bytes(), crypt.stored.as_bytes())
            }),
            Hash::Sha(text) => crypt::ShaCrypt::parse(text).is_some_and(|crypt| {
                same(crypt.hash(password).as_bytes(), crypt.stored.as_bytes())
            }),
            Hash::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests;
