/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A disk with a filesystem on it, in memory: what the simulator works on.
 *
 * Images are cheap to copy: nodes and pages are shared and copied when they are
 * changed. Running out of memory ends the program. One thread at a time.
 */

#include "event.h"
#include <sys/types.h>
#include <time.h>

enum { TK_DISK_PAGE = 4096, TK_DISK_ROOT = 1 };

/* Seconds since the epoch: when everything begins. Applications are given times before it. */
#define TK_DISK_NOW 1700000000

struct tk_page {
        unsigned refs;
        uint64_t hash; /* of data; 0: not known */
        uint8_t data[TK_DISK_PAGE];
};

struct tk_xattr {
        char *name;
        uint8_t *value;
        size_t len;
};

struct tk_dirent {
        char *name;
        uint32_t node;
};

struct tk_node {
        unsigned refs; /* images that share it */
        uint32_t id;
        uint64_t ino;
        int32_t handle_type;
        uint8_t handle_len;
        uint8_t handle[TK_EVENT_HANDLE_MAX];
        mode_t mode;
        uid_t uid;
        gid_t gid;
        unsigned nlink;
        uint64_t rdev;
        uint64_t size;
        struct timespec mtime;
        struct tk_page **pages; /* NULL entries are holes */
        size_t page_count;
        struct tk_xattr *xattrs;
        size_t xattr_count;
        struct tk_dirent *entries; /* of a directory */
        size_t entry_count;
        char *target; /* of a symlink */
};

struct tk_disk {
        struct tk_node **nodes; /* by id; NULL: gone or not yet made */
        size_t count;
        size_t pages_used; /* of regular files */
};

/* An empty filesystem: a root directory. */
void tk_disk_init(struct tk_disk *disk);
void tk_disk_clone(const struct tk_disk *from, struct tk_disk *disk);
void tk_disk_done(struct tk_disk *disk);

/* NULL if there is none. */
const struct tk_node *tk_disk_node(const struct tk_disk *disk, uint32_t id);

/* The node of @name in directory @dir; 0 if there is none. */
uint32_t tk_disk_lookup(const struct tk_disk *disk, uint32_t dir, const char *name);
bool tk_disk_has_page(const struct tk_node *node, uint64_t page);

/* Up to @len bytes from @off, as read(2). */
size_t tk_disk_read(const struct tk_node *node, uint64_t off, void *buf, size_t len);

/* Carry out an event that is known to be possible. Nodes without a name go, unless `keep_nameless`.
 */
void tk_disk_apply(struct tk_disk *disk, const struct tk_event *event, bool keep_nameless);

/* A nameless node that was kept. */
void tk_disk_drop(struct tk_disk *disk, uint32_t id);

/*
 * Parts of a write, for crash states. @from to @to, within one page; `may_grow`: the page may be
 * allocated. Bytes behind the end of the file are dropped.
 */
void tk_disk_write_part(struct tk_disk *disk, uint32_t node, uint64_t off, const uint8_t *data,
                        size_t len);
void tk_disk_grow(struct tk_disk *disk, uint32_t node, uint64_t page, uint64_t size);

/* A number that tells images apart: of all that a mount could see. */
uint64_t tk_disk_hash(const struct tk_disk *disk);
