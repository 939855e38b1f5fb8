/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-snapshot.c - the table of internal snapshots (qcow2.md 7): reads it,
 * makes the bytes of another one, and the views of what it names.
 *
 * Refuses to know what lies behind a snapshot's L1 table.
 */
#include "qcow2.h"
#include "snapshot.h"

#include <inttypes.h>

#define EXTRA_MAX 1024u         /* bytes of extra data in an entry */
#define EXTRA_KNOWN 24u         /* those that mean something here */
#define ID_MAX 127u             /* longer ones are cut off */
#define NAME_MAX_BYTES 255u
#define TABLE_MAX ((uint64_t)QCOW2_MAX_SNAPSHOTS * 1024)

static void snapshot_free(struct qcow2_snapshot *s)
{
	free(s->info.id);
	free(s->info.name);
	free(s->extra);
}

void qcow2_snapshots_free(struct qcow2_snapshots *list)
{
	for (size_t i = 0; i < list->n; i++)
		snapshot_free(&list->items[i]);
	free(list->items);
	*list = (struct qcow2_snapshots) { NULL, 0, 0 };
}

static int placed(const struct qcow2 *q, uint32_t n, struct err *err)
{
	uint64_t bytes = (uint64_t)n * QS_FIXED, end;

	if (q->snapshots_offset % (UINT64_C(1) << q->cluster_bits) ||
	    add_overflows(q->snapshots_offset, bytes, &end) ||
	    end > INT64_MAX)
		return err_set(err, -EINVAL, "Snapshot table offset invalid");
	return 0;
}

int qcow2_snapshots_placed(const struct qcow2 *q, struct err *err)
{
	if (q->nb_snapshots > QCOW2_MAX_SNAPSHOTS)
		return err_set(err, -EFBIG, "Snapshot table too large");
	return placed(q, q->nb_snapshots, err);
}

static int read_text(struct image *img, uint64_t at, uint32_t len, char **out)
{
	char *text = calloc(1, (size_t)len + 1);
	int ret = text ? meta_read(img, img->file, text, len, at) : -ENOMEM;

	if (ret)
		free(text);
	else
		*out = text;
	return ret;
}

static void parse_numbers(const struct image *img, const unsigned char *e,
			  struct qcow2_snapshot *s)
{
	s->l1_offset = be64_at(e + QS_L1_OFFSET);
	s->l1_size = be32_at(e + QS_L1_SIZE);
	s->extra_size = be32_at(e + QS_EXTRA_SIZE);
	s->info.date_sec = be32_at(e + QS_DATE_SEC);
	s->info.date_nsec = be32_at(e + QS_DATE_NSEC);
	s->info.vm_clock_nsec = be64_at(e + QS_VM_CLOCK_NSEC);
	s->vm_state_32 = be32_at(e + QS_VM_STATE_SIZE);
	s->info.vm_state_size = s->extra_size >= 8 ?
		be64_at(e + QS_EXTRA_VM_STATE_SIZE) :
		s->vm_state_32;
	s->info.disk_size = s->extra_size >= 16 ? be64_at(e + QS_EXTRA_DISK_SIZE) :
		image_size(img);
	s->info.icount = s->extra_size >= EXTRA_KNOWN ?
		(int64_t)be64_at(e + QS_EXTRA_ICOUNT) : -1;
}

static int extra_too_large(struct qcow2_snapshot *s, uint32_t index,
			   struct qcow2_mend *mend, struct err *err)
{
	if (mend) {
		check_say(mend->res, "Discarding too much extra metadata in"
			  " snapshot table entry %" PRIu32 " (%" PRIu32
			  " > %u)", index, s->extra_size, EXTRA_MAX);
		mend->entries++;
		s->extra_size = EXTRA_MAX;
		return 0;
	}
	err_set(err, -EFBIG, "Too much extra metadata in snapshot table entry"
		" %" PRIu32, index);
	err_hint(err, "You can force-remove this extra metadata with qemu-img"
		 " check -r all\n");
	return -EFBIG;
}

/* The entry at *@at, which moves behind it (the next one is 8-aligned). */
static int read_entry(struct image *img, uint64_t *at, uint32_t index,
		      struct qcow2_snapshot *s, struct qcow2_mend *mend,
		      struct err *err)
{
	unsigned char e[QS_FIXED + EXTRA_KNOWN];
	uint32_t id_len, name_len;
	uint64_t text;
	int ret = meta_read(img, img->file, e, sizeof(e), *at);

	if (ret)
		return err_errno(err, ret, "Failed to read snapshot table");
	parse_numbers(img, e, s);
	text = *at + QS_FIXED + s->extra_size;
	if (s->extra_size > EXTRA_MAX)
		ret = extra_too_large(s, index, mend, err);
	if (!ret)
		ret = read_text(img, *at + QS_FIXED, s->extra_size,
				(char **)&s->extra);
	if (ret)
		return ret;
	id_len = be16_at(e + QS_ID_LEN);
	name_len = be16_at(e + QS_NAME_LEN);
	ret = read_text(img, text, id_len < ID_MAX ? id_len : ID_MAX,
			&s->info.id);
	if (!ret)
		ret = read_text(img, text + id_len, name_len < NAME_MAX_BYTES ?
				name_len : NAME_MAX_BYTES, &s->info.name);
	*at = text + id_len + name_len;
	return ret;
}

/* Of the table no more than what was read before entry @list->n - 1. */
static int cut_off(struct image *img, struct qcow2_snapshots *list,
		   struct qcow2_mend *mend, struct err *err)
{
	uint32_t kept = (uint32_t)list->n - 1;
	uint32_t over = qcow2_of(img)->nb_snapshots - kept;

	if (!mend) {
		err_set(err, -EFBIG, "Snapshot table is too big");
		err_hint(err, "You can force-remove all %" PRIu32
			 " overhanging snapshots with qemu-img check -r all\n",
			 over);
		return -EFBIG;
	}
	check_say(mend->res, "Discarding %" PRIu32 " overhanging snapshots"
		  " (snapshot table is too big)", over);
	mend->over += over;
	snapshot_free(&list->items[kept]);
	list->n = kept;
	return 0;
}

static int read_all(struct image *img, uint32_t n,
		    struct qcow2_snapshots *list, struct qcow2_mend *mend,
		    struct err *err)
{
	uint64_t start = qcow2_of(img)->snapshots_offset, at = start;

	while (list->n < n) {
		uint32_t i = (uint32_t)list->n;
		int ret;

		at = round_up(at, 8);
		ret = read_entry(img, &at, i, &list->items[list->n++], mend,
				 err);
		if (ret)
			return ret;
		if (at - start > TABLE_MAX)
			return cut_off(img, list, mend, err);
		list->bytes = at - start;
	}
	return 0;
}

static int read_some(struct image *img, uint32_t n,
		     struct qcow2_snapshots *list, struct qcow2_mend *mend,
		     struct err *err)
{
	struct qcow2_snapshots found = { NULL, 0, 0 };
	int ret;

	found.items = calloc(n, sizeof(*found.items));
	if (!found.items)
		return -ENOMEM;
	ret = read_all(img, n, &found, mend, err);
	if (ret)
		qcow2_snapshots_free(&found);
	else
		*list = found;
	return ret;
}

int qcow2_snapshots_read(struct image *img, struct qcow2_snapshots *list,
			 struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	int ret;
	with_lock(&q->alloc);   /* another table may be on its way */

	ret = qcow2_snapshots_placed(q, err);
	*list = (struct qcow2_snapshots) { NULL, 0, 0 };
	if (ret || !q->nb_snapshots)
		return ret;
	return read_some(img, q->nb_snapshots, list, NULL, err);
}

int qcow2_snapshots_mend(struct image *img, struct qcow2_snapshots *list,
			 struct qcow2_mend *mend, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint32_t n = q->nb_snapshots < QCOW2_MAX_SNAPSHOTS ?
		     q->nb_snapshots : QCOW2_MAX_SNAPSHOTS;
	int ret = placed(q, n, err);

	*list = (struct qcow2_snapshots) { NULL, 0, 0 };
	if (ret || !n)
		return ret;
	mend->over = q->nb_snapshots - n;
	if (mend->over)
		check_say(mend->res, "Discarding %" PRIu32 " overhanging"
			  " snapshots", mend->over);
	return read_some(img, n, list, mend, err);
}

/* ---- another table -------------------------------------------------------- */

/* What QEMU writes is written, and what it would not know is kept. */
static uint32_t extra_stored(const struct qcow2_snapshot *s)
{
	return s->extra_size > EXTRA_KNOWN ? s->extra_size : EXTRA_KNOWN;
}

static size_t entry_size(const struct qcow2_snapshot *s)
{
	return QS_FIXED + extra_stored(s) + strlen(s->info.id) +
	       strlen(s->info.name);
}

static void encode_entry(const struct qcow2_snapshot *s, unsigned char *e)
{
	size_t id = strlen(s->info.id), name = strlen(s->info.name);
	uint32_t extra = extra_stored(s);

	be64_put(e + QS_L1_OFFSET, s->l1_offset);
	be32_put(e + QS_L1_SIZE, s->l1_size);
	be16_put(e + QS_ID_LEN, (uint16_t)id);
	be16_put(e + QS_NAME_LEN, (uint16_t)name);
	be32_put(e + QS_DATE_SEC, s->info.date_sec);
	be32_put(e + QS_DATE_NSEC, s->info.date_nsec);
	be64_put(e + QS_VM_CLOCK_NSEC, s->info.vm_clock_nsec);
	be32_put(e + QS_VM_STATE_SIZE, s->vm_state_32);
	be32_put(e + QS_EXTRA_SIZE, extra);
	if (s->extra_size)
		memcpy(e + QS_FIXED, s->extra, s->extra_size);
	be64_put(e + QS_EXTRA_VM_STATE_SIZE, s->info.vm_state_size);
	be64_put(e + QS_EXTRA_DISK_SIZE, s->info.disk_size);
	be64_put(e + QS_EXTRA_ICOUNT, (uint64_t)s->info.icount);
	memcpy(e + QS_FIXED + extra, s->info.id, id);
	memcpy(e + QS_FIXED + extra + id, s->info.name, name);
}

int qcow2_snapshots_encode(const struct qcow2_snapshots *list,
			   unsigned char **bytes, size_t *len)
{
	size_t size = 0, end = 0;
	unsigned char *table;

	for (size_t i = 0; i < list->n; i++)
		size = round_up(size, 8) + entry_size(&list->items[i]);
	if (size > TABLE_MAX)
		return -EFBIG;
	table = calloc(1, size + 1);
	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < list->n; i++) {
		encode_entry(&list->items[i], table + round_up(end, 8));
		end = round_up(end, 8) + entry_size(&list->items[i]);
	}
	*bytes = table;
	*len = size;
	return 0;
}

/* ---- list and views ------------------------------------------------------- */

int qcow2_snapshot_check(struct image *img, const struct qcow2_snapshot *s,
			 struct err *err)
{
	uint64_t bytes = (uint64_t)s->l1_size * 8, end;

	if (bytes > QCOW2_MAX_L1_BYTES)
		return err_set(err, -EFBIG, "Snapshot L1 table too large");
	if (s->l1_offset % img->unit ||
	    add_overflows(s->l1_offset, bytes, &end) || end > INT64_MAX ||
	    (bytes && !qcow2_inside(img, s->l1_offset + bytes - 1)))
		return err_set(err, -EINVAL,
			       "Snapshot L1 table offset invalid");
	if (s->info.disk_size > INT64_MAX)
		return err_set(err, -EFBIG, "Snapshot is too big");
	return 0;
}

static int list_infos(struct image *img, struct snapshot_info **items,
		      size_t *n, struct err *err)
{
	struct qcow2_snapshots list;
	int ret = qcow2_snapshots_read(img, &list, err);

	if (ret || !list.n)
		return ret;
	*items = calloc(list.n, sizeof(**items));
	if (!*items) {
		qcow2_snapshots_free(&list);
		return -ENOMEM;
	}
	*n = list.n;
	for (size_t i = 0; i < list.n; i++) {
		(*items)[i] = list.items[i].info;
		list.items[i].info.id = list.items[i].info.name = NULL;
	}
	qcow2_snapshots_free(&list);
	return 0;
}

static int view_of(struct image *img, const struct qcow2_snapshot *s,
		   struct view *v, struct err *err)
{
	struct qcow2_root *root;
	int ret = qcow2_snapshot_check(img, s, err);

	if (ret)
		return ret;
	root = malloc(sizeof(*root));
	if (!root)
		return -ENOMEM;
	*root = (struct qcow2_root) { s->l1_offset, s->l1_size };
	v->root = root;
	v->size = round_down(s->info.disk_size, SECTOR_SIZE);
	return 0;
}

static int view_open(struct image *img, const struct snapshot_key *key,
		     struct view *v, struct err *err)
{
	struct qcow2_snapshots list;
	struct snapshot_list infos = { NULL, 0 };
	int ret = qcow2_snapshots_read(img, &list, err);
	ssize_t i;

	if (ret)
		return ret;
	infos.items = calloc(list.n + 1, sizeof(*infos.items));
	for (i = 0; infos.items && i < (ssize_t)list.n; i++)
		infos.items[infos.n++] = list.items[i].info;
	i = infos.items ? snapshot_find(&infos, key) : -ENOMEM;
	if (i >= 0)
		ret = view_of(img, &list.items[i], v, err);
	else
		ret = err_set(err, (int)i, "Can't find snapshot");
	free(infos.items);
	qcow2_snapshots_free(&list);
	return ret;
}

static void view_close(struct view *v)
{
	free(v->root);
}

const struct format_snapshots qcow2_snapshot_ops = {
	.list = list_infos,
	.view = view_open,
	.view_close = view_close,
	.create = qcow2_snapshot_create,
	.remove = qcow2_snapshot_remove,
	.apply = qcow2_snapshot_apply,
	.rename = qcow2_snapshot_rename,
};
