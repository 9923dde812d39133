//! Whether any document meets a condition.

use sqlx::{Postgres, QueryBuilder};

use super::FilterCondition;
use crate::{Reader, WithDeadline};
use tidemill_base::failure::Transient;

impl Reader {
    /// Whether any document of the pipeline meets the condition. The query stops at the first one.
    pub async fn any(&self, pipeline: &str, condition: &FilterCondition) -> Result<bool, Transient> {
        let mut sql: QueryBuilder<Postgres> =
            QueryBuilder::new("SELECT EXISTS (SELECT FROM documents d WHERE NOT d.deleted AND d.pipeline = ");
        sql.push_bind(pipeline).push(" AND ");
        condition.push(&mut sql);
        sql.push(")");
        let mut view = self.view().await?;
        let found =
            sql.build_query_scalar().persistent(false).fetch_one(view.connection()).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(found)
    }
}
