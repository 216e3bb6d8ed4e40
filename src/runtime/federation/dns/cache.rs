//! What was found of domains, while it is good. Bounded in number by two generations, as `JidCache` is, and in time by what the
//! DNS says within bounds of our own: a record that is good for a month may be wrong tomorrow, and one that is good for no time at
//! all would have us ask for each stream.

use crate::base::hash::Map;
use crate::federation::discovery::{Facts, Problem};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Domains whose facts are kept. Of each there are a few hundred bytes, and with targets as many and as long as may be, 7 KiB.
pub(super) const DOMAINS_MAX: usize = 4_096;
/// Bounds of how long something is good.
const FOUND_S: (u32, u32) = (10, 3_600);
/// RFC 2308 §5 permits more, but a domain that is new should not wait for hours.
const ABSENT_S: (u32, u32) = (10, 300);
/// Of a question without an answer (RFC 2308 §7 permits five minutes).
const FAILED_S: u32 = 5;

pub(super) type Known = Result<Arc<Facts>, Problem>;

/// By domain, `max` of them.
#[derive(Debug)]
pub(in crate::runtime::federation) struct Cache<T> {
    max: usize,
    young: Map<Arc<str>, (T, Instant)>,
    old: Map<Arc<str>, (T, Instant)>,
}

impl Cache<Known> {
    pub(super) fn insert(&mut self, domain: Arc<str>, known: Known, now: Instant) {
        let ttl_s = match &known {
            Ok(facts) => facts.ttl_s().clamp(FOUND_S.0, FOUND_S.1),
            Err(Problem::Busy) => return,
            Err(problem) => problem.ttl_s().map_or(FAILED_S, |it| it.clamp(ABSENT_S.0, ABSENT_S.1)),
        };
        self.insert_until(domain, known, now + Duration::from_secs(ttl_s.into()));
    }
}

impl<T: Clone> Cache<T> {
    pub(in crate::runtime::federation) fn new(max: usize) -> Cache<T> {
        Cache { max, young: Map::default(), old: Map::default() }
    }

    pub(in crate::runtime::federation) fn get(&mut self, domain: &str, now: Instant) -> Option<T> {
        if let Some((known, until)) = self.young.get(domain) {
            return (now < *until).then(|| known.clone());
        }
        let (domain, (known, until)) = self.old.remove_entry(domain)?;
        if now >= until {
            return None;
        }
        self.insert_until(domain, known.clone(), until);
        Some(known)
    }

    pub(in crate::runtime::federation) fn insert_until(
        &mut self,
        domain: Arc<str>,
        known: T,
        until: Instant,
    ) {
        if self.young.len() >= self.max / 2 && !self.young.contains_key(&domain) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(domain, (known, until));
    }

    pub(in crate::runtime::federation) fn clear(&mut self) {
        *self = Cache::new(self.max);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(ttl_s: u32) -> Known {
        Err(Problem::NoSuchDomain { ttl_s })
    }

    #[test]
    fn a_flood_of_names_that_are_not_there_stays_within_the_bound() {
        let (mut cache, now) = (Cache::new(DOMAINS_MAX), Instant::now());
        cache.insert("wanted.example".into(), absent(300), now);
        for number in 0..3 * DOMAINS_MAX {
            cache.insert(format!("{number}.example").into(), absent(300), now);
            assert!(cache.len() <= DOMAINS_MAX, "{}", cache.len());
            if number % 1_000 == 0 {
                assert!(cache.get("wanted.example", now).is_some(), "what is asked for stays");
            }
        }
    }

    #[test]
    fn nothing_is_kept_for_no_time_or_for_ever() {
        let (mut cache, now) = (Cache::new(DOMAINS_MAX), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        cache.insert("short".into(), absent(0), now);
        cache.insert("long".into(), absent(u32::MAX), now);
        cache.insert("busy".into(), Err(Problem::Busy), now);
        assert!(cache.get("short", after(9)).is_some() && cache.get("short", after(10)).is_none());
        assert!(cache.get("long", after(299)).is_some() && cache.get("long", after(300)).is_none());
        assert!(cache.get("busy", now).is_none());
    }
}
