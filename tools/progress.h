/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * progress.h - how far a command is: -p prints it on stdout, without it
 * SIGUSR1 prints one line on stderr.
 */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "job.h"

/* Sets @p up (tick included) and, with @show, prints "    (0.00/100%)\r".
 * @p must outlive progress_end(). */
void progress_start(struct progress *p, bool show);
/* convert prints 100 once more when it has ended well. */
void progress_complete(struct progress *p);
/* The newline behind it; SIGUSR1 kills again. */
void progress_end(struct progress *p);

#endif
