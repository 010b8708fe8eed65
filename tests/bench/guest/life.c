// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * life connections COUNT: nanoseconds for one connection over loopback from socket() to close(), both ends here; its end
 * is a reset, so that nothing waits behind it.
 * life retransmits SOCKETS SECONDS: data on so many connections is not answered for so long; prints how many segments
 * the kernel says it retransmitted.
 */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

static struct sockaddr_in address = { .sin_family = AF_INET };
static int listener;

static int connected(int *accepted)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (void *)&address, sizeof(address)))
		fail("connect");
	*accepted = accept(listener, NULL, NULL);
	if (*accepted < 0)
		fail("accept");
	return fd;
}

static void reset(int fd)
{
	struct linger at_once = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void connections(int count)
{
	long long start = 0;

	for (int i = -count / 10; i < count; i++) {
		int accepted, fd;

		if (!i)
			start = now();
		fd = connected(&accepted);
		reset(fd);
		close(accepted);
	}
	printf("%.1f\n", (double)(now() - start) / count);
}

static void retransmits(int count, int seconds)
{
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog deaf = { 1, &nothing };
	int *fds = calloc(2 * count, sizeof(int));
	long total = 0;

	for (int i = 0; i < count; i++) {
		fds[2 * i] = connected(&fds[2 * i + 1]);
		if (setsockopt(fds[2 * i + 1], SOL_SOCKET, SO_ATTACH_FILTER, &deaf, sizeof(deaf)))
			fail("SO_ATTACH_FILTER");
		if (write(fds[2 * i], "x", 1) != 1)
			fail("write");
	}
	sleep(seconds);
	for (int i = 0; i < count; i++) {
		struct tcp_info info = { 0 };
		socklen_t length = sizeof(info);

		if (getsockopt(fds[2 * i], IPPROTO_TCP, TCP_INFO, &info, &length))
			fail("TCP_INFO");
		total += info.tcpi_total_retrans;
		reset(fds[2 * i]);
		reset(fds[2 * i + 1]);
	}
	printf("%ld\n", total);
}

int main(int argc, char **argv)
{
	socklen_t length = sizeof(address);
	struct rlimit files;

	if (argc < 3)
		return 2;
	files.rlim_cur = files.rlim_max = 2 * atoi(argv[2]) + 64;
	if (!strcmp(argv[1], "retransmits") && setrlimit(RLIMIT_NOFILE, &files))
		fail("setrlimit");
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (void *)&address, sizeof(address)) || listen(listener, 64) ||
	    getsockname(listener, (void *)&address, &length))
		fail("listen");
	if (!strcmp(argv[1], "connections"))
		connections(atoi(argv[2]));
	else
		retransmits(atoi(argv[2]), argc > 3 ? atoi(argv[3]) : 3);
	return 0;
}
