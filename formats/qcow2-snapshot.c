/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-snapshot.c - reads the table of internal snapshots (qcow2.md 7).
 *
 * Refuses to know what lies behind a snapshot's L1 table.
 */
#include "qcow2.h"

#include <inttypes.h>

#define EXTRA_MAX 1024u         /* bytes of extra data in an entry */
#define EXTRA_KNOWN 24u         /* those that mean something here */
#define ID_MAX 127u             /* longer ones are cut off */
#define NAME_MAX_BYTES 255u
#define TABLE_MAX ((uint64_t)QCOW2_MAX_SNAPSHOTS * 1024)

void qcow2_snapshots_free(struct qcow2_snapshots *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->items[i].info.id);
		free(list->items[i].info.name);
	}
	free(list->items);
	*list = (struct qcow2_snapshots) { NULL, 0, 0 };
}

int qcow2_snapshots_placed(const struct qcow2 *q, struct err *err)
{
	uint64_t bytes = (uint64_t)q->nb_snapshots * QS_FIXED, end;

	if (q->nb_snapshots > QCOW2_MAX_SNAPSHOTS)
		return err_set(err, -EFBIG, "Snapshot table too large");
	if (q->snapshots_offset % (UINT64_C(1) << q->cluster_bits) ||
	    add_overflows(q->snapshots_offset, bytes, &end) ||
	    end > INT64_MAX)
		return err_set(err, -EINVAL, "Snapshot table offset invalid");
	return 0;
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
	s->info.vm_state_size = s->extra_size >= 8 ?
		be64_at(e + QS_EXTRA_VM_STATE_SIZE) :
		be32_at(e + QS_VM_STATE_SIZE);
	s->disk_size = s->extra_size >= 16 ? be64_at(e + QS_EXTRA_DISK_SIZE) :
		image_size(img);
	s->info.icount = s->extra_size >= EXTRA_KNOWN ?
		(int64_t)be64_at(e + QS_EXTRA_ICOUNT) : -1;
}

/* The entry at *@at, which moves behind it (the next one is 8-aligned). */
static int read_entry(struct image *img, uint64_t *at, uint32_t index,
		      struct qcow2_snapshot *s, struct err *err)
{
	unsigned char e[QS_FIXED + EXTRA_KNOWN];
	uint32_t id_len, name_len;
	uint64_t text;
	int ret = meta_read(img, img->file, e, sizeof(e), *at);

	if (ret)
		return err_errno(err, ret, "Failed to read snapshot table");
	parse_numbers(img, e, s);
	if (s->extra_size > EXTRA_MAX) {
		err_set(err, -EFBIG, "Too much extra metadata in snapshot"
			" table entry %" PRIu32, index);
		err_hint(err, "You can force-remove this extra metadata with"
			 " qemu-img check -r all\n");
		return -EFBIG;
	}
	id_len = be16_at(e + QS_ID_LEN);
	name_len = be16_at(e + QS_NAME_LEN);
	text = *at + QS_FIXED + s->extra_size;
	ret = read_text(img, text, id_len < ID_MAX ? id_len : ID_MAX,
			&s->info.id);
	if (!ret)
		ret = read_text(img, text + id_len, name_len < NAME_MAX_BYTES ?
				name_len : NAME_MAX_BYTES, &s->info.name);
	*at = text + id_len + name_len;
	return ret;
}

static int read_all(struct image *img, struct qcow2_snapshots *list,
		    struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	uint64_t at = q->snapshots_offset;

	while (list->n < q->nb_snapshots) {
		uint32_t i = (uint32_t)list->n;
		int ret;

		at = round_up(at, 8);
		ret = read_entry(img, &at, i, &list->items[list->n++], err);
		if (ret)
			return ret;
		if (at - q->snapshots_offset <= TABLE_MAX)
			continue;
		err_set(err, -EFBIG, "Snapshot table is too big");
		err_hint(err, "You can force-remove all %" PRIu32
			 " overhanging snapshots with qemu-img check -r all\n",
			 q->nb_snapshots - i);
		return -EFBIG;
	}
	list->bytes = at - q->snapshots_offset;
	return 0;
}

int qcow2_snapshots_read(struct image *img, struct qcow2_snapshots *list,
			 struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct qcow2_snapshots found = { NULL, 0, 0 };
	int ret = qcow2_snapshots_placed(q, err);

	*list = found;
	if (ret || !q->nb_snapshots)
		return ret;
	found.items = calloc(q->nb_snapshots, sizeof(*found.items));
	if (!found.items)
		return -ENOMEM;
	ret = read_all(img, &found, err);
	if (ret)
		qcow2_snapshots_free(&found);
	else
		*list = found;
	return ret;
}
