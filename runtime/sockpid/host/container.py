"""What the path of a control group says of where a process runs: container, Kubernetes pod, systemd unit. Pure.

Who makes such paths, on cgroup v1 and v2 alike:

- docker: /docker/ID, or with systemd /system.slice/docker-ID.scope
- containerd, cri-o, podman: /.../cri-containerd-ID.scope, crio-ID.scope, libpod-ID.scope, the same as plain directories
  (crio-ID, libpod_parent/libpod-ID), and containerd's SLICE:cri-containerd:ID
- kubelet: /kubepods/burstable/podUID/ID, or /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice
  (and below it ID), where the dashes of UID are written as "_"
- the monitor of a container (conmon, crio-conmon) is beside it and is not in it
"""

from __future__ import annotations

import re

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Optional

RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
}
ID = re.compile(r"(?P<before>.*?)(?P<id>[0-9a-f]{64})(?:\.scope)?$")
POD = re.compile(r"pod([0-9a-fA-F]{8}[-_](?:[0-9a-fA-F]{4}[-_]){3}[0-9a-fA-F]{12}|[0-9a-f]{32})(?:\.slice)?(?=$|:)")
UNIT = re.compile(r".+\.(?:service|scope|socket|mount|swap)$")


class Place(NamedTuple):
    """runtime: "docker", "containerd", "cri-o", "podman", or None where the path does not tell. unit: the innermost
    systemd service or scope outside of any container."""

    container_id: Optional[str] = None
    runtime: Optional[str] = None
    pod_uid: Optional[str] = None
    unit: Optional[str] = None


def place(path: str) -> Place:
    """Of one path, as in /proc/PID/cgroup behind the second colon."""
    container_id = runtime = pod_uid = unit = None
    before = ""
    for part in path.split("/"):
        found = ID.match(part)
        pod = POD.search(part)
        if found and _is_container(found.group("before")):
            # The innermost: a container that runs containers has theirs below its own.
            container_id = found.group("id")
            runtime = _runtime(found.group("before")) or RUNTIMES.get(before)
        elif container_id is None and UNIT.match(part) and not found:
            unit = _unescape(part)
        if pod:
            pod_uid = _uid(pod.group(1))
        before = part
    return Place(container_id, runtime, pod_uid, unit)


def of_process(text: str) -> Place:
    """Of /proc/PID/cgroup. Every line is looked at: with cgroup v1, not every controller needs to have the process in a
    group of its own."""
    found = Place()
    for path in _paths(text):
        found = Place(*(mine if mine is not None else theirs for mine, theirs in zip(found, place(path))))
    return found


def _paths(text: str) -> Iterable[str]:
    """cgroup v2's line first, then systemd's own hierarchy, then the others."""
    lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    lines.sort(key=lambda line: (line[0] != "0", line[1] != "name=systemd"))
    return [path for _, _, path in lines]


def _is_container(before: str) -> bool:
    return not before or (before[-1] in "-:" and "conmon" not in before)


def _runtime(before: str) -> Optional[str]:
    """Of "cri-containerd-" and "SLICE:cri-containerd:" alike."""
    return RUNTIMES.get(before[:-1].rpartition(":")[2])


def _uid(text: str) -> str:
    """The kubelet writes "_" for "-" where systemd gives dashes a meaning; static pods have a UID without any."""
    return text.replace("_", "-").lower()


def _unescape(name: str) -> str:
    r"""systemd writes bytes that may not be in a name as \xNN."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match.group(1), 16)), name)
