/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The check of one disk.
 *
 * The tree is read once into an image of its own (the plain one), through the
 * filesystem's operations, and compared with the versions that are allowed.
 */

#include "check.h"

#include "base/secret.h"
#include "calls.h"
#include "fs/content.h"
#include "fs/fs_internal.h"
#include "fs/op.h"
#include "fs/verify.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((format(printf, 2, 3))) static int wrong(char why[TK_CHECK_WHY], const char *format,
                                                       ...)
{
        va_list ap;

        va_start(ap, format);
        vsnprintf(why, TK_CHECK_WHY, format, ap);
        va_end(ap);
        return -1;
}

/* Reading the tree -------------------------------------------------------------------- */

struct reader {
        struct tk_stand *stand;
        struct tk_disk *plain;
        uint32_t next;
        struct {
                uint64_t ino;
                uint32_t node;
        } links[64]; /* files with several names */
        unsigned link_count;
        char *why;
};

struct names {
        char **names;
        size_t count;
};

static int take_name(void *context, const struct tk_dir_entry *entry)
{
        struct names *names = context;

        if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
                return 0;
        names->names = realloc(names->names, (names->count + 1) * sizeof(char *));
        names->names[names->count++] = strdup(entry->name);
        return 0;
}

static void names_done(struct names *names)
{
        for (size_t i = 0; i < names->count; i++)
                free(names->names[i]);
        free(names->names);
}

static int list(struct tk_stand *stand, struct tk_inode *inode, struct names *names)
{
        struct tk_dir *dir;
        int r;

        memset(names, 0, sizeof(*names));
        r = tk_op_opendir(stand->fs, inode, &dir);
        if (r < 0)
                return r;
        r = tk_op_readdir(dir, 0, take_name, names);
        tk_op_releasedir(dir);
        return r;
}

static int read_content(struct reader *reader, struct tk_openfile *file, uint32_t node)
{
        struct tk_event event = {.type = TK_EVENT_TRUNCATE, .node = node, .off = file->size};

        tk_disk_apply(reader->plain, &event, true);
        event.type = TK_EVENT_WRITE;
        for (uint64_t off = 0; off < file->size; off += event.len) {
                const uint8_t *data;
                ssize_t n = tk_content_read(reader->stand->fs, file, off, TK_REQUEST_MAX, &data);

                if (n <= 0)
                        return n < 0 ? (int)n : -EIO;
                event.off = off;
                event.len = (uint64_t)n;
                event.data = (uint8_t *)(uintptr_t)data;
                event.data_len = (size_t)n;
                tk_disk_apply(reader->plain, &event, true);
        }
        return 0;
}

static int read_attribute(struct reader *reader, struct tk_inode *inode, uint32_t node)
{
        struct tk_event event = {.type = TK_EVENT_SETXATTR, .node = node};
        char name[] = "user.tk";
        uint8_t value[256];
        ssize_t n = tk_op_getxattr(reader->stand->fs, inode, name, value, sizeof(value));

        if (n < 0)
                return n == -ENODATA ? 0 : (int)n;
        event.name = name;
        event.data = value;
        event.data_len = (size_t)n;
        tk_disk_apply(reader->plain, &event, true);
        return 0;
}

static int read_file(struct reader *reader, struct tk_inode *inode, uint32_t node)
{
        struct tk_openfile *file;
        int r;

        r = tk_op_open(reader->stand->fs, inode, O_RDONLY, &file);
        if (r < 0)
                return r;
        r = read_content(reader, file, node);
        tk_op_release(reader->stand->fs, file, O_RDONLY);
        return r < 0 ? r : read_attribute(reader, inode, node);
}

/* Its mtime, when all else has been read. */
static int read_mtime(struct reader *reader, struct tk_inode *inode, uint32_t node)
{
        struct tk_event event = {.type = TK_EVENT_MTIME, .node = node};
        struct stat st;
        int r = tk_op_getattr(reader->stand->fs, inode, &st);

        event.off = (uint64_t)st.st_mtim.tv_sec;
        if (r == 0)
                tk_disk_apply(reader->plain, &event, true);
        return r;
}

static int read_dir(struct reader *reader, struct tk_inode *inode, uint32_t node);

/* The node that a further name of a file belongs to; 0: it is the first. */
static uint32_t known_link(struct reader *reader, const struct stat *st, uint32_t node)
{
        if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
                return 0;
        for (unsigned i = 0; i < reader->link_count; i++)
                if (reader->links[i].ino == st->st_ino)
                        return reader->links[i].node;
        assert(reader->link_count < 64);
        reader->links[reader->link_count].ino = st->st_ino;
        reader->links[reader->link_count++].node = node;
        return 0;
}

static int read_entry(struct reader *reader, struct tk_inode *dir, uint32_t dir_node, char *name)
{
        struct tk_event event = {.type = TK_EVENT_MAKE, .parent = dir_node, .name = name};
        char target[PATH_MAX] = "";
        struct tk_entry entry;
        uint32_t known;
        int r;

        r = tk_op_lookup(reader->stand->fs, dir, name, &entry);
        if (r < 0)
                return r;
        event.node = reader->next++;
        event.mode = entry.st.st_mode;
        known = known_link(reader, &entry.st, event.node);
        if (known) {
                event.type = TK_EVENT_LINK;
                event.node = known;
        }
        if (S_ISLNK(entry.st.st_mode)) {
                r = tk_op_readlink(reader->stand->fs, entry.inode, target, sizeof(target));
                event.data = (uint8_t *)target;
                event.data_len = strlen(target);
        }
        tk_disk_apply(reader->plain, &event, true);
        if (r == 0 && !known && S_ISREG(entry.st.st_mode)) {
                r = read_file(reader, entry.inode, event.node);
                if (r == 0)
                        r = read_mtime(reader, entry.inode, event.node);
        } else if (r == 0 && S_ISDIR(entry.st.st_mode))
                r = read_dir(reader, entry.inode, event.node);
        tk_work_forget(reader->stand, entry.inode);
        if (r < 0 && !reader->why[0])
                wrong(reader->why, "'%s' can't be read: %s", name, strerror(-r));
        return r;
}

static int read_dir(struct reader *reader, struct tk_inode *inode, uint32_t node)
{
        struct names names;
        int r;

        r = list(reader->stand, inode, &names);
        if (r < 0 && !reader->why[0])
                wrong(reader->why, "a directory can't be listed: %s", strerror(-r));
        for (size_t i = 0; r == 0 && i < names.count; i++)
                r = read_entry(reader, inode, node, names.names[i]);
        names_done(&names);
        return r;
}

/* The tree in plain. Returns 0 or -1. */
static int read_tree(struct tk_stand *stand, struct tk_disk *ret_plain, char why[TK_CHECK_WHY])
{
        struct reader reader = {
                .stand = stand, .plain = ret_plain, .next = TK_DISK_ROOT + 1, .why = why};

        why[0] = '\0';
        tk_disk_init(ret_plain);
        return read_dir(&reader, stand->root, TK_DISK_ROOT) < 0 ? -1 : 0;
}

/* Comparing it with what is allowed ------------------------------------------------------ */

struct bounds {
        size_t names;  /* versions from this one on are allowed, for names and attributes, */
        size_t latest; /* up to this one */
};

static struct bounds bounds_at(const struct tk_check *check)
{
        const struct tk_work *work = check->work;
        struct bounds bounds = {0};

        for (size_t i = 0; i < work->ack_count && work->acks[i].at <= check->at; i++)
                if (work->acks[i].names > bounds.names)
                        bounds.names = work->acks[i].names;
        for (size_t i = 0; i < work->version_count && work->versions[i].begin <= check->at; i++)
                bounds.latest = i;
        return bounds;
}

static size_t content_bound(const struct tk_check *check, uint32_t node)
{
        const struct tk_work *work = check->work;
        size_t bound = 0;

        for (size_t i = 0; i < work->ack_count && work->acks[i].at <= check->at; i++)
                if ((work->acks[i].node == node || work->acks[i].node == 0) &&
                    work->acks[i].content > bound)
                        bound = work->acks[i].content;
        return bound;
}

/* Whether block @block of @found, of which @len bytes are in the file, is that of @version. */
static bool same_block(const struct tk_node *found, const struct tk_node *version, uint64_t block,
                       size_t len)
{
        uint8_t a[TK_DISK_PAGE] = {0};
        uint8_t b[TK_DISK_PAGE] = {0};

        tk_disk_read(found, block * TK_DISK_PAGE, a, len);
        if (version)
                tk_disk_read(version, block * TK_DISK_PAGE, b, len);
        return memcmp(a, b, len) == 0;
}

static int check_size(const struct tk_check *check, const struct tk_node *found, uint32_t id,
                      size_t from, size_t latest, char why[TK_CHECK_WHY])
{
        uint64_t least = UINT64_MAX;
        uint64_t most = 0;

        for (size_t v = from; v <= latest; v++) {
                const struct tk_node *node = tk_disk_node(&check->work->versions[v].plain, id);
                uint64_t size = node ? node->size : 0;

                least = size < least ? size : least;
                most = size > most ? size : most;
        }
        if (found->size >= least && found->size <= most)
                return 0;
        return wrong(why, "file %u has %llu bytes, not %llu to %llu", id,
                     (unsigned long long)found->size, (unsigned long long)least,
                     (unsigned long long)most);
}

/* Each block is that of one of versions @from to @latest, whole. */
static int check_blocks(const struct tk_check *check, const struct tk_node *found, uint32_t id,
                        size_t from, size_t latest, char why[TK_CHECK_WHY])
{
        if (check_size(check, found, id, from, latest, why) < 0)
                return -1;
        for (uint64_t block = 0; block * TK_DISK_PAGE < found->size; block++) {
                uint64_t left = found->size - block * TK_DISK_PAGE;
                size_t len = left < TK_DISK_PAGE ? left : TK_DISK_PAGE;
                const struct tk_node *last = NULL;
                bool same = false;

                for (size_t v = latest + 1; !same && v-- > from;) {
                        const struct tk_node *node =
                                tk_disk_node(&check->work->versions[v].plain, id);

                        if (v == latest || node != last)
                                same = same_block(found, node, block, len);
                        last = node;
                }
                if (!same)
                        return wrong(why,
                                     "file %u, block %llu (%zu bytes) is none of versions %zu to "
                                     "%zu",
                                     id, (unsigned long long)block, len, from, latest);
        }
        return 0;
}

static bool cuts_to_nothing(const struct tk_event *event, uint32_t id)
{
        return event->type == TK_EVENT_TRUNCATE && event->node == id && event->off == 0;
}

/*
 * A file that is cut to nothing and written again is the old one or the new one: what is
 * found is of versions before the cut, or from it on.
 */
static int check_content(const struct tk_check *check, const struct tk_node *found, uint32_t id,
                         size_t latest, char why[TK_CHECK_WHY])
{
        size_t from = content_bound(check, id);
        size_t end = latest;

        for (size_t v = latest; v > from; v--) {
                if (!cuts_to_nothing(&check->work->versions[v].event, id))
                        continue;
                if (check_blocks(check, found, id, v, end, why) == 0)
                        return 0;
                end = v - 1;
        }
        return check_blocks(check, found, id, from, end, why);
}

/*
 * The mtime is that of a version from the one whose fsync was acknowledged on. It is any
 * if one of these was written to, and the application did not say a time afterwards.
 */
static int check_mtime(const struct tk_check *check, const struct tk_node *found, uint32_t id,
                       size_t latest, char why[TK_CHECK_WHY])
{
        time_t wanted = 0;

        for (size_t v = content_bound(check, id); v <= latest; v++) {
                const struct tk_node *node = tk_disk_node(&check->work->versions[v].plain, id);

                wanted = node ? node->mtime.tv_sec : 0;
                if (wanted == 0 || wanted >= TK_DISK_NOW || wanted == found->mtime.tv_sec)
                        return 0;
        }
        return wrong(why, "file %u has mtime %lld, not %lld", id, (long long)found->mtime.tv_sec,
                     (long long)wanted);
}

/* The attributes of a file in the version's tree. */
static int check_attributes(const struct tk_node *found, const struct tk_node *node, uint32_t id,
                            char why[TK_CHECK_WHY])
{
        if (found->mode != node->mode)
                return wrong(why, "node %u has mode %o, not %o", id, found->mode, node->mode);
        if (S_ISLNK(node->mode) && strcmp(found->target, node->target) != 0)
                return wrong(why, "symlink %u leads elsewhere", id);
        if (found->xattr_count != node->xattr_count)
                return wrong(why, "node %u has %zu attributes, not %zu", id, found->xattr_count,
                             node->xattr_count);
        for (size_t i = 0; i < node->xattr_count; i++)
                if (found->xattrs[i].len != node->xattrs[i].len ||
                    memcmp(found->xattrs[i].value, node->xattrs[i].value, node->xattrs[i].len) != 0)
                        return wrong(why, "node %u has another attribute", id);
        return 0;
}

/*
 * Compare a directory with the version's. 0; 1 if names or attributes differ, so that
 * another version may fit; -1 if content is wrong.
 */
static int check_dir(const struct tk_check *check, const struct tk_disk *found, uint32_t found_dir,
                     const struct tk_disk *plain, uint32_t dir, size_t latest,
                     char why[TK_CHECK_WHY])
{
        const struct tk_node *a = tk_disk_node(found, found_dir);
        const struct tk_node *b = tk_disk_node(plain, dir);
        int r = 0;

        if (a->entry_count != b->entry_count) {
                wrong(why, "directory %u has %zu entries, not %zu", dir, a->entry_count,
                      b->entry_count);
                return 1;
        }
        for (size_t i = 0; r == 0 && i < b->entry_count; i++) {
                uint32_t id = b->entries[i].node;
                uint32_t found_id = tk_disk_lookup(found, found_dir, b->entries[i].name);
                const struct tk_node *node = tk_disk_node(plain, id);

                if (!found_id) {
                        wrong(why, "'%s' is missing", b->entries[i].name);
                        return 1;
                }
                if (check_attributes(tk_disk_node(found, found_id), node, id, why) < 0)
                        return 1;
                if (S_ISDIR(node->mode))
                        r = check_dir(check, found, found_id, plain, id, latest, why);
                else if (S_ISREG(node->mode)) {
                        r = check_content(check, tk_disk_node(found, found_id), id, latest, why);
                        if (r == 0)
                                r = check_mtime(check, tk_disk_node(found, found_id), id, latest,
                                                why);
                }
        }
        return r;
}

static int check_tree(const struct tk_check *check, const struct tk_disk *found,
                      char why[TK_CHECK_WHY])
{
        struct bounds bounds = bounds_at(check);
        char first[TK_CHECK_WHY] = "";
        int worst = 1;

        for (size_t v = bounds.latest + 1; v-- > bounds.names;) {
                int r = check_dir(check, found, TK_DISK_ROOT, &check->work->versions[v].plain,
                                  TK_DISK_ROOT, bounds.latest, why);

                if (r == 0)
                        return 0;
                if (!first[0] || (r < 0 && worst > 0))
                        memcpy(first, why, sizeof(first));
                worst = r < worst ? r : worst;
        }
        return wrong(why, "%s (names of versions %zu to %zu are allowed)", first, bounds.names,
                     bounds.latest);
}

/* Verify, removal, going on ------------------------------------------------------------------ */

static void note_finding(void *context, const struct tk_verify_finding *finding)
{
        static const char *const kinds[] = {"bad block", "no usable record", "a record lost",
                                            "unreadable"};

        wrong(context, "verify: '%s' at %llu: %s (%s)", finding->path,
              (unsigned long long)finding->offset, kinds[finding->kind], strerror(-finding->error));
}

static int verify(struct tk_stand *stand, char why[TK_CHECK_WHY])
{
        struct tk_verify_callbacks callbacks = {.finding = note_finding, .context = why};
        struct tk_verify_totals totals;
        struct tk_fault fault = {0};

        if (tk_verify_run(stand->fs, &callbacks, &totals, &fault) < 0)
                return wrong(why, "verify: %s", fault.text);
        return totals.findings > 0 ? -1 : 0;
}

static int remove_all(struct tk_stand *stand, struct tk_inode *dir, char why[TK_CHECK_WHY])
{
        struct names names;
        int r;

        r = list(stand, dir, &names);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                struct tk_entry entry;

                r = tk_op_lookup(stand->fs, dir, names.names[i], &entry);
                if (r == 0 && S_ISDIR(entry.st.st_mode))
                        r = remove_all(stand, entry.inode, why);
                if (r == 0)
                        tk_work_forget(stand, entry.inode);
                if (r == 0)
                        r = tk_op_unlink(stand->fs, dir, names.names[i], S_ISDIR(entry.st.st_mode));
                if (r < 0)
                        wrong(why, "'%s' can't be removed: %s", names.names[i], strerror(-r));
        }
        names_done(&names);
        return r < 0 ? -1 : 0;
}

static int remove_everything(struct tk_stand *stand, char why[TK_CHECK_WHY])
{
        struct names names;
        size_t left;

        wrong(why, "a directory can't be listed");
        if (remove_all(stand, stand->root, why) < 0)
                return -1;
        if (list(stand, stand->root, &names) < 0)
                return wrong(why, "the root can't be listed any more");
        left = names.count;
        names_done(&names);
        return left > 0 ? wrong(why, "%zu names are left after removal", left) : 0;
}

/* What a mount that goes on writes: the same block everywhere. */
static int write_on(struct tk_stand *stand, const struct tk_disk *plain, const char *path,
                    const struct tk_node *node, char why[TK_CHECK_WHY])
{
        struct tk_openfile *file;
        struct tk_inode *inode;
        uint8_t block[TK_DISK_PAGE];
        int r;

        (void)plain;
        r = tk_work_lookup(stand, path, &inode);
        if (r < 0)
                return wrong(why, "'%s' can't be found to write to: %s", path, strerror(-r));
        r = tk_op_open(stand->fs, inode, O_RDWR, &file);
        if (r == 0) {
                memset(block, 0x5a, sizeof(block));
                r = tk_content_write(stand->fs, file, 0, block, sizeof(block));
                memset(block, 0x5b, sizeof(block));
                if (r == 0)
                        r = tk_content_write(stand->fs, file, node->size, block, 100);
                if (r == 0)
                        r = tk_op_fsync(stand->fs, file, false);
                tk_op_release(stand->fs, file, O_RDWR);
        }
        tk_work_forget(stand, inode);
        return r < 0 ? wrong(why, "'%s' can't be written to: %s", path, strerror(-r)) : 0;
}

static int go_on_in(struct tk_stand *stand, const struct tk_disk *plain, uint32_t dir,
                    const char *path, char why[TK_CHECK_WHY])
{
        const struct tk_node *node = tk_disk_node(plain, dir);
        int r = 0;

        for (size_t i = 0; r == 0 && i < node->entry_count; i++) {
                const struct tk_node *child = tk_disk_node(plain, node->entries[i].node);
                char below[1024];

                if (snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "/" : "",
                             node->entries[i].name) >= (int)sizeof(below))
                        continue;
                if (S_ISDIR(child->mode))
                        r = go_on_in(stand, plain, child->id, below, why);
                else if (S_ISREG(child->mode))
                        r = write_on(stand, plain, below, child, why);
        }
        return r;
}

/* The whole of it ------------------------------------------------------------------------------ */

int tk_check_live(const struct tk_check *check, struct tk_stand *stand, char why[TK_CHECK_WHY])
{
        struct tk_disk plain;
        int r;

        r = read_tree(stand, &plain, why);
        if (r >= 0)
                r = check_tree(check, &plain, why);
        tk_disk_done(&plain);
        return r;
}

static int check_mounted(const struct tk_check *check, struct tk_stand *stand,
                         char why[TK_CHECK_WHY])
{
        struct tk_disk plain;
        int r;

        r = read_tree(stand, &plain, why);
        if (r >= 0 && check->work)
                r = check_tree(check, &plain, why);
        if (r >= 0 && check->judge)
                r = check->judge(&plain, check->at, check->context, why);
        if (r >= 0)
                r = verify(stand, why);
        if (r == 0 && check->go_on) {
                r = go_on_in(stand, &plain, TK_DISK_ROOT, "", why);
                if (r == 0 && tk_stand_down(stand, why) < 0)
                        r = -1;
                if (r == 0 && tk_stand_up(stand, why) < 0)
                        r = -1;
                if (r == 0)
                        r = verify(stand, why);
        }
        tk_disk_done(&plain);
        return r == 0 ? remove_everything(stand, why) : r;
}

static int closing_count(char why[TK_CHECK_WHY], int r)
{
        struct tk_disk disk;
        unsigned left = tk_calls_stop(&disk);

        tk_disk_done(&disk);
        if (r == 0 && left > 0)
                return wrong(why, "%u descriptors were left open", left);
        /* This thread's scratch stays, with the key in it (chance.c). */
        if (r == 0 && tk_secret_alive() > 1)
                return wrong(why, "%zu secrets were left in memory", tk_secret_alive());
        return r;
}

int tk_check_disk(const struct tk_check *check, struct tk_disk *disk, char why[TK_CHECK_WHY])
{
        struct tk_stand stand;
        int r;

        tk_calls_start(disk);
        if (tk_stand_up(&stand, why) < 0)
                return closing_count(why, -1);
        r = check_mounted(check, &stand, why);
        if (r == 0 && tk_stand_down(&stand, why) < 0)
                r = -1;
        if (r < 0)
                tk_stand_drop(&stand);
        return closing_count(why, r);
}

int tk_check_mount(const struct tk_disk *disk, struct tk_recording *ret_recording,
                   char why[TK_CHECK_WHY])
{
        struct tk_stand stand;
        struct tk_disk copy;

        memset(ret_recording, 0, sizeof(*ret_recording));
        tk_disk_clone(disk, &copy);
        tk_calls_start(&copy);
        tk_calls.recording = ret_recording;
        if (tk_stand_up(&stand, why) < 0)
                return closing_count(why, -1);
        tk_calls.recording = NULL;
        tk_stand_drop(&stand);
        return closing_count(why, 0);
}
