//! Content negotiation: which form of an answer the client wants.

/// How an object or list is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Object,
    /// `meta.k8s.io` Table, in this version.
    Table(&'static str),
    /// Metadata only.
    Metadata,
}

/// How it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
}

impl Answer {
    /// What errors and objects without other forms are sent as.
    pub(crate) const JSON: Self = Self { form: Form::Object, encoding: Encoding::Json };
}

/// The first form the client accepts and we offer; `None` is 406 Not Acceptable.
pub(crate) fn answer(accept: Option<&str>) -> Option<Answer> {
    let Some(accept) = accept.map(str::trim).filter(|accept| !accept.is_empty()) else {
        return Some(Answer::JSON);
    };
    clauses(accept).into_iter().find_map(|clause| offered(&clause))
}

/// One alternative of an Accept header.
pub(crate) struct Clause<'a> {
    pub(crate) media_type: &'a str,
    pub(crate) parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }
}

/// The alternatives of an Accept header, best first.
pub(crate) fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = accept.split(',').map(clause).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

fn clause(text: &str) -> Clause<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let mut quality = 1.0;
    let mut parameters = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if key == "q" {
            quality = value.parse().unwrap_or(0.0);
        } else {
            parameters.push((key, value.trim_matches('"')));
        }
    }
    Clause { media_type, parameters, quality }
}

fn offered(clause: &Clause<'_>) -> Option<Answer> {
    let encoding = match clause.media_type {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let form = match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
        (None, _, _) => Form::Object,
        (Some("Table"), Some("meta.k8s.io"), Some("v1")) => Form::Table("v1"),
        (Some("Table"), Some("meta.k8s.io"), Some("v1beta1")) => Form::Table("v1beta1"),
        (
            Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
            Some("meta.k8s.io"),
            Some("v1" | "v1beta1"),
        ) => Form::Metadata,
        _ => return None,
    };
    Some(Answer { form, encoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_offered_alternative_wins() {
        let table = |version| Answer { form: Form::Table(version), encoding: Encoding::Json };
        for (accept, want) in [
            (None, Some(Answer::JSON)),
            (Some("*/*"), Some(Answer::JSON)),
            (Some("application/vnd.kubernetes.protobuf, application/json"), Some(Answer::JSON)),
            (
                Some("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
                Some(table("v1")),
            ),
            (
                Some(
                    "application/json;as=Table;v=v2;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                ),
                Some(table("v1beta1")),
            ),
            (
                Some("application/json;q=0.5, application/yaml"),
                Some(Answer { form: Form::Object, encoding: Encoding::Yaml }),
            ),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (Some("application/json;as=Pineapple;v=v1;g=meta.k8s.io"), None),
            (Some("text/html"), None),
        ] {
            assert_eq!(answer(accept), want, "{accept:?}");
        }
    }
}
