//! Who asks, whether they may, and how often.
//!
//! | carries | is | where the ledger holds no token and none is configured |
//! |---|---|---|
//! | the token of `server.token` | the operator | |
//! | a token of the ledger, neither revoked nor expired | whom it was made for | |
//! | nothing | nobody: 401 | whoever may do everything, if the listener is loopback and no page of another site asks, see [`origin`] |
//! | anything else | nobody: 401 | nobody: 401 |
//!
//! Once the ledger has held a token, callers need one, even if it was revoked or has expired. What the ledger says is believed for
//! [`BELIEVED`]; so long a revoked token still works at most, and a tenant still sees a pipeline that was handed over to another.

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

/// How long an answer of the ledger about tokens is believed.
const BELIEVED: Duration = Duration::from_secs(5);
/// How long a probe waits to learn who asks it.
const RECOGNISED: Duration = Duration::from_secs(1);
/// Answers that are kept. Callers who try ids out are held up by their address's allowance long before.
const KEPT: usize = 1_024;

/// What an endpoint asks of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredAccess {
    /// Nothing, and no allowance: whoever restarts what does not answer must not be turned away because others ask too often.
    Probe,
    /// Nothing: what is the same in every house.
    Nothing,
    /// A scope. Whoever belongs to a tenant sees that tenant's rows.
    Scope(Scope),
    /// `read` and no tenant, for what is shown concerns all of them; or the token that is made for this alone.
    Metrics,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// For logs and messages.
    pub name: Arc<str>,
    /// Whose rows it sees; everybody's where there is none.
    pub tenant: Option<Tenant>,
    permissions: Permissions,
}

/// What a caller may do.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Permissions {
    /// Read metrics, and nothing else.
    Metrics,
    /// What the scopes are good for.
    Scopes(Vec<Scope>),
}

/// Lets callers in. Clones share it.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<AuthState>,
}

struct AuthState {
    /// `server.listen`.
    listen: String,
    operator: Option<Hash>,
    scraper: Option<Hash>,
    ledger: Option<Store>,
    limits: ServerLimitsConfig,
    rate: RateLimiter,
    tokens: Mutex<HashMap<String, CachedToken>>,
    /// Whether the ledger holds tokens, and since when that is believed.
    guarded: Mutex<Option<(bool, Instant)>>,
    /// Whose each pipeline is, as the ledger says, and since when that is believed.
    owners: Mutex<Option<(Arc<PipelineOwners>, Instant)>>,
}

/// Pipelines and whose each is.
type PipelineOwners = Vec<(String, String)>;

/// What the ledger said of an id: a token or none.
struct CachedToken {
    token: Option<Arc<TokenRow>>,
    since: Instant,
}

impl CachedToken {
    fn is_believed(&self) -> bool {
        self.since.elapsed() < BELIEVED
    }
}

impl Authenticator {
    /// A gate as the configuration says, which also knows the tokens of the ledger where there is one.
    pub fn new(config: &ServerConfig, ledger: Option<Store>) -> Self {
        let hash = |token: &String| blake3::hash(token.as_bytes());
        let (operator, scraper) = (config.token.as_ref().map(hash), config.metrics_token.as_ref().map(hash));
        let (limits, rate) = (config.limits.clone(), RateLimiter::new(&config.limits));
        let listen = config.listen.clone();
        let (tokens, guarded, owners) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(AuthState { listen, operator, scraper, ledger, limits, rate, tokens, guarded, owners }) }
    }

    /// What callers may take of the server.
    pub fn limits(&self) -> &ServerLimitsConfig {
        &self.inner.limits
    }

    /// Who asks; none where the request carries no token and needs none.
    async fn identify(&self, carried: Option<&str>, peer: Peer) -> Result<Option<Caller>, ApiError> {
        let stranger = RateKey::from(peer.address);
        let Some(carried) = carried else {
            self.take(stranger)?;
            return if !peer.is_local || self.is_guarded().await? { Err(unauthorized()) } else { Ok(None) };
        };
        // Hashes compare in constant time, so that the time taken says nothing about how much of a guess was right.
        let carried_hash = blake3::hash(carried.as_bytes());
        if self.inner.operator == Some(carried_hash) {
            self.take(RateKey::Token("".into()))?;
            return Ok(Some(Caller::whole("operator")));
        }
        if self.inner.scraper == Some(carried_hash) {
            self.take(RateKey::Token("metrics".into()))?;
            return Ok(Some(Caller { name: "server.metrics_token".into(), tenant: None, permissions: Permissions::Metrics }));
        }
        let Some((id, hash)) = read_token(carried) else {
            self.take(stranger)?;
            return Err(unauthorized());
        };
        let known = match self.believed(id) {
            Some(known) => known,
            None => {
                // Who was known seconds ago pays for it with an allowance of its own, below.
                if !self.was_known(id, hash) {
                    self.take(RateKey::unknown(peer.address))?;
                }
                self.look_up(id).await?
            }
        };
        match known {
            Some(token) if is_the_one(&token, hash) => {
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
                self.take(stranger)?;
                Err(unauthorized())
            }
        }
    }

    /// Who asks a probe, where that can be told at once: whoever restarts what does not answer must get its answer in any case.
    pub async fn recognise(&self, uri: &Uri, headers: &HeaderMap, peer: Peer) -> Option<Caller> {
        if let Some(carried) = carried(headers) {
            return tokio::time::timeout(RECOGNISED, self.identify(Some(&carried), peer)).await.ok()?.ok()?;
        }
        // Nothing is taken off an allowance, which those share who really ask.
        let told = tokio::time::timeout(RECOGNISED, self.is_guarded()).await;
        let last = || (*self.inner.guarded.lock().unwrap_or_else(PoisonError::into_inner)).is_none_or(|(guarded, _)| guarded);
        let guarded = told.ok().and_then(Result::ok).unwrap_or_else(last);
        let is_open = peer.is_local && !guarded && origin::check(uri, headers, &self.inner.listen).is_ok();
        is_open.then(|| Caller::whole("anybody"))
    }

    /// The tenant, with what the ledger says of its pipelines.
    async fn tenant(&self, name: &str) -> Result<Tenant, ApiError> {
        let said = self.inner.owners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let owners = match (said, &self.inner.ledger) {
            (Some((owners, since)), _) if since.elapsed() < BELIEVED => owners,
            (_, None) => Arc::default(),
            (_, Some(ledger)) => {
                let owners = Arc::new(ledger.tenants().await.map_err(|error| ApiError::unavailable(&error))?);
                let mut kept = self.inner.owners.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((owners.clone(), Instant::now()));
                owners
            }
        };
        let of_others = owners.iter().filter(|(_, owner)| owner != name).map(|(pipeline, _)| pipeline.clone());
        Ok(Tenant { name: name.into(), of_others: Arc::new(of_others.collect()) })
    }

    fn take(&self, asker: RateKey) -> Result<(), ApiError> {
        self.inner.rate.take(asker, Instant::now()).map_err(|wait| {
            METRICS.http_limited.inc();
            let seconds = wait.as_secs() + 1;
            let message = format!("more requests than {} a second; try again in {seconds} s", self.limits().requests_per_second);
            ApiError { retry_after: Some(seconds), ..ApiError::new(ProblemCode::TooManyRequests, message) }
        })
    }

    fn believed(&self, id: &str) -> Option<Option<Arc<TokenRow>>> {
        let tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(id).filter(|answer| answer.is_believed()).map(|answer| answer.token.clone())
    }

    fn was_known(&self, id: &str, hash: Hash) -> bool {
        let tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(id).and_then(|answer| answer.token.as_ref()).is_some_and(|token| is_the_one(token, hash))
    }

    async fn look_up(&self, id: &str) -> Result<Option<Arc<TokenRow>>, ApiError> {
        let Some(ledger) = &self.inner.ledger else { return Ok(None) };
        let token = ledger.token(id).await.map_err(|error| ApiError::unavailable(&error))?.map(Arc::new);
        if token.is_some() {
            let (ledger, id) = (ledger.clone(), id.to_owned());
            // Nobody waits for it, and an answer does not depend on it.
            tokio::spawn(async move { drop(ledger.note_token(&id).await) });
        }
        let mut tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= KEPT {
            tokens.retain(|_, answer| answer.is_believed() || answer.token.is_some());
        }
        if tokens.len() < KEPT || token.is_some() {
            tokens.insert(id.to_owned(), CachedToken { token: token.clone(), since: Instant::now() });
        }
        Ok(token)
    }

    /// Whether callers must carry a token. Where the ledger does not answer, what it said last holds; before its first word nobody
    /// is let in.
    async fn is_guarded(&self) -> Result<bool, ApiError> {
        let Some(ledger) = self.inner.ledger.as_ref().filter(|_| self.inner.operator.is_none()) else {
            return Ok(self.inner.operator.is_some());
        };
        let said = *self.inner.guarded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((guarded, since)) = said
            && since.elapsed() < BELIEVED
        {
            return Ok(guarded);
        }
        let guarded = match (ledger.has_tokens().await, said) {
            (Ok(guarded), _) => guarded,
            (Err(_), Some((guarded, _))) => guarded,
            (Err(error), None) => return Err(ApiError::unavailable(&error)),
        };
        *self.inner.guarded.lock().unwrap_or_else(PoisonError::into_inner) = Some((guarded, Instant::now()));
        Ok(guarded)
    }
}

impl Caller {
    /// Who may do everything.
    fn whole(name: &str) -> Self {
        Self { name: name.into(), tenant: None, permissions: Permissions::Scopes(vec![Scope::Admin]) }
    }

    /// Whether everything may be shown to it that concerns all tenants.
    pub fn sees_all(&self) -> bool {
        self.tenant.is_none() && matches!(&self.permissions, Permissions::Scopes(scopes) if grants(scopes, Scope::Read))
    }

    fn may(&self, need: RequiredAccess) -> Result<(), ApiError> {
        let (scope, whole) = match need {
            RequiredAccess::Probe | RequiredAccess::Nothing => return Ok(()),
            RequiredAccess::Scope(scope) => (scope, false),
            RequiredAccess::Metrics => (Scope::Read, true),
        };
        let scopes = match &self.permissions {
            Permissions::Metrics if need == RequiredAccess::Metrics => return Ok(()),
            Permissions::Metrics => {
                let message = format!("`{}` is good for `/metrics` alone; ask with another token", self.name);
                return Err(ApiError::new(ProblemCode::Forbidden, message));
            }
            Permissions::Scopes(scopes) => scopes,
        };
        if !grants(scopes, scope) {
            let message = format!("the token `{}` has no scope `{scope}`; ask for one that has", self.name);
            return Err(ApiError::new(ProblemCode::Forbidden, message));
        }
        if whole && self.tenant.is_some() {
            let message = format!("this concerns all tenants, and the token `{}` is of one; ask for one of none", self.name);
            return Err(ApiError::new(ProblemCode::Forbidden, message));
        }
        Ok(())
    }
}

fn grants(scopes: &[Scope], wanted: Scope) -> bool {
    scopes.contains(&wanted) || scopes.contains(&Scope::Admin)
}

/// Constant in time: what is compared are hashes.
fn is_the_one(token: &TokenRow, hash: Hash) -> bool {
    let kept = <[u8; 32]>::try_from(token.hash.as_slice()).map(Hash::from_bytes);
    kept.is_ok_and(|kept| kept == hash) && token.is_valid(Timestamp::now().as_millisecond())
}

fn unauthorized() -> ApiError {
    ApiError::new(
        ProblemCode::Unauthorized,
        "this needs the header `Authorization: Bearer` with a valid token; `tidemill tokens create` makes one",
    )
}

/// The token that the request carries; an empty one where it is carried in another way than by `Bearer`.
fn carried(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?;
    let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(bearer.map_or("", |(_, token)| token.trim()).to_owned())
}

/// Lets a request pass whose caller has what the endpoint needs, and tells the endpoint who it is.
pub async fn admit(
    State((auth, need)): State<(Authenticator, RequiredAccess)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if need == RequiredAccess::Probe {
        return Ok(next.run(request).await);
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::UNKNOWN);
    if need == RequiredAccess::Nothing {
        auth.take(RateKey::from(peer.address))?;
        return Ok(next.run(request).await);
    }
    let caller = match auth.identify(carried(request.headers()).as_deref(), peer).await? {
        Some(caller) => caller,
        None => {
            origin::check(request.uri(), request.headers(), &auth.inner.listen)?;
            Caller::whole("anybody")
        }
    };
    caller.may(need)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}
