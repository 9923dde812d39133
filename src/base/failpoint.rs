//! Failpoints: places where a test makes the process fail, sleep or stop. Only builds with debug assertions have them.

#[doc(hidden)]
pub use fail;

/// [`fail::fail_point!`] in builds with debug assertions, nothing in other builds. Set by the environment variable `FAILPOINTS`.
#[macro_export]
macro_rules! failpoint {
    ($($argument:tt)*) => {
        #[cfg(debug_assertions)]
        {
            use $crate::failpoint::fail;
            fail::fail_point!($($argument)*);
        }
    };
}

/// Sets the failpoints of `FAILPOINTS` until the value is dropped. A release build ignores the variable.
#[must_use]
pub fn from_environment() -> Option<fail::FailScenario<'static>> {
    cfg!(debug_assertions).then(fail::FailScenario::setup)
}
