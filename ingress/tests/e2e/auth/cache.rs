//! `auth-cache-key` and `auth-cache-duration`.

use super::{asking, get_with, start};
use crate::authority::{Authority, header, plain};
use crate::backend::Backend;
use std::thread;
use std::time::Duration;

/// Lets in whoever says `Bearer yes`.
fn bouncer(headers: &'static str) -> Authority {
    Authority::start(move |head| match header(head, "authorization").as_deref() {
        Some("Bearer yes") => plain("200 OK", &format!("X-User: anna\r\n{headers}")),
        _ => plain("401 No", headers),
    })
}

#[test]
fn auth_cache_key_tells_clients_apart_by_what_it_says() {
    let web = Backend::start("web");
    let authority = bouncer("");
    let key = "auth-cache-key: $http_authorization\nauth-response-headers: X-User";
    let podium = start(&web, &[&asking(&authority, key), &asking(&authority, key)], "", &[]);
    let yes = |host: &str| {
        let answer = get_with(&podium, host, "/", "Authorization: Bearer yes\r\n");
        assert_eq!((answer.status, answer.seen("x-user").as_str()), (200, "anna"));
    };
    for _ in 0..3 {
        yes("a.example");
        assert_eq!(podium.get("a.example", "/").status, 401);
        assert_eq!(get_with(&podium, "a.example", "/", "Authorization: Bearer no\r\n").status, 401);
    }
    assert_eq!(authority.asked().len(), 3, "each key once");
    // What one location knows is nothing to another one.
    yes("b.example");
    assert_eq!(authority.asked().len(), 4);
}

#[test]
fn auth_cache_key_asks_once_for_many_at_the_same_time() {
    let web = Backend::start("web");
    let authority = Authority::start(|_| {
        thread::sleep(Duration::from_millis(300));
        plain("200 OK", "")
    });
    let podium = start(&web, &[&asking(&authority, "auth-cache-key: all")], "", &[]);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(podium.get("a.example", "/").status, 200));
        }
    });
    assert_eq!(authority.asked().len(), 1);
}

#[test]
fn auth_cache_key_remembers_nothing_that_is_for_one_client_or_an_error() {
    let web = Backend::start("web");
    let cookie = bouncer("Set-Cookie: s=1\r\n");
    let private = bouncer("Cache-Control: private\r\n");
    let vary = bouncer("Vary: X-Tenant\r\n");
    let error = Authority::saying("500 Oops", "");
    let key = "auth-cache-key: all";
    let podium = start(
        &web,
        &[
            &asking(&cookie, key),
            &asking(&private, key),
            &asking(&vary, key),
            &asking(&error, key),
            &asking(&error, "auth-cache-key: $unicorn"),
        ],
        "",
        &[],
    );
    for host in ["a.example", "b.example", "c.example", "d.example"] {
        for tenant in ["one", "two"] {
            get_with(&podium, host, "/", &format!("X-Tenant: {tenant}\r\n"));
        }
    }
    for authority in [&cookie, &private, &vary, &error] {
        assert_eq!(authority.asked().len(), 2);
    }
    assert_eq!(podium.get("e.example", "/").status, 500, "a wrong key opens nothing");
}

#[test]
fn auth_cache_duration_says_which_statuses_and_how_long() {
    let web = Backend::start("web");
    let authority = bouncer("");
    let podium = start(
        &web,
        &[
            &asking(&authority, "auth-cache-key: $http_authorization\nauth-cache-duration: 200 1s"),
            &asking(&authority, "auth-cache-key: x\nauth-cache-duration: 200 soon"),
        ],
        "",
        &[],
    );
    let count = || authority.asked().len();
    for _ in 0..2 {
        assert_eq!(podium.get("a.example", "/").status, 401);
    }
    assert_eq!(count(), 2, "401 is not in the list");
    crate::harness::wait_until("it asks again after a second", || {
        assert_eq!(
            get_with(&podium, "a.example", "/", "Authorization: Bearer yes\r\n").status,
            200
        );
        count() > 3
    });
    assert_eq!(podium.get("b.example", "/").status, 503, "a wrong one closes");
}
