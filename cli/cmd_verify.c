/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `verify`: authenticate every block of every file of a volume: in the daemon of its mount,
 * or here under the volume lock.
 */

#include "base/log.h"
#include "cli/command.h"
#include "cli/control.h"
#include "cli/hygiene.h"
#include "cli/open.h"
#include "cli/paths.h"
#include "cli/progress.h"
#include "cli/serve.h"
#include "cli/verify_report.h"
#include "cli/verify_wire.h"
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

struct report {
        struct tk_progress progress;
        json_t *findings; /* NULL: print lines instead */
        bool out_of_memory;
        int salvage_fd; /* -1: none */
};

/*
 * The bytes of the backing files, for the bar alone: whatever can't be counted, or
 * changes meanwhile, only makes it less exact.
 */
static uint64_t count_bytes(const char *cipherdir)
{
        TK_CLEANUP(tk_freep) char *root = NULL;
        char *paths[2] = {NULL, NULL};
        const FTSENT *entry;
        uint64_t bytes = 0;
        FTS *tree;

        if (asprintf(&root, "%s/root", cipherdir) < 0)
                return 0;
        paths[0] = root;
        tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
        if (!tree)
                return 0;
        while ((entry = fts_read(tree)))
                if (entry->fts_info == FTS_F)
                        bytes += (uint64_t)entry->fts_statp->st_size;
        fts_close(tree);
        return bytes;
}

static void on_finding(void *context, const struct tk_verify_finding *finding)
{
        struct report *report = context;

        if (report->findings) {
                if (json_array_append_new(report->findings, tk_verify_finding_json(finding)) < 0)
                        report->out_of_memory = true;
                return;
        }
        tk_progress_clear(&report->progress);
        tk_verify_print_finding(finding);
        fflush(stdout);
}

static void on_progress(void *context, const struct tk_verify_totals *so_far)
{
        struct report *report = context;

        tk_progress_update(&report->progress, so_far->bytes);
}

/* The volume's own keys, and no mount. */
static int run_here(struct tk_volume *volume, const struct tk_verify_callbacks *callbacks,
                    struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        TK_CLEANUP(tk_fs_freep) struct tk_fs *fs = NULL;
        struct tk_fs_options options = {.read_only = true};
        int r;

        r = tk_fs_new(volume, &options, &fs, fault);
        return r < 0 ? r : tk_verify_run(fs, callbacks, ret_totals, fault);
}

static int take_line(void *context, const char *line)
{
        return tk_verify_wire_take(context, line);
}

/* The directory is made, or empty: nothing there is written over. */
static int open_salvage(const char *path, int *ret_fd, struct tk_fault *fault)
{
        char name[NAME_MAX + 1];
        int r;

        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "cannot make %s: %s", path,
                                    strerror(errno));
        r = tk_path_first_entry(path, name);
        if (r > 0)
                return tk_fault_set(fault, TK_FAULT_USAGE, -ENOTEMPTY,
                                    "%s is not empty (it holds '%s'); give a new directory for "
                                    "salvaged files",
                                    path, name);
        if (r == 0)
                *ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (r < 0 || *ret_fd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r < 0 ? r : -errno,
                                    "cannot use %s: %s", path, strerror(r < 0 ? -r : errno));
        return 0;
}

/* In the daemon of its mount, which has the keys. TK_SERVE_NOBODY if there is none. */
static int run_in_mount(struct tk_volume *volume, const struct tk_verify_callbacks *callbacks,
                        struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        struct tk_verify_wire wire = {.callbacks = callbacks};
        int r;

        if (callbacks->salvage)
                return TK_SERVE_NOBODY; /* the lock says so if there is a mount */
        r = tk_control_follow(tk_volume_dirfd(volume),
                              callbacks->repair ? "verify-repair" : "verify", take_line, &wire);
        if (r == -ENOENT || r == -ECONNREFUSED)
                return TK_SERVE_NOBODY;
        if (r == -ECONNRESET || r == -EACCES)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, r,
                                    "the mount of %s refuses us; ask as root or as the mount's "
                                    "owner",
                                    tk_volume_path(volume));
        if (r < 0 || !wire.ended)
                return tk_fault_set(fault, TK_FAULT_NOT_MOUNTED, r < 0 ? r : -ENOTCONN,
                                    "the mount of %s did not finish verifying: %s",
                                    tk_volume_path(volume),
                                    r < 0 ? strerror(-r) : "it was unmounted meanwhile");
        *ret_totals = wire.totals;
        *fault = wire.fault;
        return wire.r;
}

/* The lock and the keys are only for whoever verifies here. */
static int unlock(struct tk_volume *volume, const struct tk_conf *conf, struct tk_open_keys *keys,
                  struct tk_fault *fault)
{
        int r;

        r = tk_hygiene_lock_memory(conf, fault);
        if (r == 0)
                r = tk_open_unlock(volume, conf, "being verified", keys, fault);
        tk_log_set_level(TK_LOG_NONE); /* each damage is said once, as a finding */
        return r;
}

static int run(struct tk_volume *volume, const struct tk_args *args, struct report *report,
               const struct tk_conf *conf, struct tk_open_keys *keys,
               struct tk_verify_totals *ret_totals, struct tk_fault *fault)
{
        const struct tk_verify_callbacks callbacks = {.finding = on_finding,
                                                      .progress = on_progress,
                                                      .context = report,
                                                      .repair = args->repair,
                                                      .salvage = args->salvage != NULL,
                                                      .salvage_dirfd = report->salvage_fd};
        uint64_t bytes = tk_progress_is_wanted() ? count_bytes(tk_volume_path(volume)) : 0;
        int r;

        tk_progress_init(&report->progress, "verify", bytes);
        r = run_in_mount(volume, &callbacks, ret_totals, fault);
        if (r == TK_SERVE_NOBODY) {
                r = unlock(volume, conf, keys, fault);
                if (r == 0)
                        r = run_here(volume, &callbacks, ret_totals, fault);
        }
        tk_progress_clear(&report->progress);
        return r == 0 && report->out_of_memory ? -ENOMEM : r;
}

static int verify(struct tk_volume *volume, const struct tk_args *args, const struct tk_conf *conf,
                  struct tk_open_keys *keys, struct tk_verify_totals *ret_totals,
                  struct tk_fault *fault)
{
        struct report report = {.findings = args->json ? json_array() : NULL, .salvage_fd = -1};
        int r = 0;

        if (args->salvage)
                r = open_salvage(args->salvage, &report.salvage_fd, fault);
        if (r == 0)
                r = run(volume, args, &report, conf, keys, ret_totals, fault);
        if (r == 0 && args->json)
                r = tk_verify_print_json(volume, report.findings, ret_totals);
        else if (r == 0)
                tk_verify_print_totals(ret_totals, args->repair);
        json_decref(report.findings);
        if (report.salvage_fd >= 0)
                close(report.salvage_fd);
        return r;
}

int tk_cmd_verify(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        TK_CLEANUP(tk_open_keys_done) struct tk_open_keys keys = {0};
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL; /* freed before its keys */
        TK_CLEANUP(tk_freep) char *cipherdir = NULL;
        struct tk_verify_totals totals = {0};
        int r;

        r = tk_open_conf(args->config, &conf, fault);
        if (r == 0)
                r = tk_open_find_cipherdir(args->paths[0], &cipherdir, fault);
        if (r == 0)
                r = tk_volume_open(cipherdir, &volume, fault);
        if (r == 0)
                r = verify(volume, args, conf, &keys, &totals, fault);
        if (r < 0 || totals.findings == 0)
                return r;
        fflush(stdout);
        return tk_verify_judge(volume, &totals, fault);
}
