#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What git knows and what `make dist` packs are the same files, but for those
# that only git needs; nothing that a tool generates is in git.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires git
git -C "$top_srcdir" ls-files >known 2>/dev/null || skip "no git repository"
[ -s known ] || skip "no git repository here"

unset MAKEFLAGS MAKELEVEL
make -s -C "$top_builddir" distdir distdir="$tmp/packed" >log 2>&1 ||
	{ cat log >&2; fail "make distdir"; }

grep -vxE '\.gitignore|\.gitattributes' known | while read -r f; do
	[ ! -e "$top_srcdir/$f" ] || [ -e "packed/$f" ] || echo "$f"
done > unpacked
[ ! -s unpacked ] || fail "not in the distribution: $(cat unpacked)"

generated='configure|config\.h\.in|aclocal\.m4|.*Makefile\.in|build-aux/.*'
! grep -xE "$generated|.*\.(o|a|log|trs)" known >&2 ||
	fail "generated files are in git"
