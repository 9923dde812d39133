//! The versions of prompts that results were made with.

use super::{Store, WithDeadline};
use tidemill_base::failure::Transient;
use tidemill_base::prompt::PromptVersion;

impl Store {
    /// Stores each of `prompts` under its version. A version that is stored already stays as it is.
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
            .with_deadline(self.deadline)
            .await?;
        }
        Ok(())
    }
}
