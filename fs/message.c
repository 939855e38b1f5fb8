/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * message.c - one line a fault, to syslog, to log=FILE or to stderr, and not
 * more than a person can read: what repeats without end is counted instead.
 * Knows where lines go and how many.  Refuses to know what they say.
 */
#include "fsmain.h"

#include "blockcore/blockcore.h"

#include <fcntl.h>
#include <fuse_log.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>

enum { BURST = 20, PERIOD = 10 };       /* lines, in so many seconds */

static struct {
	pthread_mutex_t lock;           /* guards what follows */
	int fd;                         /* log=FILE, or -1 */
	bool syslog;
	bool debug;
	time_t since;                   /* of this period; monotonic */
	unsigned lines, dropped;        /* in this period */
} out = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1 };

static void put_file(const char *line)
{
	char stamp[32];
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &tm);
	dprintf(out.fd, "%s imgfs[%d]: %s\n", stamp, (int)getpid(), line);
}

static void put(const char *line)
{
	if (out.fd >= 0)
		put_file(line);
	else if (out.syslog)
		syslog(LOG_WARNING, "%s", line);
	else
		fprintf(stderr, "imgfs: %s\n", line);
}

/* Under the lock: may a further line be written now? */
static bool within_rate(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec - out.since >= PERIOD) {
		if (out.dropped) {
			char text[64];

			snprintf(text, sizeof(text), "%u further messages",
				 out.dropped);
			put(text);
		}
		out.since = now.tv_sec;
		out.lines = out.dropped = 0;
	}
	if (out.lines >= BURST) {
		out.dropped++;
		return false;
	}
	out.lines++;
	return true;
}

static void message(void *data, const char *line)
{
	with_lock(&out.lock);

	(void)data;
	if (within_rate())
		put(line);
}

static void warning(const char *text)
{
	with_lock(&out.lock);

	if (within_rate())
		put(text);
}

/* libfuse's own messages end in a newline; those of -d are not counted. */
static void from_libfuse(enum fuse_log_level level, const char *fmt,
			 va_list ap)
{
	autostrbuf sb = STRBUF_INIT;

	if (level == FUSE_LOG_DEBUG && out.debug) {
		vfprintf(stderr, fmt, ap);
		return;
	}
	if (level >= FUSE_LOG_INFO)
		return;
	strbuf_vprintf(&sb, fmt, ap);
	while (sb.len && sb.text[sb.len - 1] == '\n')
		sb.text[--sb.len] = '\0';
	if (sb.len)
		message(NULL, sb.text);
}

int message_open(const struct fs_options *o, struct err *err)
{
	if (o->log) {
		out.fd = open(o->log, O_WRONLY | O_CREAT | O_APPEND |
			      O_CLOEXEC | O_NOCTTY, 0640);
		if (out.fd < 0)
			return err_errno(err, -errno, "Could not open the"
					 " log '%s'", o->log);
	}
	out.debug = o->debug;
	log_set(message, NULL);
	warn_set(warning);
	fuse_set_log_func(from_libfuse);
	return 0;
}

void message_background(void)
{
	with_lock(&out.lock);

	openlog("imgfs", LOG_PID, LOG_DAEMON);
	out.syslog = true;
}
