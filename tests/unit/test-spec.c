/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-spec.c - names, --image-opts and json: become trees of nodes, trees
 * become names, options are checked.  Every case was run with qemu-img 7.2
 * (info or map on files of these names).
 */
#include "config.h"

#include "options.h"
#include "spec.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char warned[512];

static void keep_warning(const char *text)
{
	strncpy(warned, text, sizeof(warned) - 1);
}

/* The tree as one line, or the error. */
static char *parsed(const char *text, enum spec_how how, const char *format)
{
	autostrbuf out = STRBUF_INIT;
	autoerr err = ERR_INIT;
	autojson *node = NULL;

	warned[0] = '\0';
	if (spec_parse(text, how, format, &node, &err))
		strbuf_puts(&out, err_text(&err));
	else
		json_write(&out, node, false, 0);
	return strbuf_take(&out);
}

#define FILE_A "\"file\": {\"filename\": \"a\"}"

static void test_parse_names(void **state)
{
	static const struct { const char *text, *format, *want; } cases[] = {
		{ "a", NULL, "{" FILE_A "}" },
		{ "a", "raw", "{\"driver\": \"raw\", " FILE_A "}" },
		{ "a", "file", "{\"driver\": \"file\", \"filename\": \"a\"}" },
		{ "file:a", "file",
		  "{\"driver\": \"file\", \"filename\": \"a\"}" },
		{ "", NULL, "{\"file\": {\"filename\": \"\"}}" },
		{ "./a:b", NULL, "{\"file\": {\"filename\": \"./a:b\"}}" },
		{ "a/b:c", NULL, "{\"file\": {\"filename\": \"a/b:c\"}}" },
		{ "file:a", NULL, "{\"file\": {\"driver\": \"file\","
		  " \"filename\": \"a\"}}" },
		{ "file:", NULL, "{\"file\": {\"driver\": \"file\","
		  " \"filename\": \"\"}}" },
		{ "file:file:a", NULL, "{\"file\": {\"driver\": \"file\","
		  " \"filename\": \"./file:a\"}}" },
		{ "host_device:/dev/null", NULL, "{\"file\": {\"driver\":"
		  " \"host_device\", \"filename\": \"/dev/null\"}}" },
		{ "a:b", NULL, "Unknown protocol 'a'" },
		{ ":a", NULL, "Unknown protocol ''" },
		{ "a:", "raw", "Unknown protocol 'a'" },
		{ "FILE:a", NULL, "Unknown protocol 'FILE'" },
		{ "raw:a", NULL, "Unknown protocol 'raw'" },
		{ "qcow2:a", NULL, "Unknown protocol 'qcow2'" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autofree char *got = parsed(cases[i].text, SPEC_NAME,
					    cases[i].format);

		assert_string_equal(got, cases[i].want);
	}
}

static void test_parse_json(void **state)
{
	static const struct { const char *text, *format, *want; } cases[] = {
		{ "{}", NULL, "{}" },
		{ "{\"driver\":\"raw\",\"file\":{\"filename\":\"a\"}}", NULL,
		  "{\"driver\": \"raw\", " FILE_A "}" },
		{ " {'driver':'raw','file.filename':'a'}", NULL,
		  "{\"driver\": \"raw\", " FILE_A "}" },
		/* What is nested wins over what is dotted, wherever it is. */
		{ "{\"file\":{\"filename\":\"a\"},\"file.filename\":\"b\"}",
		  NULL, "{" FILE_A "}" },
		{ "{\"file.filename\":\"b\",\"file\":{\"filename\":\"a\"}}",
		  NULL, "{" FILE_A "}" },
		{ "{\"file.driver\":\"file\",\"file\":{\"filename\":\"a\"}}",
		  NULL, "{\"file\": {\"driver\": \"file\","
		  " \"filename\": \"a\"}}" },
		/* -f wins over the driver inside. */
		{ "{\"driver\":\"qcow2\",\"file\":{\"filename\":\"a\"}}",
		  "raw", "{\"driver\": \"raw\", " FILE_A "}" },
		{ "{\"size\":1048576,\"offset\":\"1M\",\"x\":null}", NULL,
		  "{\"size\": 1048576, \"offset\": \"1M\", \"x\": null}" },
		{ "{\"cache\":{\"direct\":true,\"no-flush\":\"off\"}}", NULL,
		  "{\"cache.direct\": true, \"cache.no-flush\": \"off\"}" },
		{ "{\"children\":[{\"file\":\"a\"},\"b\"]}", NULL,
		  "{\"children.1\": \"b\", \"children.0.file\": \"a\"}" },
		{ "{\"file.file.file.filename\":\"a\"}", NULL,
		  "{\"file\": {\"file\": {" FILE_A "}}}" },
		{ "{\"backing.file.filename\":\"a\",\"backing.driver\":\"raw\""
		  "}", NULL, "{\"backing\": {" FILE_A ", \"driver\": \"raw\""
		  "}}" },
		{ "{\"file\":\"n\",\"file.filename\":\"a\"}", NULL,
		  "{\"file\": \"n\", \"file.filename\": \"a\"}" },
		{ "{\"file\":{}}", NULL, "{\"file\": {}}" },
		{ "", NULL, "Could not parse the JSON options: Expecting a"
		  " JSON value" },
		{ "{bad", NULL, "Could not parse the JSON options: JSON parse"
		  " error, invalid keyword 'bad'" },
		{ "{\"a\":1", NULL, "Could not parse the JSON options: JSON"
		  " parse error, premature EOI" },
		{ "{}x", NULL, "Could not parse the JSON options: Expecting at"
		  " most one JSON value" },
		{ "{\"a\":1,\"a\":2}", NULL, "Could not parse the JSON"
		  " options: JSON parse error, duplicate key" },
		{ "[]", NULL, "Invalid JSON object given" },
		{ "5", NULL, "Invalid JSON object given" },
		{ "null", NULL, "Invalid JSON object given" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autostrbuf text = STRBUF_INIT;
		autofree char *got = NULL;

		strbuf_printf(&text, "json:%s", cases[i].text);
		got = parsed(text.text, SPEC_NAME, cases[i].format);
		assert_string_equal(got, cases[i].want);
	}
}

static void test_parse_image_opts(void **state)
{
	static const struct { const char *text, *want; } cases[] = {
		{ "", "{}" },
		{ "driver=raw,file.filename=a",
		  "{\"driver\": \"raw\", " FILE_A "}" },
		{ "driver=raw,file.filename=a,",
		  "{\"driver\": \"raw\", " FILE_A "}" },
		{ "file.filename=a,,b", "{\"file\": {\"filename\": \"a,b\"}}" },
		{ "file.filename=a,,", "{\"file\": {\"filename\": \"a,\"}}" },
		{ "driver=raw,,x", "{\"driver\": \"raw,x\"}" },
		{ "driver==raw", "{\"driver\": \"=raw\"}" },
		{ "driver=raw,driver=qcow2", "{\"driver\": \"qcow2\"}" },
		{ "file.filename= a", "{\"file\": {\"filename\": \" a\"}}" },
		{ " driver=raw", "{\" driver\": \"raw\"}" },
		/* The first bare word refers to a node. */
		{ "a", "{\"file\": \"a\"}" },
		{ "nodriver", "{\"file\": \"nodriver\"}" },
		{ ",", "{\"file\": \"\"}" },
		{ "a,file.filename=b",
		  "{\"file\": \"a\", \"file.filename\": \"b\"}" },
		{ "backing=", "{\"backing\": \"\"}" },
		{ "=x", "{\"\": \"x\"}" },
		{ "file.driver=raw,file.file.filename=a",
		  "{\"file\": {\"driver\": \"raw\", " FILE_A "}}" },
		{ "offset=1M,size.0=1", "{\"offset\": \"1M\", \"size.0\":"
		  " \"1\"}" },
		/* No protocols in here. */
		{ "file.filename=file:a",
		  "{\"file\": {\"filename\": \"file:a\"}}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autofree char *got = parsed(cases[i].text, SPEC_IMAGE_OPTS,
					    NULL);

		assert_string_equal(got, cases[i].want);
		assert_string_equal(warned, "");
	}
}

static void test_bare_words_warn(void **state)
{
	autofree char *on = parsed("driver=raw,foo", SPEC_IMAGE_OPTS, NULL);

	(void)state;
	assert_string_equal(on, "{\"driver\": \"raw\", \"foo\": \"on\"}");
	assert_string_equal(warned, "short-form boolean option 'foo'"
			    " deprecated\nPlease use foo=on instead");
	free(on);
	on = parsed("driver=raw,nofoo", SPEC_IMAGE_OPTS, NULL);
	assert_string_equal(on, "{\"driver\": \"raw\", \"foo\": \"off\"}");
	assert_string_equal(warned, "short-form boolean option 'nofoo'"
			    " deprecated\nPlease use foo=off instead");
}

static void test_children(void **state)
{
	static const struct { const char *text, *base, *format, *want; }
	cases[] = {
		{ "b", "a", NULL, "{\"file\": {\"filename\": \"b\"}}" },
		{ "b", "sub/a", "raw", "{\"driver\": \"raw\", \"file\":"
		  " {\"filename\": \"sub/b\"}}" },
		{ "b", NULL, NULL, "{\"file\": {\"filename\": \"b\"}}" },
		{ "/b", "sub/a", NULL, "{\"file\": {\"filename\": \"/b\"}}" },
		{ "b:c/d", "sub/a", NULL, "Unknown protocol 'b'" },
		{ "./b:c", "sub/a", NULL, "{\"file\": {\"filename\":"
		  " \"sub/./b:c\"}}" },
		{ "file:b", "sub/a", NULL, "{\"file\": {\"driver\": \"file\","
		  " \"filename\": \"b\"}}" },
		{ "json:{\"driver\":\"qcow2\",\"file.filename\":\"a\"}",
		  "sub/a", "raw", "{\"driver\": \"raw\", " FILE_A "}" },
		{ "b", "sub/a", "file", "{\"driver\": \"file\","
		  " \"filename\": \"sub/b\"}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autostrbuf got = STRBUF_INIT;
		autoerr err = ERR_INIT;
		autojson *node = NULL;

		if (spec_parse_child(cases[i].text, cases[i].base,
				     cases[i].format, &node, &err))
			strbuf_puts(&got, err_text(&err));
		else
			json_write(&got, node, false, 0);
		assert_string_equal(got.text, cases[i].want);
	}
}

static void test_names(void **state)
{
	static const struct { const char *text, *want; } cases[] = {
		{ "driver=raw,file.filename=a", "a" },
		{ "driver=raw,file.driver=file,file.filename=a:b", "a:b" },
		{ "driver=file,filename=a", "a" },
		{ "driver=qcow2,lazy-refcounts=on,discard=unmap,"
		  "cache.direct=off,file.filename=a,file.locking=off", "a" },
		{ "driver=raw,node-name=x,read-only=on,file.filename=a", "a" },
		{ "driver=raw,offset=1M,size=2M,file.driver=file,"
		  "file.filename=a",
		  "json:{\"offset\": \"1M\", \"driver\": \"raw\", \"size\":"
		  " \"2M\", \"file\": {\"driver\": \"file\", \"filename\":"
		  " \"a\"}}" },
		{ "driver=raw,size=1M,file.read-only=on,read-only=on,"
		  "file.driver=file,file.filename=a",
		  "json:{\"driver\": \"raw\", \"size\": \"1M\", \"file\":"
		  " {\"driver\": \"file\", \"filename\": \"a\"}}" },
		{ "driver=qcow2,file.driver=raw,file.offset=0,"
		  "file.file.driver=file,file.file.filename=a",
		  "json:{\"driver\": \"qcow2\", \"file\": {\"offset\": \"0\","
		  " \"driver\": \"raw\", \"file\": {\"driver\": \"file\","
		  " \"filename\": \"a\"}}}" },
		{ "driver=raw,file.driver=raw,file.file.driver=file,"
		  "file.file.filename=a",
		  "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"raw\","
		  " \"file\": {\"driver\": \"file\", \"filename\": \"a\"}}}" },
		{ "driver=qcow2,backing.driver=raw,file.filename=a", "a" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autojson *node = NULL;
		autofree char *got = NULL;

		assert_int_equal(spec_parse(cases[i].text, SPEC_IMAGE_OPTS,
					    NULL, &node, NULL), 0);
		got = spec_name(node);
		assert_string_equal(got, cases[i].want);
	}
}

static void test_join(void **state)
{
	static const struct { const char *base, *name, *want; } cases[] = {
		{ "a", "b", "b" },
		{ "sub/a", "b", "sub/b" },
		{ "./sub/a", "b", "./sub/b" },
		{ "sub//a", "b", "sub//b" },
		{ "/a", "b", "/b" },
		{ "/x/a", "../b", "/x/../b" },
		{ "sub/a", "/b", "/b" },
		{ "sub/a", "file:b", "file:b" },
		{ "sub/a", "nbd://x/y", "nbd://x/y" },
		{ "sub/a", "json:{}", "json:{}" },
		{ "sub/a", "./b:c", "sub/./b:c" },
		{ NULL, "b", "b" },
		{ "json:{\"driver\": \"qcow2\", \"file\": {\"offset\": \"0\","
		  " \"file\": {\"filename\": \"sub/a\"}}}", "b", "sub/b" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autofree char *got = spec_join(cases[i].base, cases[i].name);

		assert_string_equal(got, cases[i].want);
	}
}

static void test_checks(void **state)
{
	static const struct { const char *text; enum spec_stage stage;
			      const char *driver; bool backing;
			      const char *want; } cases[] = {
		{ "read-only=on,cache.direct=off", SPEC_FLAGS, "raw", false,
		  NULL },
		{ "read-only=maybe", SPEC_FLAGS, "raw", false,
		  "Parameter 'read-only' expects 'on' or 'off'" },
		{ "cache.no-flush=x", SPEC_FLAGS, "raw", false,
		  "Parameter 'cache.no-flush' expects 'on' or 'off'" },
		{ "discard=maybe", SPEC_VALUES, "raw", false,
		  "Invalid discard option" },
		{ "detect-zeroes=bad", SPEC_VALUES, "raw", false,
		  "invalid parameter value: bad" },
		{ "detect-zeroes=unmap", SPEC_VALUES, "raw", false,
		  "setting detect-zeroes to unmap is not allowed without"
		  " setting discard operation to unmap" },
		{ "detect-zeroes=unmap,discard=unmap", SPEC_VALUES, "raw",
		  false, NULL },
		{ "node-name=1bad", SPEC_VALUES, "raw", false,
		  "Invalid node-name: '1bad'" },
		{ "node-name=a#b", SPEC_VALUES, "raw", false,
		  "Invalid node-name: 'a#b'" },
		{ "node-name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		  SPEC_VALUES, "raw", false, "Node name too long" },
		{ "node-name=a.b_c-1", SPEC_VALUES, "raw", false, NULL },
		{ "lazy-refcounts=maybe", SPEC_DRIVER, "qcow2", false,
		  "Parameter 'lazy-refcounts' expects 'on' or 'off'" },
		{ "overlap-check=bad", SPEC_DRIVER, "qcow2", false,
		  "Unsupported value 'bad' for qcow2 option 'overlap-check'."
		  " Allowed are any of the following: none, constant, cached,"
		  " all" },
		{ "cache-size=1k,l2-cache-size=1M", SPEC_DRIVER, "qcow2",
		  false, "l2-cache-size may not exceed cache-size" },
		{ "cache-size=1k,refcount-cache-size=1M", SPEC_DRIVER, "qcow2",
		  false, "refcount-cache-size may not exceed cache-size" },
		{ "cache-clean-interval=5000000000", SPEC_DRIVER, "qcow2",
		  false, "Cache clean interval too big" },
		{ "cache-size=x", SPEC_DRIVER, "qcow2", false,
		  "Parameter 'cache-size' expects a non-negative number below"
		  " 2^64" },
		{ "encrypt.format=luks", SPEC_DRIVER, "qcow2", false,
		  "No encryption in image header, but options specified"
		  " format 'luks'" },
		{ "foo=1", SPEC_UNKNOWN, "qcow2", false,
		  "Block format 'qcow2' does not support the option 'foo'" },
		{ "lazy-refcounts=on", SPEC_UNKNOWN, "raw", false, "Block"
		  " format 'raw' does not support the option"
		  " 'lazy-refcounts'" },
		{ "cache.writeback=off", SPEC_UNKNOWN, "qcow2", false, "Block"
		  " format 'qcow2' does not support the option"
		  " 'cache.writeback'" },
		{ "backing.driver=raw", SPEC_UNKNOWN, "qcow2", false, "Block"
		  " format 'qcow2' does not support the option"
		  " 'backing.driver'" },
		{ "backing.driver=raw", SPEC_UNKNOWN, "qcow2", true, NULL },
		{ "backing=", SPEC_UNKNOWN, "qcow2", false, NULL },
		{ "driver=raw,id=foo", SPEC_UNKNOWN, "raw", false, "Block"
		  " format 'raw' does not support the option 'id'" },
		{ "driver=raw,discard=on,detect-zeroes=off,size=1M,offset=1,"
		  "file.filename=a", SPEC_UNKNOWN, "raw", false, NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autoerr err = ERR_INIT;
		autojson *node = NULL;
		int ret;

		assert_int_equal(spec_parse(cases[i].text, SPEC_IMAGE_OPTS,
					    NULL, &node, NULL), 0);
		ret = spec_check(node, cases[i].stage, cases[i].driver,
				 cases[i].backing, &err);
		assert_int_equal(ret != 0, cases[i].want != NULL);
		if (ret)
			assert_string_equal(err_text(&err), cases[i].want);
	}
}

static void test_typed_values(void **state)
{
	autojson *node = NULL;

	(void)state;
	assert_int_equal(spec_parse("json:{\"read-only\":true,\"force-share\":"
				    "\"off\",\"cache.direct\":5}", SPEC_NAME,
				    NULL, &node, NULL), 0);
	assert_true(spec_bool(node, "read-only", false));
	assert_false(spec_bool(node, "force-share", true));
	assert_true(spec_bool(node, "auto-read-only", true));
	assert_int_equal(spec_check(node, SPEC_FLAGS, "raw", false, NULL),
			 -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_names),
		cmocka_unit_test(test_parse_json),
		cmocka_unit_test(test_parse_image_opts),
		cmocka_unit_test(test_bare_words_warn),
		cmocka_unit_test(test_children),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_join),
		cmocka_unit_test(test_checks),
		cmocka_unit_test(test_typed_values),
	};

	warn_set(keep_warning);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
