//! What jobs may name, and whose it is.

use std::collections::BTreeMap;

use super::spec::{JobSpec, SpecError};
use crate::access::Tenant;
use crate::config::DatasetConfig;
use crate::did_you_mean::suggestion;
use crate::pipeline::definition::Definition;

/// Pipelines and datasets that jobs may name, and whose each is.
#[derive(Debug, Clone, Default)]
pub struct KnownNames {
    pipelines: BTreeMap<String, KnownPipeline>,
    datasets: BTreeMap<String, String>,
}

/// What is known of a pipeline.
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
    /// The pipelines, and the datasets of the configuration.
    pub fn new<'a>(definitions: impl IntoIterator<Item = &'a Definition>, datasets: &BTreeMap<String, DatasetConfig>) -> Self {
        let pipelines = definitions.into_iter().map(|definition| (definition.name.to_string(), KnownPipeline::of(definition)));
        let datasets = datasets.iter().map(|(name, dataset)| (name.clone(), dataset.tenant().to_owned()));
        Self { pipelines: pipelines.collect(), datasets: datasets.collect() }
    }

    /// What a tenant may name.
    pub(super) fn of(&self, tenant: &Tenant) -> Self {
        let mut theirs = self.clone();
        theirs.pipelines.retain(|name, known| tenant.owns(name, &known.tenant));
        theirs.datasets.retain(|_, owner| **owner == *tenant.name);
        theirs
    }

    /// Refuses a job that names what there is not, or what two tenants have. Gives back whose job it is.
    ///
    /// # Errors
    /// A sentence with the nearest name that there is.
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
                "dataset `{}` is tenant `{owner}`'s and pipeline `{}` is tenant `{tenant}`'s; a job reads what its pipeline's tenant \
                 has, so name another dataset, or mend `tenant` of one of the two",
                rows.dataset, spec.pipeline
            ))),
            None => {
                let near = suggestion(&rows.dataset, self.datasets.keys().map(String::as_str));
                Err(SpecError(format!("the configuration names no dataset `{}`; {near}", rows.dataset)))
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
        assert_eq!(told("news", "archives"), "the configuration names no dataset `archives`; did you mean `archive`?");
        let none = KnownNames { datasets: BTreeMap::new(), ..names() };
        assert_eq!(none.check(&spec("news", "a")).unwrap_err().0, "the configuration names no dataset `a`; there are none");
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
        assert_eq!(refused, "the configuration names no dataset `archive`; there are none");
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
            refused.starts_with("dataset `archive` is tenant `globex`'s and pipeline `news` is tenant `acme`'s"),
            "{refused}"
        );
    }
}
