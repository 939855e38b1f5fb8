/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * status.c - what an image of the mount has to say for itself: the file
 * `status`, and what the kernel is told about how long it may believe us.
 *
 * Knows sentences and time-outs.  Refuses to change the image's state.
 */
#include "fs/mimage.h"

#define FOR_EVER 1e9    /* seconds */

/* Keeps @text in @slot; false: it is there already. */
static bool keep_sentence(char **slot, const char *text)
{
	if (*slot && text && !strcmp(*slot, text))
		return false;
	free(*slot);
	*slot = text ? strdup(text) : NULL;
	return text != NULL;
}

void mimage_trouble(struct mimage *m, const char *sentence)
{
	m->late = false;
	/* Before there is a mount, who started us is told. */
	if (keep_sentence(&m->trouble, sentence) && m->mnt->se)
		log_line("%s", sentence);
}

void mimage_outcome(struct mimage *m, const char *sentence)
{
	with_lock(&m->lock);
	keep_sentence(&m->outcome, sentence);
}

void mimage_sync_failed(struct mimage *m, int err, bool broken)
{
	autoerr e = ERR_INIT;

	err_errno(&e, err, "Could not make '%s' durable", m->title);
	with_lock(&m->lock);
	if (broken && !m->failed)
		m->failed = strdup(err_text(&e));
	mimage_trouble(m, err_text(&e));
	m->late = true;
}

void mimage_durable(struct mimage *m)
{
	if (m->late)
		mimage_trouble(m, NULL);
}

static const char *how_open(const struct mimage *m)
{
	if (!m->image)
		return "closed";
	if (m->mnt->opt->share)
		return "open, shared: may be inconsistent";
	return m->writable ? "open for writing" : "open for reading";
}

void mimage_status(struct mimage *m, struct strbuf *out)
{
	const char *line = "ok";

	with_lock(&m->lock);
	if (m->failed)
		line = m->failed;
	else if (m->outcome)
		line = m->outcome;
	else if (m->trouble)
		line = m->trouble;
	else if (!m->image && m->facts && m->facts->sentence)
		line = m->facts->sentence;
	strbuf_printf(out, "%s\n%s\n", line, how_open(m));
}

bool mimage_keep_cache(struct mimage *m)
{
	(void)m;        /* all there is to know depends on the node */
	return true;
}

double mimage_timeout(struct mimage *m)
{
	with_lock(&m->lock);
	return m->image && !m->mnt->opt->share ? FOR_EVER : 1.0;
}

struct change {
	struct mount *mnt;
	bool data;
};

static void note_change(const struct node *n, void *data)
{
	const struct change *c = data;

	notify_inode(c->mnt, n->ino, c->data && !node_is_dir(n->kind));
}

void mimage_changed(struct mimage *m, bool data)
{
	struct change c = { m->mnt, data };

	facts_drop(m);
	node_each(m, note_change, &c);
}
