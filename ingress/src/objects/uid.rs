//! The uid of an object, which only Events on it need: kept small.

use std::fmt;

/// `metadata.uid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Uid {
    /// A UUID as Kubernetes writes it.
    Uuid([u8; 16]),
    /// Anything else.
    Text(Box<str>),
}

impl Uid {
    /// That of a text.
    pub fn of(text: &str) -> Uid {
        let digits: String = text.chars().filter(|digit| *digit != '-').collect();
        let number = u128::from_str_radix(&digits, 16).unwrap_or_default();
        let uuid = Uid::Uuid(number.to_be_bytes());
        if uuid.to_string() == text { uuid } else { Uid::Text(text.into()) }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self {
            Uid::Uuid(bytes) => bytes,
            Uid::Text(text) => return f.write_str(text),
        };
        for (at, byte) in bytes.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_written_as_it_was() {
        for (text, small) in [
            ("0a1b2c3d-4e5f-4061-8283-a4b5c6d7e8f9", true),
            ("0A1B2C3D-4e5f-4061-8283-a4b5c6d7e8f9", false),
            ("0a1b2c3d4e5f40618283a4b5c6d7e8f9", false),
            ("0a1b2c3d-4e5f-4061-8283-a4b5c6d7e8", false),
            ("unit-1", false),
            ("", false),
        ] {
            let uid = Uid::of(text);
            assert_eq!(uid.to_string(), text);
            assert_eq!(matches!(uid, Uid::Uuid(_)), small, "{text}");
        }
    }
}
