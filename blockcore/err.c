/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* err.c - one sentence for a person; see err.h. */
#include "err.h"

#include "strbuf.h"

#include <stdio.h>

static void set_text(struct err *err, int code, struct strbuf *sb)
{
	err->code = code;
	err->text = strbuf_take(sb);
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	if (!err || err->code)
		return code;
	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	set_text(err, code, &sb);
	return code;
}

int err_errno(struct err *err, int code, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	if (!err || err->code)
		return code;
	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	strbuf_printf(&sb, ": %s", strerror(-code));
	set_text(err, code, &sb);
	return code;
}

void err_prefix(struct err *err, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	if (!err || !err->code)
		return;
	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	strbuf_puts(&sb, err_text(err));
	free(err->text);
	err->text = strbuf_take(&sb);
}

void err_hint(struct err *err, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	if (!err)
		return;
	if (err->hint)
		strbuf_puts(&sb, err->hint);
	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	free(err->hint);
	err->hint = strbuf_take(&sb);
}

const char *err_text(const struct err *err)
{
	return err->text ? err->text : strerror(-err->code);
}

void err_clear(struct err *err)
{
	free(err->text);
	free(err->hint);
	*err = (struct err)ERR_INIT;
}

void err_move(struct err *to, struct err *from)
{
	if (to && !to->code)
		*to = *from;
	else
		err_clear(from);
	*from = (struct err)ERR_INIT;
}

static void warn_stderr(const char *text)
{
	fprintf(stderr, "warning: %s\n", text);
}

static void (*warn_fn)(const char *text) = warn_stderr;

void warn_set(void (*fn)(const char *text))
{
	warn_fn = fn;
}

void warn(const char *fmt, ...)
{
	autostrbuf sb = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_vprintf(&sb, fmt, ap);
	va_end(ap);
	warn_fn(sb.text);
}

void bug_at(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "BUG: %s:%d: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	abort();
}
