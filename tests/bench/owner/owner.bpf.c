// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What somebody would write by hand with CO-RE for the job that sockpid does: an LRU map of owners by the socket's
 * address, looked up first and written when the owner changes, and a line for each retransmit. It is here to be measured
 * beside sockpid. IPv4 addresses, one kernel with BTF, no seeding, no other paths than these.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "owner.h"

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport;
	__u16 skc_num;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

static __always_inline int learn(struct sock *sk)
{
	__u64 key = (__u64)sk, pid_tgid = bpf_get_current_pid_tgid();
	struct owner *known = bpf_map_lookup_elem(&owners, &key), owner = { .pid_tgid = pid_tgid };

	if (known && known->pid_tgid == pid_tgid)
		return 0;
	bpf_get_current_comm(owner.comm, sizeof(owner.comm));
	bpf_map_update_elem(&owners, &key, &owner, BPF_ANY);
	return 0;
}

SEC("fentry/tcp_connect")
int BPF_PROG(tcp_connect, struct sock *sk)
{
	return learn(sk);
}

SEC("fentry/security_sock_graft")
int BPF_PROG(tcp_accept, struct sock *sk)
{
	return learn(sk);
}

SEC("fentry/tcp_sendmsg_locked")
int BPF_PROG(tcp_sendmsg, struct sock *sk)
{
	return learn(sk);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroy, struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&owners, &key);
	return 0;
}

SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit, struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct owner *known = bpf_map_lookup_elem(&owners, &key);
	struct event event = {
		.interrupted = bpf_get_current_pid_tgid() >> 32,
		.saddr = sk->__sk_common.skc_rcv_saddr,
		.daddr = sk->__sk_common.skc_daddr,
		.sport = sk->__sk_common.skc_num,
		.dport = bpf_ntohs(sk->__sk_common.skc_dport),
	};

	if (known)
		event.owner = *known;
	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
