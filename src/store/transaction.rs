//! Transactions with a time limit.

use sqlx::{Acquire, PgConnection};
use tokio::time::timeout;

use super::{Store, unavailable};
use tidemill_base::failure::Transient;

impl Store {
    /// Does the work in one transaction and commits it. If the work fails, the transaction is rolled back.
    ///
    /// # Errors
    /// Those of the work. If the database becomes unavailable during the commit, the commit may have gone through.
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

    /// Does the work on a connection of its own. If the database does not answer in time, the connection is dropped: it must not
    /// return to the pool with an unfinished transaction.
    ///
    /// # Errors
    /// Those of the work.
    pub(super) async fn connected<T, E: From<Transient>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?;
        match timeout(self.deadline, work(&mut connection)).await {
            Ok(done) => done,
            Err(_) => {
                drop(connection.detach());
                Err(self.no_answer().into())
            }
        }
    }
}
