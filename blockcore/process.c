/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * process.c - what belongs to the process as a whole: where lines about
 * background errors go, and the points at which tests stop a thread.
 *
 * Knows nothing of images.
 */
#include "blockcore.h"
#include "strbuf.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- log ----------------------------------------------------------------- */

static void to_stderr(void *data, const char *line)
{
	(void)data;
	fprintf(stderr, "%s\n", line);
}

static struct {
	pthread_mutex_t lock;
	void (*fn)(void *data, const char *line);
	void *data;
} sink = { PTHREAD_MUTEX_INITIALIZER, to_stderr, NULL };

void log_set(void (*fn)(void *data, const char *line), void *data)
{
	with_lock(&sink.lock);
	sink.fn = fn ? fn : to_stderr;
	sink.data = data;
}

bool log_names = true;
bool probe_as_qemu;

void log_line(const char *fmt, ...)
{
	autostrbuf sb = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	with_lock(&sink.lock);
	sink.fn(sink.data, sb.text ? sb.text : "");
}

/* ---- pause points -------------------------------------------------------- */

/* IMGFS_PAUSE=point:fifo[,point:fifo...].  Each entry stops one thread, the
 * first that comes; a point that is listed twice stops two, in order. */
struct pause {
	char *point, *fifo;
	_Atomic bool used;
};

static struct pause *pauses;
static size_t nr_pauses;
static pthread_once_t pauses_read = PTHREAD_ONCE_INIT;
static void (*_Atomic pause_fn)(const char *name);

static void pause_add(char *entry)
{
	char *colon = strrchr(entry, ':');  /* points have some */
	struct pause *grown;

	if (!colon)
		return;
	*colon = 0;
	grown = realloc(pauses, (nr_pauses + 1) * sizeof(*grown));
	BUG_ON(!grown);
	pauses = grown;
	grown[nr_pauses].point = entry;
	grown[nr_pauses].fifo = colon + 1;
	atomic_init(&grown[nr_pauses++].used, false);
}

/* The copy of the text is kept: the entries point into it. */
static void pauses_parse(void)
{
	const char *text = getenv("IMGFS_PAUSE");
	char *copy, *save, *entry;

	if (!text)
		return;
	copy = strdup(text);
	BUG_ON(!copy);
	for (entry = strtok_r(copy, ",", &save); entry;
	     entry = strtok_r(NULL, ",", &save))
		pause_add(entry);
}

/* Opening tells the test that the point is reached; a byte, or the other end's
 * closing, lets the thread go on. */
static void pause_wait(const char *fifo)
{
	int fd = open(fifo, O_RDONLY | O_CLOEXEC);
	char byte;

	if (fd < 0) {
		log_line("IMGFS_PAUSE: cannot open '%s': %s", fifo,
			 strerror(errno));
		return;
	}
	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		;
	close(fd);
}

void pause_set(void (*fn)(const char *name))
{
	atomic_store(&pause_fn, fn);
}

void pause_point(const char *name)
{
	void (*fn)(const char *) = atomic_load_explicit(&pause_fn,
							memory_order_acquire);
	size_t i;

	if (fn)
		fn(name);
	pthread_once(&pauses_read, pauses_parse);
	for (i = 0; i < nr_pauses; i++) {
		if (strcmp(pauses[i].point, name) ||
		    atomic_exchange(&pauses[i].used, true))
			continue;
		pause_wait(pauses[i].fifo);
		return;
	}
}
