"""Fields of real kernels that tests read: more of them, and odder ones, than the images need."""

from __future__ import annotations

from typing import Dict

from sockpid.arch import Arch
from sockpid.table.layout import Wanted

_FIELDS: Dict[str, str] = {
    "struct sock": """
        __sk_common.skc_daddr __sk_common.skc_rcv_saddr __sk_common.skc_dport __sk_common.skc_num
        __sk_common.skc_family __sk_common.skc_state __sk_common.skc_net.net __sk_common.skc_v6_daddr
        __sk_common.skc_v6_rcv_saddr __sk_common.skc_cookie __sk_common.skc_reuse
        sk_protocol sk_type sk_socket sk_kern_sock sk_err sk_uid sk_gone
    """,
    "struct inet_connection_sock": "icsk_ca_state icsk_pending icsk_retransmits icsk_rto icsk_ca_priv icsk_ca_ops",
    "struct inet_sock": "inet_sport inet_saddr inet_num sk.__sk_common.skc_portpair",
    "struct tcp_sock": "srtt_us snd_cwnd bytes_sent bytes_retrans is_mptcp is_sack_reneg rack.mstamp",
    "struct net": "ns.inum net_cookie ipv4.tcp_death_row ipv6.sysctl.hdr",
    "struct task_struct": """
        flags group_leader start_boottime real_start_time comm tgid pid exit_code signal
        thread_info thread_pid se.load.weight sched_reset_on_fork mm
    """,
    "struct socket": "sk type state file",
    "struct socket_alloc": "vfs_inode.i_ino vfs_inode.i_mode",
    "struct sk_buff": "len cb sk cloned nohdr pkt_type ip_summed",
    "struct tcp_skb_cb": "seq end_seq tcp_flags sacked header.h4.opt.faddr",
    "struct pid": "numbers[0].nr level",
    "struct sockaddr_in6": "sin6_addr.in6_u.u6_addr32[3]",
    "union nf_inet_addr": "ip6 in6.in6_u.u6_addr8[15]",
    "enum tcp_ca_state": "TCP_CA_Open TCP_CA_Loss TCP_CA_Gone",
    "enum sockpid_no_such_enum": "A",
    "struct sockpid_no_such_struct": "a",
}


def wanted(arch: Arch) -> Wanted:
    """The fields above, and the argument registers of `arch`."""
    fields = {name: frozenset(paths.split()) for name, paths in _FIELDS.items()}
    return {**fields, "struct pt_regs": frozenset((*arch.args, "regs[99]"))}
