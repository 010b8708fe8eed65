"""What a kernel may or may not be able to do, by the names that `--deny` takes. features.py tries them."""

from __future__ import annotations

from sockpid.namedtuple import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Mapping


class Feature(NamedTuple):
    """what: the thing, for people. without: what is done where it is absent or denied."""

    what: str
    without: str


FEATURES: Mapping[str, Feature] = {
    "live-btf": Feature("the kernel's own BTF", "offsets from a table alone"),
    "lsm": Feature("programs where security modules are asked, which are never skipped", "a trampoline or a kprobe"),
    "fentry": Feature("programs on functions, by BPF trampoline", "a raw tracepoint or a kprobe"),
    "raw_tp": Feature("programs on raw tracepoints", "the tracepoint of perf, or a kprobe"),
    "tracepoint": Feature("programs on tracepoints of perf", "a kprobe"),
    "kprobe-pmu": Feature("kprobes by perf_event_open(2)", "kprobes by tracefs"),
    "kprobe-tracefs": Feature("kprobes by tracefs", "nothing"),
    "ringbuf": Feature("one ring buffer for all CPUs", "a perf buffer for each"),
    "probe_read_kernel": Feature("bpf_probe_read_kernel()", "bpf_probe_read()"),
    "probe_read": Feature("bpf_probe_read()", "nothing"),
    "task_btf": Feature("loads from bpf_get_current_task_btf()", "bpf_probe_read_kernel(), which takes longer"),
    "cgroup_id": Feature("bpf_get_current_cgroup_id()", "a cgroup id of 0"),
    "lru_hash": Feature("hash maps that make room by themselves", "plain ones that sockpid trims"),
    "obj_name": Feature("names of maps and programs", "no names"),
}
