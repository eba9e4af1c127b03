//! Choices of endpoints: turns, latency, hashes, sessions, and what health does to them.

use super::passive::RestPolicy;
use super::*;

const NOW: Moment = Moment(3_600_000);
const RESTS_AT_ONCE: RestPolicy = RestPolicy { fails_max: 1, window: Duration::from_secs(60) };

fn backend_with(care: Care, endpoints: &[&str]) -> Backend {
    let key = BackendKey {
        service: ObjectKey::new("shop", "web"),
        port: "80".into(),
        by_cluster_ip: false,
        care,
    };
    Backend::new(Arc::new(key), addresses(endpoints).into())
}

fn backend(endpoints: &[&str]) -> Backend {
    backend_with(Care::default(), endpoints)
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1)).collect()
}

fn backend_of(count: usize) -> Backend {
    let all = many(count);
    backend(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn addresses(endpoints: &[&str]) -> Vec<Address> {
    endpoints.iter().map(|e| Address::Ip(e.parse().unwrap())).collect()
}

/// Numbers that look random and are the same in every run.
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 7_u64;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ring::hash(&state.to_be_bytes())
    }
}

fn ask<'a>(tried: &'a [SocketAddr], random: impl FnMut() -> u64) -> Ask<'a, impl FnMut() -> u64> {
    Ask { tried, now: NOW, random }
}

fn pick(backend: &Backend, tried: &[SocketAddr]) -> Option<SocketAddr> {
    let picked = backend.endpoints().pick(Policy::InTurn, ask(tried, numbers()));
    picked.map(|endpoint| endpoint.address)
}

fn endpoint(backend: &Backend, at: usize) -> Arc<Endpoint> {
    backend.endpoints().iter().nth(at).unwrap().clone()
}

#[test]
fn endpoints_take_turns() {
    let web = backend(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    let mut picks = (0..).map(|_| pick(&web, &[]).unwrap().ip().to_string());
    let first: Vec<String> = picks.by_ref().take(4).collect();
    assert_eq!(first, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]);
    web.replace(addresses(&["10.0.0.1:80", "10.0.0.2:80"]).into());
    assert_eq!(picks.next().unwrap(), "10.0.0.1");
}

#[test]
fn a_retry_avoids_what_was_tried() {
    let web = backend(&["10.0.0.1:80", "10.0.0.2:80"]);
    let first = pick(&web, &[]).unwrap();
    for _ in 0..4 {
        assert_ne!(pick(&web, &[first]).unwrap(), first);
    }
    let single = backend(&["10.0.0.1:80"]);
    assert_eq!(pick(&single, &[first]), Some(first));
    assert_eq!(pick(&backend(&[]), &[]), None);
}

#[test]
fn what_rests_is_left_alone_unless_all_do() {
    let web = backend_of(10);
    for at in 0..3 {
        endpoint(&web, at).passive.failed(NOW, RESTS_AT_ONCE);
    }
    let mut random = numbers();
    let set = web.endpoints();
    let mut counts = HashMap::new();
    for _ in 0..7000 {
        let picked = set.pick(Policy::InTurn, ask(&[], &mut random)).unwrap();
        *counts.entry(picked.address).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 7);
    // Their work is shared by all others, not done by whoever comes next.
    assert!(counts.values().all(|count| (700..1300).contains(count)), "{counts:?}");

    let tried = [endpoint(&web, 5).address];
    for at in 3..10 {
        endpoint(&web, at).passive.failed(NOW, RESTS_AT_ONCE);
    }
    for policy in [Policy::InTurn, Policy::LeastLatency, Policy::Hash(1), Policy::Subset(1, 3)] {
        let picked = set.pick(policy, ask(&tried, &mut random));
        assert!(picked.is_some(), "{policy:?}");
    }
    for _ in 0..100 {
        let picked = set.pick(Policy::InTurn, ask(&tried, &mut random)).unwrap();
        assert_ne!(picked.address, tried[0]);
    }
}

#[test]
fn endpoints_keep_what_is_known_of_them() {
    let web = backend(&["10.0.0.1:80", "10.0.0.2:80"]);
    let before = endpoint(&web, 1);
    before.latency.add(Duration::from_secs(1), NOW);
    web.replace(addresses(&["10.0.0.2:80", "10.0.0.3:80"]).into());
    assert!(Arc::ptr_eq(&before, &endpoint(&web, 0)));
    assert!(endpoint(&web, 1).latency.score(Moment::now()) > 0.0, "an average one");
}

#[test]
fn the_faster_of_two_is_chosen() {
    let web = backend_of(4);
    for (at, ms) in [(0, 400), (1, 300), (2, 200), (3, 100)] {
        endpoint(&web, at).latency.add(Duration::from_millis(ms), NOW);
    }
    let (mut random, set) = (numbers(), web.endpoints());
    let mut counts = HashMap::new();
    for _ in 0..6000 {
        let picked = set.pick(Policy::LeastLatency, ask(&[], &mut random)).unwrap();
        *counts.entry(picked.address).or_insert(0) += 1;
    }
    let count = |at: usize| counts.get(&endpoint(&web, at).address).copied().unwrap_or(0);
    // Of two different ones, the slowest is never the faster; the fastest always is.
    assert_eq!(count(0), 0);
    assert!(count(3) > 2700 && count(3) > count(2) && count(2) > count(1), "{counts:?}");
    let single = backend_of(1);
    assert!(single.endpoints().pick(Policy::LeastLatency, ask(&[], &mut random)).is_some());
}

#[test]
fn the_same_hash_finds_the_same_endpoint_and_the_same_substitute() {
    let web = backend_of(20);
    let (mut random, set) = (numbers(), web.endpoints());
    for key in 0..100_u64 {
        let hash = ring::hash(&key.to_be_bytes());
        let mut again =
            |tried: &[SocketAddr]| set.pick(Policy::Hash(hash), ask(tried, &mut random)).unwrap();
        let first = again(&[]);
        assert!(Arc::ptr_eq(&first, &again(&[])));
        let second = again(&[first.address]);
        assert_ne!(first.address, second.address);
        first.passive.failed(NOW, RESTS_AT_ONCE);
        assert_eq!(again(&[]).address, second.address);
        first.passive.worked();
    }
}

#[test]
fn a_subset_is_used_whole_and_nothing_beside_it() {
    let web = backend_of(10);
    let (mut random, set) = (numbers(), web.endpoints());
    for key in 0..50_u64 {
        let hash = ring::hash(&key.to_be_bytes());
        let picks = (0..60).map(|_| set.pick(Policy::Subset(hash, 3), ask(&[], &mut random)));
        let mut used: Vec<SocketAddr> = picks.map(|picked| picked.unwrap().address).collect();
        used.sort();
        used.dedup();
        assert_eq!(used.len(), 3, "{used:?}");
    }
    let small = backend_of(2);
    assert!(small.endpoints().pick(Policy::Subset(1, 3), ask(&[], &mut random)).is_some());
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let care = Care { slow_start: Duration::from_secs(100), ..Care::default() };
    let web = backend_with(care, &["10.0.0.1:80"]);
    assert!(
        (endpoint(&web, 0).share(NOW) - 1.0).abs() < f64::EPSILON,
        "the first has to do it all"
    );
    web.replace(addresses(&["10.0.0.1:80", "10.0.0.2:80"]).into());
    let new = endpoint(&web, 1);
    for (age_s, share) in [(0, 0.1), (50, 0.55), (100, 1.0), (1000, 1.0)] {
        let now = new.joined.plus(Duration::from_secs(age_s));
        assert!((new.share(now) - share).abs() < 0.001, "{age_s}");
    }
    let (mut random, set) = (numbers(), web.endpoints());
    let mut of_new = 0;
    for _ in 0..10_000 {
        let ask = Ask { tried: &[], now: new.joined, random: &mut random };
        let picked = set.pick(Policy::InTurn, ask).unwrap();
        of_new += usize::from(picked.address == new.address);
    }
    assert!((300..1200).contains(&of_new), "{of_new} of 10,000 for a tenth of its share");
}

#[test]
fn names_become_endpoints_when_they_are_resolved() {
    let name: (Arc<str>, u16) = ("web.example".into(), 80);
    let external = backend_with(Care::default(), &[]);
    external.replace([Address::Name(name.0.clone(), name.1)].into());
    assert!(external.endpoints().is_empty());
    let found: Vec<SocketAddr> =
        ["192.0.2.1:80", "192.0.2.2:80"].map(|a| a.parse().unwrap()).into();
    external.resolve(&name, &found);
    assert_eq!(external.endpoints().addresses().collect::<Vec<_>>(), found);
    // Objects say the same again: nothing is forgotten.
    external.replace([Address::Name(name.0.clone(), name.1)].into());
    assert_eq!(external.endpoints().addresses().count(), 2);
    external.replace(addresses(&["10.0.0.1:80"]).into());
    external.resolve(&name, &found);
    assert_eq!(external.endpoints().addresses().count(), 1);
}

mod sessions {
    use super::*;

    #[test]
    fn a_key_finds_its_endpoint_and_few_move() {
        let web = backend_of(20);
        let mut random = numbers();
        let sessions: Vec<_> =
            (0..2000).map(|_| web.endpoints().new_key(ask(&[], &mut random)).unwrap()).collect();
        for (endpoint, key) in &sessions {
            assert!(Arc::ptr_eq(endpoint, &web.endpoints().of_key(key.as_bytes()).unwrap()));
        }
        let more = many(21);
        web.replace(addresses(&more.iter().map(String::as_str).collect::<Vec<_>>()).into());
        let moved = sessions.iter().filter(|(endpoint, key)| {
            !Arc::ptr_eq(endpoint, &web.endpoints().of_key(key.as_bytes()).unwrap())
        });
        let moved = moved.count();
        assert!((40..200).contains(&moved), "{moved} of 2000 for one of 21");
    }

    #[test]
    fn a_token_is_good_while_its_endpoint_is_there() {
        let web = backend(&["10.0.0.1:80", "10.0.0.2:80"]);
        let name = web.upstream_name.clone();
        let (endpoint, token) = web.endpoints().new_token(&name, ask(&[], numbers())).unwrap();
        assert!(!token.contains("10.0.0"), "{token}");
        assert!(Arc::ptr_eq(
            &endpoint,
            &web.endpoints().of_token(&name, token.as_bytes()).unwrap()
        ));
        web.replace(addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]).into());
        assert!(web.endpoints().of_token(&name, token.as_bytes()).is_some());
        web.replace(addresses(&["10.0.0.3:80"]).into());
        assert!(web.endpoints().of_token(&name, token.as_bytes()).is_none());
        assert!(web.endpoints().of_token(&name, b"forged").is_none());
    }

    #[test]
    fn a_new_session_avoids_what_failed() {
        let web = backend_of(4);
        let tried: Vec<SocketAddr> = web.endpoints().addresses().take(3).collect();
        let last = web.endpoints().addresses().nth(3).unwrap();
        let mut random = numbers();
        for _ in 0..20 {
            let (endpoint, _) =
                web.endpoints().new_token(&web.upstream_name, ask(&tried, &mut random)).unwrap();
            assert_eq!(endpoint.address, last);
        }
        let (endpoint, _) = web.endpoints().new_key(ask(&tried[..1], &mut random)).unwrap();
        assert_ne!(endpoint.address, tried[0]);
    }
}
