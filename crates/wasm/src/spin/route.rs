//! Which trigger of a Spin application answers a path, and what of the path its route names.
//!
//! Pure. An exact segment is worth more than a named one, and that more than the rest of a path, from the left on. Where
//! two triggers have the same route, the later one has it, as in Spin.

use std::cmp::Ordering;

/// Every path that begins so is answered by the node itself.
pub(crate) const WELL_KNOWN: &str = "/.well-known/spin/";
/// How a route says that anything may follow; the second is the older word.
const REST: [&str; 2] = ["/...", "/*"];

/// Why a route is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A wildcard elsewhere than at the end.
    #[error("the route {0:?} has a wildcard that is not its last segment")]
    Wildcard(String),
    /// A name that is empty, or twice there.
    #[error("the route {0:?} has a segment without a name of its own")]
    Name(String),
    /// The node answers there.
    #[error("the route {0:?} begins with /.well-known/spin/, which is reserved")]
    Reserved(String),
}

/// The routes of an application.
#[derive(Debug, Clone, Default)]
pub(crate) struct Router {
    routes: Vec<Route>,
}

/// One route.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// As it was written.
    raw: String,
    /// With the application's base before it.
    based: String,
    segments: Vec<Segment>,
    /// Whether anything may follow.
    has_rest: bool,
    /// What answers: the number of a trigger.
    pub(crate) trigger: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Exact(String),
    Named(String),
}

/// A route that a path fits.
#[derive(Debug)]
pub(crate) struct Match<'a> {
    pub(crate) route: &'a Route,
    /// The segments that have names, with what stands there.
    pub(crate) named: Vec<(&'a str, &'a str)>,
    /// What follows, with its first slash; empty where nothing may.
    pub(crate) rest: String,
}

impl Route {
    /// The route as it was written.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// The same without its wildcard.
    pub(crate) fn raw_prefix(&self) -> &str {
        self.raw.strip_suffix(REST[0]).unwrap_or(&self.raw)
    }

    /// The route with the application's base before it.
    pub(crate) fn based(&self) -> &str {
        &self.based
    }

    fn read(base: &str, raw: &str, trigger: usize) -> Result<Self, RouteError> {
        let based = join(base, raw);
        if based.starts_with(WELL_KNOWN) {
            return Err(RouteError::Reserved(based));
        }
        let before_rest = REST.iter().find_map(|rest| based.strip_suffix(rest));
        let mut segments = Vec::new();
        for segment in split(before_rest.unwrap_or(&based)) {
            if segment == "..." || segment == "*" {
                return Err(RouteError::Wildcard(based));
            }
            let segment = match segment.strip_prefix(':') {
                None => Segment::Exact(segment.to_owned()),
                Some(name) => Segment::Named(name.to_owned()),
            };
            let is_unnamed = matches!(&segment, Segment::Named(name) if name.is_empty() || segments.contains(&segment));
            if is_unnamed {
                return Err(RouteError::Name(based));
            }
            segments.push(segment);
        }
        let has_rest = before_rest.is_some();
        Ok(Self { raw: raw.to_owned(), based, segments, has_rest, trigger })
    }

    fn fits<'a>(&'a self, path: &'a [&'a str], slash_at_end: bool) -> Option<Match<'a>> {
        let (own, rest) = path.split_at_checked(self.segments.len())?;
        if !self.has_rest && !rest.is_empty() {
            return None;
        }
        let mut named = Vec::new();
        for (segment, word) in self.segments.iter().zip(own) {
            match segment {
                Segment::Exact(exact) if exact == word => {}
                Segment::Exact(_) => return None,
                Segment::Named(name) => named.push((name.as_str(), *word)),
            }
        }
        let mut after = String::new();
        if self.has_rest {
            for word in rest {
                after.push('/');
                after.push_str(word);
            }
            if slash_at_end {
                after.push('/');
            }
        }
        Some(Match { route: self, named, rest: after })
    }

    /// Greater is what says more about the path.
    fn precision(&self, other: &Self) -> Ordering {
        let weight = |route: &Self, at: usize| match route.segments.get(at) {
            Some(Segment::Exact(_)) => 3,
            Some(Segment::Named(_)) => 2,
            None if route.has_rest => 0,
            None => 1,
        };
        let longest = self.segments.len().max(other.segments.len());
        let by_segment = (0..=longest).map(|at| weight(self, at).cmp(&weight(other, at)));
        by_segment.fold(Ordering::Equal, Ordering::then)
    }
}

impl Router {
    /// The routes of triggers, each by its number; of two that are the same, the later.
    pub(crate) fn new<'a>(base: &str, routes: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, RouteError> {
        let mut router = Self::default();
        for (trigger, raw) in routes {
            let route = Route::read(base, raw, trigger)?;
            router.routes.retain(|other| other.segments != route.segments || other.has_rest != route.has_rest);
            router.routes.push(route);
        }
        Ok(router)
    }

    /// The route that says the most about this path; `path` is that of `split`.
    pub(crate) fn find<'a>(&'a self, path: &'a [&'a str], slash_at_end: bool) -> Option<Match<'a>> {
        let fitting = self.routes.iter().filter_map(|route| route.fits(path, slash_at_end));
        fitting.max_by(|one, other| one.route.precision(other.route))
    }
}

/// The segments of a path.
pub(crate) fn split(path: &str) -> Vec<&str> {
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

fn join(base: &str, route: &str) -> String {
    let base = base.trim_matches('/');
    let route = route.trim_start_matches('/');
    let joined = if base.is_empty() { format!("/{route}") } else { format!("/{base}/{route}") };
    let trimmed = joined.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(base: &str, routes: &[&str]) -> Router {
        Router::new(base, routes.iter().copied().enumerate()).unwrap()
    }

    /// The number of the trigger that answers, and the rest of the path.
    fn found(router: &Router, path: &str) -> Option<(usize, String)> {
        let segments = split(path);
        let found = router.find(&segments, path.len() > 1 && path.ends_with('/'))?;
        Some((found.route.trigger, found.rest))
    }

    fn answers(router: &Router, path: &str) -> Option<usize> {
        found(router, path).map(|(trigger, _)| trigger)
    }

    #[test]
    fn what_says_more_about_a_path_answers() {
        let router = router("/", &["/", "/...", "/users", "/users/:id", "/users/me", "/users/:id/...", "/a/b/..."]);
        for (path, trigger) in [
            ("/", 0),
            ("/other", 1),
            ("/other/deep", 1),
            ("/users", 2),
            ("/users/", 2),
            ("/users/7", 3),
            ("/users/me", 4),
            ("/users/7/posts", 5),
            ("/users/me/posts", 5),
            ("/a", 1),
            ("/a/b", 6),
            ("/a/b/c", 6),
        ] {
            assert_eq!(answers(&router, path), Some(trigger), "{path}");
        }
    }

    #[test]
    fn a_path_that_no_route_fits_has_none() {
        let router = router("/app", &["/exact", "/wild/..."]);
        assert_eq!(answers(&router, "/app/exact"), Some(0));
        assert_eq!(answers(&router, "/app/exact/more"), None);
        assert_eq!(answers(&router, "/exact"), None);
        assert_eq!(answers(&router, "/"), None);
        assert_eq!(answers(&router, "/app/wilder"), None);
    }

    #[test]
    fn the_rest_of_a_path_is_what_follows_the_route() {
        let router = router("/", &["/files/...", "/exact"]);
        assert_eq!(found(&router, "/files/a/b.txt"), Some((0, "/a/b.txt".to_owned())));
        assert_eq!(found(&router, "/files"), Some((0, String::new())));
        assert_eq!(found(&router, "/files/"), Some((0, "/".to_owned())));
        assert_eq!(found(&router, "/exact"), Some((1, String::new())));
    }

    #[test]
    fn named_segments_are_told_and_routes_are_shown_as_written() {
        let router = router("/base", &["/users/:id/posts/:post/..."]);
        let path = split("/base/users/7/posts/hello/edit");
        let found = router.find(&path, false).unwrap();
        assert_eq!(found.named, [("id", "7"), ("post", "hello")]);
        assert_eq!(found.rest, "/edit");
        assert_eq!(found.route.raw(), "/users/:id/posts/:post/...");
        assert_eq!(found.route.raw_prefix(), "/users/:id/posts/:post");
        assert_eq!(found.route.based(), "/base/users/:id/posts/:post/...");
    }

    #[test]
    fn the_later_of_two_equal_routes_has_it() {
        assert_eq!(answers(&router("/", &["/a", "a/"]), "/a"), Some(1));
    }

    #[test]
    fn what_is_no_route_is_refused() {
        let refused = |route: &str| Router::new("/", [(0, route)].into_iter()).unwrap_err();
        assert!(matches!(refused("/a/.../b"), RouteError::Wildcard(_)));
        assert!(matches!(refused("/:/a"), RouteError::Name(_)));
        assert!(matches!(refused("/:a/:a"), RouteError::Name(_)));
        assert!(matches!(refused("/.well-known/spin/health"), RouteError::Reserved(_)));
    }
}
