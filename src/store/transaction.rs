//! Work that is done whole or not at all, and that does not wait for ever.

use sqlx::{Acquire, PgConnection};
use tokio::time::timeout;

use super::{Store, unavailable};
use tidemill_base::failure::Transient;

impl Store {
    /// Does the work in one transaction, and commits it. Where the work fails, nothing of it stays.
    ///
    /// # Errors
    /// Those of the work, and where the database is unavailable. The commit may have gone through if it was under way.
    pub(super) async fn transact<T, E: From<Transient>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.connected(async |connection| {
            let mut transaction = connection.begin().await.map_err(unavailable)?;
            let done = work(&mut transaction).await?;
            transaction.commit().await.map_err(unavailable)?;
            Ok(done)
        })
        .await
    }

    /// Does the work on a connection of its own. Where the database does not answer in time, the connection goes: it must not come
    /// back to the pool with a transaction that was given up halfway.
    ///
    /// # Errors
    /// Those of the work, and where the database is unavailable.
    pub(super) async fn connected<T, E: From<Transient>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?;
        match timeout(self.deadline, work(&mut connection)).await {
            Ok(done) => done,
            Err(_) => {
                drop(connection.detach());
                Err(self.silent().into())
            }
        }
    }
}
