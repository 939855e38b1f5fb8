/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * object.c - --object TYPE,id=ID,... (options.md 3).
 *
 * Knows the types that qemu-img has, their properties, and keeps the objects
 * of this command line.  Refuses to know what a secret is used for.
 */
#include "tools.h"
#include "json.h"

#include <ctype.h>

struct property {
	const char *name;
	const char *type;       /* as --object TYPE,help prints it */
};

struct object_type {
	const char *name;
	struct property properties[12];
};

/* Sorted by name, as their help is. */
static const struct object_type types[] = {
	{ "authz-list", { { "policy", "QAuthZListPolicy" },
			  { "rules", "QAuthZListRules" } } },
	{ "authz-list-file", { { "filename", "string" },
			       { "refresh", "bool" } } },
	{ "authz-simple", { { "identity", "string" } } },
	{ "main-loop", { { "aio-max-batch", "int" },
			 { "thread-pool-max", "int" },
			 { "thread-pool-min", "int" } } },
	{ "pr-manager-helper", { { "path", "string" } } },
	{ "secret", { { "data", "string" }, { "file", "string" },
		      { "format", "QCryptoSecretFormat" },
		      { "iv", "string" }, { "keyid", "string" } } },
	{ "secret_keyring", { { "format", "QCryptoSecretFormat" },
			      { "iv", "string" }, { "keyid", "string" },
			      { "serial", "int" } } },
	{ "thread-context", { { "cpu-affinity", "int" },
			      { "node-affinity", "int" } } },
	{ "throttle-group", { { "limits", "ThrottleLimits" } } },
	{ "tls-cipher-suites", { { "priority", "string" } } },
	{ "tls-creds-anon", { { "dir", "string" },
			      { "endpoint", "QCryptoTLSCredsEndpoint" },
			      { "priority", "string" },
			      { "verify-peer", "bool" } } },
	{ "tls-creds-psk", { { "dir", "string" },
			     { "endpoint", "QCryptoTLSCredsEndpoint" },
			     { "priority", "string" },
			     { "username", "string" },
			     { "verify-peer", "bool" } } },
	{ "tls-creds-x509", { { "dir", "string" },
			      { "endpoint", "QCryptoTLSCredsEndpoint" },
			      { "passwordid", "string" },
			      { "priority", "string" },
			      { "sanity-check", "bool" },
			      { "verify-peer", "bool" } } },
};

static struct json *objects;    /* array of what was defined so far */

/* ---- "key=value,..." -------------------------------------------------------- */

/* One item up to a single comma; ",," is a comma.  Returns what follows. */
static const char *item_take(const char *s, struct strbuf *item)
{
	for (; *s; s++) {
		if (*s == ',' && *++s != ',')
			return s;
		strbuf_putc(item, *s);
	}
	return s;
}

static int item_set(struct json *obj, const char *item, bool first,
		    struct err *err)
{
	const char *eq = strchr(item, '=');
	autofree char *key = eq ? strndup(item, (size_t)(eq - item)) : NULL;

	if (key)
		json_set_take(obj, key, json_string(eq + 1));
	else if (first)
		json_set_take(obj, "qom-type", json_string(item));
	else if (!strcmp(item, "help") || !strcmp(item, "?"))
		json_set_take(obj, "help", json_bool(true));
	else
		return err_set(err, -EINVAL, "Expected '=' after parameter"
			       " '%s'", item);
	return 0;
}

static struct json *definition_parse(const char *text, struct err *err)
{
	struct json *obj = json_object();
	bool first = true;

	while (*text) {
		autostrbuf item = STRBUF_INIT;

		text = item_take(text, &item);
		if (item_set(obj, item.text ? item.text : "", first, err)) {
			json_free(obj);
			return NULL;
		}
		first = false;
	}
	return obj;
}

/* ---- help --------------------------------------------------------------------- */

static const struct object_type *type_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(types[i].name, name))
			return &types[i];
	return NULL;
}

static void help_types(void)
{
	puts("List of user creatable objects:");
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		printf("  %s\n", types[i].name);
}

static void help_type(const char *name)
{
	const struct object_type *t = type_find(name);

	if (!t)
		return;
	printf("%s options:\n", name);
	for (const struct property *p = t->properties; p->name; p++)
		printf("  %s=<%s>\n", p->name, p->type);
}

/* "help", "TYPE,help": printed and true. */
static bool help_wanted(const struct json *obj)
{
	const char *type = json_get_str(obj, "qom-type");

	if (type && (!strcmp(type, "help") || !strcmp(type, "?")))
		return help_types(), true;
	if (!json_get(obj, "help"))
		return false;
	if (type)
		help_type(type);
	return true;
}

/* ---- checks ------------------------------------------------------------------- */

static bool id_well_formed(const char *id)
{
	if (!isalpha((unsigned char)*id))
		return false;
	for (; *id; id++)
		if (!isalnum((unsigned char)*id) && !strchr("-._", *id))
			return false;
	return true;
}

static bool property_known(const struct object_type *t, const char *name)
{
	if (!strcmp(name, "qom-type") || !strcmp(name, "id"))
		return true;
	if (!strcmp(t->name, "throttle-group") && !strncmp(name, "x-", 2))
		return true;
	for (const struct property *p = t->properties; p->name; p++)
		if (!strcmp(p->name, name))
			return true;
	/* Lists: "rules.0.match" */
	return !strcmp(t->name, "authz-list") && !strncmp(name, "rules.", 6);
}

static const struct json *object_find(const char *id)
{
	for (size_t i = 0; objects && i < objects->n; i++)
		if (!strcmp(json_get_str(objects->items[i], "id"), id))
			return objects->items[i];
	return NULL;
}

static bool base64_well_formed(const char *s)
{
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("+/=\n", *s))
			return false;
	return true;
}

static int secret_check(const struct json *obj, struct err *err)
{
	const char *format = json_get_str(obj, "format");
	const char *data = json_get_str(obj, "data");
	const char *file = json_get_str(obj, "file");
	const char *keyid = json_get_str(obj, "keyid");

	if (format && strcmp(format, "raw") && strcmp(format, "base64"))
		return err_set(err, -EINVAL, "Parameter 'format' does not"
			       " accept value '%s'", format);
	if (data && file)
		return err_set(err, -EINVAL,
			       "'file' and 'data' are mutually exclusive");
	if (!data && !file)
		return err_set(err, -EINVAL,
			       "Either 'file' or 'data' must be provided");
	if (file && access(file, R_OK))
		return err_set(err, -errno, "Unable to read %s: Failed to open"
			       " file \xe2\x80\x9c%s\xe2\x80\x9d: %s", file,
			       file, strerror(errno));
	if (keyid && !object_find(keyid))
		return err_set(err, -ENOKEY, "No secret with id '%s'", keyid);
	if (data && format && !strcmp(format, "base64") &&
	    !base64_well_formed(data))
		return err_set(err, -EINVAL,
			       "Base64 data contains invalid characters");
	return 0;
}

static int id_check(const struct json *obj, struct err *err)
{
	const char *id = json_get_str(obj, "id");

	if (!id)
		return err_set(err, -EINVAL, "Parameter 'id' is missing");
	if (id_well_formed(id))
		return 0;
	err_set(err, -EINVAL, "Parameter 'id' expects an identifier");
	err_hint(err, "Identifiers consist of letters, digits, '-', '.', '_',"
		 " starting with a letter.\n");
	return -EINVAL;
}

static int object_check(const struct json *obj, struct err *err)
{
	const char *type = json_get_str(obj, "qom-type");
	const struct object_type *t;
	int ret;

	if (!type)
		return err_set(err, -EINVAL,
			       "Parameter 'qom-type' is missing");
	if (!strcmp(type, "iothread"))
		return err_set(err, -EINVAL, "invalid object type: iothread");
	t = type_find(type);
	if (!t)
		return err_set(err, -EINVAL, "Parameter 'qom-type' does not"
			       " accept value '%s'", type);
	ret = id_check(obj, err);
	if (ret)
		return ret;
	for (size_t i = 0; i < obj->n; i++)
		if (!property_known(t, obj->keys[i]))
			return err_set(err, -EINVAL, "Parameter '%s' is"
				       " unexpected", obj->keys[i]);
	if (object_find(json_get_str(obj, "id")))
		return err_set(err, -EEXIST, "attempt to add duplicate property"
			       " '%s' to object (type 'container')",
			       json_get_str(obj, "id"));
	return strcmp(type, "secret") ? 0 : secret_check(obj, err);
}

bool object_add(const char *definition, int *rc)
{
	autoerr err = ERR_INIT;
	autojson *obj = NULL;

	obj = *definition == '{' ?
	      json_parse(definition, strlen(definition), &err) :
	      definition_parse(definition, &err);
	*rc = 0;
	if (obj && help_wanted(obj))
		return false;
	if (!obj || object_check(obj, &err)) {
		say_err(&err);
		*rc = 1;
		return false;
	}
	if (!objects)
		objects = json_array();
	json_append_take(objects, obj);
	obj = NULL;
	return true;
}
