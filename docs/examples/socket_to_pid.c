// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Whose socket is it? Asks sockpid's pinned map through libbpf. Prints "PID COMM", or says that the owner is not known.
 *
 *   cc -I bpf_bytecode docs/examples/socket_to_pid.c -lbpf -o socket_to_pid
 *   ./socket_to_pid /sys/fs/bpf/sockpid/v2/socket_to_pid 10.0.0.1 40034 10.0.0.2 9000
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <bpf/bpf.h>

#include "sockpid.h"

#define LOOKS 5

_Static_assert(SOCKPID_ABI == 2, "the path of the pin names the version: DIR/v2");
_Static_assert(sizeof(struct socket_tuple) == 48, "no padding");
_Static_assert(sizeof(struct socket_owner) == 88, "no padding");

/* Whether a copy of a value is whole, and that of this key: the seal is a hash of both. */
static int holds_together(const struct socket_tuple *key, const struct socket_owner *value)
{
	__u64 words[(sizeof(*key) + offsetof(struct socket_owner, seal)) / sizeof(__u64)];
	__u64 seal = SEAL_SEED;

	memcpy(words, key, sizeof(*key));
	memcpy((char *)words + sizeof(*key), value, offsetof(struct socket_owner, seal));
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		seal = seal_word(seal, words[i]);
	return seal == value->seal;
}

/* 0: found. The kernel may be writing a value while it is copied; a moment later it is whole. */
static int find(int fd, const struct socket_tuple *key, struct socket_owner *value)
{
	for (int i = 0; i < LOOKS; i++) {
		if (bpf_map_lookup_elem(fd, key, value))
			return -errno;
		if (holds_together(key, value))
			return 0;
	}
	return -ENOENT;
}

/* An IPv4 address is the first four bytes; so is that of a v4-mapped IPv6 one. */
static int parse(const char *text, __u8 *address)
{
	static const __u8 mapped[12] = { [10] = 0xff, [11] = 0xff };
	__u8 v6[16];

	if (inet_pton(AF_INET, text, address) == 1)
		return AF_INET;
	if (inet_pton(AF_INET6, text, v6) != 1)
		return -1;
	if (!memcmp(v6, mapped, sizeof(mapped))) {
		memcpy(address, v6 + 12, 4);
		return AF_INET;
	}
	memcpy(address, v6, 16);
	return AF_INET6;
}

/* A process calls itself what it likes: nothing of that may be a terminal's command. */
static const char *harmless(char *comm)
{
	for (int i = 0; i < TASK_COMM_LEN && comm[i]; i++)
		if ((unsigned char)comm[i] < ' ' || comm[i] == 0x7f)
			comm[i] = '?';
	return comm;
}

int main(int argc, char **argv)
{
	struct bpf_map_info info = {};
	__u32 size = sizeof(info);
	struct socket_tuple key = {};
	struct socket_owner owner;
	struct stat netns;
	int fd, family, error;

	if (argc != 6) {
		fprintf(stderr, "usage: %s PIN LOCAL PORT REMOTE PORT\n", argv[0]);
		return 2;
	}
	family = parse(argv[2], key.saddr);
	if (family < 0 || parse(argv[4], key.daddr) != family) {
		fprintf(stderr, "%s, %s: not two addresses of one family\n", argv[2], argv[4]);
		return 2;
	}
	key.family = family;
	key.sport = strtoul(argv[3], NULL, 10);
	key.dport = strtoul(argv[5], NULL, 10);
	key.netns = stat("/proc/self/ns/net", &netns) ? 0 : netns.st_ino;

	fd = bpf_obj_get(argv[1]);
	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size)) {
		perror(argv[1]);
		return 2;
	}
	if (info.key_size != sizeof(key) || info.value_size != sizeof(owner)) {
		fprintf(stderr, "%s: not a map of this version\n", argv[1]);
		return 2;
	}
	error = find(fd, &key, &owner);
	if (error) {
		fprintf(stderr, error == -ENOENT ? "not known\n" : "look-up: %s\n", strerror(-error));
		return 1;
	}
	if (owner.latest.how == HOW_KERNEL)
		printf("- kernel\n");
	else
		printf("%llu %.*s\n", owner.latest.pid_tgid >> 32, TASK_COMM_LEN, harmless(owner.latest.comm));
	return 0;
}
