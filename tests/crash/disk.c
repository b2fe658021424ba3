/* SPDX-License-Identifier: Apache-2.0 */

/* The disk: images of a filesystem that share what they have in common. */

#include "disk.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

static void *must(void *memory)
{
        if (!memory)
                abort();
        return memory;
}

/* Pages ------------------------------------------------------------------------- */

static struct tk_page zero_page = {.refs = 1};

static struct tk_page *page_ref(struct tk_page *page)
{
        if (page)
                page->refs++;
        return page;
}

static void page_unref(struct tk_page *page)
{
        if (page && --page->refs == 0)
                free(page);
}

/* The page, ours alone. */
static struct tk_page *page_own(struct tk_page **slot)
{
        struct tk_page *page = *slot;

        page->hash = 0;
        if (page->refs == 1)
                return page;
        *slot = must(malloc(sizeof(**slot)));
        memcpy((*slot)->data, page->data, TK_DISK_PAGE);
        (*slot)->refs = 1;
        (*slot)->hash = 0;
        page_unref(page);
        return *slot;
}

/* Nodes ------------------------------------------------------------------------- */

static void node_free(struct tk_node *node)
{
        for (size_t i = 0; i < node->page_count; i++)
                page_unref(node->pages[i]);
        for (size_t i = 0; i < node->xattr_count; i++) {
                free(node->xattrs[i].name);
                free(node->xattrs[i].value);
        }
        for (size_t i = 0; i < node->entry_count; i++)
                free(node->entries[i].name);
        free(node->pages);
        free(node->xattrs);
        free(node->entries);
        free(node->target);
        free(node);
}

static void node_unref(struct tk_node *node)
{
        if (node && --node->refs == 0)
                node_free(node);
}

static void *copy_array(const void *from, size_t len)
{
        void *copy = must(malloc(len + 1));

        return len > 0 ? memcpy(copy, from, len) : copy;
}

static struct tk_node *node_copy(const struct tk_node *from)
{
        struct tk_node *node = must(malloc(sizeof(*node)));

        *node = *from;
        node->refs = 1;
        node->pages = must(calloc(from->page_count + 1, sizeof(struct tk_page *)));
        for (size_t i = 0; i < from->page_count; i++)
                node->pages[i] = page_ref(from->pages[i]);
        node->xattrs = copy_array(from->xattrs, from->xattr_count * sizeof(*node->xattrs));
        for (size_t i = 0; i < from->xattr_count; i++) {
                node->xattrs[i].name = must(strdup(from->xattrs[i].name));
                node->xattrs[i].value = copy_array(from->xattrs[i].value, from->xattrs[i].len);
        }
        node->entries = copy_array(from->entries, from->entry_count * sizeof(*node->entries));
        for (size_t i = 0; i < from->entry_count; i++)
                node->entries[i].name = must(strdup(from->entries[i].name));
        node->target = from->target ? must(strdup(from->target)) : NULL;
        return node;
}

const struct tk_node *tk_disk_node(const struct tk_disk *disk, uint32_t id)
{
        return id < disk->count ? disk->nodes[id] : NULL;
}

/* The node, this image's alone; NULL if there is none. */
static struct tk_node *node_own(struct tk_disk *disk, uint32_t id)
{
        struct tk_node *node = id < disk->count ? disk->nodes[id] : NULL;

        if (!node || node->refs == 1)
                return node;
        disk->nodes[id] = node_copy(node);
        node->refs--;
        return disk->nodes[id];
}

void tk_disk_drop(struct tk_disk *disk, uint32_t id)
{
        struct tk_node *node = disk->nodes[id];

        for (size_t i = 0; i < node->page_count; i++)
                disk->pages_used -= node->pages[i] != NULL;
        node_unref(node);
        disk->nodes[id] = NULL;
}

static struct tk_node *node_new(struct tk_disk *disk, uint32_t id)
{
        if (id >= disk->count) {
                size_t count = id + 16;

                disk->nodes = must(realloc(disk->nodes, count * sizeof(struct tk_node *)));
                memset(disk->nodes + disk->count, 0,
                       (count - disk->count) * sizeof(struct tk_node *));
                disk->count = count;
        }
        assert(!disk->nodes[id]);
        disk->nodes[id] = must(calloc(1, sizeof(struct tk_node)));
        disk->nodes[id]->refs = 1;
        disk->nodes[id]->id = id;
        return disk->nodes[id];
}

/* Images ------------------------------------------------------------------------ */

void tk_disk_init(struct tk_disk *disk)
{
        struct tk_node *root;

        memset(disk, 0, sizeof(*disk));
        root = node_new(disk, TK_DISK_ROOT);
        root->mode = S_IFDIR | 0755;
        root->nlink = 2;
        root->ino = 2;
}

void tk_disk_clone(const struct tk_disk *from, struct tk_disk *disk)
{
        *disk = *from;
        disk->nodes = must(malloc(from->count * sizeof(struct tk_node *)));
        memcpy(disk->nodes, from->nodes, from->count * sizeof(struct tk_node *));
        for (size_t i = 0; i < disk->count; i++)
                if (disk->nodes[i])
                        disk->nodes[i]->refs++;
}

void tk_disk_done(struct tk_disk *disk)
{
        for (size_t i = 0; i < disk->count; i++)
                node_unref(disk->nodes[i]);
        free(disk->nodes);
        memset(disk, 0, sizeof(*disk));
}

/* FNV-1a over 8 bytes at a time, with a final mix. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t len)
{
        const uint8_t *at = bytes;
        uint64_t word;

        for (; len >= sizeof(word); len -= sizeof(word), at += sizeof(word)) {
                memcpy(&word, at, sizeof(word));
                hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
                hash ^= hash >> 29;
        }
        for (; len > 0; len--)
                hash = (hash ^ *at++) * 0x100000001b3ULL;
        return hash ^ hash >> 32;
}

static uint64_t hash_node(uint64_t hash, const struct tk_node *node)
{
        uint64_t fields[] = {node->id,
                             node->mode,
                             node->uid,
                             node->gid,
                             node->nlink,
                             node->size,
                             (uint64_t)node->mtime.tv_sec};

        hash = mix(hash, fields, sizeof(fields));
        for (size_t i = 0; i < node->page_count; i++) {
                if (!node->pages[i] || node->pages[i] == &zero_page)
                        continue;
                if (node->pages[i]->hash == 0)
                        node->pages[i]->hash = mix(1, node->pages[i]->data, TK_DISK_PAGE);
                hash = mix(hash, &i, sizeof(i));
                hash = mix(hash, &node->pages[i]->hash, sizeof(uint64_t));
        }
        for (size_t i = 0; i < node->xattr_count; i++)
                hash = mix(hash, node->xattrs[i].value, node->xattrs[i].len);
        for (size_t i = 0; i < node->entry_count; i++) {
                hash = mix(hash, node->entries[i].name, strlen(node->entries[i].name));
                hash = mix(hash, &node->entries[i].node, sizeof(uint32_t));
        }
        return hash;
}

uint64_t tk_disk_hash(const struct tk_disk *disk)
{
        uint64_t hash = 0xcbf29ce484222325ULL;

        for (size_t i = 0; i < disk->count; i++)
                if (disk->nodes[i])
                        hash = hash_node(hash, disk->nodes[i]);
        return hash;
}

/* Directories ------------------------------------------------------------------- */

static struct tk_dirent *find_entry(const struct tk_node *dir, const char *name)
{
        for (size_t i = 0; dir && i < dir->entry_count; i++)
                if (strcmp(dir->entries[i].name, name) == 0)
                        return &dir->entries[i];
        return NULL;
}

uint32_t tk_disk_lookup(const struct tk_disk *disk, uint32_t dir, const char *name)
{
        const struct tk_dirent *entry = find_entry(tk_disk_node(disk, dir), name);

        return entry ? entry->node : 0;
}

static void add_entry(struct tk_disk *disk, uint32_t dir_id, const char *name, uint32_t id)
{
        struct tk_node *dir = node_own(disk, dir_id);

        assert(dir);
        dir->entries = must(realloc(dir->entries, (dir->entry_count + 1) * sizeof(*dir->entries)));
        dir->entries[dir->entry_count++] =
                (struct tk_dirent){.name = must(strdup(name)), .node = id};
}

static void remove_entry(struct tk_disk *disk, uint32_t dir_id, const char *name)
{
        struct tk_node *dir = node_own(disk, dir_id);
        struct tk_dirent *entry = find_entry(dir, name);

        assert(entry);
        free(entry->name);
        *entry = dir->entries[--dir->entry_count];
}

static void drop_link(struct tk_disk *disk, uint32_t id, bool keep_nameless)
{
        struct tk_node *node = node_own(disk, id);

        if (!node)
                return;
        node->nlink = S_ISDIR(node->mode) ? 0 : node->nlink - 1;
        if (node->nlink == 0 && !keep_nameless)
                tk_disk_drop(disk, id);
}

static void make(struct tk_disk *disk, const struct tk_event *event)
{
        struct tk_node *node = node_new(disk, event->node);

        node->mode = event->mode;
        node->nlink = S_ISDIR(node->mode) ? 2 : 1;
        node->ino = event->ino;
        node->handle_len = event->handle_len;
        node->handle_type = event->handle_type;
        memcpy(node->handle, event->handle, sizeof(node->handle));
        node->rdev = event->len;
        node->uid = (uid_t)(event->off >> 32);
        node->gid = (gid_t)event->off;
        if (S_ISLNK(node->mode)) {
                node->target = must(strndup((const char *)event->data, event->data_len));
                node->size = event->data_len;
        }
        add_entry(disk, event->parent, event->name, event->node);
}

static void rename_entry(struct tk_disk *disk, const struct tk_event *event, bool keep_nameless)
{
        if (event->mode & RENAME_EXCHANGE) {
                find_entry(node_own(disk, event->parent), event->name)->node = event->victim;
                find_entry(node_own(disk, event->parent2), event->name2)->node = event->node;
                return;
        }
        if (event->victim) {
                remove_entry(disk, event->parent2, event->name2);
                drop_link(disk, event->victim, keep_nameless);
        }
        remove_entry(disk, event->parent, event->name);
        add_entry(disk, event->parent2, event->name2, event->node);
}

/* Attributes -------------------------------------------------------------------- */

static void remove_xattr(struct tk_node *node, const char *name)
{
        for (size_t i = 0; i < node->xattr_count; i++) {
                /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): it is a copy's */
                if (strcmp(node->xattrs[i].name, name) != 0)
                        continue;
                free(node->xattrs[i].name);
                free(node->xattrs[i].value);
                node->xattrs[i] = node->xattrs[--node->xattr_count];
                return;
        }
}

static void set_xattr(struct tk_node *node, const struct tk_event *event)
{
        struct tk_xattr *xattr;

        remove_xattr(node, event->name);
        node->xattrs = must(realloc(node->xattrs, (node->xattr_count + 1) * sizeof(*node->xattrs)));
        xattr = &node->xattrs[node->xattr_count++];
        xattr->name = must(strdup(event->name));
        xattr->len = event->data_len;
        xattr->value = must(malloc(event->data_len + 1));
        if (event->data_len > 0)
                memcpy(xattr->value, event->data, event->data_len);
}

static void chown_node(struct tk_node *node, const struct tk_event *event)
{
        if ((uid_t)event->mode != (uid_t)-1)
                node->uid = (uid_t)event->mode;
        if ((gid_t)event->off != (gid_t)-1)
                node->gid = (gid_t)event->off;
}

/* Content ----------------------------------------------------------------------- */

bool tk_disk_has_page(const struct tk_node *node, uint64_t page)
{
        return page < node->page_count && node->pages[page];
}

size_t tk_disk_read(const struct tk_node *node, uint64_t off, void *buf, size_t len)
{
        uint8_t *to = buf;
        size_t done = 0;

        if (off >= node->size)
                return 0;
        if (len > node->size - off)
                len = node->size - off;
        while (done < len) {
                uint64_t page = (off + done) / TK_DISK_PAGE;
                size_t in_page = (off + done) % TK_DISK_PAGE;
                size_t n =
                        len - done < TK_DISK_PAGE - in_page ? len - done : TK_DISK_PAGE - in_page;

                if (tk_disk_has_page(node, page))
                        memcpy(to + done, node->pages[page]->data + in_page, n);
                else
                        memset(to + done, 0, n);
                done += n;
        }
        return len;
}

static void reserve_pages(struct tk_node *node, uint64_t count)
{
        if (count <= node->page_count)
                return;
        node->pages = must(realloc(node->pages, count * sizeof(struct tk_page *)));
        memset(node->pages + node->page_count, 0,
               (count - node->page_count) * sizeof(struct tk_page *));
        node->page_count = count;
}

static void allocate(struct tk_disk *disk, struct tk_node *node, uint64_t page)
{
        reserve_pages(node, page + 1);
        if (node->pages[page])
                return;
        node->pages[page] = page_ref(&zero_page);
        disk->pages_used++;
}

static void release(struct tk_disk *disk, struct tk_node *node, uint64_t page)
{
        if (!tk_disk_has_page(node, page))
                return;
        page_unref(node->pages[page]);
        node->pages[page] = NULL;
        disk->pages_used--;
}

static void zero(struct tk_node *node, uint64_t from, uint64_t to)
{
        while (from < to) {
                uint64_t page = from / TK_DISK_PAGE;
                size_t in_page = from % TK_DISK_PAGE;
                uint64_t n =
                        to - from < TK_DISK_PAGE - in_page ? to - from : TK_DISK_PAGE - in_page;

                if (tk_disk_has_page(node, page) && node->pages[page] != &zero_page)
                        memset(page_own(&node->pages[page])->data + in_page, 0, n);
                from += n;
        }
}

static void truncate_node(struct tk_disk *disk, struct tk_node *node, uint64_t size)
{
        uint64_t keep = (size + TK_DISK_PAGE - 1) / TK_DISK_PAGE;

        if (size < node->size)
                zero(node, size, keep * TK_DISK_PAGE);
        for (uint64_t page = keep; page < node->page_count; page++)
                release(disk, node, page);
        if (node->page_count > keep)
                node->page_count = keep;
        node->size = size;
}

static void fallocate_node(struct tk_disk *disk, struct tk_node *node, const struct tk_event *event)
{
        uint64_t end = event->off + event->len;
        uint64_t first = event->off / TK_DISK_PAGE;
        uint64_t last = (end + TK_DISK_PAGE - 1) / TK_DISK_PAGE; /* behind it */

        if (event->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
                zero(node, event->off, end);
                for (uint64_t page = (event->off + TK_DISK_PAGE - 1) / TK_DISK_PAGE;
                     page < end / TK_DISK_PAGE; page++)
                        release(disk, node, page);
        }
        if (event->mode & FALLOC_FL_PUNCH_HOLE)
                return;
        for (uint64_t page = first; page < last; page++)
                allocate(disk, node, page);
        if (!(event->mode & FALLOC_FL_KEEP_SIZE) && end > node->size)
                node->size = end;
}

void tk_disk_write_part(struct tk_disk *disk, uint32_t id, uint64_t off, const uint8_t *data,
                        size_t len)
{
        struct tk_node *node = node_own(disk, id);

        if (off >= node->size)
                return;
        if (len > node->size - off)
                len = node->size - off;
        memcpy(page_own(&node->pages[off / TK_DISK_PAGE])->data + off % TK_DISK_PAGE, data, len);
}

void tk_disk_grow(struct tk_disk *disk, uint32_t id, uint64_t page, uint64_t size)
{
        struct tk_node *node = node_own(disk, id);

        allocate(disk, node, page);
        if (size > node->size)
                node->size = size;
}

static void write_node(struct tk_disk *disk, const struct tk_event *event)
{
        for (uint64_t at = event->off; at < event->off + event->len;) {
                uint64_t n = TK_DISK_PAGE - at % TK_DISK_PAGE;

                if (n > event->off + event->len - at)
                        n = event->off + event->len - at;
                tk_disk_grow(disk, event->node, at / TK_DISK_PAGE, at + n);
                tk_disk_write_part(disk, event->node, at, event->data + (at - event->off), n);
                at += n;
        }
}

void tk_disk_apply(struct tk_disk *disk, const struct tk_event *event, bool keep_nameless)
{
        struct tk_node *node;

        switch (event->type) {
        case TK_EVENT_MAKE:
                make(disk, event);
                return;
        case TK_EVENT_LINK:
                node_own(disk, event->node)->nlink++;
                add_entry(disk, event->parent, event->name, event->node);
                return;
        case TK_EVENT_UNLINK:
                remove_entry(disk, event->parent, event->name);
                drop_link(disk, event->node, keep_nameless);
                return;
        case TK_EVENT_RENAME:
                rename_entry(disk, event, keep_nameless);
                return;
        default:
                break;
        }
        /* What happens to a nameless file does not matter after a crash. */
        node = node_own(disk, event->node);
        if (!node)
                return;
        if (event->type == TK_EVENT_SETXATTR)
                set_xattr(node, event);
        else if (event->type == TK_EVENT_REMOVEXATTR)
                remove_xattr(node, event->name);
        else if (event->type == TK_EVENT_CHMOD)
                node->mode = (node->mode & S_IFMT) | (event->mode & 07777);
        else if (event->type == TK_EVENT_CHOWN)
                chown_node(node, event);
        else if (event->type == TK_EVENT_MTIME)
                node->mtime = (struct timespec){(time_t)event->off, (long)event->len};
        else if (event->type == TK_EVENT_TRUNCATE)
                truncate_node(disk, node, event->off);
        else if (event->type == TK_EVENT_FALLOCATE)
                fallocate_node(disk, node, event);
        else if (event->type == TK_EVENT_WRITE)
                write_node(disk, event);
}
