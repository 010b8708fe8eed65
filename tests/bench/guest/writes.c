// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * writes MODE SOCKETS COUNT: nanoseconds per write of 64 bytes, round robin over connections whose both ends are here, so
 * that nobody is woken. MODE: nodelay (a segment for each write) or cork (a write only appends). The time of reading is
 * not counted.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, ROUND = 128 };

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	int option = argc > 1 && !strcmp(argv[1], "cork") ? TCP_CORK : TCP_NODELAY;
	int sockets = argc > 2 ? atoi(argv[2]) : 1, one = 1;
	long count = argc > 3 ? atol(argv[3]) : 20000, done = 0;
	struct rlimit files = { 2 * sockets + 64, 2 * sockets + 64 };
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);
	static char buffer[1 << 16];
	long long spent = 0;
	int *ends = calloc(2 * sockets, sizeof(int));
	int listener = -1;

	if (setrlimit(RLIMIT_NOFILE, &files))
		fail("setrlimit");
	for (int i = 0; i < sockets; i++) {
		if (i % 16384 == 0) { /* the ports of one listener do not suffice for more */
			if (listener >= 0)
				close(listener);
			listener = socket(AF_INET, SOCK_STREAM, 0);
			address.sin_port = 0;
			address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
			if (bind(listener, (void *)&address, sizeof(address)) || listen(listener, 64) ||
			    getsockname(listener, (void *)&address, &length))
				fail("listen");
		}
		ends[2 * i] = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(ends[2 * i], (void *)&address, sizeof(address)))
			fail("connect");
		ends[2 * i + 1] = accept(listener, NULL, NULL);
		if (ends[2 * i + 1] < 0 || setsockopt(ends[2 * i], IPPROTO_TCP, option, &one, sizeof(one)))
			fail("accept");
	}
	while (done < count) {
		/* Few enough for the send buffer of one socket; all of a round are read behind it. */
		int writes = sockets > ROUND ? sockets : ROUND;
		long long start = now();

		for (int i = 0; i < writes; i++)
			if (write(ends[2 * (i % sockets)], buffer, SIZE) != SIZE)
				fail("write");
		spent += now() - start;
		done += writes;
		for (int i = 0; i < sockets && i < writes; i++) {
			if (option == TCP_CORK) { /* pushes what has gathered */
				int zero = 0;

				setsockopt(ends[2 * i], IPPROTO_TCP, TCP_CORK, &zero, sizeof(zero));
				setsockopt(ends[2 * i], IPPROTO_TCP, TCP_CORK, &one, sizeof(one));
			}
			if (read(ends[2 * i + 1], buffer, sizeof(buffer)) <= 0)
				fail("read");
		}
	}
	printf("%.1f\n", (double)spent / done);
	return 0;
}
