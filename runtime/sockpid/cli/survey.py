"""What can be read of the running kernel for a request: nothing that names the host, its users or its traffic."""

from __future__ import annotations

import os
import re
import zlib
from typing import Dict, FrozenSet, Iterable, Tuple

from sockpid.bpf import kernel_btf, tracefs
from sockpid.host import kernel
from sockpid.image import hooks
from sockpid.request import request

CONFIG = (
    "NET_NS", "IPV6", "MPTCP", "TLS", "SMP", "PREEMPT_RT", "SECURITY_NETWORK", "TIME_NS", "RANDSTRUCT",
    "GCC_PLUGIN_RANDSTRUCT", "DEBUG_INFO_BTF", "BPF_SYSCALL", "BPF_JIT", "BPF_EVENTS", "KPROBES", "KPROBE_EVENTS",
    "FTRACE_SYSCALLS", "MEMCG", "CGROUPS", "INET_DIAG", "KALLSYMS_ALL",
)  # fmt: skip
"""Options that move fields or decide about a mechanism."""

FORMATS = ("tcp/tcp_retransmit_skb", "tcp/tcp_retransmit_synack", "sock/inet_sock_set_state")


def survey() -> request.Request:
    """The request of this host. Whatever cannot be read is said to be unknown, with the reason. Raises SyscallError."""
    identity = kernel.identify()
    symbols = _symbols()
    functions = sorted(hooks.functions())
    tracepoints = sorted({t.name for hook in hooks.HOOKS for t in hook.targets if t.kind == "raw_tp"})
    facts = [
        ("os", _os_release()),
        ("page-size", str(os.sysconf("SC_PAGESIZE"))),
        ("config", _config(identity.release)),
        ("btf", "yes" if os.path.exists(kernel_btf.PATH) else "not visible"),
        ("functions", _there(functions, symbols, ("{}",))),
        ("not-there", _there(functions, symbols, ("{}",), False)),
        ("raw-tracepoints", _there(tracepoints, symbols, ("__tracepoint_{}", "__traceiter_{}", "__bpf_trace_{}"))),
        *(("format", f"{name} {_format(name)}") for name in FORMATS),
    ]
    banner = identity.banner
    return request.Request(
        identity.build_id,
        identity.release,
        identity.arch.name,
        request.without_builder(banner),
        request.digest(banner),
        tuple(facts),
    )


def _symbols() -> FrozenSet[str]:
    """The names in kallsyms, which are there even where kptr_restrict hides the addresses. Empty: it cannot be read."""
    try:
        with open("/proc/kallsyms", encoding="ascii", errors="replace") as file:
            return frozenset(line.split(None, 3)[2] for line in file)
    except (OSError, IndexError):
        return frozenset()


def _there(names: Iterable[str], symbols: FrozenSet[str], forms: Tuple[str, ...], there: bool = True) -> str:
    if not symbols:
        return "unknown: /proc/kallsyms cannot be read"
    return " ".join(n for n in names if any(form.format(n) in symbols for form in forms) is there) or "none"


def _config(release: str) -> str:
    """The options of CONFIG that are set. A file's absence is common."""
    places = ["/proc/config.gz"]
    places += [f.format(release) for f in ("/boot/config-{}", "/lib/modules/{}/config", "/usr/lib/modules/{}/config")]
    for path in places:
        try:
            with open(path, "rb") as file:
                content = file.read()
            if path.endswith(".gz"):
                content = zlib.decompress(content, zlib.MAX_WBITS | 16)
        except (OSError, zlib.error):
            continue
        text = content.decode("ascii", "replace")
        found: Dict[str, str] = dict(re.findall(r"^CONFIG_(\w+)=([ym])$", text, re.MULTILINE))
        return " ".join(f"{name}={found.get(name, 'n')}" for name in CONFIG)
    return "unknown: no file with it"


def _os_release() -> str:
    """Distribution and version, as os-release(5) has them."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = dict(re.findall(r"^(ID|VERSION_ID)=[\"']?([\w.+-]+)", file.read(), re.MULTILINE))
        except OSError:
            continue
        return " ".join(found[key] for key in ("ID", "VERSION_ID") if key in found) or "unknown"
    return "unknown"


def _format(name: str) -> str:
    """Fields of a tracepoint's record, name:offset:size each."""
    reason = "no tracefs"
    for root in tracefs.MOUNTS:
        try:
            with open(f"{root}/events/{name}/format", encoding="ascii", errors="replace") as file:
                rows = re.findall(r"field:[^;]*?(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);", file.read())
        except OSError as error:
            reason = str(error.strerror)
            continue
        return " ".join(":".join(row) for row in rows)
    return f"unknown: {reason}"
