/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Kept descriptors of directories.
 *
 * An inode has one place in a small table, which it shares with others: who comes next
 * takes it over, unless it is in use.
 */

#include "fs/dirfds.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

enum { PLACES = 64 };

struct place {
        const struct tk_inode *inode; /* NULL: empty */
        int fd;
        unsigned users;
};

struct tk_dirfds {
        pthread_mutex_t lock;
        struct place places[PLACES]; /* under lock */
};

static struct place *place_of(struct tk_dirfds *dirfds, const struct tk_inode *inode)
{
        uint64_t mixed = (uint64_t)(uintptr_t)inode * UINT64_C(0x9E3779B97F4A7C15);

        return &dirfds->places[(mixed >> 32) % PLACES];
}

int tk_dirfds_new(struct tk_dirfds **ret_dirfds)
{
        struct tk_dirfds *dirfds = calloc(1, sizeof(*dirfds));

        if (!dirfds)
                return -ENOMEM;
        pthread_mutex_init(&dirfds->lock, NULL);
        *ret_dirfds = dirfds;
        return 0;
}

struct tk_dirfds *tk_dirfds_free(struct tk_dirfds *dirfds)
{
        if (!dirfds)
                return NULL;
        for (int i = 0; i < PLACES; i++)
                if (dirfds->places[i].inode)
                        close(dirfds->places[i].fd);
        pthread_mutex_destroy(&dirfds->lock);
        free(dirfds);
        return NULL;
}

int tk_dirfds_get(struct tk_dirfds *dirfds, const struct tk_inode *inode)
{
        struct place *place = place_of(dirfds, inode);

        TK_LOCK_SCOPE(&dirfds->lock);
        if (place->inode != inode)
                return -ENOENT;
        place->users++;
        return place->fd;
}

bool tk_dirfds_keep(struct tk_dirfds *dirfds, const struct tk_inode *inode, int fd)
{
        struct place *place = place_of(dirfds, inode);
        struct place old;

        {
                TK_LOCK_SCOPE(&dirfds->lock);
                if (place->users > 0)
                        return false;
                old = *place;
                *place = (struct place){.inode = inode, .fd = fd, .users = 1};
        }
        if (old.inode)
                close(old.fd);
        return true;
}

void tk_dirfds_put(struct tk_dirfds *dirfds, const struct tk_inode *inode)
{
        struct place *place = place_of(dirfds, inode);

        TK_LOCK_SCOPE(&dirfds->lock);
        assert(place->inode == inode && place->users > 0);
        place->users--;
}

void tk_dirfds_drop(struct tk_dirfds *dirfds, const struct tk_inode *inode)
{
        struct place *place = place_of(dirfds, inode);
        int fd;

        {
                TK_LOCK_SCOPE(&dirfds->lock);
                if (place->inode != inode)
                        return;
                assert(place->users == 0);
                fd = place->fd;
                place->inode = NULL;
        }
        close(fd);
}
