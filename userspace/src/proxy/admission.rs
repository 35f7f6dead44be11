//! How many clients may be connected at a time, over all workers.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{counters::Closed, settings::Limits};

/// Counts connections; asked once for each, never for a request.
#[derive(Debug, Default)]
pub(super) struct Admission {
    total: AtomicUsize,
    by_source: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    source: IpAddr,
}

impl Admission {
    /// A place for a connection from `source`.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(super) fn enter(
        self: &Arc<Self>,
        source: IpAddr,
        limits: &Limits,
    ) -> Result<Place, Closed> {
        let source = source_of(source);
        if self.total.load(Ordering::Relaxed) >= limits.connections {
            return Err(Closed::TooManyConnections);
        }
        {
            let mut by_source = self.lock();
            let count = by_source.entry(source).or_default();
            if *count >= limits.connections_per_source {
                return Err(Closed::TooManyFromSource);
            }
            *count += 1;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        Ok(Place {
            admission: Arc::clone(self),
            source,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        let mut by_source = self.admission.lock();
        if let Some(count) = by_source.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                by_source.remove(&self.source);
            }
        }
    }
}

/// One subscriber has a whole /64 of IPv6 addresses.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) >> 64 << 64;
            IpAddr::V6(prefix.into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_source_and_places_are_given_back() {
        let admission = Arc::new(Admission::default());
        let limits = Limits {
            connections: 3,
            connections_per_source: 1,
            ..Limits::default()
        };
        let enter = |address: &str| admission.enter(address.parse().unwrap(), &limits);
        let first = enter("2001:db8::1").unwrap();
        assert_eq!(enter("2001:db8::2").unwrap_err(), Closed::TooManyFromSource);
        let _second = enter("2001:db8:0:1::1").unwrap();
        let _third = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.2").unwrap_err(), Closed::TooManyConnections);
        drop(first);
        assert!(enter("2001:db8::2").is_ok());
        assert!(admission.by_source.lock().unwrap().len() == 2);
    }
}
