//! What proxy.go, proxyssl.go, backendprotocol.go, serviceupstream.go, upstreamhashby.go, mirror.go and
//! clientbodybuffersize.go check (all in annotations): how endpoints are spoken to.

use crate::certificates::{Authority, endpoint_tls, object, self_signed};
use crate::origin::Origin;
use crate::world::{Sheet, Site, World, service, shared, site};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What of `Location: from` reaches the client.
fn redirected(from: &str, to: &str, location: &str) -> String {
    let site = site(&[("proxy-redirect-from", from), ("proxy-redirect-to", to)]);
    let target = format!("/status/302?Location={location}");
    site.get(&target).send().is(302).header("location").to_string()
}

#[test]
fn proxy_redirect() {
    let there = "http://hello.com/x";
    assert_eq!(redirected("off", "goodbye.com", there), there);
    assert_eq!(redirected("default", "goodbye.com", there), there);
    assert_eq!(
        redirected("http://hello.com/", "http://goodbye.com/", there),
        "http://goodbye.com/x"
    );
    assert_eq!(redirected("hello.com", "goodbye.com", "hello.com/x"), "goodbye.com/x");
    assert_eq!(
        redirected("hello.com", "goodbye.com", there),
        there,
        "it is compared from the start"
    );
}

#[test]
fn proxy_body_size() {
    let announce =
        |site: &Site, bytes: &str| site.request("POST", "/").header("Content-Length", bytes);
    let eight = site(&[("proxy-body-size", "8m")]);
    announce(&eight, "8388609").send().is(413);
    let megabytes = "x".repeat(3 << 20);
    eight.request("POST", "/").body(&megabytes).send().from("echo").says("body-bytes: 3145728");
    // A value that is none leaves the default, 1m.
    let wrong = site(&[("proxy-body-size", "15r")]);
    announce(&wrong, "1048577").send().is(413);
    wrong.request("POST", "/").body(&megabytes[..1 << 20]).send().from("echo");
}

#[test]
fn client_body_buffer_size_of_every_spelling_serves() {
    for size in ["1000", "1K", "1k", "1m", "1M", "1b"] {
        let site = site(&[("client-body-buffer-size", size)]);
        site.request("POST", "/").body("hello").send().from("echo").says("body-bytes: 5");
    }
}

#[test]
fn timeouts() {
    let short = site(&[("proxy-read-timeout", "1"), ("proxy-next-upstream-tries", "1")]);
    short.get("/sleep/3000").send().is(504);
    let valid = [
        ("proxy-connect-timeout", "50"),
        ("proxy-send-timeout", "20"),
        ("proxy-read-timeout", "20"),
    ];
    site(&valid).get("/sleep/10").send().from("echo");
    // What is no number of seconds leaves the default.
    let wrong = [
        ("proxy-connect-timeout", "50k"),
        ("proxy-send-timeout", "20k"),
        ("proxy-read-timeout", "20k"),
    ];
    site(&wrong).get("/sleep/10").send().from("echo");
}

#[test]
fn buffering_settings_serve() {
    let buffers = [
        ("proxy-buffering", "on"),
        ("proxy-buffers-number", "8"),
        ("proxy-buffer-size", "8k"),
        ("proxy-busy-buffers-size", "16k"),
        ("proxy-request-buffering", "off"),
        ("proxy-max-temp-file-size", "128k"),
    ];
    site(&buffers).get("/bytes/100000").send().is(200).has("content-length", "100000");
}

/// A site with an endpoint that answers 502 and one that does not.
fn half_broken(annotations: &[(&str, &str)]) -> (Site, [Origin; 2]) {
    let site = shared().new_site();
    let pods = [Origin::start("always-502"), Origin::start("sound")];
    site.with("svc", service(&site.own("svc"), &[&pods[0], &pods[1]]));
    site.put(Sheet::new("web").set(annotations).path("/", "Prefix", &site.own("svc")));
    (site, pods)
}

#[test]
fn proxy_next_upstream_of_a_status() {
    let next = [
        ("proxy-next-upstream", "error timeout http_502"),
        ("proxy-next-upstream-timeout", "999999"),
        ("proxy-next-upstream-tries", "888888"),
    ];
    let (site, pods) = half_broken(&next);
    for _ in 0..10 {
        site.get("/").send().from("sound");
    }
    assert!(!pods[0].received().is_empty());
    // What may have happened is not done twice.
    let statuses: BTreeSet<u16> =
        (0..10).map(|_| site.request("POST", "/").body("x").send().status).collect();
    assert_eq!(statuses, BTreeSet::from([200, 502]));
}

#[test]
fn proxy_next_upstream_default_keeps_statuses() {
    let (site, _pods) = half_broken(&[]);
    let statuses: BTreeSet<u16> = (0..10).map(|_| site.get("/").send().status).collect();
    assert_eq!(statuses, BTreeSet::from([200, 502]));
}

#[test]
fn proxy_cookies() {
    let moved =
        [("proxy-cookie-domain", "localhost example.org"), ("proxy-cookie-path", "/one/ /")];
    let target = "/status/200?Set-Cookie=a=b;%20Domain=localhost;%20Path=/one/two";
    let reply = site(&moved).get(target).send();
    reply.is(200).has("set-cookie", "a=b; Domain=example.org; Path=/two");
    let off = [("proxy-cookie-domain", "off"), ("proxy-cookie-path", "off")];
    let reply = site(&off).get(target).send();
    reply.is(200).has("set-cookie", "a=b; Domain=localhost; Path=/one/two");
}

#[test]
fn proxy_http_version() {
    let reply = site(&[("proxy-http-version", "1.0")]).get("/").send();
    reply.from("echo").says("GET / HTTP/1.0\n");
    site(&[]).get("/").send().from("echo").says("GET / HTTP/1.1\n");
}

#[test]
fn backend_protocol_https_in_either_case() {
    let pod = Origin::start_tls("secure", endpoint_tls(&self_signed(&["any.test"]), None));
    for protocol in ["HTTPS", "https"] {
        let site = shared().new_site();
        site.with("svc", service(&site.own("svc"), &[&pod]));
        let sheet = Sheet::new("web").set(&[("backend-protocol", protocol)]);
        site.put(sheet.path("/", "Prefix", &site.own("svc")));
        site.get("/").send().from("secure").saw("x-forwarded-proto", "http");
    }
}

#[test]
fn backend_protocol_auto_http_follows_the_client() {
    let site = site(&[("backend-protocol", "AUTO_HTTP")]);
    site.get("/").send().from("echo");
    let pod = Origin::start_tls("secure", endpoint_tls(&self_signed(&["any.test"]), None));
    let secure = shared().new_site();
    secure.with("svc", service(&secure.own("svc"), &[&pod]));
    let sheet = Sheet::new("web").set(&[("backend-protocol", "AUTO_HTTP")]);
    secure.put(sheet.path("/", "Prefix", &secure.own("svc")));
    secure.https("/").send().from("secure");
}

#[test]
fn backend_protocol_that_is_none_leaves_http() {
    site(&[("backend-protocol", "SPDY")]).get("/").send().from("echo");
}

#[test]
fn backend_protocol_fcgi_is_not_spoken() {
    let site = site(&[("backend-protocol", "FCGI")]);
    let reply = site.get("/").send();
    reply.expect(reply.backend().is_empty(), "no HTTP with an endpoint that speaks FastCGI");
    assert!((500..600).contains(&reply.status), "{}", reply.status);
}

#[test]
fn proxy_ssl_secret_and_verification() {
    let authority = Authority::new("endpoints");
    let strangers = Authority::new("strangers");
    let pod =
        Origin::start_tls("secure", endpoint_tls(&authority.sign("pod.test"), Some(&authority)));
    let client = authority.sign("ingress");
    let send = |trusted: &Authority, more: &[(&str, &str)]| {
        let site = shared().new_site();
        let entries = [
            ("tls.crt", client.chain.as_str()),
            ("tls.key", client.key.as_str()),
            ("ca.crt", trusted.certificate.as_str()),
        ];
        let secret = site.own("proxy-ssl");
        site.with("secret", object("Secret", &secret, "stringData", &entries));
        site.with("svc", service(&site.own("svc"), &[&pod]));
        let secret = format!("default/{secret}");
        let common = [("backend-protocol", "HTTPS"), ("proxy-ssl-secret", secret.as_str())];
        let sheet = Sheet::new("web").set(&common).set(more);
        site.put(sheet.path("/", "Prefix", &site.own("svc")));
        site.get("/").send()
    };
    send(&strangers, &[]).from("secure");
    let named = [
        ("proxy-ssl-verify", "on"),
        ("proxy-ssl-verify-depth", "2"),
        ("proxy-ssl-server-name", "on"),
        ("proxy-ssl-name", "pod.test"),
    ];
    send(&authority, &named).from("secure");
    send(&strangers, &named).is(502);
    let misnamed = [("proxy-ssl-verify", "on"), ("proxy-ssl-name", "other.test")];
    send(&authority, &misnamed).is(502);
    send(&authority, &[("proxy-ssl-protocols", "TLSv1.2 TLSv1.3")]).from("secure");
    send(&authority, &[("proxy-ssl-ciphers", "HIGH:!AES")]).from("secure");
}

#[test]
fn proxy_ssl_secret_that_is_missing_closes_the_location() {
    let missing = [("backend-protocol", "HTTPS"), ("proxy-ssl-secret", "default/no-such-secret")];
    site(&missing).get("/").send().is(503);
}

/// A Service whose ClusterIP leads to `cluster` and whose slice leads to `echo`.
fn clustered(world: &Arc<World>, annotations: &[(&str, &str)]) -> (Site, Origin) {
    let cluster = Origin::start("cluster");
    let site = world.new_site();
    let (name, port) = (site.own("svc"), cluster.address.port());
    let manifest = service(&name, &[&world.echo]);
    let spec = format!("\"clusterIP\":\"{}\",\"ports\":[{{\"port\":{port}", cluster.address.ip());
    site.with("svc", manifest.replacen("\"ports\":[{\"port\":80", &spec, 1));
    let backend = serde_json::json!({"service": {"name": name, "port": {"number": port}}});
    site.put(Sheet::new("web").set(annotations).backend("/", "Prefix", backend));
    (site, cluster)
}

#[test]
fn service_upstream() {
    let (site, _cluster) = clustered(&shared(), &[("service-upstream", "true")]);
    site.get("/").send().from("cluster");
    let (site, _cluster) = clustered(&shared(), &[]);
    site.get("/").send().from("echo");
}

#[test]
fn service_upstream_by_config_map() {
    let world = Arc::new(World::configured(&[("service-upstream", "true")]));
    let (site, _cluster) = clustered(&world, &[]);
    site.get("/").send().from("cluster");
    let (site, _cluster) = clustered(&world, &[("service-upstream", "false")]);
    site.get("/").send().from("echo");
}

/// Which of six endpoints answer 40 equal requests.
fn answering(annotations: &[(&str, &str)]) -> BTreeSet<String> {
    let site = shared().new_site();
    let pods: Vec<Origin> = (0..6).map(|n| Origin::start(&format!("pod-{n}"))).collect();
    let all: Vec<&Origin> = pods.iter().collect();
    site.with("svc", service(&site.own("svc"), &all));
    site.put(Sheet::new("web").set(annotations).path("/", "Prefix", &site.own("svc")));
    (0..40).map(|_| site.get("/").send().is(200).backend().to_string()).collect()
}

#[test]
fn upstream_hash_by() {
    assert_eq!(answering(&[("upstream-hash-by", "$request_uri")]).len(), 1);
    assert_eq!(answering(&[("upstream-hash-by", "${request_uri}-text-value")]).len(), 1);
    assert_eq!(answering(&[]).len(), 6);
}

#[test]
fn upstream_hash_by_subset() {
    let subset = [
        ("upstream-hash-by", "$request_uri"),
        ("upstream-hash-by-subset", "true"),
        ("upstream-hash-by-subset-size", "3"),
    ];
    assert_eq!(answering(&subset).len(), 3);
}

/// A site that mirrors to an origin of its own, and what that received of one request with a body.
fn mirrored(target: &str, more: &[(&str, &str)]) -> (String, Vec<u8>) {
    let copy = Origin::start("copy");
    let target = format!("http://{}{target}", copy.address);
    let site = site(&[&[("mirror-target", target.as_str())], more].concat());
    site.request("POST", "/a?b=c").body("hello").send().from("echo").says("body-bytes: 5");
    crate::harness::wait_until("the copy arrives", || !copy.received().is_empty());
    copy.received().remove(0)
}

#[test]
fn mirror_target() {
    let (head, body) = mirrored("/mirror", &[]);
    assert!(head.starts_with("POST /mirror"), "{head}");
    assert_eq!(body, b"hello");
}

#[test]
fn mirror_target_with_the_request_uri() {
    let (head, _) = mirrored("$request_uri", &[]);
    assert!(head.starts_with("POST /a?b=c HTTP/1."), "{head}");
}

#[test]
fn mirror_without_the_body() {
    let (_, body) = mirrored("/mirror", &[("mirror-request-body", "off")]);
    assert!(body.is_empty());
}

#[test]
fn mirror_host() {
    let (head, _) = mirrored("/mirror", &[("mirror-host", "copy.test")]);
    assert!(head.to_lowercase().contains("\r\nhost: copy.test\r\n"), "{head}");
}

#[test]
fn a_mirror_that_does_not_answer_costs_nothing() {
    let site = site(&[("mirror-target", "http://127.0.0.1:1/mirror")]);
    site.get("/").send().from("echo");
}
