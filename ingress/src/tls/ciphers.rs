//! Cipher lists in the words of OpenSSL, as far as rustls has the ciphers.
//!
//! There are six of them for TLS 1.2, all with forward secrecy; those of TLS 1.3 are no part of such a
//! list, in nginx as well as here.

use rustls::CipherSuite;

/// TLS 1.2: OpenSSL's name, ours, and what groups of names like `ECDHE+AESGCM` go by. In the order
/// ingress-nginx offers them.
const TLS_1_2: [(&str, CipherSuite, &[&str]); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        &["ECDSA", "AECDSA", "AES", "AES128", "AESGCM", "SHA256"],
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        &["RSA", "ARSA", "AES", "AES128", "AESGCM", "SHA256"],
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        &["ECDSA", "AECDSA", "AES", "AES256", "AESGCM", "SHA384"],
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        &["RSA", "ARSA", "AES", "AES256", "AESGCM", "SHA384"],
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        &["ECDSA", "AECDSA", "CHACHA20", "SHA256"],
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        &["RSA", "ARSA", "CHACHA20", "SHA256"],
    ),
];

/// Words for all of them.
const ALL: [&str; 8] = ["ALL", "HIGH", "DEFAULT", "ECDHE", "EECDH", "KEECDH", "KECDHE", "TLSV1.2"];

/// Words that ask for nothing of ours and are no mistake.
const WITHOUT_EFFECT: [&str; 2] = ["COMPLEMENTOFALL", "COMPLEMENTOFDEFAULT"];

/// A list as understood.
#[derive(Clone, Debug, PartialEq)]
pub struct CipherSelection {
    /// Of TLS 1.2, in the order of the list.
    pub suites: Vec<CipherSuite>,
    /// Names without a cipher here, separated by commas.
    pub unknown: String,
}

/// The ciphers of TLS 1.2 unless something else is said.
pub fn default_suites() -> Vec<CipherSuite> {
    TLS_1_2.iter().map(|(_, suite, _)| *suite).collect()
}

/// Reads a list. One without any cipher of ours is an error.
pub fn select(list: &str) -> Result<CipherSelection, String> {
    let mut suites: Vec<CipherSuite> = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        if word.starts_with('@') {
            continue;
        }
        let name = word.trim_start_matches(['!', '-', '+']);
        let found = matching(name);
        match word.as_bytes()[0] {
            b'!' | b'-' => suites.retain(|suite| !found.contains(suite)),
            b'+' => {
                let (last, first) = suites.iter().partition(|suite| found.contains(suite));
                suites = first;
                suites.extend::<Vec<_>>(last);
            }
            _ if found.is_empty() => {
                if !WITHOUT_EFFECT.contains(&name.to_ascii_uppercase().as_str()) {
                    unknown.push(name);
                }
            }
            _ => {
                let new: Vec<_> =
                    found.into_iter().filter(|suite| !suites.contains(suite)).collect();
                suites.extend(new);
            }
        }
    }
    if suites.is_empty() {
        return Err("none of the ciphers of the list is offered here".into());
    }
    Ok(CipherSelection { suites, unknown: unknown.join(", ") })
}

fn matching(name: &str) -> Vec<CipherSuite> {
    let name = name.to_ascii_uppercase();
    let all = |fits: &dyn Fn(&str, &[&str]) -> bool| {
        let fitting = TLS_1_2.iter().filter(|(full, _, groups)| fits(full, groups));
        fitting.map(|(_, suite, _)| *suite).collect::<Vec<_>>()
    };
    let exact = all(&|full, _| full == name);
    if !exact.is_empty() {
        return exact;
    }
    all(&|_, groups| name.split('+').all(|part| ALL.contains(&part) || groups.contains(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> String {
        let selection = match select(list) {
            Ok(selection) => selection,
            Err(error) => return error,
        };
        let name = |suite: &CipherSuite| {
            TLS_1_2.iter().find(|(_, known, _)| known == suite).unwrap().0.to_string()
        };
        let suites: Vec<String> = selection.suites.iter().map(name).collect();
        format!("{}|{}", suites.join(":"), selection.unknown)
    }

    #[test]
    fn lists_of_openssl_are_read() {
        for (list, expected) in [
            (
                "ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256|DHE-RSA-AES128-GCM-SHA256",
            ),
            ("EECDH+CHACHA20", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305|"),
            (
                "ECDHE+AESGCM:!aECDSA:!MD5",
                "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384|",
            ),
            (
                "aRSA:-AES256:+AES128:@STRENGTH",
                "ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256|",
            ),
            ("RC4-MD5", "none of the ciphers of the list is offered here"),
            ("", "none of the ciphers of the list is offered here"),
        ] {
            assert_eq!(names(list), expected, "{list}");
        }
        assert_eq!(select("HIGH:!aNULL:!MD5").unwrap().suites, default_suites());
    }
}
