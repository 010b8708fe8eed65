// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A program that is not sockpid's and finds owners in its pinned map. All it knows of sockpid is sockpid.h: it declares
 * the kernel's structs itself, has its own relocations resolved by libbpf, and is loaded by bpftool.
 *
 * For each retransmit, in softirq context, it builds the socket's tuple, looks it up, and writes down what it found and
 * which process was interrupted. Compile: clang -g -O2 -target bpf -I bpf_bytecode
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "sockpid.h"

#define AF_INET 2
#define AF_INET6 10
#define FOUND_MAX 1024
#define LOOKS 3

struct in6_addr___local {
	__u8 bytes[16];
};

struct net___local {
	struct {
		unsigned int inum;
	} ns;
} __attribute__((preserve_access_index));

struct sock_common___local {
	struct {
		struct net___local *net;
	} skc_net;
	unsigned short skc_family;
	unsigned short skc_num;
	int skc_bound_dev_if;
	__u16 skc_dport;
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	struct in6_addr___local skc_v6_daddr;
	struct in6_addr___local skc_v6_rcv_saddr;
} __attribute__((preserve_access_index));

struct sock___local {
	struct sock_common___local __sk_common;
} __attribute__((preserve_access_index));

/* Given by bpftool: `map name socket_to_pid pinned DIR/v2/socket_to_pid`. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct socket_tuple);
	__type(value, struct socket_owner);
} socket_to_pid SEC(".maps");

struct found_owner {
	struct socket_owner owner; /* all zero: not known */
	__u64 interrupted;         /* bpf_get_current_pid_tgid() */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FOUND_MAX);
	__type(key, struct socket_tuple);
	__type(value, struct found_owner);
} found SEC(".maps");

static __always_inline void read_tuple(struct socket_tuple *tuple, const struct sock___local *sk)
{
	const __u32 mapped = bpf_htonl(0xffff);
	__u32 daddr[4], saddr[4];

	tuple->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	tuple->ifindex = BPF_CORE_READ(sk, __sk_common.skc_bound_dev_if);
	tuple->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	tuple->sport = BPF_CORE_READ(sk, __sk_common.skc_num);
	tuple->dport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (tuple->family == AF_INET) {
		BPF_CORE_READ_INTO(&daddr[0], sk, __sk_common.skc_daddr);
		BPF_CORE_READ_INTO(&saddr[0], sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(tuple->daddr, daddr, 4);
		__builtin_memcpy(tuple->saddr, saddr, 4);
		return;
	}
	BPF_CORE_READ_INTO(&daddr, sk, __sk_common.skc_v6_daddr);
	BPF_CORE_READ_INTO(&saddr, sk, __sk_common.skc_v6_rcv_saddr);
	if (daddr[0] == 0 && daddr[1] == 0 && daddr[2] == mapped) {
		tuple->family = AF_INET;
		__builtin_memcpy(tuple->daddr, &daddr[3], 4);
		__builtin_memcpy(tuple->saddr, &saddr[3], 4);
		return;
	}
	__builtin_memcpy(tuple->daddr, daddr, 16);
	__builtin_memcpy(tuple->saddr, saddr, 16);
}

/*
 * Copies a value out, and says whether the copy is whole and that of this key: while it is read, the element may be given
 * to another one.
 */
static __always_inline int copy_owner(struct socket_owner *copy, const struct socket_tuple *key,
				      const struct socket_owner *value)
{
	__u64 words[sizeof(*key) / 8], seal = SEAL_SEED, *of_copy = (__u64 *)copy;

	__builtin_memcpy(copy, value, sizeof(*copy));
	barrier(); /* or parts may be read from the element once more */
	__builtin_memcpy(words, key, sizeof(words));
#pragma unroll
	for (unsigned int i = 0; i < sizeof(words) / 8; i++)
		seal = seal_word(seal, words[i]);
#pragma unroll
	for (unsigned int i = 0; i < __builtin_offsetof(struct socket_owner, seal) / 8; i++)
		seal = seal_word(seal, of_copy[i]);
	return seal == copy->seal;
}

SEC("raw_tp/tcp_retransmit_skb")
int on_retransmit(struct bpf_raw_tracepoint_args *ctx)
{
	struct found_owner entry = {};
	struct socket_tuple tuple = {};
	struct socket_owner *owner;

	read_tuple(&tuple, (const struct sock___local *)ctx->args[0]);
#pragma unroll
	for (int i = 0; i < LOOKS; i++) {
		owner = bpf_map_lookup_elem(&socket_to_pid, &tuple);
		if (!owner || copy_owner(&entry.owner, &tuple, owner))
			break;
		__builtin_memset(&entry.owner, 0, sizeof(entry.owner));
	}
	entry.interrupted = bpf_get_current_pid_tgid();
	bpf_map_update_elem(&found, &tuple, &entry, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
