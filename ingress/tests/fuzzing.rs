//! The fuzz targets for a few seconds: seeds, and what becomes of them by chance.
//!
//! Chance comes from a seed that is printed; `PODIUM_FUZZING_SEED` repeats a run. For longer ones see
//! `fuzz/`: `cargo fuzz run TARGET`, with `RUSTC_BOOTSTRAP=1` on a stable toolchain.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_ingress::fuzzing;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::panic::catch_unwind;

/// Bytes that mean something somewhere.
const TOKENS: [&[u8]; 24] = [
    b"/",
    b"//",
    b"..",
    b"%2e",
    b"%2F",
    b"%00",
    b"%",
    b"?",
    b"\n",
    b"\r\n",
    b"=",
    b"$1",
    b"(",
    b")*",
    b"[a-z]",
    b"\xc3\xa4",
    b"\xff",
    b"0",
    b"18446744073709551616",
    b"-1",
    b"true",
    b",",
    b":",
    b" ",
];

fn mutate(rng: &mut StdRng, seed: &[u8]) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=out.len());
        match rng.random_range(0..5) {
            0 => drop(out.splice(at..at, TOKENS.choose(rng).unwrap().iter().copied())),
            1 if at < out.len() => out[at] = rng.random(),
            2 => {
                let end = rng.random_range(at..=out.len().min(at + 8));
                drop(out.drain(at..end));
            }
            3 => {
                let end = rng.random_range(at..=out.len().min(at + 16));
                let part = out[at..end].to_vec();
                drop(out.splice(at..at, part));
            }
            _ => drop(out.splice(at..at, [rng.random::<u8>()])),
        }
    }
    out
}

/// Runs a target on its seeds and on `count` inputs made from them.
fn fuzz(target: fn(&[u8]), count: usize, seeds: &[&str]) {
    let chosen = std::env::var("PODIUM_FUZZING_SEED").ok();
    let seed = chosen.map_or_else(rand::random, |text| text.parse().unwrap());
    println!("PODIUM_FUZZING_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut inputs: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    inputs.iter().for_each(|input| target(input));
    for _ in 0..count {
        let at = rng.random_range(0..inputs.len());
        let input = mutate(&mut rng, &inputs[at]);
        if catch_unwind(|| target(&input)).is_err() {
            panic!("this input fails: {:?}", input.escape_ascii().to_string());
        }
        // What came of a seed becomes one, so that changes add up.
        if rng.random_bool(0.05) && input.len() < 2000 {
            inputs.push(input);
        }
    }
}

#[test]
fn annotations() {
    let every: String = (0..400).map(|at| format!("{at}=1\n")).collect();
    let seeds = [
        every.as_str(),
        "rewrite-target=/$2\nuse-regex=true\nproxy-body-size=8m\nwhitelist-source-range=10.0.0.0/8,::1",
        "auth-url=http://auth.shop.svc/x?y=$host\nauth-signin=https://a/\nauth-cache-key=$remote_user",
        "auth-type=basic\nauth-secret=other/name\nauth-realm=\"x\"\nsatisfy=any",
        "canary=true\ncanary-weight=30\ncanary-by-header=X-C\ncanary-by-header-pattern=a|b",
        "enable-cors=true\ncors-allow-origin=https://*.a.example, null\ncors-max-age=600",
        "limit-rps=5\nlimit-burst-multiplier=3\nlimit-connections=10\nlimit-whitelist=10.0.0.0/8",
        "affinity=cookie\nsession-cookie-name=c\nsession-cookie-expires=172800\nupstream-hash-by=$request_uri",
        "permanent-redirect=https://a.example/$request_uri\npermanent-redirect-code=308\napp-root=/x",
        "custom-http-errors=404,503\ndefault-backend=x\nproxy-cookie-path=/a /b\nproxy-redirect-from=default",
        "auth-tls-secret=ns/ca\nauth-tls-verify-depth=2\nauth-tls-match-cn=CN=.*\nproxy-ssl-verify=on",
    ];
    fuzz(fuzzing::annotations, 6000, &seeds);
}

#[test]
fn matcher() {
    let seeds = [
        "/foo/bar\n/\n/foo\n/foo/bar\n=/foo/bar\n/fo",
        "/\n=/\n/",
        "/a/b/c/d\n/a/b\n/a\n=/a/b/c/d/",
        "//\n//\n/",
    ];
    fuzz(fuzzing::matcher, 20_000, &seeds);
}

#[test]
fn expressions() {
    let seeds = [
        "/api/v1/x\n/api(/|$)(.*)\n/api/v[0-9]+/(.*)\n/\n/a.b",
        "/FOO/x\n/foo\n/foo/(.*)\n/(foo|bar)/x\n/f{2}",
        "/\u{e4}\n/\u{e4}\n/[\u{e4}]\n/.\n/\\x",
    ];
    fuzz(fuzzing::expressions, 4000, &seeds);
}

#[test]
fn uri() {
    let seeds = [
        "/app/x%20y?q\n/app(/|$)(.*)\n/$2",
        "http://a.example:80/app//../x#y\n/(?<all>.*)\n/new/$all?from=$1?",
        "/old/%ff+\n/old/(.*)\nhttps://new.example/$1",
        "/%2e%2e/%2F%3F\n/(.*)\n$1",
    ];
    fuzz(fuzzing::uri, 10_000, &seeds);
}

#[test]
fn passwords() {
    let seeds = [
        "u:$apr1$abcdefgh$0123456789012345678901\nv:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n# c\n\nw:plain",
        "u:$2y$05$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234\nx:$5$rounds=5000$salt$hash\ny:$6$s$h",
        "u:rl4aNYdbGhJnY\r\nz:{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9gAAAA=\n:\nnothing",
    ];
    fuzz(fuzzing::passwords, 10_000, &seeds);
}

#[test]
fn http_edge() {
    let seeds = [
        "GET /a?b HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, X\r\nUpgrade: websocket\r\n\r\n",
        "OPTIONS * HTTP/1.0\nHost: A.example:80\n\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    fuzz(fuzzing::http_edge, 6000, &seeds);
}
