/* SPDX-License-Identifier: Apache-2.0 */

/* Operations of a workload, in the filesystem and in plain. */

#include "work.h"

#include "calls.h"
#include "fs/content.h"
#include "fs/fs_internal.h"
#include "fs/op.h"
#include "fs/rotate.h"
#include "sched.h"
#include "states.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A call of the library: allocations in it may be made to fail. */
#define CALL(expression)                                                                           \
        __extension__({                                                                            \
                int r_;                                                                            \
                                                                                                   \
                tk_alloc_counted++;                                                                \
                r_ = (expression);                                                                 \
                tk_alloc_counted--;                                                                \
                r_;                                                                                \
        })

static const struct tk_caller nobody_special = {.umask = 022};

/*
 * The end of an operation. A workload is a fixed script: what fails in it is a bug. Half of
 * the time the library's threads do what they have to do before the next one, and sometimes
 * what they do after some seconds.
 */
static int judge(const struct tk_work *work, const char *what, int r)
{
        uint64_t chance = tk_mix(work->recording.count, work->version_count, 30) % 8;

        if (chance == 0)
                tk_sched_pass(6);
        if (chance % 2 == 0)
                tk_sched_settle();
        if (r >= 0 || work->forgive)
                return r;
        fprintf(stderr, "tk_crash: %s: %s failed: %s\n", work->name, what, strerror(-r));
        exit(2);
}

static size_t position(const struct tk_work *work)
{
        return work->recording.count;
}

/* Versions and acknowledgements ------------------------------------------------------ */

static void add_version(struct tk_work *work, size_t begin, const struct tk_event *event)
{
        struct tk_version *version;

        if (work->version_count % 64 == 0)
                work->versions = realloc(work->versions,
                                         (work->version_count + 64) * sizeof(*work->versions));
        version = &work->versions[work->version_count++];
        version->begin = begin;
        version->doubtful = false;
        version->event = *event;
        version->event.name = NULL;
        version->event.name2 = NULL;
        version->event.data = NULL;
        tk_disk_clone(&work->plain, &version->plain);
}

/* The operation that began at @begin did @event. */
static void did(struct tk_work *work, size_t begin, const struct tk_event *event)
{
        struct tk_event touch = {.type = TK_EVENT_MTIME, .node = event->node, .off = TK_DISK_NOW};

        if (event->type != TK_EVENT_MARK)
                tk_disk_apply(&work->plain, event, true);
        if (event->type > TK_EVENT_MTIME && event->type < TK_EVENT_SYNC_BEGIN)
                tk_disk_apply(&work->plain, &touch, true);
        add_version(work, begin, event);
}

/* It came back with @r: it did @event, or did not, or may have. */
static void ended(struct tk_work *work, size_t begin, const struct tk_event *event, int r)
{
        struct tk_disk before;

        if (r >= 0) {
                did(work, begin, event);
        } else if (work->faulty) {
                tk_disk_clone(&work->plain, &before);
                did(work, begin, event);
                tk_disk_done(&work->plain);
                work->plain = before;
                add_version(work, begin, &(struct tk_event){.type = TK_EVENT_MARK});
                work->versions[work->version_count - 1].doubtful = true;
                work->versions[work->version_count - 2].doubtful = true;
        }
}

/*
 * The version of @node's content that a flush promises at least, of the first @count. What failed
 * may have been carried out: it is two versions, done and undone.
 */
static size_t last_sure(const struct tk_work *work, uint32_t node, size_t count)
{
        size_t last = count - 1;

        while (last > 0 && (work->versions[last].doubtful ||
                            !tk_event_touches(&work->versions[last].event, node)))
                last--;
        return last;
}

static void acknowledge(struct tk_work *work, uint32_t node, size_t content, size_t names)
{
        if (work->ack_count % 64 == 0)
                work->acks = realloc(work->acks, (work->ack_count + 64) * sizeof(*work->acks));
        work->acks[work->ack_count++] = (struct tk_ack){
                .at = position(work), .node = node, .content = content, .names = names};
}

/*
 * The last version, before @end, that changed names a flush of @node promises: for a
 * directory its entries, for a file its making.
 */
static size_t names_version(const struct tk_work *work, uint32_t node, size_t end)
{
        bool is_dir = S_ISDIR(tk_disk_node(&work->plain, node)->mode);

        for (size_t i = end; i-- > 0;) {
                const struct tk_event *event = &work->versions[i].event;

                if (event->type == TK_EVENT_MAKE && event->node == node)
                        return i;
                if (is_dir && event->type < TK_EVENT_SETXATTR && tk_event_touches(event, node))
                        return i;
        }
        return 0;
}

/* Paths --------------------------------------------------------------------------------- */

int tk_work_lookup(struct tk_stand *stand, const char *path, struct tk_inode **ret_inode)
{
        struct tk_inode *at = stand->root;
        struct tk_entry entry;
        char *save = NULL;
        char text[1024];
        int r = 0;

        snprintf(text, sizeof(text), "%s", path);
        for (char *name = strtok_r(text, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
                r = CALL(tk_op_lookup(stand->fs, at, name, &entry));
                tk_work_forget(stand, at);
                if (r < 0)
                        return r;
                at = entry.inode;
        }
        *ret_inode = at;
        return 0;
}

void tk_work_forget(struct tk_stand *stand, struct tk_inode *inode)
{
        if (inode && inode != stand->root)
                tk_inode_forget(stand->fs->inodes, inode, 1);
}

/* A name in a directory, in the filesystem and in plain. */
struct spot {
        struct tk_inode *dir;
        uint32_t plain_dir;
        uint32_t plain; /* 0: there is nothing */
        char dir_path[1024];
        const char *name;
};

static uint32_t plain_at(const struct tk_work *work, const char *path)
{
        uint32_t at = TK_DISK_ROOT;
        char *save = NULL;
        char text[1024];

        snprintf(text, sizeof(text), "%s", path);
        for (char *name = strtok_r(text, "/", &save); name; name = strtok_r(NULL, "/", &save))
                at = tk_disk_lookup(&work->plain, at, name);
        return at;
}

static int find_spot(struct tk_work *work, const char *path, struct spot *spot)
{
        const char *slash = strrchr(path, '/');

        memset(spot, 0, sizeof(*spot));
        spot->name = slash ? slash + 1 : path;
        snprintf(spot->dir_path, sizeof(spot->dir_path), "%.*s", (int)(slash ? slash - path : 0),
                 path);
        spot->plain_dir = plain_at(work, spot->dir_path);
        spot->plain = tk_disk_lookup(&work->plain, spot->plain_dir, spot->name);
        return tk_work_lookup(&work->stand, spot->dir_path, &spot->dir);
}

static struct tk_event make_event(struct tk_work *work, const struct spot *spot, mode_t mode)
{
        return (struct tk_event){.type = TK_EVENT_MAKE,
                                 .node = work->next_node++,
                                 .parent = spot->plain_dir,
                                 .name = (char *)(uintptr_t)spot->name,
                                 .mode = mode};
}

/* Files ------------------------------------------------------------------------------------ */

static int take_handle(struct tk_work *work, struct tk_openfile *file, struct tk_inode *inode,
                       uint32_t node)
{
        for (int i = 0; i < TK_WORK_FILES; i++) {
                if (work->open[i].file)
                        continue;
                work->open[i].file = file;
                work->open[i].inode = inode;
                work->open[i].node = node;
                return i;
        }
        abort();
}

int tk_work_create(struct tk_work *work, const char *path)
{
        size_t begin = position(work);
        struct tk_openfile *file;
        struct tk_entry entry;
        struct tk_event event;
        struct spot spot;
        int r;

        r = find_spot(work, path, &spot);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_create(work->stand.fs, spot.dir, spot.name, 0644, O_RDWR, &nobody_special,
                              &entry, &file));
        tk_work_forget(&work->stand, spot.dir);
        event = make_event(work, &spot, S_IFREG | 0644);
        ended(work, begin, &event, r);
        if (r < 0)
                return judge(work, "create", r);
        return take_handle(work, file, entry.inode, event.node);
}

int tk_work_open(struct tk_work *work, const char *path)
{
        struct tk_openfile *file;
        struct tk_inode *inode;
        int r;

        r = tk_work_lookup(&work->stand, path, &inode);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_open(work->stand.fs, inode, O_RDWR, &file));
        if (r < 0) {
                tk_work_forget(&work->stand, inode);
                return judge(work, "open", r);
        }
        return take_handle(work, file, inode, plain_at(work, path));
}

int tk_work_close(struct tk_work *work, int handle)
{
        tk_op_release(work->stand.fs, work->open[handle].file, O_RDWR);
        tk_work_forget(&work->stand, work->open[handle].inode);
        work->open[handle].file = NULL;
        return 0;
}

/* Text that says where it belongs, so that a mix shows. */
static void fill(uint8_t *data, uint64_t off, size_t len, unsigned tag)
{
        for (size_t i = 0; i < len; i++) {
                uint64_t word = tag * 0x9e3779b97f4a7c15ULL + (off + i) / 8 * 0xd1342543de82ef95ULL;

                word ^= word >> 31;
                data[i] = (uint8_t)(word >> (off + i) % 8 * 8 | 1);
        }
}

int tk_work_write(struct tk_work *work, int handle, uint64_t off, size_t len, unsigned tag)
{
        struct tk_event event = {.type = TK_EVENT_WRITE,
                                 .node = work->open[handle].node,
                                 .off = off,
                                 .len = len,
                                 .data_len = len};
        size_t begin = position(work);
        uint8_t *data = malloc(len);
        int r;

        event.data = malloc(len);
        fill(event.data, off, len, tag);
        memcpy(data, event.data, len);
        r = CALL(tk_content_write(work->stand.fs, work->open[handle].file, off, data, len));
        ended(work, begin, &event, r);
        free(event.data);
        free(data);
        return judge(work, "write", r);
}

int tk_work_truncate(struct tk_work *work, int handle, uint64_t size)
{
        struct tk_event event = {
                .type = TK_EVENT_TRUNCATE, .node = work->open[handle].node, .off = size};
        size_t begin = position(work);
        int r;

        r = CALL(tk_content_truncate(work->stand.fs, work->open[handle].file, size));
        ended(work, begin, &event, r);
        return judge(work, "truncate", r);
}

int tk_work_fallocate(struct tk_work *work, int handle, int mode, uint64_t off, uint64_t len)
{
        struct tk_event event = {.type = TK_EVENT_FALLOCATE,
                                 .node = work->open[handle].node,
                                 .mode = (uint32_t)mode,
                                 .off = off,
                                 .len = len};
        size_t begin = position(work);
        int r;

        r = CALL(tk_content_fallocate(work->stand.fs, work->open[handle].file, mode, off, len));
        ended(work, begin, &event, r);
        return judge(work, "fallocate", r);
}

int tk_work_utimens(struct tk_work *work, int handle, uint64_t seconds)
{
        struct tk_event event = {
                .type = TK_EVENT_MTIME, .node = work->open[handle].node, .off = seconds};
        struct tk_setattr set = {.what = TK_SETATTR_MTIME, .mtime = {.tv_sec = (time_t)seconds}};
        size_t begin = position(work);
        struct stat st;
        int r;

        r = CALL(tk_op_setattr(work->stand.fs, work->open[handle].inode, &set, &st));
        ended(work, begin, &event, r);
        return judge(work, "utimens", r);
}

static int sync_handle(struct tk_work *work, int handle, bool data_only)
{
        size_t versions = work->version_count;
        uint32_t node = work->open[handle].node;
        int r;

        r = CALL(tk_op_fsync(work->stand.fs, work->open[handle].file, data_only));
        if (r == 0)
                acknowledge(work, node, last_sure(work, node, versions),
                            names_version(work, node, versions));
        return judge(work, "fsync", r);
}

int tk_work_fsync(struct tk_work *work, int handle)
{
        return sync_handle(work, handle, false);
}

int tk_work_fdatasync(struct tk_work *work, int handle)
{
        return sync_handle(work, handle, true);
}

/* Names ------------------------------------------------------------------------------------ */

int tk_work_mkdir(struct tk_work *work, const char *path)
{
        size_t begin = position(work);
        struct tk_event event;
        struct tk_entry entry;
        struct spot spot;
        int r;

        r = find_spot(work, path, &spot);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_mkdir(work->stand.fs, spot.dir, spot.name, 0755, &nobody_special, &entry));
        tk_work_forget(&work->stand, spot.dir);
        if (r == 0)
                tk_work_forget(&work->stand, entry.inode);
        event = make_event(work, &spot, S_IFDIR | 0755);
        ended(work, begin, &event, r);
        return judge(work, "mkdir", r);
}

int tk_work_symlink(struct tk_work *work, const char *target, const char *path)
{
        size_t begin = position(work);
        struct tk_event event;
        struct tk_entry entry;
        struct spot spot;
        int r;

        r = find_spot(work, path, &spot);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_symlink(work->stand.fs, target, spot.dir, spot.name, &nobody_special,
                               &entry));
        tk_work_forget(&work->stand, spot.dir);
        if (r == 0)
                tk_work_forget(&work->stand, entry.inode);
        event = make_event(work, &spot, S_IFLNK | 0777);
        event.data = (uint8_t *)(uintptr_t)target;
        event.data_len = strlen(target);
        ended(work, begin, &event, r);
        return judge(work, "symlink", r);
}

int tk_work_link(struct tk_work *work, const char *from, const char *to)
{
        struct tk_event event = {.type = TK_EVENT_LINK, .node = plain_at(work, from)};
        size_t begin = position(work);
        struct tk_inode *inode;
        struct tk_entry entry;
        struct spot spot = {0};
        int r;

        r = tk_work_lookup(&work->stand, from, &inode);
        if (r < 0)
                return judge(work, from, r);
        r = find_spot(work, to, &spot);
        if (r == 0) {
                r = CALL(tk_op_link(work->stand.fs, inode, spot.dir, spot.name, &entry));
                tk_work_forget(&work->stand, spot.dir);
        }
        tk_work_forget(&work->stand, inode);
        if (r == 0)
                tk_work_forget(&work->stand, entry.inode);
        event.parent = spot.plain_dir;
        event.name = (char *)(uintptr_t)spot.name;
        if (r == 0 || (spot.dir && !spot.plain))
                ended(work, begin, &event, r);
        return judge(work, "link", r);
}

static int remove_name(struct tk_work *work, const char *path, bool directory)
{
        struct tk_event event = {.type = TK_EVENT_UNLINK};
        size_t begin = position(work);
        struct spot spot;
        int r;

        r = find_spot(work, path, &spot);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_unlink(work->stand.fs, spot.dir, spot.name, directory));
        tk_work_forget(&work->stand, spot.dir);
        event.node = spot.plain;
        event.parent = spot.plain_dir;
        event.name = (char *)(uintptr_t)spot.name;
        if (spot.plain)
                ended(work, begin, &event, r);
        return judge(work, "unlink", r);
}

int tk_work_unlink(struct tk_work *work, const char *path)
{
        return remove_name(work, path, false);
}

int tk_work_rmdir(struct tk_work *work, const char *path)
{
        return remove_name(work, path, true);
}

int tk_work_rename(struct tk_work *work, const char *from, const char *to, unsigned flags)
{
        struct tk_event event = {.type = TK_EVENT_RENAME, .mode = flags};
        size_t begin = position(work);
        struct spot source;
        struct spot target = {0};
        int r;

        r = find_spot(work, from, &source);
        if (r < 0)
                return judge(work, from, r);
        r = find_spot(work, to, &target);
        if (r == 0) {
                r = CALL(tk_op_rename(work->stand.fs, source.dir, source.name, target.dir,
                                      target.name, flags));
                tk_work_forget(&work->stand, target.dir);
        }
        tk_work_forget(&work->stand, source.dir);
        if (source.plain == target.plain || !source.plain || !target.dir)
                return judge(work, "rename", r);
        event.node = source.plain;
        event.parent = source.plain_dir;
        event.name = (char *)(uintptr_t)source.name;
        event.parent2 = target.plain_dir;
        event.name2 = (char *)(uintptr_t)target.name;
        event.victim = target.plain;
        ended(work, begin, &event, r);
        return judge(work, "rename", r);
}

int tk_work_setxattr(struct tk_work *work, const char *path, const char *name, const char *value)
{
        struct tk_event event = {.type = TK_EVENT_SETXATTR,
                                 .node = plain_at(work, path),
                                 .name = (char *)(uintptr_t)name,
                                 .data = (uint8_t *)(uintptr_t)value,
                                 .data_len = strlen(value)};
        size_t begin = position(work);
        struct tk_inode *inode;
        int r;

        r = tk_work_lookup(&work->stand, path, &inode);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_setxattr(work->stand.fs, inode, name, value, strlen(value), 0));
        tk_work_forget(&work->stand, inode);
        ended(work, begin, &event, r);
        return judge(work, "setxattr", r);
}

int tk_work_chmod(struct tk_work *work, const char *path, mode_t mode)
{
        struct tk_event event = {
                .type = TK_EVENT_CHMOD, .node = plain_at(work, path), .mode = mode};
        struct tk_setattr set = {.what = TK_SETATTR_MODE, .mode = mode};
        size_t begin = position(work);
        struct tk_inode *inode;
        struct stat st;
        int r;

        r = tk_work_lookup(&work->stand, path, &inode);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_setattr(work->stand.fs, inode, &set, &st));
        tk_work_forget(&work->stand, inode);
        ended(work, begin, &event, r);
        return judge(work, "chmod", r);
}

int tk_work_fsyncdir(struct tk_work *work, const char *path)
{
        size_t versions = work->version_count;
        uint32_t node = plain_at(work, path);
        struct tk_inode *inode;
        struct tk_dir *dir;
        int r;

        r = tk_work_lookup(&work->stand, path, &inode);
        if (r < 0)
                return judge(work, path, r);
        r = CALL(tk_op_opendir(work->stand.fs, inode, &dir));
        if (r == 0) {
                r = CALL(tk_op_fsyncdir(dir, false));
                tk_op_releasedir(dir);
        }
        tk_work_forget(&work->stand, inode);
        if (r == 0)
                acknowledge(work, node, 0, names_version(work, node, versions));
        return judge(work, "fsyncdir", r);
}

/* The mount ------------------------------------------------------------------------------------ */

static void mount(struct tk_work *work)
{
        char why[TK_STAND_WHY];

        if (tk_stand_up(&work->stand, why) < 0) {
                fprintf(stderr, "tk_crash: %s: %s\n", work->name, why);
                exit(2);
        }
}

void tk_work_rotate(struct tk_work *work)
{
        struct tk_rotate_options options = {.kms = work->stand.kms, .even_if_current = true};
        struct tk_rotate_progress progress;
        struct tk_fault fault = {0};

        judge(work, "rotate", tk_rotate_run(work->stand.fs, &options, &progress, &fault));
}

static void begin(struct tk_work *work)
{
        struct tk_event nothing = {.type = TK_EVENT_MARK};

        tk_sched_start();
        tk_disk_clone(&tk_calls.disk, &work->start);
        tk_calls.recording = &work->recording;
        did(work, 0, &nothing);
        mount(work);
}

void tk_work_begin(struct tk_work *work, const char *name)
{
        char why[TK_STAND_WHY];
        struct tk_disk disk;

        memset(work, 0, sizeof(*work));
        work->name = name;
        work->next_node = TK_DISK_ROOT + 1;
        tk_disk_init(&work->plain);
        tk_disk_init(&disk);
        tk_calls_start(&disk);
        if (tk_stand_create(why) < 0) {
                fprintf(stderr, "tk_crash: %s: %s\n", name, why);
                exit(2);
        }
        begin(work);
}

void tk_work_begin_on(struct tk_work *work, const char *name, struct tk_disk *disk,
                      struct tk_disk *plain)
{
        memset(work, 0, sizeof(*work));
        work->name = name;
        work->plain = *plain;
        work->next_node = (uint32_t)plain->count;
        memset(plain, 0, sizeof(*plain));
        tk_calls_start(disk);
        begin(work);
}

static void close_files(struct tk_work *work)
{
        for (int i = 0; i < TK_WORK_FILES; i++)
                if (work->open[i].file)
                        tk_work_close(work, i);
}

static void unmount(struct tk_work *work)
{
        char why[TK_STAND_WHY];

        close_files(work);
        if (tk_stand_down(&work->stand, why) < 0) {
                fprintf(stderr, "tk_crash: %s: %s\n", work->name, why);
                exit(2);
        }
}

void tk_work_remount(struct tk_work *work)
{
        unmount(work);
        acknowledge(work, 0, work->version_count - 1, work->version_count - 1);
        mount(work);
}

void tk_work_kill(struct tk_work *work, int handle)
{
        tk_stand_options.refuses = handle >= 0;
        if (handle >= 0)
                memcpy(tk_stand_options.refused, tk_secret_bytes(work->open[handle].file->dek),
                       TK_KEY_LEN);
        close_files(work);
        tk_stand_drop(&work->stand);
        mount(work);
}

void tk_work_settle(struct tk_work *work, struct tk_disk *ret_disk)
{
        unmount(work);
        tk_sched_stop();
        if (tk_calls_stop(ret_disk) > 0)
                fprintf(stderr, "tk_crash: %s: descriptors were left open\n", work->name);
}

void tk_work_end(struct tk_work *work)
{
        struct tk_disk disk;

        tk_calls.recording = NULL;
        tk_sched_stop();
        close_files(work);
        tk_stand_drop(&work->stand);
        if (tk_calls_stop(&disk) > 0)
                fprintf(stderr, "tk_crash: %s: descriptors were left open\n", work->name);
        tk_disk_done(&disk);
}

void tk_work_done(struct tk_work *work)
{
        for (size_t i = 0; i < work->version_count; i++)
                tk_disk_done(&work->versions[i].plain);
        free(work->versions);
        free(work->acks);
        tk_disk_done(&work->plain);
        tk_disk_done(&work->start);
        tk_recording_done(&work->recording);
        memset(work, 0, sizeof(*work));
}
