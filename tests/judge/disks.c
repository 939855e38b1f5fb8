/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disks.c - the files of an image, each on a disk that loses power.
 *
 * Refuses to know what they hold, and when the power fails.
 */
#include "judge.h"

#include "codec.h"

static struct file *disk_load(const char *path)
{
	struct power_args args = { .size = 0 };
	autofree char *buf = malloc(MiB);
	autoerr err = ERR_INIT;
	struct file *from, *disk = power_new(&args);
	uint64_t size;

	must_ok(disk && buf ? 0 : -ENOMEM, NULL, "disk");
	must_ok(file_open_path(path, 0, NULL, &from, &err), &err, "template");
	must_ok(file_size(from, &size), NULL, "template");
	must_ok(file_truncate(disk, size), NULL, "disk");
	for (uint64_t at = 0; at < size; at += MiB) {
		size_t n = min_u64(MiB, size - at);

		must_ok(file_read(from, buf, n, at), NULL, "template");
		if (!is_zero(buf, n))
			must_ok(file_write(disk, buf, n, at), NULL, "disk");
	}
	must_ok(file_sync(disk), NULL, "disk");
	file_unref(from);
	return disk;
}

static const struct disks *disks;

/* What the engine gets for the name of a second file. */
static struct file *child_disk(const char *name)
{
	const char *slash = strrchr(name, '/');

	name = slash ? slash + 1 : name;
	for (unsigned i = 0; i < opt.nr_files; i++)
		if (!strcmp(name, opt.files[i]))
			return file_ref(disks->d[i + 1]);
	BUG("no disk is called '%s'", name);
}

void disks_are(const struct disks *all)
{
	disks = all;
	knobs.child = all && opt.nr_files ? child_disk : NULL;
}

void disks_load(struct disks *all)
{
	autostrbuf path = STRBUF_INIT;

	strbuf_printf(&path, "%s/template", opt.dir);
	all->d[0] = disk_load(path.text);
	for (unsigned i = 0; i < opt.nr_files; i++) {
		strbuf_free(&path);
		strbuf_printf(&path, "%s/%s-template", opt.dir, opt.files[i]);
		all->d[i + 1] = disk_load(path.text);
	}
	all->n = opt.nr_files + 1;
	disks_are(all);
}

void disks_crash(struct disks *all)
{
	for (unsigned i = 0; i < all->n; i++)
		power_crash(all->d[i]);
}

void disks_free(struct disks *all)
{
	for (unsigned i = 0; i < all->n; i++)
		file_unref(all->d[i]);
}

static void disk_store(struct file *disk, const char *name)
{
	autostrbuf path = STRBUF_INIT;

	strbuf_printf(&path, "%s/%s", opt.dir, name);
	must_ok(power_save(disk, path.text), NULL, "store");
}

/* What a power failure leaves; without one, what was written. */
void disks_after(const struct disks *all, uint64_t seed,
			struct disks *after)
{
	after->n = all->n;
	for (unsigned i = 0; i < all->n; i++)
		after->d[i] = opt.no_crash ? file_ref(all->d[i]) :
			      power_after(all->d[i], seed + 1 + (i > 0));
}

void disks_store(const struct disks *all)
{
	disk_store(all->d[0], "crashed");
	for (unsigned i = 1; i < all->n; i++)
		disk_store(all->d[i], opt.files[i - 1]);
}
