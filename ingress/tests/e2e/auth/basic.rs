//! `auth-type: basic` with its Secret.

use super::{get_with, start};
use crate::backend::Backend;
use crate::cluster::Cluster;
use crate::harness::annotated;
use crate::harness::{Answer, Ingress, ingress, service, wait_until};
use std::fmt::Write as _;
use std::process::Command;

const BASIC: &str = "auth-type: basic\nauth-secret: users\nauth-realm: Staff only";

fn openssl(arguments: &[&str]) -> String {
    let out = Command::new("openssl").args(arguments).output().expect("openssl is needed");
    String::from_utf8(out.stdout).unwrap().trim().to_string()
}

fn secret(name: &str, data: &[(&str, &str)]) -> String {
    let mut text =
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n");
    for (key, value) in data {
        writeln!(text, "  {key}: {value:?}").unwrap();
    }
    text
}

fn login(podium: &Ingress, host: &str, user_and_password: &str) -> Answer {
    let encoded = crate::auth::basic::base64(user_and_password.as_bytes());
    get_with(podium, host, "/", &format!("Authorization: Basic {encoded}\r\n"))
}

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let character = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= chunk.len() { char::from(character) } else { '=' });
        }
    }
    out
}

#[test]
fn auth_type_basic_lets_in_who_knows_a_password() {
    let web = Backend::start("web");
    let file = format!(
        "apr1:{}\nmd5:{}\nsha256:{}\nsha512:{}\nbcrypt:{}\nsha1:{}\nplain:{}\ncrypt:{}\n",
        openssl(&["passwd", "-apr1", "pass:word"]),
        openssl(&["passwd", "-1", "pass:word"]),
        openssl(&["passwd", "-5", "pass:word"]),
        openssl(&["passwd", "-6", "pass:word"]),
        "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW",
        "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=",
        "{PLAIN}open sesame",
        "ab/G8gtZdMwak",
    );
    let podium = start(&web, &[BASIC], &secret("users", &[("auth", &file)]), &[]);
    for (user, password) in [
        ("apr1", "pass:word"),
        ("md5", "pass:word"),
        ("sha256", "pass:word"),
        ("sha512", "pass:word"),
        ("bcrypt", "open sesame"),
        ("sha1", "open sesame"),
        ("plain", "open sesame"),
    ] {
        for _ in 0..2 {
            let answer = login(&podium, "a.example", &format!("{user}:{password}"));
            assert_eq!(answer.status, 200, "{user}");
            assert_eq!(answer.seen("authorization"), "", "endpoints do not see passwords");
        }
        for wrong in ["", "x", "pass", "open sesam"] {
            assert_eq!(
                login(&podium, "a.example", &format!("{user}:{wrong}")).status,
                401,
                "{user}"
            );
        }
    }
    let asked = podium.get("a.example", "/");
    assert_eq!(
        (asked.status, asked.header("www-authenticate").as_str()),
        (401, "Basic realm=\"Staff only\"")
    );
    for wrong in ["nobody:x", "plain", ":open sesame", "crypt:open sesame", "plain:open sesame\0"] {
        assert_eq!(login(&podium, "a.example", wrong).status, 401, "{wrong}");
    }
    assert!(
        podium.metrics().contains("podium_ingress_problems{kind=\"Ingress\",severity=\"error\"} 1"),
        "crypt is named"
    );
}

#[test]
fn auth_type_basic_is_not_taken_in_by_headers() {
    let web = Backend::start("web");
    let podium = start(&web, &[BASIC], &secret("users", &[("auth", "anna:{PLAIN}one")]), &[]);
    let right = base64(b"anna:one");
    for (headers, status) in [
        (format!("Authorization: Basic {right}\r\n"), 200),
        (format!("authorization: basic   {right}\r\n"), 200),
        (format!("Authorization: Bearer {right}\r\n"), 401),
        (format!("Authorization: Basic {right}x\r\n"), 401),
        (
            format!(
                "Authorization: Basic {right}\r\nAuthorization: Basic {}\r\n",
                base64(b"root:x")
            ),
            400,
        ),
        (format!("Proxy-Authorization: Basic {right}\r\n"), 401),
        (format!("X-Authorization: Basic {right}\r\n"), 401),
        (format!("Authorization_: Basic {right}\r\n"), 401),
        ("X-Remote-User: anna\r\n".into(), 401),
        (format!("Authorization: Basic {}\r\n", base64(&[b'a'; 6000])), 401),
    ] {
        assert_eq!(get_with(&podium, "a.example", "/", &headers).status, status, "{headers}");
    }
    let in_url = podium.send(
        "GET http://anna:one@a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
    );
    assert!(in_url.status == 400 || in_url.status == 401, "{}", in_url.status);
}

#[test]
fn auth_type_digest_is_refused() {
    let web = Backend::start("web");
    let digest = "auth-type: digest\nauth-secret: users";
    let podium = start(&web, &[digest], &secret("users", &[("auth", "anna:{PLAIN}one")]), &[]);
    assert_eq!(podium.get("a.example", "/").status, 503);
}

#[test]
fn auth_secret_changes_apply_and_missing_ones_close() {
    let web = Backend::start("web");
    let podium = start(
        &web,
        &[BASIC, "auth-type: basic\nauth-secret: other/users", "auth-type: basic"],
        "",
        &[],
    );
    for host in ["a.example", "b.example", "c.example"] {
        assert_eq!(login(&podium, host, "anna:one").status, 503, "{host}");
    }
    let write = |data: &[(&str, &str)]| {
        podium.write("secret.yaml", secret("users", data).trim_start_matches("---\n"));
    };
    let becomes = |status: u16| {
        wait_until("the Secret is read", || {
            login(&podium, "a.example", "anna:one").status == status
        });
    };
    write(&[("auth", "anna:{PLAIN}one")]);
    becomes(200);
    write(&[("auth", "anna:{PLAIN}two")]);
    becomes(401);
    assert_eq!(login(&podium, "a.example", "anna:two").status, 200);
    write(&[("password", "anna:{PLAIN}one")]);
    becomes(503);
    write(&[("auth", "anna:{PLAIN}one")]);
    becomes(200);
    write(&[("auth", "# nobody\n")]);
    becomes(401);
}

#[test]
fn auth_secret_is_the_only_one_read_from_the_api() {
    let web = Backend::start("web");
    let cluster = Cluster::start();
    cluster.apply(&service("web", &[&web]));
    let rules = [("a.example", "/", "Prefix", "web")];
    cluster.apply(&ingress("web", &annotated(BASIC), &rules));
    let write = |file: &str| {
        cluster.apply(secret("users", &[("auth", file)]).trim_start_matches("---\n"));
    };
    write("anna:{PLAIN}one");
    cluster.apply(secret("others", &[("auth", "anna:{PLAIN}two")]).trim_start_matches("---\n"));
    let podium = crate::from_api::start(&cluster, &[]);
    assert_eq!(login(&podium, "a.example", "anna:one").status, 200);
    assert_eq!(login(&podium, "a.example", "anna:two").status, 401);
    write("anna:{PLAIN}three");
    wait_until("the change is seen", || login(&podium, "a.example", "anna:three").status == 200);
    let reads = cluster.reads();
    let mut secrets = reads.iter().filter(|read| read.contains("/secrets")).peekable();
    assert!(secrets.peek().is_some());
    assert!(secrets.all(|read| read.contains("/namespaces/default/secrets?")
        && read.contains("fieldSelector=metadata.name%3Dusers")));
}

#[test]
fn auth_secret_type_map_has_a_key_for_each_user() {
    let web = Backend::start("web");
    let map = "auth-type: basic\nauth-secret: users\nauth-secret-type: auth-map";
    let wrong = "auth-type: basic\nauth-secret: users\nauth-secret-type: list";
    let users = secret("users", &[("anna", "{PLAIN}one"), ("ben", "{PLAIN}two")]);
    let podium = start(&web, &[map, wrong], &users, &[]);
    assert_eq!(login(&podium, "a.example", "anna:one").status, 200);
    assert_eq!(login(&podium, "a.example", "ben:two").status, 200);
    assert_eq!(login(&podium, "a.example", "ben:one").status, 401);
    assert_eq!(login(&podium, "b.example", "anna:one").status, 503);
}

#[test]
fn auth_realm_is_what_clients_are_asked_for() {
    let web = Backend::start("web");
    let realm = |realm: &str| format!("auth-type: basic\nauth-secret: users\nauth-realm: {realm}");
    let podium = start(
        &web,
        &["auth-type: basic\nauth-secret: users", &realm("off"), &realm("a\"b")],
        &secret("users", &[("auth", "anna:{PLAIN}one")]),
        &[],
    );
    let asked = |host: &str| podium.get(host, "/").header("www-authenticate");
    assert_eq!(asked("a.example"), "Basic realm=\"\"");
    // In nginx's own words that would switch the guard off.
    assert_eq!(asked("b.example"), "Basic realm=\"off\"");
    assert_eq!(podium.get("b.example", "/").status, 401);
    assert_eq!(podium.get("c.example", "/").status, 503);
}

/// Many wrong passwords at the same time hold up nobody.
#[test]
fn auth_type_basic_stays_usable_while_passwords_are_guessed() {
    let web = Backend::start("web");
    let users =
        "slow:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\nanna:{PLAIN}one\n";
    let podium = start(&web, &[BASIC, ""], &secret("users", &[("auth", users)]), &[]);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let podium = &podium;
            scope.spawn(move || {
                for guess in 0..10 {
                    let status = login(podium, "a.example", &format!("slow:{at}{guess}")).status;
                    assert_eq!(status, 401);
                }
            });
        }
        for _ in 0..10 {
            assert_eq!(podium.get("b.example", "/").status, 200);
            assert_eq!(login(&podium, "a.example", "anna:one").status, 200);
        }
    });
}
