/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels-bundle.c - Parallels' .hdd bundles, by their DiskDescriptor.xml
 * (parallels.md): storages that follow each other on the disk, and for each a
 * chain of images, one per snapshot.  Ours alone, and read-only.  The older
 * states are snapshots (parallels-states.c).
 *
 * What a table has no cluster for is asked of the image before it; what none
 * has is zeroes.  The images are only reached through child_open().
 */
#include "parallels-bundle.h"
#include "parallels.h"

#include "json.h"

#include <inttypes.h>
#include <stdio.h>

#define NAME "DiskDescriptor.xml"

/* ---- opening ------------------------------------------------------------- */

/* Its name must say so: a guest could write such a text into a raw disk. */
static int bundle_probe(const struct probe *p)
{
	const char *slash = p->name ? strrchr(p->name, '/') : NULL;
	const char *name = slash ? slash + 1 : p->name;

	if (probe_as_qemu || !name || strcmp(name, NAME))
		return 0;
	return memmem(p->head, p->head_len, "<Parallels_disk_image", 21) ?
	       100 : 0;
}

static int open_table(struct bundle_image *i, struct err *err)
{
	unsigned char h[PH_LENGTH];
	bool v2;
	int ret = file_read(i->file, h, sizeof(h), 0);

	if (ret)
		return err_errno(err, ret, "Could not read the header of '%s'",
				 i->name);
	ret = parallels_check_header(h, i->end, err);
	if (ret) {
		err_prefix(err, "'%s': ", i->name);
		return ret;
	}
	v2 = !memcmp(h + PH_MAGIC, PARALLELS_V2, 16);
	i->entries = le32_at(h + PH_ENTRIES);
	i->cluster = (uint64_t)le32_at(h + PH_TRACKS) * SECTOR_SIZE;
	i->step = v2 ? i->cluster : SECTOR_SIZE;
	i->start = PH_LENGTH + 4 * i->entries;
	return 0;
}

static int open_image(struct image *img, unsigned n, struct err *err)
{
	struct bundle_image *i = &bundle_of(img)->images[n];
	char role[32];
	int ret;

	snprintf(role, sizeof(role), "images.%u", n);
	ret = child_open(img, role, i->name, 0, &i->file, err);
	if (ret)
		return err_errno(err, ret, "Could not open '%s'", i->name);
	ret = file_size(i->file, &i->end);
	if (ret)
		return err_errno(err, ret, "Could not get the size of '%s'",
				 i->name);
	return i->plain ? 0 : open_table(i, err);
}

static bool is_live(const struct bundle *b, unsigned n)
{
	const struct bundle_chain *chain =
		&b->live.chain[b->images[n].storage];

	for (unsigned i = 0; i < chain->n; i++)
		if (chain->image[i] == n)
			return true;
	return false;
}

/* Those of other states may be missing: then these states are. */
static int open_images(struct image *img, struct err *err)
{
	struct bundle *b = bundle_of(img);

	for (unsigned i = 0; i < b->nr_images; i++) {
		autoerr other = ERR_INIT;
		bool live = is_live(b, i);
		int ret = b->images[i].name ?
			  open_image(img, i, live ? err : &other) : 0;

		if (ret && (live || ret == -ENOMEM))
			return ret;
		if (ret) {
			file_unref(b->images[i].file);
			b->images[i].file = NULL;
		}
	}
	return 0;
}

static int refuse_writing(struct image *img, struct err *err)
{
	(void)img;
	return err_set(err, -EROFS, "Parallels .hdd bundles are read-only");
}

static int bundle_open(struct image *img, struct err *err)
{
	struct bundle *b = bundle_of(img);
	int ret;

	if (img->want_write)
		return refuse_writing(img, err);
	ret = bundle_descriptor_read(img, err);
	if (!ret)
		ret = open_images(img, err);
	if (ret) {
		bundle_descriptor_free(b);
		return ret;
	}
	img->unit = 1 * MiB;
	img->page = SECTOR_SIZE;
	img->align = 1;
	atomic_store(&img->size, b->sectors * SECTOR_SIZE);
	return 0;
}

static void bundle_close(struct image *img)
{
	bundle_descriptor_free(bundle_of(img));
}

/* ---- mapping ------------------------------------------------------------- */

/* What one image says of @off, a byte of its storage.  A hole: ask the next
 * one. */
static int map_image(struct image *img, const struct bundle_image *i,
		     uint64_t off, uint64_t len, struct extent *ext)
{
	uint64_t n, in, host;
	unsigned char e[4];
	int ret;

	ext->file = i->file;
	ext->kind = EXT_DATA;
	ext->host = off;
	ext->len = len;
	if (i->plain) {         /* what is cut off is not zero */
		ext->len = min_u64(len, i->end - min_u64(i->end, off));
		return ext->len ? 0 : -EIO;
	}
	n = off / i->cluster;
	in = off % i->cluster;
	ext->len = min_u64(len, i->cluster - in);
	ext->kind = EXT_HOLE;
	if (n >= i->entries)
		return 0;
	ret = meta_peek(img, i->file, e, sizeof(e), PH_LENGTH + 4 * n);
	host = le32_at(e) * i->step;
	if (ret || !host)
		return ret;
	if (host < i->start || host >= i->end) {
		image_corrupt(img, "%s: cluster %" PRIu64 " is outside image",
			      i->name, n);
		return -EIO;
	}
	ext->kind = EXT_DATA;
	ext->host = host + in;
	return 0;
}

static const struct bundle_storage *storage_at(const struct bundle *b,
					       uint64_t sector)
{
	unsigned low = 0, high = b->nr_storages - 1;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (sector < b->storages[mid].end)
			high = mid;
		else
			low = mid + 1;
	}
	return &b->storages[low];
}

static int bundle_map(const struct view *v, uint64_t off, uint64_t len,
		      struct extent *ext)
{
	const struct bundle *b = bundle_of(v->img);
	const struct bundle_state *state = v->root ? v->root : &b->live;
	const struct bundle_storage *s = storage_at(b, off / SECTOR_SIZE);
	const struct bundle_chain *chain = &state->chain[s - b->storages];
	uint64_t at = off - s->start * SECTOR_SIZE;
	struct extent found = { .kind = EXT_HOLE };
	int ret = 0;

	len = min_u64(len, s->end * SECTOR_SIZE - off);
	for (unsigned i = 0; !ret && i < chain->n; i++) {
		ret = map_image(v->img, &b->images[chain->image[i]], at, len,
				&found);
		len = found.len;
		if (found.kind == EXT_DATA)
			break;
	}
	if (ret)
		return ret;
	found.off = off;
	found.len = len;
	if (found.kind == EXT_HOLE)
		found = (struct extent) {
			.kind = EXT_ZERO, .off = off, .len = len,
		};
	*ext = found;
	return 0;
}

/* ---- info, check --------------------------------------------------------- */

static int bundle_info(struct image *img, struct image_info *info,
		       struct err *err)
{
	const struct bundle *b = bundle_of(img);
	struct json *data = json_object(), *shots = json_array();

	(void)err;
	for (unsigned i = 0; i < b->nr_shots; i++) {
		struct json *shot = json_object();

		json_set_take(shot, "guid", json_string(b->shots[i].guid));
		json_set_take(shot, "parent", json_string(b->shots[i].parent));
		json_append_take(shots, shot);
	}
	json_set_take(data, "top", json_string(b->top));
	json_set_take(data, "storages", json_uint(b->nr_storages));
	json_set_take(data, "snapshots", shots);
	info->specific = json_object();
	json_set_take(info->specific, "type", json_string("parallels-bundle"));
	json_set_take(info->specific, "data", data);
	return 0;
}

static int check_entry(struct image *img, const struct bundle_image *image,
		       uint64_t n, unsigned char *used,
		       struct check_result *res)
{
	unsigned char e[4];
	uint64_t host, place;
	int ret = meta_read(img, image->file, e, sizeof(e), PH_LENGTH + 4 * n);

	host = le32_at(e) * image->step;
	if (ret || !host)
		return ret;
	res->allocated_clusters++;
	place = host / image->step;
	if (host < image->start || host >= image->end) {
		check_say(res, "ERROR %s: cluster %" PRIu64 " is outside image",
			  image->name, n);
		res->corruptions++;
	} else if (used[place / 8] >> place % 8 & 1) {
		check_say(res, "ERROR %s: duplicate offset in BAT entry %"
			  PRIu64, image->name, n);
		res->corruptions++;
	} else {
		used[place / 8] |= (unsigned char)(1u << place % 8);
	}
	return 0;
}

static void check_length(const struct bundle_image *image,
			 const struct bundle_storage *s,
			 struct check_result *res)
{
	uint64_t want = (s->end - s->start) * SECTOR_SIZE;

	if (image->end >= want)
		return;
	check_say(res, "ERROR %s: %" PRIu64 " bytes are missing at the end",
		  image->name, want - image->end);
	res->corruptions++;
}

static int check_table(struct image *img, const struct bundle_image *image,
		       struct check_result *res)
{
	autofree unsigned char *used = NULL;
	int ret = 0;

	used = calloc(1, image->end / image->step / 8 + 1);
	if (!used)
		return -ENOMEM;
	res->total_clusters += image->entries;
	for (uint64_t n = 0; !ret && n < image->entries; n++) {
		if (res->cancel && atomic_load(res->cancel))
			return -EINTR;
		ret = check_entry(img, image, n, used, res);
	}
	return ret;
}

static int check_image(struct image *img, const struct bundle_image *image,
		       struct check_result *res)
{
	if (!image->file) {
		check_say(res, "ERROR %s: cannot be opened: a snapshot is not"
			  " there", image->name ? image->name : "an image");
		res->corruptions++;
		return 0;
	}
	if (!image->plain)
		return check_table(img, image, res);
	check_length(image, &bundle_of(img)->storages[image->storage], res);
	return 0;
}

static int bundle_check(struct image *img, struct check_result *res)
{
	const struct bundle *b = bundle_of(img);
	int ret = 0;

	for (unsigned i = 0; !ret && i < b->nr_images; i++)
		ret = check_image(img, &b->images[i], res);
	return ret;
}

static const struct format_admin bundle_admin = {
	.info = bundle_info,
	.check = bundle_check,
	.snapshots = &bundle_snapshots,
};

const struct format parallels_bundle_format = {
	.name = "parallels-bundle",
	.priv_size = sizeof(struct bundle),
	.ours_alone = true,
	.probe = bundle_probe,
	.open = bundle_open,
	.upgrade = refuse_writing,
	.close = bundle_close,
	.map = bundle_map,
	.admin = &bundle_admin,
};
