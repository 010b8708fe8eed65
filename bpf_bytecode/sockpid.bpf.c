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
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define PF_KTHREAD 0x00200000

/* What the loader decides. The values here are never used: each is a relocation, and the loader has no default. */
enum setting {
	SETTING_SET_STATE = 1,      /* the program hangs on inet_sock_set_state(sk, oldstate, newstate) */
	SETTING_RETRANSMIT_ERR = 2, /* tcp_retransmit_skb has the error of the attempt as third argument */
	SETTING_RETURN = 3,         /* what to return: 1 on a tracepoint of perf, where 0 hides the event from its other users */
	SETTING_COUNT = 4,          /* sum in the counts map instead of writing records */
	SETTING_FILTER_PID = 5,     /* only events of this process, or of unknown owners; 0: all */
	SETTING_FILTER_NETNS = 6,   /* only of this network namespace; 0: all */
	SETTING_FILTER_PORT = 7,    /* only with this port at either end; 0: all */
	SETTING_TASK_BTF = 8,       /* the kernel lets programs load fields of the current task */
	SETTING_SETTLED_MASK = 9,   /* entries of the map settled, a power of two, less one */
	SETTING_HOW = 10,           /* enum how: what a process does when it comes here */
	SETTING_STATE = 11,         /* with SETTING_SET_STATE, the new state for which the program is */
	SETTING_BEGINS = 12,        /* here a connection begins: its owner is learnt anew, whatever was known of the socket */
};

#define setting(name) bpf_core_enum_value(enum setting, SETTING_##name)

/*
 * Calls that the kernel does not have never reach it. The loader puts bpf_probe_read() in place of
 * bpf_probe_read_kernel(), and 0 in place of bpf_get_current_cgroup_id() and of one of the two outputs.
 */

/* Reads a field of a kernel struct into dst, which must be zero: the kernel's field may be smaller (a 32-bit pointer). */
#define read_field(dst, src, field) \
	bpf_probe_read_kernel((dst), bpf_core_field_size((src)->field), &(src)->field)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct owner);
} owner_by_sock SEC(".maps");

/* One word for each socket, or for some that share a place, see settled_word(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, __u64);
} settled SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct socket_tuple);
	__type(value, struct process);
} socket_to_pid SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct count_key);
	__type(value, __u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct exec_name);
} exec_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Or a BPF_MAP_TYPE_PERF_EVENT_ARRAY, where the loader finds no ring buffer. */
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

/*
 * The verifier follows every branch to the end, unless what comes behind was proved for a state that is no narrower. So what
 * can be calculated is not branched on: that makes loading several times as fast.
 */

/* 1 for 0, and 0 for any other value of 32 bits. The compiler is not to see what it is: it would branch. */
static __always_inline __u64 is_zero(__u64 value)
{
	barrier_var(value);
	value = (value - 1) >> 63;
	barrier_var(value);
	return value;
}

/* All ones for 0, and 0 for any other value of 32 bits. */
static __always_inline __u64 ones_if_zero(__u64 value)
{
	return -is_zero(value);
}

/* The address as a number to calculate with. To fentry programs it is a pointer, which the verifier lets be negated. */
static __always_inline __u64 number(__u64 sk)
{
	asm volatile("%0 = -%0\n%0 = -%0" : "+r"(sk));
	return sk;
}

static __always_inline void read_netns(__u32 *inum, const struct sock *sk)
{
	__u64 net = 0;

	if (!bpf_core_field_exists(sk->__sk_common.skc_net.net))
		return;
	read_field(&net, sk, __sk_common.skc_net.net);
	read_field(inum, (const struct net *)net, ns.inum);
}

/*
 * Reads an address of a socket from where it is, reduced to what it is: all 16 bytes of an IPv6 address, or the first 4. What
 * stands behind those is read and not taken: old kernels let a program read no number of bytes that it calculates.
 */
static __always_inline void read_address(__u32 *word, __u64 from, __u32 is_v6)
{
	bpf_probe_read_kernel(word, 16, (const void *)from);
	word[1] &= -is_v6;
	word[2] &= -is_v6;
	word[3] &= -is_v6;
}

/* Makes an IPv4 address of a v4-mapped one, in place; is_mapped: 1, or 0 to do nothing. */
static __always_inline void unmap(__u32 *word, __u32 is_mapped)
{
	word[0] |= word[3] & -is_mapped;
	word[2] &= is_mapped - 1;
	word[3] &= is_mapped - 1;
}

/* Fills a zeroed tuple. */
static __always_inline void read_tuple(struct socket_tuple *tuple, const struct sock *sk)
{
	__u32 *saddr = (__u32 *)tuple->saddr, *daddr = (__u32 *)tuple->daddr;
	__u64 saddr_at = bpf_core_field_offset(sk->__sk_common.skc_rcv_saddr);
	__u64 daddr_at = bpf_core_field_offset(sk->__sk_common.skc_daddr);
	__u64 at = number((__u64)sk), is_v6 = 0, is_mapped;
	__u16 dport = 0;

	read_field(&tuple->family, sk, __sk_common.skc_family);
	read_field(&tuple->sport, sk, __sk_common.skc_num);
	read_field(&dport, sk, __sk_common.skc_dport);
	tuple->dport = bpf_ntohs(dport);
	read_netns(&tuple->netns, sk);
	if (bpf_core_field_exists(sk->__sk_common.skc_v6_daddr)) {
		is_v6 = is_zero(tuple->family ^ AF_INET6);
		saddr_at += (bpf_core_field_offset(sk->__sk_common.skc_v6_rcv_saddr) - saddr_at) * is_v6;
		daddr_at += (bpf_core_field_offset(sk->__sk_common.skc_v6_daddr) - daddr_at) * is_v6;
	}
	read_address(saddr, at + saddr_at, is_v6);
	read_address(daddr, at + daddr_at, is_v6);
	is_mapped = is_zero(daddr[0] | daddr[1] | (daddr[2] ^ bpf_htonl(0xffff)));
	tuple->family ^= (AF_INET6 ^ AF_INET) * is_mapped;
	unmap(saddr, is_mapped);
	unmap(daddr, is_mapped);
}

/* When a task started, CLOCK_BOOTTIME. */
static __always_inline __u64 task_start(const struct task_struct *task)
{
	__u64 start = 0;

	if (bpf_core_field_exists(task->start_boottime))
		read_field(&start, task, start_boottime);
	else
		read_field(&start, task, real_start_time);
	return start;
}

/* The task that stands for the process of a task. */
static __always_inline const struct task_struct *group_leader(const struct task_struct *task)
{
	__u64 leader = 0;

	read_field(&leader, task, group_leader);
	return (const struct task_struct *)leader;
}

/*
 * Looking a socket up among the owners is most of what a send would cost, and nearly every send is by the thread that sent
 * before. So that is remembered in one word, at a place that the socket's address gives: "the owner of this socket is
 * settled, and it is this thread". The word is a hash of 57 bits; the six bits below count uses, and when they run over
 * the word is another one: each USES uses the owner is looked up, which tells the LRU that it is in use, and finds out when
 * it was evicted.
 *
 * The word may stand only while owner_by_sock says the same. Who makes an owner writes the word first, then the owner, then
 * takes the word back unless it is still there; who makes it without a word, or removes it, clears the word behind that. So
 * when two processes use a socket at once on two CPUs, the word of the one that lost does not stay.
 */
#define USES 64
#define SPREAD 0x9e3779b97f4a7c15ULL

static __always_inline __u64 *settled_place(__u64 sk)
{
	__u32 place = (number(sk) * SPREAD >> 32) & setting(SETTLED_MASK);

	return bpf_map_lookup_elem(&settled, &place);
}

/* Never the 0 of an empty place. pid_tgid and start_ns are the thread's: together they name it for ever. */
static __always_inline __u64 settled_word(__u64 sk, __u64 pid_tgid, __u64 start_ns)
{
	__u64 mixed = ((number(sk) ^ start_ns) * SPREAD ^ pid_tgid) * 0xd6e8feb86659fd93ULL;

	return (mixed | 1ULL << 63) & ~(__u64)(USES - 1);
}

static __always_inline void unsettle(__u64 sk)
{
	__u64 *place = settled_place(sk);

	if (place)
		*place = 0;
}

/* Notes a process among the users of a socket. For 0, of a socket that has none, this does nothing. */
static __always_inline void note_user(struct owner *owner, __u32 tgid)
{
	__u64 users = owner->users, noted = 0;

#pragma unroll
	for (int i = 0; i < USERS_MAX; i++) {
		__u64 seen = owner->tgids[i], is_free;

		noted |= is_zero(seen ^ tgid);
		is_free = is_zero(seen | noted);
		owner->tgids[i] = seen | (tgid & -is_free);
		users += is_free;
		noted |= is_free;
	}
	/* If no place was left, more than those. */
	owner->users = users + (USERS_MAX + 1 - users) * (1 - noted);
}

/*
 * Writes the owner of sk: current, unless that is a kernel thread working for a process that is known already. The slow
 * path of all hooks that learn. Returns whether that settles the owner, until another process uses the socket.
 */
static __always_inline int learn(__u64 sk, const struct owner *known)
{
	const struct task_struct *task = (const struct task_struct *)bpf_get_current_task();
	const struct task_struct *leader;
	struct socket_tuple old = {};
	struct owner owner = {};
	__u64 protocol = BPF_CORE_READ_BITFIELD_PROBED((const struct sock *)sk, sk_protocol);
	__u64 is_process, moved;

	/* The two differ in one bit. */
	if ((protocol & ~(__u64)(IPPROTO_MPTCP ^ IPPROTO_TCP)) != IPPROTO_TCP)
		return 0;
	read_field(&owner.latest.flags, task, flags);
	if (known) {
		if (owner.latest.flags & PF_KTHREAD)
			return 0;
		owner.first = known->first;
		owner.users = known->users;
		__builtin_memcpy(owner.tgids, known->tgids, sizeof(owner.tgids));
		old = known->tuple;
	} else {
		count(COUNTER_INSERTED);
	}
	barrier(); /* or the verifier remembers what the flags were */
	is_process = is_zero(owner.latest.flags & PF_KTHREAD);
	/* Which of its threads the kernel used is no answer to who owns the socket. */
	owner.latest.pid_tgid = bpf_get_current_pid_tgid() & -is_process;
	owner.latest.how = setting(HOW) * is_process + HOW_KERNEL * (1 - is_process);
	leader = group_leader(task);
	owner.latest.start_ns = task_start(leader);
	owner.latest.when_ns = bpf_ktime_get_ns();
	owner.latest.cgroup_id = bpf_get_current_cgroup_id();
	/* The process's name, not the thread's: io_uring's workers are called after what they are. */
	read_field(owner.latest.comm, leader, comm);
	read_tuple(&owner.tuple, (const struct sock *)sk);
	owner.task_start_ns = task_start(task) & ~ones_if_zero(owner.tuple.sport);
	/* That only kernel threads have used it so far is nothing to keep. */
	if (is_zero(owner.first.how) | is_zero(owner.first.how ^ HOW_KERNEL))
		owner.first = owner.latest;
	/* A socket can be disconnected and connected elsewhere. */
	moved = (old.sport ^ owner.tuple.sport) | (old.dport ^ owner.tuple.dport);
	if (moved & ~ones_if_zero(old.sport))
		bpf_map_delete_elem(&socket_to_pid, &old);
	note_user(&owner, owner.latest.pid_tgid >> 32);
	if (bpf_map_update_elem(&owner_by_sock, &sk, &owner, BPF_ANY))
		return 0;
	if (!owner.tuple.sport)
		return 0;
	bpf_map_update_elem(&socket_to_pid, &owner.tuple, &owner.latest, BPF_ANY);
	return is_process;
}

/* When the current thread started. */
static __always_inline __u64 current_start(void)
{
	if (setting(TASK_BTF))
		return bpf_get_current_task_btf()->start_boottime;
	return task_start((const struct task_struct *)bpf_get_current_task());
}

/*
 * All hooks that learn an owner. Where a connection begins the slow path is the only one; a send or receive of a thread that
 * is known takes the short way out.
 */
SEC("probe/tcp_use")
int tcp_use(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0, pid_tgid, start_ns, word, *place = settled_place(sk);
	struct owner *known;
	int is_settled = 1;

	if (!place)
		return setting(RETURN);
	pid_tgid = bpf_get_current_pid_tgid();
	start_ns = current_start();
	word = settled_word(sk, pid_tgid, start_ns);
	if (setting(BEGINS)) {
		if (setting(SET_STATE) && (int)ctx->arg2 != (int)setting(STATE))
			return setting(RETURN);
	} else {
		__u64 seen = *place;

		if ((seen ^ word) < USES) {
			__sync_fetch_and_add(place, 1);
			return setting(RETURN);
		}
		/*
		 * Puts the word there, and is a memory barrier where a store is none. If somebody else comes between, it is
		 * no word.
		 */
		__sync_fetch_and_add(place, word - seen);
	}
	known = bpf_map_lookup_elem(&owner_by_sock, &sk);
	if (!setting(BEGINS) && known && known->task_start_ns && known->latest.pid_tgid >> 32 == pid_tgid >> 32) {
		if (known->latest.pid_tgid == pid_tgid && known->task_start_ns == start_ns)
			return setting(RETURN);
		if (known->latest.pid_tgid != pid_tgid && known->latest.start_ns ==
		    task_start(group_leader((const struct task_struct *)bpf_get_current_task()))) {
			/* Another thread of the same process: note it in place. */
			known->latest.pid_tgid = pid_tgid;
			known->task_start_ns = start_ns;
			goto noted;
		}
	}
	is_settled = learn(sk, known);
noted:
	if (setting(BEGINS) || !is_settled || (*place ^ word) >= USES)
		*place = 0;
	return setting(RETURN);
}

static __always_inline void forget(__u64 sk, const struct owner *known)
{
	struct socket_tuple tuple = known->tuple;

	bpf_map_delete_elem(&socket_to_pid, &tuple);
	bpf_map_delete_elem(&owner_by_sock, &sk);
	count(COUNTER_DELETED);
	unsettle(sk);
}

SEC("probe/tcp_destroy")
int tcp_destroy(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0;
	struct owner *known = bpf_map_lookup_elem(&owner_by_sock, &sk);

	if (known)
		forget(sk, known);
	else
		unsettle(sk);
	return setting(RETURN);
}

/*
 * Every socket enters TCP_CLOSE, and nothing is retransmitted from there. For two kinds it is the only end that is seen:
 * MPTCP sockets, which are destroyed in a way of their own, and those that are in socket_to_pid alone, seeded ones and those
 * whose entry was evicted, whose addresses and ports may be gone when they are destroyed (tcp_disconnect() clears them).
 */
SEC("probe/tcp_set_state")
int tcp_set_state(struct probe_ctx *ctx)
{
	__u64 second = ctx->arg1, third = ctx->arg2;
	struct socket_tuple tuple = {};
	__u64 sk = ctx->arg0;
	struct owner *known;
	__u16 sport = 0;

	/* Both are loaded first: the verifier takes no address that is chosen from two places in the context. */
	barrier_var(second);
	barrier_var(third);
	if ((int)(setting(SET_STATE) ? third : second) != TCP_CLOSE)
		return setting(RETURN);
	known = bpf_map_lookup_elem(&owner_by_sock, &sk);
	if (known) {
		forget(sk, known);
		return setting(RETURN);
	}
	unsettle(sk);
	read_tuple(&tuple, (const struct sock *)sk);
	read_field(&sport, (const struct inet_sock *)sk, inet_sport);
	tuple.sport = bpf_ntohs(sport);
	bpf_map_delete_elem(&socket_to_pid, &tuple);
	return setting(RETURN);
}

/* A process that executes another program keeps its sockets and its process id, but not its name. */
SEC("probe/sched_process_exec")
int sched_process_exec(struct probe_ctx *ctx)
{
	const struct task_struct *leader = group_leader((const struct task_struct *)bpf_get_current_task());
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct exec_name name = {};

	(void)ctx;
	name.start_ns = task_start(leader);
	read_field(name.comm, leader, comm);
	bpf_map_update_elem(&exec_names, &tgid, &name, BPF_ANY);
	return setting(RETURN);
}

/* Fills in the owner of sk, which is in softirq context most of the time: current plays no part. */
static __always_inline void find_owner(struct event *event, const struct sock *sk, const struct socket_tuple *key)
{
	struct owner *known = bpf_map_lookup_elem(&owner_by_sock, &event->sk);
	const struct owner *opened = known;
	struct process *seeded;
	__u64 socket = 0, msk = 0;

	event->found = FOUND_SOCK;
	/*
	 * The socket that processes hold of an MPTCP connection is another than the one that TCP works on, and it is the one
	 * they are seen to use. What TCP's own was connected by is the better knowledge only if it is newer.
	 */
	read_field(&socket, sk, sk_socket);
	if (socket)
		read_field(&msk, (const struct socket *)socket, sk);
	if (msk && msk != event->sk) {
		struct owner *above = bpf_map_lookup_elem(&owner_by_sock, &msk);

		if (above && (!known || known->latest.how == HOW_KERNEL || above->latest.when_ns > known->latest.when_ns)) {
			if (!known || known->first.how == HOW_KERNEL || above->first.when_ns < known->first.when_ns)
				opened = above;
			known = above;
			event->found = FOUND_MSK;
		}
	}
	if (known) {
		event->latest = known->latest;
		if (opened)
			event->first = opened->first;
		event->users = known->users;
		return;
	}
	seeded = bpf_map_lookup_elem(&socket_to_pid, key);
	event->found = FOUND_NOT;
	if (seeded) {
		event->latest = *seeded;
		event->first = *seeded;
		event->users = 1;
		event->found = FOUND_TUPLE;
	}
}

static __always_inline int filtered(const struct event *event)
{
	__u64 pid = setting(FILTER_PID), netns = setting(FILTER_NETNS), port = setting(FILTER_PORT);

	if (pid && event->found && event->latest.pid_tgid >> 32 != pid)
		return 1;
	if (netns && event->tuple.netns != netns)
		return 1;
	return port && event->tuple.sport != port && event->tuple.dport != port;
}

static __always_inline void add_count(const struct event *event)
{
	struct count_key key = {};
	__u64 one = 1, *value;

	key.tuple = event->tuple;
	if (event->latest.how != HOW_KERNEL) {
		key.tgid = event->latest.pid_tgid >> 32;
		key.start_ns = event->latest.start_ns;
		__builtin_memcpy(key.comm, event->latest.comm, sizeof(key.comm));
	}
	value = bpf_map_lookup_elem(&counts, &key);
	if (value)
		__sync_fetch_and_add(value, 1);
	else if (bpf_map_update_elem(&counts, &key, &one, BPF_NOEXIST))
		count(COUNTER_LOST);
}

static __always_inline void submit(struct probe_ctx *ctx, struct event *event)
{
	if (filtered(event))
		return;
	count(COUNTER_EVENTS);
	if (setting(COUNT))
		add_count(event);
	else if (bpf_ringbuf_output(&events, event, sizeof(*event), 0) ||
		 bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, event, sizeof(*event)))
		count(COUNTER_LOST);
}

static __always_inline void begin_event(struct event *event, struct probe_ctx *ctx, enum event_type type)
{
	event->ts_ns = bpf_ktime_get_ns();
	event->interrupted = bpf_get_current_pid_tgid();
	event->sk = ctx->arg0;
	event->type = type;
}

static __always_inline void read_socket(struct event *event, const struct sock *sk)
{
	const struct inet_connection_sock *icsk = (const struct inet_connection_sock *)sk;
	const struct tcp_sock *tp = (const struct tcp_sock *)sk;
	__u64 socket = 0, ulp = 0;

	read_field(&event->state, sk, __sk_common.skc_state);
	event->ca_state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	read_field(&event->pending, icsk, icsk_pending);
	read_field(&event->retransmits, icsk, icsk_retransmits);
	read_field(&event->srtt_us, tp, srtt_us);
	read_field(&event->snd_cwnd, tp, snd_cwnd);
	read_field(&event->total_retrans, tp, total_retrans);
	event->kern = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock);
	read_field(&socket, sk, sk_socket);
	if (socket)
		read_field(&event->inode, (const struct socket_alloc *)socket, vfs_inode.i_ino);
	if (bpf_core_field_exists(icsk->icsk_ulp_ops)) {
		read_field(&ulp, icsk, icsk_ulp_ops);
		if (ulp)
			read_field(event->ulp, (const struct tcp_ulp_ops *)ulp, name);
	}
}

SEC("probe/tcp_retransmit")
int tcp_retransmit(struct probe_ctx *ctx)
{
	struct event event = {};
	const struct sock *sk;
	__u64 skb = ctx->arg1;

	begin_event(&event, ctx, EVENT_RETRANSMIT);
	sk = (const struct sock *)event.sk;
	if (setting(RETRANSMIT_ERR))
		event.err = (__s32)ctx->arg2;
	read_tuple(&event.tuple, sk);
	find_owner(&event, sk, &event.tuple);
	read_socket(&event, sk);
	if (skb) {
		const struct tcp_skb_cb *cb = (const void *)(skb + bpf_core_field_offset(((struct sk_buff *)skb)->cb));

		read_field(&event.seq, cb, seq);
		read_field(&event.end_seq, cb, end_seq);
	}
	submit(ctx, &event);
	return setting(RETURN);
}

/* The socket is the listening one; the connection exists only as a request. */
SEC("probe/tcp_retransmit_synack")
int tcp_retransmit_synack(struct probe_ctx *ctx)
{
	const struct request_sock *req;
	struct socket_tuple listener = {};
	struct event event = {};
	const struct sock *sk;

	begin_event(&event, ctx, EVENT_SYNACK);
	sk = (const struct sock *)event.sk;
	req = (const struct request_sock *)ctx->arg1;
	read_tuple(&listener, sk);
	find_owner(&event, sk, &listener);
	read_tuple(&event.tuple, (const struct sock *)&req->__req_common);
	event.tuple.netns = listener.netns;
	event.state = TCP_SYN_RECV;
	submit(ctx, &event);
	return setting(RETURN);
}

/* Keeps the record's type in the object's BTF, from which the image takes its layout. */
const struct event *record_type __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
