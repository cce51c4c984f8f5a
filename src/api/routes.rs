//! The routes of the API. Each is declared once, in the file of its resource: its operation (method, path and
//! description), its access, its handler, and its problems. `bind` serves what is declared and `openapi.rs`
//! describes it. No route is served without declared access.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpRequest, Responder, Route, guard};
use utoipa::__dev::{SchemaReferences, Tags};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{HttpMethod, RefOr, Schema};

use super::access::Access;
use super::authenticate::authenticate;
use super::extractors::Extractor;
use super::limits;
use super::problem::{Kind, Problem};
use super::{body, query};

/// The problems of every route.
const COMMON_PROBLEMS: &[Kind] =
    &[Kind::InvalidParameter, Kind::NotAcceptable, Kind::MethodNotAllowed, Kind::Timeout];

/// The declared routes, in the order of matching.
#[derive(Default)]
pub(super) struct Routes(Vec<Declared>);

pub(super) struct Declared {
    pub(super) path: String,
    pub(super) method: Method,
    pub(super) access: Access,
    /// `None` for pages beside the API.
    pub(super) operation: Option<Operation>,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
    pub(super) problems: Vec<Kind>,
    /// The events of a stream, each with the schema of its `data`.
    pub(super) events: &'static [(&'static str, &'static str)],
    /// HEAD is answered like GET, without the body ([RFC 9110, 9.3.2]).
    takes_head: bool,
    route: Box<dyn Fn() -> Route + Send + Sync>,
}

impl Routes {
    /// Declares a route; `_operation` is what `#[utoipa::path]` made of the handler.
    pub(super) fn add<P, F, Args>(
        &mut self,
        access: Access,
        _operation: P,
        handler: F,
    ) -> &mut Declared
    where
        P: utoipa::Path + SchemaReferences + for<'t> Tags<'t>,
        F: Handler<Args, Output: Responder + 'static> + Copy + Send + Sync,
        Args: Extractor + FromRequest + 'static,
    {
        let mut operation = P::operation();
        operation.tags = Some(P::tags().into_iter().map(str::to_owned).collect());
        let method = match P::methods().first() {
            Some(HttpMethod::Post) => Method::POST,
            Some(HttpMethod::Put) => Method::PUT,
            Some(HttpMethod::Patch) => Method::PATCH,
            Some(HttpMethod::Delete) => Method::DELETE,
            _ => Method::GET,
        };
        let parameters = Args::parameters();
        let described = parameters.iter().cloned().map(RefOr::T);
        operation.parameters.get_or_insert_default().extend(described);
        let in_query = |parameter: &Parameter| parameter.parameter_in == ParameterIn::Query;
        let parameters = parameters.into_iter();
        let takes = Arc::new(Takes {
            parameters: parameters.filter(in_query).map(|parameter| parameter.name).collect(),
            body: operation.request_body.is_some()
                || [Method::GET, Method::DELETE].contains(&method),
        });
        let declared = self.declare(access, Some(takes), (method, P::path()), handler);
        declared.operation = Some(operation);
        P::schemas(&mut declared.schemas);
        declared.problems = [COMMON_PROBLEMS, access.problems(), &Args::problems()].concat();
        declared
    }

    /// Declares a GET beside the API, not part of the document.
    pub(super) fn add_page<F, Args>(&mut self, access: Access, path: &str, handler: F)
    where
        F: Handler<Args, Output: Responder + 'static> + Copy + Send + Sync,
        Args: FromRequest + 'static,
    {
        self.declare(access, None, (Method::GET, path.to_owned()), handler);
    }

    fn declare<F, Args>(
        &mut self,
        access: Access,
        takes: Option<Arc<Takes>>,
        (method, path): (Method, String),
        handler: F,
    ) -> &mut Declared
    where
        F: Handler<Args, Output: Responder + 'static> + Copy + Send + Sync,
        Args: FromRequest + 'static,
    {
        let takes_head = method == Method::GET;
        let route = Box::new(move || guarded(access, takes.clone(), web::route().to(handler)));
        self.0.push(Declared {
            path,
            method,
            access,
            operation: None,
            schemas: Vec::new(),
            problems: Vec::new(),
            events: &[],
            takes_head,
            route,
        });
        self.0.last_mut().expect("it was pushed")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Declared> {
        self.0.iter()
    }

    /// Serves them; each path answers 405 to other methods.
    pub(super) fn register(&self, config: &mut ServiceConfig) {
        let mut served: Vec<&str> = Vec::new();
        for Declared { path, .. } in &self.0 {
            if served.contains(&&**path) {
                continue;
            }
            served.push(path);
            let of_path = self.0.iter().filter(|it| it.path == *path);
            let (mut resource, mut allowed) = (web::resource(&**path), Vec::new());
            let mut access = Access::VIEWER;
            for declared in of_path {
                resource = resource.route(declared.guarded_by_method());
                allowed.push(declared.method.as_str());
                allowed.extend(declared.takes_head.then_some("HEAD"));
                if matches!(declared.access, Access::Open | Access::OpenIf(_)) {
                    access = declared.access;
                }
            }
            let allowed = allowed.join(", ");
            let not_allowed = move || {
                let problem = Problem::method_not_allowed(allowed.clone());
                async { Err::<&str, _>(problem) }
            };
            let resource = resource.default_service(guarded(access, None, web::to(not_allowed)));
            config.service(resource.wrap(from_fn(limits::with_time_limit)));
        }
    }
}

impl Declared {
    /// Declares problems beside those of its access and its arguments.
    pub(super) fn fails_with(&mut self, problems: &[Kind]) -> &mut Self {
        self.problems.extend_from_slice(problems);
        self
    }

    /// Declares a stream of these events, each with the name of its schema. It never ends, so it takes no HEAD.
    pub(super) fn streams(&mut self, events: &'static [(&str, &str)]) -> &mut Self {
        (self.events, self.takes_head) = (events, false);
        self
    }

    fn guarded_by_method(&self) -> Route {
        let route = (self.route)();
        match self.takes_head {
            true => route.guard(guard::Any(guard::Get()).or(guard::Head())),
            false => route.guard(guard::Method(self.method.clone())),
        }
    }
}

/// What a route accepts beside its path.
struct Takes {
    /// The names of its query parameters.
    parameters: Vec<String>,
    /// Whether a body is read or ignored.
    body: bool,
}

impl Takes {
    fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        query::check(request.query_string(), &self.parameters)?;
        if self.body { Ok(()) } else { body::check_none(request) }
    }
}

/// Authenticates the caller, then checks query and body, before the handler runs.
fn guarded(access: Access, takes: Option<Arc<Takes>>, route: Route) -> Route {
    let check = move |request: ServiceRequest, next: Next<BoxBody>| {
        let takes = takes.clone();
        async move {
            match takes.map_or(Ok(()), |takes| takes.check(request.request())) {
                Ok(()) => next.call(request).await,
                Err(problem) => Ok(request.error_response(problem)),
            }
        }
    };
    // The middleware wrapped last runs first.
    route
        .wrap(from_fn(check))
        .wrap(from_fn(move |request, next| authenticate(access, request, next)))
}

pub(super) fn not_found() -> Route {
    let problem = || async {
        Err::<&str, _>(Problem::new(Kind::RouteNotFound, "no route is served at this path"))
    };
    guarded(Access::VIEWER, None, web::to(problem))
}
