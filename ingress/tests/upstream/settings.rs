//! What settings/*.go check of the ConfigMap's options and of flags.

use crate::certificates::{endpoint_tls, names, object, self_signed};
use crate::origin::Origin;
use crate::world::{Sheet, Site, World, service};
use std::sync::Arc;

fn configured(options: &[(&str, &str)]) -> Arc<World> {
    Arc::new(World::configured(options))
}

#[test]
fn configmap_change_is_taken() {
    let world = configured(&[("whitelist-source-range", "1.1.1.1")]);
    let site = world.site(&[]);
    site.get("/").send().is(403);
    world.configure(&[("error-log-level", "debug")], "");
    site.get("/").send().from("echo");
}

/// A request with everything a proxy in front would say.
fn forwarded(site: &Site) -> crate::client::Request {
    site.get("/")
        .header("X-Forwarded-Port", "1234")
        .header("X-Forwarded-Proto", "myproto")
        .header("X-Forwarded-Scheme", "myproto")
        .header("X-Forwarded-For", "1.2.3.4")
}

#[test]
fn forwarded_headers_believed() {
    let world = configured(&[("use-forwarded-headers", "true")]);
    let site = world.site(&[]);
    let reply = forwarded(&site).header("X-Forwarded-Host", "myhost").send();
    reply.from("echo").saw("host", "myhost").saw("x-forwarded-host", "myhost");
    reply.saw("x-forwarded-proto", "myproto").saw("x-forwarded-scheme", "myproto");
    reply.saw("x-forwarded-port", "1234").saw("x-forwarded-for", "1.2.3.4");
    reply.saw("x-real-ip", "1.2.3.4");
    // The first of several hosts counts.
    let reply =
        forwarded(&site).header("X-Forwarded-Host", "myhost.com, another.host,example.net").send();
    reply.from("echo").saw("host", "myhost.com").saw("x-forwarded-host", "myhost.com");
}

#[test]
fn forwarded_port_is_the_one_bound_over_http_and_443_over_https() {
    let site = secured(&[("ssl-redirect", "false")]);
    let port = site.world.podium.http.port().to_string();
    site.get("/").send().from("echo").saw("x-forwarded-port", &port);
    site.https("/").send().from("echo").saw("x-forwarded-port", "443");
}

#[track_caller]
fn not_believed(site: &Site) {
    let reply = forwarded(site).header("X-Forwarded-Host", "myhost").send();
    reply.from("echo").saw("host", &site.host).saw("x-forwarded-host", &site.host);
    reply.saw("x-forwarded-proto", "http").saw("x-forwarded-scheme", "http");
    reply.saw("x-forwarded-port", &site.world.podium.http.port().to_string());
    reply.saw("x-original-forwarded-for", "1.2.3.4").saw("x-original-forwarded-host", "myhost");
    let own = reply.seen("x-forwarded-for").join(", ");
    reply.expect(own.starts_with("127.") && !own.contains("1.2.3.4"), "the client's own address");
}

#[test]
fn forwarded_headers_not_believed() {
    not_believed(&configured(&[("use-forwarded-headers", "false")]).site(&[]));
}

#[test]
fn enable_real_ip_believes_the_address_only() {
    let site = configured(&[("enable-real-ip", "true")]).site(&[]);
    let reply = forwarded(&site).header("X-Forwarded-Host", "myhost").send();
    reply.from("echo").saw("host", &site.host).saw("x-forwarded-host", &site.host);
    reply.saw("x-forwarded-proto", "http").saw("x-forwarded-for", "1.2.3.4");
    reply.saw("x-forwarded-port", &site.world.podium.http.port().to_string());
    not_believed(&configured(&[("enable-real-ip", "false")]).site(&[]));
}

#[test]
fn block_cidrs() {
    let world = configured(&[]);
    let blocked = [("block-cidrs", "172.16.0.0/12,192.168.0.0/16,127.0.0.0/8")];
    world.podium.write("options.yaml", &object("ConfigMap", "options", "data", &blocked));
    crate::harness::wait_until("everybody is blocked", || {
        world.get("any.test", "/").try_send().is_ok_and(|reply| reply.status == 403)
    });
    let world = configured(&[("block-cidrs", "172.16.0.0/12,192.168.0.0/16,10.0.0.0/8")]);
    world.site(&[]).get("/").send().from("echo");
}

#[test]
fn block_user_agents() {
    let agents = "~*chrome\\/68\\.0\\.3440\\.106\\ safari\\/537\\.36,AlphaBot";
    let site = configured(&[("block-user-agents", agents)]).site(&[]);
    let ask = |agent: &str| site.get("/").header("User-Agent", agent).send();
    ask("Mozilla/5.0 (X11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/68.0.3440.106 Safari/537.36")
        .is(403);
    ask("AlphaBot").is(403);
    ask("AlphaBot2").from("echo");
    ask("Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/11.0 Safari/604.1")
        .from("echo");
}

#[test]
fn block_referers() {
    let site = configured(&[("block-referers", "~*example\\.com,qwerty")]).site(&[]);
    for (referer, status) in [("example.com", 403), ("qwerty", 403), ("qwerty123", 200)] {
        site.get("/").header("Referer", referer).send().is(status);
    }
}

/// Two paths of a host, `/foo` and `/bar`, the second with annotations.
fn two_paths(world: &Arc<World>, second: &[(&str, &str)]) -> Site {
    let site = world.new_site();
    site.put(Sheet::new("foo").path("/foo", "Prefix", "echo"));
    site.put(Sheet::new("bar").set(second).path("/bar", "Prefix", "echo"));
    site
}

/// An authority, and a world that asks it about everything at this path of the authority.
fn asked(path: &str, more: &[(&str, &str)]) -> (Arc<World>, Origin) {
    let authority = Origin::start("authority");
    let url = format!("http://{}{path}", authority.address);
    (configured(&[&[("global-auth-url", url.as_str())], more].concat()), authority)
}

#[test]
fn global_auth_url() {
    let (world, _authority) = asked("/status/401", &[]);
    let site = two_paths(&world, &[("enable-global-auth", "false")]);
    site.get("/foo").send().is(401);
    site.get("/bar").send().from("echo");
    let site = two_paths(&world, &[]);
    site.get("/bar").send().is(401);
}

#[test]
fn global_auth_url_and_no_auth_locations() {
    let (world, _authority) = asked("/status/401", &[("no-auth-locations", "/bar")]);
    let site = two_paths(&world, &[]);
    site.get("/foo").send().is(401);
    site.get("/bar").send().from("echo");
}

#[test]
fn global_auth_cache() {
    let cache =
        [("global-auth-cache-key", "foo"), ("global-auth-cache-duration", "200 201 401 30m")];
    let (world, authority) = asked("/status/200", &cache);
    let site = two_paths(&world, &[]);
    site.get("/bar").basic("user", "password").send().from("echo");
    authority.stop();
    site.get("/bar").basic("user", "password").send().from("echo");
}

#[test]
fn global_auth_method_redirect_and_headers() {
    let more = [
        ("global-auth-method", "POST"),
        ("global-auth-request-redirect", "Foo-Redirect"),
        ("global-auth-response-headers", "Foo, Bar"),
    ];
    let (world, authority) = asked("/status/200?Foo=f&Bar=b", &more);
    let reply = two_paths(&world, &[]).get("/foo").header("Foo", "mine").send();
    reply.from("echo").saw("foo", "f").saw("bar", "b");
    let head = authority.received().remove(0).0.to_lowercase();
    assert!(head.starts_with("post /status/200"), "{head}");
    assert!(head.contains("\r\nx-auth-request-redirect: foo-redirect\r\n"), "{head}");
}

#[test]
fn global_auth_signin() {
    let signin = [("global-auth-signin", "http://foo.com/global-error-page")];
    let (world, _authority) = asked("/status/401", &signin);
    let site = two_paths(&world, &[]);
    let location = format!("http://foo.com/global-error-page?rd=http://{}%2Ffoo", site.host);
    site.get("/foo").send().is(302).has("location", &location);
}

#[test]
fn global_auth_cookies() {
    let (world, _authority) = asked("/cookies/set/alma/armud", &[]);
    let site = world.site(&[]);
    site.get("/?a=b").send().from("echo").has("set-cookie", "alma=armud");
    site.get("/status/503").send().is(503).lacks("set-cookie");
    let always = [("global-auth-always-set-cookie", "true")];
    let (world, _authority) = asked("/cookies/set/alma/armud", &always);
    world.site(&[]).get("/status/503").send().is(503).has("set-cookie", "alma=armud");
}

#[test]
fn no_auth_locations_and_passwords() {
    let world = configured(&[("no-auth-locations", "/noauth")]);
    let site = world.new_site();
    let hashed = "foo:$2y$05$abcdefghijklmnopqrstuuUq7qXkDOZJ5Q8HA9wCOH0FErWp6q0b6\n";
    site.with("secret", object("Secret", "test-secret", "stringData", &[("auth", hashed)]));
    let basic =
        [("auth-type", "basic"), ("auth-secret", "test-secret"), ("auth-realm", "test auth")];
    let sheet = Sheet::new("web").set(&basic).path("/", "Prefix", "echo");
    site.put(sheet.path("/noauth", "Prefix", "echo"));
    site.get("/").send().is(401).says("401 Authorization Required");
    site.get("/").basic("foo", "bar").send().from("echo");
    site.get("/noauth").send().from("echo");
    site.get("/noauth").basic("foo", "bar").send().from("echo");
}

#[test]
fn no_tls_redirect_locations() {
    let world = configured(&[("no-tls-redirect-locations", "/check-no-tls")]);
    let site = world.new_site();
    let sheet = Sheet::new("web").tls("none").path("/check-no-tls", "Prefix", "echo");
    site.put(sheet.path("/", "Prefix", "echo"));
    site.get("/check-no-tls").send().from("echo");
    site.get("/").send().is(308);
    // The option replaces its default, the path of ACME challenges.
    let location = format!("https://{}/.well-known/acme-challenge/x", site.host);
    site.get("/.well-known/acme-challenge/x").send().is(308).has("location", &location);
}

#[test]
fn add_headers() {
    let world = configured(&[]);
    let site = world.site(&[]);
    let several = [("X-First", "Prepare for trouble!"), ("X-Second", "And make it double!")];
    let headers = object("ConfigMap", "more", "data", &several);
    world.configure(&[("add-headers", "default/more")], &headers);
    let reply = site.get("/").send();
    reply.from("echo").has("x-first", several[0].1).has("x-second", several[1].1);
}

#[test]
fn proxy_set_headers() {
    let world = configured(&[]);
    let site = world.site(&[]);
    let headers =
        object("ConfigMap", "more", "data", &[("X-Added", "42"), ("X-Port", "$server_port")]);
    world.configure(&[("proxy-set-headers", "default/more")], &headers);
    let reply = site.get("/").header("X-Added", "client").send();
    reply.from("echo").saw("x-added", "42");
    reply.saw("x-port", &world.podium.http.port().to_string());
}

#[test]
fn server_tokens() {
    configured(&[("server-tokens", "false")])
        .site(&[])
        .get("/")
        .send()
        .from("echo")
        .lacks("server");
    let reply = configured(&[("server-tokens", "true")]).site(&[]).get("/").send();
    reply.from("echo").expect(!reply.header("server").is_empty(), "a Server header");
}

#[test]
fn timeouts_and_retries_are_defaults_of_locations() {
    let short = [("proxy-read-timeout", "1"), ("proxy-next-upstream-tries", "1")];
    let world = configured(&short);
    world.site(&[]).get("/sleep/3000").send().is(504);
    world.site(&[("proxy-read-timeout", "10")]).get("/sleep/1200").send().from("echo");
    let wrong = configured(&[("proxy-read-timeout", "50k"), ("proxy-connect-timeout", "50k")]);
    wrong.site(&[]).get("/sleep/10").send().from("echo");
}

#[test]
fn next_upstream_is_a_default_of_locations() {
    let options =
        [("proxy-next-upstream", "timeout http_502"), ("proxy-next-upstream-tries", "888888")];
    let world = configured(&options);
    let site = world.new_site();
    let pods = [Origin::start("always-502"), Origin::start("sound")];
    site.with("svc", service(&site.own("svc"), &[&pods[0], &pods[1]]));
    site.put(Sheet::new("web").path("/", "Prefix", &site.own("svc")));
    for _ in 0..10 {
        site.get("/").send().from("sound");
    }
}

#[test]
fn body_size_is_a_default_of_locations() {
    let world = configured(&[("proxy-body-size", "10")]);
    let ask = |site: &Site| site.request("POST", "/").body("more than ten").send();
    ask(&world.site(&[])).is(413);
    ask(&world.site(&[("proxy-body-size", "100")])).from("echo");
}

#[test]
fn custom_http_errors_is_a_default_of_locations() {
    let flags = ["--default-backend-service", "default/other"];
    let world = Arc::new(World::configured_with(&[("custom-http-errors", "404,503")], &flags));
    world.site(&[]).get("/status/404").send().from("other").saw("x-code", "404");
    let own = world.site(&[("custom-http-errors", "418")]);
    own.get("/status/404").send().is(404);
    own.get("/status/418").send().from("other").saw("x-code", "418");
}

#[test]
fn ssl_redirect_is_a_default_of_locations() {
    let world = configured(&[("ssl-redirect", "false")]);
    let site = world.new_site();
    site.put(Sheet::new("web").tls("none").path("/", "Prefix", "echo"));
    site.get("/").send().from("echo");
    let world = configured(&[("force-ssl-redirect", "true")]);
    let site = world.site(&[]);
    site.get("/").send().is(308).has("location", &format!("https://{}", site.host));
}

/// A host with TLS in a world with these options.
fn secured(options: &[(&str, &str)]) -> Site {
    let site = configured(options).new_site();
    site.with("tls", self_signed(&[&site.host]).secret("tls"));
    site.put(Sheet::new("web").tls("tls").path("/", "Prefix", "echo"));
    site
}

const HSTS: &str = "strict-transport-security";

#[test]
fn hsts() {
    let year = secured(&[]);
    year.https("/").send().from("echo").has(HSTS, "max-age=31536000; includeSubDomains");
    year.get("/").send().is(308).lacks(HSTS);
    for (options, value) in [
        (&[("hsts-max-age", "86400")][..], "max-age=86400; includeSubDomains"),
        (&[("hsts-max-age", "86400"), ("hsts-include-subdomains", "false")], "max-age=86400"),
        (
            &[
                ("hsts-max-age", "86400"),
                ("hsts-preload", "true"),
                ("hsts-include-subdomains", "false"),
            ],
            "max-age=86400; preload",
        ),
    ] {
        let site = secured(options);
        site.https("/").send().from("echo").has(HSTS, value);
        // What the endpoint says of it does not add to that.
        let target = "/status/200?Strict-Transport-Security=max-age=3600;%20preload";
        site.https(target).send().is(200).has(HSTS, value);
    }
    secured(&[("hsts", "false")]).https("/").send().from("echo").lacks(HSTS);
}

#[test]
fn tls_protocols_and_ciphers() {
    let options = [
        ("ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"),
        ("ssl-protocols", "TLSv1.2"),
    ];
    let site = secured(&options);
    let text = handshake(&site, &[]);
    assert!(text.contains("TLSv1.2") && text.contains("ECDHE-ECDSA-AES256-GCM-SHA384"), "{text}");
}

/// What openssl says of a handshake with a site.
fn handshake(site: &Site, more: &[&str]) -> String {
    let address = site.world.podium.https.to_string();
    let out = std::process::Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", &site.host])
        .args(more)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn redirects_name_neither_port_nor_a_made_up_host() {
    let site = secured(&[]);
    let asked = site.get("/").header("X-Forwarded-Host", "example.com:80");
    asked.send().is(308).has("location", &format!("https://{}", site.host));
    // Believed: the host it names, without its port.
    let site = secured(&[("use-forwarded-headers", "true")]);
    let asked = site.get("/").header("X-Forwarded-Host", "example.com:80");
    asked.send().is(308).has("location", "https://example.com");
}

/// Off by default upstream, and here always: endpoints compress, and what they send is passed on.
#[test]
fn gzip_is_for_endpoints() {
    let site = configured(&[("use-gzip", "true")]).site(&[]);
    let zipped = |target: &str| site.get(target).header("Accept-Encoding", "gzip").send();
    zipped("/xml").is(200).lacks("content-encoding");
    zipped("/status/200?Content-Encoding=gzip").is(200).has("content-encoding", "gzip");
}

#[test]
fn log_formats() {
    let format = "{\"first\":\"$http_header1\", \"second\":\"$http_header2\"}";
    for (escape, expected) in [
        (("log-format-escape-json", "true"), r#"{"first":"Here is \"it\"", "second":""}"#),
        (("log-format-escape-json", "false"), r#"{"first":"Here is \x22it\x22", "second":"-"}"#),
        (("log-format-escape-none", "true"), r#"{"first":"Here is "it"", "second":""}"#),
    ] {
        let world = configured(&[escape, ("log-format-upstream", format)]);
        world.site(&[]).get("/").header("header1", "Here is \"it\"").send().from("echo");
        let log = &world.podium.access_log;
        crate::harness::wait_until(&format!("a line {expected}"), || {
            log.lock().unwrap().contains(expected)
        });
    }
}

#[test]
fn access_log_of_the_default_backend_is_off_unless_told_so() {
    let world = configured(&[("enable-access-log-for-default-backend", "true")]);
    world.get("foo", "/somethingOne").send().is(404);
    world.configure(&[("enable-access-log-for-default-backend", "false")], "");
    world.get("bar", "/somethingTwo").send().is(404);
    world.site(&[]).get("/somethingThree").send().from("echo");
    let log = &world.podium.access_log;
    crate::harness::wait_until("the last line", || log.lock().unwrap().contains("/somethingThree"));
    let log = log.lock().unwrap();
    assert!(log.contains("/somethingOne") && !log.contains("/somethingTwo"), "{log}");
}

#[test]
fn tuning_of_nginx_serves() {
    for option in [
        ("keep-alive", "140"),
        ("keep-alive-requests", "200"),
        ("upstream-keepalive-connections", "128"),
        ("upstream-keepalive-timeout", "120"),
        ("upstream-keepalive-time", "75s"),
        ("upstream-keepalive-requests", "200"),
        ("worker-processes", "11"),
        ("limit-rate", "90"),
        ("ssl-session-tickets", "true"),
        ("ssl-session-cache", "false"),
        ("enable-multi-accept", "false"),
        ("reuse-port", "false"),
        ("enable-aio-write", "false"),
        ("lua-shared-dicts", "configuration_data: 60"),
        ("server-snippet", "more_set_headers \"Globalfoo: Foooo\";"),
        ("main-snippet", "worker_priority 0;"),
        ("http-snippet", "server_tokens on;"),
        ("stream-snippet", "server {listen 8000;}"),
    ] {
        configured(&[option]).site(&[]).get("/").send().from("echo").lacks("globalfoo");
    }
}

/// The answer to a request from 192.168.0.1 to this port, as a proxy in front says.
fn proxied(site: &Site, destination: u16, believed: &str) -> crate::client::Reply {
    let preface = format!("PROXY TCP4 192.168.0.1 192.168.0.11 56324 {destination}\r\n");
    let asked = site.get("/").preface(&preface);
    let asked = if believed.is_empty() { asked } else { asked.header("X-Forwarded-For", believed) };
    asked.send()
}

#[test]
fn proxy_protocol() {
    let site = secured(&[("use-proxy-protocol", "true"), ("ssl-redirect", "false")]);
    let reply = proxied(&site, 1234, "");
    reply.from("echo").saw("x-forwarded-port", "1234").saw("x-forwarded-proto", "http");
    reply.saw("x-forwarded-for", "192.168.0.1").saw("host", &site.host);
    // The port of HTTPS says that a proxy in front ended TLS.
    let reply = proxied(&site, 443, "");
    reply.from("echo").saw("x-forwarded-port", "443").saw("x-forwarded-proto", "https");
    let preface = "PROXY TCP4 192.168.0.1 192.168.0.11 56324 1234\r\n";
    let reply = site.https("/").preface(preface).send();
    reply.from("echo").saw("x-forwarded-port", "1234").saw("x-forwarded-proto", "https");
    reply.saw("x-scheme", "https").saw("x-forwarded-for", "192.168.0.1");
    assert!(site.get("/").try_send().is_err(), "without the line nothing is answered");
}

#[test]
fn proxy_protocol_and_forwarded_headers() {
    let both = [("use-proxy-protocol", "true"), ("use-forwarded-headers", "true")];
    let near = [&both[..], &[("proxy-real-ip-cidr", "127.0.0.0/8")]].concat();
    let reply = proxied(&configured(&near).site(&[]), 1234, "192.168.0.111");
    reply.from("echo").saw("x-forwarded-for", "192.168.0.1").saw("x-forwarded-port", "1234");
    let trusted = [&both[..], &[("proxy-real-ip-cidr", "127.0.0.0/8,192.168.0.1/32")]].concat();
    let reply = proxied(&configured(&trusted).site(&[]), 1234, "192.168.0.111");
    reply.from("echo").saw("x-forwarded-for", "192.168.0.111");
}

#[test]
fn ssl_passthrough() {
    let world = Arc::new(World::start(&["--enable-ssl-passthrough"]));
    let (passed, kept) = (world.new_site(), world.new_site());
    let pod = Origin::start_tls("secure", endpoint_tls(&self_signed(&[&passed.host]), None));
    passed.with("svc", service("secure", &[&pod]));
    let sheet = Sheet::new("web").set(&[("ssl-passthrough", "true")]);
    passed.put(sheet.path("/", "Prefix", "secure").tls("none"));
    let reply = passed.https("/").send();
    assert_eq!(names(&reply.from("secure").certificates[0]).1, std::slice::from_ref(&passed.host));
    reply.saw_no("x-forwarded-for");
    // Without the annotation TLS ends here, and the endpoint is spoken to in plain HTTP.
    kept.put(Sheet::new("web").path("/", "Prefix", "secure").tls("none"));
    let reply = kept.https("/").send();
    assert_eq!(names(&reply.certificates[0]).1, ["ingress.local"]);
    reply.expect(reply.backend().is_empty(), "no answer of the endpoint");
    passed.get("/").host("something.test").send().is(404);
}

#[test]
fn ssl_passthrough_needs_the_flag() {
    let site = configured(&[]).site(&[("ssl-passthrough", "true")]);
    let reply = site.https("/").send();
    assert_eq!(names(&reply.from("echo").certificates[0]).1, ["ingress.local"]);
}

/// The annotations of sslciphers.go.
#[test]
fn ssl_ciphers_of_an_ingress() {
    let ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
    let world = configured(&[("ssl-protocols", "TLSv1.2")]);
    let site = world.new_site();
    site.with("tls", self_signed(&[&site.host]).secret("tls"));
    let chosen = [("ssl-ciphers", ciphers), ("ssl-prefer-server-ciphers", "true")];
    site.put(Sheet::new("web").set(&chosen).tls("tls").path("/", "Prefix", "echo"));
    let text = handshake(
        &site,
        &["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"],
    );
    assert!(text.contains("ECDHE-ECDSA-AES256-GCM-SHA384"), "{text}");
}

/// What metrics/metrics.go checks: clients that ask for hosts nobody named make no series.
#[test]
fn metrics_of_undefined_hosts() {
    let world = configured(&[]);
    let site = world.site(&[]);
    world.get("wildcard.undefined.test", "/").send().is(404);
    site.get("/").send().from("echo");
    let metrics = world.podium.metrics();
    assert!(metrics.contains("nginx_ingress_controller_requests{"), "{metrics}");
    assert!(metrics.contains(&format!("host=\"{}\"", site.host)), "{metrics}");
    assert!(!metrics.contains("undefined.test"), "{metrics}");
}

/// What gracefulshutdown/*.go check.
#[test]
fn shutdown_is_announced_and_finishes_what_is_under_way() {
    let world = Arc::new(World::start(&["--shutdown-delay", "3"]));
    let site = world.site(&[]);
    let slow = site.get("/sleep/1500");
    let slow = std::thread::spawn(move || slow.send().status);
    let arrived = || !world.echo.received().is_empty();
    crate::harness::wait_until("the slow request is with the endpoint", arrived);
    let pid = world.podium.process.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let health = || crate::client::Request::new(world.podium.status, "GET", "status", "/healthz");
    crate::harness::wait_until("health fails", || {
        health().try_send().is_ok_and(|reply| reply.status >= 500)
    });
    // Until load balancers noticed, new requests are served.
    site.get("/").send().from("echo");
    assert_eq!(slow.join().unwrap(), 200);
    crate::harness::wait_until("it ends", || health().try_send().is_err());
}
