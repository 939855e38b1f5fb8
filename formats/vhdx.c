/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vhdx.c - opens VHDX images: headers, regions, metadata, and the log of a
 * writer that did not finish (vhdx.md).
 *
 * Read-only, the log is replayed in memory: the file is not touched.
 * Refuses to know where the guest's bytes are.
 */
#include "vhdx.h"
#include "crc32c.h"

#include <sys/random.h>

const unsigned char vhdx_bat_guid[16] = {
	0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
	0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
};
const unsigned char vhdx_metadata_guid[16] = {
	0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
	0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
};
const unsigned char vhdx_item_guid[NR_ITEMS][16] = {
	[ITEM_PARAMS] = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
			  0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b },
	[ITEM_SIZE] = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
			0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 },
	[ITEM_PAGE83] = { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
			  0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 },
	[ITEM_LOGICAL] = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
			   0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f },
	[ITEM_PHYSICAL] = { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
			    0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 },
	[ITEM_PARENT] = { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
			  0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c },
};

/* What open() gathers before it believes any of it. */
struct found {
	uint64_t at[NR_ITEMS];          /* host offsets; 0: none */
	uint32_t len[NR_ITEMS];
};

/* ---- checksums, GUIDs ---------------------------------------------------- */

void vhdx_guid_new(unsigned char *guid)
{
	if (getrandom(guid, 16, 0) != 16)
		BUG("no random numbers");
	guid[6] = (unsigned char)((guid[6] & 0x0f) | 0x40);
	guid[8] = (unsigned char)((guid[8] & 0x3f) | 0x80);
}

static uint32_t checksum(const unsigned char *buf, size_t len)
{
	static const unsigned char none[4];
	uint32_t crc = crc32c(0, buf, H_CRC);

	crc = crc32c(crc, none, sizeof(none));
	return crc32c(crc, buf + H_CRC + 4, len - H_CRC - 4);
}

void vhdx_seal(unsigned char *buf, size_t len)
{
	le32_put(buf + H_CRC, checksum(buf, len));
}

bool vhdx_sealed(const unsigned char *buf, size_t len)
{
	return le32_at(buf + H_CRC) == checksum(buf, len);
}

/* ---- headers ------------------------------------------------------------- */

bool vhdx_header_good(const unsigned char *h)
{
	return !memcmp(h, "head", 4) && vhdx_sealed(h, VHDX_SECTOR);
}

static int take_header(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	unsigned char h[2][VHDX_SECTOR];
	bool good[2];

	for (unsigned i = 0; i < 2; i++) {
		int ret = file_read(img->file, h[i], VHDX_SECTOR,
				    VHDX_TABLE * (i + 1));

		if (ret)
			return ret;
		good[i] = vhdx_header_good(h[i]);
	}
	if (!good[0] && !good[1])
		return err_set(err, -EINVAL, "No valid VHDX header found");
	v->slot = !good[0] || (good[1] && le64_at(h[1] + H_SEQ) >
					  le64_at(h[0] + H_SEQ));
	v->other_bad = !good[!v->slot];
	if (!v->other_bad && le64_at(h[0] + H_SEQ) == le64_at(h[1] + H_SEQ) &&
	    memcmp(h[0], h[1], VHDX_SECTOR))
		return err_set(err, -EINVAL, "No valid VHDX header found");
	memcpy(v->header, h[v->slot], VHDX_SECTOR);
	if (le16_at(v->header + H_VERSION) != 1)
		return err_set(err, -ENOTSUP, "Unsupported VHDX version %u",
			       le16_at(v->header + H_VERSION));
	v->log = le64_at(v->header + H_LOG_OFFSET);
	v->log_len = le32_at(v->header + H_LOG_LENGTH);
	return !v->log_len || v->log_len % MiB || v->log % MiB ||
	       v->log < MiB || v->log > INT64_MAX / 2 ? -EINVAL : 0;
}

int vhdx_header_write(struct image *img, const unsigned char *h)
{
	struct vhdx *v = vhdx_of(img);
	unsigned char next[VHDX_SECTOR];
	int ret;

	memcpy(next, h, sizeof(next));
	le64_put(next + H_SEQ, le64_at(v->header + H_SEQ) + 1);
	vhdx_seal(next, sizeof(next));
	ret = file_write(img->file, next, sizeof(next),
			 VHDX_TABLE * (!v->slot + 1));
	if (!ret)
		ret = repair_barrier(img);
	if (ret)
		return ret;
	v->slot = !v->slot;
	memcpy(v->header, next, sizeof(next));
	return 0;
}

int vhdx_headers_write(struct image *img, const unsigned char *h)
{
	int ret = vhdx_header_write(img, h);

	if (!ret)
		ret = vhdx_header_write(img, h);
	if (!ret)
		vhdx_of(img)->other_bad = false;
	return ret;
}

/* Rule 12.  A new number for the log, too: what earlier ones left there is none
 * of ours.  It gets into the headers when there is an entry. */
static int vhdx_dirty(struct image *img)
{
	struct vhdx *v = vhdx_of(img);
	unsigned char h[VHDX_SECTOR];

	memcpy(h, v->header, sizeof(h));
	vhdx_guid_new(h + H_FILE_GUID);
	vhdx_guid_new(h + H_DATA_GUID);
	vhdx_guid_new(v->log_guid);
	v->log_pos = 0;
	v->log_seq = 1;
	return vhdx_headers_write(img, h);
}

static int vhdx_clean(struct image *img)
{
	const struct vhdx *v = vhdx_of(img);
	uint64_t size, end = atomic_load(&v->end);
	unsigned char h[VHDX_SECTOR];
	int ret;

	memcpy(h, v->header, sizeof(h));
	memset(h + H_LOG_GUID, 0, 16);
	ret = vhdx_headers_write(img, h);
	/* Behind the end may be bytes of a write that failed; a log that is in
	 * force would miss them. */
	if (!ret)
		ret = file_size(img->file, &size);
	if (!ret && size > end && spare_used(&v->spare, end))
		ret = file_truncate(img->file, end);
	return ret;
}

/* ---- the log of somebody who did not finish ------------------------------ */

static bool log_pending(const struct vhdx *v)
{
	return !vhdx_guid_null(v->header + H_LOG_GUID);
}

static int read_log(struct image *img, struct vhdx_patches *patches,
		    struct err *err)
{
	const struct vhdx *v = vhdx_of(img);
	uint64_t size;
	int ret = 0;

	if (le16_at(v->header + H_LOG_VERSION))
		return err_set(err, -ENOTSUP, "Unsupported version of the VHDX"
			       " log");
	ret = vhdx_log_read(img->file, v, patches);
	if (ret)
		return err_set(err, ret, "The log of the VHDX image is"
			       " corrupt");
	ret = file_size(img->file, &size);
	if (!ret && size < patches->flushed) {
		free(patches->p);
		patches->p = NULL;
		ret = err_set(err, -EINVAL, "The VHDX image was cut off");
	}
	return ret;
}

/* For writing: into the file, and both headers say that it is done. */
static int replay_for_good(struct image *img, struct err *err)
{
	struct vhdx_patches patches = { 0 };
	int ret = read_log(img, &patches, err);

	if (ret)
		return ret;
	ret = vhdx_replay(img, &patches);
	free(patches.p);
	if (!ret)
		ret = repair_barrier(img);
	if (!ret)
		ret = vhdx_clean(img);
	return ret ? err_errno(err, ret, "Could not replay the log") : 0;
}

/* QEMU cannot. */
static int refuse_replay(const struct image *img, struct err *err)
{
	err_set(err, -EPERM, "VHDX image file '%s' opened read-only, but"
		" contains a log that needs to be replayed", img->name);
	err_hint(err, "To replay the log, run:\nqemu-img check -r all '%s'\n",
		 img->name);
	return -EPERM;
}

static int replay_in_memory(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	struct vhdx_patches patches = { 0 };
	int ret;

	if (probe_as_qemu)
		return refuse_replay(img, err);
	ret = read_log(img, &patches, err);
	if (!ret)
		ret = vhdx_replay_view(img->file, &patches, &v->replayed);
	if (!ret)
		v->file = v->replayed;
	return ret;
}

/* ---- regions ------------------------------------------------------------- */

static bool regions_good(const unsigned char *t)
{
	return !memcmp(t, "regi", 4) && vhdx_sealed(t, VHDX_TABLE) &&
	       le32_at(t + R_COUNT) <= VHDX_MAX_ITEMS;
}

static int take_region(struct vhdx *v, const unsigned char *e,
		       struct err *err)
{
	uint64_t at = le64_at(e + ENTRY_OFFSET);
	uint64_t len = le32_at(e + R_ENTRY_LENGTH);
	bool bat = !memcmp(e, vhdx_bat_guid, 16);

	if (at % MiB || len % MiB || at < MiB || !len || at > INT64_MAX / 2)
		return -EINVAL;
	if (bat && !v->bat) {
		v->bat = at;
		v->bat_len = len;
	} else if (!bat && !v->meta &&
		   !memcmp(e, vhdx_metadata_guid, 16)) {
		v->meta = at;
		v->meta_len = len;
	} else if (bat || !memcmp(e, vhdx_metadata_guid, 16)) {
		return -EINVAL;
	} else if (le32_at(e + R_ENTRY_REQUIRED) & 1) {
		return err_set(err, -ENOTSUP, "The VHDX image has a region"
			       " that is unknown and required");
	}
	return 0;
}

static bool apart(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a + a_len <= b || b + b_len <= a;
}

bool vhdx_may_lie(const struct vhdx *v, uint64_t host, uint64_t len)
{
	return host >= MiB && apart(host, len, v->log, v->log_len) &&
	       apart(host, len, v->bat, v->bat_len) &&
	       apart(host, len, v->meta, v->meta_len);
}

static int read_regions(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	autofree unsigned char *t = malloc(VHDX_TABLE);
	int ret = t ? 0 : -ENOMEM;
	bool good = false;

	for (unsigned i = 0; !ret && !good && i < 2; i++) {
		ret = file_read(v->file, t, VHDX_TABLE,
				VHDX_REGION_AT + i * VHDX_TABLE);
		good = !ret && regions_good(t);
	}
	if (!ret && !good)
		ret = -EINVAL;
	for (uint32_t i = 0; !ret && i < le32_at(t + R_COUNT); i++)
		ret = take_region(v, t + R_ENTRIES + ENTRY * i, err);
	if (ret)
		return ret;
	return v->bat && v->meta &&
	       apart(v->log, v->log_len, v->bat, v->bat_len) &&
	       apart(v->log, v->log_len, v->meta, v->meta_len) &&
	       apart(v->bat, v->bat_len, v->meta, v->meta_len) ? 0 : -EINVAL;
}

/* ---- metadata ------------------------------------------------------------ */

static int take_item(const struct vhdx *v, const unsigned char *e,
		     struct found *found, struct err *err)
{
	uint64_t at = le32_at(e + ENTRY_OFFSET);
	uint32_t len = le32_at(e + M_ENTRY_LENGTH);

	for (unsigned i = 0; i < NR_ITEMS; i++) {
		if (memcmp(e, vhdx_item_guid[i], 16))
			continue;
		if (at < VHDX_TABLE || !range_within(at, len, v->meta_len))
			return -EINVAL;
		found->at[i] = v->meta + at;
		found->len[i] = len;
		return 0;
	}
	if (le32_at(e + M_ENTRY_FLAGS) & M_REQUIRED)
		return err_set(err, -ENOTSUP, "The VHDX image has metadata"
			       " that is unknown and required");
	return 0;
}

static int find_items(struct vhdx *v, struct found *found, struct err *err)
{
	autofree unsigned char *t = malloc(VHDX_TABLE);
	int ret = t ? file_read(v->file, t, VHDX_TABLE, v->meta) : -ENOMEM;

	if (ret)
		return ret;
	if (memcmp(t, "metadata", 8) || le16_at(t + M_COUNT) > VHDX_MAX_ITEMS)
		return -EINVAL;
	for (unsigned i = 0; !ret && i < le16_at(t + M_COUNT); i++)
		ret = take_item(v, t + M_ENTRIES + ENTRY * i, found, err);
	return ret;
}

static int item(const struct vhdx *v, const struct found *found,
		enum vhdx_item i, void *buf, uint32_t len)
{
	if (!found->at[i] || found->len[i] < len)
		return -EINVAL;
	return file_read(v->file, buf, len, found->at[i]);
}

static int take_geometry(struct image *img, uint32_t block, uint64_t size)
{
	struct vhdx *v = vhdx_of(img);
	uint64_t blocks;

	if (!is_pow2(block) || block < MiB || block > 256 * MiB ||
	    (v->sector != 512 && v->sector != 4096) ||
	    size % v->sector || size > VHDX_MAX_SIZE)
		return -EINVAL;
	blocks = div_up(size, block);
	v->ratio = (UINT64_C(1) << 23) * v->sector / block;
	v->entries = v->differencing ?
		     div_up(blocks, v->ratio) * (v->ratio + 1) :
		     blocks + (blocks ? (blocks - 1) / v->ratio : 0);
	if (v->entries * 8 > v->bat_len)
		return -EINVAL;
	img->unit = block;
	atomic_store(&img->size, size);
	return 0;
}

static int read_metadata(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	struct found found = { .at = { 0 } };
	unsigned char params[8], size[8], sector[4];
	int ret = find_items(v, &found, err);

	if (!ret)
		ret = item(v, &found, ITEM_PARAMS, params, 8);
	if (!ret)
		ret = item(v, &found, ITEM_SIZE, size, 8);
	if (!ret)
		ret = item(v, &found, ITEM_LOGICAL, sector, 4);
	if (ret)
		return ret;
	v->fixed = params[4] & 1;
	v->differencing = params[4] & 2;
	v->sector = le32_at(sector);
	ret = take_geometry(img, le32_at(params), le64_at(size));
	if (!ret && v->differencing)
		ret = found.at[ITEM_PARENT] ?
		      vhdx_parent(img, found.at[ITEM_PARENT],
				  found.len[ITEM_PARENT], err) : -EINVAL;
	return ret;
}

/* ---- opening ------------------------------------------------------------- */

static int vhdx_probe(const struct probe *p)
{
	return p->head_len >= 8 && !memcmp(p->head, VHDX_SIGNATURE, 8) ? 100 :
									 0;
}

/* Where new blocks go. */
static int begin_writing(struct image *img, struct err *err)
{
	int ret = vhdx_find_end(img);

	if (ret == -EUCLEAN)
		return err_set(err, ret, "A block of the VHDX image lies beyond"
			       " the end of the file");
	return ret ? err_errno(err, ret, "Could not read the block table") : 0;
}

static int read_all(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	unsigned char sig[8];
	uint64_t size;
	int ret = file_read(img->file, sig, sizeof(sig), 0);

	if (!ret && memcmp(sig, VHDX_SIGNATURE, sizeof(sig)))
		ret = -EINVAL;
	if (!ret)
		ret = take_header(img, err);
	v->was_pending = !ret && log_pending(v);
	if (!ret && v->was_pending)
		ret = img->want_write ? replay_for_good(img, err) :
					replay_in_memory(img, err);
	if (!ret)
		ret = read_regions(img, err);
	if (!ret)
		ret = file_size(v->file, &size);
	if (!ret && (!range_within(v->bat, v->bat_len, size) ||
		     !range_within(v->meta, v->meta_len, size)))
		ret = -EINVAL;
	if (ret)
		return ret;
	atomic_store(&v->end, round_up(min_u64(size, INT64_MAX), MiB));
	ret = read_metadata(img, err);
	if (!ret && img->want_write)
		ret = begin_writing(img, err);
	return ret;
}

static void vhdx_close(struct image *img)
{
	struct vhdx *v = vhdx_of(img);

	file_unref(v->replayed);
	pthread_mutex_destroy(&v->lock);
}

static int vhdx_open(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	int ret;

	pthread_mutex_init(&v->lock, NULL);
	v->file = img->file;
	img->page = VHDX_SECTOR;
	img->align = 1;
	ret = read_all(img, err);
	if (!ret)
		return 0;
	vhdx_close(img);
	memset(v, 0, sizeof(*v));
	return err_errno(err, ret, "Could not open '%s'", img->name);
}

static int vhdx_upgrade(struct image *img, struct err *err)
{
	struct vhdx *v = vhdx_of(img);
	int ret = log_pending(v) ? replay_for_good(img, err) : 0;

	if (ret)
		return ret;
	v->file = img->file;
	return begin_writing(img, err);
}

/* ---- info ---------------------------------------------------------------- */

static int vhdx_info(struct image *img, struct image_info *info,
		     struct err *err)
{
	(void)err;
	info->cluster_size = img->unit;
	info->has_dirty = true;
	return 0;
}

static const struct format_admin vhdx_admin = {
	.create_options = vhdx_create_options,
	.create_check = vhdx_create_check,
	.create = vhdx_create,
	.info = vhdx_info,
	.check = vhdx_check,
	.repair = vhdx_repair,
};

const struct format vhdx_format = {
	.name = "vhdx",
	.priv_size = sizeof(struct vhdx),
	.supports_backing = true,
	.probe = vhdx_probe,
	.open = vhdx_open,
	.upgrade = vhdx_upgrade,
	.dirty = vhdx_dirty,
	.clean = vhdx_clean,
	.close = vhdx_close,
	.map = vhdx_map,
	.reserve = vhdx_reserve,
	.commit = vhdx_commit,
	.abort = vhdx_abort,
	.unmap = vhdx_unmap,
	.journal = vhdx_journal,
	.admin = &vhdx_admin,
};
