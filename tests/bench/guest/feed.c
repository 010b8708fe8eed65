// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * feed PROG_ID RATE SECONDS < sockets: lets the kernel run a raw tracepoint's program as if it had retransmitted for these
 * sockets (struct sock addresses, eight bytes each, in turn), RATE times a second or, with 0, as fast as can be. Prints
 * how often it did.
 */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SOCKETS = 1 << 20, AT_ONCE = 32 };

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(__NR_bpf, command, attr, sizeof(*attr));
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static unsigned long long sockets[SOCKETS];
	unsigned long long arguments[3] = { 0 };
	union bpf_attr attr = { 0 };
	double rate, end, started;
	size_t count;
	long done = 0;

	if (argc < 4)
		return 2;
	attr.prog_id = atoi(argv[1]);
	int fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
	count = fread(sockets, 8, SOCKETS, stdin);
	if (fd < 0 || !count) {
		perror("BPF_PROG_GET_FD_BY_ID");
		return 1;
	}
	memset(&attr, 0, sizeof(attr));
	attr.test.prog_fd = fd;
	attr.test.ctx_in = (unsigned long)arguments;
	attr.test.ctx_size_in = sizeof(arguments);
	rate = atof(argv[2]);
	started = now();
	end = started + atof(argv[3]);
	while (now() < end) {
		for (int i = 0; i < AT_ONCE; i++) {
			arguments[0] = sockets[done++ % count];
			if (bpf(BPF_PROG_TEST_RUN, &attr)) {
				perror("BPF_PROG_TEST_RUN");
				return 1;
			}
		}
		while (rate && now() - started < done / rate)
			usleep(200);
	}
	printf("%ld\n", done);
	return 0;
}
