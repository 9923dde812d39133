//! Tests as the runner takes them: asynchronous functions with a time limit, some of which need Kafka or the machine for
//! themselves.

use std::any::Any;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use super::kafka;

/// Long enough for a test that starts a broker on a busy machine, short enough that a hanging test is noticed.
const LIMIT: Duration = Duration::from_secs(120);

/// Held by tests that keep the whole machine busy or measure time.
static MACHINE: Mutex<()> = Mutex::new(());

/// What a test needs to run.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    limit: Duration,
    kafka: bool,
    kafka_tls: bool,
    machine: bool,
    tools: [Option<Tool>; 2],
}

/// Finds or fetches a program or files that a test needs besides Rust.
///
/// # Errors
/// Where this machine does not have it and cannot fetch it.
pub type Tool = fn() -> anyhow::Result<()>;

impl Needs {
    /// Nothing besides this machine.
    pub const NOTHING: Self = Self { limit: LIMIT, kafka: false, kafka_tls: false, machine: false, tools: [None; 2] };
    /// Java and Maven.
    pub const KAFKA: Self = Self { kafka: true, ..Self::NOTHING };
    /// Those, and a build with the feature `kafka-tls`.
    pub const KAFKA_TLS: Self = Self { kafka_tls: true, ..Self::KAFKA };

    /// Runs while no other test of this kind does.
    pub const fn alone(self) -> Self {
        Self { machine: true, ..self }
    }

    /// Takes another time limit.
    pub const fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Needs a tool as well.
    pub const fn using(self, tool: Tool) -> Self {
        match self.tools {
            [None, _] => Self { tools: [Some(tool), None], ..self },
            [first, _] => Self { tools: [first, Some(tool)], ..self },
        }
    }

    /// Why the test cannot run here, and the variable that makes that a failure.
    fn lacking(self) -> Option<(String, &'static str)> {
        if self.kafka_tls && !cfg!(feature = "kafka-tls") {
            return Some((
                "it needs a build with TLS towards Kafka: `cargo test --features kafka-tls`".into(),
                "TIDEMILL_REQUIRE_KAFKA",
            ));
        }
        if let Some(reason) = kafka::availability().as_ref().filter(|_| self.kafka) {
            return Some((reason.clone(), "TIDEMILL_REQUIRE_KAFKA"));
        }
        let reason = self.tools.into_iter().flatten().find_map(|tool| tool().err())?;
        Some((format!("{reason:#}"), "TIDEMILL_REQUIRE_TOOLS"))
    }
}

/// A test from its needs and the function that is its body, which gives it its name: `trial!(Needs::KAFKA,
/// a_dead_worker_loses_nothing)` in `jobs` or a module below it is `jobs::a_dead_worker_loses_nothing`. A function that several
/// tests share gets the name beside it: `trial!(Needs::KAFKA, a_crash_leaves_no_rows => crash_at("commit"))`.
macro_rules! trial {
    ($needs:expr, $name:ident => $body:expr) => {
        $crate::harness::trial::named(module_path!(), stringify!($name), $needs, move || $body)
    };
    ($needs:expr, $($body:ident)::+) => {
        $crate::harness::trial::named(module_path!(), stringify!($($body)::+), $needs, $($body)::+)
    };
}
pub(crate) use trial;

/// What [`trial!`] makes: a test whose body is a future that panics where the behaviour is not as its name says.
pub fn named<F: Future<Output = ()>>(module: &str, path: &str, needs: Needs, body: impl FnOnce() -> F + Send + 'static) -> Trial {
    // The first name of a path is that of this binary's crate.
    let family = module.split("::").nth(1).unwrap_or_default();
    let title = format!("{family}::{}", path.rsplit("::").next().unwrap_or(path).trim());
    Trial::ignorable_test(title.clone(), move || {
        if let Some((reason, variable)) = needs.lacking() {
            return if std::env::var_os(variable).is_some_and(|value| value == "1") {
                Err(Failed::from(format!("{variable} is set, so that no test may be skipped: {reason}")))
            } else {
                eprintln!("ignoring {title}: {reason}");
                Ok(Completion::ignored_with(reason))
            };
        }
        let machine = needs.machine.then(|| MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
        let outcome = run(&title, needs.limit, body);
        drop(machine);
        outcome.map(|()| Completion::Completed)
    })
}

/// Runs the body on a thread and a runtime of its own, so that a body that blocks can be abandoned at the limit.
fn run<F: Future<Output = ()>>(name: &str, limit: Duration, body: impl FnOnce() -> F + Send + 'static) -> Result<(), Failed> {
    let (done, outcome) = mpsc::channel();
    let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("cannot start a tokio runtime").block_on(async { body().await });
        done.send(()).ok();
    });
    let thread = thread.expect("cannot start a thread for a test");
    match outcome.recv_timeout(limit) {
        Ok(()) => Ok(()),
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(Failed::from(format!("{name} did not end within {} s and was abandoned", limit.as_secs())))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(()) => Ok(()),
            Err(panic) => Err(Failed::from(panic_text(panic.as_ref()))),
        },
    }
}

/// The message of a panic that was caught.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the test panicked without a message").to_owned()
}
