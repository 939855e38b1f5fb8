/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bitmaps.c - the judge of dirty bitmaps: after a crash one says that it was in
 * use, or it holds every sector that was written since it was made, as QEMU
 * reads it.
 *
 * The image begins with "all", which has recorded everything, and "off", which
 * records nothing any more.  Of every second seed a bitmap is added and "off"
 * removed before the work, so that closing writes another directory.  Of every
 * third the power goes while the image is closed, or shortly after.
 */
#include "judge.h"

#include "bitmap.h"
#include "codec.h"

#include <inttypes.h>
#include <stdio.h>

static int run(const char *dir, const char *fmt, const char *a, const char *b)
{
	autostrbuf cmd = STRBUF_INIT;

	strbuf_printf(&cmd, "cd '%s' && ", dir);
	strbuf_printf(&cmd, fmt, a, b);
	return system(cmd.text);
}

/* Before the first data. */
void bitmaps_template(const char *dir)
{
	if (run(dir, "qemu-img bitmap --add -g %s template %s", "4k", "all") ||
	    run(dir, "qemu-img bitmap --add --disable -g %s template %s", "64k",
		"off"))
		BUG("qemu-img bitmap failed");
}

void bitmaps_begin_work(const struct work *work)
{
	int ret = 0;

	if (work->seed & 1)
		ret = bitmap_add(work->img, "new", 512, NULL);
	if (!ret && work->seed & 1)
		ret = bitmap_remove(work->img, "off", NULL);
	if (ret && !atomic_load(&work->cut))
		BUG("bitmaps: %s", strerror(-ret));
}

/* Does the power go only at the end? */
bool bitmaps_at_close(uint64_t seed)
{
	return seed % 3 == 0;
}

/* Its flags as qemu-img info has them: 'a' there, 'u' in use. */
static void flags_of(const char *dir, const char *name, bool *there,
		     bool *in_use)
{
	*there = !run(dir, "qemu-img info --output=json crashed | tr -d ' \\n' |"
		      " grep -q '\"name\":\"%s\"%s'", name, "");
	*in_use = !run(dir, "qemu-img info --output=json crashed |"
		       " tr -d ' \\n' | grep -q '\"flags\":\\[\"in-use\""
		       "[^]]*\\],\"name\":\"%s\"%s'", name, "");
}

/* Which sectors are dirty, as QEMU has it. */
static bool read_dirty(const char *dir, const char *name, bool *dirty,
		       uint64_t n)
{
	autostrbuf path = STRBUF_INIT;
	char line[256];
	FILE *f;

	if (run(dir, "qemu-nbd --fork --pid-file=$PWD/pid -r -f qcow2 -B %s -k"
		" $PWD/sock -t crashed && qemu-img map --output=json"
		" --image-opts driver=nbd,server.type=unix,server.path=$PWD/"
		"sock,x-dirty-bitmap=qemu:dirty-bitmap:%s > dirty; rc=$?; p=$("
		"cat pid); kill $p; while kill -0 $p 2>/dev/null; do sleep"
		" 0.02; done; exit $rc", name, name))
		return false;
	strbuf_printf(&path, "%s/dirty", dir);
	f = fopen(path.text, "r");
	while (f && fgets(line, sizeof(line), f)) {
		uint64_t start, len;

		if (sscanf(line, "%*[^0-9]%" SCNu64 "%*[^0-9]%" SCNu64, &start,
			   &len) != 2 || !strstr(line, "\"data\": false"))
			continue;
		for (uint64_t s = start / SECTOR_SIZE;
		     s < n && s < div_up(start + len, SECTOR_SIZE); s++)
			dirty[s] = true;
	}
	if (f)
		fclose(f);
	return f;
}

static bool complain(const char *name, const char *what)
{
	fprintf(stderr, "bitmap %s %s\n", name, what);
	return false;
}

/* Is every sector of the disk (in "raw") that holds something in it?  @since:
 * but for what was there from the start. */
static bool holds_all(const struct world *w, const char *dir, const char *name,
		      bool since)
{
	autofree bool *dirty = calloc(w->nr_sectors, sizeof(*dirty));
	autostrbuf path = STRBUF_INIT;
	unsigned char buf[SECTOR_SIZE];
	bool ok = true;
	FILE *raw;

	if (!dirty || !read_dirty(dir, name, dirty, w->nr_sectors))
		return complain(name, "cannot be read");
	strbuf_printf(&path, "%s/raw", dir);
	raw = fopen(path.text, "r");
	for (uint64_t s = 0; raw && s < w->nr_sectors && ok; s++) {
		ok = fread(buf, sizeof(buf), 1, raw) == 1;
		if (ok && !is_zero(buf, sizeof(buf)) && !dirty[s])
			ok = since && world_is_initial(w, s, buf);
	}
	if (raw)
		fclose(raw);
	return (raw && ok) || complain(name, "lacks what was written");
}

static bool one_is_good(const struct world *w, const char *dir,
			const char *name, bool must_be, bool since)
{
	bool there, in_use;

	flags_of(dir, name, &there, &in_use);
	if (!there)
		return !must_be || complain(name, "is gone");
	return in_use || holds_all(w, dir, name, since);
}

bool bitmaps_are_good(const struct world *w, const char *dir, bool resized)
{
	bool there, in_use;

	flags_of(dir, "off", &there, &in_use);
	if (there && in_use && !resized)        /* nobody has used it */
		return complain("off", "is marked");
	return one_is_good(w, dir, "all", true, false) &&
	       one_is_good(w, dir, "new", false, true);
}
