#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The manual pages are well-formed, and imgctl(1) carries each warning of
# qemu-img's manual that concerns what exists.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires mandoc

for page in "$top_srcdir"/man/*.[157]; do
	mandoc -T lint -W warning "$page" >&2 || fail "$page"
done

# imgfs-formats(5) has each option of each format.
options=0
for fmt in $(sed -n 's/^\.It Sy //p' "$top_srcdir/man/imgfs-formats.5"); do
	sed -n "/^\.It Sy $fmt\$/,/^\.It Sy [^$]*/p" \
		"$top_srcdir/man/imgfs-formats.5" >section
	for o in $(imgctl create -f "$fmt" -o help 2>/dev/null |
			sed -n 's/^  \([^=]*\)=.*/\1/p'); do
		options=$((options + 1))
		[ "$o" = size ] || grep -qw -e "$o" section ||
			fail "imgfs-formats(5) lacks $o of $fmt"
	done
done
[ $options -gt 40 ] || fail "only $options options were looked at"

# The text of imgctl(1) on one line, without overstrikes.
mandoc -T ascii -O width=200 "$top_srcdir/man/imgctl.1" | sed 's/.\x08//g' |
	tr -s '\n ' '  ' > text

# SECTION PATTERN: the warnings, each by its key words.
missing=0
while IFS='|' read -r what pattern; do
	[ -n "$what" ] || continue
	grep -Eq -- "$pattern" text || {
		echo "imgctl(1) lacks a warning ($what): $pattern" >&2
		missing=$((missing + 1))
	}
done <<'TABLE'
general|Never change an image .* in use: it may be destroyed
general|somebody else is writing may show an inconsistent state
-U|allowed for read-only opens, and its results may be inconsistent
image-opts|It excludes -f
target-image-opts|excludes -O and needs -n
-q|With -p there is no progress either
-p|not given, SIGUSR1 prints the progress
-S|multiple of 512 is refused; .* out of date
sizes|powers of 1024; b is ignored
check -r|-r all may choose the wrong fix or hide corruption
check -r|-r leaks touches only leaks
check|Not every format has a check: exit code 63
check|code tells the state after the repair
compare|images of different size are the same when the rest .* zero
compare|unallocated equals zeroes
compare -s|makes size and allocation count
convert -c|Compression is read-only: .* stored uncompressed
convert -B|must have the same content as the source's own base; nothing checks
convert -B|two layers above that base loses the data of the lower
convert -W|preallocated targets such as devices only, and is not meant with -c
convert -S|With -S 0 .* fully allocated
convert -n|It must exist and be prepared
convert -n|-o has no effect then, and is an error
target-is-zero|promises that the target reads as zeroes
target-is-zero|needs -n and excludes a backing file. A wrong promise leaves old data
create|never changed by the new image, except by commit
create|looked up from the new image's folder, not from the working folder
create -u|not opened: the image is unusable until
lazy_refcounts|reference counts are rebuilt at the next open, .* Needs compat=1.1
nocow|works on btrfs only, and only on a new or empty file; lsattr\(1\) shows .?.?C
preallocation|falloc and full the reserved space need not read as zeroes
compat|lacks zero clusters, without which a sparse overlay stores zeroes
cluster_size|512 bytes to 2 MiB.* Small clusters save space, large ones are faster
compression_type|zstd needs compat=1.1; zlib only with 0.10
disk size|may be missing or 0 where the host cannot tell
dirty|will be repaired when it is next opened for writing
map|not for scripts: file names may contain newlines. Use --output=json
map|fails on images with compressed, encrypted or external data; json does not
map|data=false is space that is preallocated, not used yet
raw|file system has holes only written sectors take space; info or ls -ls
formats|Formats other than raw and qcow2 are meant for conversion
resize|First shrink file systems and partitions inside the guest
resize|partitions and file systems must be grown to use
resize|may take slightly more than necessary
measure|sizes leave out internal snapshots, VM state
measure|missing where one side has no bitmaps
amend|backing file cannot be amended: use rebase
TABLE
[ $missing -eq 0 ] || fail "$missing warnings are missing"
