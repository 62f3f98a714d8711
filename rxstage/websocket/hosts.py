"""The names that a server is asked by: whether a `Host` header is one of its own."""

from __future__ import annotations

from ipaddress import ip_address

__all__ = ["host_of", "is_loopback", "knows"]


def host_of(header: str) -> str | None:
    """The name or address in a `Host` header, without the port; None where there is none."""
    name = header.strip().lower()
    if name.startswith("["):
        name, bracket, rest = name[1:].partition("]")
        return name if bracket and (not rest or rest.startswith(":")) else None
    name, _, port = name.partition(":")
    return name.rstrip(".") if name and (not port or port.isdecimal()) else None


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def knows(header: str, names: tuple[str, ...], host: str) -> bool:
    """Whether a `Host` header is one of a server's own.

    An address is, as nobody can make one lead elsewhere; but one of another machine is not where only this machine can
    reach the server.

    Args:
        header: its value.
        names: of the server, beside `localhost` and `host`.
        host: the address that it listens on.
    """
    name = host_of(header)
    if name is None:
        return False
    if name in {own.lower().rstrip(".") for own in ("localhost", host, *names)}:
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or not is_loopback(host)
