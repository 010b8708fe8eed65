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
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define PF_KTHREAD 0x00200000
#define GFP_KIND 0xff  /* include/linux/gfp_types.h: the zone and the waiting, at these bits since long before Linux 4.9 */
#define GFP_IO_FS 0xc0 /* __GFP_IO | __GFP_FS, of GFP_KERNEL */
#define SK_USER_DATA_BPF 2 /* include/net/sock.h: a place in a group of SO_REUSEPORT sockets */

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
	SETTING_SOCKET = 13,        /* the first argument is a struct socket */
	SETTING_ARG_BTF = 14,       /* the verifier knows its type: its fields can be loaded */
	SETTING_LOCKED = 15,        /* a process that comes here holds the socket's lock; softirq that does, does not */
	SETTING_OPTION = 16,        /* only with this as third argument, an option of IPPROTO_TCP; 0: all */
	SETTING_HOOK = 17,          /* the hook's number: what COUNTER_FIRED is counted by */
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
	__type(value, struct socket_owner);
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
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct exited_key);
	__type(value, __u64);
} exited SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Or a BPF_MAP_TYPE_PERF_EVENT_ARRAY, where the loader finds no ring buffer. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 21);
} events SEC(".maps");

static __always_inline void count_many(__u32 counter, __u64 many)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += many;
}

static __always_inline void count(__u32 counter)
{
	count_many(counter, 1);
}

static __always_inline void fired(void)
{
	count(COUNTER_FIRED + setting(HOOK));
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
	if (bpf_core_field_exists(sk->__sk_common.skc_bound_dev_if))
		read_field(&tuple->ifindex, sk, __sk_common.skc_bound_dev_if);
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
 * Looking a socket up among the owners is most of what a send would cost, and nearly every send is by the process that
 * sent before. So that is remembered in one word, at a place that the socket's address gives: "the owner of this socket is
 * settled, and it is this process". The word is a hash, whose lowest eight bits are not compared: they count uses, and when
 * they run over the word is another one. So at least each USES uses the owner is looked up, which tells the LRU that it is
 * in use, finds out when it was evicted, and brings it up to date.
 *
 * The word may stand only while owner_by_sock says the same. Who makes an owner writes the word first, then the owner, then
 * takes the word back unless it is still there; who makes it without a word, or removes it, clears the word behind that. So
 * when two processes use a socket at once on two CPUs, the word of the one that lost does not stay.
 */
#define USES 256
#define SPREAD 0x9e3779b97f4a7c15ULL
#define RENEW_NS 10000000 /* an owner that is younger is not written anew: two sockets may share a place */

/* sk: as a number. */
static __always_inline __u64 *settled_place(__u64 sk)
{
	__u32 place = (sk * SPREAD >> 32) & setting(SETTLED_MASK);

	return bpf_map_lookup_elem(&settled, &place);
}

/* A process's id and its start name it for ever. */
static __always_inline __u64 settled_word(__u64 sk, __u32 tgid, __u64 start_ns)
{
	return ((sk ^ start_ns) * SPREAD ^ tgid) * 0xd6e8feb86659fd93ULL;
}

static __always_inline void unsettle(__u64 sk)
{
	__u64 *place = settled_place(number(sk));

	if (place)
		*place = 0;
}

static __always_inline __u64 owner_seal(const struct owner *owner)
{
	const __u64 *word = (const __u64 *)owner;
	__u64 seal = SEAL_SEED;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*owner) / 8 - 1); i++)
		seal = seal_word(seal, word[i]);
	return seal;
}

static __always_inline __u64 public_seal(const struct socket_tuple *key, const struct socket_owner *value)
{
	const __u64 *word = (const __u64 *)key;
	__u64 seal = SEAL_SEED;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*key) / 8); i++)
		seal = seal_word(seal, word[i]);
	word = (const __u64 *)value;
#pragma unroll
	for (int i = 0; i < (int)(sizeof(*value) / 8 - 1); i++)
		seal = seal_word(seal, word[i]);
	return seal;
}

/* 0 for two equal numbers of 64 bits, 1 for others. */
static __always_inline __u64 differ(__u64 one, __u64 other)
{
	__u64 by = one ^ other, minus = -by;

	barrier_var(minus);
	by = (by | minus) >> 63;
	barrier_var(by);
	return by;
}

/*
 * 0, of which the verifier does not know that it is. What is set to it, and then perhaps copied over, looks the same to the
 * verifier either way, so that it follows the rest of the program once.
 */
static __always_inline __u64 nothing(void)
{
	__u64 one = bpf_ktime_get_ns(), other = one;

	barrier_var(other);
	return one ^ other;
}

/* Keeps an owner, or empties it; keep: 1 or 0. */
static __always_inline void keep_owner(struct owner *owner, __u64 keep)
{
	__u64 *word = (__u64 *)owner;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*owner) / 8); i++)
		word[i] &= -keep;
}

/*
 * Copies the owner of a socket out of the map, over one that is empty or not wanted. Returns 1 for one that is whole and
 * the socket's own; 0 for none, and for a copy into which the map came with the value of another socket.
 */
static __always_inline __u64 copy_owner(struct owner *copy, __u64 sk)
{
	const struct owner *known = bpf_map_lookup_elem(&owner_by_sock, &sk);

	if (known)
		__builtin_memcpy(copy, known, sizeof(*copy));
	return 1 - (differ(copy->entry.sk, number(sk)) | differ(copy->seal, owner_seal(copy)));
}

static __always_inline void empty_owner(struct owner *owner)
{
	__u64 *word = (__u64 *)owner, zero = nothing();

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*owner) / 8); i++)
		word[i] = zero;
}

/* Notes a process among the users of a socket. For 0, of a socket that has none, this does nothing. */
static __always_inline void note_user(struct owner *owner, __u64 process)
{
	__u64 users = owner->entry.users, noted = 0;

#pragma unroll
	for (int i = 0; i < USERS_MAX; i++) {
		__u64 seen = owner->users[i], is_free;

		noted |= 1 - differ(seen, process);
		is_free = 1 - (differ(seen, 0) | noted);
		owner->users[i] = seen | (process & -is_free);
		users += is_free;
		noted |= is_free;
	}
	/* If no place was left, more than those. */
	owner->entry.users = users + (USERS_MAX + 1 - users) * (1 - noted);
}

/* Takes a socket out of socket_to_pid, unless the entry is another socket's. sk 0: a seed's, too. */
static __always_inline void unpublish(const struct socket_tuple *tuple, __u64 sk, int seeded)
{
	const struct socket_owner *value = bpf_map_lookup_elem(&socket_to_pid, tuple);

	if (value && (value->sk == number(sk) || (seeded && !value->sk)))
		bpf_map_delete_elem(&socket_to_pid, tuple);
}

/* Tells other programs whose a socket is. What is written is that part of the owner, which is changed for it. */
static __always_inline void publish(struct owner *owner)
{
	/* Of several sockets that listen on one address and port, nobody can tell by these who will answer. */
	if (!owner->tuple.dport) {
		const struct socket_owner *other = bpf_map_lookup_elem(&socket_to_pid, &owner->tuple);

		if (other && (other->sk != owner->entry.sk || other->flags & OWNER_SHARED))
			owner->entry.flags |= OWNER_SHARED;
	}
	owner->entry.seal = public_seal(&owner->tuple, &owner->entry);
	bpf_map_update_elem(&socket_to_pid, &owner->tuple, &owner->entry, BPF_ANY);
}

/*
 * Whether an owner may be learnt from what happens to a socket here; 0 if so. Only of a TCP stream: sockets of other kinds
 * have other lives, and protocol 6 is also that of a raw socket, and of a netlink one. Not in softirq context, where
 * current is whoever was interrupted, and not of a socket that the kernel opened for itself, whoever makes it work on that;
 * but who accepts a connection has it. And not of a dead socket, whose addresses may be another's by now.
 */
static __always_inline __u64 not_learnable(const struct sock *sk)
{
	__u64 bad, is_accept = is_zero(setting(HOW) ^ HOW_ACCEPT);
	__u16 family = 0;
	__u32 owned = 0;
	__u8 state = 0;

	read_field(&family, sk, __sk_common.skc_family);
	read_field(&state, sk, __sk_common.skc_state);
	/* Both pairs differ in one bit. */
	bad = (family & ~(AF_INET6 ^ AF_INET)) ^ AF_INET;
	bad |= (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_protocol) & ~(__u64)(IPPROTO_MPTCP ^ IPPROTO_TCP)) ^ IPPROTO_TCP;
	bad |= BPF_CORE_READ_BITFIELD_PROBED(sk, sk_type) ^ SOCK_STREAM;
	if (bpf_core_field_exists(sk->sk_kern_sock))
		bad |= BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock) & (1 - is_accept);
	if (!setting(BEGINS))
		bad |= is_zero(state ^ TCP_CLOSE);
	if (setting(LOCKED) && bpf_core_field_exists(sk->sk_lock.owned)) {
		read_field(&owned, sk, sk_lock.owned);
		bad |= is_zero(owned);
	}
	return bad;
}

/* The inode of a struct socket; 0 for none. */
static __always_inline __u64 inode_of(__u64 socket)
{
	__u64 inode = 0;

	if (socket)
		read_field(&inode, (const struct socket_alloc *)socket, vfs_inode.i_ino);
	return inode;
}

static __always_inline __u64 socket_of(const struct sock *sk)
{
	__u64 socket = 0;

	read_field(&socket, sk, sk_socket);
	return socket;
}

/* Makes the latest process the opener, if there was none. That only kernel threads have used it so far is nothing to keep. */
static __always_inline void open_by_latest(struct owner *owner)
{
	__u64 keep = -(1 - (is_zero(owner->first.how) | is_zero(owner->first.how ^ HOW_KERNEL)));
	__u64 *comm = (__u64 *)owner->first.comm, *latest = (__u64 *)owner->entry.latest.comm;

	owner->first.start_ns = (owner->first.start_ns & keep) | (owner->entry.latest.start_ns & ~keep);
	owner->first.tgid = (owner->first.tgid & keep) | ((owner->entry.latest.pid_tgid >> 32) & ~keep);
	owner->first.how = (owner->first.how & keep) | (owner->entry.latest.how & ~keep);
	comm[0] = (comm[0] & keep) | (latest[0] & ~keep);
	comm[1] = (comm[1] & keep) | (latest[1] & ~keep);
}

/*
 * Writes the owner of sk: current, unless that is a kernel thread working for a process that is known already. The slow
 * path of all hooks that learn. Returns whether that settles the owner, until another process uses the socket.
 */
static __always_inline __u64 learn(__u64 sk, __u64 start_ns)
{
	const struct task_struct *task = (const struct task_struct *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
	__u64 inode = inode_of(socket_of((const struct sock *)sk));
	__u64 is_process, is_known, is_same, is_new, moved;
	struct socket_tuple tuple = {};
	struct owner owner;
	__u64 lent = 0;
	__u32 flags = 0, gfp = 0;
	__u8 state = 0;

	empty_owner(&owner);
	is_known = copy_owner(&owner, sk);
	is_new = differ(owner.entry.sk, number(sk));
	/* An owner with another inode is that of an earlier socket, whose end was not seen. */
	is_known &= 1 - differ(owner.entry.inode, inode);
	keep_owner(&owner, is_known);
	read_field(&flags, task, flags);
	is_process = is_zero(flags & PF_KTHREAD);
	if (is_known & (1 - is_process))
		return 0;
	is_same = 1 - (differ(owner.entry.latest.pid_tgid >> 32, pid_tgid >> 32) | differ(owner.entry.latest.start_ns, start_ns));
	is_same &= is_known & (1 - is_zero(owner.tuple.sport));
	if (!setting(BEGINS) && is_same && now - owner.entry.latest.when_ns < RENEW_NS)
		return 1;
	count_many(COUNTER_INSERTED, is_new);
	read_field(&state, (const struct sock *)sk, __sk_common.skc_state);
	read_tuple(&tuple, (const struct sock *)sk);
	/* A socket can be disconnected and connected elsewhere. */
	moved = (owner.tuple.sport ^ tuple.sport) | (owner.tuple.dport ^ tuple.dport);
	if (moved & ~ones_if_zero(owner.tuple.sport))
		unpublish(&owner.tuple, sk, 0);
	owner.tuple = tuple;
	owner.entry.sk = number(sk);
	owner.entry.inode = inode;
	if (!setting(BEGINS))
		owner.entry.flags |= (1 - is_known) * OWNER_LATE;
	owner.entry.flags &= ~OWNER_LENT;
	/* Here data of another socket comes by, too, that a BPF program (sockmap) or KCM sends on by this one. */
	if ((setting(LOCKED) || setting(SOCKET)) && !setting(BEGINS) &&
	    bpf_core_field_exists(((const struct sock *)sk)->sk_user_data)) {
		read_field(&lent, (const struct sock *)sk, sk_user_data);
		owner.entry.flags |= differ(lent & ~(__u64)SK_USER_DATA_BPF, 0) * OWNER_LENT;
	}
	/*
	 * What sends for others in the name of whoever reads or writes something above it (a block device, a file system) must
	 * not wait for these while it has memory made free: sockets of processes allocate as GFP_KERNEL says.
	 */
	if (bpf_core_field_exists(((const struct sock *)sk)->sk_allocation)) {
		read_field(&gfp, (const struct sock *)sk, sk_allocation);
		owner.entry.flags |= differ(gfp & GFP_KIND, GFP_IO_FS) * OWNER_LENT;
	}
	/* Which of its threads the kernel used is no answer to who owns the socket. */
	owner.entry.latest.pid_tgid = pid_tgid & -is_process;
	owner.entry.latest.start_ns = start_ns;
	owner.entry.latest.when_ns = now;
	owner.entry.latest.cgroup_id = bpf_get_current_cgroup_id();
	owner.entry.latest.how = setting(HOW) * is_process + HOW_KERNEL * (1 - is_process);
	owner.entry.latest.flags = flags;
	/* The process's name, not the thread's: io_uring's workers are called after what they are. */
	read_field(owner.entry.latest.comm, group_leader(task), comm);
	open_by_latest(&owner);
	/* A process, as a number. */
	note_user(&owner, ((start_ns * SPREAD ^ pid_tgid >> 32) * 0xd6e8feb86659fd93ULL) & -is_process);
	owner.seal = owner_seal(&owner);
	if (bpf_map_update_elem(&owner_by_sock, &sk, &owner, BPF_ANY))
		return 0;
	if (!tuple.sport)
		return 0;
	/* Of one that is closed still, or again, the tuple may be another socket's. */
	if (setting(SET_STATE) || state != TCP_CLOSE) {
		publish(&owner);
		/* It may have been closed since, and its name be another's. (A new state is not there yet when it is told of.) */
		read_field(&state, (const struct sock *)sk, __sk_common.skc_state);
		if (!setting(SET_STATE) && state == TCP_CLOSE)
			unpublish(&owner.tuple, sk, 0);
	}
	return is_process;
}

/* When the current process started. */
static __always_inline __u64 current_start(void)
{
	if (setting(TASK_BTF))
		return bpf_get_current_task_btf()->group_leader->start_boottime;
	return task_start(group_leader((const struct task_struct *)bpf_get_current_task()));
}

/*
 * All hooks that learn an owner. Where a connection begins the slow path is the only one; a send or receive of a process
 * that is known takes the short way out.
 */
SEC("probe/tcp_use")
int tcp_use(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0, as_number, start_ns, word, seen, *place;

	if (setting(OPTION) && ((int)ctx->arg1 != IPPROTO_TCP || (int)ctx->arg2 != (int)setting(OPTION)))
		return setting(RETURN);
	if (setting(SET_STATE) && (int)ctx->arg2 != (int)setting(STATE))
		return setting(RETURN);
	if (setting(SOCKET)) {
		if (setting(ARG_BTF)) {
			/* All sockets of all families come by here. */
			const struct sock *typed = ((const struct socket *)sk)->sk;

			sk = (__u64)typed;
			if (!sk || (typed->__sk_common.skc_family & ~(AF_INET6 ^ AF_INET)) != AF_INET)
				return setting(RETURN);
			if (BPF_CORE_READ_BITFIELD(typed, sk_type) != SOCK_STREAM)
				return setting(RETURN);
		} else {
			__u64 above = sk;

			sk = 0;
			read_field(&sk, (const struct socket *)above, sk);
		}
	}
	as_number = number(sk);
	place = settled_place(as_number);
	if (!place)
		return setting(RETURN);
	start_ns = current_start();
	word = settled_word(as_number, bpf_get_current_pid_tgid() >> 32, start_ns);
	seen = *place;
	if (!setting(BEGINS) && !((seen ^ word) / USES)) {
		__sync_fetch_and_add(place, 1);
		return setting(RETURN);
	}
	if (not_learnable((const struct sock *)sk))
		return setting(RETURN);
	fired();
	/* Puts the word there, and is a memory barrier where a store is none. If somebody else comes between, it is no word. */
	word &= ~(__u64)(USES - 1);
	if (!setting(BEGINS))
		__sync_fetch_and_add(place, word - seen);
	if (!learn(sk, start_ns) || setting(BEGINS) || (*place ^ word) / USES)
		*place = 0;
	return setting(RETURN);
}

/* The end of a socket, or of its memory. */
SEC("probe/tcp_destroy")
int tcp_destroy(struct probe_ctx *ctx)
{
	__u64 sk = ctx->arg0;
	struct owner *known = bpf_map_lookup_elem(&owner_by_sock, &sk);

	fired();
	if (known) {
		struct socket_tuple tuple = known->tuple;

		unpublish(&tuple, sk, 0);
		if (!bpf_map_delete_elem(&owner_by_sock, &sk))
			count(COUNTER_DELETED);
	}
	unsettle(sk);
	return setting(RETURN);
}

/*
 * Every socket enters TCP_CLOSE, and from there its addresses and ports may be another's at once: so socket_to_pid forgets
 * it. Who owns the socket itself is known until its end: what the kernel has to tell of its death comes later than this.
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
	fired();
	known = bpf_map_lookup_elem(&owner_by_sock, &sk);
	if (known) {
		tuple = known->tuple;
		unpublish(&tuple, sk, 1);
		/* The end of an MPTCP socket's memory is seen by security modules alone, and nothing is told of it after this. */
		if (is_zero(BPF_CORE_READ_BITFIELD_PROBED((const struct sock *)sk, sk_protocol) ^ IPPROTO_MPTCP)) {
			if (!bpf_map_delete_elem(&owner_by_sock, &sk))
				count(COUNTER_DELETED);
			unsettle(sk);
		}
		return setting(RETURN);
	}
	/* A seeded one, or one whose entry was evicted. tcp_disconnect() may have cleared the port. */
	read_tuple(&tuple, (const struct sock *)sk);
	read_field(&sport, (const struct inet_sock *)sk, inet_sport);
	tuple.sport = bpf_ntohs(sport);
	unpublish(&tuple, sk, 1);
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
	fired();
	name.start_ns = task_start(leader);
	name.when_ns = bpf_ktime_get_ns();
	read_field(name.comm, leader, comm);
	bpf_map_update_elem(&exec_names, &tgid, &name, BPF_ANY);
	return setting(RETURN);
}

/* A process id is given out again, soon on hosts with few: when the one that had it ended is to be known exactly. */
SEC("probe/sched_process_exit")
int sched_process_exit(struct probe_ctx *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
	struct exited_key key = {};

	(void)ctx;
	key.tgid = pid_tgid >> 32;
	if (key.tgid != (__u32)pid_tgid)
		return setting(RETURN);
	fired();
	key.start_ns = task_start((const struct task_struct *)bpf_get_current_task());
	bpf_map_update_elem(&exited, &key, &now, BPF_ANY);
	return setting(RETURN);
}

/* The MPTCP socket above a subflow; 0 for a socket of another kind. */
static __always_inline __u64 msk_above(const struct event *event, const struct sock *sk, __u64 socket)
{
	const struct inet_connection_sock *icsk = (const struct inet_connection_sock *)sk;
	__u64 data = 0, msk = 0;

	/*
	 * It is there until the subflow ends, also when the application has closed its socket. Nothing else is asked of one
	 * that has it: what would still find the socket above before that close would hide that this does not.
	 */
	if (bpf_core_field_exists(((struct mptcp_subflow_context *)0)->conn) && bpf_core_field_exists(icsk->icsk_ulp_data)) {
		if (*(const __u32 *)event->ulp == *(const __u32 *)"mptc") {
			read_field(&data, icsk, icsk_ulp_data);
			if (data)
				read_field(&msk, (const struct mptcp_subflow_context *)data, conn);
			return msk & -differ(msk, number((__u64)sk));
		}
	}
	/* What processes hold is another socket than the one that TCP works on, but both are of one struct socket. */
	if (socket)
		read_field(&msk, (const struct socket *)socket, sk);
	return msk & -differ(msk, number((__u64)sk));
}

/* Does an owner belong to an earlier socket at the same address? 0 if not. It is when its end was not seen. */
static __always_inline __u64 is_stale(const struct owner *owner, __u64 inode, const struct socket_tuple *tuple)
{
	__u64 has_inodes = differ(owner->entry.inode, 0) & differ(inode, 0), stale = 0;
	const __u32 *was = (const __u32 *)owner->tuple.daddr, *is = (const __u32 *)tuple->daddr;

	/* No process holds it any more: then the name that it had, in full, is what there is. */
	stale = (was[0] ^ is[0]) | (was[1] ^ is[1]) | (was[2] ^ is[2]) | (was[3] ^ is[3]);
	stale |= (owner->tuple.sport ^ tuple->sport) | (owner->tuple.dport ^ tuple->dport);
	stale |= owner->tuple.netns ^ tuple->netns;
	stale &= ~ones_if_zero(owner->tuple.sport);
	return (differ(owner->entry.inode, inode) & has_inodes) | (differ(stale, 0) & (1 - has_inodes));
}

/*
 * Fills in what is to know of who owns sk, which is in softirq context most of the time: current plays no part. tuple: of
 * the socket itself.
 */
static __always_inline void find_owner(struct event *event, const struct sock *sk, const struct socket_tuple *tuple)
{
	const struct inet_connection_sock *icsk = (const struct inet_connection_sock *)sk;
	__u64 socket = socket_of(sk), ulp = 0, msk, is_known;

	if (bpf_core_field_exists(sk->sk_kern_sock))
		event->kern = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock);
	if (bpf_core_field_exists(icsk->icsk_ulp_ops)) {
		read_field(&ulp, icsk, icsk_ulp_ops);
		if (ulp)
			read_field(event->ulp, (const struct tcp_ulp_ops *)ulp, name);
	}
	msk = msk_above(event, sk, socket);
	if (msk) {
		/* The MPTCP socket is the one that processes hold, and are seen to use. */
		__u64 held = socket_of((const struct sock *)msk);

		if (held)
			socket = held;
		event->inode = inode_of(socket);
		is_known = copy_owner(&event->owner, msk);
		if (!is_known)
			is_known = copy_owner(&event->owner, msk);
		event->found = FOUND_MSK;
		if (is_known && (event->owner.entry.inode == event->inode || !event->inode || !event->owner.entry.inode))
			return;
		empty_owner(&event->owner);
	}
	event->inode = inode_of(socket);
	is_known = copy_owner(&event->owner, (__u64)sk);
	if (!is_known)
		is_known = copy_owner(&event->owner, (__u64)sk);
	event->stale = is_known & is_stale(&event->owner, event->inode, tuple);
	count_many(COUNTER_STALE, event->stale);
	is_known &= ~(__u64)event->stale;
	event->found = FOUND_SOCK & -is_known;
	keep_owner(&event->owner, is_known);
}

static __always_inline int filtered(const struct event *event)
{
	__u64 pid = setting(FILTER_PID), netns = setting(FILTER_NETNS), port = setting(FILTER_PORT);

	if (pid && event->found && event->owner.entry.latest.pid_tgid >> 32 != pid)
		return 1;
	if (netns && event->tuple.netns != netns)
		return 1;
	return port && event->tuple.sport != port && event->tuple.dport != port;
}

/* The key is made where the owner is, of which nothing else is needed any more: the stack has no room for both. */
static __always_inline void add_count(struct event *event)
{
	/* Whose data the kernel puts into this socket by a sockmap need not have it: nobody is better than somebody else. */
	__u64 is_lent = is_zero(~event->owner.entry.flags & OWNER_LENT);
	__u64 is_process = differ(event->owner.entry.latest.how, HOW_KERNEL) & (1 - is_lent), one = 1, *value;
	__u64 start_ns = event->owner.entry.latest.start_ns & -is_process, comm[2];
	__u32 tgid = (event->owner.entry.latest.pid_tgid >> 32) & -is_process;
	struct count_key *key = (struct count_key *)&event->owner;

	__builtin_memcpy(comm, event->owner.entry.latest.comm, sizeof(comm));
	barrier();
	key->tuple = event->tuple;
	key->start_ns = start_ns;
	key->inode = event->inode;
	key->tgid = tgid;
	key->zero = 0;
	comm[0] &= -is_process;
	comm[1] &= -is_process;
	__builtin_memcpy(key->comm, comm, sizeof(comm));
	barrier();
	value = bpf_map_lookup_elem(&counts, key);
	if (value)
		__sync_fetch_and_add(value, 1);
	else if (bpf_map_update_elem(&counts, key, &one, BPF_NOEXIST))
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

	read_field(&event->state, sk, __sk_common.skc_state);
	event->ca_state = BPF_CORE_READ_BITFIELD_PROBED(icsk, icsk_ca_state);
	read_field(&event->pending, icsk, icsk_pending);
	read_field(&event->retransmits, icsk, icsk_retransmits);
	read_field(&event->srtt_us, tp, srtt_us);
	read_field(&event->snd_cwnd, tp, snd_cwnd);
	read_field(&event->total_retrans, tp, total_retrans);
	event->undo_marker = 1;
	if (bpf_core_field_exists(tp->undo_marker))
		read_field(&event->undo_marker, tp, undo_marker);
	if (bpf_core_field_exists(sk->sk_lock.owned))
		read_field(&event->owned, sk, sk_lock.owned);
}

SEC("probe/tcp_retransmit")
int tcp_retransmit(struct probe_ctx *ctx)
{
	struct event event = {};
	const struct sock *sk;
	__u64 skb = ctx->arg1;

	fired();
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
	struct event event = {};
	const struct sock *sk;
	__u32 netns, ifindex;

	fired();
	begin_event(&event, ctx, EVENT_SYNACK);
	sk = (const struct sock *)event.sk;
	read_tuple(&event.tuple, sk);
	find_owner(&event, sk, &event.tuple);
	/* What follows is the connection's; its namespace and device are the listener's. */
	netns = event.tuple.netns;
	ifindex = event.tuple.ifindex;
	__builtin_memset(&event.tuple, 0, sizeof(event.tuple));
	read_tuple(&event.tuple, (const struct sock *)&((const struct request_sock *)ctx->arg1)->__req_common);
	event.tuple.netns = netns;
	event.tuple.ifindex = ifindex;
	event.state = TCP_SYN_RECV;
	submit(ctx, &event);
	return setting(RETURN);
}

/* Keeps the record's type in the object's BTF, from which the image takes its layout. */
const struct event *record_type __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
