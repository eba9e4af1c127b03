//! Requests to authorities: what they carry, and what their answers lead to.

use super::*;

#[test]
fn statuses_open_shut_or_fail() {
    let step = |status| Said::read(status, &HeaderMap::new(), &[]).step();
    for status in [200, 202, 204, 299] {
        assert!(matches!(step(status), Step::Open), "{status}");
    }
    for (status, answer) in
        [(401, 401), (403, 403), (100, 500), (301, 500), (404, 500), (500, 500), (503, 500)]
    {
        let Step::Shut(shut) = step(status) else { panic!("{status} opens") };
        assert_eq!(shut.status, answer, "{status}");
    }
}

#[test]
fn headers_of_an_answer_are_taken_by_name() {
    let mut answer = HeaderMap::new();
    for (name, value) in [
        ("x-user", "anna"),
        ("x-group", "a"),
        ("x-group", "b"),
        ("x-empty", ""),
        ("x-other", "no"),
        ("set-cookie", "one=1"),
        ("set-cookie", "two=2"),
    ] {
        answer.append(name, value.parse().unwrap());
    }
    let wanted = ["x-user", "x-group", "x-empty", "x-missing"].map(HeaderName::from_static);
    let said = Said::read(200, &answer, &wanted);
    let taken: Vec<_> = said
        .for_endpoint
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    assert_eq!(taken, ["x-user: anna", "x-group: a, b"]);
    assert_eq!(said.cookies, ["one=1", "two=2"]);
}

#[test]
fn targets_stay_targets() {
    for (path, target) in [
        ("/check?x=/a%20b&c", "/check?x=/a%20b&c"),
        ("/a b\r\nX-Evil: 1", "/a%20b%0D%0AX-Evil:%201"),
        ("/a#b\"<>", "/a%23b%22%3C%3E"),
        ("/é", "/%C3%A9"),
    ] {
        assert_eq!(request_target(path.as_bytes()), target);
        target.parse::<http::Uri>().unwrap();
    }
}
