//! Where a peer is, as far as it cannot choose that itself.

use std::net::IpAddr;

/// What counts as one place: an address of IPv4; of IPv6 a network of 64 bits, since whoever has one address of it has all.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The network around one that [`network_of`] has told: of IPv4 the 256 addresses that begin alike, of IPv6 a network of 48 bits.
pub fn wider_network_of(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv4_is_a_place_and_of_ipv6_half_of_one() {
        for (address, network) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let [address, network] = [address, network].map(|text| text.parse().expect("an address"));
            assert_eq!(network_of(address), network);
        }
    }
}
