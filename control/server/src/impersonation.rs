//! Acting as somebody else (`kubectl --as`): the `Impersonate-*` headers. Only administrators may.

use http::{HeaderMap, HeaderName};
use podium_api::status::Status;

use crate::identity::{ANONYMOUS, Identity, MASTERS};

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Who a request of `caller` is to be taken for: the caller, unless its headers name another.
///
/// # Errors
/// 403 when the caller may not, 400 when groups, a uid or extras come without a user, 401 when the
/// user named is nobody known.
pub(crate) fn apply(caller: Identity, headers: &HeaderMap) -> Result<Identity, Status> {
    let Some(user) = text(headers, &USER) else {
        let others = [UID, GROUP].iter().any(|name| headers.contains_key(name))
            || headers.keys().any(|name| name.as_str().starts_with(EXTRA_PREFIX));
        if others {
            let message = "requested to impersonate a group, a uid or extra fields without \
                           impersonating a user";
            return Err(Status::bad_request(message));
        }
        return Ok(caller);
    };
    if !caller.groups.iter().any(|group| group == MASTERS) {
        let why = format!(
            "User \"{}\" cannot impersonate user \"{user}\": only members of {MASTERS} can",
            caller.user
        );
        return Err(Status::forbidden_request(why));
    }
    if user == ANONYMOUS {
        return Err(Status::unauthorized());
    }
    let groups = headers.get_all(GROUP).iter().filter_map(|group| group.to_str().ok());
    let mut identity = Identity::new(user, groups.map(str::to_owned));
    identity.uid = text(headers, &UID).unwrap_or_default().to_owned();
    for (name, value) in headers {
        let key = name.as_str().strip_prefix(EXTRA_PREFIX);
        if let (Some(key), Ok(value)) = (key, value.to_str()) {
            identity.extra.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    Ok(identity)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(caller: Identity, headers: &[(&'static str, &str)]) -> Result<Identity, u16> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        apply(caller, &headers).map_err(|status| status.code)
    }

    #[test]
    fn administrators_become_others_and_nobody_else_does() {
        let admin = Identity::system("admin");
        let as_bob: &[_] = &[
            ("impersonate-user", "bob"),
            ("impersonate-group", "a"),
            ("impersonate-group", "b"),
            ("impersonate-extra-scope", "s"),
        ];
        let bob = applied(admin.clone(), as_bob).unwrap();
        assert_eq!((bob.user.as_str(), &bob.groups[..2]), ("bob", &["a".into(), "b".into()][..]));
        assert_eq!(bob.extra["scope"], ["s"]);
        assert_eq!(applied(admin.clone(), &[]), Ok(admin.clone()));
        assert_eq!(applied(bob, &[("impersonate-user", "eve")]), Err(403));
        assert_eq!(applied(admin.clone(), &[("impersonate-group", "g")]), Err(400));
        assert_eq!(applied(admin, &[("impersonate-user", ANONYMOUS)]), Err(401));
    }
}
