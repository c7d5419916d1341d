"""What counts as one address when something is counted by addresses."""

from __future__ import annotations

import ipaddress


def place_of(address: str) -> str:
    """The address; of IPv6 the network, as a host has as many addresses as it likes."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
