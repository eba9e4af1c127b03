//! The guards of a location: who may use it. As nginx's access phase: addresses, then passwords, then the
//! authority; `satisfy any` lets in whom one of them lets in.

mod answers_cache;
mod external;

use super::answers::Answer;
use super::target::RequestTarget;
use super::{IngressProxy, RequestState, values};
use crate::annotations::access::Verdict;
use crate::credentials::Credentials;
use crate::options::Blocked;
use crate::resources::authority::Authority;
use crate::snapshot::Route;
pub use answers_cache::AnswersCache;
pub use external::Said;
use http::{HeaderName, HeaderValue, header};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use std::net::IpAddr;
use std::sync::Arc;

/// What one guard says.
enum Step {
    /// There is no such guard, or it has nothing to say.
    Nothing,
    /// Come in.
    Open,
    /// Keep out, with this answer.
    Shut(Answer),
}

/// Refuses clients that are blocked everywhere (`block-cidrs`, `block-user-agents`, `block-referers`).
pub fn blocked(blocked: &Blocked, request: &RequestHeader, client: IpAddr) -> Result<(), Answer> {
    let sent = |name| request.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    if blocked.sources.iter().any(|network| network.contains(&client))
        || (!blocked.user_agents.is_empty()
            && blocked.user_agents.contains(sent(header::USER_AGENT)))
        || (!blocked.referers.is_empty() && blocked.referers.contains(sent(header::REFERER)))
    {
        return Err(Answer::status(403));
    }
    Ok(())
}

/// Lets a request in, or answers it.
pub async fn check(
    proxy: &IngressProxy,
    route: &Route,
    target: &RequestTarget<'_>,
    request: &RequestHeader,
    state: &mut RequestState,
) -> Result<(), Answer> {
    let mut guards = Guards { any: route.settings.access.any, shut: None };
    if guards.take(by_address(route, state.forwarded.client))? {
        return Ok(());
    }
    if !asks_who(route) {
        return guards.end();
    }
    // In a box: most requests do without it, and all would carry its room.
    Box::pin(ask_who(proxy, route, target, request, state, guards)).await
}

/// The guards that want to know who the client is.
async fn ask_who(
    proxy: &IngressProxy,
    route: &Route,
    target: &RequestTarget<'_>,
    request: &RequestHeader,
    state: &mut RequestState,
    mut guards: Guards,
) -> Result<(), Answer> {
    let checked = async {
        if guards.take(by_password(proxy, route, request).await)? {
            return Ok(());
        }
        if let Some(authority) = &route.resources.authority
            && guards.take(external::ask(proxy, route, authority, target, request, state).await)?
        {
            return Ok(());
        }
        guards.end()
    };
    match (checked.await, &route.resources.authority) {
        (Err(answer), Some(authority)) if answer.status == 401 => {
            Err(sign_in(authority, route, target, request, state, answer))
        }
        (checked, _) => checked,
    }
}

/// Whether clients of the route have to say who they are. They need not on paths of `no-auth-locations`, as
/// where certificates are ordered.
fn asks_who(route: &Route) -> bool {
    let resources = &route.resources;
    if resources.passwords.is_none() && resources.authority.is_none() {
        return false;
    }
    let exempt = &route.options.global_auth.exempt_paths;
    !exempt.iter().any(|path| route.path.starts_with(path.as_str()))
}

/// What the guards so far add up to.
struct Guards {
    any: bool,
    shut: Option<Answer>,
}

impl Guards {
    /// Takes in what a guard says; whether no other one needs to be asked.
    fn take(&mut self, step: Step) -> Result<bool, Answer> {
        match step {
            Step::Nothing => Ok(false),
            Step::Open => Ok(self.any),
            Step::Shut(answer) if self.any && matches!(answer.status, 401 | 403) => {
                // As in nginx: asking for a password goes before a flat no.
                if self.shut.as_ref().is_none_or(|shut| shut.status != 401) {
                    self.shut = Some(answer);
                }
                Ok(false)
            }
            Step::Shut(answer) => Err(answer),
        }
    }

    fn end(&mut self) -> Result<(), Answer> {
        self.shut.take().map_or(Ok(()), Err)
    }
}

fn by_address(route: &Route, client: IpAddr) -> Step {
    match route.settings.access.verdict(client) {
        Verdict::Allowed => Step::Open,
        Verdict::Denied => Step::Shut(Answer::status(403)),
        Verdict::Neither => Step::Nothing,
    }
}

async fn by_password(proxy: &IngressProxy, route: &Route, request: &RequestHeader) -> Step {
    let Some(guard) = &route.resources.passwords else {
        return Step::Nothing;
    };
    let mut sent = request.headers.get_all(header::AUTHORIZATION).iter();
    if sent.next().is_some() && sent.next().is_some() {
        // As in nginx: whoever reads the other one must not be taken in.
        return Step::Shut(Answer::status(400));
    }
    if let Some(credentials) = Credentials::of(&request.headers)
        && proxy.passwords.verify(&guard.passwords, credentials).await
    {
        return Step::Open;
    }
    let mut answer = Answer::status(401);
    answer.headers.push((header::WWW_AUTHENTICATE, guard.challenge.clone()));
    Step::Shut(answer)
}

/// Sends a client without a session to where it gets one. Headers of the answer stay, as in nginx.
fn sign_in(
    authority: &Authority,
    route: &Route,
    target: &RequestTarget<'_>,
    request: &RequestHeader,
    state: &RequestState,
    mut answer: Answer,
) -> Answer {
    let Some(signin) = &authority.settings.signin else {
        return answer;
    };
    let values = values(request, target, state, Some(route));
    let mut location = signin.expand(&values);
    if location.first() == Some(&b'/') {
        let scheme = if state.connection.tls { "https" } else { "http" };
        location.splice(0..0, format!("{scheme}://{}", target.host).into_bytes());
    }
    let Answer { status, headers, body } = Answer::redirect(302, location);
    answer.headers.extend(headers);
    Answer { status, headers: answer.headers, body }
}

/// What the authority said goes to the endpoint; what the client sent under these names does not.
pub fn to_endpoint(
    upstream: &mut RequestHeader,
    route: &Route,
    said: Option<&Arc<Said>>,
) -> Result<()> {
    if !asks_who(route) {
        return Ok(());
    }
    let resources = &route.resources;
    if resources.passwords.is_some() {
        upstream.remove_header(&header::AUTHORIZATION);
    }
    if let Some(authority) = &resources.authority {
        for name in &authority.settings.response_headers {
            upstream.remove_header(name);
        }
        for (name, value) in said.iter().flat_map(|said| &said.for_endpoint) {
            upstream.insert_header(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

/// Cookies the authority set go to the client: with answers nginx's `add_header` is for, or with all.
pub fn to_client(answer: &mut ResponseHeader, route: &Route, said: &Said) -> Result<()> {
    const SET_COOKIE: HeaderName = header::SET_COOKIE;
    let usual =
        matches!(answer.status.as_u16(), 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
    let authority = route.resources.authority.as_ref();
    let always = authority.is_some_and(|authority| authority.settings.always_set_cookie);
    if usual || always {
        for cookie in &said.cookies {
            answer.append_header(SET_COOKIE, cookie.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(any: bool, steps: Vec<Step>) -> u16 {
        let mut guards = Guards { any, shut: None };
        for step in steps {
            match guards.take(step) {
                Ok(true) => return 200,
                Ok(false) => {}
                Err(answer) => return answer.status,
            }
        }
        guards.end().map_or_else(|answer| answer.status, |()| 200)
    }

    /// `satisfy`, as `ngx_http_core_access_phase` and `ngx_http_core_post_access_phase` have it.
    #[test]
    fn all_or_any() {
        use Step::{Nothing, Open};
        let shut = |status| Step::Shut(Answer::status(status));
        for (any, steps, status) in [
            (false, vec![], 200),
            (true, vec![], 200),
            (false, vec![Open, shut(401)], 401),
            (false, vec![shut(403), shut(401)], 403),
            (false, vec![Open, Open, shut(500)], 500),
            (false, vec![Nothing, Open], 200),
            (true, vec![Open, shut(401)], 200),
            (true, vec![shut(403), Open], 200),
            (true, vec![shut(403), shut(401)], 401),
            (true, vec![shut(401), shut(403)], 401),
            (true, vec![shut(403), shut(500), Open], 500),
            (true, vec![Nothing, shut(401)], 401),
            (true, vec![shut(403), Nothing, Nothing], 403),
            (true, vec![Nothing, Nothing], 200),
        ] {
            assert_eq!(run(any, steps), status, "any: {any}");
        }
    }
}
