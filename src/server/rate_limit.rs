//! How often somebody may ask: so many requests a second, and so many at once after a pause.
//!
//! For each caller one time is kept: when its allowance will be whole again. A request moves it by its share; one that would move
//! it further ahead than a burst is refused, and told when to come again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ServerLimitsConfig;

/// Callers that are told apart at a time. Further ones share one allowance, so that nobody fills the memory by coming as many.
const TOLD_APART: usize = 10_000;

/// Whose allowance it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// Who carries this token.
    Token(Arc<str>),
    /// Who comes from here with a token that is still to be looked up.
    Unknown(IpAddr),
    /// Who comes from here without one. Of IPv6 the network counts: a single caller has as many addresses as he likes.
    Address(IpAddr),
    /// Whoever came when the others were too many.
    Another,
}

impl RateKey {
    /// Who comes from `address` with a token that is still to be looked up.
    pub fn unknown(address: IpAddr) -> Self {
        Self::Unknown(network(address))
    }

    /// Who comes from `address`.
    pub fn from(address: IpAddr) -> Self {
        Self::Address(network(address))
    }
}

/// What of an address tells callers apart: all of IPv4, the first 64 bits of IPv6.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// Allowances of all callers. Clones share them.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    /// How long one request takes to be forgotten.
    share: Duration,
    burst: Duration,
    whole_again: Arc<Mutex<HashMap<RateKey, Instant>>>,
}

impl RateLimiter {
    /// Allowances as the configuration says.
    pub fn new(limits: &ServerLimitsConfig) -> Self {
        let share = Duration::from_secs(1) / limits.requests_per_second.max(1);
        Self { share, burst: share * limits.burst.max(1), whole_again: Arc::default() }
    }

    /// Takes one request off the allowance.
    ///
    /// # Errors
    /// How long to wait, where nothing is left of it.
    pub fn take(&self, asker: RateKey, now: Instant) -> Result<(), Duration> {
        let mut whole_again = self.whole_again.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asker = asker;
        if whole_again.len() >= TOLD_APART && !whole_again.contains_key(&asker) {
            whole_again.retain(|_, whole| *whole > now);
            if whole_again.len() >= TOLD_APART {
                asker = RateKey::Another;
            }
        }
        let whole = whole_again.entry(asker).or_insert(now);
        let then = (*whole).max(now) + self.share;
        let ahead = then - now;
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        *whole = then;
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
        for n in 0..TOLD_APART as u32 {
            rate.take(from(n), now).unwrap();
        }
        for n in 0..3 {
            assert_eq!(rate.take(from(1 << 24 | n), now), Ok(()));
        }
        assert!(rate.take(from(2 << 24), now).is_err(), "what is left over is shared");
        assert!(rate.whole_again.lock().unwrap().len() <= TOLD_APART + 1);
        assert_eq!(rate.take(from(2 << 24), now + Duration::from_secs(60)), Ok(()), "who has been quiet is forgotten");
        assert_eq!(rate.whole_again.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_addresses_of_one_network_are_one_caller() {
        let address = |text: &str| IpAddr::V6(text.parse::<Ipv6Addr>().unwrap());
        assert_eq!(RateKey::from(address("2001:db8::1")), RateKey::from(address("2001:db8::ffff")));
        assert_ne!(RateKey::from(address("2001:db8::1")), RateKey::from(address("2001:db8:0:1::1")));
        assert_eq!(RateKey::from(address("::ffff:10.0.0.1")), RateKey::from("10.0.0.1".parse().unwrap()));
    }
}
