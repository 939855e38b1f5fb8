/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partitions.c - which table a disk has, the list that comes of it, and its
 * JSON.  Refuses to know the tables themselves: partitions-gpt.c and
 * partitions-mbr.c.  All bytes are a guest's, hence hostile (rule 14).
 */
#include "partitions.h"

#include "blockcore/json.h"

int scan_read(const struct partition_scan *s, void *buf, size_t len,
	      uint64_t off)
{
	int rc;

	if (!range_within(off, len, s->size))
		return 0;
	rc = image_read(s->view, buf, len, off);
	return rc < 0 ? rc : 1;
}

struct partition *scan_add(const struct partition_scan *s, unsigned number,
			   uint64_t start, uint64_t size)
{
	struct partition_table *t = s->table;
	struct partition *p;

	if (start >= s->size || !size || t->nr == PARTITION_MAX)
		return NULL;
	p = reallocarray(t->list, t->nr + 1, sizeof(*p));
	if (!p)
		return NULL;
	t->list = p;
	p += t->nr++;
	*p = (struct partition){
		.number = number,
		.start = start,
		.size = min_u64(size, s->size - start),
	};
	return p;
}

int partition_table_read(const struct view *v, struct partition_table *t)
{
	uint64_t size = v->root ? v->size : image_size(v->img);
	const struct partition_scan s = {
		.view = v,
		.size = round_down(size, SECTOR_SIZE),
		.table = t,
	};
	unsigned char sector0[SECTOR_SIZE];
	int rc;

	*t = (struct partition_table){ .scheme = PARTITION_NONE };
	rc = scan_read(&s, sector0, sizeof(sector0), 0);
	if (rc <= 0)
		return rc;
	if (!mbr_magic(sector0))
		return 0;
	rc = gpt_read(&s, sector0);
	if (!rc)
		rc = mbr_read(&s, sector0);
	if (rc < 0)
		partition_table_free(t);
	return rc < 0 ? rc : 0;
}

void partition_table_free(struct partition_table *t)
{
	for (unsigned i = 0; i < t->nr; i++)
		free(t->list[i].name);
	free(t->list);
	*t = (struct partition_table){ .scheme = PARTITION_NONE };
}

const struct partition *partition_find(const struct partition_table *t,
				       unsigned number)
{
	for (unsigned i = 0; i < t->nr; i++)
		if (t->list[i].number == number)
			return &t->list[i];
	return NULL;
}

/* ---- JSON ---------------------------------------------------------------- */

static struct json *partition_json(const struct partition *p)
{
	struct json *j = json_object();

	json_add_take(j, "number", json_uint(p->number));
	json_add_take(j, "start", json_uint(p->start));
	json_add_take(j, "size", json_uint(p->size));
	json_add_take(j, "type", json_string(p->type));
	if (p->name)
		json_add_take(j, "name", json_string(p->name));
	json_add_take(j, "uuid", json_string(p->uuid));
	json_add_take(j, "attributes", json_uint(p->attributes));
	if (p->container)
		json_add_take(j, "extended", json_bool(true));
	return j;
}

void partition_table_json(const struct partition_table *t, struct strbuf *out)
{
	static const char *const labels[] = { "none", "dos", "gpt" };
	autojson *root = json_object();
	struct json *list = json_array();

	json_add_take(root, "label", json_string(labels[t->scheme]));
	if (t->scheme != PARTITION_NONE) {
		json_add_take(root, "id", json_string(t->id));
		json_add_take(root, "sector-size", json_uint(t->sector));
	}
	if (t->scheme == PARTITION_GPT)
		json_add_take(root, "backup", json_bool(t->backup));
	for (unsigned i = 0; i < t->nr; i++)
		json_append_take(list, partition_json(&t->list[i]));
	json_add_take(root, "partitions", list);
	json_write(out, root, true, 0);
	strbuf_putc(out, '\n');
}
