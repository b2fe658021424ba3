/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Crash states.
 *
 * A prefix of the recording is kept as an image of what is durable and a list of events
 * that are not, or that follow such a one in the same file. A state is a copy of the
 * image with a part of the list carried out. What of a page's data is there is a cut:
 * the writes to it before an index of the recording; a torn page has several.
 */

#include "states.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512, SECTORS = TK_DISK_PAGE / SECTOR };

uint64_t tk_mix(uint64_t seed, uint64_t a, uint64_t b)
{
        uint64_t z = seed + 0x9e3779b97f4a7c15ULL * (a + 1) + 0xd1342543de82ef95ULL * (b + 1);

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        return z ^ z >> 31;
}

void tk_states_init(struct tk_states *states, const struct tk_recording *recording,
                    const struct tk_disk *start)
{
        memset(states, 0, sizeof(*states));
        states->recording = recording;
        tk_disk_clone(start, &states->base);
}

void tk_states_done(struct tk_states *states)
{
        tk_disk_done(&states->base);
        free(states->pending);
        memset(states, 0, sizeof(*states));
}

static const struct tk_event *event_of(const struct tk_states *states, size_t i)
{
        return &states->recording->events[states->pending[i].index];
}

/* What is durable ------------------------------------------------------------------- */

/* Whether fdatasync of the event's file can't do without it. */
static bool is_layout(const struct tk_event *event)
{
        return event->type == TK_EVENT_MAKE || event->grows;
}

static void sync_all(struct tk_states *states, size_t begin)
{
        for (size_t i = 0; i < states->pending_count; i++)
                if (states->pending[i].index < begin && !states->pending[i].lost)
                        states->pending[i].durable = true;
        states->meta_floor = begin;
}

static void sync_node(struct tk_states *states, size_t begin, const struct tk_event *sync)
{
        for (size_t i = 0; i < states->pending_count; i++) {
                struct tk_pending *pending = &states->pending[i];
                const struct tk_event *event = event_of(states, i);

                if (pending->index >= begin || !tk_event_touches(event, sync->node))
                        continue;
                if (event->type == TK_EVENT_WRITE && !pending->lost)
                        pending->durable = true;
                if ((sync->mode == TK_SYNC_FILE || is_layout(event) || event->node != sync->node) &&
                    pending->index >= states->meta_floor)
                        states->meta_floor = pending->index + 1;
        }
}

static void lose(struct tk_states *states, const struct tk_event *sync)
{
        for (size_t i = 0; i < states->pending_count; i++)
                if (event_of(states, i)->node == sync->node && !states->pending[i].durable)
                        states->pending[i].lost = true;
}

/*
 * @blocked, by node: content that is not durable, which nothing later in the same file
 * may overtake.
 */
static bool can_fold(const struct tk_states *states, size_t i, const uint8_t *blocked)
{
        const struct tk_event *event = event_of(states, i);

        if (event->type == TK_EVENT_WRITE)
                return states->pending[i].durable && !blocked[event->node];
        if (states->pending[i].index >= states->meta_floor)
                return false;
        if (event->type == TK_EVENT_TRUNCATE || event->type == TK_EVENT_FALLOCATE)
                return !blocked[event->node];
        return true;
}

/* Move into the image what is durable. */
static void fold(struct tk_states *states)
{
        size_t kept = 0;
        size_t nodes = 0;
        uint8_t *blocked;

        for (size_t i = 0; i < states->pending_count; i++)
                if (event_of(states, i)->node >= nodes)
                        nodes = event_of(states, i)->node + 1;
        blocked = calloc(nodes + 1, 1);
        assert(blocked);
        for (size_t i = 0; i < states->pending_count; i++) {
                const struct tk_event *event = event_of(states, i);

                if (can_fold(states, i, blocked)) {
                        tk_disk_apply(&states->base, event, false);
                        continue;
                }
                if (event->type == TK_EVENT_WRITE || event->type == TK_EVENT_TRUNCATE ||
                    event->type == TK_EVENT_FALLOCATE)
                        blocked[event->node] = 1;
                states->pending[kept++] = states->pending[i];
        }
        states->pending_count = kept;
        free(blocked);
}

bool tk_states_advance(struct tk_states *states)
{
        const struct tk_event *event;

        if (states->at == states->recording->count)
                return false;
        event = &states->recording->events[states->at++];
        if (event->type == TK_EVENT_SYNC_END) {
                if (event->mode == TK_SYNC_ALL)
                        sync_all(states, event->off);
                else
                        sync_node(states, event->off, event);
                fold(states);
        } else if (event->type == TK_EVENT_SYNC_FAILED) {
                lose(states, event);
        } else if (event->type < TK_EVENT_SYNC_BEGIN) {
                if (states->pending_count == states->pending_max) {
                        states->pending_max = states->pending_max ? states->pending_max * 2 : 64;
                        states->pending = realloc(states->pending,
                                                  states->pending_max * sizeof(*states->pending));
                        assert(states->pending);
                }
                states->pending[states->pending_count++] =
                        (struct tk_pending){.index = states->at - 1};
        }
        return true;
}

/* States ------------------------------------------------------------------------------ */

enum { UNCUT_MAX = 64 };

/* A state in the making. */
struct maker {
        const struct tk_states *states;
        const struct tk_choice *choice;
        struct tk_disk *disk;
        size_t meta_end; /* metadata before this index is there */
        size_t last;     /* the last write's index */
        unsigned none;   /* of 100 pages, these have nothing that is not durable, */
        unsigned all;    /* and these have everything */
        unsigned torn;   /* of 100 pages */
        struct {
                uint32_t nodes[UNCUT_MAX]; /* cut to nothing, but that is not there */
                unsigned count;
        } uncut;
};

/* Pages in the order in which they first come up, to give them bits. */
struct page_id {
        uint32_t node;
        uint64_t page;
};

static void add_page(struct page_id *pages, unsigned *count, uint32_t node, uint64_t page)
{
        for (unsigned i = 0; i < *count; i++)
                if (pages[i].node == node && pages[i].page == page)
                        return;
        pages[(*count)++] = (struct page_id){node, page};
}

enum { SUBSET_MAX = 64 };

static unsigned collect_pages(const struct tk_states *states, struct page_id *pages, unsigned max)
{
        unsigned count = 0;

        for (size_t i = 0; i < states->pending_count && count < max; i++) {
                const struct tk_event *event = event_of(states, i);

                if (event->type != TK_EVENT_WRITE || states->pending[i].durable)
                        continue;
                for (uint64_t page = event->off / TK_DISK_PAGE;
                     page <= (event->off + event->len - 1) / TK_DISK_PAGE && count < max; page++)
                        add_page(pages, &count, event->node, page);
        }
        return count;
}

unsigned tk_states_loose_pages(const struct tk_states *states, unsigned max)
{
        struct page_id pages[SUBSET_MAX];

        return collect_pages(states, pages, max < SUBSET_MAX ? max : SUBSET_MAX);
}

/* A cut drawn for a page or a part of it. */
static size_t draw_cut(const struct maker *maker, uint64_t key)
{
        const struct tk_states *states = maker->states;
        uint64_t r = tk_mix(maker->choice->seed, key, 1);
        size_t first = states->pending_count > 0 ? states->pending[0].index : states->at;

        if (r % 100 < maker->none)
                return 0;
        if (r % 100 < maker->none + maker->all)
                return states->at;
        return first + (size_t)(r >> 16) % (states->at - first + 1);
}

static size_t page_cut(const struct maker *maker, uint32_t node, uint64_t page)
{
        struct page_id pages[SUBSET_MAX];
        unsigned count;

        switch (maker->choice->how) {
        case TK_CHOICE_NONE:
        case TK_CHOICE_META:
                return 0;
        case TK_CHOICE_SUBSET:
                count = collect_pages(maker->states, pages, SUBSET_MAX);
                for (unsigned i = 0; i < count; i++)
                        if (pages[i].node == node && pages[i].page == page)
                                return maker->choice->seed >> i & 1 ? maker->states->at : 0;
                return maker->states->at;
        case TK_CHOICE_RANDOM:
                return draw_cut(maker, (uint64_t)node << 40 ^ page);
        default:
                return maker->states->at;
        }
}

/* The sectors of a torn page that are of the new write: a first part, a last part or any. */
static bool tear_takes(uint64_t r, uint64_t sector)
{
        unsigned part = 1 + (unsigned)(r >> 8) % (SECTORS - 1);

        if (r % 4 == 0)
                return sector < part;
        if (r % 4 == 1)
                return sector >= part;
        if (r % 4 == 2)
                return sector != part;
        return r >> (16 + sector) & 1;
}

/* Whether the sector at @off of the write with @index is on the disk; the page's cut is @cut. */
static bool has_sector(const struct maker *maker, uint32_t node, uint64_t off, size_t index,
                       size_t cut)
{
        const struct tk_choice *choice = maker->choice;
        uint64_t page = off / TK_DISK_PAGE;
        uint64_t sector = off % TK_DISK_PAGE / SECTOR;

        if (choice->how == TK_CHOICE_TEAR && index == maker->last)
                return tear_takes(tk_mix(choice->seed, page, 7), sector);
        if (choice->how == TK_CHOICE_RANDOM) {
                uint64_t key = (uint64_t)node << 40 ^ page;
                uint64_t r = tk_mix(choice->seed, key, 2);

                if (r % 100 < maker->torn && tear_takes(r >> 7, sector))
                        cut = draw_cut(maker, key ^ 1ULL << 39);
        }
        return index < cut;
}

/* Whether the page of a write that needs space, or moves the file's end, may have got it. */
static bool may_grow(const struct maker *maker, const struct tk_event *event, size_t index,
                     bool has_page, size_t cut)
{
        size_t end = maker->meta_end;

        if (maker->choice->ext4)
                return index < end && (has_page || index < cut);
        if (maker->choice->how == TK_CHOICE_RANDOM) {
                uint64_t r = tk_mix(maker->choice->seed, event->node, 3);
                size_t drawn = (size_t)(r >> 8) % (maker->states->at + 1);

                if (r % 2 == 0 && drawn < end)
                        end = drawn;
        }
        return index < end;
}

static void write_page(const struct maker *maker, const struct tk_event *event, size_t index,
                       uint64_t off, uint64_t len)
{
        const struct tk_node *node = tk_disk_node(maker->disk, event->node);
        uint64_t page = off / TK_DISK_PAGE;
        size_t cut = page_cut(maker, event->node, page);
        bool has_page = tk_disk_has_page(node, page);
        const uint8_t *data = event->data + (off - event->off);

        if (!has_page || off + len > node->size) {
                if (may_grow(maker, event, index, has_page, cut))
                        tk_disk_grow(maker->disk, event->node, page, off + len);
                else if (!has_page)
                        return;
                if (!has_page && maker->choice->ext4) {
                        tk_disk_write_part(maker->disk, event->node, off, data, len);
                        return;
                }
        }
        for (uint64_t done = 0; done < len;) {
                uint64_t n = SECTOR - (off + done) % SECTOR;

                if (n > len - done)
                        n = len - done;
                if (has_sector(maker, event->node, off + done, index, cut))
                        tk_disk_write_part(maker->disk, event->node, off + done, data + done, n);
                done += n;
        }
}

static void write_loose(const struct maker *maker, const struct tk_event *event, size_t index)
{
        uint64_t end = event->off + event->len;

        for (uint64_t off = event->off; off < end;) {
                uint64_t len = TK_DISK_PAGE - off % TK_DISK_PAGE;

                if (!tk_disk_node(maker->disk, event->node))
                        return;
                if (len > end - off)
                        len = end - off;
                write_page(maker, event, index, off, len);
                off += len;
        }
}

static size_t draw_meta_end(const struct tk_states *states, const struct tk_choice *choice)
{
        uint64_t r = tk_mix(choice->seed, 0, 4);
        size_t span = states->at - states->meta_floor;

        switch (choice->how) {
        case TK_CHOICE_NONE:
        case TK_CHOICE_DATA:
                return states->meta_floor;
        case TK_CHOICE_SUBSET:
                return choice->seed >> 63 ? states->meta_floor : states->at;
        case TK_CHOICE_RANDOM:
                if (r % 3 == 0)
                        return states->at;
                if (r % 3 == 1)
                        return states->meta_floor;
                return states->meta_floor + (size_t)(r >> 8) % (span + 1);
        default:
                return states->at;
        }
}

static bool is_uncut(const struct maker *maker, uint32_t node)
{
        for (unsigned i = 0; i < maker->uncut.count; i++)
                if (maker->uncut.nodes[i] == node)
                        return true;
        return false;
}

/* A change of metadata that is not there. What is written behind a cut that is not is nowhere. */
static void skip(struct maker *maker, const struct tk_event *event)
{
        if (event->type != TK_EVENT_TRUNCATE || event->off > 0 || is_uncut(maker, event->node))
                return;
        assert(maker->uncut.count < UNCUT_MAX);
        maker->uncut.nodes[maker->uncut.count++] = event->node;
}

void tk_states_make(const struct tk_states *states, const struct tk_choice *choice,
                    struct tk_disk *ret_disk)
{
        static const unsigned mixes[][3] = {{45, 45, 30}, {10, 80, 30}, {80, 10, 30}, {30, 30, 60}};
        uint64_t r = tk_mix(choice->seed, 0, 5);
        struct maker maker = {.states = states,
                              .choice = choice,
                              .disk = ret_disk,
                              .meta_end = draw_meta_end(states, choice),
                              .none = mixes[r % 4][0],
                              .all = mixes[r % 4][1],
                              .torn = mixes[r % 4][2],
                              .last = SIZE_MAX};

        for (size_t i = 0; i < states->pending_count; i++)
                if (event_of(states, i)->type == TK_EVENT_WRITE)
                        maker.last = states->pending[i].index;
        tk_disk_clone(&states->base, ret_disk);
        for (size_t i = 0; i < states->pending_count; i++) {
                const struct tk_event *event = event_of(states, i);
                size_t index = states->pending[i].index;

                if (event->type == TK_EVENT_WRITE && is_uncut(&maker, event->node))
                        continue;
                if (event->type == TK_EVENT_WRITE && !states->pending[i].durable)
                        write_loose(&maker, event, index);
                else if (event->type == TK_EVENT_WRITE || index < maker.meta_end)
                        tk_disk_apply(ret_disk, event, false);
                else
                        skip(&maker, event);
        }
}
