/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * admin.c - the judge of operations on the whole image: while the others write,
 * one thread makes snapshots and deletes them, changes the size (never below
 * what is written to) and, with --bitmap, adds, clears and removes bitmaps.
 *
 * After a crash a snapshot that was made and that nobody began to delete is
 * there, and every one that is there holds of each sector what had been
 * acknowledged when it was begun, or something written until it was there.  The
 * size is one that the disk has had, or was about to get.
 */
#include "judge.h"

#include "bitmap.h"
#include "resize.h"
#include "snapshot.h"

#include <inttypes.h>
#include <stdio.h>

enum { ALL = 256, LIVE = 4 };

struct made {
	char name[16];
	unsigned char *lo, *hi; /* version of each sector: at least, at most */
	bool there;             /* its making has ended well */
	bool dropped;           /* its deletion has begun */
};

static struct made made[ALL];
static unsigned nr_made;
static uint64_t sizes[ALL];
static unsigned nr_sizes;

static pthread_t thread;
static _Atomic bool ending;

/* ---- the work ---------------------------------------------------------------- */

static void outcome(struct work *work, int ret)
{
	if (ret && !atomic_load(&work->cut))
		atomic_fetch_add(&work->errors, 1);
}

static void create(struct work *work)
{
	struct made *m = &made[nr_made];
	int ret;

	if (nr_made == ALL)
		return;
	snprintf(m->name, sizeof(m->name), "made%u", nr_made);
	m->lo = world_snapshot(work->world);
	nr_made++;
	ret = image_snapshot_create(work->img, m->name, NULL, NULL, NULL);
	m->hi = world_handed(work->world);
	m->there = !ret;
	if (!ret)
		world_durable(work->world, m->lo);
	outcome(work, ret);
}

static unsigned live(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr_made; i++)
		n += made[i].there && !made[i].dropped;
	return n;
}

/* The @which-th that is there. */
static void delete(struct work *work, uint64_t which)
{
	struct snapshot_key key = { 0 };
	unsigned i = 0;

	for (which %= live(); !made[i].there || made[i].dropped || which; i++)
		which -= made[i].there && !made[i].dropped;
	made[i].dropped = true;
	key.name = made[i].name;
	outcome(work, image_snapshot_delete(work->img, &key, NULL, NULL));
}

static void resize(struct work *work, uint64_t *state)
{
	struct resize_args a = { .prealloc = rnd(state) % 2 ?
				 PREALLOC_OFF : PREALLOC_METADATA };
	uint64_t least = work->world->nr_sectors * SECTOR_SIZE;
	uint64_t size = least + rnd(state) % 5 * work->img->unit * 7 +
			rnd(state) % 9 * SECTOR_SIZE;

	if (nr_sizes == ALL || size == image_size(work->img))
		return;
	if (size < image_size(work->img))
		a.prealloc = PREALLOC_OFF;
	sizes[nr_sizes++] = size;
	outcome(work, image_resize(work->img, size, &a, NULL));
}

static void bitmap(struct work *work, uint64_t *state)
{
	char name[16];
	int ret = -EINVAL;

	snprintf(name, sizeof(name), "extra%u", (unsigned)(rnd(state) % 3));
	switch (rnd(state) % 3) {
	case 0:
		ret = bitmap_add(work->img, name, 4096, NULL);
		break;
	case 1:
		ret = bitmap_remove(work->img, name, NULL);
		break;
	default:
		ret = bitmap_clear(work->img, name, NULL);
	}
	/* It is there already, or is not. */
	if (ret != -EEXIST && ret != -ENOENT)
		outcome(work, ret);
}

static void *admin_main(void *data)
{
	struct work *work = data;
	uint64_t state = work->seed * 48271 + 11;

	while (!atomic_load(&ending) && !atomic_load(&work->cut)) {
		uint64_t dice = rnd(&state) % 10;

		if (dice < 3 && work->admin_bitmaps)
			bitmap(work, &state);
		else if (dice < 6)
			resize(work, &state);
		else if (live() < LIVE && dice < 8)
			create(work);
		else if (live())
			delete(work, rnd(&state));
	}
	return NULL;
}

void admin_start(struct work *work)
{
	sizes[nr_sizes++] = image_size(work->img);
	if (pthread_create(&thread, NULL, admin_main, work))
		BUG("cannot start the thread of --admin");
}

void admin_stop(void)
{
	atomic_store(&ending, true);
	pthread_join(thread, NULL);
}

/* ---- judging ------------------------------------------------------------------ */

static bool complain(const char *name, const char *what)
{
	fprintf(stderr, "snapshot %s %s\n", name, what);
	return false;
}

static int run(const char *dir, const char *fmt, const char *arg)
{
	autostrbuf cmd = STRBUF_INIT;

	strbuf_printf(&cmd, "cd '%s' && ", dir);
	strbuf_printf(&cmd, fmt, arg);
	return system(cmd.text);
}

static bool holds(const struct world *w, const char *dir,
		  const struct made *m)
{
	autostrbuf path = STRBUF_INIT;
	unsigned char buf[SECTOR_SIZE];
	bool ok = true;
	FILE *f;

	if (run(dir, "qemu-img convert -f qcow2 -O raw -l snapshot.name=%s"
		" crashed of-snapshot", m->name))
		return complain(m->name, "cannot be read");
	strbuf_printf(&path, "%s/of-snapshot", dir);
	f = fopen(path.text, "r");
	for (uint64_t s = 0; f && ok && s < w->nr_sectors; s++) {
		unsigned hi = m->hi ? m->hi[s] : w->handed[s];

		ok = fread(buf, sizeof(buf), 1, f) == 1 &&
		     world_between(w, s, buf, m->lo[s], hi);
		if (!ok)
			fprintf(stderr, "versions %u to %u are right%s%s\n",
				m->lo[s], hi, m->there ? ", made" : "",
				m->dropped ? ", dropped" : "");
	}
	if (f)
		fclose(f);
	return (f && ok) || complain(m->name, "is not the disk of its instant");
}

static bool size_is_good(const char *dir)
{
	char number[24];

	for (unsigned i = 0; i < nr_sizes; i++) {
		snprintf(number, sizeof(number), "%" PRIu64, sizes[i]);
		if (!run(dir, "qemu-img info --output=json crashed | grep -q"
			 " '\"virtual-size\": %s,'", number))
			return true;
	}
	fprintf(stderr, "the disk has a size that it never had\n");
	return false;
}

bool admin_is_good(const struct world *w, const char *dir)
{
	if (!size_is_good(dir))
		return false;
	for (unsigned i = 0; i < nr_made; i++) {
		const struct made *m = &made[i];
		bool found = !run(dir, "qemu-img snapshot -l crashed | grep -q"
				  " ' %s '", m->name);

		if (!found && m->there && !m->dropped)
			return complain(m->name, "is gone");
		if (found && !holds(w, dir, m))
			return false;
	}
	return true;
}
