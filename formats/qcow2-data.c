/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2-data.c - the file beside an image that holds the guest's data, every
 * cluster where the guest has it (qcow2.md 4).
 *
 * A raw one holds at every moment what the guest reads, after a crash as well.
 * Hence nothing but "data" is ever written to L2 there: zeroes are bytes.  What
 * others left otherwise is turned into data, durably, before it changes.
 *
 * Refuses to know where L2 entries are.
 */
#include "qcow2.h"
#include "strbuf.h"

#include <unistd.h>

/* ---- opening ------------------------------------------------------------- */

/*
 * Names in an image lead from the image's folder.  QEMU looks in the current
 * one; who may follow names anywhere (imgctl) does so too, afterwards.
 */
static int open_by_name(struct image *img, struct file **f, struct err *err)
{
	const char *name = qcow2_of(img)->data_file;
	autoerr first = ERR_INIT;
	autofree char *cwd = NULL;
	autostrbuf path = STRBUF_INIT;
	int ret = child_open(img, "data-file", name, 0, f, &first);

	if (ret == -ENOENT && !img->policy && *name != '/') {
		cwd = getcwd(NULL, 0);
		strbuf_printf(&path, "%s/%s", cwd ? cwd : "", name);
		if (cwd && !access(path.text, F_OK))
			return child_open(img, "data-file", path.text, 0, f,
					  err);
	}
	if (ret)
		err_move(err, &first);
	return ret;
}

static int refuse_itself(struct image *img, struct file *f, struct err *err)
{
	struct stat a, b;

	if (file_stat(img->file, &a) || file_stat(f, &b) || !a.st_ino ||
	    a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		return 0;
	return err_set(err, -EINVAL, "The data file is the image itself");
}

int qcow2_data_open(struct image *img, struct err *err)
{
	struct qcow2 *q = qcow2_of(img);
	struct file *f;
	int ret;

	if (!(q->incompat & QINCOMPAT_DATA_FILE))
		return 0;
	if (img->flags & IMAGE_INFO) {  /* tells of files that are gone, too */
		q->usable = false;
		return 0;
	}
	if (!q->data_file || !*q->data_file)
		return err_set(err, -EINVAL,
			       "'data-file' is required for this image");
	ret = open_by_name(img, &f, err);
	if (ret)
		return ret;
	ret = refuse_itself(img, f, err);
	if (ret) {
		file_unref(f);
		return ret;
	}
	q->data = f;
	img->never_packed = true;
	q->raw = q->autoclear & QAUTOCLEAR_DATA_RAW;
	return 0;
}

void qcow2_data_close(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	file_unref(q->data);
	q->data = NULL;
}

/* ---- raw ----------------------------------------------------------------- */

void qcow2_raw_begin(struct image *img, uint64_t off, uint64_t len)
{
	struct qcow2 *q = qcow2_of(img);

	pthread_mutex_lock(&q->turn);
	atomic_store(&q->turn_off, off);
	atomic_store(&q->turn_end, off + len);
}

void qcow2_raw_end(struct image *img)
{
	struct qcow2 *q = qcow2_of(img);

	atomic_store(&q->turn_end, 0);
	pthread_mutex_unlock(&q->turn);
}

bool qcow2_raw_turning(const struct qcow2 *q, uint64_t off, uint64_t len)
{
	uint64_t end = atomic_load(&q->turn_end);

	return off < end && off + len > atomic_load(&q->turn_off);
}

int qcow2_data_zero(struct image *img, uint64_t off, uint64_t len)
{
	struct file *f = qcow2_of(img)->data;
	uint64_t size;
	int ret = file_size(f, &size);

	if (ret || off >= size)
		return ret;
	return file_zero(f, off, min_u64(len, size - off), ZERO_MAY_UNMAP);
}
