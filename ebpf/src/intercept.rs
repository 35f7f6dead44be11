//! Connections to a service that are handed to the proxy: what the program is told, and what it counts.

/// What is intercepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Intercept {
    /// The service's TCP port.
    pub port: u32,
    /// Not 0: where there is no proxy, connections are refused.
    pub closed: u32,
}

/// The near end of a connection that the proxy itself makes to the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct End {
    /// The address, mapped into IPv6 where it is one of IPv4; in network byte order.
    pub address: [u32; 4],
    /// The port.
    pub port: u32,
}

/// What came of a connection to the service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Passage {
    /// It was handed to the proxy.
    Intercepted = 0,
    /// The proxy's own, left to the service.
    Own,
    /// There is no proxy: left to the service.
    Open,
    /// There is no proxy: refused.
    Closed,
}

/// The names of [`Passage`]'s variants, by their numbers.
pub const PASSAGES: [&str; 4] = ["intercepted", "own", "open", "closed"];

impl End {
    /// This address and this port.
    #[must_use]
    pub fn new(address: core::net::IpAddr, port: u16) -> Self {
        let octets = match address {
            core::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(address) => address.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            // A chunk has four bytes.
            *word = bytes.try_into().map_or(0, u32::from_ne_bytes);
        }
        Self {
            address: words,
            port: port.into(),
        }
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: plain numbers without padding.
    unsafe impl aya::Pod for super::Intercept {}
    // SAFETY: plain numbers without padding.
    unsafe impl aya::Pod for super::End {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_written_as_the_kernel_shows_them() {
        let end = End::new("192.0.2.1".parse().unwrap(), 443);
        assert_eq!(end.address[..2], [0, 0]);
        assert_eq!(end.address[2], u32::from_be(0xffff));
        assert_eq!(end.address[3], u32::from_be(0xc000_0201));
        assert_eq!(end.port, 443);
        let end = End::new("::1".parse().unwrap(), 1);
        assert_eq!(end.address, [0, 0, 0, u32::from_be(1)]);
    }
}
