//! The pipelines and datasets that jobs may name, with their tenants.

use std::collections::BTreeMap;

use super::spec::{JobSpec, SpecError};
use crate::access::Tenant;
use crate::config::DatasetConfig;
use crate::did_you_mean::suggestion;
use crate::pipeline::definition::Definition;

/// The pipelines and datasets that jobs may name, with their tenants.
#[derive(Debug, Clone, Default)]
pub struct KnownNames {
    pipelines: BTreeMap<String, KnownPipeline>,
    datasets: BTreeMap<String, String>,
}

/// The tenant and the tasks of a pipeline.
#[derive(Debug, Clone)]
struct KnownPipeline {
    tenant: String,
    tasks: Vec<String>,
}

impl KnownPipeline {
    fn of(definition: &Definition) -> Self {
        let tasks = definition.tasks.iter().map(|task| task.name.to_string()).collect();
        Self { tenant: definition.tenant.to_string(), tasks }
    }
}

impl KnownNames {
    /// The pipelines, and the configured datasets.
    pub fn new<'a>(definitions: impl IntoIterator<Item = &'a Definition>, datasets: &BTreeMap<String, DatasetConfig>) -> Self {
        let pipelines = definitions.into_iter().map(|definition| (definition.name.to_string(), KnownPipeline::of(definition)));
        let datasets = datasets.iter().map(|(name, dataset)| (name.clone(), dataset.tenant().to_owned()));
        Self { pipelines: pipelines.collect(), datasets: datasets.collect() }
    }

    /// What jobs of the tenant may name.
    pub(super) fn of(&self, tenant: &Tenant) -> Self {
        let mut own = self.clone();
        own.pipelines.retain(|name, known| tenant.owns(name, &known.tenant));
        own.datasets.retain(|_, owner| **owner == *tenant.name);
        own
    }

    /// Checks that everything the job names exists and belongs to one tenant. Returns the tenant.
    ///
    /// # Errors
    /// One sentence, with the nearest name that exists.
    pub fn check(&self, spec: &JobSpec) -> Result<&str, SpecError> {
        let Some(KnownPipeline { tenant, tasks }) = self.pipelines.get(&spec.pipeline) else {
            let near = suggestion(&spec.pipeline, self.pipelines.keys().map(String::as_str));
            return Err(SpecError(format!("no pipeline is named `{}`; {near}", spec.pipeline)));
        };
        if let Some(task) = spec.kind.tasks().iter().find(|task| !tasks.contains(task)) {
            let near = suggestion(task, tasks.iter().map(String::as_str));
            return Err(SpecError(format!("pipeline `{}` has no task `{task}`; {near}", spec.pipeline)));
        }
        let Some(rows) = spec.kind.rows() else { return Ok(tenant) };
        match self.datasets.get(&rows.dataset) {
            Some(owner) if owner == tenant => Ok(tenant),
            Some(owner) => Err(SpecError(format!(
                "dataset `{}` belongs to tenant `{owner}`, but pipeline `{}` to tenant `{tenant}`; a job can read only datasets of \
                 its pipeline's tenant, so name another dataset, or fix `tenant` of one of the two",
                rows.dataset, spec.pipeline
            ))),
            None => {
                let near = suggestion(&rows.dataset, self.datasets.keys().map(String::as_str));
                Err(SpecError(format!("dataset `{}` is not configured; {near}", rows.dataset)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> KnownNames {
        let news = KnownPipeline { tenant: "acme".into(), tasks: vec!["topic".into(), "vector".into()] };
        KnownNames { pipelines: [("news".into(), news)].into(), datasets: [("archive".into(), "acme".into())].into() }
    }

    fn spec(pipeline: &str, dataset: &str) -> JobSpec {
        let text = format!(r#"{{"version":1,"id":"a","kind":"backfill","pipeline":"{pipeline}","dataset":"{dataset}"}}"#);
        JobSpec::parse(text.as_bytes(), None).unwrap()
    }

    #[test]
    fn a_job_that_names_what_there_is_not_hears_of_what_there_is() {
        assert_eq!(names().check(&spec("news", "archive")), Ok("acme"));
        let told = |pipeline, dataset| names().check(&spec(pipeline, dataset)).unwrap_err().0;
        assert_eq!(told("new", "archive"), "no pipeline is named `new`; did you mean `news`?");
        assert_eq!(told("news", "archives"), "dataset `archives` is not configured; did you mean `archive`?");
        let none = KnownNames { datasets: BTreeMap::new(), ..names() };
        assert_eq!(none.check(&spec("news", "a")).unwrap_err().0, "dataset `a` is not configured; there are none");
    }

    #[test]
    fn a_task_that_there_is_not_is_refused_before_anything_is_queued() {
        let asked = |more: &str| {
            let text = format!(r#"{{"version":1,"id":"a","pipeline":"news",{more}}}"#);
            names().check(&JobSpec::parse(text.as_bytes(), None).unwrap()).map(str::to_owned).map_err(|error| error.0)
        };
        let refused = "pipeline `news` has no task `topics`; did you mean `topic`?";
        assert_eq!(asked(r#""kind":"rerun","tasks":["topic","vector"]"#).as_deref(), Ok("acme"));
        assert_eq!(asked(r#""kind":"rerun","tasks":["vector","topics"]"#).unwrap_err(), refused);
        let evaluate = r#""kind":"evaluate","dataset":"archive","task":"topics","expected":"label""#;
        assert_eq!(asked(evaluate).unwrap_err(), refused);
    }

    #[test]
    fn a_tenant_names_what_is_its_own() {
        assert_eq!(names().of(&"acme".into()).check(&spec("news", "archive")), Ok("acme"));
        assert_eq!(
            names().of(&"globex".into()).check(&spec("news", "archive")).unwrap_err().0,
            "no pipeline is named `news`; there are none"
        );
        let borrowed = KnownNames { datasets: [("archive".into(), "globex".into())].into(), ..names() }.of(&"acme".into());
        let refused = borrowed.check(&spec("news", "archive")).unwrap_err().0;
        assert_eq!(refused, "dataset `archive` is not configured; there are none");
    }

    #[test]
    fn what_was_handed_over_is_no_longer_the_tenants() {
        let handed_over = Tenant { of_others: std::sync::Arc::new(["news".to_owned()].into()), ..Tenant::from("acme") };
        let refused = names().of(&handed_over).check(&spec("news", "archive")).unwrap_err().0;
        assert_eq!(refused, "no pipeline is named `news`; there are none");
    }

    #[test]
    fn a_job_stays_within_one_tenant_whoever_asks() {
        let mixed = KnownNames { datasets: [("archive".into(), "globex".into())].into(), ..names() };
        let refused = mixed.check(&spec("news", "archive")).unwrap_err().0;
        assert!(
            refused.starts_with("dataset `archive` belongs to tenant `globex`, but pipeline `news` to tenant `acme`"),
            "{refused}"
        );
    }
}
