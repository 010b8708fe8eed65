/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's structs, as far as the programs read them. Order, gaps and everything unnamed are free: each access is a
 * CO-RE relocation that the loader resolves by name for the running kernel. What is declared here and read by a program
 * is what an offset table must carry.
 */
#ifndef SOCKPID_KERNEL_H
#define SOCKPID_KERNEL_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/*
 * The arguments of a probe, wherever they are: the loader resolves argN to the register of struct pt_regs that holds
 * the function's argument for a kprobe, and to 8 * N for a raw tracepoint and for fentry.
 */
struct probe_ctx {
	__u64 arg0;
	__u64 arg1;
	__u64 arg2;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net; /* absent with CONFIG_NET_NS=n */
} possible_net_t;

struct in6_addr {
	__u8 bytes[16];
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	unsigned char skc_state;
	int skc_bound_dev_if;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;     /* absent with CONFIG_IPV6=n */
	struct in6_addr skc_v6_rcv_saddr; /* absent with CONFIG_IPV6=n */
};

struct socket;

typedef struct {
	int owned; /* by a process (or a kernel thread), which softirq then leaves the socket's work to */
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct socket *sk_socket; /* NULL once no process holds the socket */
	__u8 sk_kern_sock : 1;    /* absent before Linux 4.11 */
	__u16 sk_type;            /* both are bit fields before Linux 5.6 */
	__u16 sk_protocol;
	void *sk_user_data;  /* of what else in the kernel works on the socket: sockmap, KCM */
	__u32 sk_allocation; /* gfp_t: how the socket's memory is had */
};

struct socket {
	struct sock *sk;
};

struct inode {
	__u64 i_ino; /* an unsigned long, for long */
};

/* A socket and its inode are one object, the socket first. */
struct socket_alloc {
	struct inode vfs_inode;
};

struct inet_sock {
	__be16 inet_sport; /* outlives skc_num, which is cleared on the way to TCP_CLOSE */
};

struct tcp_ulp_ops {
	char name[16];
};

struct inet_connection_sock {
	__u8 icsk_ca_state : 5; /* six bits before Linux 4.20 */
	__u8 icsk_retransmits;
	__u8 icsk_pending;
	const struct tcp_ulp_ops *icsk_ulp_ops;
	void *icsk_ulp_data;
};

/* What icsk_ulp_data of a subflow points at; absent with CONFIG_MPTCP=n. */
struct mptcp_subflow_context {
	struct sock *conn; /* the MPTCP socket above */
};

struct tcp_sock {
	__u32 srtt_us;
	__u32 snd_cwnd;
	__u32 total_retrans;
	__u32 undo_marker;
};

struct sk_buff {
	char cb[48];
};

struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq;
};

struct request_sock {
	struct sock_common __req_common;
};

struct task_struct {
	unsigned int flags;
	struct task_struct *group_leader;
	/*
	 * Linux kernel commit cf25e24db61c ("time: Rename tsk->real_start_time to ->start_boottime") (in v5.5):
	 * exactly one of the two exists.
	 */
	__u64 start_boottime;
	__u64 real_start_time;
	char comm[16];
};

#pragma clang attribute pop

#endif
