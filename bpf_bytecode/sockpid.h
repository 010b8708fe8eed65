/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs and user space share: the maps' keys and values, and the record in the ring buffer.
 *
 * Every struct has the same layout on all architectures: no implicit padding, no pointers, no longs. Integers are in the
 * byte order of the machine, ports included; addresses are in network order, an IPv4 address being the first four
 * bytes. A v4-mapped IPv6 socket has family AF_INET and IPv4 addresses.
 */
#ifndef SOCKPID_H
#define SOCKPID_H

#include <linux/types.h>

#define TASK_COMM_LEN 16

enum how {
	HOW_UNKNOWN = 0,
	HOW_CONNECT = 1,
	HOW_ACCEPT = 2,
	HOW_SEND = 3,
	HOW_RECV = 4,
	HOW_LISTEN = 5,
	HOW_SEED = 6,
	HOW_KERNEL = 7, /* only kernel threads have used the socket */
};

/* Key of socket_to_pid. */
struct socket_tuple {
	__u32 netns;  /* inode number of the network namespace, 0 without CONFIG_NET_NS */
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 sport;  /* local port; 0: not chosen yet */
	__u16 dport;  /* remote port */
	__u16 zero;
	__u8 saddr[16];
	__u8 daddr[16];
};

/* A process as it was when it used a socket. Value of socket_to_pid. */
struct process {
	__u64 pid_tgid;  /* as bpf_get_current_pid_tgid(): process id << 32 | thread id */
	__u64 start_ns;  /* when the process started, CLOCK_BOOTTIME; with the process id, names it for ever */
	__u64 when_ns;   /* when it was seen, CLOCK_MONOTONIC */
	__u64 cgroup_id; /* on the cgroup v2 hierarchy, 0 where the kernel cannot tell */
	__u32 how;       /* enum how */
	__u32 flags;     /* task_struct.flags */
	char comm[TASK_COMM_LEN];
};

/*
 * Value of owner_by_sock; its key is the address of the struct sock. What every send compares stands together, in one
 * cache line.
 */
struct owner {
	__u64 task; /* address of latest's task_struct; 0 while the tuple has no port yet: then nothing is settled */
	struct process latest;
	struct process first;
	struct socket_tuple tuple;
	__u32 changes; /* how often the owner became another process */
};

/* One record of the ring buffer. */
struct event {
	__u64 ts_ns; /* CLOCK_MONOTONIC */
	__u64 sk;
	__u64 interrupted; /* bpf_get_current_pid_tgid() in the probe: not the owner */
	struct owner owner; /* all zero: unknown */
	struct socket_tuple tuple;
	__s32 err; /* 0, or a negative errno of a retransmit that failed (Linux 6.17 and later) */
	__u8 state;    /* TCP_ESTABLISHED... */
	__u8 ca_state; /* enum tcp_ca_state */
	__u8 pending;  /* icsk_pending: ICSK_TIME_... */
	__u8 zero[5];
};

/* Indices of the counters map; one u64 per CPU each. */
enum counter {
	COUNTER_EVENTS = 0, /* retransmits seen */
	COUNTER_LOST = 1,   /* of these, records that did not fit into the ring buffer */
	COUNTER_MAX = 2,
};

#endif
