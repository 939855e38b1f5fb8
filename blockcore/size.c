/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * size.c - sizes and booleans as people write them, and back.  Knows what
 * qemu-img accepts (qemu-img-cli.md 2).  Refuses to know whose option it is:
 * callers make the sentence.
 */
#include "options.h"

#include <ctype.h>
#include <math.h>

int qemu_compat(void)
{
	const char *v = getenv("IMGCTL_QEMU_COMPAT");

	return v && !strcmp(v, "7.2") ? 72 : 100;
}

/* log2 of what a suffix means; -1: no suffix. */
static int suffix_shift(char c)
{
	static const char letters[] = "bkmgtpe";
	const char *at;

	if (!c)
		return -1;
	at = strchr(letters, tolower((unsigned char)c));
	return at ? (int)(at - letters) * 10 : -1;
}

/* Digits of @base at *@p; false: beyond 2^64.  *@p moves behind them. */
static bool read_digits(const char **p, unsigned base, uint64_t *n)
{
	bool fits = true;

	for (*n = 0;; (*p)++) {
		unsigned char c = (unsigned char)**p;

		if (base == 16 ? !isxdigit(c) : !isdigit(c))
			return fits;
		c = (unsigned char)tolower(c);
		fits = fits && !mul_overflows(*n, base, n) &&
			!add_overflows(*n, isdigit(c) ? c - '0' : c - 'a' + 10,
				       n);
	}
}

/* ".75" at *@p, also "." alone. */
static double read_fraction(const char **p)
{
	double f = 0, whole, digit = 0.1;

	for ((*p)++; isdigit((unsigned char)**p); (*p)++, digit /= 10)
		f += (**p - '0') * digit;
	return modf(f, &whole);
}

static enum size_error scale(uint64_t n, double fraction, int shift,
			     uint64_t *bytes)
{
	uint64_t mul = UINT64_C(1) << shift;

	if (fraction > 0 && shift == 0)
		return SIZE_SYNTAX;
	if (mul_overflows(n, mul, &n) ||
	    add_overflows(n, (uint64_t)(fraction * (double)mul + 0.5), &n))
		return SIZE_RANGE;
	*bytes = n;
	return SIZE_OK;
}

enum size_error size_parse(const char *text, uint64_t *bytes)
{
	const char *p = text, *start;
	double fraction = 0;
	bool fits, hex;
	uint64_t n;
	int shift;

	while (isspace((unsigned char)*p))
		p++;
	p += *p == '+';
	hex = p[0] == '0' && tolower((unsigned char)p[1]) == 'x';
	start = p += hex ? 2 : 0;
	fits = read_digits(&p, hex ? 16 : 10, &n);
	if (p == start && (hex || *p != '.' || qemu_compat() == 72 ||
			   !isdigit((unsigned char)p[1])))
		return SIZE_SYNTAX;
	if (*p == '.' && !hex)
		fraction = read_fraction(&p);
	shift = suffix_shift(*p);
	if (shift >= 0) {
		p++;
		if (hex && qemu_compat() != 72)
			return SIZE_SYNTAX;
	}
	if (*p)
		return SIZE_SYNTAX;
	if (hex && shift >= 0)
		warn("Using a multiplier suffix on hex numbers is deprecated: "
		     "%s", text);
	return fits ? scale(n, fraction, shift < 0 ? 0 : shift, bytes)
		    : SIZE_RANGE;
}

void size_human(struct strbuf *out, uint64_t bytes)
{
	static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB",
					    "PiB", "EiB" };
	double v = (double)bytes;
	size_t i;

	for (i = 0; v >= 1000 && i + 1 < ARRAY_SIZE(unit); i++)
		v /= 1024;
	strbuf_printf(out, "%0.3g %s", v, unit[i]);
}

bool bool_parse(const char *text, bool *value)
{
	static const char *const words[] = { "off", "on", "no", "yes",
					     "false", "true", "n", "y" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strcmp(text, words[i])) {
			*value = i & 1;
			return true;
		}
	}
	return false;
}
