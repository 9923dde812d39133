//! Tracks what each device does. From its start on, each moment counts as busy or as idle for one cause.
//!
//! | what the device does | counted as | what to change if this is much |
//! |---|---|---|
//! | it computes | busy | nothing |
//! | it waits, and there are no requests | `no_work` | what comes before the engine: fetches, commits, few or small micro-batches |
//! | it waits, and requests are being tokenized | `tokenizing` | give the process more cores |
//! | it waits, and a batch is being formed | `forming` | larger batches, or more cores |
//! | it delivers answers and accepts jobs | `answering` | larger batches, or more cores |
//!
//! If two causes apply, the one nearer to the device counts: queued work before work that is being tokenized.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::Counter;

use tidemill_base::metrics::METRICS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// It waits for a batch or a job.
    Waiting,
    Computing,
    /// It delivers results and looks for its next work.
    Answering,
    /// It has stopped; its time is no longer counted.
    Ended,
}

/// Time without computing, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleTime {
    /// There were no requests.
    pub no_work: Duration,
    /// Requests were being tokenized.
    pub tokenizing: Duration,
    /// A batch was being formed.
    pub forming: Duration,
    /// Answers were delivered and jobs accepted.
    pub answering: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DeviceTime {
    pub(super) busy: Duration,
    pub(super) idle: IdleTime,
}

/// The engine's devices, and the work that is on its way to them.
pub(super) struct ActivityTracker {
    state: Mutex<TrackerState>,
}

/// Marks a call whose requests are being tokenized, until this guard and its clones are dropped.
pub(super) struct PreparationGuard(Arc<ActivityTracker>);

struct TrackerState {
    /// Calls whose requests are being tokenized.
    preparing: usize,
    /// Whether the queue holds anything.
    queued: bool,
    devices: Vec<TrackedDevice>,
}

struct TrackedDevice {
    activity: Activity,
    /// When the current activity began.
    began: Instant,
    /// The time up to which its activity has been counted.
    counted: Instant,
    /// Whether a batch is being formed for it, or is ready.
    has_batch: bool,
    spent: DeviceTime,
    counters: TimeCounters,
}

/// The metrics that mirror `spent`.
struct TimeCounters {
    busy: Counter,
    no_work: Counter,
    tokenizing: Counter,
    forming: Counter,
    answering: Counter,
}

impl ActivityTracker {
    /// Tracks devices under their metric names. All of them are waiting at first.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Arc<Self> {
        let now = Instant::now();
        let devices = names.into_iter().map(|name| TrackedDevice::new(name, now)).collect();
        Arc::new(Self { state: Mutex::new(TrackerState { preparing: 0, queued: false, devices }) })
    }

    fn lock(&self) -> MutexGuard<'_, TrackerState> {
        // Each change is one assignment, so a thread that panicked has left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with all time up to now counted, ready for a change.
    fn now(&self) -> (MutexGuard<'_, TrackerState>, Instant) {
        let mut state = self.lock();
        let now = Instant::now();
        state.count(now);
        (state, now)
    }

    /// Counts a call as being tokenized for as long as the guard lives.
    pub(super) fn begin_preparation(self: &Arc<Self>) -> PreparationGuard {
        self.now().0.preparing += 1;
        PreparationGuard(self.clone())
    }

    /// Records whether the queue holds anything.
    pub(super) fn set_queued(&self, queued: bool) {
        self.now().0.queued = queued;
    }

    /// Records that a batch is being formed for the device, and whether the queue holds more (`rest`).
    pub(super) fn batch_formed(&self, device: usize, rest: bool) {
        let (mut state, _) = self.now();
        state.queued = rest;
        state.devices[device].has_batch = true;
    }

    /// Records that the device has taken its batch.
    pub(super) fn batch_taken(&self, device: usize) {
        self.now().0.devices[device].has_batch = false;
    }

    /// Whether the device should leave queued work to another one: this device is busy, and another one is idle without a batch.
    pub(super) fn should_yield(&self, device: usize) -> bool {
        let state = self.lock();
        let starves = |device: &TrackedDevice| device.activity == Activity::Waiting && !device.has_batch;
        state.devices[device].activity != Activity::Waiting && state.devices.iter().any(starves)
    }

    /// Records the device's new activity; returns how long the previous one lasted.
    pub(super) fn switch_to(&self, device: usize, activity: Activity) -> Duration {
        let (mut state, now) = self.now();
        state.switch_to(device, activity, now)
    }

    /// Counts the time of activities that are still going on, so that a long wait shows in the metrics while it lasts.
    pub(super) fn count_elapsed(&self) {
        drop(self.now());
    }

    /// The device's time up to now.
    pub(super) fn device_time(&self, device: usize) -> DeviceTime {
        self.now().0.devices[device].spent
    }
}

impl Clone for PreparationGuard {
    fn clone(&self) -> Self {
        self.0.begin_preparation()
    }
}

impl Drop for PreparationGuard {
    fn drop(&mut self) {
        self.0.now().0.preparing -= 1;
    }
}

impl TrackerState {
    fn count(&mut self, now: Instant) {
        for device in &mut self.devices {
            device.count(now, self.queued, self.preparing > 0);
        }
    }

    fn switch_to(&mut self, device: usize, activity: Activity, now: Instant) -> Duration {
        let device = &mut self.devices[device];
        let lasted = now.saturating_duration_since(device.began);
        (device.activity, device.began) = (activity, now);
        lasted
    }
}

impl TrackedDevice {
    fn new(name: &str, now: Instant) -> Self {
        let counters = TimeCounters::new(name);
        Self { activity: Activity::Waiting, began: now, counted: now, has_batch: false, spent: DeviceTime::default(), counters }
    }

    /// Counts the time since the last count.
    fn count(&mut self, now: Instant, queued: bool, preparing: bool) {
        let time = now.saturating_duration_since(self.counted);
        self.counted = now;
        let (DeviceTime { busy, idle }, counters) = (&mut self.spent, &self.counters);
        let (spent, counter) = match self.activity {
            Activity::Computing => (busy, &counters.busy),
            Activity::Answering => (&mut idle.answering, &counters.answering),
            Activity::Waiting if self.has_batch || queued => (&mut idle.forming, &counters.forming),
            Activity::Waiting if preparing => (&mut idle.tokenizing, &counters.tokenizing),
            Activity::Waiting => (&mut idle.no_work, &counters.no_work),
            Activity::Ended => return,
        };
        *spent += time;
        counter.inc_by(time.as_secs_f64());
    }
}

impl TimeCounters {
    fn new(name: &str) -> Self {
        let idle = |cause: &str| METRICS.device_idle.with_label_values(&[name, cause]);
        Self {
            busy: METRICS.device_busy.with_label_values(&[name]),
            no_work: idle("no_work"),
            tokenizing: idle("tokenizing"),
            forming: idle("forming"),
            answering: idle("answering"),
        }
    }
}

impl IdleTime {
    /// The sum over all causes.
    pub fn sum(&self) -> Duration {
        self.no_work + self.tokenizing + self.forming + self.answering
    }
}

impl std::ops::AddAssign for IdleTime {
    fn add_assign(&mut self, other: Self) {
        self.no_work += other.no_work;
        self.tokenizing += other.tokenizing;
        self.forming += other.forming;
        self.answering += other.answering;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tracker with a clock and a queue that the test controls.
    struct ClockedTracker {
        state: TrackerState,
        now: Instant,
    }

    impl ClockedTracker {
        fn new(devices: usize) -> Self {
            let now = Instant::now();
            let devices = (0..devices).map(|i| TrackedDevice::new(&format!("clocked:{i}"), now)).collect();
            Self { state: TrackerState { preparing: 0, queued: false, devices }, now }
        }

        /// Advances the clock, and then applies a change.
        fn after(&mut self, seconds: u64, change: impl FnOnce(&mut TrackerState, Instant)) {
            self.now += Duration::from_secs(seconds);
            self.state.count(self.now);
            change(&mut self.state, self.now);
        }

        /// Seconds of the device: busy, without work, tokenizing, forming, answering.
        fn seconds(&self, device: usize) -> [u64; 5] {
            let DeviceTime { busy, idle } = self.state.devices[device].spent;
            [busy, idle.no_work, idle.tokenizing, idle.forming, idle.answering].map(|time| time.as_secs())
        }
    }

    #[test]
    fn every_cause_of_idleness_is_told_from_the_others() {
        let mut clocked = ClockedTracker::new(1);
        clocked.after(1, |state, _| state.preparing += 1);
        clocked.after(2, |state, _| state.preparing += 1);
        clocked.after(4, |state, _| state.queued = true);
        clocked.after(8, |state, _| (state.queued, state.devices[0].has_batch) = (false, true));
        clocked.after(16, |state, now| {
            state.devices[0].has_batch = false;
            state.switch_to(0, Activity::Computing, now);
        });
        clocked.after(32, |state, now| assert_eq!(state.switch_to(0, Activity::Answering, now), Duration::from_secs(32)));
        clocked.after(64, |state, now| {
            state.switch_to(0, Activity::Waiting, now);
        });
        clocked.after(128, |state, _| state.preparing = 0);
        clocked.after(256, |_, _| {});
        assert_eq!(clocked.seconds(0), [32, 1 + 256, 2 + 4 + 128, 8 + 16, 64]);
        assert_eq!(clocked.seconds(0).iter().sum::<u64>(), 511, "every second is counted once");
    }

    #[test]
    fn devices_wait_each_for_a_cause_of_its_own() {
        let mut clocked = ClockedTracker::new(2);
        clocked.after(1, |state, _| state.queued = true);
        clocked.after(2, |state, _| (state.queued, state.devices[1].has_batch) = (false, true));
        clocked.after(4, |state, now| {
            state.devices[1].has_batch = false;
            state.switch_to(1, Activity::Computing, now);
        });
        clocked.after(8, |state, now| {
            state.switch_to(1, Activity::Ended, now);
        });
        clocked.after(16, |_, _| {});
        assert_eq!(clocked.seconds(0), [0, 1 + 4 + 8 + 16, 0, 2, 0]);
        assert_eq!(clocked.seconds(1), [8, 1, 0, 2 + 4, 0], "a stopped device is not idle");
    }

    #[test]
    fn an_activity_is_told_whole_though_it_was_counted_in_parts() {
        let mut clocked = ClockedTracker::new(1);
        clocked.after(1, |state, now| {
            state.switch_to(0, Activity::Computing, now);
        });
        clocked.after(5, |_, _| {});
        clocked.after(7, |state, now| assert_eq!(state.switch_to(0, Activity::Waiting, now), Duration::from_secs(12)));
        assert_eq!(clocked.seconds(0), [12, 1, 0, 0, 0]);
    }

    #[test]
    fn a_device_with_work_leaves_the_queue_to_one_without() {
        let tracker = ActivityTracker::new(["left", "right"]);
        assert!(!tracker.should_yield(0) && !tracker.should_yield(1), "an idle device takes work");
        tracker.switch_to(0, Activity::Computing);
        assert!(tracker.should_yield(0) && !tracker.should_yield(1));
        tracker.batch_formed(1, true);
        assert!(!tracker.should_yield(0), "the other one has a batch");
        tracker.batch_taken(1);
        tracker.switch_to(1, Activity::Computing);
        assert!(!tracker.should_yield(0) && !tracker.should_yield(1), "both are busy and take their next batch in advance");
        tracker.switch_to(1, Activity::Ended);
        assert!(!tracker.should_yield(0), "a stopped device gets no work");
    }

    #[test]
    fn a_call_that_goes_away_is_no_longer_prepared() {
        let tracker = ActivityTracker::new(["cpu"]);
        let (one, other) = (tracker.begin_preparation(), tracker.begin_preparation());
        drop(one);
        assert_eq!(tracker.lock().preparing, 1);
        drop(other);
        assert_eq!(tracker.lock().preparing, 0);
    }
}
