"""The systemd unit and what belongs to it, as text."""

from __future__ import annotations

NAME = "sockpid.service"

UNIT = """\
[Unit]
Description=Owners of TCP retransmits
Documentation=man:sockpid(8)

[Service]
Type={type}
EnvironmentFile=-/etc/default/sockpid
ExecStart={python} -I -S {bundle} run --json --config --keep $SOCKPID_OPTIONS
{reload}# Signs of life come from the loop that reads the events.
WatchdogSec=30
TimeoutStopSec=10
Restart=on-failure
RestartSec=5
# What another try cannot mend: see "exit status" in sockpid(8).
RestartPreventExitStatus=2 4 5 6 8 11 12 13 16
RuntimeDirectory=sockpid
StateDirectory=sockpid
LogsDirectory=sockpid
UMask=0077

# CAP_BPF, CAP_PERFMON: to load the programs. CAP_NET_ADMIN: for the filter that makes sockets of the self-check deaf.
# CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH: to find the owners of the sockets that exist already. As soon as it has attached,
# sockpid gives up all that it no longer needs.
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
LimitMEMLOCK=infinity

ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
# Maps are pinned on bpffs, and kprobes of kernels before 4.17 are made in tracefs. Not all of /sys/fs/bpf: systemd 252
# has that path among the tunables it protects, and then it stays read-only.
ReadWritePaths=-/sys/fs/bpf/sockpid -/sys/kernel/tracing -/sys/kernel/debug/tracing
KeyringMode=private
LockPersonality=yes
{write_execute}RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service bpf perf_event_open
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

TMPFILES = """\
# Where the service pins its maps, and where further offset tables are looked for.
d /sys/fs/bpf/sockpid 0700 root root -
d /etc/sockpid/offsets.d 0755 root root -
"""

WRAPPER = """\
#!/bin/sh
exec {python} -I -S {bundle} "$@"
"""

CAPABILITIES = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
BEFORE_CAP_BPF = ("CAP_SYS_ADMIN",)
"""What kernels that do not know CAP_BPF and CAP_PERFMON want in their place."""


NOTIFY_RELOAD = 253
"""The version of systemd that brought Type=notify-reload. An older one takes a type that it does not know for none."""


def unit(python: str, bundle: str, knows_cap_bpf: bool = True, systemd: int = 0) -> str:
    """The unit of a bundle, to be run by a Python. systemd: its version, 0: not known."""
    by_type = systemd >= NOTIFY_RELOAD
    capabilities = CAPABILITIES if knows_cap_bpf else (*BEFORE_CAP_BPF, *CAPABILITIES[2:])
    return UNIT.format(
        type="notify-reload" if by_type else "notify",
        reload="" if by_type else "ExecReload=/bin/kill -HUP $MAINPID\n",
        write_execute=""
        if "pypy" in python
        else "MemoryDenyWriteExecute=yes\n",  # its compiler writes what it executes
        python=python,
        bundle=bundle,
        capabilities=" ".join(capabilities),
    )
