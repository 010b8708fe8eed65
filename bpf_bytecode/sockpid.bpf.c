// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Remembers which process uses a TCP socket while that process is `current`, and looks it up when the kernel retransmits
 * in softirq context, where `current` is whatever the timer interrupted.
 *
 * One program serves every way of attaching it. The loader resolves the context (struct probe_ctx) and the settings
 * (enum setting) like any other relocation. Everything is inlined: kernels before 4.16 know no calls between functions.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#include "kernel.h"
#include "sockpid.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define TCP_SYN_SENT 2
#define PF_KTHREAD 0x00200000

/* What the loader decides. The values here are never used: each is a relocation, and the loader has no default. */
enum setting {
	SETTING_SET_STATE = 1,      /* tcp_connect hangs on inet_sock_set_state(sk, oldstate, newstate) */
	SETTING_RETRANSMIT_ERR = 2, /* tcp_retransmit has the error of the attempt as third argument */
	SETTING_CGROUP_ID = 3,      /* the kernel has bpf_get_current_cgroup_id() */
};

#define setting(name) bpf_core_enum_value(enum setting, SETTING_##name)

/* Reads a field of a kernel struct into dst, which must be zero: the kernel's field may be smaller (a 32-bit pointer). */
#define read_field(dst, src, field) \
	bpf_probe_read_kernel((dst), bpf_core_field_size((src)->field), &(src)->field)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct owner);
} owner_by_sock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct socket_tuple);
	__type(value, struct process);
} socket_to_pid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
}

static __always_inline int is_v4_mapped(const __u8 *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return word[0] == 0 && word[1] == 0 && word[2] == bpf_htonl(0xffff);
}

/* The IPv4 address of a v4-mapped one, in place. */
static __always_inline void unmap(__u8 *addr)
{
	__u32 *word = (__u32 *)addr;

	word[0] = word[3];
	word[1] = 0;
	word[2] = 0;
	word[3] = 0;
}

static __always_inline void read_netns(__u32 *inum, const struct sock *sk)
{
	__u64 net = 0;

	if (!bpf_core_field_exists(sk->__sk_common.skc_net.net))
		return;
	read_field(&net, sk, __sk_common.skc_net.net);
	read_field(inum, (const struct net *)net, ns.inum);
}

/* Fills a zeroed tuple. */
static __always_inline void read_tuple(struct socket_tuple *tuple, const struct sock *sk)
{
	__u16 dport = 0;

	read_field(&tuple->family, sk, __sk_common.skc_family);
	read_field(&tuple->sport, sk, __sk_common.skc_num);
	read_field(&dport, sk, __sk_common.skc_dport);
	tuple->dport = bpf_ntohs(dport);
	read_netns(&tuple->netns, sk);
	if (tuple->family == AF_INET6 && bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		read_field(tuple->daddr, sk, __sk_common.skc_v6_daddr);
		read_field(tuple->saddr, sk, __sk_common.skc_v6_rcv_saddr);
		if (is_v4_mapped(tuple->daddr)) {
			tuple->family = AF_INET;
			unmap(tuple->daddr);
			unmap(tuple->saddr);
		}
		return;
	}
	read_field(tuple->daddr, sk, __sk_common.skc_daddr);
	read_field(tuple->saddr, sk, __sk_common.skc_rcv_saddr);
}

/* When the process of a task started, CLOCK_BOOTTIME; *leader is set on the way. */
static __always_inline __u64 process_start(const struct task_struct *task, __u64 *leader)
{
	__u64 start = 0;

	read_field(leader, task, group_leader);
	task = (const struct task_struct *)*leader;
	if (bpf_core_field_exists(task->start_boottime))
		read_field(&start, task, start_boottime);
	else
		read_field(&start, task, real_start_time);
	return start;
}

/*
 * Writes the owner of sk: current, unless that is a kernel thread working for a process that is known already. The slow
 * path of all hooks that learn.
 */
static __always_inline int learn(__u64 sk, const struct owner *known, enum how how)
{
	const struct task_struct *task = (const struct task_struct *)bpf_get_current_task();
	struct owner owner = {};
	__u64 leader = 0;
	__u64 protocol = BPF_CORE_READ_BITFIELD_PROBED((const struct sock *)sk, sk_protocol);

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP)
		return 0;
	read_field(&owner.latest.flags, task, flags);
	if (owner.latest.flags & PF_KTHREAD) {
		if (known)
			return 0;
		how = HOW_KERNEL;
	}
	owner.latest.pid_tgid = bpf_get_current_pid_tgid();
	owner.latest.start_ns = process_start(task, &leader);
	owner.latest.when_ns = bpf_ktime_get_ns();
	owner.latest.how = how;
	if (setting(CGROUP_ID))
		owner.latest.cgroup_id = bpf_get_current_cgroup_id();
	/* The process's name, not the thread's: io_uring's workers are called after what they are. */
	read_field(owner.latest.comm, (const struct task_struct *)leader, comm);
	read_tuple(&owner.tuple, (const struct sock *)sk);
	if (owner.tuple.sport)
		owner.task = (__u64)task;
	if (known && known->first.how != HOW_KERNEL) {
		owner.first = known->first;
		owner.changes = known->changes;
		if (known->latest.pid_tgid >> 32 != owner.latest.pid_tgid >> 32 ||
		    known->latest.start_ns != owner.latest.start_ns)
			owner.changes++;
		/* A socket can be disconnected and connected elsewhere. */
		if (known->tuple.sport != owner.tuple.sport || known->tuple.dport != owner.tuple.dport) {
			struct socket_tuple old = known->tuple;

			bpf_map_delete_elem(&socket_to_pid, &old);
		}
	} else {
		owner.first = owner.latest;
	}
	bpf_map_update_elem(&owner_by_sock, &sk, &owner, BPF_ANY);
	if (owner.tuple.sport)
		bpf_map_update_elem(&socket_to_pid, &owner.tuple, &owner.latest, BPF_ANY);
	return 0;
}

SEC("probe/tcp_sendmsg")
int tcp_sendmsg(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0;
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u64 task = bpf_get_current_task();
	struct owner *known = bpf_map_lookup_elem(&owner_by_sock, &sk);
	__u64 leader = 0;

	if (known) {
		/* The task's address guards against a process id that was given to another process. */
		if (known->task == task && known->latest.pid_tgid == pid_tgid)
			return 0;
		/* Another thread of the same process: note the thread in place. */
		if (known->task && known->latest.pid_tgid >> 32 == pid_tgid >> 32 &&
		    known->latest.start_ns == process_start((const struct task_struct *)task, &leader)) {
			known->latest.pid_tgid = pid_tgid;
			known->task = task;
			return 0;
		}
	}
	return learn(sk, known, HOW_SEND);
}

SEC("probe/tcp_connect")
int tcp_connect(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0;

	if (setting(SET_STATE) && (int)ctx->arg2 != TCP_SYN_SENT)
		return 0;
	return learn(sk, bpf_map_lookup_elem(&owner_by_sock, &sk), HOW_CONNECT);
}

SEC("probe/tcp_destroy")
int tcp_destroy(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0;
	struct owner *known = bpf_map_lookup_elem(&owner_by_sock, &sk);

	if (known) {
		struct socket_tuple tuple = known->tuple;

		bpf_map_delete_elem(&socket_to_pid, &tuple);
		bpf_map_delete_elem(&owner_by_sock, &sk);
	}
	return 0;
}

SEC("probe/tcp_retransmit")
int tcp_retransmit(struct probe_ctx *ctx)
{
	const struct inet_connection_sock *icsk;
	const struct sock *sk;
	struct event event = {};
	struct owner *known;

	event.ts_ns = bpf_ktime_get_ns();
	event.interrupted = bpf_get_current_pid_tgid();
	event.sk = ctx->arg0;
	if (setting(RETRANSMIT_ERR))
		event.err = (__s32)ctx->arg2;
	sk = (const struct sock *)event.sk;
	icsk = (const struct inet_connection_sock *)sk;
	known = bpf_map_lookup_elem(&owner_by_sock, &event.sk);
	if (known)
		event.owner = *known;
	read_tuple(&event.tuple, sk);
	read_field(&event.state, sk, __sk_common.skc_state);
	event.ca_state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	read_field(&event.pending, icsk, icsk_pending);
	count(COUNTER_EVENTS);
	if (bpf_ringbuf_output(&events, &event, sizeof(event), 0))
		count(COUNTER_LOST);
	return 0;
}

/* Keeps the record's type in the object's BTF, from which the image takes its layout. */
const struct event *record_type __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
