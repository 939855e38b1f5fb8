/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * progress.c - prints how far a job is; see progress.h.
 *
 * With -p a line on stdout whenever two per cent were gained; without it
 * SIGUSR1 prints one on stderr, from the handler itself, so that it answers
 * while the job waits for a slow disk.
 */
#include "progress.h"

#include <signal.h>
#include <stdio.h>

#define STEP 2.0

static struct progress *watched;        /* for the signal handler */
static double printed;                  /* per cent, last line on stdout */

static double percent(struct progress *p)
{
	uint64_t total = atomic_load(&p->total);
	uint64_t done = atomic_load(&p->done);

	if (!total || done >= total)
		return total ? 100.0 : 0.0;
	return (double)done / (double)total * 100.0;
}

static void print(double value)
{
	printf("    (%3.2f/100%%)\r", value);
	fflush(stdout);
	printed = value;
}

/* Called by the job, from one thread at a time. */
static void tick(struct progress *p)
{
	double now = percent(p);

	if (now - printed >= STEP || (now >= 100.0 && printed < 100.0))
		print(now);
}

/* Digits by hand: nothing else may be called in a signal handler. */
static void on_usr1(int sig)
{
	char text[] = "    (000.00/100%)\n";
	uint64_t total = atomic_load(&watched->total);
	uint64_t done = atomic_load(&watched->done);
	unsigned hundredths = 0;
	unsigned digits;
	int saved = errno;

	(void)sig;
	if (total)
		hundredths = (unsigned)((double)min_u64(done, total) /
					(double)total * 10000.0 + 0.5);
	text[5] = (char)('0' + hundredths / 10000);
	text[6] = (char)('0' + hundredths / 1000 % 10);
	text[7] = (char)('0' + hundredths / 100 % 10);
	text[9] = (char)('0' + hundredths / 10 % 10);
	text[10] = (char)('0' + hundredths % 10);
	digits = hundredths >= 10000 ? 3 : hundredths >= 1000 ? 2 : 1;
	memmove(text + 5, text + 5 + (3 - digits), sizeof(text) - 5 -
		(3 - digits));
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		(void)0;
	errno = saved;
}

void progress_start(struct progress *p, bool show)
{
	struct sigaction sa = { .sa_handler = on_usr1,
				.sa_flags = SA_RESTART };

	watched = p;
	printed = 0;
	if (show) {
		p->tick = tick;
		print(0);
	} else {
		sigaction(SIGUSR1, &sa, NULL);
	}
}

void progress_complete(struct progress *p)
{
	if (p->tick)
		print(100.0);
}

void progress_end(struct progress *p)
{
	signal(SIGUSR1, SIG_DFL);
	if (p->tick) {
		putchar('\n');
		fflush(stdout);
	}
	p->tick = NULL;
}
