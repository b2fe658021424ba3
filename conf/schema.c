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

/* The index of @value among @count words, or -EINVAL. */
static int find_word(const char *value, const char *const *words, size_t count)
{
        for (size_t i = 0; i < count; i++)
                if (strcmp(value, words[i]) == 0)
                        return (int)i;
        return -EINVAL;
}

#define FIND_WORD(value, words) find_word(value, words, sizeof(words) / sizeof((words)[0]))

/* One of two words, the second of which means true. */
static int set_either(const char *value, const char *no, const char *yes, void *field)
{
        const char *const words[] = {no, yes};
        int i = FIND_WORD(value, words);

        if (i < 0)
                return i;
        *(bool *)field = i == 1;
        return 0;
}

static int set_bool(const char *value, void *field)
{
        int r = set_either(value, "no", "yes", field);

        return r < 0 ? set_either(value, "false", "true", field) : r;
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

/* From 1 MiB to 1 GiB. */
static int set_journal_size(const char *value, void *field)
{
        unsigned mib;

        if (parse_number(value, 1024, &mib) < 0 || mib == 0)
                return -EINVAL;
        *(unsigned *)field = mib;
        return 0;
}

static int set_path(const char *value, void *field)
{
        if (value[0] != '/')
                return -EINVAL;
        return set_text(value, field);
}

/* A path whose last part is a name. */
static int set_file(const char *value, void *field)
{
        size_t len = strlen(value);

        return len > 0 && value[len - 1] == '/' ? -EINVAL : set_path(value, field);
}

/* node_exporter looks at no others. */
static int set_textfile(const char *value, void *field)
{
        static const char suffix[] = "/x.prom";
        size_t len = strlen(value);

        if (len < sizeof(suffix) - 1 || strcmp(value + len - 5, suffix + 2) != 0 ||
            value[len - 6] == '/')
                return -EINVAL;
        return set_path(value, field);
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

static const char *const providers[] = {"local", "azure", "pkcs11"};

bool tk_conf_is_provider(const char *section)
{
        return FIND_WORD(section, providers) >= 0;
}

static int set_provider(const char *value, void *field)
{
        return tk_conf_is_provider(value) ? set_text(value, field) : -EINVAL;
}

static int set_dek_wrap(const char *value, void *field)
{
        return set_either(value, "kek", "kms", field);
}

static int set_names(const char *value, void *field)
{
        return set_either(value, "encrypted", "plain", field);
}

/* A number of seconds from 1 to @max. */
static int set_seconds(const char *value, unsigned max, void *field)
{
        unsigned seconds;

        if (parse_number(value, max, &seconds) < 0 || seconds == 0)
                return -EINVAL;
        *(unsigned *)field = seconds;
        return 0;
}

/* A day is the longest that anybody could call a window. */
static int set_window(const char *value, void *field)
{
        return set_seconds(value, 24 * 60 * 60, field);
}

static int set_timeout(const char *value, void *field)
{
        return set_seconds(value, 600, field);
}

static int set_interval(const char *value, void *field)
{
        return set_seconds(value, 3600, field);
}

/* Seconds, up to a month; 0 has a meaning of its own. */
static int set_month(const char *value, void *field)
{
        return parse_number(value, 31 * 24 * 60 * 60, field);
}

/* Seconds, up to ten years; 0 has a meaning of its own. */
static int set_decade(const char *value, void *field)
{
        return parse_number(value, 10 * 365 * 24 * 60 * 60, field);
}

static int set_rate(const char *value, void *field)
{
        return parse_number(value, 1000000, field);
}

static int set_expiry(const char *value, void *field)
{
        bool revoke = strcmp(value, "revoke") == 0;

        if (!revoke && strcmp(value, "warn") != 0)
                return -EINVAL;
        *(bool *)field = revoke;
        return 0;
}

static int set_durability(const char *value, void *field)
{
        return set_either(value, "strict", "relaxed", field);
}

static int set_when(const char *value, void *field)
{
        bool always = false;
        int r = 0;

        if (strcmp(value, "auto") == 0) {
                *(enum tk_conf_when *)field = TK_CONF_AUTO;
                return 0;
        }
        r = set_bool(value, &always);
        if (r == 0)
                *(enum tk_conf_when *)field = always ? TK_CONF_YES : TK_CONF_NO;
        return r;
}

static int set_lock(const char *value, void *field)
{
        return set_either(value, "warn", "require", field);
}

static int set_level(const char *value, void *field)
{
        static const char *const words[] = {
                [TK_CONF_LOG_ERROR] = "error",
                [TK_CONF_LOG_WARNING] = "warning",
                [TK_CONF_LOG_INFO] = "info",
                [TK_CONF_LOG_DEBUG] = "debug",
        };
        int i = FIND_WORD(value, words);

        if (i < 0)
                return i;
        *(enum tk_conf_log_level *)field = (enum tk_conf_log_level)i;
        return 0;
}

static int set_target(const char *value, void *field)
{
        static const char *const words[] = {
                [TK_CONF_LOG_AUTO] = "auto",
                [TK_CONF_LOG_JOURNAL] = "journal",
                [TK_CONF_LOG_SYSLOG] = "syslog",
                [TK_CONF_LOG_STDERR] = "stderr",
        };
        int i = FIND_WORD(value, words);

        if (i < 0)
                return i;
        *(enum tk_conf_log_target *)field = (enum tk_conf_log_target)i;
        return 0;
}

static int set_auth(const char *value, void *field)
{
        static const char *const words[] = {
                [TK_CONF_AUTH_DEFAULT] = "default",
                [TK_CONF_AUTH_MANAGED_IDENTITY] = "managed-identity",
                [TK_CONF_AUTH_WORKLOAD_IDENTITY] = "workload-identity",
                [TK_CONF_AUTH_CLIENT_CERTIFICATE] = "client-certificate",
                [TK_CONF_AUTH_CLIENT_SECRET] = "client-secret",
                [TK_CONF_AUTH_AZURE_CLI] = "azure-cli",
        };
        int i = FIND_WORD(value, words);

        if (i < 0)
                return i;
        *(enum tk_conf_auth *)field = (enum tk_conf_auth)i;
        return 0;
}

static int set_wrap(const char *value, void *field)
{
        return set_either(value, "local", "service", field);
}

static int set_firewall(const char *value, void *field)
{
        return set_either(value, "revoked", "unreachable", field);
}

/* What it is exactly is the provider's to judge. */
static int set_url(const char *value, void *field)
{
        static const char scheme[] = "https://";

        if (strncmp(value, scheme, sizeof(scheme) - 1) != 0 || !value[sizeof(scheme) - 1])
                return -EINVAL;
        return set_text(value, field);
}

/* The same: only what it begins with. A PIN may stand in it by mistake. */
static int set_uri(const char *value, void *field)
{
        return strncmp(value, "pkcs11:", 7) == 0 ? set_text(value, field) : -EINVAL;
}

static int set_word(const char *value, void *field)
{
        return value[0] ? set_text(value, field) : -EINVAL;
}

static bool is_credential_name(const char *name)
{
        return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') && strlen(name) <= NAME_MAX;
}

/* Whether @arg fits behind the colon of a @source. */
static bool source_arg_is_valid(enum tk_conf_source source, const char *arg)
{
        unsigned number;

        switch (source) {
        case TK_CONF_SOURCE_FILE:
                return arg[0] == '/';
        case TK_CONF_SOURCE_FD:
                return parse_number(arg, 65535, &number) == 0;
        case TK_CONF_SOURCE_CREDENTIAL:
                return is_credential_name(arg);
        default:
                return arg[0] == '\0';
        }
}

static int set_secret(const char *value, void *field)
{
        static const char *const prefixes[] = {
                [TK_CONF_SOURCE_NONE] = "none",
                [TK_CONF_SOURCE_PROMPT] = "prompt",
                [TK_CONF_SOURCE_FILE] = "file:",
                [TK_CONF_SOURCE_FD] = "fd:",
                [TK_CONF_SOURCE_CREDENTIAL] = "credential:",
        };
        struct tk_conf_secret *secret = field;

        for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
                size_t len = strlen(prefixes[i]);

                if (strncmp(value, prefixes[i], len) != 0)
                        continue;
                if (!source_arg_is_valid((enum tk_conf_source)i, value + len))
                        return -EINVAL;
                secret->source = (enum tk_conf_source)i;
                return value[len] ? set_text(value + len, &secret->arg) : 0;
        }
        return -EINVAL;
}

#define SECRET_TYPE "none, prompt, file:/PATH, fd:N or credential:NAME"
#define PATH_TYPE "an absolute path, beginning with /"
#define MEMBER(member) ((struct tk_conf *)0)->member
#define KIND(member)                                                                               \
        _Generic(MEMBER(member), char * : TK_CONF_TEXT, struct tk_conf_secret : TK_CONF_SECRET,    \
                 default : TK_CONF_VALUE)
#define FIELD(member)                                                                              \
        .kind = KIND(member), .size = (unsigned)sizeof(MEMBER(member)),                            \
        .offset = offsetof(struct tk_conf, member)

static const struct tk_conf_option options[] = {
        {"volume", "fingerprint", "64 hexadecimal digits", "not pinned",
         "The one volume that may be opened, as `init` printed it.", FIELD(volume.fingerprint),
         set_fingerprint},
        {"volume", "dek_wrap", "kek or kms", "kek",
         "For `init`: who wraps each file's key, a key in memory or the root key itself.",
         FIELD(volume.dek_wrap_kms), set_dek_wrap},
        {"volume", "journal_size", "1 to 1024", "16",
         "For `init`: MiB of the journal, through which overwrites go.", FIELD(volume.journal_size),
         set_journal_size},
        {"volume", "names", "encrypted or plain", "encrypted",
         "For `init`: whether names, `user.*` attributes and symlink targets are encrypted.",
         FIELD(volume.names_plain), set_names},
        {"kms", "provider", "local, azure or pkcs11", "local",
         "Who holds the root key: a keystore file, Azure Key Vault or Managed HSM, or a token.",
         FIELD(kms.provider), set_provider},
        {"kms", "previous", PATH_TYPE, "none",
         "The configuration of the root key that an unfinished `rotate --to` moves away from.",
         FIELD(kms.previous), set_path},
        {"kms", "revocation_window", "1 to 86400", "60",
         "Seconds within which a refusal by the KMS makes the mounted data unreadable.",
         FIELD(kms.revocation_window), set_window},
        {"kms", "rotation_window", "0 to 2678400", "3600",
         "Seconds within which a new root key version is taken up; 0: only by `rotate`.",
         FIELD(kms.rotation_window), set_month},
        {"kms", "rewrap_rate", "0 to 1000000", "5000",
         "Files per second that a rotation rewraps while mounted; 0: as fast as it goes.",
         FIELD(kms.rewrap_rate), set_rate},
        {"kms", "outage_grace", "0 to 2678400", "86400",
         "Seconds that a mount goes on while the KMS can't be reached.", FIELD(kms.outage_grace),
         set_month},
        {"kms", "mount_timeout", "0 to 2678400", "0",
         "Seconds that `mount` goes on trying while the KMS can't be reached; 0: it fails at once.",
         FIELD(kms.mount_timeout), set_month},
        {"kms", "key_expiry", "warn or revoke", "warn",
         "What it means that the root key is outside its dates.", FIELD(kms.expiry_revokes),
         set_expiry},
        {"local", "keystore", PATH_TYPE, "named after the volume, see below",
         "The keystore file with the root key; outside the encrypted directory.",
         FIELD(local.keystore), set_path},
        {"local", "passphrase", SECRET_TYPE, "none", "Where the keystore's passphrase comes from.",
         FIELD(local.passphrase), set_secret, .hide = true},
        {"local", "rotate_every", "0 to 315360000", "0: never",
         "Seconds after which a mount makes a new version of the keystore's key.",
         FIELD(local.rotate_every), set_decade},
        {"azure", "key", "https://VAULT/keys/NAME, or with /VERSION to stay with that one", "none",
         "The root key's identifier; without a version the newest one is used.", FIELD(azure.key),
         set_url},
        {"azure", "auth",
         "default, managed-identity, workload-identity, client-certificate, client-secret or "
         "azure-cli",
         "default", "Who this machine is towards Entra ID; default is the chain of Azure's SDKs.",
         FIELD(azure.auth), set_auth},
        {"azure", "client_id", "a GUID", "none",
         "The application's id, or that of a user-assigned managed identity.",
         FIELD(azure.client_id), set_word},
        {"azure", "tenant_id", "a GUID or a domain name", "the vault's",
         "The directory that the identity is in.", FIELD(azure.tenant_id), set_word},
        {"azure", "certificate", PATH_TYPE, "none",
         "PEM file with the application's certificate and private key.", FIELD(azure.certificate),
         set_path},
        {"azure", "certificate_password", SECRET_TYPE, "none",
         "Where the password of that private key comes from.", FIELD(azure.certificate_password),
         set_secret, .hide = true},
        {"azure", "client_secret", SECRET_TYPE, "none",
         "Where the application's secret comes from.", FIELD(azure.client_secret), set_secret,
         .hide = true},
        {"azure", "token_file", PATH_TYPE, "none",
         "The file with the federated token of a workload identity.", FIELD(azure.token_file),
         set_path},
        {"azure", "authority", "a host, such as login.microsoftonline.com", "the cloud's",
         "Where tokens come from.", FIELD(azure.authority), set_word},
        {"azure", "audience", "https://HOST", "the cloud's",
         "What tokens are for, in a cloud that is not Microsoft's.", FIELD(azure.audience),
         set_url},
        {"azure", "ca_file", PATH_TYPE, "the system's authorities",
         "PEM file with the certificate authorities that are trusted instead.",
         FIELD(azure.ca_file), set_path},
        {"azure", "connect_timeout", "1 to 600", "5", "Seconds that a connection may take.",
         FIELD(azure.connect_timeout), set_timeout},
        {"azure", "request_timeout", "1 to 600", "15", "Seconds that one request may take.",
         FIELD(azure.request_timeout), set_timeout},
        {"azure", "wrap", "local or service", "local",
         "Where keys are wrapped: here with the public key, or by the vault, which costs a call.",
         FIELD(azure.wrap_by_service), set_wrap},
        {"azure", "require_purge_protection", "yes or no", "yes",
         "Refuse a vault whose keys could be deleted for ever at once.",
         FIELD(azure.require_purge_protection), set_bool},
        {"azure", "firewall", "revoked or unreachable", "revoked",
         "What a refusal by the vault's network rules means.", FIELD(azure.firewall_is_outage),
         set_firewall},
        {"pkcs11", "module", PATH_TYPE, "none",
         "The PKCS#11 module: the library of the token's maker.", FIELD(pkcs11.module), set_path},
        {"pkcs11", "uri", "pkcs11:token=TOKEN;object=LABEL, or with id= to stay with one version",
         "none", "The root key: keys of that label in that token are its versions.",
         FIELD(pkcs11.uri), set_uri, .hide = true},
        {"pkcs11", "pin", SECRET_TYPE, "none", "Where the token's PIN comes from.",
         FIELD(pkcs11.pin), set_secret, .hide = true},
        {"mount", "allow_other", "yes or no", "yes for root, no for others",
         "Whether other users may use the mount, each with their own rights. With no, a mount by "
         "root is for root alone, whom nobody judges then: files come and go faster.",
         FIELD(mount.allow_other), set_bool},
        {"mount", "read_only", "yes or no", "no", "Mount without the right to change anything.",
         FIELD(mount.read_only), set_bool},
        {"mount", "durability", "strict or relaxed", "strict",
         "relaxed: overwrites are not journaled, and a crash may make a block unreadable.",
         FIELD(mount.relaxed), set_durability},
        {"mount", "io_uring", "yes or no", "no",
         "yes: requests come over io_uring, if libfuse and the kernel have it.",
         FIELD(mount.io_uring), set_bool},
        {"mount", "keep_cpus_awake", "yes, no or auto", "auto",
         "Whether idle CPUs wait instead of halt while requests come fast, which needs root. auto: "
         "in KVM guests of at most 8 CPUs without halt polling of their own, where waking a CPU "
         "is dear.",
         FIELD(mount.keep_cpus_awake), set_when},
        {"mount", "threads", "0 to 64", "0: by number of CPUs",
         "How many threads serve requests at most.", FIELD(mount.threads), set_threads},
        {"mount", "hardening", "yes or no", "yes",
         "Whether the daemon gives up all rights that it does not need.", FIELD(mount.hardening),
         set_bool},
        {"memory", "lock", "warn or require", "warn",
         "What to do when memory can't be locked against swapping.", FIELD(memory.require_lock),
         set_lock},
        {"metrics", "socket", PATH_TYPE, "none",
         "A Unix socket on which the mount's metrics are served to Prometheus.",
         FIELD(metrics.socket), set_file},
        {"metrics", "socket_group", "a group's name or number", "none: the owner alone",
         "Whose members may read that socket, too.", FIELD(metrics.socket_group), set_word},
        {"metrics", "textfile", "an absolute path that ends in .prom", "none",
         "A file for node_exporter's textfile collector.", FIELD(metrics.textfile), set_textfile},
        {"metrics", "interval", "1 to 3600", "30", "Seconds after which that file is written anew.",
         FIELD(metrics.interval), set_interval},
        {"log", "level", "error, warning, info or debug", "info", "Which log lines are written.",
         FIELD(log.level), set_level},
        {"log", "target", "auto, journal, syslog or stderr", "auto",
         "Where log lines of a mount go.", FIELD(log.target), set_target},
        {"log", "names", "yes or no", "no",
         "Whether log lines may hold names of files as the mount shows them.", FIELD(log.names),
         set_bool},
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

static bool texts_differ(const char *a, const char *b)
{
        return a && b ? strcmp(a, b) != 0 : a != b;
}

bool tk_conf_option_differs(const struct tk_conf_option *option, const struct tk_conf *a,
                            const struct tk_conf *b)
{
        const void *left = (const char *)a + option->offset;
        const void *right = (const char *)b + option->offset;
        const struct tk_conf_secret *secret = left;
        const struct tk_conf_secret *other = right;

        switch (option->kind) {
        case TK_CONF_TEXT:
                return texts_differ(*(char *const *)left, *(char *const *)right);
        case TK_CONF_SECRET:
                return secret->source != other->source || texts_differ(secret->arg, other->arg);
        default:
                return memcmp(left, right, option->size) != 0; /* not secret */
        }
}
