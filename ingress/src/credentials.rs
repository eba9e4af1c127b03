//! User name and password of a request (RFC 7617).

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Padding is often forgotten, and nginx does not ask for it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Never empty.
    pub user: Vec<u8>,
    /// May be empty.
    pub password: Vec<u8>,
}

impl Credentials {
    /// Reads `Authorization: Basic …`; `None` where there is none or it is broken.
    pub fn of(headers: &HeaderMap) -> Option<Credentials> {
        let value = headers.get(AUTHORIZATION)?.as_bytes();
        let (scheme, encoded) = value.split_at_checked(b"Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let mut user = LENIENT.decode(encoded.trim_ascii()).ok()?;
        let colon = user.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0)?;
        let password = user.split_off(colon + 1);
        user.truncate(colon);
        Some(Credentials { user, password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        let read = Credentials::of(&headers)?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Some(format!("{} {}", text(read.user), text(read.password)))
    }

    #[test]
    fn credentials_are_read_as_nginx_does() {
        for (value, credentials) in [
            ("Basic dXNlcjpwYXNz", Some("user pass")),
            ("basic   dXNlcjpwYXNz", Some("user pass")),
            ("Basic dXNlcjpwYTpzcw", Some("user pa:ss")),
            ("Basic dXNlcjo=", Some("user ")),
            ("Basic OnBhc3M=", None),
            ("Basic dXNlcg==", None),
            ("Basic !!!", None),
            ("Bearer dXNlcjpwYXNz", None),
            ("Basic", None),
        ] {
            assert_eq!(read(value).as_deref(), credentials, "{value}");
        }
        assert!(Credentials::of(&HeaderMap::new()).is_none());
    }
}
