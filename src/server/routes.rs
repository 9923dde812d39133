//! Routes, each with what it needs of its callers and the metrics under its name.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

use super::auth::{self, Authenticator, RequiredAccess};
use super::middleware;

/// A table of contents that becomes a router.
pub struct RouteTable<S> {
    auth: Authenticator,
    router: Router<S>,
    entries: Vec<Route>,
}

/// One line of it.
pub type Route = (Method, &'static str, RequiredAccess);

impl<S: Clone + Send + Sync + 'static> RouteTable<S> {
    /// An empty one.
    pub fn new(auth: &Authenticator) -> Self {
        Self { auth: auth.clone(), router: Router::new(), entries: Vec::new() }
    }

    /// Something to look at.
    pub fn get<T: 'static>(self, path: &'static str, need: RequiredAccess, handler: impl Handler<T, S>) -> Self {
        self.add(Method::GET, path, need, get(handler))
    }

    /// Something to do.
    pub fn post<T: 'static>(self, path: &'static str, need: RequiredAccess, handler: impl Handler<T, S>) -> Self {
        self.add(Method::POST, path, need, post(handler))
    }

    fn add(mut self, method: Method, path: &'static str, need: RequiredAccess, handler: MethodRouter<S>) -> Self {
        let admitted = handler.route_layer(from_fn_with_state((self.auth.clone(), need), auth::admit));
        // The route's template is the metric's label: paths as callers send them would make a series each.
        let measured = admitted.route_layer(from_fn_with_state(path, middleware::measure));
        self.router = self.router.route(path, measured);
        self.entries.push((method, path, need));
        self
    }

    /// Every line.
    #[cfg(test)]
    pub fn entries(&self) -> &[Route] {
        &self.entries
    }

    /// The router.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}
