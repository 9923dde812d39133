//! The wordings that results come from.

use super::{InTime, Store};
use tidemill_base::failure::Transient;
use tidemill_base::prompt::PromptVersion;

impl Store {
    /// Keeps each of `prompts` under its version; one that is known already stays as it is.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn keep_prompts(&self, prompts: &[PromptVersion]) -> Result<(), Transient> {
        for prompt in prompts {
            sqlx::query!(
                "INSERT INTO prompts (version, name, system, body, parameters, schema) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (version) DO NOTHING",
                prompt.version(),
                &*prompt.name,
                prompt.system.as_deref(),
                prompt.body,
                prompt.parameters,
                prompt.schema.as_ref().map(|schema| schema.to_string())
            )
            .execute(&self.pool)
            .in_time(self.deadline)
            .await?;
        }
        Ok(())
    }
}
