//! The dashboard's page and its assets, from `web/dist`: embedded in the binary, or, in a development build, read
//! from the directory. The page is never cached; an asset, whose name changes with its content, is cached for ever;
//! the page can load nothing from another origin.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, EntityTag, Header as _, IfNoneMatch,
};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, Responder};
use rust_embed::{Embed, EmbeddedFile};

use super::access::Access;
use super::problem::{Kind, Problem};
use super::routes::Routes;
use super::token_cache::TokenCache;

/// No inline script or style, and nothing from another origin.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths of the views; all are served the same page.
const VIEWS: [&str; 6] =
    ["/", "/sensors/{identifier}", "/logs", "/rejections", "/ingest", "/access"];

/// The page names the value of `AUTH` here, so that a browser need not be refused to learn of it.
const AUTH: &str = "%AUTH%";

const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>Tributary</title>\n\
    <h1>Tributary is running, without its dashboard</h1>\n\
    <p>This program was built without it. To build it, with Node.js 18 or newer:</p>\n\
    <pre>cd web\nnpm ci\nnpm run build\ncd ..\ncargo build --release</pre>\n\
    <p><a href=\"/docs/\">The API</a> works as it is.</p>\n</html>\n";

#[derive(Embed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Files;

pub(super) fn routes(routes: &mut Routes) {
    for view in VIEWS {
        routes.add_page(Access::Open, view, page);
    }
    routes.add_page(Access::Open, "/assets/{file}", asset);
}

async fn page(tokens: web::Data<TokenCache>) -> impl Responder {
    let auth = if tokens.config.required { "on" } else { "off" };
    let page = match Files::get("index.html") {
        Some(file) => String::from_utf8_lossy(&file.data).replace(AUTH, auth),
        None => NOT_BUILT.to_owned(),
    };
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(page)
}

async fn asset(request: HttpRequest) -> Result<impl Responder, Problem> {
    let name = request.match_info().get("file").unwrap_or_default();
    let file = file(&format!("assets/{name}"), "no file of the dashboard")?;
    // Weak, because the compressed and the plain representation share it.
    let digest = &file.metadata.sha256_hash()[..16];
    let tag = EntityTag::new_weak(digest.iter().map(|byte| format!("{byte:02x}")).collect());
    let mut response = HttpResponse::Ok();
    response
        .insert_header((ETAG, tag.to_string()))
        .insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"));
    let is_known = match IfNoneMatch::parse(&request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        Err(_) => false,
    };
    if is_known {
        return Ok(response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    Ok(response
        .insert_header((CONTENT_TYPE, media_type(name)))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .body(Bytes::from(file.data.into_owned())))
}

/// A file of `web/dist`.
pub(super) fn file(path: &str, problem: &'static str) -> Result<EmbeddedFile, Problem> {
    Files::get(path).ok_or_else(|| Problem::new(Kind::RouteNotFound, problem))
}

/// The media types of the files in `web/dist`.
pub(super) fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
