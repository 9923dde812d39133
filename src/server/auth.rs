//! Authentication, authorization and rate limits of callers.
//!
//! | the request has | the caller is | if the database has no token and none is configured |
//! |---|---|---|
//! | the token of `server.token` | the operator | |
//! | a token of the database, neither revoked nor expired | the holder of the token | |
//! | no token | refused: 401 | accepted with every permission, if the request comes from this machine, see [`origin`] |
//! | anything else | refused: 401 | refused: 401 |
//!
//! Once the database has had a token, callers need one, even if that token was revoked or has expired. What the database says is
//! cached for [`CACHE_TTL`]: so long at most, a revoked token still works, and a tenant still sees a pipeline that now belongs to
//! another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use blake3::Hash;
use jiff::Timestamp;

use super::connections::Peer;
use super::error::{ApiError, ProblemCode};
use super::origin;
use super::rate_limit::{RateKey, RateLimiter};
use crate::access::{Scope, Tenant, read_token};
use crate::config::{ServerConfig, ServerLimitsConfig};
use crate::metrics::METRICS;
use crate::store::{Store, TokenRow};

/// How long a token of the database is cached.
const CACHE_TTL: Duration = Duration::from_secs(5);

/// How long a probe waits until its caller is identified.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of cached tokens. A caller who guesses ids reaches the rate limit of its address long before.
const CACHE_SIZE: usize = 1_024;

/// What an endpoint requires of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredAccess {
    /// Nothing, without a rate limit: a probe must get its response even while other callers ask too often.
    Probe,
    /// Nothing, with a rate limit: files that are the same in every installation.
    Public,
    /// A scope. A caller of a tenant sees the rows of that tenant.
    Scope(Scope),
    /// Scope `read` without a tenant, because metrics concern all tenants; or the token of `server.metrics_token`.
    Metrics,
}

/// An authenticated caller, and what it may do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For logs and messages.
    pub name: Arc<str>,
    /// The tenant whose rows the caller sees; without one, the caller sees all rows.
    pub tenant: Option<Tenant>,
    permissions: Permissions,
}

/// What a caller is permitted to do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Permissions {
    Metrics,
    /// What the scopes permit.
    Scopes(Vec<Scope>),
}

/// Authenticates and authorizes callers. Clones share everything.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<AuthState>,
}

struct AuthState {
    /// `server.listen`.
    listen: String,
    operator: Option<Hash>,
    scraper: Option<Hash>,
    database: Option<Store>,
    limits: ServerLimitsConfig,
    rate: RateLimiter,
    tokens: Mutex<HashMap<String, CachedToken>>,
    /// Whether the database has tokens, and when that was read.
    has_tokens: Mutex<Option<(bool, Instant)>>,
    /// The owners of pipelines, and when they were read.
    owners: Mutex<Option<(Arc<PipelineOwners>, Instant)>>,
}

/// Pipelines with the tenants that own them.
type PipelineOwners = Vec<(String, String)>;

/// The token of an id, or that there is none.
struct CachedToken {
    token: Option<Arc<TokenRow>>,
    since: Instant,
}

impl CachedToken {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < CACHE_TTL
    }
}

impl Authenticator {
    /// Knows the tokens of the configuration, and of the database if there is one.
    pub fn new(config: &ServerConfig, database: Option<Store>) -> Self {
        let hash = |token: &String| blake3::hash(token.as_bytes());
        let (operator, scraper) = (config.token.as_ref().map(hash), config.metrics_token.as_ref().map(hash));
        let (limits, rate) = (config.limits.clone(), RateLimiter::new(&config.limits));
        let listen = config.listen.clone();
        let (tokens, has_tokens, owners) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(AuthState { listen, operator, scraper, database, limits, rate, tokens, has_tokens, owners }) }
    }

    /// The limits of the configuration.
    pub fn limits(&self) -> &ServerLimitsConfig {
        &self.inner.limits
    }

    /// The caller; none if the request has no token and needs none.
    async fn identify(&self, token: Option<&str>, peer: Peer) -> Result<Option<Caller>, ApiError> {
        let by_address = RateKey::from(peer.address);
        let Some(secret) = token else {
            self.take(by_address)?;
            return if !peer.is_local || self.requires_token().await? { Err(unauthorized()) } else { Ok(None) };
        };
        // Hashes are compared in constant time, so that the duration does not reveal how much of a guess is right.
        let secret_hash = blake3::hash(secret.as_bytes());
        if self.inner.operator == Some(secret_hash) {
            self.take(RateKey::Token("".into()))?;
            return Ok(Some(Caller::with_all_permissions("operator")));
        }
        if self.inner.scraper == Some(secret_hash) {
            self.take(RateKey::Token("metrics".into()))?;
            return Ok(Some(Caller { name: "server.metrics_token".into(), tenant: None, permissions: Permissions::Metrics }));
        }
        let Some((id, hash)) = read_token(secret) else {
            self.take(by_address)?;
            return Err(unauthorized());
        };
        let known = match self.cached(id) {
            Some(known) => known,
            None => {
                // A token that was valid when it was last read counts against its own allowance, below.
                if !self.was_valid(id, hash) {
                    self.take(RateKey::unknown(peer.address))?;
                }
                self.look_up(id).await?
            }
        };
        match known {
            Some(token) if is_valid(&token, hash) => {
                self.take(RateKey::Token(token.id.as_str().into()))?;
                let tenant = match &token.tenant {
                    Some(tenant) => Some(self.tenant(tenant).await?),
                    None => None,
                };
                Ok(Some(Caller {
                    name: token.name.as_str().into(),
                    tenant,
                    permissions: Permissions::Scopes(token.scopes.clone()),
                }))
            }
            _ => {
                self.take(by_address)?;
                Err(unauthorized())
            }
        }
    }

    /// The caller of a probe, if it can be identified soon. A probe gets its response in any case.
    pub async fn identify_prober(&self, uri: &Uri, headers: &HeaderMap, peer: Peer) -> Option<Caller> {
        if let Some(token) = bearer_token(headers) {
            return tokio::time::timeout(PROBE_TIMEOUT, self.identify(Some(&token), peer)).await.ok()?.ok()?;
        }
        // A probe without a token does not count against a rate limit.
        let required = tokio::time::timeout(PROBE_TIMEOUT, self.requires_token()).await;
        let last =
            || (*self.inner.has_tokens.lock().unwrap_or_else(PoisonError::into_inner)).is_none_or(|(has_tokens, _)| has_tokens);
        let required = required.ok().and_then(Result::ok).unwrap_or_else(last);
        let is_open = peer.is_local && !required && origin::check(uri, headers, &self.inner.listen).is_ok();
        is_open.then(|| Caller::with_all_permissions("anybody"))
    }

    /// The tenant, with the pipelines that belong to others.
    async fn tenant(&self, name: &str) -> Result<Tenant, ApiError> {
        let cached = self.inner.owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let owners = match (cached, &self.inner.database) {
            (Some((owners, since)), _) if since.elapsed() < CACHE_TTL => owners,
            (_, None) => Arc::default(),
            (_, Some(database)) => {
                let owners = Arc::new(database.tenants().await.map_err(|error| ApiError::unavailable(&error))?);
                let mut cache = self.inner.owners.lock().unwrap_or_else(PoisonError::into_inner);
                *cache = Some((owners.clone(), Instant::now()));
                owners
            }
        };
        let of_others = owners.iter().filter(|(_, owner)| owner != name).map(|(pipeline, _)| pipeline.clone());
        Ok(Tenant { name: name.into(), of_others: Arc::new(of_others.collect()) })
    }

    fn take(&self, key: RateKey) -> Result<(), ApiError> {
        self.inner.rate.take(key, Instant::now()).map_err(|wait| {
            METRICS.http_limited.inc();
            let seconds = wait.as_secs() + 1;
            let message = format!(
                "you have sent more than {} requests a second; try again in {seconds} s",
                self.limits().requests_per_second
            );
            ApiError { retry_after: Some(seconds), ..ApiError::new(ProblemCode::TooManyRequests, message) }
        })
    }

    fn cached(&self, id: &str) -> Option<Option<Arc<TokenRow>>> {
        let tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(id).filter(|cached| cached.is_fresh()).map(|cached| cached.token.clone())
    }

    fn was_valid(&self, id: &str, hash: Hash) -> bool {
        let tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(id).and_then(|cached| cached.token.as_ref()).is_some_and(|token| is_valid(token, hash))
    }

    async fn look_up(&self, id: &str) -> Result<Option<Arc<TokenRow>>, ApiError> {
        let Some(database) = &self.inner.database else { return Ok(None) };
        let token = database.token(id).await.map_err(|error| ApiError::unavailable(&error))?.map(Arc::new);
        if token.is_some() {
            let (database, id) = (database.clone(), id.to_owned());
            // The time of last use is only informative, so the request does not wait for it.
            tokio::spawn(async move { drop(database.note_token(&id).await) });
        }
        let mut tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= CACHE_SIZE {
            tokens.retain(|_, cached| cached.is_fresh() || cached.token.is_some());
        }
        if tokens.len() < CACHE_SIZE || token.is_some() {
            tokens.insert(id.to_owned(), CachedToken { token: token.clone(), since: Instant::now() });
        }
        Ok(token)
    }

    /// Whether callers need a token. While the database is unavailable, the last result holds; before the first one, callers are
    /// refused.
    async fn requires_token(&self) -> Result<bool, ApiError> {
        let Some(database) = self.inner.database.as_ref().filter(|_| self.inner.operator.is_none()) else {
            return Ok(self.inner.operator.is_some());
        };
        let cached = *self.inner.has_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((has_tokens, since)) = cached
            && since.elapsed() < CACHE_TTL
        {
            return Ok(has_tokens);
        }
        let has_tokens = match (database.has_tokens().await, cached) {
            (Ok(has_tokens), _) => has_tokens,
            (Err(_), Some((has_tokens, _))) => has_tokens,
            (Err(error), None) => return Err(ApiError::unavailable(&error)),
        };
        *self.inner.has_tokens.lock().unwrap_or_else(PoisonError::into_inner) = Some((has_tokens, Instant::now()));
        Ok(has_tokens)
    }
}

impl Caller {
    /// A caller with every permission.
    fn with_all_permissions(name: &str) -> Self {
        Self { name: name.into(), tenant: None, permissions: Permissions::Scopes(vec![Scope::Admin]) }
    }

    /// Whether the caller may read what concerns all tenants.
    pub fn sees_all(&self) -> bool {
        self.tenant.is_none() && matches!(&self.permissions, Permissions::Scopes(scopes) if grants(scopes, Scope::Read))
    }

    fn check(&self, required: RequiredAccess) -> Result<(), ApiError> {
        let (scope, of_all_tenants) = match required {
            RequiredAccess::Probe | RequiredAccess::Public => return Ok(()),
            RequiredAccess::Scope(scope) => (scope, false),
            RequiredAccess::Metrics => (Scope::Read, true),
        };
        let scopes = match &self.permissions {
            Permissions::Metrics if required == RequiredAccess::Metrics => return Ok(()),
            Permissions::Metrics => {
                let message = format!("`{}` permits only `/metrics`; use another token", self.name);
                return Err(ApiError::new(ProblemCode::Forbidden, message));
            }
            Permissions::Scopes(scopes) => scopes,
        };
        if !grants(scopes, scope) {
            let message = format!("the token `{}` lacks the scope `{scope}`; use a token with that scope", self.name);
            return Err(ApiError::new(ProblemCode::Forbidden, message));
        }
        if of_all_tenants && self.tenant.is_some() {
            let message = format!(
                "metrics concern all tenants, and the token `{}` belongs to one; use a token without a tenant",
                self.name
            );
            return Err(ApiError::new(ProblemCode::Forbidden, message));
        }
        Ok(())
    }
}

fn grants(scopes: &[Scope], wanted: Scope) -> bool {
    scopes.contains(&wanted) || scopes.contains(&Scope::Admin)
}

/// Whether the secret is the token's, compared in constant time, and the token is valid now.
fn is_valid(token: &TokenRow, hash: Hash) -> bool {
    let stored = <[u8; 32]>::try_from(token.hash.as_slice()).map(Hash::from_bytes);
    stored.is_ok_and(|stored| stored == hash) && token.is_valid(Timestamp::now().as_millisecond())
}

fn unauthorized() -> ApiError {
    ApiError::new(
        ProblemCode::Unauthorized,
        "this requires the header `Authorization: Bearer` with a valid token; `tidemill tokens create` makes one",
    )
}

/// The token of the request; an empty one if the header has another scheme than `Bearer`.
fn bearer_token(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?;
    let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(bearer.map_or("", |(_, token)| token.trim()).to_owned())
}

/// Passes a request on if its caller has the access that the endpoint requires, with the caller as an extension.
pub async fn authorize(
    State((auth, required)): State<(Authenticator, RequiredAccess)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if required == RequiredAccess::Probe {
        return Ok(next.run(request).await);
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::UNKNOWN);
    if required == RequiredAccess::Public {
        auth.take(RateKey::from(peer.address))?;
        return Ok(next.run(request).await);
    }
    let caller = match auth.identify(bearer_token(request.headers()).as_deref(), peer).await? {
        Some(caller) => caller,
        None => {
            origin::check(request.uri(), request.headers(), &auth.inner.listen)?;
            Caller::with_all_permissions("anybody")
        }
    };
    caller.check(required)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}
