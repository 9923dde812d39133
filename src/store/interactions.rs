//! Interactions of people with documents: written with the batch of the event, read for recommendations.
//!
//! An event of one pipeline counts for the documents of another only if both pipelines belong to the same tenant.

use sqlx::PgConnection;

use super::{Reader, ResultRow, WithDeadline};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::Interaction;

/// One interaction of a person with a document.
#[derive(Debug, Clone, PartialEq)]
pub struct InteractionEvent {
    pub user: String,
    pub document: String,
    /// What the person did, such as `view` or `purchase`.
    pub kind: String,
    /// A rating or an amount, where the event has one.
    pub value: Option<f64>,
    pub at_ms: i64,
}

/// Reads interactions with the documents of pipeline `$1` by events of tenant `$2`, the latest first. `$and_user` is a further
/// condition, `$limit` the number of the last parameter.
macro_rules! interactions {
    ($and_user:literal, $limit:literal $(, $argument:expr)+) => {
        sqlx::query_as!(
            InteractionEvent,
            r#"SELECT user_id AS "user", item AS document, kind, value, (extract(epoch FROM at) * 1000)::bigint AS "at_ms!"
               FROM interactions
               WHERE target = $1"#
                + $and_user
                + " AND pipeline IN (SELECT name FROM pipelines WHERE tenant = $2)
               ORDER BY at DESC, document_id LIMIT "
                + $limit
            $(, $argument)+
        )
    };
}

/// Writes the interactions among `results`. The rows of `results` are written before; deleting one deletes its interaction.
pub(super) async fn write(connection: &mut PgConnection, pipeline: &str, results: &[&ResultRow]) -> sqlx::Result<()> {
    let mut rows: Vec<(&ResultRow, &Interaction)> =
        results.iter().filter_map(|result| Some((*result, result.interaction.as_ref()?))).collect();
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_by(|(a, _), (b, _)| (&a.document_id, &a.task).cmp(&(&b.document_id, &b.task)));
    let column = |field: for<'a> fn(&'a Interaction) -> &'a str| rows.iter().map(|(_, row)| field(row)).collect::<Vec<_>>();
    let ids: Vec<&str> = rows.iter().map(|(result, _)| result.document_id.as_str()).collect();
    let tasks: Vec<&str> = rows.iter().map(|(result, _)| result.task.as_str()).collect();
    let values: Vec<Option<f64>> = rows.iter().map(|(_, row)| row.value).collect();
    let times: Vec<Option<i64>> = rows.iter().map(|(_, row)| row.at_ms).collect();
    // A job that runs the task again reads the document from the database and does not know the record's time: the stored time
    // stays.
    sqlx::query!(
        "INSERT INTO interactions AS i (pipeline, document_id, task, target, item, user_id, kind, value, at)
         SELECT $1, n.document_id, n.task, n.target, n.item, n.user_id, n.kind, n.value,
                least(coalesce(to_timestamp(n.at_ms / 1000.0), known.at, now()), now())
         FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[], $9::bigint[])
              AS n (document_id, task, target, item, user_id, kind, value, at_ms)
         LEFT JOIN interactions known ON known.pipeline = $1 AND known.document_id = n.document_id AND known.task = n.task
         ON CONFLICT (pipeline, document_id, task) DO UPDATE
         SET target = excluded.target, item = excluded.item, user_id = excluded.user_id, kind = excluded.kind,
             value = excluded.value, at = excluded.at",
        pipeline,
        &ids as &[&str],
        &tasks as &[&str],
        &column(|row| &row.with) as &[&str],
        &column(|row| &row.document) as &[&str],
        &column(|row| &row.user) as &[&str],
        &column(|row| &row.kind) as &[&str],
        &values as &[Option<f64>],
        &times as &[Option<i64>]
    )
    .execute(connection)
    .await
    .map(drop)
}

impl Reader {
    /// The interactions of `user` with documents of the tenant's pipeline `target`, the latest first.
    pub async fn interactions_of(
        &self,
        target: &str,
        tenant: &str,
        user: &str,
        limit: i64,
    ) -> Result<Vec<InteractionEvent>, Transient> {
        let mut view = self.view().await?;
        let events = interactions!(" AND user_id = $3", "$4", target, tenant, user, limit);
        let events = events.fetch_all(view.connection()).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(events)
    }

    /// The interactions of all people with documents of the tenant's pipeline `target`, the latest first.
    pub async fn latest_interactions(&self, target: &str, tenant: &str, limit: i64) -> Result<Vec<InteractionEvent>, Transient> {
        let mut view = self.view().await?;
        let events = interactions!("", "$3", target, tenant, limit);
        let events = events.fetch_all(view.connection()).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(events)
    }
}
