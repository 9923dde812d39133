//! The health of the process as one shared state: pipelines and sources write it, `/readyz` reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failure::{Component, Transient};
use crate::metrics::METRICS;

/// The state of every [`Component`], and which pipelines and topics are blocked. Clones share it.
#[derive(Debug, Clone)]
pub struct Health {
    components: Arc<Mutex<BTreeMap<Component, State>>>,
    /// Pipelines that wait for an operator, with the reason. Kept apart from the components, because the broker may work for other
    /// pipelines.
    halted: Arc<Mutex<BTreeMap<String, String>>>,
    /// Stopped pipelines with the reason.
    stops: Arc<Mutex<BTreeMap<String, String>>>,
    /// Topics that take no events, with the reason. Kept apart from the components, because the broker may work for other topics.
    topics: Arc<Mutex<BTreeMap<String, String>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Up,
    Down(String),
}

impl Health {
    /// Every component is down with the reason "starting" until [`Health::up`] is called.
    pub fn new() -> Self {
        let health = Self { components: Arc::default(), halted: Arc::default(), stops: Arc::default(), topics: Arc::default() };
        for component in Component::ALL {
            health.down(*component, "starting");
        }
        health
    }

    /// Reports that the component works.
    pub fn up(&self, component: Component) {
        self.set(component, State::Up);
    }

    /// Reports that the component does not work.
    pub fn down(&self, component: Component, reason: impl Into<String>) {
        self.set(component, State::Down(reason.into()));
    }

    /// Reports that the component of the failure does not work.
    pub fn blame(&self, failure: &Transient) {
        self.down(failure.component, failure.reason.clone());
    }

    /// Reports that the pipeline is stopped.
    pub fn stopped(&self, pipeline: &str, reason: impl Into<String>) {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).insert(pipeline.to_owned(), reason.into());
    }

    /// Reports that the pipeline is not stopped.
    pub fn running(&self, pipeline: &str) {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).remove(pipeline);
    }

    /// The pipelines that are stopped, and why. The process is not ready while there are any.
    pub fn stops(&self) -> BTreeMap<String, String> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports that the topic takes no events at present.
    pub fn block_topic(&self, topic: &str, reason: &str) {
        METRICS.topic_blocked.with_label_values(&[topic]).set(1);
        let before = self.lock_topics().insert(topic.to_owned(), reason.to_owned());
        if before.as_deref() != Some(reason) {
            tracing::warn!(topic, reason, "the topic takes no events");
        }
    }

    /// Reports that the topic takes events, or that none wait for it.
    pub fn unblock_topic(&self, topic: &str) {
        if self.lock_topics().remove(topic).is_some() {
            // The series exists: `block_topic` has set it.
            let _ = METRICS.topic_blocked.remove_label_values(&[topic]);
            tracing::info!(topic, "the topic takes events");
        }
    }

    /// The topics that take no events, and why. The process is not ready while there are any.
    pub fn blocked_topics(&self) -> BTreeMap<String, String> {
        self.lock_topics().clone()
    }

    fn lock_topics(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The components that are unavailable, and why. The process is not ready while there are any.
    pub fn problems(&self) -> Vec<(Component, String)> {
        let states = self.lock();
        states
            .iter()
            .filter_map(|(component, state)| match state {
                State::Up => None,
                State::Down(reason) => Some((*component, reason.clone())),
            })
            .collect()
    }

    /// Reports that the pipeline waits for an operator.
    pub fn halt(&self, pipeline: &str, reason: &str) {
        tracing::error!(pipeline, reason, "halted");
        METRICS.halted.with_label_values(&[pipeline]).set(1);
        self.lock_halted().insert(pipeline.to_owned(), reason.to_owned());
    }

    /// Reports that the pipeline does not wait for an operator.
    pub fn clear_halt(&self, pipeline: &str) {
        METRICS.halted.with_label_values(&[pipeline]).set(0);
        self.lock_halted().remove(pipeline);
    }

    /// The pipelines that wait for an operator, and why. The process is not ready while there are any.
    pub fn halts(&self) -> BTreeMap<String, String> {
        self.lock_halted().clone()
    }

    fn lock_halted(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs each change once; callers may report the same state every second.
    fn set(&self, component: Component, state: State) {
        METRICS.ready.with_label_values(&[component.as_str()]).set(i64::from(state == State::Up));
        let mut states = self.lock();
        let before = states.insert(component, state.clone());
        drop(states);
        match (before, state) {
            (Some(State::Down(_)), State::Up) => tracing::info!(%component, "up"),
            (Some(State::Up), State::Down(reason)) => tracing::warn!(%component, reason, "down"),
            _ => {}
        }
    }

    /// A poisoned lock is used anyway: each change is one insert, so that a panic cannot leave a half-written state.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Component, State>> {
        self.components.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ready_until_someone_vouches_for_it() {
        let health = Health::new();
        assert_eq!(health.problems().len(), Component::ALL.len());
        for component in Component::ALL {
            health.up(*component);
        }
        assert_eq!(health.problems(), vec![], "all components are up");
    }

    #[test]
    fn a_stopped_pipeline_is_told_until_it_runs() {
        let health = Health::new();
        health.clone().stopped("news", "too many");
        health.stopped("news", "still too many");
        assert_eq!(health.stops(), BTreeMap::from([("news".to_owned(), "still too many".to_owned())]));
        health.running("news");
        assert!(health.stops().is_empty());
    }

    #[test]
    fn a_topic_that_takes_nothing_is_told_whatever_its_broker_does() {
        let health = Health::new();
        health.block_topic("results", "not authorized");
        health.up(Component::Broker);
        assert_eq!(health.blocked_topics(), BTreeMap::from([("results".to_owned(), "not authorized".to_owned())]));
        health.unblock_topic("results");
        assert_eq!(health.blocked_topics(), BTreeMap::new());
    }

    #[test]
    fn a_halt_stays_whatever_its_broker_does() {
        let health = Health::new();
        health.halt("news", "its records are gone");
        health.up(Component::Broker);
        assert_eq!(health.halts(), BTreeMap::from([("news".to_owned(), "its records are gone".to_owned())]));
        health.clear_halt("news");
        assert_eq!(health.halts(), BTreeMap::new());
    }

    #[test]
    fn clones_share_one_state_and_the_latest_reason_counts() {
        let health = Health::new();
        for component in Component::ALL {
            health.up(*component);
        }
        health.clone().down(Component::Broker, "connection refused");
        health.clone().blame(&Transient::new(Component::Broker, "no route to host"));
        assert_eq!(health.problems(), vec![(Component::Broker, "no route to host".to_owned())]);
    }
}
