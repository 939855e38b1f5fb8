/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * folder.c - the folders of a mount: which of their files are images, under
 * which names.
 *
 * Knows a file by its identity, time and size, and peeks at each new or changed
 * regular file once.  Peeks run in a pool; one that takes over 100 ms goes on
 * behind the reply, and its file is listed the next time.  Refuses to know what
 * is in an image.
 *
 * All is under mnt->scan, which is not held while peeks are waited for.
 */
#include "fs/folder.h"
#include "json.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#define PEEK_MS 100

struct peek_job;

/* A regular file of a folder, or a link to one. */
struct entry {
	char *file;
	struct file_id id;
	bool link;
	struct peek_job *job;   /* peeking now, or NULL */
	struct peek peek;       /* once job is NULL */
	bool judged;            /* by it, whether to be listed */
	struct mimage *m;       /* while it is listed; counted */
};

struct folder {
	char *path;             /* as given, without slashes at the end */
	int fd;
	struct entry **entries; /* by name */
	size_t nr;
};

struct folders {
	struct folder **list;
	unsigned nr;
	struct mimage **fixed;  /* counted */
	unsigned nr_fixed;
	struct mimage **by_name;        /* hash of all that are listed */
	size_t nr_buckets;
	unsigned waiting;       /* jobs of this round: a listing waits for them */
	unsigned round;         /* ends when waiting took too long */
	uint64_t progress;      /* jobs done */
	pthread_cond_t peeked;
};

struct peek_job {
	struct work work;
	struct mount *mnt;
	struct folder *folder;
	char *file;
	bool link;
	unsigned round;         /* in which it began */
};

/* ---- names of images ------------------------------------------------------------- */

static struct mimage **bucket(const struct folders *fs, const char *name)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	return &fs->by_name[h % fs->nr_buckets];
}

static struct mimage *by_name(const struct folders *fs, const char *name)
{
	struct mimage *m;

	for (m = *bucket(fs, name); m; m = m->name_next)
		if (!strcmp(m->name, name))
			return m;
	return NULL;
}

static void name_add(struct folders *fs, struct mimage *m)
{
	struct mimage **b = bucket(fs, m->name);

	m->name_next = *b;
	*b = m;
}

static void name_del(struct folders *fs, struct mimage *m)
{
	struct mimage **p;

	for (p = bucket(fs, m->name); *p != m; p = &(*p)->name_next)
		;
	*p = m->name_next;
}

char *folders_new_name(struct mount *mnt, const char *want)
{
	char *name = strdup(want);
	size_t fits = strlen(want);

	BUG_ON(!name);
	if (fits > 255 - 12)
		fits = 255 - 12;
	for (unsigned i = 2; by_name(mnt->folders, name); i++) {
		free(name);
		if (asprintf(&name, "%.*s~%u", (int)fits, want, i) < 0)
			BUG("out of memory");
	}
	return name;
}

/* ---- peeking ------------------------------------------------------------------------- */

static int open_entry(const struct peek_job *j)
{
	autofree char *path = NULL;
	struct stat st;
	int fd;

	if (j->link) {
		if (asprintf(&path, "%s/%s", j->folder->path, j->file) < 0)
			BUG("out of memory");
		return policy_open(j->mnt->sources, path, O_RDONLY, 0, NULL);
	}
	fd = openat(j->folder->fd, j->file, O_RDONLY | O_NONBLOCK | O_NOCTTY |
		    O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return -ENOTSUP;
}

/* What cannot be read is not listed. */
static void peek_now(const struct peek_job *j, struct peek *p)
{
	int fd;

	memset(p, 0, sizeof(*p));
	pause_point("peek");
	do {
		fd = open_entry(j);
	} while ((fd == -EMFILE || fd == -ENFILE) && life_make_room(j->mnt));
	if (fd < 0)
		return;
	peek_file(fd, j->file, j->mnt->opt->raw, p);
	close(fd);
}

static int compare_file(const void *key, const void *e)
{
	return strcmp(key, (*(struct entry *const *)e)->file);
}

static struct entry *entry_find(const struct folder *f, const char *file)
{
	struct entry **e = f->nr ? bsearch(file, f->entries, f->nr,
					   sizeof(*e), compare_file) : NULL;

	return e ? *e : NULL;
}

static void peek_run(struct work *w)
{
	struct peek_job *j = container_of(w, struct peek_job, work);
	struct folders *fs = j->mnt->folders;
	struct entry *e;
	struct peek p;
	bool late;

	peek_now(j, &p);
	pthread_mutex_lock(&j->mnt->scan);
	e = entry_find(j->folder, j->file);
	if (e && e->job == j) {
		e->job = NULL;
		e->peek = p;
		e->judged = false;
	} else {
		peek_free(&p);
	}
	late = j->round != fs->round;
	fs->progress++;
	if (!late)
		fs->waiting--;
	pthread_cond_broadcast(&fs->peeked);
	pthread_mutex_unlock(&j->mnt->scan);
	if (late)       /* the kernel may believe that there is no such file */
		notify_entry(j->mnt, FUSE_ROOT_ID, j->file);
	free(j->file);
	free(j);
}

static void peek_start(struct mount *mnt, struct folder *f, struct entry *e)
{
	struct peek_job *j = calloc(1, sizeof(*j));

	BUG_ON(!j);
	j->mnt = mnt;
	j->folder = f;
	j->file = strdup(e->file);
	BUG_ON(!j->file);
	j->link = e->link;
	j->work.run = peek_run;
	peek_free(&e->peek);
	e->job = j;
	j->round = mnt->folders->round;
	mnt->folders->waiting++;
	work_submit(mnt->peekers, &j->work);
}

/* ---- reading a folder ----------------------------------------------------------------- */

/* The image behind @e is no longer there. */
static void entry_unlist(struct mount *mnt, struct entry *e)
{
	struct mimage *m = e->m;

	if (!m)
		return;
	e->m = NULL;
	name_del(mnt->folders, m);
	m->gone = true;
	notify_entry(mnt, FUSE_ROOT_ID, m->name);
	life_kick(mnt);
	mimage_unref(m);
}

static void entry_free(struct mount *mnt, struct entry *e)
{
	entry_unlist(mnt, e);
	peek_free(&e->peek);
	free(e->file);
	free(e);
}

/* The file's state now; false: it is no file of ours.  Opens nothing: where a
 * link leads is judged when it is opened. */
static bool entry_stat(const struct folder *f, const char *file,
		       struct file_id *id, bool *link)
{
	struct stat st;

	if (fstatat(f->fd, file, &st, AT_SYMLINK_NOFOLLOW))
		return false;
	*link = S_ISLNK(st.st_mode);
	if (*link && fstatat(f->fd, file, &st, 0))
		return false;
	file_id_of(&st, id);
	return S_ISREG(st.st_mode);
}

static struct entry *entry_new(const char *file)
{
	struct entry *e = calloc(1, sizeof(*e));

	BUG_ON(!e);
	e->file = strdup(file);
	BUG_ON(!e->file);
	return e;
}

/* @old, or NULL, is what was there.  The entry as it is now, or NULL. */
static struct entry *entry_refresh(struct mount *mnt, struct folder *f,
				   const char *file, struct entry *old)
{
	struct file_id id;
	struct entry *e = old;
	bool link;

	if (!entry_stat(f, file, &id, &link)) {
		if (old)
			entry_free(mnt, old);
		return NULL;
	}
	if (!e)
		e = entry_new(file);
	else if (file_id_equal(&id, &e->id) && link == e->link)
		return e;
	if (old && !file_id_same_file(&id, &e->id))
		entry_unlist(mnt, e);
	e->id = id;
	e->link = link;
	peek_start(mnt, f, e);
	return e;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static DIR *open_dir(struct mount *mnt, const struct folder *f)
{
	DIR *dir;
	int fd;

	do {
		fd = openat(f->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} while (fd < 0 && (errno == EMFILE || errno == ENFILE) &&
		 life_make_room(mnt));
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

/* All names but those of folders; sorted.  False: the folder cannot be read. */
static bool read_names(struct mount *mnt, const struct folder *f,
		       char ***list, size_t *n)
{
	DIR *dir = open_dir(mnt, f);
	char **names = NULL, **grown;
	size_t room = 0;
	struct dirent *d;

	*n = 0;
	if (!dir)
		return false;
	while ((d = readdir(dir))) {
		if (d->d_type != DT_REG && d->d_type != DT_LNK &&
		    d->d_type != DT_UNKNOWN)
			continue;
		if (*n == room) {
			room = room ? 2 * room : 64;
			grown = reallocarray(names, room, sizeof(*names));
			BUG_ON(!grown);
			names = grown;
		}
		names[*n] = strdup(d->d_name);
		BUG_ON(!names[*n]);
		++*n;
	}
	closedir(dir);
	if (*n)
		qsort(names, *n, sizeof(*names), compare_names);
	*list = names;
	return true;
}

/* Both lists are sorted: the entries that stay, go and come.  A folder that
 * cannot be read now is left as it was. */
static void folder_scan(struct mount *mnt, struct folder *f)
{
	size_t nr_names, at = 0, nr = 0;
	struct entry **now, *e;
	char **names;

	if (!read_names(mnt, f, &names, &nr_names))
		return;
	now = calloc(nr_names + 1, sizeof(struct entry *));
	BUG_ON(!now);
	for (size_t i = 0; i < nr_names; i++) {
		while (at < f->nr && strcmp(f->entries[at]->file, names[i]) < 0)
			entry_free(mnt, f->entries[at++]);
		e = NULL;
		if (at < f->nr && !strcmp(f->entries[at]->file, names[i]))
			e = f->entries[at++];
		e = entry_refresh(mnt, f, names[i], e);
		if (e)
			now[nr++] = e;
		free(names[i]);
	}
	while (at < f->nr)
		entry_free(mnt, f->entries[at++]);
	free(names);
	free(f->entries);
	f->entries = now;
	f->nr = nr;
}

/* ---- what is listed ---------------------------------------------------------------------- */

static int compare_extent(const void *key, const void *e)
{
	return strcmp(key, *(char *const *)e);
}

/* Names of files of the folder that images of it call their parts; sorted. */
static char **named_parts(const struct folder *f, size_t *n)
{
	char **parts;
	size_t all = 0;

	for (size_t i = 0; i < f->nr; i++)
		all += f->entries[i]->peek.nr_extents;
	parts = calloc(all + 1, sizeof(*parts));
	BUG_ON(!parts);
	*n = 0;
	for (size_t i = 0; i < f->nr; i++) {
		const struct entry *e = f->entries[i];

		for (unsigned x = 0; x < e->peek.nr_extents; x++) {
			char *name = e->peek.extents[x];

			if (!strncmp(name, "./", 2))
				name += 2;
			if (strcmp(name, e->file))
				parts[(*n)++] = name;
		}
	}
	if (*n)
		qsort(parts, *n, sizeof(*parts), compare_names);
	return parts;
}

/* The specification of a file of a folder, whatever its name looks like. */
static struct json *entry_node(const struct mount *mnt, const char *path)
{
	struct json *node = json_object(), *file = json_object();

	json_set_take(file, "driver", json_string("file"));
	json_set_take(file, "filename", json_string(path));
	if (mnt->opt->format)
		json_set_take(node, "driver", json_string(mnt->opt->format));
	json_set_take(node, "file", file);
	return node;
}

static void entry_list(struct mount *mnt, const struct folder *f,
		       struct entry *e)
{
	autofree char *name = folders_new_name(mnt, e->file);
	autofree char *path = NULL;

	if (asprintf(&path, "%s/%s", f->path, e->file) < 0)
		BUG("out of memory");
	e->m = mimage_new(mnt, name, path, entry_node(mnt, path));
	e->m->id = e->id;
	name_add(mnt->folders, e->m);
}

/* Of an entry that is being peeked at anew, what was known still holds. */
static void folder_list(struct mount *mnt, struct folder *f)
{
	size_t n;
	autofree char **parts = named_parts(f, &n);

	for (size_t i = 0; i < f->nr; i++) {
		struct entry *e = f->entries[i];
		bool listed = e->peek.image;

		if (e->job)
			continue;
		e->judged = true;
		if (n && bsearch(e->file, parts, n, sizeof(*parts),
				 compare_extent))
			listed = false;
		if (!listed)
			entry_unlist(mnt, e);
		else if (!e->m)
			entry_list(mnt, f, e);
	}
}

/* ---- scanning: under mnt->scan ------------------------------------------------------------ */

/* Until all peeks are done, or none has ended for a while. */
static void wait_for_peeks(struct mount *mnt)
{
	struct folders *fs = mnt->folders;
	struct timespec until;
	uint64_t seen;

	while (fs->waiting) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += PEEK_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		seen = fs->progress;
		while (fs->waiting && fs->progress == seen)
			if (pthread_cond_timedwait(&fs->peeked, &mnt->scan,
						   &until)) {
				fs->waiting = 0;
				fs->round++;
				return;
			}
	}
}

static void scan(struct mount *mnt)
{
	struct folders *fs = mnt->folders;

	for (unsigned i = 0; i < fs->nr; i++)
		folder_scan(mnt, fs->list[i]);
	wait_for_peeks(mnt);
	for (unsigned i = 0; i < fs->nr; i++)
		folder_list(mnt, fs->list[i]);
}

struct mimage **folders_list(struct mount *mnt, size_t *n)
{
	struct folders *fs = mnt->folders;
	struct mimage **list;
	size_t all;

	with_lock(&mnt->scan);
	scan(mnt);
	all = fs->nr_fixed;
	for (unsigned i = 0; i < fs->nr; i++)
		all += fs->list[i]->nr;
	list = calloc(all + 1, sizeof(*list));
	BUG_ON(!list);
	*n = 0;
	for (unsigned i = 0; i < fs->nr_fixed; i++)
		list[(*n)++] = mimage_ref(fs->fixed[i]);
	for (unsigned i = 0; i < fs->nr; i++)
		for (size_t k = 0; k < fs->list[i]->nr; k++)
			if (fs->list[i]->entries[k]->m)
				list[(*n)++] = mimage_ref(
					fs->list[i]->entries[k]->m);
	return list;
}

/* Is the folder's file @name as it was when it was last judged? */
static bool as_it_was(const struct folder *f, const char *name)
{
	const struct entry *e = entry_find(f, name);
	struct file_id id;
	bool link;

	if (!entry_stat(f, name, &id, &link))
		return !e;
	return e && !e->job && e->judged && file_id_equal(&id, &e->id) && link == e->link;
}

static bool nothing_new(const struct folders *fs, const char *name)
{
	if (strchr(name, '~'))  /* may be anybody's second name */
		return false;
	for (unsigned i = 0; i < fs->nr; i++)
		if (!as_it_was(fs->list[i], name))
			return false;
	return true;
}

/* Images that are written to change: what matters is whether it is the same
 * file. */
static bool still_there(struct mimage *m)
{
	struct file_id now;
	struct stat st;

	if (m->fixed)
		return true;
	if (stat(m->path, &st))
		return false;
	file_id_of(&st, &now);
	with_lock(&m->lock);
	return file_id_same_file(&now, &m->id);
}

int folders_lookup(struct mount *mnt, const char *name, bool fast,
		   struct mimage **found)
{
	struct folders *fs = mnt->folders;
	struct mimage *m;

	with_lock(&mnt->scan);
	m = by_name(fs, name);
	if (m ? !still_there(m) : !nothing_new(fs, name)) {
		if (fast)
			return -EAGAIN;
		scan(mnt);
		m = by_name(fs, name);
	}
	*found = m ? mimage_ref(m) : NULL;
	return 0;
}

/* ---- set-up -------------------------------------------------------------------------------- */

struct folders *folders_new(void)
{
	struct folders *fs = calloc(1, sizeof(*fs));
	pthread_condattr_t attr;

	BUG_ON(!fs);
	fs->nr_buckets = 4093;
	fs->by_name = calloc(fs->nr_buckets, sizeof(*fs->by_name));
	BUG_ON(!fs->by_name);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&fs->peeked, &attr);
	pthread_condattr_destroy(&attr);
	return fs;
}

int folders_add(struct mount *mnt, const char *path, struct err *err)
{
	struct folders *fs = mnt->folders;
	struct folder *f = calloc(1, sizeof(*f));
	size_t len = strlen(path);

	BUG_ON(!f);
	while (len > 1 && path[len - 1] == '/')
		len--;
	f->path = strndup(path, len);
	f->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fs->list = reallocarray(fs->list, fs->nr + 1, sizeof(*fs->list));
	BUG_ON(!f->path || !fs->list);
	if (f->fd < 0) {
		err_errno(err, -errno, "Could not open '%s'", path);
		free(f->path);
		free(f);
		return err->code;
	}
	fs->list[fs->nr++] = f;
	return 0;
}

void folders_add_image(struct mount *mnt, struct mimage *m)
{
	struct folders *fs = mnt->folders;

	fs->fixed = reallocarray(fs->fixed, fs->nr_fixed + 1,
				 sizeof(*fs->fixed));
	BUG_ON(!fs->fixed);
	fs->fixed[fs->nr_fixed++] = m;
	name_add(fs, m);
}

const char *folders_path(const struct mount *mnt)
{
	return mnt->folders->nr ? mnt->folders->list[0]->path : NULL;
}

static void folder_free(struct mount *mnt, struct folder *f)
{
	for (size_t i = 0; i < f->nr; i++)
		entry_free(mnt, f->entries[i]);
	free(f->entries);
	close(f->fd);
	free(f->path);
	free(f);
}

void folders_free(struct mount *mnt)
{
	struct folders *fs = mnt->folders;

	if (!fs)
		return;
	for (unsigned i = 0; i < fs->nr; i++)
		folder_free(mnt, fs->list[i]);
	for (unsigned i = 0; i < fs->nr_fixed; i++) {
		name_del(fs, fs->fixed[i]);
		mimage_unref(fs->fixed[i]);
	}
	pthread_cond_destroy(&fs->peeked);
	free(fs->list);
	free(fs->fixed);
	free(fs->by_name);
	free(fs);
	mnt->folders = NULL;
}
