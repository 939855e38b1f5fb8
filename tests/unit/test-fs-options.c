/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* imgfs's command line: both orders, every option, what mount(8) adds, and the
 * sentence for each mistake. */
#include "fs/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct fs_options o;
static struct err err;

static void done(void)
{
	fs_options_free(&o);
	err_clear(&err);
}

/* Splits @line at blanks. */
static int parse(const char *line)
{
	static char copy[500];
	char *argv[32], *save;
	int argc = 0;

	done();
	snprintf(copy, sizeof(copy), "imgfs %s", line);
	for (char *p = strtok_r(copy, " ", &save); p;
	     p = strtok_r(NULL, " ", &save))
		argv[argc++] = p;
	argv[argc] = NULL;
	return fs_options_parse(&o, argc, argv, &err) ?:
	       fs_options_check(&o, &err);
}

static void refused(const char *line, const char *sentence)
{
	assert_true(parse(line) < 0);
	assert_string_equal(err_text(&err), sentence);
}

static void orders(void **state)
{
	static const char *const same[] = {
		"-o rw,idle=3 a.img m", "a.img m -o rw,idle=3",
		"a.img -o rw m -oidle=3", "-o rw,idle=3 -- a.img m",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
		assert_int_equal(parse(same[i]), 0);
		assert_int_equal(o.nr_sources, 1);
		assert_string_equal(o.sources[0], "a.img");
		assert_string_equal(o.mountpoint, "m");
		assert_true(o.rw && !o.ro && o.idle_given);
		assert_int_equal(o.idle, 3);
	}
	assert_int_equal(parse("a b c m"), 0);
	assert_int_equal(o.nr_sources, 3);
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(parse("a m"), 0);
	assert_true(!o.rw && !o.ro && !o.share && !o.idle_given);
	assert_true(!o.foreground && !o.debug && !o.has_uid && !o.has_umask);
	assert_int_equal(o.idle, 5);
	assert_int_equal(o.cache_size, 256 * MiB);
	assert_int_equal(o.max_write, 1 * MiB);
	assert_int_equal(options_max_read(&o), 256 * KiB);
	assert_int_equal(o.threads, 0);
	assert_int_equal(o.cache, FS_CACHE_DEFAULT);
}

static void every_option(void **state)
{
	(void)state;
	assert_int_equal(parse("-f a m -o rw,raw,growable,discard=ignore"
			       ",format=qcow2,cache=none,cache-size=1.5M"
			       ",max_write=128k,threads=3,allow-path=/a\\,b"
			       ",allow-path=c,uid=7,gid=8,umask=027,allow_root"
			       ",auto_unmount,log=/l"), 0);
	assert_true(o.rw && o.raw && o.growable && o.discard_ignore);
	assert_true(o.allow_root && o.auto_unmount && o.foreground);
	assert_string_equal(o.format, "qcow2");
	assert_int_equal(o.cache, FS_CACHE_NONE);
	assert_int_equal(o.cache_size, 3 * MiB / 2);
	assert_int_equal(o.max_write, 128 * KiB);
	assert_int_equal(options_max_read(&o), 128 * KiB);
	assert_int_equal(o.threads, 3);
	assert_int_equal(o.nr_allow_path, 2);
	assert_string_equal(o.allow_path[0], "/a,b");
	assert_true(o.has_uid && o.has_gid && o.has_umask);
	assert_int_equal(o.uid, 7);
	assert_int_equal(o.gid, 8);
	assert_int_equal(o.umask, 027);
	assert_string_equal(o.log, "/l");
	assert_int_equal(parse("a m -o ro,share,cache=unsafe,discard=unmap"
			       ",allow_other,uid=root -d"), 0);
	assert_true(o.ro && o.share && o.allow_other && o.debug);
	assert_true(o.foreground && o.has_uid && !o.discard_ignore);
	assert_int_equal(parse("a m -o rw,cache=writeback,ro"), 0);
	assert_true(o.ro && !o.rw);
}

static void what_mount_adds(void **state)
{
	(void)state;
	assert_int_equal(parse("a m -o rw,nofail,noauto,x-systemd.automount"
			       ",x-a.b=c,X-mount.mkdir=0755,_netdev,user=joe"
			       ",users,owner,dev,suid,nodev,nosuid,noatime"
			       ",relatime,nodiratime,comment=x,defaults,async"
			       ",default_permissions,noexec"
			       ",context=\"u:r:t:s0:c1,c2\""), 0);
	assert_true(o.rw && o.noexec);
	assert_string_equal(o.context, "context=\"u:r:t:s0:c1,c2\"");
}

static void mistakes(void **state)
{
	(void)state;
	refused("", "Expecting a source and a mount point");
	refused("a", "Expecting a mount point behind 'a'");
	refused("a m -o foo", "Invalid parameter 'foo'");
	refused("a m -o foo=1,rw", "Invalid parameter 'foo'");
	refused("a m -o idle=x", "Parameter 'idle' expects a number of"
		" seconds");
	refused("a m -o idle=-1", "Parameter 'idle' expects a number of"
		" seconds");
	refused("a m -o idle", "Parameter 'idle' needs a value: idle=SECONDS");
	refused("a m -o rw=1", "Parameter 'rw' takes no value");
	refused("a m -o cache=fast", "Parameter 'cache' expects 'none',"
		" 'writeback' or 'unsafe'");
	refused("a m -o cache-size=x", "Parameter 'cache-size' expects a"
		" non-negative number below 2^64");
	refused("a m -o cache-size=1k", "Value '1k' is out of range for"
		" parameter 'cache-size'");
	refused("a m -o max_write=2M", "Value '2M' is out of range for"
		" parameter 'max_write'");
	refused("a m -o threads=0", "Parameter 'threads' expects a value from"
		" 1 to 1000");
	refused("a m -o umask=8", "Parameter 'umask' expects an octal number"
		" up to 777");
	refused("a m -o uid=no.such.user", "Parameter 'uid' expects a user's"
		" name or number");
	refused("a m -o format=", "Parameter 'format' is empty");
	refused("a m -o rw,share", "'share' is for reading: it excludes 'rw'");
	refused("a m -o growable", "'growable' needs 'rw'");
	refused("a m -o allow_root,allow_other", "'allow_other' and"
		" 'allow_root' exclude each other");
	refused("a m -x", "invalid option -- 'x'");
	refused("a m --foo", "unrecognized option '--foo'");
	refused("a m -o", "option requires an argument -- 'o'");
}

static void help(void **state)
{
	autostrbuf sb = STRBUF_INIT;

	(void)state;
	assert_int_equal(parse("--help"), 0);
	assert_int_equal(o.action, FS_HELP);
	assert_int_equal(parse("-V"), 0);
	assert_int_equal(o.action, FS_VERSION);
	fs_options_help(&sb);
	assert_non_null(strstr(sb.text, "  idle=SECONDS "));
	assert_null(strstr(sb.text, "nofail"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(orders),
		cmocka_unit_test(defaults),
		cmocka_unit_test(every_option),
		cmocka_unit_test(what_mount_adds),
		cmocka_unit_test(mistakes),
		cmocka_unit_test(help),
	};
	int rc = cmocka_run_group_tests(tests, NULL, NULL);

	done();
	return rc;
}
