//! Answers that send the client elsewhere.

use super::values::{Refusal, boolean, number};
use super::{Group, Row, honoured};
use crate::objects::ObjectKey;
use crate::variables::Template;
use std::ops::RangeInclusive;
use std::sync::Arc;

const ROWS: &[Row] = &[
    honoured("ssl-redirect"),
    honoured("force-ssl-redirect"),
    honoured("preserve-trailing-slash"),
    honoured("use-port-in-redirects"),
    honoured("app-root"),
    honoured("from-to-www-redirect"),
    honoured("permanent-redirect"),
    honoured("permanent-redirect-code"),
    honoured("temporal-redirect"),
    honoured("temporal-redirect-code"),
    honoured("relative-redirects"),
];

/// Redirects of a location.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirects {
    /// `ssl-redirect`: to https where the host has a certificate.
    pub to_https: bool,
    /// `force-ssl-redirect`: to https whether or not the host has one.
    pub to_https_always: bool,
    /// `from-to-www-redirect`: `HostRoutes::www_redirect` of the other host is what it leads to.
    pub from_to_www: bool,
    /// `preserve-trailing-slash`, of redirects to https.
    pub keep_trailing_slash: bool,
    /// `use-port-in-redirects`: name our port even where a client would find it without.
    pub name_port: bool,
    /// `relative-redirects`: where a redirect goes to a path, the client sees the path alone.
    pub relative: bool,
    /// `app-root`: where `/` of the host goes; `HostRoutes::app_root` is what it leads to.
    pub app_root: Option<Arc<str>>,
    /// `temporal-redirect`.
    pub temporal: Option<Template>,
    /// `temporal-redirect-code`.
    pub temporal_code: u16,
    /// `permanent-redirect`; the temporal one goes first.
    pub permanent: Option<Template>,
    /// `permanent-redirect-code`.
    pub permanent_code: u16,
}

impl Default for Redirects {
    fn default() -> Redirects {
        Redirects {
            to_https: true,
            to_https_always: false,
            from_to_www: false,
            keep_trailing_slash: false,
            name_port: false,
            relative: false,
            app_root: None,
            temporal: None,
            temporal_code: 302,
            permanent: None,
            permanent_code: 301,
        }
    }
}

impl Redirects {
    /// Where every request of the location is sent, and with which status.
    pub fn everything(&self) -> Option<(u16, &Template)> {
        let temporal = self.temporal.as_ref().map(|to| (self.temporal_code, to));
        temporal.or_else(|| self.permanent.as_ref().map(|to| (self.permanent_code, to)))
    }
}

impl Group for Redirects {
    fn rows(&self) -> &'static [Row] {
        ROWS
    }

    fn apply(&mut self, name: &str, value: &str, _: &ObjectKey) -> Result<(), Refusal> {
        match name {
            "ssl-redirect" => self.to_https = boolean(value)?,
            "force-ssl-redirect" => self.to_https_always = boolean(value)?,
            "from-to-www-redirect" => self.from_to_www = boolean(value)?,
            "preserve-trailing-slash" => self.keep_trailing_slash = boolean(value)?,
            "use-port-in-redirects" => self.name_port = boolean(value)?,
            "relative-redirects" => self.relative = boolean(value)?,
            "app-root" => self.app_root = app_root(value)?,
            "temporal-redirect" => self.temporal = location(value, false)?,
            "temporal-redirect-code" => self.temporal_code = code(value, 300..=307)?,
            "permanent-redirect" => self.permanent = location(value, true)?,
            "permanent-redirect-code" => self.permanent_code = code(value, 300..=308)?,
            _ => return Err(Refusal::Unknown),
        }
        Ok(())
    }
}

fn app_root(value: &str) -> Result<Option<Arc<str>>, Refusal> {
    let printable = |byte: u8| byte.is_ascii_graphic() && !b"\"'\\;{}$".contains(&byte);
    match value {
        "" => Ok(None),
        _ if value.starts_with('/') && value.bytes().all(printable) => Ok(Some(value.into())),
        _ => Err(Refusal::invalid("want a path that starts with a slash")),
    }
}

/// Where to; an empty text is nowhere. ingress-nginx takes paths for `permanent-redirect` only.
fn location(value: &str, path: bool) -> Result<Option<Template>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let absolute = ["http://", "https://", "$scheme://", "${scheme}://", "$pass_access_scheme://"]
        .iter()
        .any(|start| value.starts_with(start));
    let goes = absolute || (path && value.starts_with('/'));
    if !goes {
        let also = if path { ", or a path" } else { "" };
        return Err(Refusal::invalid(format!("want an http or https URL{also}")));
    }
    if http::HeaderValue::from_str(value).is_err() || value.contains(' ') {
        return Err(Refusal::invalid("not usable as the address of a redirect"));
    }
    Template::parse(value).map(Some).map_err(|error| Refusal::Refused(format!("{value:?} {error}")))
}

/// The status of a redirect: those for which nginx takes the text as an address.
fn code(value: &str, range: RangeInclusive<u16>) -> Result<u16, Refusal> {
    let wanted: u16 = number(value)?;
    match wanted {
        301..=303 | 307 | 308 if range.contains(&wanted) => Ok(wanted),
        _ => {
            let last = if range.contains(&308) { ", 307 or 308" } else { " or 307" };
            Err(Refusal::invalid(format!("want 301, 302, 303{last}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Redirects, Vec<String>) {
        let mut redirects = Redirects::default();
        let ingress = ObjectKey::new("shop", "web");
        let refused = pairs
            .iter()
            .filter_map(|(name, value)| redirects.apply(name, value, &ingress).err())
            .map(|refusal| refusal.problem(&ingress, "x", None).message)
            .collect();
        (redirects, refused)
    }

    #[test]
    fn the_temporal_redirect_goes_first() {
        let pairs = [
            ("permanent-redirect", "https://a.example"),
            ("permanent-redirect-code", "308"),
            ("temporal-redirect", "https://b.example$request_uri"),
            ("temporal-redirect-code", "307"),
        ];
        let (both, refused) = read(&pairs);
        assert!(refused.is_empty(), "{refused:?}");
        let (code, to) = both.everything().unwrap();
        assert_eq!((code, to.source()), (307, "https://b.example$request_uri"));
        let (permanent, _) = read(&pairs[..2]);
        assert_eq!(permanent.everything().unwrap().0, 308);
        assert!(Redirects::default().everything().is_none());
    }

    #[test]
    fn what_is_no_redirect_is_refused() {
        for (name, value, why) in [
            ("app-root", "http://a.example/", "want a path that starts with a slash"),
            ("app-root", "/a b", "want a path that starts with a slash"),
            ("permanent-redirect", "ftp://a.example", "want an http or https URL, or a path"),
            ("temporal-redirect", "/new", "want an http or https URL"),
            ("temporal-redirect", "https://a.example/$unicorn", "the variable $unicorn"),
            ("permanent-redirect-code", "200", "want 301, 302, 303, 307 or 308"),
            ("temporal-redirect-code", "308", "want 301, 302, 303 or 307"),
            ("temporal-redirect-code", "soon", "want a whole number"),
        ] {
            let (read, refused) = read(&[(name, value)]);
            assert!(refused.len() == 1 && refused[0].contains(why), "{name} {value}: {refused:?}");
            assert_eq!(read, Redirects::default(), "the default stays");
        }
    }
}
