//! Tokens of the HTTP API.

use super::{PING_TIMEOUT, Store, WithDeadline};
use tidemill_base::access::Scope;
use tidemill_base::failure::Transient;

/// A token to store. Times are in Unix milliseconds.
#[derive(Debug, Clone)]
pub struct NewToken {
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The hash of its secret.
    pub hash: [u8; 32],
    pub scopes: Vec<Scope>,
    /// The tenant whose rows it sees; none for the rows of every tenant.
    pub tenant: Option<String>,
    pub expires_ms: Option<i64>,
    pub created_by: String,
}

/// A stored token. Times are in Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The hash of its secret.
    pub hash: Vec<u8>,
    pub scopes: Vec<Scope>,
    /// The tenant whose rows it sees; none for the rows of every tenant.
    pub tenant: Option<String>,
    pub created_ms: i64,
    pub created_by: String,
    pub expires_ms: Option<i64>,
    /// When it was last used, to about a minute.
    pub used_ms: Option<i64>,
    pub revoked_ms: Option<i64>,
}

impl TokenRow {
    /// Whether the token is neither revoked nor expired at that time.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|end| now_ms < end)
    }
}

/// Reads tokens. The first argument is the rest of the statement after the table's name.
macro_rules! tokens {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query!(
            r#"SELECT id, name, hash, scopes, tenant, created_by,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms,
                      (extract(epoch FROM last_used_at) * 1000)::bigint AS used_ms,
                      (extract(epoch FROM revoked_at) * 1000)::bigint AS revoked_ms
               FROM tokens "# + $rest
            $(, $argument)*
        )
        .map(|row| TokenRow {
            id: row.id,
            name: row.name,
            hash: row.hash,
            // A constraint of the table allows no other names.
            scopes: row.scopes.iter().filter_map(|name| Scope::named(name)).collect(),
            tenant: row.tenant,
            created_ms: row.created_ms,
            created_by: row.created_by,
            expires_ms: row.expires_ms,
            used_ms: row.used_ms,
            revoked_ms: row.revoked_ms,
        })
    };
}

impl Store {
    /// Stores a new token.
    pub async fn create_token(&self, token: &NewToken) -> Result<(), Transient> {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        sqlx::query!(
            "INSERT INTO tokens (id, name, hash, scopes, tenant, expires_at, created_by)
             VALUES ($1, $2, $3, $4, $5, to_timestamp($6::double precision / 1000), $7)",
            token.id,
            token.name,
            &token.hash[..],
            &scopes as &[&str],
            token.tenant,
            token.expires_ms.map(|ms| ms as f64),
            token.created_by
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// The token with this id, even if it is revoked or expired.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, Transient> {
        let token = tokens!("WHERE id = $1", id);
        token.fetch_optional(&self.pool).with_deadline(PING_TIMEOUT.min(self.deadline)).await
    }

    /// Every token, the latest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Transient> {
        let tokens = tokens!("ORDER BY created_at DESC, id");
        tokens.fetch_all(&self.pool).with_deadline(self.deadline).await
    }

    /// Whether any token was ever created. Expired and revoked tokens count: they show that the operator wants callers to
    /// authenticate.
    pub async fn has_tokens(&self) -> Result<bool, Transient> {
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM tokens) AS "has!""#)
            .fetch_one(&self.pool)
            .with_deadline(PING_TIMEOUT.min(self.deadline))
            .await
    }

    /// Revokes the token. Returns false where there is none of that id, or it is revoked already.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, Transient> {
        let done = sqlx::query!("UPDATE tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", id)
            .execute(&self.pool)
            .with_deadline(self.deadline)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Stores that the token is in use, at most once a minute.
    pub async fn note_token(&self, id: &str) -> Result<(), Transient> {
        sqlx::query!(
            "UPDATE tokens SET last_used_at = now()
             WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
            id
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }
}
