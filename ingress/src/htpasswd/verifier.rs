//! Verifying passwords without holding up others: what is costly happens on threads of its own, a few at
//! a time, and a password that was right is remembered for a while by a keyed sum of it.

use super::{PASSWORD_BYTES_MAX, Passwords};
use crate::credentials::Credentials;
use crate::recent::Recent;
use ring::hmac;
use ring::rand::SystemRandom;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// How many right passwords are remembered.
const REMEMBERED_MAX: usize = 8192;

/// What verifying needs beside the passwords.
#[derive(Debug)]
pub struct Verifier {
    /// New in every process: what is remembered is worth nothing elsewhere.
    key: hmac::Key,
    remembered: Mutex<Recent<[u8; 32], ()>>,
    /// So many at a time: wrong passwords must not take all processors.
    at_a_time: Semaphore,
}

impl Verifier {
    /// One that remembers nothing yet.
    pub fn new() -> Result<Verifier, ring::error::Unspecified> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Verifier {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            remembered: Mutex::new(Recent::new(REMEMBERED_MAX)),
            at_a_time: Semaphore::new(threads.div_ceil(2)),
        })
    }

    /// Whether the user exists and the password is right.
    pub async fn verify(&self, passwords: &Arc<Passwords>, credentials: Credentials) -> bool {
        let Credentials { user, password } = credentials;
        let Some(hash) = passwords.users.get(user.as_slice()) else {
            return false;
        };
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        if !hash.is_costly() {
            return hash.matches(&password);
        }
        let tag = self.tag(hash.identity(), &password);
        if self.remembers(&tag) {
            return true;
        }
        let Ok(_permit) = self.at_a_time.acquire().await else {
            return false;
        };
        let passwords = passwords.clone();
        let verified = tokio::task::spawn_blocking(move || {
            passwords.users.get(user.as_slice()).is_some_and(|hash| hash.matches(&password))
        });
        let right = verified.await.unwrap_or(false);
        if right {
            self.remembered.lock().unwrap_or_else(PoisonError::into_inner).insert(tag, ());
        }
        right
    }

    fn remembers(&self, tag: &[u8; 32]) -> bool {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(tag).is_some()
    }

    /// A sum of hash and password: another hash, as after a change of the Secret, is another sum.
    fn tag(&self, hash: &[u8], password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&hash.len().to_be_bytes());
        context.update(hash);
        context.update(password);
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}
