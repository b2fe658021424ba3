/* SPDX-License-Identifier: Apache-2.0 */

/* The option table, and one setter for each type of value. */

#include "conf/schema.h"

#include "base/bytes.h"
#include "base/secret.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

enum { THREADS_MAX = 64 };

static int set_text(const char *value, char **field)
{
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*field);
        *field = copy;
        return 0;
}

static int set_bool(const char *value, void *field)
{
        static const struct {
                const char *word;
                bool means;
        } words[] = {{"yes", true}, {"no", false}, {"true", true}, {"false", false}};

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                if (strcmp(value, words[i].word) != 0)
                        continue;
                *(bool *)field = words[i].means;
                return 0;
        }
        return -EINVAL;
}

/* A decimal number without sign, space or leading zeros. */
static int parse_number(const char *value, unsigned max, unsigned *ret_number)
{
        size_t len = strlen(value);
        unsigned long number;

        if (len == 0 || len > 9 || strspn(value, "0123456789") != len ||
            (value[0] == '0' && len > 1))
                return -EINVAL;
        number = strtoul(value, NULL, 10);
        if (number > max)
                return -EINVAL;
        *ret_number = (unsigned)number;
        return 0;
}

static int set_threads(const char *value, void *field)
{
        return parse_number(value, THREADS_MAX, field);
}

static int set_path(const char *value, void *field)
{
        if (value[0] != '/')
                return -EINVAL;
        return set_text(value, field);
}

/* Kept in lower case, as it is printed everywhere else. */
static int set_fingerprint(const char *value, void *field)
{
        uint8_t bytes[TK_KEY_LEN];
        char text[2 * TK_KEY_LEN + 1];

        if (tk_hex_decode(value, bytes, sizeof(bytes)) < 0)
                return -EINVAL;
        tk_hex_encode(bytes, sizeof(bytes), text);
        return set_text(text, field);
}

static int set_provider(const char *value, void *field)
{
        if (strcmp(value, "local") != 0)
                return -EINVAL;
        return set_text(value, field);
}

static int set_dek_wrap(const char *value, void *field)
{
        bool kms = strcmp(value, "kms") == 0;

        if (!kms && strcmp(value, "kek") != 0)
                return -EINVAL;
        *(bool *)field = kms;
        return 0;
}

/* A day is the longest that anybody could call a window. */
static int set_window(const char *value, void *field)
{
        unsigned seconds;

        if (parse_number(value, 24 * 60 * 60, &seconds) < 0 || seconds == 0)
                return -EINVAL;
        *(unsigned *)field = seconds;
        return 0;
}

static int set_lock(const char *value, void *field)
{
        bool require = strcmp(value, "require") == 0;

        if (!require && strcmp(value, "warn") != 0)
                return -EINVAL;
        *(bool *)field = require;
        return 0;
}

static int set_level(const char *value, void *field)
{
        static const char *const words[] = {
                [TK_CONF_LOG_ERROR] = "error",
                [TK_CONF_LOG_WARNING] = "warning",
                [TK_CONF_LOG_INFO] = "info",
                [TK_CONF_LOG_DEBUG] = "debug",
        };

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
                if (strcmp(value, words[i]) != 0)
                        continue;
                *(enum tk_conf_log_level *)field = (enum tk_conf_log_level)i;
                return 0;
        }
        return -EINVAL;
}

static bool is_credential_name(const char *name)
{
        return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') && strlen(name) <= NAME_MAX;
}

/* Whether @arg fits behind the colon of a passphrase @source. */
static bool passphrase_arg_is_valid(enum tk_conf_passphrase source, const char *arg)
{
        unsigned number;

        switch (source) {
        case TK_CONF_PASSPHRASE_FILE:
                return arg[0] == '/';
        case TK_CONF_PASSPHRASE_FD:
                return parse_number(arg, 65535, &number) == 0;
        case TK_CONF_PASSPHRASE_CREDENTIAL:
                return is_credential_name(arg);
        default:
                return arg[0] == '\0';
        }
}

/* Sets two fields of [local], the source and its argument. */
static int set_passphrase(const char *value, void *field)
{
        static const struct {
                const char *prefix;
                enum tk_conf_passphrase source;
        } sources[] = {
                {"none", TK_CONF_PASSPHRASE_NONE},
                {"prompt", TK_CONF_PASSPHRASE_PROMPT},
                {"file:", TK_CONF_PASSPHRASE_FILE},
                {"fd:", TK_CONF_PASSPHRASE_FD},
                {"credential:", TK_CONF_PASSPHRASE_CREDENTIAL},
        };
        struct tk_conf *conf = field;

        for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
                size_t len = strlen(sources[i].prefix);

                if (strncmp(value, sources[i].prefix, len) != 0)
                        continue;
                if (!passphrase_arg_is_valid(sources[i].source, value + len))
                        return -EINVAL;
                conf->local.passphrase = sources[i].source;
                return value[len] ? set_text(value + len, &conf->local.passphrase_arg) : 0;
        }
        return -EINVAL;
}

#define FIELD(member) .offset = offsetof(struct tk_conf, member)

static const struct tk_conf_option options[] = {
        {"volume", "fingerprint", "64 hexadecimal digits", "not pinned",
         "The one volume that may be opened, as `init` printed it.", FIELD(volume.fingerprint),
         set_fingerprint},
        {"volume", "dek_wrap", "kek or kms", "kek",
         "For `init`: who wraps each file's key, a key in memory or the root key itself.",
         FIELD(volume.dek_wrap_kms), set_dek_wrap},
        {"kms", "provider", "local", "local", "Who holds the root key.", FIELD(kms.provider),
         set_provider},
        {"kms", "revocation_window", "1 to 86400", "60",
         "Seconds that a key may be used after the KMS last gave it out (with dek_wrap = kms).",
         FIELD(kms.revocation_window), set_window},
        {"local", "keystore", "an absolute path, beginning with /",
         "named after the volume, see below",
         "The keystore file with the root key; outside the encrypted directory.",
         FIELD(local.keystore), set_path},
        {"local", "passphrase", "none, prompt, file:/PATH, fd:N or credential:NAME", "none",
         "Where the keystore's passphrase comes from.", .offset = 0, .set = set_passphrase,
         .hide = true},
        {"mount", "allow_other", "yes or no", "yes for root, no for others",
         "Whether other users may use the mount, each with their own rights.",
         FIELD(mount.allow_other), set_bool},
        {"mount", "read_only", "yes or no", "no", "Mount without the right to change anything.",
         FIELD(mount.read_only), set_bool},
        {"mount", "threads", "0 to 64", "0: by number of CPUs",
         "How many threads serve requests at most.", FIELD(mount.threads), set_threads},
        {"memory", "lock", "warn or require", "warn",
         "What to do when memory can't be locked against swapping.", FIELD(memory.require_lock),
         set_lock},
        {"log", "level", "error, warning, info or debug", "info", "Which log lines are written.",
         FIELD(log.level), set_level},
};

enum { OPTION_COUNT = sizeof(options) / sizeof(options[0]) };
_Static_assert((int)OPTION_COUNT <= (int)TK_CONF_OPTIONS_MAX, "raise TK_CONF_OPTIONS_MAX");

const struct tk_conf_option *tk_conf_option_at(size_t i)
{
        return i < OPTION_COUNT ? &options[i] : NULL;
}

int tk_conf_option_find(const char *section, const char *name)
{
        for (int i = 0; i < OPTION_COUNT; i++)
                if (strcmp(options[i].section, section) == 0 && strcmp(options[i].name, name) == 0)
                        return i;
        return -1;
}
