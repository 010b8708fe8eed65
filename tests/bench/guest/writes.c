// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * writes SOCKETS COUNT PROCESSES own|shared MODE...: for each mode a line with the nanoseconds per write of 64 bytes,
 * round robin over connections whose both ends are here, so that nobody is woken. The time of reading is not counted. They
 * end with a reset, so that no timer of theirs runs while others are measured.
 *
 * MODE: nodelay (a segment for each write), cork (a write only appends), counted (as cork, with the statistics of BPF
 * on while it writes), each after a tenth of them to warm up. With more than one process they write in turn: each on sockets of
 * its own, or every one on all of them, so that a socket's writer changes from write to write.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"

enum { SIZE = 64, PER_ADDRESS = 8192, PORT = 9 };

/*
 * Writes before what they wrote is read.
 *
 * APPENDED, while corked: few enough for the send buffer of one socket. SENT: so few that the kernel takes the memory of
 * their segments from what the last ones left; with more it goes to and fro between the page allocator and its caches,
 * in one of several rhythms, which differ by more than a program takes. PART: sockets; what is corked is sent after 200 ms
 * all the same, by timers of which thousands end at once, and of what they send no more than net.core.netdev_max_backlog
 * arrives. The rest they send again later, all at once as before, so that a reader of 50,000 sockets waits for ever.
 */
enum { APPENDED = 128, SENT = 8, PART = 1000 };

static char buffer[1 << 16];

/* Of all processes. */
static struct {
	long long spent;
	long done;
} *total;

/* Its end is a reset, and that of those which it accepts. */
static int opened(void)
{
	struct linger at_once = { 1, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)))
		fail("socket");
	return fd;
}

/*
 * Pairs of descriptors: who writes, who reads. No more than PER_ADDRESS towards one address: once half of the ports are taken,
 * connect() has to look through all of that half for each of the others.
 */
static int *connections(int count, int first)
{
	int *ends = calloc(2 * count, sizeof(int)), listener = -1, one = 1;

	for (int i = 0; i < count; i++) {
		struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };

		address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + ((first + i / PER_ADDRESS + 1) << 8));
		if (i % PER_ADDRESS == 0) {
			if (listener >= 0)
				close(listener);
			listener = opened();
			if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
			    bind(listener, (void *)&address, sizeof(address)) || listen(listener, 64))
				fail("listen");
		}
		ends[2 * i] = opened();
		if (connect(ends[2 * i], (void *)&address, sizeof(address)))
			fail("connect");
		ends[2 * i + 1] = accept(listener, NULL, NULL);
		if (ends[2 * i + 1] < 0)
			fail("accept");
	}
	close(listener);
	return ends;
}

static void set(const int *ends, int sockets, int option, int value)
{
	for (int i = 0; i < sockets; i++)
		if (setsockopt(ends[2 * i], IPPROTO_TCP, option, &value, sizeof(value)))
			fail("setsockopt");
}

static void one_part(const int *ends, int sockets, int cork)
{
	int round = cork ? APPENDED : SENT, writes = sockets > round ? sockets : round;
	long long start = now();

	for (int i = 0; i < writes; i++)
		if (write(ends[2 * (i % sockets)], buffer, SIZE) != SIZE)
			fail("write");
	total->spent += now() - start;
	total->done += writes;
	if (cork) { /* pushes what has gathered */
		set(ends, sockets, TCP_CORK, 0);
		set(ends, sockets, TCP_CORK, 1);
	}
	for (int i = 0; i < sockets; i++)
		if (read(ends[2 * i + 1], buffer, sizeof(buffer)) <= 0)
			fail("read");
}

static void one_round(const int *ends, int sockets, int cork)
{
	for (int done = 0; done < sockets; done += PART)
		one_part(ends + 2 * done, sockets - done < PART ? sockets - done : PART, cork);
}

static void statistics(int on)
{
	int fd = open("/proc/sys/kernel/bpf_stats_enabled", O_WRONLY);

	if (fd < 0 || write(fd, on ? "1" : "0", 1) != 1)
		fail("bpf_stats_enabled");
	close(fd);
}

/* in, out: where the turn comes from and goes to. */
static void take_turns(const int *ends, int sockets, long count, int in, int out, int cork)
{
	char turn;

	for (;;) {
		if (read(in, &turn, 1) != 1)
			fail("turn");
		if (total->done >= count) {
			(void)!write(out, &turn, 1);
			return;
		}
		one_round(ends, sockets, cork);
		if (write(out, &turn, 1) != 1)
			fail("turn");
	}
}

static void play(const char *mode, const int *ends, int sockets, long count, int processes, int own)
{
	int cork = strcmp(mode, "nodelay"), counted = !strcmp(mode, "counted"), pipes[2 * processes];

	for (int i = 0; i < processes; i++)
		if (pipe(pipes + 2 * i))
			fail("pipe");
	memset(total, 0, sizeof(*total));
	if (processes == 1) {
		set(ends, sockets, TCP_CORK, cork);
		set(ends, sockets, TCP_NODELAY, !cork);
		while (total->done < count / 10)
			one_round(ends, sockets, cork);
		memset(total, 0, sizeof(*total));
		if (counted)
			statistics(1);
		while (total->done < count)
			one_round(ends, sockets, cork);
	} else {
		for (int i = 0; i < processes; i++) {
			if (!fork()) {
				const int *mine = own ? connections(sockets, 16 * (i + 1)) : ends;

				set(mine, sockets, TCP_CORK, cork);
				set(mine, sockets, TCP_NODELAY, !cork);
				take_turns(mine, sockets, count, pipes[2 * i], pipes[2 * ((i + 1) % processes) + 1], cork);
				exit(0);
			}
		}
		sleep(1); /* until they have connected, which is not to be counted */
		if (counted)
			statistics(1);
		if (write(pipes[1], "", 1) != 1)
			fail("turn");
		for (int i = 0, status; i < processes; i++)
			if (wait(&status) < 0 || status)
				fail("a process");
	}
	if (counted)
		statistics(0);
	printf("%s %.1f\n", mode, (double)total->spent / total->done);
	for (int i = 0; i < 2 * processes; i++)
		close(pipes[i]);
}

int main(int argc, char **argv)
{
	int sockets, processes, own, *ends = NULL;
	struct rlimit files;

	if (argc < 6)
		return 2;
	sockets = atoi(argv[1]);
	processes = atoi(argv[3]);
	own = !strcmp(argv[4], "own");
	files.rlim_cur = files.rlim_max = 2 * sockets + 64;
	if (setrlimit(RLIMIT_NOFILE, &files))
		fail("setrlimit");
	total = mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (processes == 1 || !own)
		ends = connections(sockets, 0);
	for (int i = 5; i < argc; i++)
		play(argv[i], ends, sockets, atol(argv[2]), processes, own);
	return 0;
}
