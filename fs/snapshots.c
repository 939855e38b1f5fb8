/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshots.c - the directory snapshots/ and those in it: names, and the
 * commands that mkdir, rmdir and rename are.
 *
 * A name is shown as it is when it can be a file's.  What cannot is escaped: a
 * byte as %XX (also a % that would look like such a one), the empty name as a
 * lone %.  What is too long then, and the later ones of several that are alike,
 * end in %~ and the snapshot's ID, which is no escape.  mkdir and rename undo
 * the escapes; the exact name is in info.json.
 *
 * A name's number (of its nodes) stays while it means the same snapshot.
 */
#include "fs/snapshots.h"
#include "fs/ctl.h"
#include "fs/mimage.h"
#include "fs/tree.h"
#include "fs/views.h"

#include "report.h"
#include "snapshot.h"

#include <limits.h>
#include <stdio.h>

struct known {
	struct known *next;
	unsigned number, layer;
	struct snapshot_known k;
	bool listed;            /* in the table when it was last read */
	unsigned open;          /* handles */
	bool deleting;
};

/* m->snapshots */
struct names {
	struct known *list;
	unsigned last;
};

/* Guards all m->snapshots; no lock is taken under it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- escapes ----------------------------------------------------------------- */

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_escape(const char *s)
{
	return s[0] == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0;
}

static void escape(struct strbuf *out, const char *name)
{
	bool dots = !strcmp(name, ".") || !strcmp(name, "..");

	if (!*name)
		strbuf_putc(out, '%');
	for (; *name; name++) {
		unsigned char c = (unsigned char)*name;

		if (c < 0x20 || c == 0x7f || c == '/' || dots ||
		    is_escape(name) || (c == '%' && !name[1] && !out->len))
			strbuf_printf(out, "%%%02X", c);
		else
			strbuf_putc(out, *name);
	}
}

bool snapshot_name_of(const char *file, struct strbuf *name)
{
	if (!strcmp(file, "%"))
		file++;
	for (; *file; file++) {
		if (!is_escape(file)) {
			strbuf_putc(name, *file);
			continue;
		}
		if (!hex(file[1]) && !hex(file[2]))
			return false;
		strbuf_putc(name, (char)(hex(file[1]) << 4 | hex(file[2])));
		file += 2;
	}
	if (!name->len)
		strbuf_add(name, "", 0);
	return name->len <= 255;
}

/* Shortened to @max bytes, and no escape is cut in two. */
static void cut(struct strbuf *s, size_t max)
{
	size_t len = min_u64(s->len, max);

	if (len < s->len && len && s->text[len - 1] == '%')
		len--;
	else if (len < s->len && len > 1 && s->text[len - 2] == '%')
		len -= 2;
	s->len = len;
	s->text[len] = 0;
}

static bool taken(char *const *files, size_t n, const char *file)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(files[i], file))
			return true;
	return false;
}

/* The names of directories, in the table's order. */
static char **file_names(const struct snapshot_list *l)
{
	char **files = calloc(l->n + 1, sizeof(*files));

	BUG_ON(!files);
	for (size_t i = 0; i < l->n; i++) {
		autostrbuf s = STRBUF_INIT, end = STRBUF_INIT;

		escape(&s, l->items[i].name);
		while (s.len > NAME_MAX || taken(files, i, s.text)) {
			end.len = 0;
			strbuf_puts(&end, "%~");
			escape(&end, l->items[i].id);
			cut(&s, end.len < NAME_MAX ? NAME_MAX - end.len : 0);
			strbuf_puts(&s, end.text);
		}
		files[i] = strndup(s.text, s.len);
		BUG_ON(!files[i]);
	}
	return files;
}

/* ---- what is known (under the lock) -------------------------------------------- */

static struct names *names_of(struct mimage *m)
{
	if (!m->snapshots)
		m->snapshots = calloc(1, sizeof(struct names));
	BUG_ON(!m->snapshots);
	return m->snapshots;
}

void snapshot_known_free(struct snapshot_known *k)
{
	free(k->id);
	free(k->name);
	free(k->file);
	*k = (struct snapshot_known) { NULL };
}

void snapshots_forget(struct mimage *m)
{
	struct names *n = m->snapshots;
	struct known *k;

	while (n && (k = n->list)) {
		n->list = k->next;
		snapshot_known_free(&k->k);
		free(k);
	}
	free(n);
}

static struct known *by_number(struct mimage *m, unsigned number)
{
	struct known *k = names_of(m)->list;

	while (k && k->number != number)
		k = k->next;
	return k;
}

static struct known *by_file(struct mimage *m, unsigned layer,
			     const char *file)
{
	struct known *k = names_of(m)->list;

	while (k && !(k->listed && k->layer == layer &&
		      !strcmp(k->k.file, file)))
		k = k->next;
	return k;
}

static struct known *add(struct mimage *m, unsigned layer, const char *file)
{
	struct names *n = names_of(m);
	struct known *k = calloc(1, sizeof(*k));

	BUG_ON(!k);
	n->last = n->last % (NODE_NUMBER_MAX - 1) + 1;
	k->number = n->last;
	k->layer = layer;
	k->k.file = strdup(file);
	k->listed = true;
	k->next = n->list;
	n->list = k;
	return k;
}

/* One of the table: the same as before, or what was being made, or new. */
static void note(struct mimage *m, unsigned layer, const char *file,
		 const struct snapshot_info *info)
{
	struct known *k = names_of(m)->list;

	for (; k; k = k->next)
		if (k->layer == layer && !strcmp(k->k.file, file) &&
		    (k->k.id ? !strcmp(k->k.id, info->id) &&
		     !strcmp(k->k.name, info->name) : k->listed))
			break;
	if (!k)
		k = add(m, layer, file);
	k->listed = true;
	if (!k->k.id) {
		k->k.id = strdup(info->id);
		k->k.name = strdup(info->name);
	}
	k->k.size = round_down(info->disk_size, SECTOR_SIZE);
}

/* Those that nobody asks for any more, and that are not open. */
static void drop_gone(struct mimage *m)
{
	struct known **p = &names_of(m)->list, *k;
	unsigned gone = 0;

	for (k = *p; k; k = k->next)
		gone += !k->listed;
	while (gone > 1024 && (k = *p))
		if (k->listed || k->open) {
			p = &k->next;
		} else {
			*p = k->next;
			snapshot_known_free(&k->k);
			free(k);
		}
}

static void note_all(struct mimage *m, unsigned layer,
		     const struct snapshot_list *l)
{
	char **files = file_names(l);
	with_lock(&lock);

	for (struct known *k = names_of(m)->list; k; k = k->next)
		if (k->layer == layer && k->k.id)
			k->listed = false;
	for (size_t i = 0; i < l->n; i++) {
		note(m, layer, files[i], &l->items[i]);
		free(files[i]);
	}
	free(files);
	drop_gone(m);
}

int snapshots_refresh(struct mimage *m, unsigned layer)
{
	struct snapshot_list l;
	struct image *img;
	int ret = mimage_info_begin(m, layer, &img, NULL);

	if (ret)
		return ret;
	ret = image_snapshots(img, &l, NULL);
	mimage_info_end(m, img);
	if (ret)
		return ret;
	note_all(m, layer, &l);
	snapshot_list_free(&l);
	return 0;
}

static char *copy(const char *s)
{
	char *c = s ? strdup(s) : NULL;

	BUG_ON(s && !c);
	return c;
}

bool snapshot_known(struct mimage *m, unsigned number,
		    struct snapshot_known *out)
{
	const struct known *k;
	with_lock(&lock);

	k = by_number(m, number);
	if (!k)
		return false;
	*out = (struct snapshot_known) {
		copy(k->k.id), copy(k->k.name), copy(k->k.file), k->k.size,
	};
	return true;
}

unsigned snapshot_number(struct mimage *m, unsigned layer, const char *file)
{
	bool pending = !layer && ctl_pending(m, NODE_SNAPSHOTS, file);
	struct known *k;
	with_lock(&lock);

	k = by_file(m, layer, file);
	if (k && !k->k.id && !pending) {        /* it has come to nothing */
		k->listed = false;
		return 0;
	}
	if (!k && pending)
		k = add(m, layer, file);
	return k ? k->number : 0;
}

int snapshot_wait(struct mimage *m, unsigned number, _Atomic bool *cancel)
{
	struct snapshot_known k;
	int ret;

	if (!snapshot_known(m, number, &k))
		return -ENOENT;
	ret = k.id ? 0 : ctl_wait(m, NODE_SNAPSHOTS, k.file, cancel);
	if (!k.id && (!ret || ret == -ENOENT)) {
		bool there = false;

		ret = snapshots_refresh(m, 0);
		snapshot_known_free(&k);
		if (!ret && snapshot_known(m, number, &k))
			there = k.id;
		if (!ret && !there)
			ret = -ENOENT;
	}
	snapshot_known_free(&k);
	return ret;
}

/* ---- open or deleted ------------------------------------------------------------- */

int snapshot_hold(struct mimage *m, unsigned number)
{
	struct known *k;
	with_lock(&lock);

	k = by_number(m, number);
	if (!k || !k->k.id || !k->listed)
		return -ENOENT;
	if (k->deleting)
		return -EBUSY;
	k->open++;
	return 0;
}

void snapshot_release(struct mimage *m, unsigned number)
{
	struct known *k;
	with_lock(&lock);

	k = by_number(m, number);
	BUG_ON(!k);
	k->open--;
}

static bool is_snapshot(const struct known *k, const char *id,
			const char *name)
{
	return !k->layer && k->k.id && !strcmp(k->k.id, id) &&
	       !strcmp(k->k.name, name);
}

int snapshot_delete_begin(struct mimage *m, const char *id, const char *name)
{
	with_lock(&lock);

	for (struct known *k = names_of(m)->list; k; k = k->next)
		if (is_snapshot(k, id, name) && k->open)
			return -EBUSY;
	for (struct known *k = names_of(m)->list; k; k = k->next)
		k->deleting |= is_snapshot(k, id, name);
	return 0;
}

void snapshot_delete_end(struct mimage *m, const char *id, const char *name)
{
	with_lock(&lock);

	for (struct known *k = names_of(m)->list; k; k = k->next)
		if (is_snapshot(k, id, name))
			k->deleting = false;
}

/* ---- snapshots/ -------------------------------------------------------------------- */

static int snapshots_lookup(struct node *dir, const char *name,
			    enum patience p, struct node **child)
{
	unsigned number;
	int ret = p == AT_ONCE ? -EAGAIN :
		  snapshots_refresh(dir->m, dir->layer);

	if (ret)
		return ret;
	number = snapshot_number(dir->m, dir->layer, name);
	if (!number)
		return -ENOENT;
	*child = node_get(dir->mnt, dir->m, NODE_SNAPSHOT, dir->layer, number);
	return 0;
}

static int pending_number(const struct node *dir, const char *file,
			  unsigned *number)
{
	*number = snapshot_number(dir->m, 0, file);
	return *number ? 0 : -ENOENT;
}

static int snapshots_list(struct node *dir, enum patience p,
			  struct listing *l)
{
	int ret = p == AT_ONCE ? -EAGAIN :
		  snapshots_refresh(dir->m, dir->layer);

	if (ret)
		return ret;
	pthread_mutex_lock(&lock);
	for (struct known *k = names_of(dir->m)->list; k; k = k->next)
		if (k->listed && k->k.id && k->layer == dir->layer)
			listing_add(l, k->k.file,
				    node_get(dir->mnt, dir->m, NODE_SNAPSHOT,
					     dir->layer, k->number));
	pthread_mutex_unlock(&lock);
	listing_add_pending(l, dir, NODE_SNAPSHOT, pending_number);
	return 0;
}

static int snapshots_make(struct node *dir, const char *file, struct words *w,
			  struct err *err)
{
	autostrbuf name = STRBUF_INIT;
	int ret = snapshots_refresh(dir->m, 0);

	if (ret)
		return ret;
	if (!snapshot_name_of(file, &name))
		return err_set(err, -EINVAL, "'%s' is no name of a snapshot",
			       file);
	if (snapshot_number(dir->m, 0, file))
		return -EEXIST;
	words_add(w, "snapshot");
	words_add(w, "-c");
	words_add(w, name.text);
	return 0;
}

/* By ID and name: others may be called the same. */
static int exactly(struct node *dir, const char *file, struct words *w)
{
	struct snapshot_known k;
	unsigned number;
	int ret = snapshots_refresh(dir->m, 0);

	if (ret)
		return ret;
	number = snapshot_number(dir->m, 0, file);
	if (!number || !snapshot_known(dir->m, number, &k))
		return -ENOENT;
	if (k.id) {
		words_add(w, k.id);
		words_add(w, k.name);
	}
	ret = k.id ? 0 : -EBUSY;
	snapshot_known_free(&k);
	return ret;
}

static int snapshots_remove(struct node *dir, const char *file,
			    struct words *w, struct err *err)
{
	(void)err;
	words_add(w, "snapshot");
	words_add(w, "--delete-exactly");
	words_add(w, "--");
	return exactly(dir, file, w);
}

static int snapshots_rename(struct node *dir, const char *file,
			    const char *to, struct words *w, struct err *err)
{
	autostrbuf name = STRBUF_INIT;
	int ret;

	words_add(w, "snapshot");
	words_add(w, "--rename-exactly");
	words_add(w, "--");
	ret = exactly(dir, file, w);
	if (ret)
		return ret;
	if (!snapshot_name_of(to, &name))
		return err_set(err, -EINVAL, "'%s' is no name of a snapshot",
			       to);
	if (strcmp(file, to) && snapshot_number(dir->m, 0, to))
		return -EEXIST;
	words_add(w, name.text);
	return 0;
}

const struct dir_ops snapshots_ops = {
	.lookup = snapshots_lookup,
	.list = snapshots_list,
	.make = snapshots_make,
	.remove = snapshots_remove,
	.rename = snapshots_rename,
};

/* ---- snapshots/NAME ------------------------------------------------------------------- */

static int snapshot_lookup(struct node *dir, const char *name,
			   enum patience p, struct node **child)
{
	enum node_kind kind = !strcmp(name, "disk") ? NODE_SNAPSHOT_DISK :
			      !strcmp(name, "info.json") ?
			      NODE_SNAPSHOT_INFO : NR_NODE_KINDS;

	(void)p;
	if (kind == NR_NODE_KINDS)
		return -ENOENT;
	*child = node_get(dir->mnt, dir->m, kind, dir->layer, dir->number);
	return 0;
}

static int snapshot_list(struct node *dir, enum patience p, struct listing *l)
{
	(void)p;
	listing_add(l, "disk", node_get(dir->mnt, dir->m, NODE_SNAPSHOT_DISK,
					dir->layer, dir->number));
	listing_add(l, "info.json", node_get(dir->mnt, dir->m,
					     NODE_SNAPSHOT_INFO, dir->layer,
					     dir->number));
	return 0;
}

const struct dir_ops snapshot_ops = {
	.lookup = snapshot_lookup,
	.list = snapshot_list,
};

/* ---- snapshots/NAME/info.json ------------------------------------------------------------ */

static void info_text(struct strbuf *out, const struct snapshot_info *s)
{
	autojson *j = report_snapshot_json(s);

	json_add_take(j, "virtual-size", json_uint(s->disk_size));
	json_write(out, j, true, 0);
	strbuf_putc(out, '\n');
}

static int info_of(struct node *n, const struct snapshot_known *k,
		   struct strbuf *out)
{
	struct snapshot_key key = { .id = k->id, .name = k->name };
	struct snapshot_list l;
	struct image *img;
	ssize_t i;
	int ret = mimage_info_begin(n->m, n->layer, &img, NULL);

	if (ret)
		return ret;
	ret = image_snapshots(img, &l, NULL);
	mimage_info_end(n->m, img);
	if (ret)
		return ret;
	i = snapshot_find(&l, &key);
	if (i >= 0)
		info_text(out, &l.items[i]);
	snapshot_list_free(&l);
	return i < 0 ? (int)i : 0;
}

/* Its first read waits for the instant. */
static int info_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	struct snapshot_known k;
	int ret = snapshot_wait(n->m, n->number, &s->interrupted);

	if (ret)
		return ret;
	if (!snapshot_known(n->m, n->number, &k))
		return -ENOENT;
	ret = k.id ? info_of(n, &k, out) : -ENOENT;
	snapshot_known_free(&k);
	return ret;
}

static void info_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct work how = { .key = h, .bulky = true };

	text_read(req, h, len, off, h->node->mnt->workers, &how, info_fill);
}

const struct node_ops snapshot_info_ops = {
	.name = "info.json",
	.mode = 0444,
	.open = text_open,
	.read = info_read,
	.release = text_release,
};
