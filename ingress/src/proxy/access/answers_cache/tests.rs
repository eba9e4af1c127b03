//! Remembered answers of authorities: for how long, for which requests, and that one asks while others wait.

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn said(status: u16) -> Arc<Said> {
    Arc::new(Said::read(status, &HeaderMap::new(), &[]))
}

#[test]
fn the_answer_itself_says_how_long() {
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    let configured = minutes(5);
    for (pairs, expected) in [
        (&[][..], configured),
        (&[("cache-control", "no-store")], None),
        (&[("cache-control", "public, no-cache")], None),
        (&[("cache-control", "Private=\"x\"")], None),
        (&[("cache-control", "max-age=60")], minutes(1)),
        (&[("cache-control", "max-age=0")], None),
        (&[("cache-control", "max-age=60, s-maxage=120")], minutes(2)),
        (&[("cache-control", "max-age=x")], None),
        (&[("x-accel-expires", "60"), ("cache-control", "no-store")], minutes(1)),
        (&[("x-accel-expires", "0")], None),
        (&[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], None),
        (&[("expires", "0")], None),
        (&[("expires", "Mon, 01 Jan 2970 00:00:00 GMT")], configured),
        (&[("set-cookie", "a=b")], None),
    ] {
        assert_eq!(lifetime(&headers(pairs), configured), expected, "{pairs:?}");
    }
    assert_eq!(lifetime(&headers(&[]), None), None);
}

#[tokio::test]
async fn an_answer_is_for_requests_of_its_kind() {
    let cache = AnswersCache::new();
    let key = Key([1; 32]);
    let french = headers(&[("accept-language", "fr")]);
    let durations = CacheDurations::default();
    let remember = |answer: &[(&str, &str)]| {
        cache.remember(key, &said(200), &headers(answer), &french, &durations);
    };
    remember(&[("vary", "*")]);
    assert!(cache.known(key, &french).is_none());
    remember(&[("vary", "Accept-Language, X-Other")]);
    assert!(cache.known(key, &french).is_some());
    assert!(cache.known(key, &headers(&[("accept-language", "de")])).is_none());
    assert!(cache.known(key, &headers(&[])).is_none());
    assert!(cache.known(Key([2; 32]), &french).is_none());
}

#[tokio::test]
async fn one_asks_and_the_others_wait() {
    let cache = Arc::new(AnswersCache::new());
    let key = Key([1; 32]);
    let none = HeaderMap::new();
    let Found::Ask { _asking: asking } = cache.find(key, &none).await else {
        panic!("nobody asked yet")
    };
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                match cache.find(key, &HeaderMap::new()).await {
                    Found::Answer(said) => said.status,
                    Found::Ask { .. } => 1,
                    Found::AskAlone => 0,
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    cache.remember(key, &said(401), &none, &none, &CacheDurations::default());
    drop(asking);
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 401);
    }
    // Whoever asked may fail, or get what may not be remembered: then all ask for themselves.
    let key = Key([2; 32]);
    let Found::Ask { _asking: asking } = cache.find(key, &none).await else {
        panic!("nobody asked yet")
    };
    let waiter = {
        let cache = cache.clone();
        tokio::spawn(async move {
            matches!(cache.find(key, &HeaderMap::new()).await, Found::AskAlone | Found::Ask { .. })
        })
    };
    tokio::task::yield_now().await;
    drop(asking);
    assert!(waiter.await.unwrap());
    assert!(matches!(cache.find(key, &none).await, Found::Ask { .. }));
    assert_eq!(cache.state(key).asking.len(), 0, "nothing is left behind");
}
