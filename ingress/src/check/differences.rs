//! What annotations that are honoured do differently, in words: for those who switch, and in the same
//! words in `docs/ingress.md`.

const DIFFERENCES: &[(&str, &str)] = &[
    (
        "affinity",
        "cookies of nginx name no endpoint here: each client is given a new one once, at the switch",
    ),
    (
        "upstream-hash-by",
        "keys go to other endpoints than with nginx: caches at endpoints are cold once, at the switch",
    ),
    (
        "auth-cache-key",
        "answers of the authority are cached in memory of each replica, not on a disk",
    ),
    (
        "auth-type",
        "passwords written by the old DES crypt let nobody in (their users are named); write them again with htpasswd -B",
    ),
    (
        "auth-url",
        "$host and variables of the Ingress may stand in the host of the URL, no others; the authority sees X-Forwarded-* of trusted proxies only",
    ),
    (
        "limit-rate",
        "an answer is slowed down by pieces of up to 64 kB: at a few kB a second they come rarely",
    ),
    (
        "use-regex",
        "expressions are those of the regex crate: no look-around and no back-references (a path with them is refused by itself)",
    ),
    (
        "custom-http-errors",
        "the default backend gets the request without its body; its page has the headers of the location (CORS, custom-headers), too",
    ),
    (
        "cors-allow-origin",
        "origins are compared as a whole; a list of which no entry is right opens the location to nobody",
    ),
    (
        "mirror-target",
        "bodies over 1 MiB are not mirrored, nor more than 512 requests at once; without a path copies go to the path of the request",
    ),
];

/// What an annotation does differently.
pub fn of_annotation(name: &str) -> Option<&'static str> {
    DIFFERENCES.iter().find(|(own, _)| *own == name).map(|(_, difference)| *difference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations;

    #[test]
    fn differences_are_of_annotations_there_are() {
        for (name, _) in DIFFERENCES {
            assert!(annotations::support(name).is_some(), "{name}");
        }
    }
}
