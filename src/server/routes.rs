//! Routes, each with the access that it requires and with metrics under its path.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use super::auth::{self, Authenticator, RequiredAccess};
use super::middleware;

/// Collects routes for a router.
pub struct RouteTable<S> {
    auth: Authenticator,
    router: Router<S>,
    routes: Vec<Route>,
}

/// A method, a path and the access that it requires.
pub type Route = (Method, &'static str, RequiredAccess);

impl<S: Clone + Send + Sync + 'static> RouteTable<S> {
    /// A table without routes.
    pub fn new(auth: &Authenticator) -> Self {
        Self { auth: auth.clone(), router: Router::new(), routes: Vec::new() }
    }

    /// Adds a route for `GET`.
    pub fn get<T: 'static>(self, path: &'static str, required: RequiredAccess, handler: impl Handler<T, S>) -> Self {
        self.add(Method::GET, path, required, get(handler))
    }

    /// Adds a route for `POST`.
    pub fn post<T: 'static>(self, path: &'static str, required: RequiredAccess, handler: impl Handler<T, S>) -> Self {
        self.add(Method::POST, path, required, post(handler))
    }

    fn add(mut self, method: Method, path: &'static str, required: RequiredAccess, handler: MethodRouter<S>) -> Self {
        let authorized = handler.route_layer(from_fn_with_state((self.auth.clone(), required), auth::authorize));
        // The metric's label is the template of the path: a label for each path that callers send would make a series each.
        let measured = authorized.route_layer(from_fn_with_state(path, middleware::measure));
        self.router = self.router.route(path, measured);
        self.routes.push((method, path, required));
        self
    }

    /// Every route of the table.
    #[cfg(test)]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Makes a router of the table.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}
