//! What all Ingresses together say about each host: who has a path, how paths are compared, which other
//! names a host has. Only what a change touches is looked at again.

use super::compile::{CanaryClaim, Claim, Order, PathKey, Share};
use super::expressions::Expressions;
use super::problems::{Problems, Source};
use super::tls::HostDemands;
use crate::few::FewMap;
use crate::matcher::expression::Expression;
use crate::matcher::{ExpressionMatcher, Matcher, PathMatcher, PathType};
use crate::objects::{Kind, ObjectKey, names};
use crate::problem::Problem;
use crate::snapshot::{HostRoutes, Route};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A host that Ingresses name; the empty name stands for rules without a host.
#[derive(Debug, Default)]
pub struct Host {
    /// The Ingresses that name it, oldest first.
    members: Vec<(Order, Arc<Share>)>,
    /// Those of them that say something about the host as a whole: most hosts have none, and looking for
    /// them among thousands would make every change slow.
    speakers: BTreeMap<Order, Arc<Share>>,
    paths: FewMap<PathKey, Contest>,
    /// Claims that want to be expressions.
    regex_claims: u32,
    /// Paths to look at again.
    #[expect(clippy::box_collection, reason = "it is empty nearly always, and hosts are many")]
    touched: Option<Box<HashSet<PathKey>>>,
    /// Serves what no rule matches, for the host without a name.
    catch_all: Option<Arc<Route>>,
    built: Option<Built>,
}

/// What a host came to.
#[derive(Debug)]
struct Built {
    routes: Arc<HostRoutes>,
    regex: bool,
    /// Its fallback without canary.
    root: Option<Arc<Route>>,
}

/// Those who want one path of a host.
#[derive(Debug, Default)]
struct Contest {
    /// Oldest first.
    claims: Vec<(Order, Claim)>,
    canaries: Vec<(Order, CanaryClaim)>,
    /// The text under which the path is among the expressions.
    placed: Option<Arc<str>>,
}

impl Host {
    /// Replaces what an Ingress says.
    pub fn replace(
        &mut self,
        old: Option<(&Order, &Arc<Share>)>,
        new: Option<(&Order, &Arc<Share>)>,
    ) {
        let same_order = old.map(|(order, _)| order) == new.map(|(order, _)| order);
        let claims = |one: Option<(&Order, &Arc<Share>)>| one.map(|(_, share)| share.clone());
        let (was, is) = (claims(old), claims(new));
        let was_claims = was.as_ref().map(|share| share.claims.as_slice()).unwrap_or_default();
        let is_claims = is.as_ref().map(|share| share.claims.as_slice()).unwrap_or_default();
        // What did not change is most often all but one: it is not taken out and put back.
        let same =
            |(a, b): &(&Claim, &Claim)| a.place == b.place && Arc::ptr_eq(&a.route, &b.route);
        let (mut start, mut end) = (0, 0);
        if same_order {
            start = was_claims.iter().zip(is_claims).take_while(same).count();
            let rest = (&was_claims[start..], &is_claims[start..]);
            end = rest.0.iter().rev().zip(rest.1.iter().rev()).take_while(same).count();
        }
        if let Some((order, share)) = old {
            was_claims[start..was_claims.len() - end].iter().for_each(|c| self.withdraw(order, c));
            if let Ok(at) = self.member(order) {
                self.members.remove(at);
            }
            self.speakers.remove(order);
            for canary in &share.canaries {
                self.touch(&canary.key);
                let contest = self.paths.get_or_default(&canary.key);
                contest.canaries.retain(|(other, _)| other != order);
            }
        }
        if let Some((order, share)) = new {
            is_claims[start..is_claims.len() - end].iter().for_each(|c| self.enter(order, c));
            if let Err(at) = self.member(order) {
                // Most hosts have one.
                self.members.reserve_exact(usize::from(self.members.is_empty()));
                self.members.insert(at, (order.clone(), share.clone()));
            }
            if share.speaks_for_host() {
                self.speakers.insert(order.clone(), share.clone());
            }
            for canary in &share.canaries {
                self.touch(&canary.key);
                let canaries = &mut self.paths.get_or_default(&canary.key).canaries;
                let at = canaries.partition_point(|(o, c)| (o, c.place) < (order, canary.place));
                canaries.insert(at, (order.clone(), canary.clone()));
            }
        }
    }

    fn touch(&mut self, key: &PathKey) {
        self.touched.get_or_insert_default().insert(key.clone());
    }

    fn member(&self, order: &Order) -> Result<usize, usize> {
        self.members.binary_search_by(|(other, _)| other.cmp(order))
    }

    fn withdraw(&mut self, order: &Order, claim: &Claim) {
        self.regex_claims -= u32::from(claim.regex);
        self.touch(&claim.key);
        if let Some(contest) = self.paths.get_mut(&claim.key) {
            contest.claims.retain(|(o, c)| o != order || c.place != claim.place);
        }
    }

    fn enter(&mut self, order: &Order, claim: &Claim) {
        self.regex_claims += u32::from(claim.regex);
        self.touch(&claim.key);
        let claims = &mut self.paths.get_or_default(&claim.key).claims;
        let at = claims.partition_point(|(o, c)| (o, c.place) < (order, claim.place));
        // Most paths are wanted by one.
        claims.reserve_exact(usize::from(claims.is_empty()));
        claims.insert(at, (order.clone(), claim.clone()));
    }

    /// The Ingresses that make it a host: canaries do not.
    fn mains(&self) -> impl Iterator<Item = (&Order, &Arc<Share>)> {
        let members = self.members.iter().map(|(order, share)| (order, share));
        members.filter(|(_, share)| share.root.is_some())
    }

    /// It has rules of its own, or a default backend.
    pub fn exists(&self) -> bool {
        self.catch_all.is_some() || self.mains().next().is_some()
    }

    /// Nothing is known of it any more.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.catch_all.is_none()
    }

    /// Its routes, as they were last built.
    pub fn routes(&self) -> Option<&Arc<HostRoutes>> {
        self.built.as_ref().map(|built| &built.routes).filter(|_| self.exists())
    }

    /// Serves what no rule matches, for the host without a name.
    pub fn set_catch_all(&mut self, route: Option<Arc<Route>>) {
        self.catch_all = route;
    }

    /// Its other names: the first Ingress to say any decides.
    pub fn aliases(&self) -> Option<(&Order, &[String])> {
        let speakers = self.speakers.iter();
        let mut named = speakers.map(|(order, share)| (order, &share.settings.rewriting));
        let (order, first) = named.find(|(_, rewriting)| !rewriting.server_aliases.is_empty())?;
        Some((order, &first.server_aliases))
    }

    /// What its Ingresses say of TLS.
    pub fn tls_demands(&self) -> HostDemands {
        // The first counts as the one that makes the host, whether or not it says anything.
        let first = self.mains().next().map(|(_, share)| share);
        let more =
            self.speakers.values().filter(|share| first.is_none_or(|f| !Arc::ptr_eq(f, share)));
        let all = first.into_iter().chain(more);
        HostDemands::of(all.map(|share| (&share.settings.tls, &*share.resources)))
    }

    /// The Ingress that wants clients to be sent here from the host with or without `www.`.
    pub fn wants_www(&self) -> Option<&Arc<ObjectKey>> {
        let mut wants = self
            .speakers
            .iter()
            .filter(|(_, share)| share.settings.redirects.from_to_www && !share.claims.is_empty());
        wants.next().map(|(order, _)| order.ingress())
    }

    /// Looks at everything touched again. The result is in `routes`.
    pub fn build(
        &mut self,
        name: &Arc<str>,
        expressions: &mut Expressions,
        problems: &mut Problems,
    ) {
        let first = self.mains().next().map(|(_, share)| share.clone());
        let root = match name.is_empty() {
            true => self.catch_all.clone(),
            false => first.as_ref().and_then(|share| share.root.clone()),
        };
        let regex =
            self.regex_claims > 0 || (!name.is_empty() && self.root_is_regex(root.as_ref()));
        let mut built = match self.built.take() {
            Some(built) if built.regex == regex => built,
            _ => {
                self.touched = Some(Box::new(self.paths.keys().cloned().collect()));
                self.paths.values_mut().for_each(|contest| contest.placed = None);
                let matcher = match regex {
                    true => Matcher::Expressions(Box::default()),
                    false => Matcher::Paths(PathMatcher::default()),
                };
                let routes = Arc::new(HostRoutes { matcher, ..HostRoutes::default() });
                Built { routes, regex, root: None }
            }
        };
        let root_key = PathKey::root();
        let same_root = match (&built.root, &root) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        if !same_root && self.paths.contains_key(&root_key) {
            self.touch(&root_key);
        }
        let root_is_claimed = self.paths.get(&root_key).is_some_and(|root| !root.claims.is_empty());
        let root_canary = root.as_ref().filter(|root| !root_is_claimed && !root.unclaimed);
        let root_canary = root_canary.and_then(|root| self.with_canary(&root_key, root));
        let routes = Arc::make_mut(&mut built.routes);
        for key in self.touched.take().into_iter().flat_map(|touched| *touched) {
            let mut found = match &mut routes.matcher {
                Matcher::Paths(matcher) => {
                    matcher.set(key.path_type, &key.text, self.winner(&key));
                    Vec::new()
                }
                Matcher::Expressions(matcher) => self.place(&key, name, matcher, expressions),
            };
            let root = root.as_ref().filter(|root| key == root_key && !root.unclaimed);
            found.extend(self.conflicts(&key, name, root));
            problems.set(Source::Path(name.clone(), key.clone()), found);
            self.forget_if_unwanted(&key);
        }
        routes.fallback = root_canary.or_else(|| root.clone());
        // Nobody asks for a host without a name, so no certificate is for it.
        routes.tls = !name.is_empty() && self.speakers.values().any(|share| share.tls);
        routes.app_root =
            self.speakers.values().find_map(|share| share.settings.redirects.app_root.clone());
        built.root = root;
        problems.set(Source::Host(name.clone()), self.disagreements(name));
        self.built = Some(built);
    }

    /// The root of a host counts as a path of its first Ingress unless somebody claims it.
    fn root_is_regex(&self, root: Option<&Arc<Route>>) -> bool {
        let claimed =
            self.paths.get(&PathKey::root()).is_some_and(|contest| !contest.claims.is_empty());
        let rewriting = root.filter(|_| !claimed).map(|root| &root.settings.rewriting);
        rewriting.is_some_and(|rewriting| {
            rewriting.use_regex || rewriting.target.as_deref().is_some_and(|target| target != "/")
        })
    }

    /// The route of a path, with its canary.
    fn winner(&self, key: &PathKey) -> Option<Arc<Route>> {
        let (_, claim) = self.paths.get(key)?.claims.first()?;
        Some(self.with_canary(key, &claim.route).unwrap_or_else(|| claim.route.clone()))
    }

    fn with_canary(&self, key: &PathKey, main: &Arc<Route>) -> Option<Arc<Route>> {
        let canaries = &self.paths.get(key)?.canaries;
        let mut other =
            canaries.iter().filter(|(_, canary)| !same_backend(&canary.route.backend, main));
        let (_, canary) = other.next()?;
        Some(Arc::new(Route { canary: Some(canary.route.clone()), ..Route::clone(main) }))
    }

    /// Puts a path among the expressions. The text of an Exact path and of a Prefix path can be the
    /// same: then the Prefix one is written with a slash, as ingress-nginx does it.
    fn place(
        &mut self,
        key: &PathKey,
        host: &str,
        matcher: &mut ExpressionMatcher<Arc<Route>>,
        expressions: &mut Expressions,
    ) -> Vec<Problem> {
        let winner = self.paths.get(key).and_then(|contest| contest.claims.first());
        let text = winner.map(|(_, claim)| claim.route.path.clone());
        let old = self.paths.get_mut(key).and_then(|contest| {
            std::mem::replace(&mut contest.placed, text.clone())
                .filter(|old| Some(old) != text.as_ref())
        });
        if let Some(old) = old {
            self.place_text(&old, matcher, expressions);
        }
        let failed = text.and_then(|text| self.place_text(&text, matcher, expressions));
        let Some((why, (_, claim))) =
            failed.zip(self.paths.get(key).and_then(|contest| contest.claims.first()))
        else {
            return Vec::new();
        };
        let why = format!(
            "other paths of {} are rewritten or use-regex, which makes all its paths expressions; {:?} cannot \
             be one: {why}",
            host_name(host),
            claim.route.path
        );
        let field = format!("{}.path", claim.place);
        vec![Problem::error(Kind::Ingress, &claim.route.ingress, field, why)]
    }

    fn place_text(
        &self,
        text: &Arc<str>,
        matcher: &mut ExpressionMatcher<Arc<Route>>,
        expressions: &mut Expressions,
    ) -> Option<String> {
        let expression = match expressions.get(text) {
            Ok(expression) => expression,
            Err(why) => return Some(why),
        };
        let keys = [PathType::Exact, PathType::Prefix].map(|kind| PathKey::new(kind, text));
        let mut winners: Vec<(&(Order, Claim), &PathKey)> = keys
            .iter()
            .filter_map(|key| Some((self.paths.get(key)?.claims.first()?, key)))
            .filter(|((_, claim), _)| claim.route.path == *text)
            // The root of the host comes before an Exact `/`, and as an expression matches the same.
            .filter(|(_, key)| **text != *"/" || key.path_type == PathType::Prefix)
            .collect();
        winners.sort_by(|((a, x), _), ((b, y), _)| (a, x.place).cmp(&(b, y.place)));
        let exact = winners.iter().any(|(_, key)| key.path_type == PathType::Exact);
        let mut rules: Vec<(Arc<Expression>, Arc<Route>)> = Vec::new();
        for ((_, claim), key) in winners {
            let slashed =
                exact && key.path_type == PathType::Prefix && !claim.regex && !text.ends_with('/');
            let own = match slashed {
                true => expressions.get(&format!("{text}/")).unwrap_or_else(|_| expression.clone()),
                false => expression.clone(),
            };
            rules.extend(self.winner(key).map(|route| (own, route)));
        }
        matcher.set(text, &expression, rules);
        None
    }

    /// What those who do not get a path are told. `root` is the root of the host, which canaries of it
    /// may have instead of a path.
    fn conflicts(&self, key: &PathKey, host: &str, root: Option<&Arc<Route>>) -> Vec<Problem> {
        let Some(contest) = self.paths.get(key) else {
            return Vec::new();
        };
        let host = host_name(host);
        let winner = contest.claims.first().map(|(_, claim)| &claim.route);
        let mut found = Vec::new();
        for (order, claim) in contest.claims.iter().skip(1) {
            let owner = winner.map(|winner| &winner.ingress);
            let why = match owner {
                Some(owner) if owner == order.ingress() => {
                    format!("{:?} of {host} is there twice; the first one counts", claim.route.path)
                }
                Some(owner) => {
                    format!("{:?} of {host} belongs to the older Ingress {owner}", claim.route.path)
                }
                None => continue,
            };
            let field = format!("{}.path", claim.place);
            found.push(Problem::error(Kind::Ingress, order.ingress(), field, why));
        }
        let main = winner.or(root);
        let mut taken: Option<&Order> = None;
        for (order, canary) in &contest.canaries {
            let text = &canary.key.text;
            let why = match (main, taken) {
                (None, _) => format!(
                    "there is no Ingress without canary for {text:?} of {host} with the same path type: \
                     nothing to be a canary of"
                ),
                (Some(main), _) if same_backend(&canary.route.backend, main) => {
                    format!(
                        "{text:?} of {host} goes to the same Service and port by Ingress {}",
                        main.ingress
                    )
                }
                (Some(_), Some(first)) => format!(
                    "{text:?} of {host} has a canary already, Ingress {}: there can be one",
                    first.ingress()
                ),
                (Some(_), None) => {
                    taken = Some(order);
                    continue;
                }
            };
            let field = format!("{}.path", canary.place);
            found.push(Problem::error(Kind::Ingress, order.ingress(), field, why));
        }
        found
    }

    fn forget_if_unwanted(&mut self, key: &PathKey) {
        let unwanted = |contest: &Contest| contest.claims.is_empty() && contest.canaries.is_empty();
        if self.paths.get(key).is_some_and(unwanted) {
            self.paths.remove(key);
        }
    }

    /// Ingresses that say something about the host as a whole after an older one did.
    fn disagreements(&self, name: &str) -> Vec<Problem> {
        let mut found = Vec::new();
        let Some((first, aliases)) = self.aliases() else {
            return found;
        };
        let field = "metadata.annotations[nginx.ingress.kubernetes.io/server-alias]";
        for (order, share) in &self.speakers {
            let own = &share.settings.rewriting.server_aliases;
            if order != first && !own.is_empty() && own != aliases {
                let why = format!(
                    "the older Ingress {} gives {} its other names already",
                    first.ingress(),
                    host_name(name)
                );
                found.push(Problem::error(Kind::Ingress, order.ingress(), field, why));
            }
        }
        found
    }
}

fn same_backend(backend: &Arc<crate::balance::Backend>, main: &Arc<Route>) -> bool {
    let (own, other) = (&backend.key, &main.backend.key);
    own.service == other.service && own.port == other.port
}

/// A host as people call it.
pub fn host_name(host: &str) -> &str {
    if host.is_empty() { "any host" } else { host }
}

/// The host a client may be redirected from to this one by `from-to-www-redirect`.
pub fn www_partner(host: &str) -> Option<Arc<str>> {
    if host.is_empty() || host.starts_with('*') {
        return None;
    }
    Some(match host.strip_prefix("www.") {
        Some(bare) => bare.into(),
        None => format!("www.{host}").into(),
    })
}

/// Hosts by their other names.
#[derive(Debug, Default)]
pub struct Aliases {
    /// For each name the hosts that want it, by the Ingress that says so.
    wanted: HashMap<Arc<str>, BTreeSet<(Order, Arc<str>)>>,
    /// For each host the names it wants.
    by_host: HashMap<Arc<str>, (Order, Vec<Arc<str>>)>,
}

impl Aliases {
    /// Replaces the names of a host; returns all names that concerns.
    pub fn replace(
        &mut self,
        host: &Arc<str>,
        aliases: Option<(&Order, &[String])>,
    ) -> Vec<Arc<str>> {
        let mut touched = Vec::new();
        let same = match (self.by_host.get(host), &aliases) {
            (Some((key, old)), Some((new_key, new))) => {
                key == *new_key && old.iter().map(|n| &**n).eq(new.iter().map(|n| n.as_str()))
            }
            (None, None) => true,
            _ => false,
        };
        if same {
            return self.by_host.get(host).map(|(_, names)| names.clone()).unwrap_or_default();
        }
        if let Some((key, names)) = self.by_host.remove(host) {
            for name in names {
                if let Some(wanted) = self.wanted.get_mut(&name) {
                    wanted.remove(&(key.clone(), host.clone()));
                    if wanted.is_empty() {
                        self.wanted.remove(&name);
                    }
                }
                touched.push(name);
            }
        }
        if let Some((key, names)) = aliases {
            let names: Vec<Arc<str>> = names.iter().map(|name| names::shared(name)).collect();
            for name in &names {
                let wanted = self.wanted.entry(name.clone()).or_default();
                wanted.insert((key.clone(), host.clone()));
            }
            touched.extend(names.iter().cloned());
            self.by_host.insert(host.clone(), (key.clone(), names));
        }
        touched
    }

    /// The hosts that want a name, and by which Ingress.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &(Order, Arc<str>)> {
        self.wanted.get(name).into_iter().flatten()
    }
}
