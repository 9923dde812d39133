//! As whom the tables are read, and whose each pipeline is.
//!
//! | who asks | reads in the role | sees |
//! |---|---|---|
//! | the service itself, or a token of no tenant | of the service, which owns the tables | every row |
//! | a token of a tenant | `tidemill_reader`, with the tenant set for the transaction | rows of that tenant's pipelines, by the policies on the tables |
//!
//! A tenant's pipelines are known to the service as well and it asks for no others; the policies hold where that has a hole.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Executor, PgConnection, Postgres};

use super::{InTime, Store, unavailable};
use tidemill_base::failure::Transient;

/// Reads for somebody. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) store: Store,
    tenant: Option<Arc<str>>,
}

/// A connection of those that answer questions. Where it is dropped before it is given back, it is closed: one that is still in a
/// tenant's role must never go back to the others, and the server gives up what nobody waits for any more.
pub(super) struct Lease(Option<PoolConnection<Postgres>>);

/// A connection that sees what its reader may see.
pub(super) struct View {
    lease: Lease,
    is_bound: bool,
}

/// What came of saying whose a pipeline is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrollment {
    /// It is known now, or was known as that tenant's.
    Yes,
    /// It is known as another tenant's.
    Another(String),
}

impl Store {
    /// Reads for the tenant, or for the service where there is none.
    pub fn reader(&self, tenant: Option<Arc<str>>) -> Reader {
        Reader { store: self.clone(), tenant }
    }

    /// The same by the connections of the walk, for what a pipeline itself looks up.
    pub fn pipeline_reader(&self, tenant: Arc<str>) -> Reader {
        Reader { store: Self { questions: self.pool.clone(), ..self.clone() }, tenant: Some(tenant) }
    }

    /// Says that the pipeline is the tenant's, unless it is known as another's.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn enroll_pipeline(&self, pipeline: &str, tenant: &str) -> Result<Enrollment, Transient> {
        let known = sqlx::query_scalar!(
            "INSERT INTO pipelines AS p (name, tenant) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET tenant = p.tenant RETURNING tenant",
            pipeline,
            tenant
        )
        .fetch_one(&self.pool)
        .in_time(self.deadline)
        .await?;
        Ok(if known == tenant { Enrollment::Yes } else { Enrollment::Another(known) })
    }

    /// Makes the pipeline, with everything that it has made, the tenant's. Tells whose it was, where it was known.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn assign_pipeline(&self, pipeline: &str, tenant: &str) -> Result<Option<String>, Transient> {
        sqlx::query_scalar!(
            "WITH before AS (SELECT name, tenant FROM pipelines WHERE name = $1 FOR UPDATE)
             UPDATE pipelines AS p SET tenant = $2 FROM before WHERE p.name = before.name RETURNING before.tenant",
            pipeline,
            tenant
        )
        .fetch_optional(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Every pipeline that has run, and whose it is.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn tenants(&self) -> Result<Vec<(String, String)>, Transient> {
        let rows = sqlx::query!("SELECT name, tenant FROM pipelines ORDER BY name").fetch_all(&self.pool);
        Ok(rows.in_time(self.deadline).await?.into_iter().map(|row| (row.name, row.tenant)).collect())
    }
}

impl Reader {
    /// The same tables for one tenant.
    pub fn of(&self, tenant: Arc<str>) -> Self {
        self.store.reader(Some(tenant))
    }

    /// How long a statement or a transaction may take before the database counts as gone.
    pub(super) fn deadline(&self) -> Duration {
        self.store.deadline
    }

    /// A connection that answers a question.
    pub(super) async fn lease(&self) -> sqlx::Result<Lease> {
        self.store.questions.acquire().await.map(|connection| Lease(Some(connection)))
    }

    /// A connection that sees what this reader may see. For the service itself it is a plain one, outside any transaction.
    pub(super) async fn view(&self) -> Result<View, Transient> {
        let lease = self.lease().await.map_err(unavailable)?;
        let mut view = View { lease, is_bound: self.tenant.is_some() };
        if let Some(tenant) = &self.tenant {
            let begun = async {
                view.connection().execute("BEGIN READ ONLY").await?;
                confine(tenant, view.connection()).await
            };
            begun.in_time(self.deadline()).await?;
        }
        Ok(view)
    }

    /// Confines the rest of a transaction of the service to what this reader may see.
    pub(super) async fn confine(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        match &self.tenant {
            Some(tenant) => confine(tenant, connection).await,
            None => Ok(()),
        }
    }
}

impl View {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.lease.connection()
    }

    /// Gives the connection back to the service.
    pub(super) async fn end(mut self, deadline: Duration) -> Result<(), Transient> {
        if self.is_bound {
            self.connection().execute("COMMIT").in_time(deadline).await?;
        }
        self.lease.give_back();
        Ok(())
    }
}

impl Lease {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("a lease has its connection until it ends")
    }

    /// Gives the connection back to the others.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// Both settings end with the transaction. The tenant is bound, whatever it is called.
async fn confine(tenant: &str, connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query!(
        "SELECT set_config('tidemill.tenant', $1, true) AS tenant, set_config('role', 'tidemill_reader', true) AS role",
        tenant
    )
    .fetch_one(connection)
    .await
    .map(drop)
}
