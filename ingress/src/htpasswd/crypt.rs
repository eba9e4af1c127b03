//! The two crypts that are sums of many sums: MD5 (by Poul-Henning Kamp, and Apache's variant), and SHA-256
//! and SHA-512 (by Ulrich Drepper). Only for verifying what others have written.

use md5::Md5;
use sha2::{Digest, Sha256, Sha512};

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// More rounds than this take too long for a request.
const SHA_ROUNDS_MAX: usize = 500_000;

/// Three bytes, lowest last, as characters, lowest first.
fn encode(out: &mut String, bytes: [u8; 3], characters: usize) {
    let mut bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
    for _ in 0..characters {
        out.push(char::from(ALPHABET[(bits & 63) as usize]));
        bits >>= 6;
    }
}

/// `$apr1$salt$hash` or `$1$salt$hash`.
pub struct Md5Crypt<'a> {
    magic: &'a str,
    salt: &'a str,
    /// The hash of the right password.
    pub stored: &'a str,
}

impl<'a> Md5Crypt<'a> {
    pub fn parse(text: &'a str) -> Option<Md5Crypt<'a>> {
        let magic = ["$apr1$", "$1$"].into_iter().find(|magic| text.starts_with(magic))?;
        let (salt, stored) = text[magic.len()..].split_once('$')?;
        let salt = salt.get(..salt.len().min(8))?;
        (stored.len() == 22).then_some(Md5Crypt { magic: &text[..magic.len()], salt, stored })
    }

    pub fn hash(&self, password: &[u8]) -> String {
        let salt = self.salt.as_bytes();
        let mut sum = Md5::new().chain_update(password);
        sum.update(self.magic);
        sum.update(salt);
        let twice = Md5::new().chain_update(password).chain_update(salt).chain_update(password);
        let twice = twice.finalize();
        for at in (0..password.len()).step_by(16) {
            sum.update(&twice[..(password.len() - at).min(16)]);
        }
        let mut length = password.len();
        while length > 0 {
            sum.update(if length & 1 == 1 { &[0] } else { &password[..1] });
            length >>= 1;
        }
        let mut last = sum.finalize();
        for round in 0..1000 {
            let mut sum = Md5::new();
            let odd = round % 2 == 1;
            sum.update(if odd { password } else { &last });
            if round % 3 != 0 {
                sum.update(salt);
            }
            if round % 7 != 0 {
                sum.update(password);
            }
            sum.update(if odd { &last } else { password });
            last = sum.finalize();
        }
        let mut out = String::with_capacity(22);
        for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
            encode(&mut out, [last[a], last[b], last[c]], 4);
        }
        encode(&mut out, [0, 0, last[11]], 2);
        out
    }
}

/// `$5$[rounds=N$]salt$hash` or `$6$…`.
pub struct ShaCrypt<'a> {
    long: bool,
    rounds: usize,
    salt: &'a str,
    /// The hash of the right password.
    pub stored: &'a str,
}

impl<'a> ShaCrypt<'a> {
    pub fn parse(text: &'a str) -> Option<ShaCrypt<'a>> {
        let long = text.starts_with("$6$");
        let rest = text.strip_prefix("$5$").or_else(|| text.strip_prefix("$6$"))?;
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) => {
                let (rounds, rest) = rest.split_once('$')?;
                (rounds.parse::<usize>().ok()?.clamp(1000, 999_999_999), rest)
            }
            None => (5000, rest),
        };
        let (salt, stored) = rest.split_once('$')?;
        let salt = salt.get(..salt.len().min(16))?;
        let length = if long { 86 } else { 43 };
        (stored.len() == length).then_some(ShaCrypt { long, rounds, salt, stored })
    }

    pub fn is_bearable(&self) -> bool {
        self.rounds <= SHA_ROUNDS_MAX
    }

    pub fn hash(&self, password: &[u8]) -> String {
        let salt = self.salt.as_bytes();
        let mut out = String::with_capacity(86);
        if self.long {
            let sum = sha_rounds::<Sha512>(password, salt, self.rounds);
            // The order is a walk: each triple is the one before, turned and moved on by one.
            let (mut a, mut b, mut c) = (0, 21, 42);
            for _ in 0..21 {
                encode(&mut out, [sum[a], sum[b], sum[c]], 4);
                (a, b, c) = (b + 1, c + 1, a + 1);
            }
            encode(&mut out, [0, 0, sum[63]], 2);
        } else {
            let sum = sha_rounds::<Sha256>(password, salt, self.rounds);
            let (mut a, mut b, mut c) = (0, 10, 20);
            for _ in 0..10 {
                encode(&mut out, [sum[a], sum[b], sum[c]], 4);
                (a, b, c) = (c + 1, a + 1, b + 1);
            }
            encode(&mut out, [0, sum[31], sum[30]], 3);
        }
        out
    }
}

fn sha_rounds<D: Digest + Clone>(password: &[u8], salt: &[u8], rounds: usize) -> Vec<u8> {
    let other = D::new().chain_update(password).chain_update(salt).chain_update(password);
    let other = other.finalize();
    let mut sum = D::new().chain_update(password).chain_update(salt);
    sum.update(repeat(&other, password.len()));
    let mut length = password.len();
    while length > 0 {
        sum.update(if length & 1 == 1 { &other } else { password });
        length >>= 1;
    }
    let mut last = sum.finalize();
    let mut of_password = D::new();
    for _ in 0..password.len() {
        of_password.update(password);
    }
    let password = repeat(&of_password.finalize(), password.len());
    let mut of_salt = D::new();
    for _ in 0..16 + usize::from(last[0]) {
        of_salt.update(salt);
    }
    let salt = repeat(&of_salt.finalize(), salt.len());
    for round in 0..rounds {
        let mut sum = D::new();
        let odd = round % 2 == 1;
        sum.update(if odd { &password[..] } else { &last });
        if round % 3 != 0 {
            sum.update(&salt);
        }
        if round % 7 != 0 {
            sum.update(&password);
        }
        sum.update(if odd { &last } else { &password[..] });
        last = sum.finalize();
    }
    last.to_vec()
}

fn repeat(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes.iter().copied().cycle().take(length).collect()
}
