//! `tidemill tokens`.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use comfy_table::Table;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::database::{Database, caller, time};
use crate::access::{NewSecret, Scope, is_tenant};
use crate::config::{Config, ConfigError};
use crate::store::{NewToken, Store, TokenRow};

/// The most characters of a token's name.
const NAME_CHARACTERS: usize = 100;

#[derive(Debug, Subcommand)]
pub enum TokensCommand {
    /// Create a token and print it; it cannot be shown again
    Create(CreateArgs),
    /// List tokens with their scopes
    List(OutputArgs),
    /// Revoke a token; running servers refuse it within 5 seconds
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// A name that says who or what the token is for
    name: String,
    /// What the token allows; may be given more than once
    #[arg(long = "scope", value_enum, required = true)]
    scopes: Vec<Scope>,
    /// The tenant whose pipelines it sees; by default all tenants
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// When it expires: a span from now such as `720h`, or a time; by default never
    #[arg(long, value_name = "SPAN|TIME")]
    expires: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The token's id, which is between `tm_` and the second `_`
    id: String,
}

/// Runs `tidemill tokens`.
pub async fn run(mut config: Config, command: TokensCommand) -> Result<()> {
    let database = Database::open(&mut config).await?;
    let done = match command {
        TokensCommand::Create(args) => create(&database.store, args).await,
        TokensCommand::List(args) => list(&database.store, args.json).await,
        TokensCommand::Revoke(args) => revoke(&database.store, &args.id).await,
    };
    database.close().await?;
    done
}

async fn create(store: &Store, args: CreateArgs) -> Result<()> {
    let name = args.name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARACTERS || name.chars().any(char::is_control) {
        let message = format!(
            "{name:?} is not a name for a token; write 1 to {NAME_CHARACTERS} characters, none of them a control character"
        );
        return Err(ConfigError(message).into());
    }
    if let Some(tenant) = &args.tenant {
        let message =
            || format!("--tenant {tenant:?} is not a tenant name: use lower-case letters, digits and `-`, a letter first");
        if !is_tenant(tenant) {
            return Err(ConfigError(message()).into());
        }
        if !store.tenants().await?.iter().any(|(_, known)| known == tenant) {
            eprintln!("no pipeline of tenant {tenant} has run yet; until one does, the token sees nothing");
        }
    }
    let expires = args.expires.as_deref().map(|text| expiry(text, Timestamp::now())).transpose()?;
    let secret = NewSecret::draw()?;
    let mut scopes = args.scopes;
    scopes.sort_by_key(|scope| *scope as usize);
    scopes.dedup();
    let token = NewToken {
        id: secret.id.clone(),
        name: name.to_owned(),
        hash: *secret.hash.as_bytes(),
        scopes,
        tenant: args.tenant,
        expires_ms: expires.map(Timestamp::as_millisecond),
        created_by: caller(),
    };
    store.create_token(&token).await?;
    if args.output.json {
        say!("{}", json!({ "id": token.id, "token": secret.token, "scopes": token.scopes, "tenant": token.tenant }));
    } else {
        eprintln!("store the token now: it cannot be shown again");
        say!("{}", secret.token);
    }
    Ok(())
}

fn expiry(text: &str, now: Timestamp) -> Result<Timestamp> {
    let span = || text.parse::<SignedDuration>().ok().and_then(|span| now.checked_add(span).ok());
    match text.parse().ok().or_else(span) {
        Some(end) if end > now => Ok(end),
        Some(_) => Err(ConfigError(format!("--expires `{text}` has passed; write a time in the future")).into()),
        None => Err(ConfigError(format!("--expires `{text}` is not a time: write `720h` or 2026-12-31T12:00:00Z")).into()),
    }
}

async fn list(store: &Store, as_json: bool) -> Result<()> {
    let tokens = store.tokens().await?;
    let now = Timestamp::now().as_millisecond();
    if as_json {
        let tokens: Vec<Value> = tokens
            .iter()
            .map(|token| {
                json!({
                    "id": token.id, "name": token.name, "scopes": token.scopes, "tenant": token.tenant, "state": state(token, now),
                    "created_at": time(token.created_ms), "created_by": token.created_by,
                    "expires_at": token.expires_ms.map(time), "last_used_at": token.used_ms.map(time),
                    "revoked_at": token.revoked_ms.map(time),
                })
            })
            .collect();
        say!("{}", json!({ "tokens": tokens }));
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["id", "name", "scopes", "tenant", "state", "created", "by", "expires", "last used"]);
    for token in &tokens {
        let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
        table.add_row([
            token.id.clone(),
            token.name.clone(),
            scopes.join(" "),
            token.tenant.clone().unwrap_or_else(|| "all".to_owned()),
            state(token, now).to_owned(),
            time(token.created_ms),
            token.created_by.clone(),
            token.expires_ms.map(time).unwrap_or_default(),
            token.used_ms.map(time).unwrap_or_default(),
        ]);
    }
    say!("{table}");
    Ok(())
}

fn state(token: &TokenRow, now_ms: i64) -> &'static str {
    match token.revoked_ms {
        Some(_) => "revoked",
        None if token.is_valid(now_ms) => "valid",
        None => "expired",
    }
}

async fn revoke(store: &Store, id: &str) -> Result<()> {
    if store.revoke_token(&id.replace('\0', "")).await? {
        say!("{id} is revoked; running servers refuse it within 5 seconds");
        return Ok(());
    }
    match store.tokens().await?.iter().any(|token| token.id == id) {
        true => say!("{id} was revoked already"),
        false => bail!("there is no token {id}; `tidemill tokens list` lists all"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_after_a_span_or_at_a_time_to_come() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        assert_eq!(expiry("24h", now).unwrap().to_string(), "2026-03-02T12:00:00Z");
        assert_eq!(expiry("2026-04-01T00:00:00Z", now).unwrap().to_string(), "2026-04-01T00:00:00Z");
        assert!(expiry("-2h", now).unwrap_err().to_string().contains("has passed"));
        assert!(expiry("soon", now).unwrap_err().to_string().contains("is not a time"));
    }
}
