//! Lines of password files: every kind of hash, right and wrong passwords, lines nobody can use.

use super::*;
use crate::credentials::Credentials;
use std::sync::Arc;

/// What `openssl passwd` and libc's `crypt` made of "open sesame" unless it says otherwise.
const HASHES: &[(&str, &str)] = &[
    ("$apr1$saltsalt$HIDXe7D36X22w1CH4M1cQ.", "open sesame"),
    ("$apr1$abc$RUt4qVhwNewYFWnPyK2Vf/", "a"),
    ("$1$saltsalt$Yo6tRKYGO/jWyb1etwHDS/", "open sesame"),
    ("$1$abc$uAXS.Zj1ZDNcW9iX1TVH2/", "a"),
    ("$5$saltsalt$yrhPKxCqiWcCE9h0g86j6Ugz7SDFdFm.BjU.d8RaQnC", "open sesame"),
    ("$5$abc$HHlb8QMClR55.dRTU4JXNgHGkR1U6jlbNtlfDN528y0", "a"),
    (
        "$6$saltsalt$e/5XKibXPLqVcfjpD.ouauaJrAOL5V0uo80Lt7n7EbRdRiCx3HbQ90yjOHr.G0T.mx79PEMRy8nmtr0qSYhQp1",
        "open sesame",
    ),
    (
        "$6$rounds=1200$abcdefghijklmnop$9iCWGA6sYYgqjwmSM3vwbBWpD3PPJ1HfdOvrijuma0GCjsUdBJOhBPHW65hTo99Otl/TL5zG0LLdR4rpf5jYA/",
        "x",
    ),
    (
        "$apr1$saltsalt$ojB/nks/DWA9mXppr7Q130",
        "a password of more than sixteen characters, and then some more",
    ),
    (
        "$5$saltsalt$ZjUkDUE/B4nsxq3N1o5K2bP1oPABS7u4ybkve.ypyM2",
        "a password of more than sixteen characters, and then some more",
    ),
    (
        "$6$saltsalt$Ue2rme7lT4TayTfEfkFYf1.DvjlYqYp/Mf2dVCiq9cF6/2BQE2xTRw5TbSvgJZdwZGm60q/KN9VvcfxnbkHQe.",
        "a password of more than sixteen characters, and then some more, to be more than sixty-four",
    ),
    ("$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW", "open sesame"),
    ("{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=", "open sesame"),
    ("{SSHA}hN5uxFJUEWCPg56kk42tnVCdJ61zYWx0", "open sesame"),
    ("{PLAIN}open sesame", "open sesame"),
];

#[test]
fn all_forms_take_the_right_password_only() {
    for (hash, password) in HASHES {
        let parsed = Hash::parse(hash.as_bytes()).unwrap();
        assert!(parsed.matches(password.as_bytes()), "{hash}");
        for wrong in ["", "open sesam", "open sesame ", "Open sesame"] {
            assert!(!parsed.matches(wrong.as_bytes()), "{hash} {wrong}");
        }
    }
}

#[test]
fn other_forms_are_named() {
    let form = EntryError::Form;
    for (hash, error) in [
        ("ab/G8gtZdMwak", &form),
        ("plain", &form),
        ("", &form),
        ("{SHA}short", &form),
        ("{SSHA}W8r/fyL/UzygmbNAjq2HbA67qac=", &form),
        ("$apr1$saltsalt$short", &form),
        ("$7$x$y", &form),
        ("$2y$05$short", &form),
        ("$2y$20$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW", &EntryError::Cost),
        (
            "$5$rounds=900000000$saltsalt$yrhPKxCqiWcCE9h0g86j6Ugz7SDFdFm.BjU.d8RaQnC",
            &EntryError::Cost,
        ),
    ] {
        assert_eq!(Hash::parse(hash.as_bytes()).as_ref(), Err(error), "{hash}");
    }
}

#[test]
fn files_are_read_as_nginx_reads_them() {
    let file = "# staff\nanna:{PLAIN}one\r\nben:{PLAIN}two:a comment\nanna:{PLAIN}three\n\nnobody\nold:ab/G8gtZdMwak\n:x\n";
    let (passwords, problems) = Passwords::from_file(file.as_bytes());
    let right = |user: &[u8], password: &[u8]| passwords.users[user].matches(password);
    assert!(right(b"anna", b"one") && !right(b"anna", b"three") && right(b"ben", b"two"));
    assert_eq!(passwords.users.len(), 2);
    let named: Vec<String> =
        problems.iter().map(|(user, error)| format!("{user:?} {error}")).collect();
    assert_eq!(
        named,
        [
            "\"nobody\" is not of the form user:password",
            "\"old\" has a password in a form that is not supported; use bcrypt (htpasswd -B)",
            "\"\" is not of the form user:password",
        ]
    );
}

#[tokio::test]
async fn what_was_right_is_not_right_for_another_hash() {
    let read = |text: &str| Arc::new(Passwords::from_file(text.as_bytes()).0);
    let before = read("anna:$apr1$saltsalt$HIDXe7D36X22w1CH4M1cQ.");
    let after = read("anna:$apr1$abc$RUt4qVhwNewYFWnPyK2Vf/");
    let verifier = Verifier::new().unwrap();
    let credentials =
        |user: &str, password: &str| Credentials { user: user.into(), password: password.into() };
    for _ in 0..2 {
        assert!(verifier.verify(&before, credentials("anna", "open sesame")).await);
        assert!(!verifier.verify(&before, credentials("anna", "a")).await);
        assert!(!verifier.verify(&before, credentials("ben", "open sesame")).await);
        assert!(!verifier.verify(&after, credentials("anna", "open sesame")).await);
        assert!(verifier.verify(&after, credentials("anna", "a")).await);
    }
    let long = "a".repeat(PASSWORD_BYTES_MAX + 1);
    assert!(!verifier.verify(&before, credentials("anna", &long)).await);
}
