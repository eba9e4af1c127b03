//! What whoever runs the controller does not let Ingresses say: riskier annotations than
//! `annotations-risk-level`, and words of `annotation-value-word-blocklist`. An Ingress that says it answers
//! 503: whatever it meant to do must not happen half.

use super::PREFIX;
use super::values::Refusal;
use crate::objects::ingress::Annotations;
use crate::options::{IngressOptions, Risk};

const MEDIUM: &[&str] = &[
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-secret",
    "auth-signin-redirect-param",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "custom-headers",
    "denylist-source-range",
    "force-ssl-redirect",
    "opentelemetry-operation-name",
    "permanent-redirect",
    "preserve-trailing-slash",
    "proxy-body-size",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-next-upstream",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-ssl-ciphers",
    "proxy-ssl-secret",
    "rewrite-target",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "temporal-redirect",
    "whitelist-source-range",
    "x-forwarded-prefix",
];
const HIGH: &[&str] = &[
    "auth-signin",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-url",
    "mirror-host",
    "mirror-target",
    "modsecurity-transaction-id",
    "proxy-ssl-name",
    "server-alias",
    "upstream-hash-by",
];

/// The risk ingress-nginx sees in an annotation. Snippets, its critical ones, are refused anyway.
fn risk(name: &str) -> Risk {
    if HIGH.contains(&name) {
        Risk::High
    } else if MEDIUM.contains(&name) {
        Risk::Medium
    } else {
        Risk::Low
    }
}

/// The annotations of an Ingress that are not to be there.
pub fn check<'a>(
    annotations: &'a Annotations,
    options: &IngressOptions,
) -> Vec<(&'a str, Refusal)> {
    if options.risk_max >= Risk::High && options.words_blocked.is_empty() {
        return Vec::new();
    }
    let own =
        annotations.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
    own.filter_map(|(name, value)| {
        let refusal = if risk(name) > options.risk_max {
            Refusal::closes("is riskier than the option annotations-risk-level allows")
        } else if options.words_blocked.iter().any(|word| value.contains(word)) {
            Refusal::closes("holds a word of the option annotation-value-word-blocklist")
        } else {
            return None;
        };
        Some((name, refusal))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_risk_level_and_annotation_value_word_blocklist_forbid() {
        let annotations: Annotations =
            [("ssl-redirect", "true"), ("rewrite-target", "/load_module"), ("server-alias", "a.b")]
                .map(|(name, value)| (format!("{PREFIX}{name}"), value.to_string()))
                .into_iter()
                .collect();
        for (risk_max, words, forbidden) in [
            (Risk::High, "", &[][..]),
            (Risk::Critical, "load_module", &["rewrite-target"]),
            (Risk::Medium, "", &["server-alias"]),
            (Risk::Low, "", &["rewrite-target", "server-alias"]),
            (Risk::Low, "true", &["rewrite-target", "server-alias", "ssl-redirect"]),
        ] {
            let words_blocked =
                words.split(',').filter(|w| !w.is_empty()).map(Into::into).collect();
            let options = IngressOptions { risk_max, words_blocked, ..IngressOptions::default() };
            let found = check(&annotations, &options);
            let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, forbidden, "{risk_max:?} {words}");
            assert!(found.iter().all(|(_, refusal)| matches!(refusal, Refusal::Closes(_))));
        }
    }
}
