/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * judge.c - writes through the engine onto a disk that loses power, and asks
 * programs that are not ours what is left (imgfs-internals(7), "The judge").
 *
 * One run: an image made by qemu-img is loaded into the simulated disk; threads
 * work on it; at some point the power goes; each sector that was not synced
 * survives or does not.  Then qemu-img checks the image (leaks are allowed) and
 * reads it: every sector holds what was last synced, or something written after
 * it.  One crash has many outcomes: --outcomes looks at several.  --at-sync lets the
 * power go when a sync begins, where most is at risk.  --twice: it goes again
 * while the image is opened for writing after it.  --torn: between these bytes
 * of the file a sector may come back as noise.  --make: a command makes
 * "template", with other files (--file) beside it, each on a disk of its own.
 * With --off one of the engine's mechanisms is missing, and a run must fail.
 */
#include "judge.h"

#include "codec.h"
#include "json.h"

#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/wait.h>

struct options opt = {
	.cluster = 64 * KiB, .first_seed = 1, .last_seed = 40, .threads = 4,
	.ops = 300, .outcomes = 1, .dir = ".", .format = "qcow2",
};

/* ---- the switches ----------------------------------------------------------- */

static bool lost_write;

static const struct {
	const char *name;
	bool *knob;
} switches[] = {
	{ "stages", &knobs.no_stages },
	{ "claims", &knobs.no_claims },
	{ "epochs", &knobs.no_epochs },
	{ "quarantine", &knobs.no_quarantine },
	{ "gate", &knobs.no_gate },
	{ "sticky", &knobs.no_sticky },
	{ "forget", &knobs.no_forget },
	{ "barriers", &knobs.no_barriers },
	{ "log-crc", &knobs.no_log_crc },
	{ "log-sync", &knobs.no_log_sync },
	{ "bitmap-mark", &knobs.no_bitmap_mark },
};

static void switch_off(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(switches); i++)
		if (!strcmp(switches[i].name, name)) {
			*switches[i].knob = true;
			return;
		}
	fprintf(stderr, "judge: no switch '%s'\n", name);
	exit(2);
}

/* ---- other programs ---------------------------------------------------------- */

int sh(const char *fmt, ...)
{
	autostrbuf cmd = STRBUF_INIT;
	va_list ap;
	int status;

	va_start(ap, fmt);
	strbuf_vprintf(&cmd, fmt, ap);
	va_end(ap);
	status = system(cmd.text);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

void must(int rc, const char *what)
{
	if (!rc)
		return;
	fprintf(stderr, "judge: %s failed (%d)\n", what, rc);
	exit(2);
}

void must_ok(int ret, struct err *err, const char *what)
{
	if (!ret)
		return;
	fprintf(stderr, "judge: %s: %s\n", what, err && err->text ? err->text :
		strerror(-ret));
	exit(2);
}

/* ---- the image to begin with -------------------------------------------------- */

static bool is_qcow2(void)
{
	return !strcmp(opt.format, "qcow2");
}

/* NULL: it cannot be opened. */
static struct image *try_open_on(struct file *f, struct err *err)
{
	struct image_args args = { .flags = IMAGE_RDWR | IMAGE_DISCARD };
	autojson *node = json_object();
	struct image *img;

	json_set_take(node, "driver", json_string(opt.format));
	args.node = node;
	return image_open_file(f, &args, &img, err) ? NULL : img;
}

static struct image *open_on(struct file *f)
{
	autoerr err = ERR_INIT;
	struct image *img = try_open_on(f, &err);

	must_ok(img ? 0 : -EIO, &err, "open");
	return img;
}

/* Of qcow2 the size of a cluster is a matter of choice; of other formats it is
 * only what --cluster says about it. */
static void create(const char *name)
{
	autostrbuf o = STRBUF_INIT;

	if (opt.make) {
		must(sh("cd '%s' && %s", opt.dir, opt.make), opt.make);
		return;
	}
	if (is_qcow2())
		strbuf_printf(&o, ",cluster_size=%" PRIu64, opt.cluster);
	if (opt.create)
		strbuf_printf(&o, ",%s", opt.create);
	if (opt.data)
		strbuf_printf(&o, ",data_file=%s/data,data_file_raw=%s",
			      opt.dir, strcmp(opt.data, "raw") ? "off" : "on");
	must(sh("qemu-img create -q -f %s %s%s '%s/%s' %" PRIu64, opt.format,
		o.len ? "-o " : "", o.len ? o.text + 1 : "", opt.dir, name,
		opt.size), "qemu-img create");
	/* Half of it are flags in L2, which QEMU leaves and we do not. */
	if (opt.data)
		must(sh("qemu-io -c 'write -z 0 %" PRIu64 "' '%s/%s'"
			" >/dev/null", opt.cluster * 20, opt.dir, name),
		     "qemu-io");
}

/* Other files of the image: their names are for what a crash leaves. */
static void files_aside(void)
{
	for (unsigned i = 0; i < opt.nr_files; i++)
		must(sh("mv '%s/%s' '%s/%s-template'", opt.dir, opt.files[i],
			opt.dir, opt.files[i]), "mv");
}

/* Every third stretch of the disk holds something; a snapshot holds it too. */
static void make_template(struct world *w)
{
	uint64_t step = 3 * opt.cluster / SECTOR_SIZE / 2 + 5;
	autofree unsigned char *buf = malloc(step * SECTOR_SIZE);
	autoerr err = ERR_INIT;
	struct image *img;
	struct file *f;

	create("template");
	files_aside();
	if (opt.bitmap)
		bitmaps_template(opt.dir);
	if (!opt.snapshot && !opt.bitmap)
		return;
	{
		autostrbuf path = STRBUF_INIT;

		strbuf_printf(&path, "%s/template", opt.dir);
		must_ok(file_open_path(path.text, FILE_RDWR, NULL, &f, &err),
			&err, "template");
	}
	img = open_on(f);
	file_unref(f);
	for (uint64_t s = 0; s + step <= w->nr_sectors; s += 3 * step) {
		world_initial(w, s, step, buf);
		must_ok(image_write(&img->live, buf, step * SECTOR_SIZE,
				    s * SECTOR_SIZE), NULL, "first data");
	}
	must_ok(image_close(img), NULL, "close");
	if (opt.snapshot)
		must(sh("qemu-img snapshot -c s '%s/template'", opt.dir),
		     "qemu-img snapshot");
}

/* ---- verdicts ------------------------------------------------------------------ */

static bool complain(const char *what, int rc)
{
	fprintf(stderr, "%s: %d\n", what, rc);
	sh("head -n 5 '%s/check' >&2", opt.dir);
	return false;
}

/*
 * What may be wrong until the image is opened for writing.  VDI: blocks that
 * were counted and have no entry, the count being ahead of them (vdi.md, "Order
 * of the two updates").  VPC: the file has grown and its end has no copy of the
 * footer; the one in front is good.  VHDX: of its two headers the one that was
 * being written.  Parallels: the mark that it is in use, and space behind the
 * last cluster.
 */
static bool is_expected(void)
{
	if (!strcmp(opt.format, "vdi"))
		return !sh("awk '!/^ERROR/ { next }"
			   " !/^ERROR: allocated blocks mismatch, is / { exit 1 }"
			   " { exit $6 + 0 > $9 + 0 }' '%s/check'", opt.dir);
	if (!strcmp(opt.format, "vpc"))
		return sh("grep '^ERROR' '%s/check' | grep -qv"
			  " 'no footer at the end of the file'", opt.dir);
	if (!strcmp(opt.format, "vhdx"))
		return sh("grep '^ERROR' '%s/check' | grep -qv"
			  " 'VHDX header [12] is damaged'", opt.dir);
	return !strcmp(opt.format, "parallels") &&
	       sh("grep '^ERROR' '%s/check' | grep -qv"
		  " -e 'image was not closed correctly'"
		  " -e 'space leaked at the end of the image'", opt.dir);
}

/* Who writes says so in the image.  QED's need-check bit is there after a crash
 * that has left anything, and gone after a proper end: which there may have been
 * before the second one. */
static bool mark_is_good(bool reopened)
{
	if (strcmp(opt.format, "qed") || (!reopened && opt.twice) ||
	    (!reopened && sh("grep -q '%% allocated' '%s/check'", opt.dir)))
		return true;
	return !sh("od -An -tu1 -j16 -N1 '%s/crashed' | grep -qx ' *%d'",
		   opt.dir, reopened ? 0 : 2) ||
	       complain("the mark of who writes", 1);
}

/* A format that qemu-img cannot check (63) is checked by itself.  Of VHDX it
 * must replay the log: that is its way of reading one. */
static bool check_is_good(bool reopened)
{
	bool vhdx = !strcmp(opt.format, "vhdx");
	int rc = sh("qemu-img check %s-f %s '%s/crashed' >'%s/check' 2>&1",
		    vhdx ? "-r all " : "", opt.format, opt.dir, opt.dir);

	/* It looks at little else. */
	if (!rc && (vhdx || !strcmp(opt.format, "vmdk")))
		rc = sh("'%s/imgctl' check -f %s '%s/crashed' >'%s/check'"
			" 2>&1", opt.bin, opt.format, opt.dir, opt.dir);
	if (rc == 63)
		rc = sh("'%s/imgctl' check -f %s '%s/crashed' >'%s/check'"
			" 2>&1", opt.bin, opt.format, opt.dir, opt.dir);
	if (rc == 0 || rc == 63 || rc == 3)     /* 3: leaks */
		return mark_is_good(reopened);
	if (rc == 2 && !reopened && is_expected())
		return true;
	return complain("check", rc);
}

/* Opening for writing, at the latest the first write, puts right what a crash
 * may leave. */
static bool write_again(struct image *img)
{
	unsigned char buf[SECTOR_SIZE];
	int ret = image_read(&img->live, buf, SECTOR_SIZE, 0);

	if (!ret)
		ret = image_write(&img->live, buf, SECTOR_SIZE, 0);
	return !image_close(img) && !ret;
}

/* The names of other files are those of files again. */
static struct image *open_crashed(unsigned flags)
{
	struct image_args args = { .flags = flags };
	autostrbuf path = STRBUF_INIT;
	autojson *node = json_object();
	autoerr err = ERR_INIT;
	struct image *img;
	struct file *f;

	disks_are(NULL);
	strbuf_printf(&path, "%s/crashed", opt.dir);
	json_set_take(node, "driver", json_string(opt.format));
	args.node = node;
	must_ok(file_open_path(path.text, flags & IMAGE_RDWR ? FILE_RDWR : 0,
			       NULL, &f, &err), &err, "crashed");
	if (image_open_file(f, &args, &img, &err)) {
		fprintf(stderr, "%s\n", err_text(&err));
		img = NULL;
	}
	file_unref(f);
	return img;
}

static bool reopen(void)
{
	struct image *img = open_crashed(IMAGE_RDWR | IMAGE_DISCARD);

	return img && write_again(img);
}

/* --twice: the power fails again while that goes on. */
static void crash_again(struct disks *after, uint64_t seed)
{
	struct disks second;
	struct image *img;
	uint64_t state = seed * 31 + 7;
	struct file *f = after->d[rnd(&state) % after->n];

	disks_are(after);
	for (int i = 0; i < 4; i++)
		rnd(&state);
	if (rnd(&state) & 1)
		power_crash_after(f, 1 + rnd(&state) % 16);
	else
		power_crash_sync(f, 1 + rnd(&state) % 4);
	img = try_open_on(after->d[0], NULL);
	if (img)
		(void)write_again(img);
	disks_crash(after);
	disks_after(after, seed + 5, &second);
	disks_free(after);
	*after = second;
}

static bool content_is_good(const struct world *w, const char *how,
			    bool (*good)(const struct world *, uint64_t,
					 const unsigned char *))
{
	autostrbuf path = STRBUF_INIT;
	unsigned char buf[SECTOR_SIZE];
	bool ok = true;
	FILE *raw;

	if (sh("qemu-img convert -f %s %s -O raw '%s/crashed' '%s/raw'",
	       opt.format, how, opt.dir, opt.dir))
		return false;
	strbuf_printf(&path, "%s/raw", opt.dir);
	raw = fopen(path.text, "r");
	for (uint64_t s = 0; raw && s < w->nr_sectors && ok; s++)
		ok = fread(buf, sizeof(buf), 1, raw) == 1 && good(w, s, buf);
	if (raw)
		fclose(raw);
	return raw && ok;
}

/* The same through our own driver, which does not change the image: a log is
 * replayed in memory. */
static bool we_read(const struct world *w)
{
	autofree unsigned char *buf = malloc(MiB);
	struct image *img = open_crashed(IMAGE_NO_LOCK);
	bool ok = true;

	if (!img)
		return false;
	for (uint64_t s = 0, n; ok && s < w->nr_sectors; s += n) {
		n = min_u64(MiB / SECTOR_SIZE, w->nr_sectors - s);
		ok = !image_read(&img->live, buf, n * SECTOR_SIZE,
				 s * SECTOR_SIZE);
		for (uint64_t i = 0; ok && i < n; i++)
			ok = world_after_crash(w, s + i,
					       buf + i * SECTOR_SIZE);
	}
	return !image_close(img) && (ok || complain("our own reader", 1));
}

/* A raw data file is what the guest reads; then 'raw' has been made. */
static bool data_is_good(void)
{
	if (!opt.data || strcmp(opt.data, "raw") ||
	    !sh("cmp '%s/data' '%s/raw' >&2", opt.dir, opt.dir))
		return true;
	return complain("the data file is not what the guest reads", 1);
}

static bool is_good(const struct world *w, const struct work *work)
{
	if (atomic_load(&work->misread)) {
		fprintf(stderr, "what was written was read otherwise\n");
		return false;
	}
	/* A write of unknown fate breaks the engine: from then on all fails
	 * (rule 6). */
	if (atomic_load(&work->errors) && !work->lost_write) {
		fprintf(stderr, "%u calls failed\n",
			(unsigned)atomic_load(&work->errors));
		return false;
	}
	/* Before anybody puts anything right. */
	if (!we_read(w))
		return false;
	if (!check_is_good(false) ||
	    !content_is_good(w, "", world_after_crash) || !data_is_good())
		return false;
	if (!is_qcow2())
		return reopen() && check_is_good(true) &&
		       content_is_good(w, "", world_after_crash);
	if (opt.bitmap && !bitmaps_are_good(w, opt.dir, opt.admin))
		return false;
	if (opt.admin && !admin_is_good(w, opt.dir))
		return false;
	return (!opt.snapshot || content_is_good(w, "-l s", world_is_initial));
}

/* ---- runs ---------------------------------------------------------------------- */

static void plan(struct work *work, uint64_t seed)
{
	uint64_t state = seed * 7919 + 13;

	for (int i = 0; i < 8; i++)
		rnd(&state);
	work->cut_at = opt.no_crash ? UINT32_MAX :
		       (unsigned)(rnd(&state) % opt.ops);
	work->cut_requests = (unsigned)(rnd(&state) % (seed & 1 ? 5 : 40));
	work->at_sync = opt.at_sync;
	if (opt.at_sync)
		work->cut_requests %= 3;
}

/* One of the outcomes of the crash. */
static bool judge_one(struct world *w, struct work *work,
		      const struct disks *all, uint64_t seed)
{
	struct disks after;

	disks_after(all, seed, &after);
	if (opt.twice)
		crash_again(&after, seed);
	disks_store(&after);
	disks_free(&after);
	return is_good(w, work);
}

/* In a process of its own: a crash of the engine is a verdict as well. */
static bool run_one(struct world *w, uint64_t seed)
{
	struct work work = {
		.world = w, .threads = opt.threads, .ops = opt.ops,
		.seed = seed, .packed = opt.packed, .holes = is_qcow2(),
		.lost_write = lost_write, .admin = opt.admin,
		.admin_bitmaps = opt.bitmap,
	};
	struct disks all;
	struct file *disk;
	bool ok = true;

	disks_load(&all);
	disk = all.d[0];
	power_tears(disk, opt.torn, opt.torn_end - opt.torn);
	/* Which of the disks stops first is chance: the others follow. */
	work.disk = all.d[seed / 2 % all.n];
	plan(&work, seed);
	work.img = open_on(disk);
	if (opt.bitmap)
		bitmaps_begin_work(&work);
	if (opt.bitmap && bitmaps_at_close(seed))
		work.cut_at = UINT32_MAX;
	work_run(&work);
	if (opt.bitmap && bitmaps_at_close(seed)) {
		power_crash_after(disk, 1 + work.cut_requests);
	} else if (!opt.no_crash) {
		atomic_store(&work.cut, true);
		disks_crash(&all);
	}
	(void)image_close(work.img);
	if (!opt.no_crash)
		disks_crash(&all);
	for (unsigned i = 0; ok && i < opt.outcomes; i++)
		ok = judge_one(w, &work, &all, seed * 64 + i);
	disks_free(&all);
	return ok;
}

static bool run_apart(struct world *w, unsigned seed)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(run_one(w, seed) ? 0 : 1);
	if (waitpid(pid, &status, 0) != pid)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) <= 1)
		return !WEXITSTATUS(status);
	fprintf(stderr, "seed %u: %s %d\n", seed,
		WIFSIGNALED(status) ? "signal" : "exit code",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	if (WIFEXITED(status))
		exit(2);
	return false;
}

static int run_all(struct world *w)
{
	unsigned bad = 0, n = opt.last_seed - opt.first_seed + 1;

	for (unsigned seed = opt.first_seed; seed <= opt.last_seed; seed++) {
		if (run_apart(w, seed))
			continue;
		bad++;
		fprintf(stderr, "seed %u: FAILED\n", seed);
		if (opt.expect_failure) {
			printf("without %s: seed %u fails\n",
			       opt.off ? opt.off : "anything", seed);
			return 0;
		}
		if (opt.keep)
			return 1;
	}
	printf("%s, cluster %" PRIu64 "%s%s%s%s%s: %u crashes, %u failures\n",
	       opt.name ? opt.name : opt.format, opt.cluster, opt.snapshot ? ", snapshot" : "",
	       opt.packed ? ", packed" : opt.bitmap ? ", bitmaps" : "", opt.data ? ", data file " : "",
	       opt.data ? opt.data : "", opt.admin ? ", snapshots and sizes" :
	       "", n, bad);
	return opt.expect_failure || bad;
}

/* ---- options --------------------------------------------------------------------- */

static void usage(void)
{
	fprintf(stderr, "usage: judge [--format F] [--cluster N] [--size N] [--seeds A-B]"
		" [--threads N] [--ops N]\n\t[--outcomes N] [--create OPTIONS] [--snapshot]"
		" [--data raw|plain] [--packed] [--bitmap] [--admin] [--lost-write] [--no-crash]\n\t[--at-sync] [--twice] [--torn A-B] [--make COMMAND]"
		" [--file NAME]... [--name NAME]\n\t[--off SWITCH]"
		" [--expect-failure] [--keep] [--dir DIR]\n");
	exit(2);
}

static void add_file(const char *name)
{
	if (opt.nr_files == MAX_DISKS)
		usage();
	opt.files[opt.nr_files++] = name;
}

static void parse_option(int c, char *arg)
{
	switch (c) {
	case 'F': opt.format = arg; break;
	case 'c': opt.cluster = strtoull(arg, NULL, 0); break;
	case 'z': opt.size = strtoull(arg, NULL, 0); break;
	case 's':
		if (sscanf(arg, "%u-%u", &opt.first_seed, &opt.last_seed) != 2)
			opt.last_seed = opt.first_seed;
		break;
	case 't': opt.threads = (unsigned)atoi(arg); break;
	case 'o': opt.ops = (unsigned)atoi(arg); break;
	case 'O': opt.outcomes = (unsigned)atoi(arg); break;
	case 'C': opt.create = arg; break;
	case 'S': opt.snapshot = true; break;
	case 'D':
		opt.data = arg;
		add_file("data");
		break;
	case 'm': opt.make = arg; break;
	case 'a': add_file(arg); break;
	case 'T':
		if (sscanf(arg, "%" SCNi64 "-%" SCNi64, &opt.torn,
			   &opt.torn_end) != 2)
			usage();
		break;
	case '2': opt.twice = true; break;
	case 'p': opt.packed = true; break;
	case 'B': opt.bitmap = true; break;
	case 'A': opt.admin = true; break;
	case 'f': lost_write = true; break;
	case 'n': opt.no_crash = true; break;
	case 'y': opt.at_sync = true; break;
	case 'x': opt.off = arg; switch_off(arg); break;
	case 'e': opt.expect_failure = true; break;
	case 'k': opt.keep = true; break;
	case 'N': opt.name = arg; break;
	case 'd': opt.dir = arg; break;
	default: usage();
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "format", 1, NULL, 'F' },
		{ "cluster", 1, NULL, 'c' }, { "size", 1, NULL, 'z' },
		{ "seeds", 1, NULL, 's' }, { "threads", 1, NULL, 't' },
		{ "ops", 1, NULL, 'o' }, { "create", 1, NULL, 'C' },
		{ "outcomes", 1, NULL, 'O' }, { "data", 1, NULL, 'D' },
		{ "snapshot", 0, NULL, 'S' }, { "packed", 0, NULL, 'p' },
		{ "lost-write", 0, NULL, 'f' }, { "no-crash", 0, NULL, 'n' },
		{ "at-sync", 0, NULL, 'y' }, { "off", 1, NULL, 'x' }, { "expect-failure", 0, NULL, 'e' },
		{ "bitmap", 0, NULL, 'B' }, { "admin", 0, NULL, 'A' },
		{ "make", 1, NULL, 'm' },
		{ "file", 1, NULL, 'a' }, { "torn", 1, NULL, 'T' },
		{ "twice", 0, NULL, '2' }, { "name", 1, NULL, 'N' },
		{ "keep", 0, NULL, 'k' }, { "dir", 1, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	struct world w;
	int c, ret;

	opt.bin = getenv("top_builddir") ? getenv("top_builddir") : ".";
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		parse_option(c, optarg);
	if (optind < argc || !opt.threads || opt.threads > 64)
		usage();
	if (!opt.size)
		opt.size = max_u64(MiB, 40 * opt.cluster);
	must_ok(world_init(&w, opt.size / SECTOR_SIZE), NULL, "memory");
	make_template(&w);
	ret = run_all(&w);
	world_free(&w);
	return ret;
}
