//! Distinguished names as OpenSSL writes them in RFC 2253 form, which is what nginx tells endpoints.

use std::fmt::Write as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// OpenSSL's short names; other types are written as numbers.
const SHORT_NAMES: [(&str, &str); 22] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Writes a name, the most specific part first.
pub fn rfc_2253(name: &X509Name<'_>) -> String {
    let sets: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (at, set) in sets.iter().rev().enumerate() {
        if at > 0 {
            text.push(',');
        }
        let attributes: Vec<_> = set.iter().collect();
        for (at, attribute) in attributes.iter().rev().enumerate() {
            if at > 0 {
                text.push('+');
            }
            write_attribute(&mut text, attribute);
        }
    }
    text
}

fn write_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT_NAMES.iter().find(|(known, _)| *known == oid).map(|(_, short)| *short);
    text.push_str(short.unwrap_or(&oid));
    text.push('=');
    match (short, attribute.as_str()) {
        (Some(_), Ok(value)) => write_value(text, value),
        _ => write_hex(text, attribute),
    }
}

/// What cannot be written as text is written as its encoding.
fn write_hex(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    use x509_parser::asn1_rs::ToDer;
    text.push('#');
    for byte in attribute.attr_value().to_der_vec().unwrap_or_default() {
        let _ = write!(text, "{byte:02X}");
    }
}

fn write_value(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';')
            || (at == 0 && matches!(byte, b'#' | b' '))
            || (at == last && byte == b' ');
        match byte {
            _ if special => {
                text.push('\\');
                text.push(char::from(byte));
            }
            0..0x20 | 0x7f.. => {
                let _ = write!(text, "\\{byte:02X}");
            }
            _ => text.push(char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};
    use std::process::Command;
    use x509_parser::prelude::{FromDer, X509Certificate};

    /// OpenSSL itself says how the name is written.
    #[test]
    fn names_are_those_openssl_writes() {
        let mut params = CertificateParams::new(vec![]).unwrap();
        let name = &mut params.distinguished_name;
        *name = rcgen::DistinguishedName::new();
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, " Acme, \"Best\" + <Söhne>; ");
        name.push(DnType::OrganizationalUnitName, "#1 \\ two");
        name.push(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), "a@b.example");
        name.push(DnType::CustomDnType(vec![1, 2, 3, 4, 5]), "unknown");
        name.push(DnType::CommonName, "client");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), certificate.pem()).unwrap();
        let openssl = Command::new("openssl")
            .args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"])
            .arg(file.path())
            .output()
            .unwrap();
        let said = String::from_utf8(openssl.stdout).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(format!("subject={}\n", rfc_2253(parsed.subject())), said);
    }
}
