/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-policy.c - where names out of an image may lead, and where not.
 *
 *	ROOT/a/top  ROOT/base/b    allowed: ROOT/a (and ROOT/base, later)
 *	ROOT/secret
 */
#include "config.h"

#include "file.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

static char top[40];
static struct policy *p;

static void put(const char *name)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(name, f);
	fclose(f);
}

static int setup(void **state)
{
	(void)state;
	alarm(60);
	strcpy(top, "/tmp/imgfs-policy.XXXXXX");
	if (!mkdtemp(top) || chdir(top) || mkdir("a", 0700) ||
	    mkdir("a/sub", 0700) || mkdir("base", 0700) ||
	    symlink("a", "alias") || mkdir("ab", 0700))
		return -1;
	put("secret");
	put("a/top");
	put("a/sub/x");
	put("base/b");
	put("ab/y");
	p = policy_new();
	return policy_allow(p, "alias", NULL);
}

static int teardown(void **state)
{
	char cmd[64];

	(void)state;
	policy_free(p);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return chdir("/") || system(cmd) ? -1 : 0;
}

/* Opens and returns what the file says it is ("a/top"), or the error. */
static const char *read_name(const char *path, int *ret)
{
	static char name[64];
	autoerr err = ERR_INIT;
	ssize_t n;

	*ret = policy_open(p, path, O_RDONLY, 0, &err);
	if (*ret < 0) {
		assert_non_null(strstr(err_text(&err), path));
		if (*ret == -EACCES)
			assert_non_null(strstr(err_text(&err),
					       "-o allow-path=DIR"));
		return NULL;
	}
	n = read(*ret, name, sizeof(name) - 1);
	close(*ret);
	name[n > 0 ? n : 0] = 0;
	return name;
}

static void leads_to(const char *path, const char *file)
{
	int ret;
	const char *name = read_name(path, &ret);

	if (!name)
		fail_msg("%s: %s", path, strerror(-ret));
	assert_string_equal(name, file);
}

static void fails(const char *path, int error)
{
	int ret;

	read_name(path, &ret);
	assert_int_equal(ret, error);
}

static void below(const char *rest, const char *file)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", top, rest);
	leads_to(path, file);
}

static void inside_is_allowed(void **state)
{
	(void)state;
	leads_to("a/top", "a/top");
	leads_to("./a/.//sub/x", "a/sub/x");
	leads_to("a/sub/../top", "a/top");
	leads_to("alias/top", "a/top");
	below("a/top", "a/top");
	below("alias/sub/x", "a/sub/x");
	below("base/../a/top", "a/top");
	leads_to("a/../a/top", "a/top");
	fails("a/nothing", -ENOENT);
	fails("a/top/x", -ENOTDIR);
}

static void outside_is_refused(void **state)
{
	char path[300];

	(void)state;
	fails("/etc/passwd", -EACCES);
	fails("secret", -EACCES);
	fails("a/../secret", -EACCES);
	fails("a/sub/../../secret", -EACCES);
	fails("a/../../../../../../etc/passwd", -EACCES);
	fails("../x", -EACCES);
	fails("ab/y", -EACCES);         /* a prefix of letters is no folder */
	fails("/", -EACCES);
	snprintf(path, sizeof(path), "%s/a/../secret", top);
	fails(path, -EACCES);
	fails("/proc/self/root/etc/passwd", -EACCES);
}

static void links_are_followed_inside_only(void **state)
{
	char path[300];

	(void)state;
	assert_int_equal(symlink("sub/x", "a/inner"), 0);
	assert_int_equal(symlink("../top", "a/sub/up"), 0);
	assert_int_equal(symlink("sub", "a/way"), 0);
	assert_int_equal(symlink("../secret", "a/out"), 0);
	assert_int_equal(symlink("/etc/passwd", "a/abs-out"), 0);
	assert_int_equal(symlink("/proc/self/fd/0", "a/magic"), 0);
	assert_int_equal(symlink("loop", "a/loop"), 0);
	assert_int_equal(symlink("..", "a/dots"), 0);
	snprintf(path, sizeof(path), "%s/a/sub/x", top);
	assert_int_equal(symlink(path, "a/abs-in"), 0);
	snprintf(path, sizeof(path), "%s/alias/sub", top);
	assert_int_equal(symlink(path, "a/abs-way"), 0);
	leads_to("a/inner", "a/sub/x");
	leads_to("a/sub/up", "a/top");
	leads_to("a/way/up", "a/top");
	leads_to("a/abs-in", "a/sub/x");
	leads_to("a/abs-way/../top", "a/top");
	leads_to("a/dots/a/top", "a/top");
	fails("a/out", -EACCES);
	fails("a/abs-out", -EACCES);
	fails("a/magic", -EACCES);
	fails("a/dots/secret", -EACCES);
	fails("a/loop", -ELOOP);
}

static void only_regular_files(void **state)
{
	(void)state;
	assert_int_equal(mkfifo("a/fifo", 0600), 0);
	fails("a/fifo", -ENOTSUP);
	fails("a/sub", -ENOTSUP);
	fails("a", -ENOTSUP);
	if (!mknod("a/node", S_IFCHR | 0600, 1 << 8 | 3))
		fails("a/node", -ENOTSUP);
	assert_int_equal(symlink("fifo", "a/to-fifo"), 0);
	fails("a/to-fifo", -ENOTSUP);
}

static void another_root_may_lie_beside(void **state)
{
	(void)state;
	fails("a/../base/b", -EACCES);
	assert_int_equal(symlink("../../base/b", "a/sub/beside"), 0);
	fails("a/sub/beside", -EACCES);
	assert_int_equal(policy_allow(p, "base", NULL), 0);
	leads_to("a/../base/b", "base/b");
	leads_to("a/sub/beside", "base/b");
	below("base/b", "base/b");
	fails("a/../base/../secret", -EACCES);
}

static void no_roots_refuse_all(void **state)
{
	struct policy *none = policy_new();

	(void)state;
	assert_int_equal(policy_open(none, "a/top", O_RDONLY, 0, NULL),
			 -EACCES);
	policy_free(none);
	assert_int_equal(policy_allow(p, "nothing", NULL), -ENOENT);
}

static void whole_file_system_as_root(void **state)
{
	struct policy *all = policy_new();
	int fd;

	(void)state;
	assert_int_equal(policy_allow(all, "/", NULL), 0);
	fd = policy_open(all, "/etc/passwd", O_RDONLY, 0, NULL);
	assert_true(fd >= 0);
	close(fd);
	fd = policy_open(all, "a/../secret", O_RDONLY, 0, NULL);
	assert_true(fd >= 0);
	close(fd);
	policy_free(all);
}

/* F29: another device stands for our own mount. */
static void denied_devices_are_not_entered(void **state)
{
	struct stat st;
	int ret;

	(void)state;
	assert_int_equal(mkdir("a/mnt", 0700), 0);
	if (mount("none", "a/mnt", "tmpfs", 0, "size=1m"))
		skip();         /* needs root */
	put("a/mnt/z");
	leads_to("a/mnt/z", "a/mnt/z");
	assert_int_equal(stat("a/mnt", &st), 0);
	policy_deny_dev(p, st.st_dev);
	read_name("a/mnt/z", &ret);
	umount("a/mnt");
	assert_int_equal(ret, -EDEADLK);
}

static void files_are_made_inside_only(void **state)
{
	int fd = policy_open(p, "a/new", O_RDWR | O_CREAT, 0600, NULL);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(access("a/new", F_OK), 0);
	assert_int_equal(policy_open(p, "a/../new", O_RDWR | O_CREAT, 0600,
				     NULL), -EACCES);
	assert_int_equal(access("new", F_OK), -1);
}

/* From now on the kernel is one that does not know openat2(2). */
static bool become_old(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_SIZE(code), code };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) &&
	       syscall(SYS_openat2, -1, "", NULL, 0) < 0 && errno == ENOSYS;
}

int main(void)
{
	int failed;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inside_is_allowed),
		cmocka_unit_test(outside_is_refused),
		cmocka_unit_test(links_are_followed_inside_only),
		cmocka_unit_test(only_regular_files),
		cmocka_unit_test(another_root_may_lie_beside),
		cmocka_unit_test(no_roots_refuse_all),
		cmocka_unit_test(whole_file_system_as_root),
		cmocka_unit_test(denied_devices_are_not_entered),
		cmocka_unit_test(files_are_made_inside_only),
	};

	failed = cmocka_run_group_tests(tests, setup, teardown);
	if (become_old())
		failed += cmocka_run_group_tests_name("without openat2", tests,
						      setup, teardown);
	return failed;
}
