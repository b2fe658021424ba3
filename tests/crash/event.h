/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What a recording is made of: the calls that change a backing directory, the
 * flushes, and marks of what was acknowledged, in the order in which they happened.
 *
 * Files are known by numbers of the recording's own (nodes), which are never used
 * twice; inode numbers may be.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tk_event_type {
        TK_EVENT_MAKE, /* node: a new file, directory, symlink (data: target) or device */
        TK_EVENT_LINK,
        TK_EVENT_UNLINK, /* or rmdir */
        TK_EVENT_RENAME,
        TK_EVENT_SETXATTR, /* name, data */
        TK_EVENT_REMOVEXATTR,
        TK_EVENT_CHMOD,
        TK_EVENT_CHOWN,
        TK_EVENT_MTIME,
        TK_EVENT_TRUNCATE,
        TK_EVENT_FALLOCATE,
        TK_EVENT_WRITE,
        TK_EVENT_SYNC_BEGIN,  /* a flush was asked for */
        TK_EVENT_SYNC_END,    /* it came back without an error; off: the index of its begin */
        TK_EVENT_SYNC_FAILED, /* what was written before it may be lost, whatever later flushes say
                               */
        TK_EVENT_MARK,        /* data: whatever the workload says */
        TK_EVENT_TYPES,
};

/* Kinds of flush, in `mode` of the two sync events. */
enum tk_event_sync { TK_SYNC_DATA, TK_SYNC_FILE, TK_SYNC_ALL };

enum { TK_EVENT_HANDLE_MAX = 32 };

struct tk_event {
        uint8_t type; /* of tk_event_type */
        bool grows;   /* a write: it took space or moved the end of the file */
        uint32_t node;
        uint32_t parent;  /* the directory of `name` */
        uint32_t parent2; /* of `name2` */
        uint32_t victim;  /* a rename: what it replaced or was exchanged with; 0: nothing */
        uint32_t mode;    /* of a file, of fallocate, flags of rename, kind of sync, uid */
        uint64_t off;     /* also: size, gid, seconds */
        uint64_t len;     /* also: nanoseconds, device */
        uint64_t ino;
        uint8_t handle_len;
        uint8_t handle[TK_EVENT_HANDLE_MAX]; /* of a new file, as name_to_handle_at(2) gives it */
        int32_t handle_type;
        char *name;
        char *name2;
        uint8_t *data;
        size_t data_len;
};

/* A recording. Event 0 is the first; a prefix of length k holds events 0 to k - 1. */
struct tk_recording {
        struct tk_event *events;
        size_t count;
        size_t max;
};

/* Append a copy of @event: names and data are duplicated. */
void tk_recording_add(struct tk_recording *recording, const struct tk_event *event);
void tk_recording_done(struct tk_recording *recording);

/* Whether the event changes names or attributes, or the layout of a file: metadata, which is
 * ordered. */
bool tk_event_is_meta(const struct tk_event *event);

/* Whether the event concerns @node: fsync of it makes the event durable. */
bool tk_event_touches(const struct tk_event *event, uint32_t node);

/* One line for people. */
void tk_event_print(size_t index, const struct tk_event *event);

/*
 * A recording in a file, as a recording daemon leaves it (live.c): as it is; tk_judge_prepare
 * makes it fit for states. 0 or a negative errno.
 */
int tk_recording_load(const char *path, struct tk_recording *recording);

/* The bytes of one event for such a file; *@ret_bytes is malloc'd. */
size_t tk_event_encode(const struct tk_event *event, uint8_t **ret_bytes);
