// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The user's half of owner.bpf.c: loads, attaches, prints a line for each retransmit until SIGINT. */
#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "owner.h"
#include "owner.skel.h"

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static int print(void *context, void *data, size_t size)
{
	const struct event *event = data;
	char local[INET_ADDRSTRLEN], remote[INET_ADDRSTRLEN];

	(void)context;
	(void)size;
	inet_ntop(AF_INET, &event->saddr, local, sizeof(local));
	inet_ntop(AF_INET, &event->daddr, remote, sizeof(remote));
	printf("%llu %s %s:%u %s:%u %u\n", event->owner.pid_tgid >> 32, event->owner.comm, local, event->sport, remote,
	       event->dport, event->interrupted);
	return 0;
}

int main(void)
{
	struct owner_bpf *program;
	struct ring_buffer *ring;

	signal(SIGINT, on_signal);
	setlinebuf(stdout);
	program = owner_bpf__open_and_load();
	if (!program || owner_bpf__attach(program))
		return 1;
	ring = ring_buffer__new(bpf_map__fd(program->maps.events), print, NULL, NULL);
	while (ring && !stop && (ring_buffer__poll(ring, 500) >= 0 || errno == EINTR))
		;
	ring_buffer__free(ring);
	owner_bpf__destroy(program);
	return 0;
}
