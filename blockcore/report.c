/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * report.c - the text of `imgctl info` and `imgctl check`; see report.h.
 *
 * Knows the order of keys and lines of qemu-img 7.2 and 10.0 (qemu-img-cli.md 4,
 * 5, 8).  The human form of info is made from the JSON form, so that the two
 * cannot disagree.  Refuses to know any format: admin->info brings what is
 * special.
 */
#include "report.h"

#include "engine.h"
#include "spec.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define NSEC 1000000000u

/* ---- info: the object -------------------------------------------------------- */

static void set_uint(struct json *obj, const char *key, uint64_t v)
{
	json_set_take(obj, key, json_uint(v));
}

static void set_str(struct json *obj, const char *key, const char *s)
{
	json_set_take(obj, key, json_string(s));
}

static struct json *snapshot_json(const struct snapshot_info *s)
{
	struct json *obj = json_object();

	if (s->icount != -1)
		json_set_take(obj, "icount", json_int(s->icount));
	set_uint(obj, "vm-clock-nsec", s->vm_clock_nsec % NSEC);
	set_str(obj, "name", s->name);
	set_uint(obj, "date-sec", s->date_sec);
	set_uint(obj, "date-nsec", s->date_nsec);
	set_uint(obj, "vm-clock-sec", s->vm_clock_nsec / NSEC);
	set_str(obj, "id", s->id);
	set_uint(obj, "vm-state-size", s->vm_state_size);
	return obj;
}

static struct json *snapshots_json(const struct image_info *info)
{
	struct json *list = json_array();

	for (size_t i = 0; i < info->nr_snapshots; i++)
		json_append_take(list, snapshot_json(&info->snapshots[i]));
	return list;
}

/* A file as a node of its own, as 10.0 lists it below its image. */
static struct json *file_node_json(struct file *f)
{
	struct json *obj = json_object();
	struct json *specific;
	uint64_t n;

	json_set_take(obj, "children", json_array());
	if (file_size(f, &n) == 0)
		set_uint(obj, "virtual-size", round_up(n, SECTOR_SIZE));
	set_str(obj, "filename", f->name);
	set_str(obj, "format", f->ops->name);
	if (file_disk_usage(f, &n) == 0)
		set_uint(obj, "actual-size", n);
	if (!strcmp(f->ops->name, "file")) {
		specific = json_object();
		set_str(specific, "type", "file");
		json_set_take(specific, "data", json_object());
		json_set_take(obj, "format-specific", specific);
	}
	json_set_take(obj, "dirty-flag", json_bool(false));
	return obj;
}

static void child_append(struct json *list, const char *role, struct file *f)
{
	struct json *child = json_object();

	set_str(child, "name", role);
	json_set_take(child, "info", file_node_json(f));
	json_append_take(list, child);
}

/* Newest first; the backing image is never one of them. */
static struct json *children_json(struct image *img)
{
	struct json *list = json_array();

	for (unsigned i = img->nr_children; i-- > 0;)
		child_append(list, img->children[i].role,
			     img->children[i].file);
	child_append(list, "file", img->file);
	return list;
}

/* What the host stores for this image, all its files together. */
static int disk_usage(struct image *img, uint64_t *bytes)
{
	uint64_t sum, n;
	int ret = file_disk_usage(img->file, &sum);

	for (unsigned i = 0; i < img->nr_children && !ret; i++) {
		ret = file_disk_usage(img->children[i].file, &n);
		sum += n;
	}
	if (!ret)
		*bytes = sum;
	return ret;
}

/* Was it opened as a bare file ("-f file"), not as raw? */
static bool is_bare_file(const struct image *img)
{
	const char *driver = json_get_str(img->node, "driver");

	return driver && !strcmp(driver, img->file->ops->name);
}

static struct json *image_json(struct image *img, struct image_info *info)
{
	struct json *obj = json_object();
	autofree char *full = NULL;
	uint64_t n;

	if (img->backing_name)
		full = spec_join(img->name, img->backing_name);
	if (info->compressed)
		json_set_take(obj, "compressed", json_bool(true));
	if (qemu_compat() >= 100)
		json_set_take(obj, "children", children_json(img));
	if (img->backing_fmt)
		set_str(obj, "backing-filename-format", img->backing_fmt);
	if (info->nr_snapshots)
		json_set_take(obj, "snapshots", snapshots_json(info));
	set_uint(obj, "virtual-size", image_size(img));
	set_str(obj, "filename", img->name);
	if (info->cluster_size)
		set_uint(obj, "cluster-size", info->cluster_size);
	set_str(obj, "format", is_bare_file(img) ? img->file->ops->name :
		img->fmt->name);
	if (disk_usage(img, &n) == 0)
		set_uint(obj, "actual-size", n);
	if (info->specific)
		json_set_take(obj, "format-specific",
			      json_copy(info->specific));
	if (full)
		set_str(obj, "full-backing-filename", full);
	if (info->encrypted)
		json_set_take(obj, "encrypted", json_bool(true));
	if (full)
		set_str(obj, "backing-filename", img->backing_name);
	if (info->has_dirty)
		json_set_take(obj, "dirty-flag", json_bool(info->dirty));
	return obj;
}

/* A raw window on an image of another format has that one's clusters. */
static uint32_t cluster_size_below(struct image *img)
{
	struct image *in = img->fmt->probed_guard ? image_of_file(img->file) :
			   NULL;
	struct image_info info = { 0 };
	uint32_t size;

	if (!in || !in->fmt->admin || !in->fmt->admin->info ||
	    in->fmt->admin->info(in, &info, NULL))
		return 0;
	size = info.cluster_size;
	image_info_free(&info);
	return size;
}

int report_info_json(struct image *img, struct json **out, struct err *err)
{
	const struct format_admin *admin = img->fmt->admin;
	struct image_info info = { 0 };
	int ret = 0;

	if (is_bare_file(img) && qemu_compat() >= 100) {
		*out = file_node_json(img->file);
		return 0;
	}
	if (admin && admin->info)
		ret = admin->info(img, &info, err);
	if (!ret && !info.cluster_size)
		info.cluster_size = cluster_size_below(img);
	if (!ret)
		*out = image_json(img, &info);
	image_info_free(&info);
	return ret;
}

/* ---- info: the text ------------------------------------------------------------ */

static uint64_t uint_at(const struct json *obj, const char *key)
{
	const struct json *v = json_get(obj, key);

	if (!v || (v->type != JSON_UINT && v->type != JSON_INT))
		return 0;
	return v->u;
}

static bool true_at(const struct json *obj, const char *key)
{
	const struct json *v = json_get(obj, key);

	return v && v->type == JSON_BOOL && v->b;
}

static void dump(struct strbuf *out, const struct json *v, unsigned indent);

static void dump_value(struct strbuf *out, const struct json *v,
		       unsigned indent)
{
	switch (v->type) {
	case JSON_OBJECT:
	case JSON_ARRAY:
		strbuf_putc(out, '\n');
		dump(out, v, indent + 4);
		return;
	case JSON_STRING:
		strbuf_printf(out, " %s\n", v->s);
		return;
	case JSON_BOOL:
		strbuf_printf(out, " %s\n", v->b ? "true" : "false");
		return;
	default:
		strbuf_putc(out, ' ');
		json_write(out, v, false, 0);
		strbuf_putc(out, '\n');
	}
}

/* Members one a line, '-' of a name printed as a blank. */
static void dump(struct strbuf *out, const struct json *v, unsigned indent)
{
	for (size_t i = 0; i < v->n; i++) {
		strbuf_printf(out, "%*s", (int)indent, "");
		if (v->type == JSON_ARRAY)
			strbuf_printf(out, "[%zu]:", i);
		else
			for (const char *k = v->keys[i]; ; k++) {
				strbuf_putc(out, *k == '-' ? ' ' :
					    *k ? *k : ':');
				if (!*k)
					break;
			}
		dump_value(out, v->items[i], indent);
	}
}

static void line(struct strbuf *out, unsigned indent, const char *fmt, ...)
	printf_like(3, 4);
static void line(struct strbuf *out, unsigned indent, const char *fmt, ...)
{
	va_list ap;

	strbuf_printf(out, "%*s", (int)indent, "");
	va_start(ap, fmt);
	strbuf_vprintf(out, fmt, ap);
	va_end(ap);
	strbuf_putc(out, '\n');
}

static void clock_text(char *text, size_t n, uint64_t sec, uint64_t nsec)
{
	snprintf(text, n, qemu_compat() < 100 ?
		 "%02" PRIu64 ":%02u:%02u.%03u" :
		 "%04" PRIu64 ":%02u:%02u.%03u", sec / 3600,
		 (unsigned)(sec / 60 % 60), (unsigned)(sec % 60),
		 (unsigned)(nsec / 1000000));
}

static void snapshot_row(struct strbuf *out, unsigned indent,
			 const struct json *s)
{
	time_t when = (time_t)uint_at(s, "date-sec");
	const struct json *icount = json_get(s, "icount");
	autostrbuf size = STRBUF_INIT;
	char date[64] = "", clock[64], count[32];
	struct tm tm;

	if (localtime_r(&when, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
	clock_text(clock, sizeof(clock), uint_at(s, "vm-clock-sec"),
		   uint_at(s, "vm-clock-nsec"));
	size_human(&size, uint_at(s, "vm-state-size"));
	if (icount)
		snprintf(count, sizeof(count), "%" PRId64, icount->i);
	else
		strcpy(count, qemu_compat() < 100 ? "" : "--");
	line(out, indent, qemu_compat() < 100 ?
	     "%-9s %-16s %8s%20s%13s%11s" : "%-7s %-16s %8s %19s %15s %10s",
	     json_get_str(s, "id"), json_get_str(s, "name"), size.text, date,
	     clock, count);
}

static void snapshots_text(struct strbuf *out, unsigned indent,
			   const struct json *list)
{
	if (!list || !list->n)
		return;
	line(out, indent, "Snapshot list:");
	line(out, indent, qemu_compat() < 100 ?
	     "%-9s %-16s %8s%20s%13s%11s" : "%-7s %-16s %8s %19s %15s %10s",
	     "ID", "TAG", qemu_compat() < 100 ? "VM SIZE" : "VM_SIZE", "DATE",
	     qemu_compat() < 100 ? "VM CLOCK" : "VM_CLOCK", "ICOUNT");
	for (size_t i = 0; i < list->n; i++)
		snapshot_row(out, indent, list->items[i]);
}

void report_snapshots_text(struct strbuf *out,
			   const struct snapshot_info *items, size_t n)
{
	autojson *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_append_take(list, snapshot_json(&items[i]));
	snapshots_text(out, 0, list);
}

struct json *report_snapshot_json(const struct snapshot_info *s)
{
	return snapshot_json(s);
}

static void size_lines(struct strbuf *out, unsigned indent,
		       const struct json *info, const char *what)
{
	uint64_t size = uint_at(info, "virtual-size");
	autostrbuf text = STRBUF_INIT;
	autostrbuf used = STRBUF_INIT;

	size_human(&text, size);
	line(out, indent, "%s: %s (%" PRIu64 " bytes)", what, text.text, size);
	if (json_get(info, "actual-size"))
		size_human(&used, uint_at(info, "actual-size"));
	line(out, indent, "disk size: %s",
	     used.text ? used.text : "unavailable");
}

static void backing_lines(struct strbuf *out, unsigned indent,
			  const struct json *info)
{
	const char *name = json_get_str(info, "backing-filename");
	const char *full = json_get_str(info, "full-backing-filename");
	const char *format = json_get_str(info, "backing-filename-format");

	if (!name)
		return;
	if (full && strcmp(full, name))
		line(out, indent, "backing file: %s (actual path: %s)", name,
		     full);
	else
		line(out, indent, "backing file: %s", name);
	if (format)
		line(out, indent, "backing file format: %s", format);
}

static void specific_lines(struct strbuf *out, unsigned indent,
			   const struct json *info)
{
	const struct json *data = json_get(json_get(info, "format-specific"),
					   "data");

	if (!data || !data->n)
		return;
	line(out, indent, "Format specific information:");
	dump(out, data, indent + 4);
}

/* A file: it has no disk inside, so its lines have other names. */
static void protocol_text(struct strbuf *out, unsigned indent,
			  const struct json *info)
{
	line(out, indent, "filename: %s", json_get_str(info, "filename"));
	line(out, indent, "protocol type: %s", json_get_str(info, "format"));
	size_lines(out, indent, info, "file length");
	specific_lines(out, indent, info);
}

static void image_text(struct strbuf *out, const struct json *info)
{
	const struct json *children = json_get(info, "children");

	line(out, 0, "image: %s", json_get_str(info, "filename"));
	line(out, 0, "file format: %s", json_get_str(info, "format"));
	size_lines(out, 0, info, "virtual size");
	if (true_at(info, "encrypted"))
		line(out, 0, "encrypted: yes");
	if (json_get(info, "cluster-size"))
		line(out, 0, "cluster_size: %" PRIu64,
		     uint_at(info, "cluster-size"));
	if (true_at(info, "dirty-flag"))
		line(out, 0, "cleanly shut down: no");
	backing_lines(out, 0, info);
	snapshots_text(out, 0, json_get(info, "snapshots"));
	specific_lines(out, 0, info);
	for (size_t i = 0; children && i < children->n; i++) {
		const struct json *c = children->items[i];

		line(out, 0, "Child node '/%s':", json_get_str(c, "name"));
		protocol_text(out, 4, json_get(c, "info"));
	}
}

void report_info_text(struct strbuf *out, const struct json *info)
{
	image_text(out, info);
}

int report_info(struct strbuf *out, struct image *img, enum report_format how,
		struct err *err)
{
	autojson *info = NULL;
	int ret = report_info_json(img, &info, err);

	if (ret)
		return ret;
	if (how == REPORT_HUMAN) {
		image_text(out, info);
		return 0;
	}
	json_write(out, info, true, 0);
	strbuf_putc(out, '\n');
	return 0;
}

/* ---- check ---------------------------------------------------------------------- */

static void set_count(struct json *obj, const char *key, uint64_t n)
{
	if (n)
		set_uint(obj, key, n);
}

static void check_json(struct strbuf *out, const struct check_result *res,
		       const char *name, const char *format)
{
	autojson *obj = json_object();

	set_count(obj, "image-end-offset", res->image_end_offset);
	set_count(obj, "compressed-clusters", res->compressed_clusters);
	set_count(obj, "total-clusters", res->total_clusters);
	set_count(obj, "corruptions", res->corruptions);
	set_count(obj, "corruptions-fixed", res->corruptions_fixed);
	set_uint(obj, "check-errors", res->check_errors);
	set_count(obj, "leaks", res->leaks);
	set_count(obj, "leaks-fixed", res->leaks_fixed);
	set_count(obj, "allocated-clusters", res->allocated_clusters);
	set_str(obj, "filename", name);
	set_str(obj, "format", format);
	set_count(obj, "fragmented-clusters", res->fragmented_clusters);
	json_write(out, obj, true, 0);
	strbuf_putc(out, '\n');
}

static void findings_text(struct strbuf *out, const struct check_result *res)
{
	if (!res->corruptions && !res->leaks && !res->check_errors)
		strbuf_puts(out, "No errors were found on the image.\n");
	if (res->corruptions)
		strbuf_printf(out, "\n%" PRIu64 " errors were found on the"
			      " image.\nData may be corrupted, or further"
			      " writes to the image may corrupt it.\n",
			      res->corruptions);
	if (res->leaks)
		strbuf_printf(out, "\n%" PRIu64 " leaked clusters were found on"
			      " the image.\nThis means waste of disk space, but"
			      " no harm to data.\n", res->leaks);
	if (res->check_errors)
		strbuf_printf(out, "\n%" PRIu64 " internal errors have occurred"
			      " during the check.\n", res->check_errors);
}

static double percent(uint64_t part, uint64_t whole)
{
	return (double)part * 100.0 / (double)whole;
}

void report_check(struct strbuf *out, const struct check_result *res,
		  const char *name, const char *format, enum report_format how)
{
	uint64_t used = res->allocated_clusters;

	if (how == REPORT_JSON) {
		check_json(out, res, name, format);
		return;
	}
	findings_text(out, res);
	if (res->total_clusters && used)
		strbuf_printf(out, "%" PRIu64 "/%" PRIu64 " = %0.2f%%"
			      " allocated, %0.2f%% fragmented, %0.2f%%"
			      " compressed clusters\n", used,
			      res->total_clusters,
			      percent(used, res->total_clusters),
			      percent(res->fragmented_clusters, used),
			      percent(res->compressed_clusters, used));
	if (res->image_end_offset)
		strbuf_printf(out, "Image end offset: %" PRIu64 "\n",
			      res->image_end_offset);
}

void report_check_fixed(struct strbuf *out, const struct check_result *res)
{
	if (!res->leaks_fixed && !res->corruptions_fixed)
		return;
	strbuf_printf(out, "The following inconsistencies were found and"
		      " repaired:\n\n    %" PRIu64 " leaked clusters\n    %"
		      PRIu64 " corruptions\n\nDouble checking the fixed image"
		      " now...\n", res->leaks_fixed, res->corruptions_fixed);
}

int report_check_code(const struct check_result *res)
{
	if (res->check_errors)
		return 1;
	if (res->corruptions)
		return 2;
	return res->leaks ? 3 : 0;
}

/* ---- measure --------------------------------------------------------------- */

static void measure_json(struct strbuf *out, const struct measure *m)
{
	autojson *obj = json_object();

	if (m->has_bitmaps)
		json_set_take(obj, "bitmaps", json_uint(m->bitmaps));
	json_set_take(obj, "required", json_uint(m->required));
	json_set_take(obj, "fully-allocated", json_uint(m->full));
	json_write(out, obj, true, 0);
	strbuf_putc(out, '\n');
}

void report_measure(struct strbuf *out, const struct measure *m,
		    enum report_format how)
{
	if (how == REPORT_JSON) {
		measure_json(out, m);
		return;
	}
	strbuf_printf(out, "required size: %" PRIu64 "\n"
		      "fully allocated size: %" PRIu64 "\n", m->required,
		      m->full);
	if (m->has_bitmaps)
		strbuf_printf(out, "bitmaps size: %" PRIu64 "\n",
			      m->bitmaps);
}
