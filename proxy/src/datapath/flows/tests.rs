//! The collector's decision, as tables: a flow, how long each of its entries is idle, what goes.

use std::collections::HashMap;

use podium_proxy_ebpf::Tuple;

use super::*;

/// Long after boot.
const NOW_SECS: u64 = 1_000_000;

const TCP: u8 = Protocol::Tcp as u8;
const UDP: u8 = Protocol::Udp as u8;
const SCTP: u8 = Protocol::Sctp as u8;

const CLIENT: &str = "192.0.2.9:40000";
const SERVICE: &str = "192.0.2.1:30080";
const ENDPOINT: &str = "10.0.0.5:8080";
const NODE: &str = "10.0.0.1:2000";

fn tuple(from: &str, to: &str) -> Tuple {
    let [from, to] =
        [from, to].map(|text| AddressPort::from(text.parse::<std::net::SocketAddr>().unwrap()));
    Tuple::new(&from, &to)
}

/// `(seen, hook, becomes, flags, idle seconds)`, one for each entry.
type Row = ((&'static str, &'static str), Hook, (&'static str, &'static str), u32, u64);

/// The numbers of the entries that go.
fn gone(protocol: u8, rows: &[Row]) -> Vec<usize> {
    let entries: Vec<(FlowKey, FlowEntry)> = (rows.iter())
        .map(|((from, to), hook, (new_from, new_to), flags, idle_secs)| {
            let entry = FlowEntry {
                to: tuple(new_from, new_to),
                flags: *flags,
                service_id: 3,
                generation: 1,
                used_at_ns: (NOW_SECS - idle_secs) * NANOS_PER_SEC,
            };
            (FlowKey::new(tuple(from, to), protocol, *hook), entry)
        })
        .collect();
    let map: HashMap<FlowKey, FlowEntry> = entries.iter().copied().collect();
    let look_up = |key: &FlowKey| map.get(key).copied();
    let mut gone: Vec<usize> = (entries.iter())
        .flat_map(|(key, entry)| over(key, entry, NOW_SECS * NANOS_PER_SEC, look_up))
        .map(|(key, used_at_ns)| {
            let index = entries.iter().position(|(one, _)| *one == key).unwrap();
            assert_eq!(entries[index].1.used_at_ns, used_at_ns);
            index
        })
        .collect();
    gone.sort_unstable();
    gone.dedup();
    gone
}

/// A flow to an endpoint of this node with its source kept: the client's entry, the answers'.
fn kept(protocol: u8, client: (u32, u64), answer: (u32, u64)) -> Vec<usize> {
    let rows = [
        ((CLIENT, SERVICE), Hook::Ingress, (CLIENT, ENDPOINT), flags::ORIGIN | client.0, client.1),
        ((ENDPOINT, CLIENT), Hook::Egress, (SERVICE, CLIENT), answer.0, answer.1),
    ];
    gone(protocol, &rows)
}

const DAY: u64 = 24 * 60 * 60;
const EST: u32 = flags::ESTABLISHED;

#[test]
fn both_directions_must_be_idle() {
    let both = vec![0, 1];
    assert_eq!(kept(TCP, (EST, DAY + 1), (EST, DAY + 1)), both);
    assert_eq!(kept(TCP, (EST, DAY + 1), (EST, DAY)), [0; 0], "answers still come");
    assert_eq!(kept(TCP, (EST, 0), (EST, DAY + 1)), [0; 0], "the client still sends");
    assert_eq!(kept(TCP, (0, 121), (0, 121)), both, "never answered");
    assert_eq!(kept(TCP, (EST, 121), (0, 121)), both, "not established by one side only");
    assert_eq!(kept(TCP, (0, 120), (0, 120)), [0; 0], "not before its time");
    assert_eq!(kept(TCP, (EST | flags::FIN, 121), (EST, 121)), both, "closed by the client");
    assert_eq!(kept(TCP, (EST, 121), (EST | flags::RST, 121)), both, "reset by the endpoint");
    assert_eq!(kept(UDP, (0, 181), (0, 181)), both);
    assert_eq!(kept(UDP, (0, 181), (0, 180)), [0; 0]);
    assert_eq!(kept(SCTP, (EST, DAY), (EST, DAY)), [0; 0]);
    assert_eq!(kept(SCTP, (EST | flags::FIN, 121), (EST, 121)), both);
}

#[test]
fn an_entry_of_the_future_is_not_idle() {
    // The clock is read before the walk.
    assert_eq!(idle_ns(10, 3), 0);
}

#[test]
fn all_entries_of_a_flow_with_rewritten_source() {
    let origin = flags::ORIGIN | flags::SOURCE_REWRITTEN;
    let flow = |client: u64, answer: u64, inner: u64| {
        [
            ((CLIENT, SERVICE), Hook::Ingress, (NODE, ENDPOINT), origin | EST, client),
            ((ENDPOINT, NODE), Hook::Ingress, (SERVICE, CLIENT), EST, answer),
            ((CLIENT, ENDPOINT), Hook::Egress, (NODE, ENDPOINT), EST, inner),
            ((ENDPOINT, CLIENT), Hook::Egress, (SERVICE, CLIENT), EST, inner),
        ]
    };
    assert_eq!(gone(TCP, &flow(3600, 3600, 3600)), [0; 0], "an idle connection stays as a whole");
    assert_eq!(gone(TCP, &flow(DAY + 1, 0, 3600)), [0; 0]);
    assert_eq!(gone(TCP, &flow(DAY + 1, DAY + 1, DAY + 1)), [0, 1]);
    assert_eq!(gone(TCP, &flow(DAY + 1, DAY + 1, DAY + 1)[1..]), [0, 1, 2], "the client's is gone");
    assert_eq!(gone(TCP, &flow(0, 100, 100)[1..]), [0; 0], "gone, but not for long");
}

#[test]
fn an_entry_of_an_earlier_flow_of_the_same_client() {
    // The client's entry leads to another endpoint now.
    let rows = [
        ((CLIENT, SERVICE), Hook::Ingress, (CLIENT, "10.0.0.6:8080"), flags::ORIGIN | EST, 0),
        ((ENDPOINT, CLIENT), Hook::Egress, (SERVICE, CLIENT), EST, 121),
        (("10.0.0.6:8080", CLIENT), Hook::Egress, (SERVICE, CLIENT), EST, 121),
    ];
    assert_eq!(gone(TCP, &rows), [1]);
}

#[test]
fn direct_server_return() {
    let dsr = flags::DIRECT_RETURN;
    let client = |idle_secs, more| {
        let bits = flags::ORIGIN | flags::FORWARD | dsr | more;
        [((CLIENT, SERVICE), Hook::Ingress, (CLIENT, ENDPOINT), bits, idle_secs)]
    };
    assert_eq!(gone(TCP, &client(DAY, EST)), [0; 0], "answers are never seen here");
    assert_eq!(gone(TCP, &client(DAY + 1, EST)), [0]);
    assert_eq!(gone(TCP, &client(121, 0)), [0]);
    assert_eq!(gone(TCP, &client(121, EST | flags::FIN)), [0]);
    // The node of the endpoint has only the answers' entry.
    let answer = |idle_secs, more| {
        [((ENDPOINT, CLIENT), Hook::Egress, (SERVICE, CLIENT), dsr | more, idle_secs)]
    };
    assert_eq!(gone(TCP, &answer(DAY, EST)), [0; 0]);
    assert_eq!(gone(TCP, &answer(DAY + 1, EST)), [0]);
    assert_eq!(gone(TCP, &answer(121, EST | flags::RST)), [0]);
    assert_eq!(gone(UDP, &answer(181, 0)), [0]);
}

#[test]
fn clients_with_affinity() {
    let of = |holder| AffinityKey::of_cookie(7, 1, holder);
    assert_eq!(affinity_kept_secs(&of(Holder::NetworkNamespace), Some(10_800)), 10_800);
    assert_eq!(affinity_kept_secs(&AffinityKey::of_address([1; 16], 1), Some(1)), 1);
    assert_eq!(affinity_kept_secs(&of(Holder::NetworkNamespace), Some(0)), 0, "switched off");
    assert_eq!(affinity_kept_secs(&of(Holder::NetworkNamespace), None), LEAST_SECS, "gone");
    assert_eq!(affinity_kept_secs(&of(Holder::Socket), Some(0)), SOCKET_SECS);
}
