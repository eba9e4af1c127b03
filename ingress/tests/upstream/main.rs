//! Behaviour that ingress-nginx's own end-to-end tests and the Ingress conformance features check, as
//! cases of ours: what the text of a configuration would do on the wire, not the text.
//!
//! Upstream's `test/e2e` (and where its cases are):
//!
//! | file | cases |
//! |---|---|
//! | annotations/affinity, affinitymode | `annotations::affinity` |
//! | annotations/auth, satisfy | `annotations::auth` |
//! | annotations/authtls | `annotations::authtls` |
//! | annotations/canary | `annotations::canary` |
//! | annotations/cors | `annotations::cors` |
//! | annotations/customhttperrors, default_backend, disableproxyintercepterrors, customheaders | `annotations::errors` |
//! | annotations/ipallowlist, ipdenylist, limitconnections, limitrate, log, disableaccesslog | `annotations::guards` |
//! | annotations/approot, forcesslredirect, fromtowwwredirect, redirect, relativeredirects, preservetrailingslash | `annotations::redirects` |
//! | annotations/rewrite, xforwardedprefix, upstreamvhost, alias, connection | `annotations::rewriting` |
//! | annotations/proxy, proxyssl, backendprotocol, serviceupstream, upstreamhashby, mirror, clientbodybuffersize | `annotations::upstreams` |
//! | annotations/sslciphers | `settings::ssl_ciphers_of_an_ingress` |
//! | annotations/grpc, settings/grpc | the target `e2e`, `clients` |
//! | ingress/*, defaultbackend/*, security/* | `paths` |
//! | endpointslices/*, servicebackend/*, loadbalance/*, lua/dynamic_configuration | `services` |
//! | lua/dynamic_certificates, ssl/secret_update, settings/default_ssl_certificate | `certificates_served` |
//! | ssl/http_redirect | `annotations::redirects` |
//! | settings/ingress_class, disable_catch_all | `classes` |
//! | settings/*, gracefulshutdown/*, metrics/* | `settings` |
//! | status/update, disableleaderelection, settings/disable_sync_events | the target `e2e`, `status` and `events` |
//! | conformance: default_backend, host_rules, path_rules, load_balancing | `paths::conformance_*` |
//! | conformance: ingress_class | `classes` |
//!
//! Not applicable: annotations/serversnippet, snippet, streamsnippet, settings/server_snippet, main_snippet,
//! stream_snippet, proxy_host (snippets are refused: `annotations::guards::snippets_have_no_effect`);
//! annotations/fastcgi (`annotations::upstreams::backend_protocol_fcgi_is_not_spoken`);
//! annotations/http2pushpreload (gone from browsers); annotations/modsecurity, settings/modsecurity, geoip2,
//! brotli, opentelemetry, ocsp (modules of nginx that are not here and are reported); settings/aio_write,
//! hash-size, lua_shared_dicts, multi_accept, reuse-port, global_options, ssl_session_cache and the rest of
//! keep-alive (tuning of nginx: `settings::tuning_of_nginx_serves`); settings/access_log's paths (the log
//! goes to standard output), namespace_selector (refused: `--watch-namespace` takes one); tcpudp (streams are not served and `--tcp-services-configmap` says so);
//! admission, settings/validations (there is no webhook: what it would refuse is reported on the Ingress);
//! leaks, cgroups, dbg, nginx (of nginx's own processes and image).

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod annotations;
mod certificates;
mod certificates_served;
mod classes;
mod client;
mod origin;
mod paths;
mod services;
mod settings;
mod world;

#[path = "../e2e/backend.rs"]
#[expect(dead_code, reason = "the harness speaks of it")]
mod backend;
#[path = "../e2e/harness.rs"]
#[expect(dead_code, reason = "only starting the binary is needed here")]
mod harness;
