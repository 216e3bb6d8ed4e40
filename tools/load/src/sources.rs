//! Source addresses: one address has some 28 000 ports for connections to one server, so that more connections need more
//! addresses. Loopback has 16 million.

use std::net::Ipv4Addr;

use crate::plan::Share;

/// Connections that one address carries.
const PER_ADDRESS: usize = 25_000;
/// Last parts of an address, 1 to 254.
const HOSTS: usize = 254;

/// The addresses of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Number of its first address; 0 is 127.0.0.1.
    first: usize,
    /// Over which its clients are dealt out.
    count: usize,
    /// From one of its addresses to the one that carries on where it is full: behind those of all workers.
    stride: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Self { first: 0, count: 1, stride: 1 }
    }
}

impl Sources {
    /// A worker's part of `count` addresses. No two workers share one, so each has one at least.
    pub fn of(count: usize, share: Share) -> Self {
        let workers = usize::try_from(share.count).unwrap_or(usize::MAX).max(1);
        let index = usize::try_from(share.index).unwrap_or_default();
        let each = count.div_ceil(workers).max(1);
        Self {
            first: index.saturating_mul(each),
            count: each,
            stride: workers.saturating_mul(each),
        }
    }

    /// The address of a client by its number; `None` where the system's choice is as good.
    pub fn address(&self, client: usize) -> Option<Ipv4Addr> {
        let full = client / (PER_ADDRESS * self.count);
        let number = self.first + client % self.count + full * self.stride;
        let (host, net) = (number % HOSTS + 1, number / HOSTS);
        let address = Ipv4Addr::new(127, (net >> 8) as u8, net as u8, host as u8);
        (number > 0).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn shares(count: u64) -> impl Iterator<Item = Share> {
        (0..count).map(move |index| Share { index, count })
    }

    fn used(sources: Sources, clients: usize, by: &mut HashMap<Ipv4Addr, usize>) {
        for client in 0..clients {
            let address = sources.address(client).unwrap_or(Ipv4Addr::LOCALHOST);
            *by.entry(address).or_default() += 1;
        }
    }

    #[test]
    fn two_workers_with_18_000_clients_use_four_addresses_evenly() {
        let mut by = HashMap::new();
        for share in shares(2) {
            used(Sources::of(4, share), 9000, &mut by);
        }
        let mut addresses: Vec<_> = by.into_iter().collect();
        addresses.sort_unstable();
        let expected = [1, 2, 3, 4].map(|host| (Ipv4Addr::new(127, 0, 0, host), 4500));
        assert_eq!(addresses, expected);
    }

    #[test]
    fn a_million_clients_of_eight_workers_never_fill_an_address() {
        let mut by = HashMap::new();
        for share in shares(8) {
            used(Sources::of(3, share), 125_000, &mut by);
        }
        assert_eq!(by.values().sum::<usize>(), 1_000_000);
        assert!(by.values().all(|clients| *clients <= PER_ADDRESS));
        assert!(by.keys().all(|address| !matches!(address.octets(), [127, _, _, 0 | 255])));
    }

    #[test]
    fn addresses_go_on_behind_the_first_net() {
        let many = Sources::of(100_000, Share::WHOLE);
        let addresses: std::collections::HashSet<_> =
            (0..100_000).map(|client| many.address(client)).collect();
        assert_eq!(addresses.len(), 100_000);
        assert_eq!(many.address(254), Some(Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(many.address(254 * 256), Some(Ipv4Addr::new(127, 1, 0, 1)));
        assert_eq!(Sources::default().address(0), None);
        assert_eq!(Sources::default().address(PER_ADDRESS), Some(Ipv4Addr::new(127, 0, 0, 2)));
    }
}
