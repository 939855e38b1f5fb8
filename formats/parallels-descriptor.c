/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * parallels-descriptor.c - DiskDescriptor.xml of a Parallels .hdd bundle
 * (parallels.md, ".hdd bundle"): the storages that follow each other on the
 * disk, the images of each, and which snapshot follows which.
 *
 * Everything in it is an attacker's: numbers of things are bounded, ranges must
 * follow each other without a gap, parents must not go in circles.
 */
#include "parallels-bundle.h"
#include "xml.h"

#include <inttypes.h>

#define MAX_DESCRIPTOR (1 * MiB)
#define ROOT "Parallels_disk_image/"
#define STORAGE ROOT "StorageData/Storage"
#define IMAGE STORAGE "/Image"
#define SHOT ROOT "Snapshots/Shot"
#define NO_GUID "{00000000-0000-0000-0000-000000000000}"
#define USUAL_TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"

/* ---- values -------------------------------------------------------------- */

static int take_number(const char *text, uint64_t *n, struct err *err)
{
	char *end;

	errno = 0;
	*n = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-' ||
	    *n > INT64_MAX / SECTOR_SIZE)
		return err_set(err, -EINVAL, "DiskDescriptor.xml: '%.40s' is no"
			       " number of sectors", text);
	return 0;
}

/* Of no length in particular, but the same everywhere. */
static int take_guid(const char *text, char *guid, struct err *err)
{
	size_t n = strlen(text);

	if (!n || n >= BUNDLE_GUID)
		return err_set(err, -EINVAL, "DiskDescriptor.xml: '%.60s' is no"
			       " GUID", text);
	for (size_t i = 0; i <= n; i++)
		guid[i] = text[i] >= 'A' && text[i] <= 'Z' ?
			  (char)(text[i] - 'A' + 'a') : text[i];
	return 0;
}

static int take_type(const char *text, bool *plain, struct err *err)
{
	*plain = !strcmp(text, "Plain");
	if (*plain || !strcmp(text, "Compressed"))
		return 0;
	return err_set(err, -ENOTSUP, "DiskDescriptor.xml: images of type"
		       " '%.40s' are not supported", text);
}

/* ---- elements ------------------------------------------------------------ */

/* Room for one more of what is counted by *@nr; zeroed. */
static void *grow(void *array, unsigned *nr, unsigned max, size_t size,
		  struct err *err)
{
	void *more;

	if (*nr == max) {
		err_set(err, -EFBIG, "DiskDescriptor.xml names too many parts");
		return NULL;
	}
	more = reallocarray(array, *nr + 1, size);
	if (!more)
		err_set(err, -ENOMEM, "Out of memory");
	else
		memset((char *)more + *nr * size, 0, size);
	*nr += !!more;
	return more;
}

static int add_image(struct bundle *b, struct err *err)
{
	void *more = grow(b->images, &b->nr_images, BUNDLE_MAX_IMAGES,
			  sizeof(*b->images), err);

	if (!more)
		return -EINVAL;
	b->images = more;
	b->images[b->nr_images - 1].storage = b->nr_storages - 1;
	return 0;
}

static int element_open(void *data, const char *path, struct err *err)
{
	struct bundle *b = data;
	void *more = NULL;

	if (!strcmp(path, IMAGE))
		return add_image(b, err);
	if (!strcmp(path, STORAGE)) {
		more = grow(b->storages, &b->nr_storages, BUNDLE_MAX_STORAGES,
			    sizeof(*b->storages), err);
		b->storages = more ? more : b->storages;
	} else if (!strcmp(path, SHOT)) {
		more = grow(b->shots, &b->nr_shots, BUNDLE_MAX_SHOTS,
			    sizeof(*b->shots), err);
		b->shots = more ? more : b->shots;
	} else {
		return 0;
	}
	return more ? 0 : -EINVAL;
}

static int image_closes(struct bundle_image *i, const char *name,
			const char *text, struct err *err)
{
	if (!strcmp(name, "/GUID"))
		return take_guid(text, i->guid, err);
	if (!strcmp(name, "/Type"))
		return take_type(text, &i->plain, err);
	if (strcmp(name, "/File"))
		return 0;
	if (!*text || i->name)
		return err_set(err, -EINVAL, "DiskDescriptor.xml: an image has"
			       " no name, or two");
	i->name = strdup(text);
	return i->name ? 0 : -ENOMEM;
}

static int storage_closes(struct bundle_storage *s, const char *name,
			  const char *text, struct err *err)
{
	if (!strcmp(name, "/Start"))
		return take_number(text, &s->start, err);
	if (!strcmp(name, "/End"))
		return take_number(text, &s->end, err);
	return 0;
}

static int shot_closes(struct bundle_shot *s, const char *name,
		       const char *text, struct err *err)
{
	if (!strcmp(name, "/GUID"))
		return take_guid(text, s->guid, err);
	if (!strcmp(name, "/ParentGUID"))
		return take_guid(text, s->parent, err);
	return 0;
}

static bool below(const char *path, const char *of)
{
	return !strncmp(path, of, strlen(of)) && path[strlen(of)] == '/';
}

static int element_close(void *data, const char *path, const char *text,
			 struct err *err)
{
	struct bundle *b = data;

	if (below(path, IMAGE))
		return image_closes(&b->images[b->nr_images - 1],
				    path + strlen(IMAGE), text, err);
	if (below(path, STORAGE))
		return storage_closes(&b->storages[b->nr_storages - 1],
				      path + strlen(STORAGE), text, err);
	if (below(path, SHOT))
		return shot_closes(&b->shots[b->nr_shots - 1],
				   path + strlen(SHOT), text, err);
	if (!strcmp(path, ROOT "Disk_Parameters/Disk_size"))
		return take_number(text, &b->sectors, err);
	if (!strcmp(path, ROOT "Snapshots/TopGUID"))
		return take_guid(text, b->top, err);
	return 0;
}

static const struct xml_events events = {
	.open = element_open,
	.close = element_close,
};

/* ---- which state, and what it consists of -------------------------------- */

static const struct bundle_shot *shot_of(const struct bundle *b,
					 const char *guid)
{
	for (unsigned i = 0; i < b->nr_shots; i++)
		if (!strcmp(b->shots[i].guid, guid))
			return &b->shots[i];
	return NULL;
}

static bool is_parent(const struct bundle *b, const char *guid)
{
	for (unsigned i = 0; i < b->nr_shots; i++)
		if (!strcmp(b->shots[i].parent, guid))
			return true;
	return false;
}

/* The state that is written to: what the descriptor says, or what always has
 * the same name, or the only one that nothing follows. */
static int find_top(struct bundle *b, struct err *err)
{
	const char *found = NULL;
	unsigned leaves = 0;

	if (b->top[0])
		return 0;
	for (unsigned i = 0; i < b->nr_shots; i++)
		if (!is_parent(b, b->shots[i].guid)) {
			found = b->shots[i].guid;
			leaves++;
		}
	if (shot_of(b, USUAL_TOP))
		found = USUAL_TOP;
	else if (!b->nr_shots && b->nr_images)
		found = b->images[0].guid;
	else if (leaves != 1)
		return err_set(err, -EINVAL, "DiskDescriptor.xml does not say"
			       " which of %u states is the newest", leaves);
	strcpy(b->top, found ? found : "");
	return 0;
}

static int add_to_chain(const struct bundle *b, unsigned storage,
			const char *guid, struct bundle_chain *chain,
			struct err *err)
{
	for (unsigned i = 0; i < b->nr_images; i++) {
		const struct bundle_image *image = &b->images[i];

		if (image->storage != storage || strcmp(image->guid, guid))
			continue;
		if (!image->name)
			return err_set(err, -EINVAL, "DiskDescriptor.xml: an"
				       " image has no name");
		chain->image[chain->n++] = i;
		return 0;
	}
	return err_set(err, -EINVAL, "DiskDescriptor.xml: a storage has no"
		       " image of %s", guid);
}

static int make_chain(const struct bundle *b, unsigned storage,
		      const char *guid, struct bundle_chain *chain,
		      struct err *err)
{
	int ret = 0;

	chain->image = calloc(b->nr_shots + 1, sizeof(*chain->image));
	if (!chain->image)
		return -ENOMEM;
	while (!ret && strcmp(guid, NO_GUID)) {
		const struct bundle_shot *shot = shot_of(b, guid);

		if (chain->n > b->nr_shots)
			return err_set(err, -EINVAL, "DiskDescriptor.xml:"
				       " snapshots follow each other in a"
				       " circle");
		ret = add_to_chain(b, storage, guid, chain, err);
		guid = shot && shot->parent[0] ? shot->parent : NO_GUID;
	}
	return ret;
}

int bundle_state_make(const struct bundle *b, const char *guid,
		      struct bundle_state *state, struct err *err)
{
	struct bundle_state made = {
		.chain = calloc(b->nr_storages + 1, sizeof(*made.chain)),
	};
	int ret = made.chain ? 0 : -ENOMEM;

	for (unsigned i = 0; !ret && i < b->nr_storages; i++)
		ret = make_chain(b, i, guid, &made.chain[i], err);
	if (ret)
		bundle_state_free(b, &made);
	else
		*state = made;
	return ret;
}

void bundle_state_free(const struct bundle *b, struct bundle_state *state)
{
	for (unsigned i = 0; state->chain && i < b->nr_storages; i++)
		free(state->chain[i].image);
	free(state->chain);
	state->chain = NULL;
}

static int arrange(struct bundle *b, struct err *err)
{
	uint64_t at = 0;
	int ret = find_top(b, err);

	if (!ret && !b->sectors)
		return err_set(err, -EINVAL, "DiskDescriptor.xml does not say"
			       " how large the disk is");
	for (unsigned i = 0; !ret && i < b->nr_storages; i++) {
		const struct bundle_storage *s = &b->storages[i];

		if (s->start != at || s->end <= at)
			return err_set(err, -EINVAL, "DiskDescriptor.xml: the"
				       " storages do not follow each other");
		at = s->end;
	}
	if (!ret && (!b->nr_storages || at < b->sectors))
		return err_set(err, -EINVAL, "DiskDescriptor.xml: the storages"
			       " are shorter than the disk");
	return ret ? ret : bundle_state_make(b, b->top, &b->live, err);
}

/* ---- the file ------------------------------------------------------------ */

int bundle_descriptor_read(struct image *img, struct err *err)
{
	struct bundle *b = bundle_of(img);
	autofree char *text = NULL;
	uint64_t size;
	int ret = file_size(img->file, &size);

	if (ret)
		return err_errno(err, ret, "Could not get the file's size");
	if (size > MAX_DESCRIPTOR)
		return err_set(err, -EFBIG, "DiskDescriptor.xml is too large");
	text = malloc(size + 1);
	ret = text ? file_read(img->file, text, size, 0) : -ENOMEM;
	if (ret)
		return err_errno(err, ret, "Could not read DiskDescriptor.xml");
	ret = xml_parse(text, size, &events, b, err);
	return ret ? ret : arrange(b, err);
}

void bundle_descriptor_free(struct bundle *b)
{
	for (unsigned i = 0; i < b->nr_images; i++) {
		free(b->images[i].name);
		file_unref(b->images[i].file);
	}
	bundle_state_free(b, &b->live);
	free(b->images);
	free(b->storages);
	free(b->shots);
}
