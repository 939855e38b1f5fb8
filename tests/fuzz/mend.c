/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mend.c - checksums that a fuzzer cannot guess are made right, so that what
 * they protect is looked at.  A format that has some adds a function and a line
 * of the table.
 */
#include "sketch.h"

#include "crc32c.h"

#include <nettle/md5.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- VHD: the one's complement of the sum of the bytes ------------------- */

static void vpc_sum(int fd, off_t at, size_t n, size_t field)
{
	uint8_t buf[1024];
	uint32_t sum = 0;

	if (at < 0 || pread(fd, buf, n, at) != (ssize_t)n)
		return;
	memset(buf + field, 0, 4);
	for (size_t i = 0; i < n; i++)
		sum += buf[i];
	be32_put(buf + field, ~sum);
	if (pwrite(fd, buf + field, 4, at + (off_t)field) < 0)
		abort();
}

static void mend_vpc(int fd, off_t end)
{
	uint8_t at[8];

	vpc_sum(fd, 0, 512, 64);
	vpc_sum(fd, end - 512, 512, 64);
	if (pread(fd, at, 8, 16) == 8 && be64_at(at) < (uint64_t)end)
		vpc_sum(fd, (off_t)be64_at(at), 1024, 36);
}

/* ---- VHDX: CRC-32C of headers, region tables and log entries ------------- */

#define VHDX_LOG_MAX (1 * MiB)

static void vhdx_crc(int fd, off_t at, size_t n, const char *magic)
{
	uint8_t *buf = n >= 8 ? malloc(n) : NULL;

	if (buf && pread(fd, buf, n, at) == (ssize_t)n &&
	    !memcmp(buf, magic, 4)) {
		memset(buf + 4, 0, 4);
		le32_put(buf + 4, crc32c(0, buf, n));
		if (pwrite(fd, buf + 4, 4, at + 4) < 0)
			abort();
	}
	free(buf);
}

static void mend_vhdx(int fd, off_t end)
{
	uint8_t e[12];

	vhdx_crc(fd, 64 << 10, 4096, "head");
	vhdx_crc(fd, 128 << 10, 4096, "head");
	vhdx_crc(fd, 192 << 10, 64 << 10, "regi");
	vhdx_crc(fd, 256 << 10, 64 << 10, "regi");
	/* The log: entries begin at multiples of 4 KiB. */
	for (off_t at = MiB; at < end && at < (off_t)(2 * MiB); at += 4096)
		if (pread(fd, e, sizeof(e), at) == sizeof(e) &&
		    !memcmp(e, "loge", 4) && le32_at(e + 8) <= VHDX_LOG_MAX)
			vhdx_crc(fd, at, le32_at(e + 8), "loge");
}

/* ---- Parallels: MD5 of the extension's cluster, behind itself ------------ */

static void mend_parallels(int fd, off_t end)
{
	uint8_t h[64], sum[MD5_DIGEST_SIZE], *x;
	struct md5_ctx md5;
	uint64_t at, n;

	if (pread(fd, h, sizeof(h), 0) != sizeof(h))
		return;
	at = le64_at(h + 56);
	n = le32_at(h + 28) * UINT64_C(512);
	if (!at || at > (uint64_t)end / 512 || n < 24 || n > MiB)
		return;
	x = calloc(1, n);       /* behind the end there are zeroes */
	if (!x || pread(fd, x, n, (off_t)(at * 512)) < 24) {
		free(x);
		return;
	}
	md5_init(&md5);
	md5_update(&md5, n - 24, x + 24);
	md5_digest(&md5, sizeof(sum), sum);
	if (pwrite(fd, sum, sizeof(sum), (off_t)(at * 512 + 8)) < 0)
		abort();
	free(x);
}

/* -------------------------------------------------------------------------- */

static const struct {
	const char *format;
	void (*mend)(int fd, off_t end);
} table[] = {
	{ "vpc", mend_vpc },
	{ "vhdx", mend_vhdx },
	{ "parallels", mend_parallels },
};

void sketch_mend(const char *format, int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		abort();
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (!strcmp(table[i].format, format))
			table[i].mend(fd, st.st_size);
}
