//! Rate limits: a number of requests a second for each caller, and a burst after a pause.
//!
//! The generic cell rate algorithm: for each caller one time is kept, at which its allowance is full again. A request moves that
//! time ahead by its share of a second. A request that would move it further ahead than a burst is refused, with the time to wait.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ServerLimitsConfig;

/// How many callers have an allowance of their own. Further callers share one, so that memory is bounded.
const MAX_CALLERS: usize = 10_000;

/// What an allowance belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateKey {
    Token(Arc<str>),
    /// An address that sends a token which is not looked up yet.
    Unknown(IpAddr),
    /// An address that sends no token. Of IPv6 the network counts, because one caller can have any number of addresses in it.
    Address(IpAddr),
    /// All callers beyond the maximum.
    Overflow,
}

impl RateKey {
    /// An address that sends a token which is not looked up yet.
    pub fn unknown(address: IpAddr) -> Self {
        Self::Unknown(network(address))
    }

    /// An address that sends no token.
    pub fn from(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// The part of an address that identifies a caller: all of IPv4, the first 64 bits of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// The allowances of all callers. Clones share them.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    /// The time after which one request is available again.
    share: Duration,
    burst: Duration,
    full_at: Arc<Mutex<HashMap<RateKey, Instant>>>,
}

impl RateLimiter {
    /// The limits of the configuration.
    pub fn new(limits: &ServerLimitsConfig) -> Self {
        let share = Duration::from_secs(1) / limits.requests_per_second.max(1);
        Self { share, burst: share * limits.burst.max(1), full_at: Arc::default() }
    }

    /// Takes one request from the allowance.
    ///
    /// # Errors
    /// The time to wait, if the allowance is used up.
    pub fn take(&self, mut key: RateKey, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MAX_CALLERS && !full_at.contains_key(&key) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= MAX_CALLERS {
                key = RateKey::Overflow;
            }
        }
        let full = full_at.entry(key).or_insert(now);
        let then = (*full).max(now) + self.share;
        let ahead = then - now;
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        *full = then;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn rate() -> RateLimiter {
        RateLimiter::new(&ServerLimitsConfig { requests_per_second: 10, burst: 3, ..ServerLimitsConfig::default() })
    }

    fn from(n: u32) -> RateKey {
        RateKey::from(Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn a_burst_passes_and_then_as_many_as_a_second_allows() {
        let (rate, start) = (rate(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(rate.take(from(1), start), Ok(()));
        }
        assert_eq!(rate.take(from(1), start), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(from(2), start), Ok(()), "another caller has an allowance of his own");
        assert_eq!(rate.take(from(1), after(99)), Err(Duration::from_millis(1)), "a refusal costs nothing");
        assert_eq!(rate.take(from(1), after(100)), Ok(()));
        assert!(rate.take(from(1), after(100)).is_err());
        for _ in 0..3 {
            assert_eq!(rate.take(from(1), after(10_000)), Ok(()), "a pause restores no more than the burst");
        }
        assert!(rate.take(from(1), after(10_000)).is_err());
    }

    #[test]
    fn callers_without_number_share_one_allowance_and_no_memory() {
        let (rate, now) = (rate(), Instant::now());
        for n in 0..MAX_CALLERS as u32 {
            rate.take(from(n), now).unwrap();
        }
        for n in 0..3 {
            assert_eq!(rate.take(from(1 << 24 | n), now), Ok(()));
        }
        assert!(rate.take(from(2 << 24), now).is_err(), "what is left over is shared");
        assert!(rate.full_at.lock().unwrap().len() <= MAX_CALLERS + 1);
        assert_eq!(rate.take(from(2 << 24), now + Duration::from_secs(60)), Ok(()), "who has been quiet is forgotten");
        assert_eq!(rate.full_at.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_addresses_of_one_network_are_one_caller() {
        let address = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(RateKey::from(address("2001:db8::1")), RateKey::from(address("2001:db8::ffff")));
        assert_ne!(RateKey::from(address("2001:db8::1")), RateKey::from(address("2001:db8:0:1::1")));
        assert_eq!(RateKey::from(address("::ffff:10.0.0.1")), RateKey::from("10.0.0.1".parse().unwrap()));
    }
}
