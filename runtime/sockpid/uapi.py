"""Constants of the kernel's user space interface, under the kernel's names. A test compares them with BTF."""

from __future__ import annotations

# enum bpf_cmd (include/uapi/linux/bpf.h)
BPF_MAP_CREATE = 0
BPF_MAP_LOOKUP_ELEM = 1
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_DELETE_ELEM = 3
BPF_MAP_GET_NEXT_KEY = 4
BPF_PROG_LOAD = 5
BPF_OBJ_GET_INFO_BY_FD = 15
BPF_RAW_TRACEPOINT_OPEN = 17
BPF_BTF_GET_FD_BY_ID = 19
BPF_BTF_GET_NEXT_ID = 23
BPF_MAP_UPDATE_BATCH = 26
BPF_ENABLE_STATS = 32

# enum bpf_map_type
BPF_MAP_TYPE_HASH = 1
BPF_MAP_TYPE_ARRAY = 2
BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4
BPF_MAP_TYPE_PERCPU_ARRAY = 6
BPF_MAP_TYPE_LRU_HASH = 9
BPF_MAP_TYPE_RINGBUF = 27
BPF_MAP_TYPE_USER_RINGBUF = 31

# enum bpf_prog_type
BPF_PROG_TYPE_SOCKET_FILTER = 1
BPF_PROG_TYPE_KPROBE = 2
BPF_PROG_TYPE_TRACEPOINT = 5
BPF_PROG_TYPE_RAW_TRACEPOINT = 17
BPF_PROG_TYPE_TRACING = 26
BPF_PROG_TYPE_LSM = 29

# enum bpf_attach_type
BPF_TRACE_FENTRY = 24
BPF_LSM_MAC = 27

# flags of BPF_MAP_UPDATE_ELEM
BPF_ANY = 0
BPF_NOEXIST = 1

# enum bpf_func_id, as far as the images call them: number by name
BPF_FUNC = {
    "bpf_map_lookup_elem": 1,
    "bpf_map_update_elem": 2,
    "bpf_map_delete_elem": 3,
    "bpf_probe_read": 4,
    "bpf_ktime_get_ns": 5,
    "bpf_get_current_pid_tgid": 14,
    "bpf_perf_event_output": 25,
    "bpf_get_current_task": 35,
    "bpf_get_current_cgroup_id": 80,
    "bpf_probe_read_kernel": 113,
    "bpf_ringbuf_output": 130,
    "bpf_get_current_task_btf": 158,
}

BPF_OBJ_NAME_LEN = 16

# ring buffer record header (enum in include/uapi/linux/bpf.h)
BPF_RINGBUF_BUSY_BIT = 1 << 31
BPF_RINGBUF_DISCARD_BIT = 1 << 30
BPF_RINGBUF_HDR_SZ = 8

# include/uapi/linux/perf_event.h: enums perf_type_id, perf_sw_ids, perf_event_sample_format and perf_event_type,
# flags of perf_event_open, ioctls
PERF_TYPE_SOFTWARE = 1
PERF_TYPE_TRACEPOINT = 2
PERF_COUNT_SW_BPF_OUTPUT = 10
PERF_SAMPLE_RAW = 1 << 10
PERF_RECORD_LOST = 2
PERF_RECORD_SAMPLE = 9
PERF_FLAG_FD_CLOEXEC = 1 << 3
PERF_ATTR_SIZE_VER5 = 112
# The ioctl numbers of most architectures; powerpc differs (arch/powerpc/include/uapi/asm/ioctl.h).
PERF_EVENT_IOC_ENABLE = 0x2400
PERF_EVENT_IOC_SET_BPF = 0x40042408

# include/uapi/linux/capability.h
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_NET_ADMIN = 12
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
CAP_PERFMON = 38
CAP_BPF = 39

# include/uapi/asm-generic/socket.h, include/uapi/linux/filter.h
SO_NO_CHECK = 11
SO_ATTACH_FILTER = 26
SO_BINDTODEVICE = 25  # Python has no name for it everywhere
BPF_RET_K = 0x06

# enum in include/net/tcp_states.h, in order from 1
TCP_STATES = (
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)
TCP_SYN_SENT = 2
TCP_LISTEN = 10

# enum tcp_ca_state (include/uapi/linux/tcp.h)
TCP_CA_Open = 0
TCP_CA_Disorder = 1
TCP_CA_CWR = 2
TCP_CA_Recovery = 3
TCP_CA_Loss = 4

# include/uapi/linux/tcp.h
TCP_THIN_LINEAR_TIMEOUTS = 16
TCP_REPAIR = 19
TCP_REPAIR_QUEUE = 20
TCP_QUEUE_SEQ = 21
TCP_SEND_QUEUE = 2

# include/net/inet_connection_sock.h
ICSK_TIME_LOSS_PROBE = 5

# include/uapi/linux/sockios.h
SIOCGSKNS = 0x894C

# include/uapi/linux/sched.h
CLONE_NEWNET = 0x40000000

# enum kcmp_type (include/uapi/linux/kcmp.h)
KCMP_FILES = 2

# enum bpf_cmd: pinning, and the flag of BPF_OBJ_GET that asks for reading only (include/uapi/linux/bpf.h)
BPF_OBJ_PIN = 6
BPF_OBJ_GET = 7
BPF_F_RDONLY = 1 << 3
