/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What owner.bpf.c and owner.c share. */
#include <linux/types.h>

struct owner {
	__u64 pid_tgid;
	char comm[16];
};

struct event {
	struct owner owner; /* all zero: unknown */
	__u32 interrupted;
	__u32 saddr, daddr; /* network order */
	__u16 sport, dport;
};
