//! Whether there is a document at all of which a condition holds.

use sqlx::{Postgres, QueryBuilder};

use super::FilterCondition;
use crate::{InTime, Reader};
use tidemill_base::failure::Transient;

impl Reader {
    /// Whether any document of the pipeline fulfils the condition. It looks no further than the first.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn any(&self, pipeline: &str, condition: &FilterCondition) -> Result<bool, Transient> {
        let mut sql: QueryBuilder<Postgres> =
            QueryBuilder::new("SELECT EXISTS (SELECT FROM documents d WHERE NOT d.deleted AND d.pipeline = ");
        sql.push_bind(pipeline).push(" AND ");
        condition.push(&mut sql);
        sql.push(")");
        let mut view = self.view().await?;
        let found = sql.build_query_scalar().persistent(false).fetch_one(view.connection()).in_time(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(found)
    }
}
