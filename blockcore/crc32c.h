/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crc32c.h - Castagnoli's checksum (VHDX, btrfs, iSCSI). */
#ifndef BLOCKCORE_CRC32C_H
#define BLOCKCORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Begin with 0; the result of one stretch begins the next. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t len);

#endif
