/* SPDX-License-Identifier: Apache-2.0 */

/* Events: kept in memory, written to files, shown. */

#include "event.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[TK_EVENT_TYPES] = {
        [TK_EVENT_MAKE] = "make",
        [TK_EVENT_LINK] = "link",
        [TK_EVENT_UNLINK] = "unlink",
        [TK_EVENT_RENAME] = "rename",
        [TK_EVENT_SETXATTR] = "setxattr",
        [TK_EVENT_REMOVEXATTR] = "removexattr",
        [TK_EVENT_CHMOD] = "chmod",
        [TK_EVENT_CHOWN] = "chown",
        [TK_EVENT_MTIME] = "mtime",
        [TK_EVENT_TRUNCATE] = "truncate",
        [TK_EVENT_FALLOCATE] = "fallocate",
        [TK_EVENT_WRITE] = "write",
        [TK_EVENT_SYNC_BEGIN] = "sync begins",
        [TK_EVENT_SYNC_END] = "sync done",
        [TK_EVENT_SYNC_FAILED] = "sync failed",
        [TK_EVENT_MARK] = "mark",
};

static char *dup_text(const char *text)
{
        char *copy = text ? strdup(text) : NULL;

        assert(copy || !text);
        return copy;
}

void tk_recording_add(struct tk_recording *recording, const struct tk_event *event)
{
        struct tk_event *copy;

        if (recording->count == recording->max) {
                recording->max = recording->max ? recording->max * 2 : 256;
                recording->events =
                        realloc(recording->events, recording->max * sizeof(struct tk_event));
                assert(recording->events);
        }
        copy = &recording->events[recording->count++];
        *copy = *event;
        copy->name = dup_text(event->name);
        copy->name2 = dup_text(event->name2);
        copy->data = NULL;
        if (event->data_len > 0) {
                copy->data = malloc(event->data_len);
                assert(copy->data);
                memcpy(copy->data, event->data, event->data_len);
        }
}

void tk_recording_done(struct tk_recording *recording)
{
        for (size_t i = 0; i < recording->count; i++) {
                free(recording->events[i].name);
                free(recording->events[i].name2);
                free(recording->events[i].data);
        }
        free(recording->events);
        memset(recording, 0, sizeof(*recording));
}

bool tk_event_is_meta(const struct tk_event *event)
{
        return event->type < TK_EVENT_WRITE;
}

bool tk_event_touches(const struct tk_event *event, uint32_t node)
{
        if (event->type >= TK_EVENT_SYNC_BEGIN)
                return false;
        return event->node == node || (event->parent && event->parent == node) ||
               (event->parent2 && event->parent2 == node) ||
               (event->victim && event->victim == node);
}

void tk_event_print(size_t index, const struct tk_event *event)
{
        printf("%6zu %-11s node %u", index, type_names[event->type], event->node);
        if (event->name)
                printf(" '%s' in %u", event->name, event->parent);
        if (event->name2)
                printf(" to '%s' in %u", event->name2, event->parent2);
        if (event->type >= TK_EVENT_MTIME && event->type <= TK_EVENT_WRITE)
                printf(" mode %u at %llu, %llu bytes%s", event->mode,
                       (unsigned long long)event->off, (unsigned long long)event->len,
                       event->grows ? ", grows" : "");
        if (event->type == TK_EVENT_SYNC_BEGIN || event->type == TK_EVENT_SYNC_END)
                printf(" %s", event->mode == TK_SYNC_DATA   ? "data"
                              : event->mode == TK_SYNC_FILE ? "file"
                                                            : "everything");
        if (event->type == TK_EVENT_MARK)
                printf(" %.*s", (int)event->data_len, (const char *)event->data);
        printf("\n");
}

/* Files ------------------------------------------------------------------------- */

/* The fixed part of an event in a file; names and data follow. Native byte order. */
struct head {
        uint32_t magic;
        uint8_t type;
        uint8_t grows;
        uint8_t handle_len;
        uint8_t unused;
        uint32_t node;
        uint32_t parent;
        uint32_t parent2;
        uint32_t victim;
        uint32_t mode;
        int32_t handle_type;
        uint64_t off;
        uint64_t len;
        uint64_t ino;
        uint32_t name_len;
        uint32_t name2_len;
        uint64_t data_len;
        uint8_t handle[TK_EVENT_HANDLE_MAX];
};

enum { MAGIC = 0x544b4556 };

size_t tk_event_encode(const struct tk_event *event, uint8_t **ret_bytes)
{
        struct head head = {
                .magic = MAGIC,
                .type = event->type,
                .grows = event->grows,
                .handle_len = event->handle_len,
                .node = event->node,
                .parent = event->parent,
                .parent2 = event->parent2,
                .victim = event->victim,
                .mode = event->mode,
                .handle_type = event->handle_type,
                .off = event->off,
                .len = event->len,
                .ino = event->ino,
                .name_len = event->name ? (uint32_t)strlen(event->name) : 0,
                .name2_len = event->name2 ? (uint32_t)strlen(event->name2) : 0,
                .data_len = event->data_len,
        };
        size_t len = sizeof(head) + head.name_len + head.name2_len + event->data_len;
        uint8_t *bytes = malloc(len);
        uint8_t *at = bytes;

        assert(bytes);
        memcpy(head.handle, event->handle, sizeof(head.handle));
        at = (uint8_t *)memcpy(at, &head, sizeof(head)) + sizeof(head);
        if (head.name_len > 0)
                at = (uint8_t *)memcpy(at, event->name, head.name_len) + head.name_len;
        if (head.name2_len > 0)
                at = (uint8_t *)memcpy(at, event->name2, head.name2_len) + head.name2_len;
        if (event->data_len > 0)
                memcpy(at, event->data, event->data_len);
        *ret_bytes = bytes;
        return len;
}

static int read_text(FILE *file, uint32_t len, char **ret_text)
{
        if (len == 0)
                return 0;
        *ret_text = calloc(1, (size_t)len + 1);
        assert(*ret_text);
        return fread(*ret_text, 1, len, file) == len ? 0 : -EBADMSG;
}

/* One event: 1, 0 at the end, or a negative errno. */
static int read_event(FILE *file, struct tk_event *event)
{
        struct head head;
        int r;

        memset(event, 0, sizeof(*event));
        if (fread(&head, sizeof(head), 1, file) != 1)
                return feof(file) ? 0 : -EIO;
        if (head.magic != MAGIC || head.type >= TK_EVENT_TYPES)
                return -EBADMSG;
        *event = (struct tk_event){.type = head.type,
                                   .grows = head.grows,
                                   .handle_len = head.handle_len,
                                   .node = head.node,
                                   .parent = head.parent,
                                   .parent2 = head.parent2,
                                   .victim = head.victim,
                                   .mode = head.mode,
                                   .handle_type = head.handle_type,
                                   .off = head.off,
                                   .len = head.len,
                                   .ino = head.ino,
                                   .data_len = head.data_len};
        memcpy(event->handle, head.handle, sizeof(head.handle));
        r = read_text(file, head.name_len, &event->name);
        if (r == 0)
                r = read_text(file, head.name2_len, &event->name2);
        if (r == 0 && head.data_len > 0) {
                event->data = malloc(head.data_len);
                assert(event->data);
                if (fread(event->data, 1, head.data_len, file) != head.data_len)
                        r = -EBADMSG;
        }
        return r < 0 ? r : 1;
}

int tk_recording_load(const char *path, struct tk_recording *recording)
{
        FILE *file = fopen(path, "re");
        struct tk_event event;
        int r;

        if (!file)
                return -errno;
        while ((r = read_event(file, &event)) > 0) {
                tk_recording_add(recording, &event);
                free(event.name);
                free(event.name2);
                free(event.data);
        }
        fclose(file);
        return r;
}
