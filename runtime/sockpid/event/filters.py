"""Which events a user wants to see. Pure. What is cheap there is also told to the kernel, through the image's
settings.
"""

from __future__ import annotations

from sockpid.errors import UsageError
from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ipaddress
    from typing import Any, Dict, Optional, Tuple, Union

    from .event import Event

    Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class Filter(NamedTuple):
    """Conditions that an event must all meet; None: any.

    pid, comm (a shell pattern) and cgroup (a path; what lies below it counts) are the owner's, so events with an
    unknown owner do not meet them. netns: inode number. port: at either end. cidr: contains either address.
    """

    pid: Optional[int] = None
    comm: Optional[str] = None
    cgroup: Optional[str] = None
    netns: Optional[int] = None
    port: Optional[int] = None
    cidr: Optional[Network] = None

    def settings(self) -> Tuple[Tuple[str, int], ...]:
        """What the programs can check themselves."""
        checks = {"SETTING_FILTER_PID": self.pid, "SETTING_FILTER_NETNS": self.netns, "SETTING_FILTER_PORT": self.port}
        return tuple((name, value) for name, value in checks.items() if value is not None)

    def matches(self, seen: Event, document: Dict[str, Any]) -> bool:
        """`document` is the event as it will be printed, with the owner's present name and control group."""
        if self == _ANY:
            return True
        import fnmatch

        if self.pid is not None and document["pid"] != self.pid:
            return False
        if self.comm is not None and not fnmatch.fnmatchcase(document["comm"] or "", self.comm):
            return False
        if self.cgroup is not None and not _below(document.get("cgroup"), self.cgroup):
            return False
        return self.matches_socket(seen)

    def matches_socket(self, seen: Event) -> bool:
        """Those of the conditions that are not of the owner. Who asks them first need not look for it in vain."""
        t = seen.tuple
        if self.netns is not None and t.netns != self.netns:
            return False
        if self.port is not None and self.port not in (t.sport, t.dport):
            return False
        if self.cidr is None:
            return True
        import ipaddress

        return any(ipaddress.ip_address(a) in self.cidr for a in (t.saddr, t.daddr))


_ANY = Filter()


def _below(path: Optional[str], root: str) -> bool:
    return path is not None and (path + "/").startswith(root.rstrip("/") + "/")


def network(text: str) -> Network:
    """A CIDR such as "10.0.0.0/8" or a single address. A v4-mapped network is its IPv4 one. Raises UsageError."""
    import ipaddress

    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise UsageError(f"--cidr {text}: {error}") from None
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96:
        mapped = found.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network(f"{mapped}/{found.prefixlen - 96}")
    return found
