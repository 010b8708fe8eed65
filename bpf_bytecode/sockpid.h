/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs and user space share: the maps' keys and values, and the record in the events map.
 *
 * struct socket_tuple, struct process and struct socket_owner are public: other programs look owners up in the pinned map
 * socket_to_pid (docs/socket-to-pid.md). Their layout changes only with SOCKPID_ABI.
 *
 * Every struct has the same layout on all architectures: no implicit padding, no pointers, no longs. Integers are in the
 * byte order of the machine, ports included; addresses are in network order, an IPv4 address being the first four
 * bytes. A v4-mapped IPv6 socket has family AF_INET and IPv4 addresses.
 */
#ifndef SOCKPID_H
#define SOCKPID_H

#include <linux/types.h>

#define SOCKPID_ABI 2
#define TASK_COMM_LEN 16
#define ULP_NAME_LEN 16
#define USERS_MAX 6

enum how {
	HOW_UNKNOWN = 0,
	HOW_CONNECT = 1,
	HOW_ACCEPT = 2,
	HOW_SEND = 3,
	HOW_RECV = 4,
	HOW_LISTEN = 5,
	HOW_SEED = 6,
	HOW_KERNEL = 7, /* only kernel threads have used the socket */
	HOW_SHUTDOWN = 8,
};

/* Key of socket_to_pid. A listening socket has no remote end: daddr and dport are 0. */
struct socket_tuple {
	__u32 netns;   /* inode number of the network namespace, 0 without CONFIG_NET_NS */
	__u32 ifindex; /* of the device the socket is bound to, 0: none. Two sockets may differ in nothing else */
	__u16 family;  /* AF_INET or AF_INET6 */
	__u16 sport;   /* local port; 0: not chosen yet */
	__u16 dport;   /* remote port */
	__u16 zero;
	__u8 saddr[16];
	__u8 daddr[16];
};

/* A process as it was when it used a socket. */
struct process {
	__u64 pid_tgid;  /* as bpf_get_current_pid_tgid(): process id << 32 | thread id; 0 with HOW_KERNEL */
	__u64 start_ns;  /* when the process started, CLOCK_BOOTTIME; with the process id, names it for ever */
	__u64 when_ns;   /* when it was seen, CLOCK_MONOTONIC */
	__u64 cgroup_id; /* on the cgroup v2 hierarchy, 0 where the kernel cannot tell */
	__u32 how;       /* enum how */
	__u32 flags;     /* task_struct.flags */
	char comm[TASK_COMM_LEN];
};

/* Flags of an owner. */
#define OWNER_LATE (1 << 0)   /* the socket was not seen to begin: who used it before is not known */
#define OWNER_LENT (1 << 2)   /* the kernel works with it for others: who was seen to send need not have it */
#define OWNER_SHARED (1 << 1) /* of socket_to_pid alone: another socket has, or had, the same key (SO_REUSEPORT) */

/*
 * The elements of an LRU map are not freed as other memory is: one that was evicted or deleted may hold the value of
 * another key a moment later, while a program still looks at it. So values are copied out, and what a copy is worth is
 * told by its last word: a hash of all the others. Nothing is ever written in place.
 *
 * Start with SEAL_SEED, and give each word of 64 bits in turn.
 */
#define SEAL_SEED 0x9e3779b97f4a7c15ULL

static inline __attribute__((always_inline)) __u64 seal_word(__u64 seal, __u64 word)
{
	seal = (seal + word) * 0xd6e8feb86659fd93ULL;
	return seal ^ seal >> 32;
}

/* Value of socket_to_pid. */
struct socket_owner {
	struct process latest;
	__u64 sk;    /* address of the struct sock; 0: from before sockpid started, found in /proc */
	__u64 inode; /* of the socket, as in /proc/PID/fd; 0: not known */
	__u32 users; /* how many different processes were seen to use it; more than USERS_MAX: at least so many */
	__u32 flags; /* OWNER_... */
	__u64 seal;  /* over the key and all of the above */
};

/* The opener of a socket: who was seen to use it first. */
struct opener {
	__u64 start_ns;
	__u32 tgid;
	__u32 how;
	char comm[TASK_COMM_LEN];
};

/* Value of owner_by_sock; its key is the address of the struct sock. */
struct owner {
	struct socket_owner entry; /* what socket_to_pid is told; the inode and the address name the socket for ever */
	struct opener first;
	struct socket_tuple tuple;
	__u64 users[USERS_MAX]; /* the first different processes, each by a hash of process id and start */
	__u64 seal;             /* over all of the above, entry.seal being 0 */
};

enum event_type {
	EVENT_RETRANSMIT = 0, /* tcp_retransmit_skb: data, FIN or SYN */
	EVENT_SYNACK = 1,     /* tcp_retransmit_synack: the owner is the listening socket's */
};

/* How the probe found the owner. */
enum found {
	FOUND_NOT = 0,
	FOUND_SOCK = 1,  /* by the socket's address */
	FOUND_MSK = 2,   /* by the address of the MPTCP socket above */
};

/* One record of the events map: a ring buffer, or a perf buffer per CPU. */
struct event {
	__u64 ts_ns; /* CLOCK_MONOTONIC */
	__u64 sk;
	__u64 interrupted; /* bpf_get_current_pid_tgid() in the probe: not the owner */
	struct owner owner; /* all zero: unknown */
	struct socket_tuple tuple;
	__u64 inode;     /* of the socket, as in /proc/PID/fd; 0: no process holds it any more */
	__s32 err;       /* 0, or a negative errno of a retransmit that failed (Linux 6.17 and later) */
	__u32 seq;       /* first sequence number of the segment, 0 if there is none to tell of */
	__u32 end_seq;   /* behind its last one */
	__u32 srtt_us;   /* smoothed round trip time in microseconds, times 8 */
	__u32 snd_cwnd;  /* segments */
	__u32 total_retrans; /* segments retransmitted in the socket's life, this one included */
	__u32 undo_marker; /* 0: what is in doubt is not the network's congestion */
	__u32 owned;     /* sk_lock.owned: 0 wherever softirq has the socket */
	__u8 type;       /* enum event_type */
	__u8 found;      /* enum found */
	__u8 state;      /* TCP_ESTABLISHED... */
	__u8 ca_state;   /* enum tcp_ca_state */
	__u8 pending;    /* icsk_pending: ICSK_TIME_... */
	__u8 retransmits; /* icsk_retransmits: timeouts in a row before this one */
	__u8 kern;        /* the kernel opened the socket for itself */
	__u8 stale;       /* an owner was there, of an earlier socket at this address: its end was not seen */
	char ulp[ULP_NAME_LEN]; /* upper layer protocol: "tls", "mptcp"; empty for plain TCP */
};

/* Value of exec_names, by process id: what a process was called when it executed a program. */
struct exec_name {
	__u64 start_ns; /* when the process started, to tell it from others of that id */
	__u64 when_ns;  /* when it executed the program, CLOCK_MONOTONIC */
	char comm[TASK_COMM_LEN];
};

/* Key of exited; the value is when its first thread ended, CLOCK_MONOTONIC. */
struct exited_key {
	__u64 start_ns;
	__u32 tgid;
	__u32 zero;
};

/* Key of the counts map, which replaces the events map where only sums are asked for; the value is a u64. */
struct count_key {
	struct socket_tuple tuple;
	__u64 start_ns;
	__u64 inode;
	__u32 tgid; /* 0: unknown */
	__u32 zero;
	char comm[TASK_COMM_LEN];
};

/* Indices of the counters map; one u64 per CPU each. */
enum counter {
	COUNTER_EVENTS = 0,   /* events raised, after the filters */
	COUNTER_LOST = 1,     /* of these, records that did not fit into the events or the counts map */
	COUNTER_INSERTED = 2, /* sockets that got their first entry in owner_by_sock */
	COUNTER_DELETED = 3,  /* of these, taken out when the socket was destroyed; the rest is there or was evicted */
	COUNTER_STALE = 4,    /* owners of earlier sockets at the address of another, found and not believed */
	COUNTER_FIRED = 8,    /* and up: runs of each hook's program for what it is there for (short ways out excepted) */
	COUNTER_MAX = 40,
};

#endif
