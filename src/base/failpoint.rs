//! Places where a test makes a build with debug assertions fail, sleep or stop. A release holds none of them.

#[doc(hidden)]
pub use fail;

/// As [`fail::fail_point!`], where debug assertions are on; nothing elsewhere. Set by the variable `FAILPOINTS`.
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

/// Sets the failpoints that `FAILPOINTS` names for as long as the value lives. A release reads no such variable.
#[must_use]
pub fn from_environment() -> Option<fail::FailScenario<'static>> {
    cfg!(debug_assertions).then(fail::FailScenario::setup)
}
