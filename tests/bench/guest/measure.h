/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What programs that measure have in common. */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* CLOCK_MONOTONIC in nanoseconds. */
static inline long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

#endif
