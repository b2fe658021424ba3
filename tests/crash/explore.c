/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Exploring the states of a recording.
 *
 * At each length of the recording the same list of choices is gone through: the extremes,
 * torn last writes, all subsets where there are few, then random ones, until the number
 * that was asked for is reached. A state's name is PREFIX.HOW.MODEL.SEED, a second crash's
 * is appended to it.
 */

#include "explore.h"

#include "calls.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUBSET_PAGES = 4, SEEN_MAX = 1 << 20, PRINT_MAX = 20, AGAIN_POINTS = 6, AGAIN_CHOICES = 5 };

static unsigned printed; /* violations of this process; more are only counted */

/* The states that were checked, by a hash of disk and place; cleared when full. */
static uint64_t *seen;
static size_t seen_count;
static uint64_t seen_run; /* the same disk may be wrong after another recording */

static bool is_new(uint64_t key)
{
        size_t at;

        if (!seen || seen_count > SEEN_MAX / 2) {
                free(seen);
                seen = calloc(SEEN_MAX, sizeof(*seen));
                seen_count = 0;
        }
        key = tk_mix(key, seen_run, 16) | 1;
        at = key % SEEN_MAX;
        while (seen[at] && seen[at] != key)
                at = (at + 1) % SEEN_MAX;
        if (seen[at])
                return false;
        seen[at] = key;
        seen_count++;
        return true;
}

/* Choice number @n at a prefix with @loose pages that are not durable. */
static struct tk_choice choice_at(uint64_t seed, unsigned n, unsigned loose)
{
        static const struct tk_choice first[] = {
                {.how = TK_CHOICE_ALL},  {.how = TK_CHOICE_NONE}, {.how = TK_CHOICE_TEAR},
                {.how = TK_CHOICE_META}, {.how = TK_CHOICE_DATA}, {.how = TK_CHOICE_TEAR},
                {.how = TK_CHOICE_TEAR},
        };
        unsigned count = sizeof(first) / sizeof(first[0]);
        unsigned subsets = loose <= SUBSET_PAGES ? 2U << loose : 0;
        struct tk_choice choice = {.how = TK_CHOICE_RANDOM};

        if (n < count) {
                choice = first[n];
                choice.seed = tk_mix(seed, n, 11);
        } else if (n - count < subsets) {
                unsigned bits = n - count;

                choice.how = TK_CHOICE_SUBSET;
                choice.seed = bits >> 1 | (uint64_t)(bits & 1) << 63;
        } else {
                choice.seed = tk_mix(seed, n, 12);
                choice.ext4 = n % 2;
        }
        return choice;
}

static void name_choice(const struct tk_choice *choice, size_t at, char *text, size_t max)
{
        snprintf(text, max, "%zu.%d.%d.%" PRIx64, at, (int)choice->how, choice->ext4, choice->seed);
}

static void violation(struct tk_explore *explore, const char *state, const char *why)
{
        explore->violations++;
        if (!explore->first[0])
                snprintf(explore->first, sizeof(explore->first), "%.90s: %.500s", state, why);
        if (!explore->quiet && printed++ < PRINT_MAX)
                printf("VIOLATION %s --seed %" PRIu64 " --state %s: %s\n", explore->name,
                       explore->seed, state, why);
        fflush(stdout);
}

static bool enough(const struct tk_explore *explore)
{
        return explore->stop_after > 0 && explore->violations >= explore->stop_after;
}

/* The random bytes of a check depend on its state only: so it can be had again. */
static void seed_state(const struct tk_choice *choice, size_t at)
{
        tk_calls_seed(tk_mix(choice->seed, at, choice->how));
}

/* Choice @n at a point of a mount that is crashed. */
static void crash_again_at(struct tk_explore *explore, const struct tk_check *check,
                           const struct tk_states *states, unsigned n, const char *state)
{
        struct tk_choice choice =
                choice_at(tk_mix(explore->seed, states->at, 13), n < 3 ? n : n + 40, 99);
        char why[TK_CHECK_WHY] = "";
        struct tk_disk disk;
        char name[160];
        char tail[80];

        tk_states_make(states, &choice, &disk);
        if (!is_new(tk_mix(tk_disk_hash(&disk), check->at, 14))) {
                tk_disk_done(&disk);
                return;
        }
        explore->states++;
        explore->again++;
        name_choice(&choice, states->at, tail, sizeof(tail));
        snprintf(name, sizeof(name), "%s/%s", state, tail);
        seed_state(&choice, states->at);
        if (tk_check_disk(check, &disk, why) < 0)
                violation(explore, name, why);
}

/* Crash once more, while @disk is mounted. */
static void crash_again(struct tk_explore *explore, const struct tk_check *check,
                        const struct tk_disk *disk, uint64_t hash, const char *state)
{
        struct tk_recording recording;
        char why[TK_CHECK_WHY] = "";
        struct tk_states states;

        if (tk_check_mount(disk, &recording, why) < 0) {
                violation(explore, state, why);
                tk_recording_done(&recording);
                return;
        }
        tk_states_init(&states, &recording, disk);
        /* A long replay is tried at some of its points only. */
        while (tk_states_advance(&states) && !enough(explore)) {
                if (tk_mix(explore->seed ^ hash, states.at, 17) % recording.count >= AGAIN_POINTS)
                        continue;
                for (unsigned n = 0; n < AGAIN_CHOICES; n++)
                        crash_again_at(explore, check, &states, n, state);
        }
        tk_states_done(&states);
        tk_recording_done(&recording);
}

static void explore_state(struct tk_explore *explore, struct tk_check *check,
                          const struct tk_states *states, const struct tk_choice *choice)
{
        char why[TK_CHECK_WHY] = "";
        struct tk_disk second;
        struct tk_disk disk;
        uint64_t hash;
        char name[80];
        bool again;

        explore->states++;
        tk_states_make(states, choice, &disk);
        hash = tk_mix(tk_disk_hash(&disk), check->at, 14);
        if (!is_new(hash)) {
                tk_disk_done(&disk);
                return;
        }
        explore->distinct++;
        again = explore->second > 0 && hash % explore->second == 0;
        check->go_on = hash % 8 == 1;
        if (again)
                tk_disk_clone(&disk, &second);
        name_choice(choice, states->at, name, sizeof(name));
        seed_state(choice, states->at);
        if (tk_check_disk(check, &disk, why) < 0) {
                violation(explore, name, why);
        } else if (again) {
                check->go_on = false;
                seed_state(choice, states->at);
                crash_again(explore, check, &second, hash, name);
        }
        if (again)
                tk_disk_done(&second);
}

/* Whether this process looks at the states of this length, for the share and the sample it has. */
static bool is_chosen(const struct tk_explore *explore, size_t at)
{
        if (at < explore->from || at % explore->shares != explore->share)
                return false;
        return explore->one_in < 2 || tk_mix(explore->seed, at, 18) % explore->one_in == 0;
}

/* Nothing can be lost by a crash that could not be lost by one before this event. */
static bool is_same_as_before(const struct tk_event *event)
{
        return event->type == TK_EVENT_SYNC_BEGIN;
}

void tk_explore_run(struct tk_explore *explore, const struct tk_check *check,
                    const struct tk_recording *recording, const struct tk_disk *start)
{
        struct tk_check mine = *check;
        struct tk_states states;

        seen_run++;
        tk_states_init(&states, recording, start);
        while (tk_states_advance(&states) && !enough(explore)) {
                unsigned loose = tk_states_loose_pages(&states, SUBSET_PAGES + 1);
                uint64_t seed = tk_mix(explore->seed, states.at, 15);
                /* Where few are looked at, they are of all kinds. */
                unsigned first = explore->one_in < 2 ? 0 : (unsigned)(seed % 12);

                if (!is_chosen(explore, states.at) ||
                    (is_same_as_before(&recording->events[states.at - 1]) &&
                     states.at < recording->count))
                        continue;
                mine.at = states.at;
                for (unsigned n = 0; n < explore->per_prefix && !enough(explore); n++) {
                        struct tk_choice choice = choice_at(seed, first + n, loose);

                        explore_state(explore, &mine, &states, &choice);
                }
        }
        tk_states_done(&states);
}

/* One state ------------------------------------------------------------------------------ */

/* The number at *@text, and what follows it, which must be @stop. */
static bool parse_number(const char **text, int base, char stop, uint64_t *ret_number)
{
        char *end;

        *ret_number = strtoull(*text, &end, base);
        if (end == *text || (*end != stop && (stop != '\0' || *end != '/')))
                return false;
        *text = end + 1;
        return true;
}

static bool parse_choice(const char *text, size_t *ret_at, struct tk_choice *ret_choice)
{
        uint64_t ext4;
        uint64_t how;
        uint64_t at;

        if (!parse_number(&text, 10, '.', &at) || !parse_number(&text, 10, '.', &how) ||
            !parse_number(&text, 10, '.', &ext4) ||
            !parse_number(&text, 16, '\0', &ret_choice->seed) || how >= TK_CHOICE_HOWS)
                return false;
        *ret_at = at;
        ret_choice->how = (enum tk_choice_how)how;
        ret_choice->ext4 = ext4 == 1;
        return true;
}

static void show_node(const struct tk_disk *disk, uint32_t id)
{
        const struct tk_node *node = tk_disk_node(disk, id);
        size_t pages = 0;

        if (!node)
                return;
        for (size_t i = 0; i < node->page_count; i++)
                pages += node->pages[i] != NULL;
        printf("node %u: mode %o, links %u, %llu bytes, %zu pages", id, node->mode, node->nlink,
               (unsigned long long)node->size, pages);
        for (size_t i = 0; i < node->entry_count; i++)
                printf(" %s=%u", node->entries[i].name, node->entries[i].node);
        for (size_t i = 0; i < node->xattr_count; i++)
                printf(" %s[%zu]", node->xattrs[i].name, node->xattrs[i].len);
        printf("\n");
}

/* Bring @states to a prefix and make the state; what may be missing is printed. */
static void show_state(struct tk_states *states, size_t at, const struct tk_choice *choice,
                       struct tk_disk *ret_disk)
{
        while (states->at < at && tk_states_advance(states))
                ;
        printf("last events:\n");
        for (size_t i = at > 12 ? at - 12 : 0; i < at; i++)
                tk_event_print(i, &states->recording->events[i]);
        printf("not durable, or behind such:\n");
        for (size_t i = 0; i < states->pending_count; i++)
                tk_event_print(states->pending[i].index,
                               &states->recording->events[states->pending[i].index]);
        tk_states_make(states, choice, ret_disk);
        printf("the disk:\n");
        for (uint32_t id = 1; id < ret_disk->count; id++)
                show_node(ret_disk, id);
}

int tk_explore_show(const char *state, uint64_t seed, const struct tk_check *check,
                    const struct tk_recording *recording, const struct tk_disk *start)
{
        const char *second = strchr(state, '/');
        struct tk_recording mount = {0};
        struct tk_check mine = *check;
        char why[TK_CHECK_WHY] = "";
        struct tk_choice choice;
        struct tk_states states;
        struct tk_disk disk;
        size_t at;
        int r;

        (void)seed;
        if (!parse_choice(state, &at, &choice)) {
                fprintf(stderr, "tk_crash: '%s' is no state's name\n", state);
                return -1;
        }
        tk_states_init(&states, recording, start);
        show_state(&states, at, &choice, &disk);
        tk_states_done(&states);
        mine.at = at;
        mine.go_on = !second && tk_mix(tk_disk_hash(&disk), at, 14) % 8 == 1;
        seed_state(&choice, at);
        if (second) {
                struct tk_disk first = disk;

                r = tk_check_mount(&first, &mount, why);
                if (r == 0 && parse_choice(second + 1, &at, &choice)) {
                        printf("\nmounted, and crashed again:\n");
                        tk_states_init(&states, &mount, &first);
                        show_state(&states, at, &choice, &disk);
                        tk_states_done(&states);
                }
                tk_disk_done(&first);
                seed_state(&choice, at);
        }
        r = tk_check_disk(&mine, &disk, why);
        printf("\n%s\n", r < 0 ? why : "nothing is wrong with it");
        tk_recording_done(&mount);
        return r;
}
