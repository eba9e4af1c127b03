//! What annotations/authtls.go checks: certificates of clients.

use crate::certificates::{Authority, Pair, object, self_signed};
use crate::client::{Request, Tls};
use crate::world::{Sheet, Site, shared};

struct Mutual {
    site: Site,
    authority: Authority,
    client: Pair,
}

const SECRET: &str = "auth-tls-secret";

impl Mutual {
    /// A host with TLS whose clients are signed by an authority, with these annotations.
    fn new(annotations: &[(&str, &str)]) -> Mutual {
        let site = shared().new_site();
        let authority = Authority::new("clients");
        let pair = self_signed(&[&site.host]);
        let secret = site.own("tls");
        let entries = [
            ("tls.crt", pair.chain.as_str()),
            ("tls.key", pair.key.as_str()),
            ("ca.crt", authority.certificate.as_str()),
        ];
        site.with("tls", object("Secret", &secret, "stringData", &entries));
        let client = authority.sign("authtls");
        let mutual = Mutual { site, authority, client };
        mutual.put(annotations);
        mutual
    }

    fn put(&self, annotations: &[(&str, &str)]) {
        let secret = self.site.own("tls");
        let reference = format!("default/{secret}");
        let sheet = Sheet::new("web").set(&[(SECRET, &reference)]).set(annotations);
        self.site.put(sheet.path("/", "Prefix", "echo").tls(&secret));
    }

    fn ask(&self, client: Option<&Pair>) -> Request {
        let identity = client.map(|pair| (pair.chain.clone(), pair.key.clone()));
        let tls = Tls { server_name: self.site.host.clone(), identity, ..Tls::default() };
        self.site.https("/").tls(tls)
    }

    fn with_certificate(&self) -> Request {
        self.ask(Some(&self.client))
    }
}

#[test]
fn a_certificate_is_needed() {
    for annotations in [&[][..], &[("auth-tls-verify-client", "on")]] {
        let mutual = Mutual::new(annotations);
        mutual.ask(None).send().is(400).says("No required SSL certificate was sent");
        mutual.with_certificate().send().from("echo");
        let stranger = Authority::new("strangers").sign("authtls");
        mutual.ask(Some(&stranger)).send().is(400).says("The SSL certificate error");
    }
}

#[test]
fn annotations_added_later() {
    let mutual = Mutual::new(&[]);
    let plain = Sheet::new("web").path("/", "Prefix", "echo").tls(&mutual.site.own("tls"));
    mutual.site.put(plain);
    mutual.ask(None).send().from("echo");
    mutual.put(&[]);
    mutual.ask(None).send().is(400);
    mutual.with_certificate().send().from("echo");
}

#[test]
fn verification_off() {
    let off = [("auth-tls-verify-client", "off"), ("auth-tls-verify-depth", "2")];
    let mutual = Mutual::new(&off);
    mutual.ask(None).send().from("echo");
    mutual.put(&[("auth-tls-verify-client", "on")]);
    mutual.ask(None).send().is(400);
    mutual.put(&[("auth-tls-verify-client", "off")]);
    mutual.with_certificate().send().from("echo");
    mutual.ask(None).send().from("echo");
}

#[test]
fn verification_optional() {
    let mutual = Mutual::new(&[("auth-tls-verify-client", "optional")]);
    mutual.ask(None).send().from("echo").saw("ssl-client-verify", "NONE");
    let stranger = Authority::new("strangers").sign("authtls");
    mutual.ask(Some(&stranger)).send().is(400);
    mutual.with_certificate().send().from("echo").saw("ssl-client-verify", "SUCCESS");
    let lenient = Mutual::new(&[("auth-tls-verify-client", "optional_no_ca")]);
    let reply = lenient.ask(Some(&stranger)).send();
    reply.from("echo");
    let verdict = reply.seen("ssl-client-verify").join(", ");
    reply.expect(verdict.starts_with("FAILED:"), "FAILED at the endpoint");
}

#[test]
fn an_error_page_instead_of_400() {
    let page = "http://errors.test/error";
    let mutual = Mutual::new(&[("auth-tls-error-page", page)]);
    mutual.ask(None).send().is(302).has("location", page);
    mutual.with_certificate().send().from("echo");
}

#[test]
fn the_endpoint_is_told_of_the_certificate() {
    let mutual = Mutual::new(&[]);
    let reply = mutual.with_certificate().header("ssl-client-cert", "made-up").send();
    reply.from("echo").saw("ssl-client-subject-dn", "CN=authtls").saw_no("ssl-client-cert");
    reply.saw("ssl-client-issuer-dn", "CN=clients").saw("ssl-client-verify", "SUCCESS");
    let passing = Mutual::new(&[("auth-tls-pass-certificate-to-upstream", "true")]);
    passing.ask(None).send().is(400);
    let reply = passing.with_certificate().send();
    let passed = reply.seen("ssl-client-cert").join(", ");
    reply.expect(
        passed.starts_with("-----BEGIN%20CERTIFICATE-----%0A")
            && passed.ends_with("-----END%20CERTIFICATE-----%0A"),
        "the certificate, escaped, at the endpoint",
    );
}

#[test]
fn clients_without_tls_cannot_say_they_had_a_certificate() {
    let mutual = Mutual::new(&[("ssl-redirect", "false"), ("auth-tls-verify-client", "optional")]);
    let asked = mutual.site.get("/").header("ssl-client-verify", "SUCCESS");
    let reply = asked.header("ssl-client-subject-dn", "CN=root").send();
    reply.from("echo");
    reply.expect(!reply.seen("ssl-client-verify").contains(&"SUCCESS"), "no SUCCESS");
    reply.expect(!reply.seen("ssl-client-subject-dn").contains(&"CN=root"), "no made-up name");
}

#[test]
fn the_common_name_has_to_match() {
    let matching = |pattern| Mutual::new(&[("auth-tls-match-cn", pattern)]);
    matching("CN=notgonnamatch").with_certificate().send().is(403);
    matching("CN=authtls").with_certificate().send().from("echo");
    matching("CN=(itwillmatch|withthenextoption|authtls)").with_certificate().send().from("echo");
}

#[test]
fn the_common_name_follows_a_changed_annotation() {
    let mutual = Mutual::new(&[("auth-tls-match-cn", "CN=notvalid")]);
    mutual.with_certificate().send().is(403);
    mutual.put(&[("auth-tls-match-cn", "CN=authtls")]);
    mutual.with_certificate().send().from("echo");
    let other = mutual.authority.sign("other");
    mutual.ask(Some(&other)).send().is(403);
}

#[test]
fn a_secret_that_is_missing_closes_the_host() {
    let site = shared().new_site();
    let secret = site.own("tls");
    site.with("tls", self_signed(&[&site.host]).secret(&secret));
    let sheet = Sheet::new("web").set(&[(SECRET, "default/no-such-secret")]);
    site.put(sheet.path("/", "Prefix", "echo").tls(&secret));
    // Upstream answers 403, we what every other guard that does not work is answered with.
    let reply = site.https("/").send();
    reply.expect([403, 503].contains(&reply.status), "a refusal");
}

#[test]
fn the_host_asked_for_is_the_host_of_the_certificate() {
    // One connection to a host without client certificates does not reach the host that wants them.
    let mutual = Mutual::new(&[]);
    let open = mutual.site.world.site(&[]);
    let reply = open.https("/").host(&mutual.site.host).send();
    reply.expect([400, 421].contains(&reply.status), "a refusal");
}
