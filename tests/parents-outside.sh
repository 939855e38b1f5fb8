#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Parents of VDI, VHD and VHDX that lie outside of the mounted folder, above it,
# by an absolute path or behind a link: refused by the path policy, by imgfs and
# by imgctl --safe; not even opened (strace sees it).  allow-path lets them in;
# imgctl without --safe follows the names.
. "${top_srcdir:-$(dirname "$0")/..}/tests/lib.sh"
requires python3
requires_fuse

mkdir in far
imgctl create -q -f vdi far/base.vdi 4M
imgctl create -q -f vpc -o force_size=on far/base.vhd 4M
imgctl create -q -f vhdx -o block_size=1M far/base.vhdx 4M
for f in vdi:vdi vpc:vhd vhdx:vhdx; do
	"$top_builddir/tests/imgio" -f ${f%:*} -c 'write -P 1 0 4M' \
		far/base.${f#*:} >/dev/null
done

for ext in vhd:vpc vhdx:vhdx; do
	while read -r n path; do
		"$top_srcdir/tests/mkdiff.py" ${ext#*:} far/base.${ext%:*} \
			in/$n.${ext%:*} "$path${ext%:*}"
	done <<END
above ../far/base.
absolute $PWD/far/base.
linked link.
near base.
END
done
"$top_srcdir/tests/mkdiff.py" vdi far/base.vdi in/near.vdi
head -c 4M /dev/zero | tr '\0' '\1' >want

# refused COMMAND...: by the policy, and in its words.
refused() {
	assert_fails "$@"
	assert_contains "$(cat err)" "outside of the folders" "$*"
}

for ext in vhd vhdx; do
	ln -s "$PWD/far/base.$ext" in/link.$ext
	for n in above absolute linked; do
		refused imgctl convert --safe -O raw in/$n.$ext x
		imgctl convert -O raw in/$n.$ext x
		assert_same x want
	done
	assert_fails imgctl convert -O raw in/near.$ext x
done

mount_img in mnt
for ext in vhd vhdx; do
	for n in above absolute linked; do
		assert_fails cat mnt/$n.$ext/disk
		assert_contains "$(cat mnt/$n.$ext/status)" \
			"outside of the folders"
	done
done
# A VDI names no path at all: only the folder is looked at, and what is there
# leads out.
assert_fails cat mnt/near.vdi/disk
ln -s "$PWD/far/base.vdi" in/base.vdi
assert_fails cat mnt/near.vdi/disk
umount_img mnt

mount_img -o "allow-path=$PWD/far" in mnt
for ext in vhd vhdx; do
	for n in above absolute linked; do
		assert_same mnt/$n.$ext/disk want
	done
done
assert_same mnt/near.vdi/disk want
umount_img mnt

# Of what is refused not even the folder is opened.
if command -v strace >/dev/null; then
	for f in above.vhd above.vhdx linked.vhd linked.vhdx; do
		strace -f -e trace=open,openat,openat2 -o calls \
			imgctl convert --safe -O raw in/$f x 2>/dev/null || :
		if grep -E '"(base\.|[^"]*/far/base)' calls | grep -v ENOENT |
		   grep -q ' = [0-9]'; then
			cat calls >&2
			fail "$f: the parent was opened"
		fi
	done
fi
