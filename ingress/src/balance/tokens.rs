//! What persistent sessions have in their cookies for an endpoint: nothing that tells where it is.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;

/// The tokens of a backend's endpoints, in their order.
#[derive(Debug)]
pub struct Tokens {
    by_token: HashMap<Box<[u8]>, usize>,
    tokens: Box<[String]>,
}

impl Tokens {
    /// The tokens of endpoints in this order. The backend's name keeps them apart from those of the same
    /// endpoints elsewhere.
    pub fn new(backend_name: &str, addresses: impl Iterator<Item = SocketAddr>) -> Tokens {
        let token = |address: SocketAddr| digest(&[backend_name, &address.to_string()]);
        let tokens: Box<[String]> = addresses.map(token).collect();
        let by_token =
            tokens.iter().enumerate().map(|(at, token)| (token.as_bytes().into(), at)).collect();
        Tokens { by_token, tokens }
    }

    /// Whose token it is.
    pub fn find(&self, token: &[u8]) -> Option<usize> {
        self.by_token.get(token).copied()
    }

    /// The token of an endpoint.
    pub fn of(&self, at: usize) -> &str {
        &self.tokens[at]
    }
}

/// 128 bits of a digest that every replica finds alike.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
