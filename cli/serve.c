/* SPDX-License-Identifier: Apache-2.0 */

/* What a running mount says of itself over the control channel: docs/cli.md, "daemon". */

#include "cli/serve.h"

#include "cli/control.h"
#include "cli/hygiene.h"
#include "cli/text.h"
#include <errno.h>
#include <string.h>
#include <time.h>

int64_t tk_serve_clock_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_BOOTTIME, &now);
        return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static json_t *counters(const struct tk_stats *stats)
{
        return json_pack("{sI sI sI sI sI sI sI}",                                //
                         "read_bytes", (json_int_t)stats->read_bytes,             //
                         "written_bytes", (json_int_t)stats->written_bytes,       //
                         "block_failures", (json_int_t)stats->block_failures,     //
                         "record_failures", (json_int_t)stats->record_failures,   //
                         "records_restored", (json_int_t)stats->records_restored, //
                         "open_files", (json_int_t)stats->open_files,             //
                         "known_inodes", (json_int_t)stats->known_inodes);
}

char *tk_serve_status(void *context)
{
        const struct tk_serve *serve = context;
        json_t *root;
        char *text;

        root = json_pack("{si so ss so ss ss* sb sb si sI si ss so}",                    //
                         "pid", (int)getpid(),                                           //
                         "mountpoint", tk_text_json(serve->mountpoint),                  //
                         "provider", "local",                                            //
                         "keystore", tk_text_json(serve->keystore),                      //
                         "state", "active",                                              //
                         "fingerprint", tk_volume_fingerprint(serve->volume),            //
                         "read_only", serve->read_only,                                  //
                         "allow_other", serve->allow_other,                              //
                         "mount_number", (int)tk_volume_mount_number(serve->volume),     //
                         "uptime_s",                                                     //
                         (json_int_t)((tk_serve_clock_ms() - serve->started_ms) / 1000), //
                         "threads", (int)serve->threads,                                 //
                         "memory_locked", tk_hygiene_locked(),                           //
                         "counters", counters(tk_fs_stats(serve->fs)));
        if (!root)
                return NULL;
        text = json_dumps(root, JSON_COMPACT);
        json_decref(root);
        return text;
}

json_t *tk_serve_ask(struct tk_volume *volume, const char **ret_why)
{
        TK_CLEANUP(tk_freep) char *answer = NULL;
        json_t *daemon = NULL;
        int r;

        *ret_why = NULL;
        r = tk_control_ask_status(tk_volume_dirfd(volume), &answer);
        if (r == 0)
                daemon = json_loads(answer, JSON_REJECT_DUPLICATES, NULL);
        if (r == 0 && !json_is_object(daemon)) {
                json_decref(daemon);
                *ret_why = "its answer is no JSON object";
                return NULL;
        }
        if (r < 0 && r != -ENOENT && r != -ECONNREFUSED)
                *ret_why = r == -ECONNRESET ? "it refuses us" : strerror(-r);
        return daemon;
}

size_t tk_serve_unclean_count(struct tk_volume *volume, const json_t *daemon)
{
        size_t count = tk_volume_unclean_count(volume);
        bool numbered = json_integer_value(json_object_get(daemon, "mount_number")) > 0;

        return count > 0 && numbered ? count - 1 : count;
}
