/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * views-check.c - check and check.json: the first read runs the check.
 *
 * Knows how a check runs beside reads and writes, that whoever needs the image
 * for himself ends it and it begins anew, and how long its result holds: until
 * the metadata changes.  Refuses to know what is checked: the format does.
 */
#include "fs/views.h"

/* Findings beyond this are counted, not kept. */
#define FINDINGS_MAX MiB

enum { TRIES = 4 };

/* What a check of one layer said: with the image, under m->lock. */
struct check_kept {
	struct check_kept *next;
	unsigned layer;
	uint64_t opened, changes;       /* of the image it speaks of */
	struct strbuf text[2];          /* by enum report_format */
};

static struct check_kept *kept_of(struct mimage *m, unsigned layer)
{
	struct check_kept *k = m->report;

	while (k && k->layer != layer)
		k = k->next;
	return k;
}

static bool kept_text(const struct node *n, uint64_t opened, uint64_t changes,
		      struct strbuf *out)
{
	with_lock(&n->m->lock);
	struct check_kept *k = kept_of(n->m, n->layer);
	const struct strbuf *text;

	if (!k || k->opened != opened || k->changes != changes)
		return false;
	text = &k->text[text_format(n)];
	strbuf_add(out, text->text, text->len);
	return true;
}

/* Takes the texts of @from. */
static void keep_take(struct node *n, struct check_kept *from)
{
	with_lock(&n->m->lock);
	struct check_kept *k = kept_of(n->m, n->layer);

	if (!k) {
		k = calloc(1, sizeof(*k));
		if (!k)
			return;
		k->layer = n->layer;
		k->next = n->m->report;
		n->m->report = k;
	}
	for (int i = 0; i < 2; i++) {
		strbuf_free(&k->text[i]);
		k->text[i] = from->text[i];
		from->text[i] = (struct strbuf)STRBUF_INIT;
	}
	k->opened = from->opened;
	k->changes = from->changes;
}

void report_forget(struct mimage *m)
{
	struct check_kept *k;

	while ((k = m->report)) {
		m->report = k->next;
		strbuf_free(&k->text[0]);
		strbuf_free(&k->text[1]);
		free(k);
	}
}

/* ---- one run ----------------------------------------------------------------------- */

struct findings {
	struct strbuf text;
	uint64_t left_out;
};

static void say(void *data, const char *line)
{
	struct findings *f = data;

	if (f->text.len + strlen(line) >= FINDINGS_MAX) {
		f->left_out++;
		return;
	}
	strbuf_puts(&f->text, line);
	strbuf_putc(&f->text, '\n');
}

static void write_texts(struct check_kept *k, struct image *img,
			const struct check_result *res,
			const struct findings *f)
{
	struct strbuf *human = &k->text[REPORT_HUMAN];

	strbuf_add(human, f->text.text, f->text.len);
	if (f->left_out)
		strbuf_printf(human, "(%llu more lines)\n",
			      (unsigned long long)f->left_out);
	report_check(human, res, img->name, img->fmt->name, REPORT_HUMAN);
	report_check(&k->text[REPORT_JSON], res, img->name, img->fmt->name,
		     REPORT_JSON);
}

/*
 * 0: @k holds the texts; 1: the image changed under the check, whose findings
 * may mean only that.
 */
static int check_image(struct image *img, struct slow *s, struct check_kept *k)
{
	const struct format_admin *admin = img->fmt->admin;
	struct findings f = { .text = STRBUF_INIT };
	struct check_result res = {
		.say = say,
		.data = &f,
		.cancel = &s->use.cancel,
	};
	int ret;

	if (!admin || !admin->check)
		return -EOPNOTSUPP;
	k->changes = image_changes(img);
	pause_point("fs:check");
	ret = admin->check(img, &res);
	if (!ret)
		write_texts(k, img, &res, &f);
	strbuf_free(&f.text);
	if (!ret && report_check_code(&res) && k->changes != image_changes(img))
		return 1;
	return ret;
}

/* As the layer is now: what is kept, or a run.  -EAGAIN: somebody needs the
 * image for himself. */
static int check_once(struct node *n, struct slow *s, struct check_kept *k,
		      struct strbuf *out)
{
	struct mimage *m = n->m;
	struct image *img;
	int ret = -EIO;

	atomic_store(&s->use.again, false);
	atomic_store(&s->use.cancel, false);
	mimage_enter_long(m, &s->use);
	img = mimage_layer(m, n->layer);
	k->opened = atomic_load(&m->opened);
	if (slow_interrupted(s))
		ret = -EINTR;
	else if (img && kept_text(n, k->opened, image_changes(img), out))
		ret = 0;
	else if (img)
		ret = check_image(img, s, k);
	mimage_leave_long(m, &s->use);
	if (ret < 0 && atomic_load(&s->use.again) && !slow_interrupted(s))
		return -EAGAIN;
	return ret;
}

static void drop_texts(struct check_kept *k)
{
	strbuf_free(&k->text[0]);
	strbuf_free(&k->text[1]);
}

/* A flush first: what was dropped is counted until then (rule 16). */
static int check_run(struct node *n, struct slow *s, struct strbuf *out)
{
	struct check_kept k = { .text = { STRBUF_INIT, STRBUF_INIT } };
	unsigned tries = 0;
	int ret;

	do {
		drop_texts(&k);
		mimage_flush(n->m);
		ret = check_once(n, s, &k, out);
	} while (ret == -EAGAIN || (ret == 1 && ++tries < TRIES));
	if (ret >= 0 && k.text[0].len) {
		const struct strbuf *text = &k.text[text_format(n)];

		strbuf_add(out, text->text, text->len);
		keep_take(n, &k);
	}
	drop_texts(&k);
	return ret < 0 ? ret : 0;
}

static int check_fill(struct node *n, struct slow *s, struct strbuf *out)
{
	int ret = mimage_get(n->m, MIMAGE_READ, NULL);

	if (ret)
		return ret;
	ret = check_run(n, s, out);
	mimage_put(n->m, MIMAGE_READ);
	return ret;
}

/* Checks of one image run one after the other: the later ones find what the
 * first one left. */
static void check_read(fuse_req_t req, struct handle *h, size_t len, off_t off)
{
	struct work how = { .key = h->node->m, .bulky = true };

	text_read(req, h, len, off, h->node->mnt->workers, &how, check_fill);
}

const struct node_ops check_ops = {
	.name = "check",
	.mode = 0444,
	.open = text_open,
	.read = check_read,
	.release = text_release,
};

const struct node_ops check_json_ops = {
	.name = "check.json",
	.mode = 0444,
	.open = text_open,
	.read = check_read,
	.release = text_release,
};
