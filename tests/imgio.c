/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imgio.c - for tests: bytes in and out of an image through the engine, in
 * qemu-io's words, so that one list of commands can be given to both.
 *
 *	imgio [-f FORMAT] [-t CACHE] [-d unmap|ignore] [-r] [-T THREADS]
 *	      [-c COMMAND]... IMAGE
 *
 * Without -c commands are read from standard input, one a line.
 *
 *	write [-P BYTE | -s FILE | -z [-u] | -c] OFFSET LENGTH
 *	read [-P BYTE] OFFSET LENGTH	-P: fails unless all bytes are BYTE
 *	discard OFFSET LENGTH		contents undefined afterwards
 *	hole OFFSET LENGTH		reads through to the backing image
 *	allocate OFFSET LENGTH
 *	flush
 *	wait				what came before has ended
 *	sleep MILLISECONDS
 *	touch FILE			makes an empty file: a signal to others
 *	abort				ends without closing the image
 *
 * With -T commands run in THREADS threads, each taking the next one; "wait",
 * "sleep" and "abort" are run alone.  The default pattern is 205, as qemu-io's.
 * Exit status: 0, or 1 if any command failed (each says so on standard error)
 * or the image could not be opened or closed.
 */
#include "blockcore.h"
#include "codec.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <time.h>

struct command {
	char *word[8];
	int words;
};

struct state {
	struct image *img;
	struct command *cmd;
	size_t n, room;
	size_t end;             /* of the commands that may run now */
	_Atomic size_t next;
	_Atomic bool failed;
};

/* ---- commands ------------------------------------------------------------ */

/* What write, read and their like were told. */
struct request {
	uint64_t off, len;
	int pattern;            /* -1: none given */
	const char *source;
	bool zero, unmap, packed;
};

static uint64_t number(const char *text)
{
	uint64_t n;

	if (!text || size_parse(text, &n) != SIZE_OK) {
		fprintf(stderr, "imgio: bad number '%s'\n", text ? text : "");
		exit(2);
	}
	return n;
}

static struct request request_parse(const struct command *c)
{
	struct request r = { .pattern = -1 };
	int i;

	for (i = 1; i < c->words && c->word[i][0] == '-'; i++) {
		if (!strcmp(c->word[i], "-P"))
			r.pattern = (int)number(c->word[++i]) & 0xff;
		else if (!strcmp(c->word[i], "-s"))
			r.source = c->word[++i];
		r.zero |= strchr(c->word[i], 'z') && c->word[i][0] == '-';
		r.unmap |= strchr(c->word[i], 'u') && c->word[i][0] == '-';
		r.packed |= !strcmp(c->word[i], "-c");
	}
	r.off = number(i < c->words ? c->word[i] : NULL);
	r.len = number(i + 1 < c->words ? c->word[i + 1] : NULL);
	return r;
}

static int source_read(const char *name, char *buf, size_t len)
{
	autoclose int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, buf, len, 0);

	if (n < 0)
		return -errno;
	memset(buf + n, 0, len - (size_t)n);
	return 0;
}

static int write_packed(struct image *img, const char *buf,
			const struct request *r)
{
	for (uint64_t at = 0; at < r->len; at += img->unit) {
		autofree char *unit = calloc(1, img->unit);
		autofree char *out = malloc(img->unit);
		size_t len = min_u64(img->unit, r->len - at), n = 0;
		int ret = unit && out ? 0 : -ENOMEM;

		if (ret)
			return ret;
		memcpy(unit, buf + at, len);
		ret = image_pack(img, unit, out, &n);
		if (!ret && n)
			ret = image_write_packed(&img->live, out, n,
						 r->off + at);
		else if (!ret)
			ret = image_write(&img->live, unit, len, r->off + at);
		if (ret)
			return ret;
	}
	return 0;
}

static int do_write(struct image *img, const struct command *c)
{
	struct request r = request_parse(c);
	autofree char *buf = NULL;
	int ret = 0;

	if (r.zero)
		return image_unmap(&img->live, r.off, r.len,
				   r.unmap ? UNMAP_ZERO : UNMAP_ZERO_KEEP);
	buf = malloc(r.len + 1);
	if (!buf)
		return -ENOMEM;
	memset(buf, r.pattern < 0 ? 0xcd : r.pattern, r.len);
	if (r.source)
		ret = source_read(r.source, buf, r.len);
	if (ret)
		return ret;
	return r.packed ? write_packed(img, buf, &r) :
			  image_write(&img->live, buf, r.len, r.off);
}

static int do_read(struct image *img, const struct command *c)
{
	struct request r = request_parse(c);
	autofree unsigned char *buf = malloc(r.len + 1);
	int ret = buf ? image_read(&img->live, buf, r.len, r.off) : -ENOMEM;

	for (uint64_t i = 0; !ret && r.pattern >= 0 && i < r.len; i++)
		if (buf[i] != r.pattern) {
			fprintf(stderr, "imgio: byte %llu is %d, not %d\n",
				(unsigned long long)(r.off + i), buf[i],
				r.pattern);
			ret = -EBADMSG;
		}
	return ret;
}

static int do_unmap(struct image *img, const struct command *c,
		    enum unmap_how how)
{
	struct request r = request_parse(c);

	return image_unmap(&img->live, r.off, r.len, how);
}

static int do_allocate(struct image *img, const struct command *c)
{
	struct request r = request_parse(c);

	return image_allocate(&img->live, r.off, r.len);
}

static int do_sleep(const struct command *c)
{
	uint64_t ms = number(c->word[1]);
	struct timespec t = {
		(time_t)(ms / 1000), (long)(ms % 1000) * 1000000
	};

	nanosleep(&t, NULL);
	return 0;
}

static int do_touch(const struct command *c)
{
	autoclose int fd = open(c->words > 1 ? c->word[1] : "",
				O_CREAT | O_WRONLY | O_CLOEXEC, 0666);

	return fd < 0 ? -errno : 0;
}

static int command_run(struct image *img, const struct command *c)
{
	const char *name = c->word[0];

	if (!strcmp(name, "write"))
		return do_write(img, c);
	if (!strcmp(name, "read"))
		return do_read(img, c);
	if (!strcmp(name, "discard"))
		return do_unmap(img, c, UNMAP_FREE);
	if (!strcmp(name, "hole"))
		return do_unmap(img, c, UNMAP_HOLE);
	if (!strcmp(name, "allocate"))
		return do_allocate(img, c);
	if (!strcmp(name, "flush"))
		return image_flush(img);
	if (!strcmp(name, "sleep"))
		return do_sleep(c);
	if (!strcmp(name, "touch"))
		return do_touch(c);
	if (!strcmp(name, "abort"))
		_exit(0);
	return strcmp(name, "wait") ? -ENOSYS : 0;
}

/* ---- threads ------------------------------------------------------------- */

static bool runs_alone(const struct command *c)
{
	return !strcmp(c->word[0], "wait") || !strcmp(c->word[0], "sleep") ||
	       !strcmp(c->word[0], "abort");
}

static void run_one(struct state *s, const struct command *c)
{
	int ret = command_run(s->img, c);

	if (!ret)
		return;
	fprintf(stderr, "imgio:");
	for (int i = 0; i < c->words; i++)
		fprintf(stderr, " %s", c->word[i]);
	fprintf(stderr, ": %s\n", strerror(-ret));
	atomic_store(&s->failed, true);
}

static void *worker(void *data)
{
	struct state *s = data;
	size_t i;

	while ((i = atomic_fetch_add(&s->next, 1)) < s->end)
		run_one(s, &s->cmd[i]);
	return NULL;
}

static void run_batch(struct state *s, unsigned threads)
{
	pthread_t thread[64];
	unsigned started = 0;

	while (started < threads &&
	       !pthread_create(&thread[started], NULL, worker, s))
		started++;
	while (started)
		pthread_join(thread[--started], NULL);
}

static void run_all(struct state *s, unsigned threads)
{
	for (size_t i = 0; i < s->n; i = s->end) {
		s->end = i;
		while (s->end < s->n && !runs_alone(&s->cmd[s->end]))
			s->end++;
		atomic_store(&s->next, i);
		if (threads > 1)
			run_batch(s, threads);
		else
			worker(s);
		if (s->end < s->n)
			run_one(s, &s->cmd[s->end++]);
	}
}

/* ---- the command line ---------------------------------------------------- */

static void command_add(struct state *s, const char *line)
{
	struct command c = { .words = 0 };
	char *copy = strdup(line), *save = NULL;

	for (char *w = strtok_r(copy, " \t\n", &save); w && c.words < 8;
	     w = strtok_r(NULL, " \t\n", &save))
		c.word[c.words++] = w;
	if (!c.words) {
		free(copy);
		return;
	}
	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 64;
		s->cmd = realloc(s->cmd, s->room * sizeof(*s->cmd));
		if (!s->cmd)
			exit(2);
	}
	s->cmd[s->n++] = c;
}

static void commands_read(struct state *s)
{
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) > 0)
		command_add(s, line);
	free(line);
}

static void commands_free(struct state *s)
{
	for (size_t i = 0; i < s->n; i++)
		free(s->cmd[i].word[0]);
	free(s->cmd);
}

struct options_given {
	const char *format;
	enum cache_mode cache;
	unsigned flags, threads;
};

static bool options_read(int argc, char **argv, struct state *s,
			 struct options_given *o)
{
	int opt;

	while ((opt = getopt(argc, argv, "f:t:d:rT:c:")) != -1) {
		if (opt == 'f')
			o->format = optarg;
		else if (opt == 't' && !cache_mode_parse(optarg, &o->cache))
			return false;
		else if (opt == 'd' && !strcmp(optarg, "unmap"))
			o->flags |= IMAGE_DISCARD;
		else if (opt == 'r')
			o->flags &= ~(unsigned)IMAGE_RDWR;
		else if (opt == 'T')
			o->threads = (unsigned)min_u64(number(optarg), 64);
		else if (opt == 'c')
			command_add(s, optarg);
		else if (opt == '?')
			return false;
	}
	return optind + 1 == argc;
}

int main(int argc, char **argv)
{
	struct options_given o = {
		.cache = CACHE_WRITEBACK, .flags = IMAGE_RDWR, .threads = 1,
	};
	struct state s = { .n = 0 };
	autoerr err = ERR_INIT;
	int ret;

	if (!options_read(argc, argv, &s, &o)) {
		fprintf(stderr, "imgio: see the head of imgio.c\n");
		return 2;
	}
	if (!s.n)
		commands_read(&s);
	ret = image_open_name(argv[optind], false, o.format, o.flags, o.cache,
			      &s.img, &err);
	if (ret) {
		fprintf(stderr, "imgio: %s: %s\n", argv[optind],
			err_text(&err));
		commands_free(&s);
		return 1;
	}
	run_all(&s, o.threads);
	commands_free(&s);
	ret = image_close(s.img);
	if (ret)
		fprintf(stderr, "imgio: closing: %s\n", strerror(-ret));
	return ret || atomic_load(&s.failed);
}
