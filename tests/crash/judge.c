/* SPDX-License-Identifier: Apache-2.0 */

/* Judging the states of recorded mounts by their marks. */

#include "judge.h"

#include "program.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A mark about a block. */
struct block_mark {
        size_t at;
        bool done;
        char file[64];
        uint64_t block;
        uint32_t tag;
};

struct tk_judge {
        struct block_mark *blocks;
        size_t block_count;
        struct {
                size_t at;
                int64_t rows;
        } * rows;
        size_t row_count;
        const char *program;
        char dir[64]; /* where databases are opened */
};

/* Preparation ------------------------------------------------------------------------- */

static bool grows(const struct tk_disk *disk, const struct tk_event *event)
{
        const struct tk_node *node = tk_disk_node(disk, event->node);

        if (!node)
                return false;
        for (uint64_t page = event->off / TK_DISK_PAGE;
             page <= (event->off + event->len - 1) / TK_DISK_PAGE; page++)
                if (!tk_disk_has_page(node, page))
                        return true;
        return event->off + event->len > node->size;
}

static size_t begin_of(const struct tk_recording *recording, size_t end)
{
        const struct tk_event *event = &recording->events[end];

        for (size_t i = end; i-- > 0;) {
                const struct tk_event *begin = &recording->events[i];

                if (begin->type == TK_EVENT_SYNC_BEGIN && begin->node == event->node &&
                    begin->len == event->len && begin->mode == event->mode)
                        return i;
        }
        return 0;
}

void tk_judge_prepare(struct tk_recording *recording)
{
        struct tk_disk disk;

        tk_disk_init(&disk);
        for (size_t i = 0; i < recording->count; i++) {
                struct tk_event *event = &recording->events[i];

                if (event->type == TK_EVENT_WRITE)
                        event->grows = grows(&disk, event);
                if (event->type == TK_EVENT_SYNC_END)
                        event->off = begin_of(recording, i);
                if (event->type < TK_EVENT_SYNC_BEGIN)
                        tk_disk_apply(&disk, event, true);
        }
        tk_disk_done(&disk);
}

size_t tk_judge_start(const struct tk_recording *recording)
{
        for (size_t i = 0; i < recording->count; i++) {
                const struct tk_event *event = &recording->events[i];

                if (event->type == TK_EVENT_MARK && event->data_len == 2 &&
                    memcmp(event->data, "go", 2) == 0)
                        return i;
        }
        return recording->count;
}

static void read_block_mark(struct tk_judge *judge, size_t at, bool done, char *words)
{
        struct block_mark mark = {.at = at, .done = done};
        char *save = NULL;
        const char *file = strtok_r(words, " ", &save);
        const char *block = strtok_r(NULL, " ", &save);
        const char *tag = strtok_r(NULL, " ", &save);

        assert(file && block && tag);
        snprintf(mark.file, sizeof(mark.file), "%s", file);
        mark.block = strtoull(block, NULL, 10);
        mark.tag = (uint32_t)strtoul(tag, NULL, 10);
        judge->blocks = realloc(judge->blocks, (judge->block_count + 1) * sizeof(*judge->blocks));
        judge->blocks[judge->block_count++] = mark;
}

static void read_mark(struct tk_judge *judge, size_t at, char *text)
{
        if (strncmp(text, "begin ", 6) == 0) {
                read_block_mark(judge, at, false, text + 6);
        } else if (strncmp(text, "done ", 5) == 0) {
                read_block_mark(judge, at, true, text + 5);
        } else if (strncmp(text, "rows ", 5) == 0) {
                judge->rows = realloc(judge->rows, (judge->row_count + 1) * sizeof(*judge->rows));
                judge->rows[judge->row_count].at = at;
                judge->rows[judge->row_count++].rows = strtoll(text + 5, NULL, 10);
        }
}

struct tk_judge *tk_judge_new(const struct tk_recording *recording, const char *program)
{
        struct tk_judge *judge = calloc(1, sizeof(*judge));

        judge->program = program;
        for (size_t i = 0; i < recording->count; i++) {
                const struct tk_event *event = &recording->events[i];
                char text[256];

                if (event->type != TK_EVENT_MARK)
                        continue;
                snprintf(text, sizeof(text), "%.*s", (int)event->data_len,
                         (const char *)event->data);
                read_mark(judge, i, text);
        }
        snprintf(judge->dir, sizeof(judge->dir), "/dev/shm/tk_crash-%d", (int)getpid());
        return judge;
}

struct tk_judge *tk_judge_free(struct tk_judge *judge)
{
        free(judge->blocks);
        free(judge->rows);
        free(judge);
        return NULL;
}

/* Blocks -------------------------------------------------------------------------------- */

/* The tag of a whole block; -1: it is a mix, or another's. */
static int64_t tag_of(const uint8_t *data, uint64_t block)
{
        uint64_t word;

        for (size_t i = 0; i < TK_DISK_PAGE; i += sizeof(word)) {
                if (memcmp(data, data + i, sizeof(word)) != 0)
                        return -1;
        }
        memcpy(&word, data, sizeof(word));
        if (word == 0)
                return 0;
        return (word & UINT32_MAX) == block ? (int64_t)(word >> 32) : -1;
}

/* Whether @tag may be what the block of @mark holds at @at; 0 stands for zeros. */
static bool may_hold(const struct tk_judge *judge, const struct block_mark *mark, size_t at,
                     int64_t tag)
{
        int64_t durable = 0;
        bool found = false;

        for (size_t i = 0; i < judge->block_count && judge->blocks[i].at < at; i++) {
                const struct block_mark *other = &judge->blocks[i];

                if (other->block != mark->block || strcmp(other->file, mark->file) != 0)
                        continue;
                if (other->done) {
                        durable = other->tag;
                        found = other->tag == tag;
                } else if (other->tag == tag) {
                        found = true;
                }
        }
        return found || tag == durable;
}

static int judge_blocks(const struct tk_judge *judge, const struct tk_disk *plain, size_t at,
                        char why[TK_CHECK_WHY])
{
        for (size_t i = 0; i < judge->block_count && judge->blocks[i].at < at; i++) {
                const struct block_mark *mark = &judge->blocks[i];
                uint32_t id = tk_disk_lookup(plain, TK_DISK_ROOT, mark->file);
                uint8_t data[TK_DISK_PAGE] = {0};
                int64_t tag;

                if (id)
                        tk_disk_read(tk_disk_node(plain, id), mark->block * TK_DISK_PAGE, data,
                                     sizeof(data));
                tag = tag_of(data, mark->block);
                if (tag < 0 || !may_hold(judge, mark, at, tag)) {
                        snprintf(why, TK_CHECK_WHY, "'%s', block %" PRIu64 " holds %" PRId64,
                                 mark->file, mark->block, tag);
                        return -1;
                }
        }
        return 0;
}

/* SQLite ---------------------------------------------------------------------------------- */

static int copy_out(const struct tk_disk *plain, const char *dir, const char *name)
{
        uint32_t id = tk_disk_lookup(plain, TK_DISK_ROOT, name);
        const struct tk_node *node = id ? tk_disk_node(plain, id) : NULL;
        uint8_t *data;
        char path[128];
        ssize_t n = 0;
        int fd;

        snprintf(path, sizeof(path), "%s/%s", dir, name);
        (void)unlink(path);
        if (!node)
                return 0;
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        data = malloc(node->size + 1);
        (void)tk_disk_read(node, 0, data, node->size);
        if (fd >= 0)
                n = write(fd, data, node->size);
        free(data);
        if (fd < 0 || close(fd) < 0 || n != (ssize_t)node->size)
                return -1;
        return 0;
}

/* One number that the database answers with; -1 if it does not. "ok" is 1. */
static int64_t ask(sqlite3 *db, const char *question)
{
        sqlite3_stmt *statement = NULL;
        int64_t answer = -1;

        if (sqlite3_prepare_v2(db, question, -1, &statement, NULL) == SQLITE_OK &&
            sqlite3_step(statement) == SQLITE_ROW)
                answer = strcmp((const char *)sqlite3_column_text(statement, 0), "ok") == 0
                                 ? 1
                                 : sqlite3_column_int64(statement, 0);
        sqlite3_finalize(statement);
        return answer;
}

static int64_t committed_at(const struct tk_judge *judge, size_t at)
{
        int64_t rows = 0;

        for (size_t i = 0; i < judge->row_count && judge->rows[i].at < at; i++)
                rows = judge->rows[i].rows;
        return rows;
}

static int judge_rows(const struct tk_judge *judge, const struct tk_disk *plain, size_t at,
                      char why[TK_CHECK_WHY])
{
        static const char *const files[] = {"db", "db-journal", "db-wal", "db-shm"};
        int64_t committed = committed_at(judge, at);
        int64_t rows = -1;
        bool sound = false;
        sqlite3 *db = NULL;
        char path[128];

        if (mkdir(judge->dir, 0700) < 0 && errno != EEXIST)
                return -1;
        /* What is in shared memory does not survive a crash. */
        for (size_t i = 0; i < 3; i++)
                if (copy_out(plain, judge->dir, files[i]) < 0)
                        return -1;
        snprintf(path, sizeof(path), "%s/db", judge->dir);
        if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) ==
            SQLITE_OK) {
                sound = ask(db, "PRAGMA integrity_check") == 1;
                rows = ask(db, "SELECT count(*) FROM t WHERE length(x) > 100");
        }
        sqlite3_close(db);
        for (size_t i = 0; i < 4; i++) {
                snprintf(path, sizeof(path), "%s/%s", judge->dir, files[i]);
                (void)unlink(path);
        }
        (void)rmdir(judge->dir);
        if (sound && (rows >= committed || committed == 0))
                return 0;
        snprintf(why, TK_CHECK_WHY, "the database is %s, with %" PRId64 " rows of %" PRId64,
                 sound ? "sound" : "damaged", rows, committed);
        return -1;
}

int tk_judge_state(const struct tk_disk *plain, size_t at, void *context, char why[TK_CHECK_WHY])
{
        const struct tk_judge *judge = context;

        if (judge_blocks(judge, plain, at, why) < 0)
                return -1;
        if (judge->program)
                return tk_program_judge(plain, judge->program, committed_at(judge, at), why);
        return judge->row_count > 0 ? judge_rows(judge, plain, at, why) : 0;
}
