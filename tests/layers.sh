#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The layers hold: an include points only down the list fs, tools, formats,
# blockcore; a format's object moves no bytes, encodes nothing and syncs
# nothing; every source says its licence.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"

cd "$top_srcdir"
bad=0

complain() {
	echo "$*" >&2
	bad=1
}

sources() {
	find "$@" -name '*.[ch]' | sort
}

# may_include FOLDER ALLOWED...: where the quoted includes of a folder's
# sources are found (as the compiler does: beside the source, then blockcore/,
# then the top folder).
may_include() {
	from=$1
	for src in $(sources "$from"); do
		sed -n 's/^[ 	]*# *include *"\([^"]*\)".*/\1/p' "$src" |
			sort -u > "$tmp/includes"
		while read -r name; do
			check_include "$src" "$name" "$@"
		done < "$tmp/includes"
	done
}

check_include() {
	src=$1 name=$2
	shift 2
	[ "$name" != config.h ] || return 0
	path=
	for at in "$(dirname "$src")/$name" "blockcore/$name" "$name"; do
		[ ! -f "$at" ] || { path=$(realpath --relative-to=. "$at"); break; }
	done
	if [ -z "$path" ]; then
		complain "$src: include of unknown $name"
		return 0
	fi
	for allowed; do
		case $path in
		"$allowed"/*) return 0 ;;
		esac
	done
	complain "$src: may not include $path"
}

may_include blockcore
may_include formats blockcore
may_include tools formats blockcore
may_include fs tools formats blockcore

# A format may use the codecs' and files' names only through the engine.
io='p?(read|write)v?(64)?(v2)?|f(data)?sync|sync_file_range|fallocate(64)?'
codecs='(in|de)flate.*|compress2?|uncompress|libdeflate_.*|ZSTD_.*'
ciphers='(nettle_)?(aes|cbc|xts)[0-9_].*'
find "$top_builddir/formats" -name '*.o' > "$tmp/objects"
[ -s "$tmp/objects" ] || complain "no objects in formats/"
while read -r o; do
	nm -u "$o" | awk '{ print $2 }' | sed 's/@.*//' > "$tmp/symbols"
	for sym in $(grep -xE "$io|$codecs|$ciphers" "$tmp/symbols"); do
		complain "$o: uses $sym"
	done
done < "$tmp/objects"

licensed() {
	find blockcore formats fs tools tests man -type f \
		\( -name '*.[ch]' -o -name '*.sh' -o -name '*.py' \
		-o -name '*.[157]' \)
	echo configure.ac Makefile.am quickstart .ci/run tests/run tests/report |
		tr ' ' '\n'
}

for f in $(licensed); do
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: LGPL-2.1-or-later' ||
		complain "$f: no SPDX line"
done

[ $bad -eq 0 ]
