/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The escrow's file.
 *
 * A path is written as the bytes that it shares with the path before it, by their
 * number, and the others. All bytes go through one buffer and one hash on both ways.
 */

#include "fs/escrow_file.h"

#include "base/bytes.h"
#include "base/fdio.h"
#include "crypto/mac.h"
#include "fs/treewalk.h"
#include "fs/volume_text.h"
#include <errno.h>
#include <string.h>

static const char magic[] = "turnkeyfs escrow 1\n"
                            "Key records, each still wrapped: no secret in the clear.\n";

enum {
        MAGIC_LEN = sizeof(magic) - 1,
        MAGIC_COMMON = 17, /* as far as all versions begin */
        HEAD_LEN = 31,     /* of an entry, before its path */
        END_LEN = 21,      /* of the end, before the volume file */
        PATH_LIMIT = 16 * 1024 * 1024,
        BUFFER_LEN = 256 * 1024,
};

enum kind { KIND_END, KIND_FILE, KIND_DIRECTORY };

/* A path that grows as needed. */
struct path {
        char *text;
        size_t len;
        size_t max;
};

static int path_reserve(struct path *path, size_t len)
{
        char *text;

        if (len < path->max)
                return 0;
        text = realloc(path->text, len * 2 + 256);
        if (!text)
                return -ENOMEM;
        path->text = text;
        path->max = len * 2 + 256;
        return 0;
}

/* The reader ------------------------------------------------------------- */

struct tk_escrow_reader {
        int fd;
        uint64_t off; /* of what follows the buffer */
        struct tk_sha256 *hash;
        uint8_t *buffer;
        size_t at;
        size_t len;
        uint8_t id[TK_VOLUME_ID_LEN];
        int64_t created;
        struct path path;
        bool started; /* an entry has been read */
        bool ended;
        struct tk_escrow_entry entry;
        uint64_t files;
        uint64_t directories;
        char *volume_file;
};

/* Exactly @len bytes; -EBADMSG at the end of the file. */
static int take_unhashed(struct tk_escrow_reader *reader, void *bytes, size_t len)
{
        uint8_t *to = bytes;

        while (len > 0) {
                size_t part = reader->len - reader->at;

                if (part == 0) {
                        ssize_t n = tk_fdio_pread(reader->fd, reader->buffer, BUFFER_LEN,
                                                  (off_t)reader->off);

                        if (n <= 0)
                                return n < 0 ? (int)n : -EBADMSG;
                        reader->off += (uint64_t)n;
                        reader->at = 0;
                        reader->len = (size_t)n;
                        continue;
                }
                part = part < len ? part : len;
                memcpy(to, reader->buffer + reader->at, part);
                reader->at += part;
                to += part;
                len -= part;
        }
        return 0;
}

static int take(struct tk_escrow_reader *reader, void *bytes, size_t len)
{
        int r = take_unhashed(reader, bytes, len);

        return r < 0 ? r : tk_sha256_add(reader->hash, bytes, len);
}

static int read_start(struct tk_escrow_reader *reader)
{
        char text[MAGIC_LEN];
        uint8_t head[TK_VOLUME_ID_LEN + 8];
        int r;

        r = take(reader, text, MAGIC_LEN);
        if (r == -EBADMSG)
                return -EINVAL;
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(text, magic, MAGIC_COMMON))
                return -EINVAL;
        if (!tk_bytes_equal_ct(text, magic, MAGIC_LEN))
                return text[MAGIC_COMMON] != '1' ? -ENOTSUP : -EBADMSG;
        r = take(reader, head, sizeof(head));
        if (r < 0)
                return r;
        memcpy(reader->id, head, TK_VOLUME_ID_LEN);
        reader->created = (int64_t)tk_get_be64(head + TK_VOLUME_ID_LEN);
        return 0;
}

int tk_escrow_reader_new(int fd, struct tk_escrow_reader **ret_reader)
{
        TK_CLEANUP(tk_escrow_reader_freep) struct tk_escrow_reader *reader = NULL;
        int r;

        reader = calloc(1, sizeof(*reader));
        if (!reader) {
                close(fd);
                return -ENOMEM;
        }
        reader->fd = fd;
        reader->buffer = malloc(BUFFER_LEN);
        if (!reader->buffer)
                return -ENOMEM;
        r = path_reserve(&reader->path, 0);
        if (r < 0)
                return r;
        r = tk_sha256_new(&reader->hash);
        if (r < 0)
                return r;
        r = read_start(reader);
        if (r < 0)
                return r;
        *ret_reader = TK_TAKE(reader);
        return 0;
}

struct tk_escrow_reader *tk_escrow_reader_free(struct tk_escrow_reader *reader)
{
        if (!reader)
                return NULL;
        tk_sha256_free(reader->hash);
        free(reader->buffer);
        free(reader->path.text);
        free(reader->volume_file);
        close(reader->fd);
        free(reader);
        return NULL;
}

/* The path that shares @kept bytes with the one before, and has @more others. */
static int read_path(struct tk_escrow_reader *reader, uint32_t kept, uint32_t more)
{
        TK_CLEANUP(tk_freep) char *before = NULL;
        struct path *path = &reader->path;
        int r;

        if (kept > path->len || more > PATH_LIMIT || kept + more > PATH_LIMIT)
                return -EBADMSG;
        r = path_reserve(path, (size_t)kept + more);
        if (r < 0)
                return r;
        /* The rest of the path before, to compare with. */
        before = strndup(path->text + kept, path->len - kept);
        if (!before)
                return -ENOMEM;
        r = take(reader, path->text + kept, more);
        if (r < 0)
                return r;
        path->len = (size_t)kept + more;
        path->text[path->len] = '\0';
        if (strlen(path->text + kept) != more)
                return -EBADMSG;
        if (reader->started && tk_treewalk_compare(before, path->text + kept) >= 0)
                return -EBADMSG;
        if (before[0] && before[0] == path->text[kept])
                return -EBADMSG; /* they share more: an escrow has one form */
        reader->started = true;
        return 0;
}

/* No way out of the tree, and none twice through a directory. */
static bool path_is_sound(const char *path)
{
        while (*path) {
                size_t len = strcspn(path, "/");

                if (len == 0 || (len == 1 && path[0] == '.') ||
                    (len == 2 && path[0] == '.' && path[1] == '.'))
                        return false;
                path += len;
                if (*path == '/' && !*++path)
                        return false;
        }
        return true;
}

static int read_entry(struct tk_escrow_reader *reader, uint8_t kind)
{
        struct tk_escrow_entry *entry = &reader->entry;
        uint8_t head[HEAD_LEN - 1];
        int r;

        r = take(reader, head, sizeof(head));
        if (r < 0)
                return r;
        entry->directory = kind == KIND_DIRECTORY;
        entry->inode = tk_get_be64(head + 8);
        entry->ctime_s = (int64_t)tk_get_be64(head + 16);
        entry->ctime_ns = tk_get_be32(head + 24);
        entry->record_len = tk_get_be16(head + 28);
        if (entry->record_len == 0 || entry->record_len > TK_RECORD_MAX)
                return -EBADMSG;
        r = read_path(reader, tk_get_be32(head), tk_get_be32(head + 4));
        if (r < 0)
                return r;
        entry->path = reader->path.text;
        if (!path_is_sound(entry->path))
                return -EBADMSG;
        memset(&entry->record, 0, sizeof(entry->record));
        r = take(reader, entry->record.bytes, entry->record_len);
        if (r < 0)
                return r;
        *(entry->directory ? &reader->directories : &reader->files) += 1;
        return 0;
}

/* The digest, and nothing behind it. */
static int check_digest(struct tk_escrow_reader *reader)
{
        uint8_t wanted[TK_MAC_LEN];
        uint8_t found[TK_MAC_LEN];
        int r;

        r = tk_sha256_end(reader->hash, wanted);
        if (r < 0)
                return r;
        r = take_unhashed(reader, found, sizeof(found));
        if (r < 0)
                return r;
        if (!tk_bytes_equal_ct(wanted, found, sizeof(found)))
                return -EBADMSG;
        r = take_unhashed(reader, found, 1);
        return r == -EBADMSG ? 0 : r < 0 ? r : -EBADMSG;
}

static int read_end(struct tk_escrow_reader *reader)
{
        uint8_t head[END_LEN - 1];
        uint32_t len;
        int r;

        r = take(reader, head, sizeof(head));
        if (r < 0)
                return r;
        len = tk_get_be32(head + 16);
        if (tk_get_be64(head) != reader->files || tk_get_be64(head + 8) != reader->directories ||
            len > TK_VOLUME_TEXT_MAX)
                return -EBADMSG;
        free(reader->volume_file);
        reader->volume_file = malloc((size_t)len + 1);
        if (!reader->volume_file)
                return -ENOMEM;
        r = take(reader, reader->volume_file, len);
        reader->volume_file[len] = '\0';
        if (r < 0)
                return r;
        if (strlen(reader->volume_file) != len)
                return -EBADMSG;
        r = check_digest(reader);
        reader->ended = r == 0;
        return r;
}

int tk_escrow_reader_next(struct tk_escrow_reader *reader, const struct tk_escrow_entry **ret_entry)
{
        uint8_t kind;
        int r;

        if (reader->ended)
                return 0;
        r = take(reader, &kind, 1);
        if (r < 0)
                return r;
        if (kind == KIND_END)
                return read_end(reader);
        if (kind != KIND_FILE && kind != KIND_DIRECTORY)
                return -EBADMSG;
        r = read_entry(reader, kind);
        if (r < 0)
                return r;
        *ret_entry = &reader->entry;
        return 1;
}

int tk_escrow_reader_rewind(struct tk_escrow_reader *reader)
{
        uint8_t unused[TK_MAC_LEN];
        int r;

        reader->off = 0;
        reader->at = 0;
        reader->len = 0;
        reader->path.len = 0;
        reader->started = false;
        reader->ended = false;
        reader->files = 0;
        reader->directories = 0;
        r = tk_sha256_end(reader->hash, unused);
        return r < 0 ? r : read_start(reader);
}

const uint8_t *tk_escrow_reader_id(const struct tk_escrow_reader *reader)
{
        return reader->id;
}

int64_t tk_escrow_reader_created(const struct tk_escrow_reader *reader)
{
        return reader->created;
}

const char *tk_escrow_reader_volume_file(const struct tk_escrow_reader *reader)
{
        return reader->volume_file;
}

/* The writer ------------------------------------------------------------- */

struct tk_escrow_writer {
        int fd; /* borrowed */
        uint64_t off;
        struct tk_sha256 *hash;
        uint8_t *buffer;
        size_t len;
        struct path path; /* of the entry before */
        uint64_t files;
        uint64_t directories;
};

static int flush(struct tk_escrow_writer *writer)
{
        int r = tk_fdio_pwrite(writer->fd, writer->buffer, writer->len, (off_t)writer->off);

        if (r < 0)
                return r;
        writer->off += writer->len;
        writer->len = 0;
        return 0;
}

static int put_unhashed(struct tk_escrow_writer *writer, const void *bytes, size_t len)
{
        const uint8_t *from = bytes;
        int r = 0;

        while (r == 0 && len > 0) {
                size_t part = BUFFER_LEN - writer->len;

                part = part < len ? part : len;
                memcpy(writer->buffer + writer->len, from, part);
                writer->len += part;
                from += part;
                len -= part;
                if (writer->len == BUFFER_LEN)
                        r = flush(writer);
        }
        return r;
}

static int put(struct tk_escrow_writer *writer, const void *bytes, size_t len)
{
        int r = tk_sha256_add(writer->hash, bytes, len);

        return r < 0 ? r : put_unhashed(writer, bytes, len);
}

int tk_escrow_writer_new(int fd, const uint8_t id[TK_VOLUME_ID_LEN], int64_t created,
                         struct tk_escrow_writer **ret_writer)
{
        TK_CLEANUP(tk_escrow_writer_freep) struct tk_escrow_writer *writer = NULL;
        uint8_t head[TK_VOLUME_ID_LEN + 8];
        int r;

        writer = calloc(1, sizeof(*writer));
        if (!writer)
                return -ENOMEM;
        writer->fd = fd;
        writer->buffer = malloc(BUFFER_LEN);
        if (!writer->buffer)
                return -ENOMEM;
        r = tk_sha256_new(&writer->hash);
        if (r < 0)
                return r;
        memcpy(head, id, TK_VOLUME_ID_LEN);
        tk_put_be64(head + TK_VOLUME_ID_LEN, (uint64_t)created);
        r = put(writer, magic, MAGIC_LEN);
        if (r == 0)
                r = put(writer, head, sizeof(head));
        if (r < 0)
                return r;
        *ret_writer = TK_TAKE(writer);
        return 0;
}

struct tk_escrow_writer *tk_escrow_writer_free(struct tk_escrow_writer *writer)
{
        if (!writer)
                return NULL;
        tk_sha256_free(writer->hash);
        free(writer->buffer);
        free(writer->path.text);
        free(writer);
        return NULL;
}

int tk_escrow_writer_add(struct tk_escrow_writer *writer, const struct tk_escrow_entry *entry)
{
        size_t len = strlen(entry->path);
        struct path *before = &writer->path;
        uint8_t head[HEAD_LEN];
        size_t kept = 0;
        int r;

        if (len > PATH_LIMIT)
                return -ENAMETOOLONG;
        while (kept < len && kept < before->len && before->text[kept] == entry->path[kept])
                kept++;
        r = path_reserve(before, len);
        if (r < 0)
                return r;
        memcpy(before->text + kept, entry->path + kept, len - kept + 1);
        before->len = len;

        head[0] = entry->directory ? KIND_DIRECTORY : KIND_FILE;
        tk_put_be32(head + 1, (uint32_t)kept);
        tk_put_be32(head + 5, (uint32_t)(len - kept));
        tk_put_be64(head + 9, entry->inode);
        tk_put_be64(head + 17, (uint64_t)entry->ctime_s);
        tk_put_be32(head + 25, entry->ctime_ns);
        tk_put_be16(head + 29, entry->record_len);
        r = put(writer, head, sizeof(head));
        if (r == 0)
                r = put(writer, entry->path + kept, len - kept);
        if (r == 0)
                r = put(writer, entry->record.bytes, entry->record_len);
        *(entry->directory ? &writer->directories : &writer->files) += 1;
        return r;
}

int tk_escrow_writer_end(struct tk_escrow_writer *writer, const char *volume_file)
{
        uint8_t head[END_LEN] = {KIND_END};
        uint8_t digest[TK_MAC_LEN];
        size_t len = strlen(volume_file);
        int r;

        tk_put_be64(head + 1, writer->files);
        tk_put_be64(head + 9, writer->directories);
        tk_put_be32(head + 17, (uint32_t)len);
        r = put(writer, head, sizeof(head));
        if (r == 0)
                r = put(writer, volume_file, len);
        if (r == 0)
                r = tk_sha256_end(writer->hash, digest);
        if (r == 0)
                r = put_unhashed(writer, digest, sizeof(digest));
        return r < 0 ? r : flush(writer);
}
