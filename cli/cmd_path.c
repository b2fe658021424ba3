/* SPDX-License-Identifier: Apache-2.0 */

/*
 * `path`: where a file of the mount lies in the encrypted directory, and back.
 *
 * A mount is asked over the control channel. Without one the volume is unlocked here,
 * without its lock: only names are read, and a backup may be on a medium that can't be
 * written to.
 */

#include "base/bytes.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/hygiene.h"
#include "cli/mountinfo.h"
#include "cli/open.h"
#include "cli/paths.h"
#include "cli/serve.h"
#include "cli/text.h"
#include "fs/translate.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SCHEMA = 1 };

/* A CIPHERDIR that paths lead to, with what is needed to translate them. */
struct place {
        struct place *next;
        char *cipherdir;
        char *mountpoint; /* NULL: not mounted */
        struct tk_conf *conf;
        struct tk_open_keys keys;
        struct tk_volume *volume;
        struct tk_fs *fs; /* NULL: the mount is asked, or names are plain */
};

/* A path, taken apart. */
struct target {
        struct place *place;
        bool to_backing;
        char *relative; /* to the mount, or to CIPHERDIR/root */
};

struct job {
        const struct tk_args *args;
        struct place *places;
        json_t *found; /* NULL: lines are printed instead */
};

static struct place *place_free(struct place *place)
{
        if (!place)
                return NULL;
        tk_fs_free(place->fs);
        tk_volume_free(place->volume);
        tk_open_keys_done(&place->keys);
        tk_conf_free(place->conf);
        free(place->cipherdir);
        free(place->mountpoint);
        free(place);
        return NULL;
}
TK_DEFINE_CLEANUP(struct place *, place_free)

static void target_done(struct target *target)
{
        free(target->relative);
        target->relative = NULL;
}

/* Places ------------------------------------------------------------------- */

/* Unlock the volume for reading names. */
static int unlock(struct place *place, const struct tk_args *args, struct tk_fault *fault)
{
        struct tk_provider_volume target = tk_open_target(place->volume);
        /* Without the lock nothing may be replayed. */
        struct tk_fs_options options = {.read_only = true, .keep_journal = true};
        int r;

        r = tk_open_conf(args->config, &place->conf, fault);
        if (r == 0)
                r = tk_hygiene_lock_memory(place->conf, fault);
        if (r == 0)
                r = tk_provider_open(place->conf, &target, &place->keys.current, fault);
        if (r == 0)
                r = tk_open_unlock_with(place->volume, place->conf, &place->keys, fault);
        if (r == 0)
                r = tk_fs_new(place->volume, &options, &place->fs, fault);
        tk_log_set_level(TK_LOG_NONE); /* each failure is said once, with its path */
        return r;
}

static int open_place(struct job *job, const char *cipherdir, struct place **ret_place,
                      struct tk_fault *fault)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};
        TK_CLEANUP(place_freep) struct place *place = NULL;
        int r;

        for (place = job->places; place; place = place->next)
                if (strcmp(place->cipherdir, cipherdir) == 0) {
                        *ret_place = TK_TAKE(place);
                        return 0;
                }
        place = calloc(1, sizeof(*place));
        if (!place)
                return -ENOMEM;
        r = tk_volume_open(cipherdir, &place->volume, fault);
        if (r < 0)
                return r;
        place->cipherdir = strdup(cipherdir);
        if (!place->cipherdir)
                return -ENOMEM;
        r = tk_mountinfo_of(tk_volume_path(place->volume), &info);
        if (r < 0)
                return r;
        place->mountpoint = TK_TAKE(info.mountpoint);
        place->next = job->places;
        job->places = place;
        *ret_place = TK_TAKE(place);
        return 0;
}

/* Of which place, and what in it --------------------------------------------- */

/* The absolute path of @path, whose last component is not followed if it is a link. */
static int resolve(const char *path, char **ret_path)
{
        TK_CLEANUP(tk_freep) char *given = strdup(path);
        TK_CLEANUP(tk_freep) char *dir = NULL;
        size_t len = strlen(path);
        char *name;
        int r;

        if (!given)
                return -ENOMEM;
        while (len > 1 && given[len - 1] == '/')
                given[--len] = '\0';
        name = strrchr(given, '/');
        name = name ? name + 1 : given;
        if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return tk_path_resolve(given, ret_path);
        if (name == given)
                r = tk_path_resolve(".", &dir);
        else {
                name[-1] = '\0';
                r = tk_path_resolve(given[0] ? given : "/", &dir);
        }
        if (r < 0)
                return r;
        return asprintf(ret_path, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name) < 0 ? -ENOMEM
                                                                                       : 0;
}

static bool is_volume(const char *dir)
{
        TK_CLEANUP(tk_freep) char *file = NULL;

        return asprintf(&file, "%s/turnkeyfs.volume", dir) >= 0 && access(file, F_OK) == 0;
}

/* What of @path follows @dir, which it begins with. */
static int take_relative(const char *path, const char *dir, struct target *ret_target)
{
        const char *rest = path + strlen(dir);

        ret_target->relative = strdup(rest + strspn(rest, "/"));
        return ret_target->relative ? 0 : -ENOMEM;
}

/* Whether @dir is a mountpoint of ours, or a CIPHERDIR, that the absolute @path lies in: 1 or 0. */
static int try_ancestor(struct job *job, const char *path, const char *dir,
                        struct target *ret_target, struct tk_fault *fault)
{
        TK_CLEANUP(tk_mountinfo_done) struct tk_mountinfo info = {0};
        TK_CLEANUP(tk_freep) char *root = NULL;
        int r;

        r = tk_mountinfo_at(dir[0] ? dir : "/", &info);
        if (r < 0)
                return r;
        if (r > 0) {
                ret_target->to_backing = true;
                r = take_relative(path, dir, ret_target);
                if (r == 0)
                        r = open_place(job, info.cipherdir, &ret_target->place, fault);
                return r < 0 ? r : 1;
        }
        if (asprintf(&root, "%s/root", dir) < 0)
                return -ENOMEM;
        if (strncmp(path, root, strlen(root)) != 0 ||
            (path[strlen(root)] != '/' && path[strlen(root)] != '\0') || !is_volume(dir))
                return 0;
        ret_target->to_backing = false;
        r = take_relative(path, root, ret_target);
        if (r == 0)
                r = open_place(job, dir[0] ? dir : "/", &ret_target->place, fault);
        return r < 0 ? r : 1;
}

static int find_target(struct job *job, const char *given, struct target *ret_target,
                       struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *path = NULL;
        TK_CLEANUP(tk_freep) char *dir = NULL;
        char *slash;
        int r;

        if (job->args->cipherdir) {
                ret_target->to_backing = true;
                r = take_relative(given, "", ret_target);
                return r < 0 ? r : open_place(job, job->args->cipherdir, &ret_target->place, fault);
        }
        r = resolve(given, &path);
        if (r < 0)
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "cannot find %s: %s", given,
                                    strerror(-r));
        dir = strdup(path);
        if (!dir)
                return -ENOMEM;
        for (r = 0; r == 0;) {
                r = try_ancestor(job, path, dir, ret_target, fault);
                slash = strrchr(dir, '/');
                if (r != 0 || !slash)
                        break;
                *slash = '\0';
        }
        if (r != 0)
                return r < 0 ? r : 0;
        return tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -ENOENT,
                            "%s is neither below a mountpoint of ours nor below the 'root' of an "
                            "encrypted directory; name that with --cipherdir",
                            given);
}

/* Translation -------------------------------------------------------------- */

static int cannot_translate(const struct target *target, const char *given, int r,
                            struct tk_fault *fault)
{
        const char *why = strerror(-r);

        if (r == -EBADMSG)
                why = "it is no name of its directory, or damaged";
        else if (r == -EIO && target->place->fs)
                why = "the key record of a directory on the way is missing or damaged; "
                      "'turnkeyfs escrow restore' puts it back";
        else if (r == -ENOENT)
                why = "a directory on the way is not there; a backup that has it can be asked";
        else if (r == -EACCES && !target->place->fs)
                why = "only root and the mount's owner may ask the mount";
        else if (r == -ENOMSG)
                why = "the mount does not answer this request: it may be of an older version";
        else if (r == -EINVAL)
                why = "'..' leads out of it";
        return tk_fault_set(fault, TK_FAULT_INTERNAL, r, "%s: %s", given, why);
}

/* Plain names are the same below; only ".." has to be found. */
static int copy_relative(const char *relative, char **ret_path)
{
        TK_CLEANUP(tk_freep) char *rest = strdup(relative);
        TK_CLEANUP(tk_freep) char *path = strdup("");
        char *left = rest;
        const char *name;

        if (!rest || !path)
                return -ENOMEM;
        while ((name = strsep(&left, "/"))) {
                char *longer;

                if (name[0] == '\0' || strcmp(name, ".") == 0)
                        continue;
                if (strcmp(name, "..") == 0)
                        return -EINVAL;
                if (asprintf(&longer, "%s%s%s", path, path[0] ? "/" : "", name) < 0)
                        return -ENOMEM;
                free(path);
                path = longer;
        }
        *ret_path = TK_TAKE(path);
        return 0;
}

/* By the mount if there is one, otherwise here. */
static int ask(struct place *place, const struct tk_args *args, bool to_backing,
               const char *relative, char **ret_path, struct tk_fault *fault)
{
        int r = TK_SERVE_NOBODY;

        if (tk_volume_names(place->volume) == TK_NAMES_PLAIN)
                return copy_relative(relative, ret_path);
        if (!place->fs)
                r = tk_serve_ask_path(place->volume, to_backing, relative, ret_path);
        if (r != TK_SERVE_NOBODY)
                return r;
        if (!place->fs) {
                r = unlock(place, args, fault);
                if (r < 0)
                        return r;
        }
        return to_backing ? tk_translate_to_backing(place->fs, relative, ret_path)
                          : tk_translate_to_plain(place->fs, relative, ret_path);
}

static int translate(struct job *job, const char *given, struct target *target, char **ret_path,
                     struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *found = NULL;
        struct place *place;
        const char *top;
        int r;

        r = find_target(job, given, target, fault);
        if (r < 0)
                return r;
        place = target->place;
        r = ask(place, job->args, target->to_backing, target->relative, &found, fault);
        if (r < 0)
                return cannot_translate(target, given, r, fault);
        if (!target->to_backing && !place->mountpoint) {
                *ret_path = found[0] ? TK_TAKE(found) : strdup(".");
                return *ret_path ? 0 : -ENOMEM;
        }
        top = target->to_backing ? tk_volume_path(place->volume) : place->mountpoint;
        return asprintf(ret_path, "%s%s%s%s", strcmp(top, "/") == 0 ? "" : top,
                        target->to_backing ? "/root" : "", found[0] ? "/" : "", found) < 0
                       ? -ENOMEM
                       : 0;
}

/* Output --------------------------------------------------------------------- */

static int add_json(struct job *job, const char *given, const struct target *target,
                    const char *path, const struct tk_fault *fault)
{
        json_t *one = json_pack("{so}", "given", tk_text_json(given));
        const char *name = target->to_backing ? "backing" : "plain";

        if (path) {
                json_object_set_new(one, name, tk_text_json(path));
                if (!tk_text_is_utf8(path))
                        json_object_set_new(one, target->to_backing ? "backing_hex" : "plain_hex",
                                            tk_text_hex_json(path));
        } else {
                json_object_set_new(one, "error", tk_text_json(fault->text));
                json_object_set_new(one, "code", json_integer(fault->kind));
        }
        return json_array_append_new(job->found, one) < 0 ? -ENOMEM : 0;
}

static void print_path(const struct tk_args *args, const char *path)
{
        if (args->null) {
                fwrite(path, 1, strlen(path) + 1, stdout);
                return;
        }
        tk_text_print(stdout, path);
        putchar('\n');
}

/* One path. A failure is said here; negative only if going on would be in vain. */
static int do_path(struct job *job, const char *given, struct tk_fault *ret_fault)
{
        TK_CLEANUP(target_done) struct target target = {0};
        TK_CLEANUP(tk_freep) char *path = NULL;
        int r;

        r = translate(job, given, &target, &path, ret_fault);
        if (r == -ENOMEM)
                return r;
        if (r < 0 && !ret_fault->kind)
                tk_fault_describe(ret_fault, TK_FAULT_INTERNAL, "%s: %s", given, strerror(-r));
        if (job->found)
                return add_json(job, given, &target, path, ret_fault);
        if (path) {
                print_path(job->args, path);
                return 0;
        }
        fflush(stdout);
        fprintf(stderr, "turnkeyfs: ");
        tk_text_print(stderr, ret_fault->text);
        fputc('\n', stderr);
        return 0;
}

static int do_paths(struct job *job, struct tk_fault *fault)
{
        enum tk_fault_kind first = TK_FAULT_NONE;
        int failed = 0;
        int r = 0;

        for (int i = 0; r == 0 && i < job->args->path_count; i++) {
                struct tk_fault one = {0};

                r = do_path(job, job->args->paths[i], &one);
                first = first ? first : one.kind;
                failed += one.kind != TK_FAULT_NONE;
        }
        if (r == 0 && job->found)
                r = tk_text_print_json(json_pack("{si sO}", "schema", SCHEMA, "paths", job->found));
        if (r < 0 || failed == 0)
                return r;
        fflush(stdout);
        return tk_fault_set(fault, first, -EIO, "%d of %d paths could not be translated", failed,
                            job->args->path_count);
}

int tk_cmd_path(const struct tk_args *args, struct tk_fault *fault)
{
        struct job job = {.args = args, .found = args->json ? json_array() : NULL};
        int r;

        r = do_paths(&job, fault);
        json_decref(job.found);
        while (job.places) {
                struct place *place = job.places;

                job.places = place->next;
                place_free(place);
        }
        return r;
}
