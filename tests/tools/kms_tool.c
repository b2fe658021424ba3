/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The azure provider without a filesystem, for tests: commands from standard input, one JSON
 * object per answer.
 *
 *   tk_kms_tool NAME=VALUE...      options of tk_kms_azure_open, see set_option
 *   current
 *   wrap VERSION HEX               the wrapped key as hexadecimal
 *   unwrap KEY VERSION ALGORITHM HEX
 *   probe KEY VERSION ALGORITHM HEX
 *   create TYPE BITS | import FILE pem|blob | list | rotate | enable VERSION | disable VERSION |
 *   delete | recover | policy | policy AFTER BEFORE EXPIRY NOTIFY
 *   parallel COUNT unwrap ...      the same from COUNT threads at once: how many agreed
 *
 * An answer has "r" (0 or a negative errno), "errno" (its name), "kind" and "text" of the
 * fault, "ms", and what the command returns.
 */

#include "base/bytes.h"
#include "base/fdio.h"
#include "base/log.h"
#include "kms/azure.h"
#include "kms/kms_admin.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { LINE_LEN = 16384, WORDS_MAX = 8, THREADS_MAX = 64 };

struct words {
        char *word[WORDS_MAX];
        size_t count;
};

static struct tk_kms *kms;

static void say(json_t *answer)
{
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(answer);
}

static json_t *answer_of(int r, const struct tk_fault *fault)
{
        return json_pack("{s:i, s:s, s:i, s:s}", "r", r, "errno", r ? strerrorname_np(-r) : "",
                         "kind", (int)fault->kind, "text", fault->text);
}

static struct tk_secret *secret_of_file(const char *path)
{
        TK_CLEANUP(tk_freep) char *text = NULL;
        struct tk_secret *secret = NULL;
        size_t len;

        if (tk_fdio_read_file(AT_FDCWD, path, 65536, &text, &len) < 0 ||
            tk_secret_dup_bytes(text, len, &secret) < 0)
                exit(2);
        return secret;
}

static void set_auth(struct tk_kms_azure_options *options, const char *value)
{
        static const char *const names[] = {
                [TK_AZURE_AUTH_DEFAULT] = "default",
                [TK_AZURE_AUTH_MANAGED_IDENTITY] = "managed-identity",
                [TK_AZURE_AUTH_WORKLOAD_IDENTITY] = "workload-identity",
                [TK_AZURE_AUTH_CLIENT_CERTIFICATE] = "client-certificate",
                [TK_AZURE_AUTH_CLIENT_SECRET] = "client-secret",
                [TK_AZURE_AUTH_AZURE_CLI] = "azure-cli",
        };

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(names[i], value) == 0) {
                        options->auth = (enum tk_azure_auth_kind)i;
                        return;
                }
        exit(2);
}

static void set_option(struct tk_kms_azure_options *options, const char *name, const char *value)
{
        const struct {
                const char *name;
                const char **text;
                unsigned *number;
                bool *flag;
                const struct tk_secret **secret;
        } known[] = {
                {"key", .text = &options->key},
                {"client_id", .text = &options->client_id},
                {"tenant_id", .text = &options->tenant_id},
                {"certificate", .text = &options->certificate},
                {"certificate_password_file", .secret = &options->certificate_password},
                {"secret_file", .secret = &options->secret},
                {"token_file", .text = &options->token_file},
                {"authority", .text = &options->authority},
                {"audience", .text = &options->audience},
                {"ca_file", .text = &options->ca_file},
                {"connect_ms", .number = &options->connect_timeout_ms},
                {"request_ms", .number = &options->request_timeout_ms},
                {"deadline_ms", .number = &options->deadline_ms},
                {"allow_purge", .flag = &options->allow_purge},
                {"firewall_is_outage", .flag = &options->firewall_is_outage},
        };

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
                if (strcmp(known[i].name, name) != 0)
                        continue;
                if (known[i].text)
                        *known[i].text = value;
                if (known[i].number)
                        *known[i].number = (unsigned)strtoul(value, NULL, 10);
                if (known[i].flag)
                        *known[i].flag = strcmp(value, "yes") == 0;
                if (known[i].secret)
                        *known[i].secret = secret_of_file(value);
                return;
        }
        if (strcmp(name, "auth") == 0)
                set_auth(options, value);
        else if (strcmp(name, "wrap") == 0)
                options->wrap =
                        strcmp(value, "service") == 0 ? TK_AZURE_WRAP_SERVICE : TK_AZURE_WRAP_LOCAL;
        else if (strcmp(name, "log") == 0)
                tk_log_set_level(TK_LOG_DEBUG);
        else
                exit(2);
}

static struct words split(char *line)
{
        struct words words = {.count = 0};
        char *save = NULL;

        for (char *word = strtok_r(line, " \n", &save); word && words.count < WORDS_MAX;
             word = strtok_r(NULL, " \n", &save))
                words.word[words.count++] = word;
        return words;
}

static json_t *hex_of(const uint8_t *bytes, size_t len)
{
        char text[2 * TK_KMS_BLOB_MAX + 1];

        tk_hex_encode(bytes, len, text);
        return json_string(text);
}

static void do_current(void)
{
        struct tk_fault fault = {0};
        char version[TK_KMS_VERSION_MAX] = "";
        int r = tk_kms_current(kms, version, &fault);
        json_t *answer = answer_of(r, &fault);

        json_object_set_new(answer, "version", json_string(version));
        say(answer);
}

static void do_wrap(const struct words *words)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_fault fault = {0};
        struct tk_kms_wrap wrap = {0};
        size_t len = strlen(words->word[2]) / 2;
        json_t *answer;
        int r;

        if (tk_secret_new(len, &key) < 0 ||
            tk_hex_decode(words->word[2], tk_secret_bytes_mutable(key), len) < 0)
                exit(2);
        r = tk_kms_wrap(kms, words->word[1], key, &wrap, &fault);
        answer = answer_of(r, &fault);
        json_object_set_new(answer, "key", json_string(wrap.key_id));
        json_object_set_new(answer, "version", json_string(wrap.version));
        json_object_set_new(answer, "algorithm", json_string(wrap.algorithm));
        json_object_set_new(answer, "blob", hex_of(wrap.blob, wrap.blob_len));
        say(answer);
}

static struct tk_kms_wrap wrap_of(char *const *words)
{
        struct tk_kms_wrap wrap = {.blob_len = strlen(words[3]) / 2};

        snprintf(wrap.key_id, sizeof(wrap.key_id), "%s", words[0]);
        snprintf(wrap.version, sizeof(wrap.version), "%s", words[1]);
        snprintf(wrap.algorithm, sizeof(wrap.algorithm), "%s", words[2]);
        if (wrap.blob_len > sizeof(wrap.blob) ||
            tk_hex_decode(words[3], wrap.blob, wrap.blob_len) < 0)
                exit(2);
        return wrap;
}

static void do_unwrap(const struct words *words, bool probe)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_kms_wrap wrap = wrap_of(words->word + 1);
        struct tk_fault fault = {0};
        json_t *answer;
        int r;

        r = probe ? tk_kms_probe(kms, &wrap, &fault) : tk_kms_unwrap(kms, &wrap, &key, &fault);
        answer = answer_of(r, &fault);
        if (key)
                json_object_set_new(answer, "key",
                                    hex_of(tk_secret_bytes(key), tk_secret_len(key)));
        say(answer);
}

static void *unwrap_thread(void *context)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = NULL;
        struct tk_fault fault = {0};

        return (void *)(intptr_t)tk_kms_unwrap(kms, context, &key, &fault);
}

static void do_parallel(const struct words *words)
{
        struct tk_kms_wrap wrap = wrap_of(words->word + 3);
        size_t count = strtoul(words->word[1], NULL, 10);
        pthread_t threads[THREADS_MAX];
        json_t *results = json_array();

        if (count > THREADS_MAX)
                exit(2);
        for (size_t i = 0; i < count; i++)
                if (pthread_create(&threads[i], NULL, unwrap_thread, &wrap) != 0)
                        exit(2);
        for (size_t i = 0; i < count; i++) {
                void *r;

                pthread_join(threads[i], &r);
                json_array_append_new(results, json_integer((intptr_t)r));
        }
        say(json_pack("{s:o}", "results", results));
}

static void do_create(const struct words *words)
{
        struct tk_kms_key_spec spec = {.bits = (unsigned)strtoul(words->word[2], NULL, 10)};
        struct tk_fault fault = {0};

        if (strcmp(words->word[1], "-") != 0)
                snprintf(spec.type, sizeof(spec.type), "%s", words->word[1]);
        say(answer_of(tk_kms_admin_create(kms, &spec, &fault), &fault));
}

static void do_import(const struct words *words)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *key = secret_of_file(words->word[1]);
        struct tk_fault fault = {0};
        bool is_blob = strcmp(words->word[2], "blob") == 0;

        say(answer_of(tk_kms_admin_import(kms, key, is_blob, &fault), &fault));
}

static void do_list(void)
{
        struct tk_kms_key_version *versions = NULL;
        struct tk_fault fault = {0};
        size_t count = 0;
        json_t *list = json_array();
        json_t *answer = answer_of(tk_kms_admin_list(kms, &versions, &count, &fault), &fault);

        for (size_t i = 0; i < count; i++)
                json_array_append_new(list,
                                      json_pack("{s:s, s:s, s:b, s:b, s:I, s:I, s:I}", "version",
                                                versions[i].version, "type", versions[i].type,
                                                "enabled", (int)versions[i].enabled, "current",
                                                (int)versions[i].current, "created",
                                                (json_int_t)versions[i].created, "not_before",
                                                (json_int_t)versions[i].not_before, "expires",
                                                (json_int_t)versions[i].expires));
        free(versions);
        json_object_set_new(answer, "versions", list);
        say(answer);
}

static void do_rotate(void)
{
        struct tk_fault fault = {0};
        char version[TK_KMS_VERSION_MAX] = "";
        json_t *answer = answer_of(tk_kms_admin_rotate(kms, version, &fault), &fault);

        json_object_set_new(answer, "version", json_string(version));
        say(answer);
}

static void do_policy(const struct words *words)
{
        struct tk_kms_rotation_policy policy = {0};
        struct tk_fault fault = {0};
        unsigned *fields[] = {&policy.rotate_after_days, &policy.rotate_before_days,
                              &policy.expiry_days, &policy.notify_before_days};
        json_t *answer;
        int r;

        if (words->count == 5) {
                for (size_t i = 0; i < 4; i++)
                        *fields[i] = (unsigned)strtoul(words->word[i + 1], NULL, 10);
                r = tk_kms_admin_set_policy(kms, &policy, &fault);
        } else {
                r = tk_kms_admin_get_policy(kms, &policy, &fault);
        }
        answer = answer_of(r, &fault);
        json_object_set_new(answer, "policy",
                            json_pack("[i, i, i, i]", (int)policy.rotate_after_days,
                                      (int)policy.rotate_before_days, (int)policy.expiry_days,
                                      (int)policy.notify_before_days));
        say(answer);
}

/* Whether @words were a command of administration. */
static bool run_admin(const struct words *words)
{
        const char *verb = words->count > 0 ? words->word[0] : "";
        struct tk_fault fault = {0};

        if (strcmp(verb, "create") == 0 && words->count == 3)
                do_create(words);
        else if (strcmp(verb, "import") == 0 && words->count == 3)
                do_import(words);
        else if (strcmp(verb, "list") == 0 && words->count == 1)
                do_list();
        else if (strcmp(verb, "rotate") == 0 && words->count == 1)
                do_rotate();
        else if (strcmp(verb, "policy") == 0 && (words->count == 1 || words->count == 5))
                do_policy(words);
        else if (strcmp(verb, "enable") == 0 && words->count == 2)
                say(answer_of(tk_kms_admin_set_enabled(kms, words->word[1], true, &fault), &fault));
        else if (strcmp(verb, "disable") == 0 && words->count == 2)
                say(answer_of(tk_kms_admin_set_enabled(kms, words->word[1], false, &fault),
                              &fault));
        else if (strcmp(verb, "delete") == 0 && words->count == 1)
                say(answer_of(tk_kms_admin_delete(kms, &fault), &fault));
        else if (strcmp(verb, "recover") == 0 && words->count == 1)
                say(answer_of(tk_kms_admin_recover(kms, &fault), &fault));
        else
                return false;
        return true;
}

static void run(char *line)
{
        struct words words = split(line);
        const char *verb = words.count > 0 ? words.word[0] : "";

        if (strcmp(verb, "current") == 0 && words.count == 1)
                do_current();
        else if (strcmp(verb, "wrap") == 0 && words.count == 3)
                do_wrap(&words);
        else if (strcmp(verb, "unwrap") == 0 && words.count == 5)
                do_unwrap(&words, false);
        else if (strcmp(verb, "probe") == 0 && words.count == 5)
                do_unwrap(&words, true);
        else if (strcmp(verb, "parallel") == 0 && words.count == 7)
                do_parallel(&words);
        else if (!run_admin(&words))
                exit(2);
}

int main(int argc, char **argv)
{
        struct tk_kms_azure_options options = {0};
        struct tk_fault fault = {0};
        static char line[LINE_LEN];
        int r;

        for (int i = 1; i < argc; i++) {
                char *value = strchr(argv[i], '=');

                if (!value)
                        return 2;
                *value = '\0';
                set_option(&options, argv[i], value + 1);
        }
        r = tk_kms_azure_open(&options, &kms, &fault);
        say(answer_of(r, &fault));
        while (r == 0 && fgets(line, sizeof(line), stdin))
                run(line);
        kms = tk_kms_free(kms);
        (void)tk_secret_free((struct tk_secret *)(uintptr_t)options.secret);
        (void)tk_secret_free((struct tk_secret *)(uintptr_t)options.certificate_password);
        return tk_secret_alive() == 0 ? 0 : 3;
}
