//! The tokens of the HTTP API.

use super::{InTime, SIGN_OF_LIFE, Store};
use tidemill_base::access::Scope;
use tidemill_base::failure::Transient;

/// A token to be kept.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Names it.
    pub id: String,
    /// For people.
    pub name: String,
    /// The hash of its secret.
    pub hash: [u8; 32],
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// Whose rows it sees; everybody's where there is none.
    pub tenant: Option<String>,
    /// When it ends by itself, in milliseconds since the Unix epoch.
    pub expires_ms: Option<i64>,
    /// Who made it.
    pub created_by: String,
}

/// A token that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Names it.
    pub id: String,
    /// For people.
    pub name: String,
    /// The hash of its secret.
    pub hash: Vec<u8>,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// Whose rows it sees; everybody's where there is none.
    pub tenant: Option<String>,
    /// When it was made, in milliseconds since the Unix epoch, as all times here.
    pub created_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_ms: Option<i64>,
    /// When it was last used, to the minute or so.
    pub used_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
}

impl TokenRow {
    /// Whether it is good for anything at that time.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|end| now_ms < end)
    }
}

macro_rules! token {
    ($row:expr) => {{
        let row = $row;
        TokenRow {
            id: row.id,
            name: row.name,
            hash: row.hash,
            // The table holds no other words.
            scopes: row.scopes.iter().filter_map(|name| Scope::named(name)).collect(),
            tenant: row.tenant,
            created_ms: row.created_ms,
            created_by: row.created_by,
            expires_ms: row.expires_ms,
            used_ms: row.used_ms,
            revoked_ms: row.revoked_ms,
        }
    }};
}

impl Store {
    /// Keeps a new token.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// The token of that id.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, Transient> {
        let row = sqlx::query!(
            r#"SELECT id, name, hash, scopes, tenant, created_by,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms,
                      (extract(epoch FROM last_used_at) * 1000)::bigint AS used_ms,
                      (extract(epoch FROM revoked_at) * 1000)::bigint AS revoked_ms
               FROM tokens WHERE id = $1"#,
            id
        )
        .fetch_optional(&self.pool)
        .in_time(SIGN_OF_LIFE.min(self.deadline))
        .await?;
        Ok(row.map(|row| token!(row)))
    }

    /// Every token, the latest first.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Transient> {
        let rows = sqlx::query!(
            r#"SELECT id, name, hash, scopes, tenant, created_by,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms,
                      (extract(epoch FROM last_used_at) * 1000)::bigint AS used_ms,
                      (extract(epoch FROM revoked_at) * 1000)::bigint AS revoked_ms
               FROM tokens ORDER BY created_at DESC, id"#
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await?;
        Ok(rows.into_iter().map(|row| token!(row)).collect())
    }

    /// Whether any token was ever made. One that has expired or was revoked counts: whoever made it wanted callers to be known.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn has_tokens(&self) -> Result<bool, Transient> {
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM tokens) AS "has!""#)
            .fetch_one(&self.pool)
            .in_time(SIGN_OF_LIFE.min(self.deadline))
            .await
    }

    /// Ends the token. Tells whether it was there and not revoked before.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, Transient> {
        let done = sqlx::query!("UPDATE tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL", id)
            .execute(&self.pool)
            .in_time(self.deadline)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes that the token is in use, unless that was noted within the last minute.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn note_token(&self, id: &str) -> Result<(), Transient> {
        sqlx::query!(
            "UPDATE tokens SET last_used_at = now()
             WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
            id
        )
        .execute(&self.pool)
        .in_time(self.deadline)
        .await
        .map(drop)
    }
}
