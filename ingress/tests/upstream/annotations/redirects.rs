//! What approot.go, forcesslredirect.go, fromtowwwredirect.go, redirect.go, relativeredirects.go and
//! preservetrailingslash.go check (all in annotations), and ssl/http_redirect.go.

use crate::certificates::self_signed;
use crate::client::Tls;
use crate::world::{Sheet, Site, shared, site};

#[test]
fn app_root() {
    let site = site(&[("app-root", "/foo")]);
    site.get("/").send().is(302).has("location", &format!("http://{}/foo", site.host));
    site.get("/bar").send().from("echo");
}

#[test]
fn app_root_of_a_host_with_other_paths_only() {
    let site = shared().new_site();
    site.put(Sheet::new("web").set(&[("app-root", "/foo")]).path("/foo", "Prefix", "echo"));
    site.get("/").send().is(302).has("location", &format!("http://{}/foo", site.host));
    site.get("/foo").send().from("echo");
}

#[test]
fn force_ssl_redirect_drops_the_last_slash() {
    let site = site(&[("force-ssl-redirect", "true")]);
    let host = &site.host;
    site.get("/").send().is(308).has("location", &format!("https://{host}"));
    site.get("/a/").send().is(308).has("location", &format!("https://{host}/a"));
    site.get("/a?b=c").send().is(308).has("location", &format!("https://{host}/a?b=c"));
}

/// A site with TLS from a Secret that may be there or not.
fn secured(annotations: &[(&str, &str)], with_secret: bool) -> Site {
    let site = shared().new_site();
    let secret = site.own("tls");
    if with_secret {
        site.with("tls", self_signed(&[&site.host]).secret(&secret));
    }
    site.put(Sheet::new("web").set(annotations).path("/", "Prefix", "echo").tls(&secret));
    site
}

#[test]
fn ssl_redirect_even_without_the_secret() {
    for with_secret in [true, false] {
        let site = secured(&[], with_secret);
        site.get("/").send().is(308).has("location", &format!("https://{}", site.host));
        site.https("/").send().from("echo");
    }
}

#[test]
fn ssl_redirect_off() {
    secured(&[("ssl-redirect", "false")], true).get("/").send().from("echo");
}

#[test]
fn ssl_redirect_leaves_acme_challenges_alone() {
    let site = secured(&[], true);
    site.get("/.well-known/acme-challenge/token").send().from("echo");
}

#[test]
fn ssl_redirect_names_no_port() {
    let site = secured(&[], true);
    let asked = site.get("/x").host(&format!("{}:8080", site.host));
    asked.send().is(308).has("location", &format!("https://{}/x", site.host));
}

#[test]
fn preserve_trailing_slash() {
    let site = secured(&[("ssl-redirect", "true"), ("preserve-trailing-slash", "true")], true);
    site.get("/").send().is(308).has("location", &format!("https://{}/", site.host));
    site.get("/a/").send().is(308).has("location", &format!("https://{}/a/", site.host));
}

#[test]
fn from_www_over_http() {
    let site = site(&[("from-to-www-redirect", "true")]);
    let location = format!("http://{}:{}/foo", site.host, site.world.podium.http.port());
    let www = format!("www.{}", site.host);
    site.get("/foo").host(&www).send().is(308).has("location", &location);
    site.get("/foo").send().from("echo");
}

#[test]
fn from_www_over_https() {
    let site = shared().new_site();
    let www = format!("www.{}", site.host);
    let secret = site.own("tls");
    site.with("tls", self_signed(&[&site.host, &www]).secret(&secret));
    let tls = serde_json::json!([{"hosts": [site.host, www], "secretName": secret}]);
    let sheet = Sheet::new("web").set(&[("from-to-www-redirect", "true")]);
    site.put(sheet.path("/", "Prefix", "echo").spec("tls", tls));
    let port = site.world.podium.https.port();
    let asked = site.https("/").host(&www).tls(Tls { server_name: www.clone(), ..Tls::default() });
    let reply = asked.send();
    // The port clients use is 443, whatever this process binds.
    let locations = [format!("https://{}:443", site.host), format!("https://{}:{port}", site.host)];
    reply.is(308).expect(locations.iter().any(|l| l == reply.header("location")), "the host alone");
    let (_, names) = crate::certificates::names(&reply.certificates[0]);
    reply.expect(names.contains(&www), "a certificate that names www");
    site.https("/").send().from("echo").saw("host", &site.host);
}

#[test]
fn to_www() {
    let site = shared().new_site();
    let www = format!("www.{}", site.host);
    let rules = serde_json::json!([{"host": www, "http": {"paths": [{"path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "echo", "port": {"number": 80}}}}]}}]);
    site.put(Sheet::new("web").set(&[("from-to-www-redirect", "true")]).spec("rules", rules));
    let location = format!("http://{www}:{}/foo?a=b", site.world.podium.http.port());
    site.get("/foo?a=b").send().is(308).has("location", &location);
    site.get("/foo").host(&www).send().from("echo");
}

#[test]
fn permanent_redirect() {
    let target = "http://redirect.example.com";
    let site = site(&[("permanent-redirect", target)]);
    site.get("/something").send().is(301).has("location", target);
}

#[test]
fn permanent_redirect_code() {
    let target = "http://redirect.example.com";
    for (code, answered) in [("302", 302), ("307", 307), ("308", 308), ("200", 301), ("404", 301)] {
        let site = site(&[("permanent-redirect", target), ("permanent-redirect-code", code)]);
        site.get("/something").send().is(answered).has("location", target);
    }
}

#[test]
fn permanent_redirect_is_for_the_rules_of_its_ingress() {
    let site = shared().new_site();
    let gone = Sheet::new("gone").set(&[("permanent-redirect", "http://new.test/a?b=c")]);
    site.put(gone.path("/something", "Prefix", "echo"));
    site.put(Sheet::new("web").path("/", "Prefix", "echo"));
    site.get("/something/else").send().is(301).has("location", "http://new.test/a?b=c");
    site.get("/").send().from("echo");
}

#[test]
fn temporal_redirect_wins() {
    let both =
        [("temporal-redirect", "http://soon.test"), ("permanent-redirect", "http://ever.test")];
    site(&both).get("/").send().is(302).has("location", "http://soon.test");
    let coded = [("temporal-redirect", "http://soon.test"), ("temporal-redirect-code", "307")];
    site(&coded).get("/").send().is(307).has("location", "http://soon.test");
}

#[test]
fn relative_redirects_off_completes_the_location() {
    for off in [&[][..], &[("relative-redirects", "false")]] {
        let site = site(&[&[("permanent-redirect", "/something/else")], off].concat());
        let absolute = format!("http://{}/something/else", site.host);
        site.get("/something").send().is(301).has("location", &absolute);
    }
}

#[test]
fn relative_redirects_on_leaves_the_location() {
    let site = site(&[("permanent-redirect", "/something/else"), ("relative-redirects", "true")]);
    site.get("/something").send().is(301).has("location", "/something/else");
}

#[test]
fn locations_of_endpoints_are_theirs() {
    let site = site(&[("relative-redirects", "true")]);
    let target = "/status/302?Location=%2Fget";
    site.get(target).send().is(302).has("location", "/get");
}
