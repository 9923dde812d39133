//! Tenants: which tenant each pipeline belongs to, and reading under a tenant's row-level security.
//!
//! | caller | database role | sees |
//! |---|---|---|
//! | the service itself, or a token without a tenant | the service's role, which owns the tables | every row |
//! | a token of a tenant | `tidemill_reader`, with the tenant set for the transaction | rows of that tenant's pipelines, by the policies on the tables |
//!
//! The service also checks itself that a tenant asks only for its own pipelines. The policies protect against mistakes in that
//! check.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, Postgres};

use super::{Store, WithDeadline, unavailable};
use tidemill_base::failure::Transient;

/// Reads the tables with the rights of a tenant, or of the service. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) store: Store,
    tenant: Option<Arc<str>>,
}

/// A connection of the request pool. Dropping it without [`RequestConnection::give_back`] closes it: a connection that still has a
/// tenant's role must not return to the pool, and the server cancels a statement when its connection is closed.
pub(super) struct RequestConnection(Option<PoolConnection<Postgres>>);

/// A connection that sees what its reader may see.
pub(super) struct View {
    connection: RequestConnection,
    /// Whether a transaction with the tenant's role is open.
    has_tenant: bool,
}

/// The result of registering a pipeline for a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrollment {
    /// The pipeline belongs to the tenant.
    Yes,
    /// The pipeline belongs to this other tenant.
    Another(String),
}

impl Store {
    /// A reader with the rights of the tenant, or of the service where there is none.
    pub fn reader(&self, tenant: Option<Arc<str>>) -> Reader {
        Reader { store: self.clone(), tenant }
    }

    /// A reader with the rights of the tenant that uses the connections of the pipelines, for queries that a pipeline makes itself.
    pub fn pipeline_reader(&self, tenant: Arc<str>) -> Reader {
        Reader { store: Self { request_pool: self.pool.clone(), ..self.clone() }, tenant: Some(tenant) }
    }

    /// Registers the pipeline for the tenant, unless it belongs to another one.
    pub async fn enroll_pipeline(&self, pipeline: &str, tenant: &str) -> Result<Enrollment, Transient> {
        let known = sqlx::query_scalar!(
            "INSERT INTO pipelines AS p (name, tenant) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET tenant = p.tenant RETURNING tenant",
            pipeline,
            tenant
        )
        .fetch_one(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok(if known == tenant { Enrollment::Yes } else { Enrollment::Another(known) })
    }

    /// Moves the pipeline with all its rows to the tenant. Returns its tenant before; none where the pipeline is not registered.
    pub async fn assign_pipeline(&self, pipeline: &str, tenant: &str) -> Result<Option<String>, Transient> {
        sqlx::query_scalar!(
            "WITH before AS (SELECT name, tenant FROM pipelines WHERE name = $1 FOR UPDATE)
             UPDATE pipelines AS p SET tenant = $2 FROM before WHERE p.name = before.name RETURNING before.tenant",
            pipeline,
            tenant
        )
        .fetch_optional(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Every registered pipeline with its tenant.
    pub async fn tenants(&self) -> Result<Vec<(String, String)>, Transient> {
        let rows = sqlx::query!("SELECT name, tenant FROM pipelines ORDER BY name").fetch_all(&self.pool);
        Ok(rows.with_deadline(self.deadline).await?.into_iter().map(|row| (row.name, row.tenant)).collect())
    }
}

impl Reader {
    /// A reader of the same database with the rights of the tenant.
    pub fn of(&self, tenant: Arc<str>) -> Self {
        self.store.reader(Some(tenant))
    }

    pub(super) fn deadline(&self) -> Duration {
        self.store.deadline
    }

    /// A connection of the request pool, with the service's rights.
    pub(super) async fn request_connection(&self) -> sqlx::Result<RequestConnection> {
        self.store.request_pool.acquire().await.map(|connection| RequestConnection(Some(connection)))
    }

    /// A connection that sees what this reader may see. For a tenant it is inside a transaction with the tenant's role; for the
    /// service it is outside any transaction.
    pub(super) async fn view(&self) -> Result<View, Transient> {
        let connection = self.request_connection().await.map_err(unavailable)?;
        let mut view = View { connection, has_tenant: self.tenant.is_some() };
        if let Some(tenant) = &self.tenant {
            let begun = async {
                view.connection().execute("BEGIN READ ONLY").await?;
                set_tenant(tenant, view.connection()).await
            };
            begun.with_deadline(self.deadline()).await?;
        }
        Ok(view)
    }

    /// Gives the rest of a transaction the rights of this reader.
    pub(super) async fn restrict(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        match &self.tenant {
            Some(tenant) => set_tenant(tenant, connection).await,
            None => Ok(()),
        }
    }
}

impl View {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection.get()
    }

    /// Ends the tenant's transaction and returns the connection to the pool.
    pub(super) async fn end(mut self, deadline: Duration) -> Result<(), Transient> {
        if self.has_tenant {
            self.connection().execute("COMMIT").with_deadline(deadline).await?;
        }
        self.connection.give_back();
        Ok(())
    }
}

impl RequestConnection {
    pub(super) fn get(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("the connection is there until it is given back")
    }

    /// Returns the connection to the pool.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for RequestConnection {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// Both settings end with the transaction. The tenant's name is a bound parameter, so that no name can inject SQL.
async fn set_tenant(tenant: &str, connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT set_config('tidemill.tenant', $1, true) AS tenant, set_config('role', 'tidemill_reader', true) AS role",
        tenant
    )
    .fetch_one(connection)
    .await
    .map(drop)
}
