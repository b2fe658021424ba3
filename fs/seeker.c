/* SPDX-License-Identifier: Apache-2.0 */

/* A queue and one thread for seeks that need the kernel's dirty pages first. */

#include "fs/seeker.h"

#include "base/thread.h"
#include "fs/content.h"
#include <errno.h>

struct question {
        struct question *next;
        fuse_req_t req;
        fuse_ino_t ino;
        struct tk_openfile *file; /* borrowed: open while its request is pending */
        uint64_t off;
        int whence;
};

struct tk_seeker {
        struct tk_fs *fs;
        struct fuse_session *session;
        pthread_t thread;
        pthread_mutex_t kernel_lock; /* held while the kernel writes out an inode */
        bool halted;                 /* under kernel_lock */
        pthread_mutex_t lock;
        pthread_cond_t asked;
        struct question *first; /* under lock */
        struct question **last; /* under lock */
        bool stop;              /* under lock */
};

static int write_out(struct tk_seeker *seeker, fuse_ino_t ino)
{
        int r;

        TK_LOCK_SCOPE(&seeker->kernel_lock);
        if (seeker->halted)
                return -EIO;
        r = fuse_lowlevel_notify_inval_inode(seeker->session, ino, 0, 0);
        return r == -ENOENT ? 0 : r;
}

void tk_seeker_halt(struct tk_seeker *seeker)
{
        TK_LOCK_SCOPE(&seeker->kernel_lock);
        seeker->halted = true;
}

static void answer(struct tk_seeker *seeker, const struct question *question)
{
        uint64_t found;
        int r;

        r = write_out(seeker, question->ino);
        if (r < 0) {
                tk_reply_error(question->req, r);
                return;
        }
        r = tk_content_seek(seeker->fs, question->file, question->off, question->whence, &found);
        if (r < 0)
                tk_reply_error(question->req, r);
        else
                fuse_reply_lseek(question->req, (off_t)found);
}

/* The next question; NULL when it is time to stop. */
static struct question *take(struct tk_seeker *seeker)
{
        struct question *question;

        TK_LOCK_SCOPE(&seeker->lock);
        while (!seeker->first && !seeker->stop)
                pthread_cond_wait(&seeker->asked, &seeker->lock);
        question = seeker->stop ? NULL : seeker->first;
        if (question) {
                seeker->first = question->next;
                if (!seeker->first)
                        seeker->last = &seeker->first;
        }
        return question;
}

static void *run(void *context)
{
        struct tk_seeker *seeker = context;
        struct question *question;

        while ((question = take(seeker))) {
                answer(seeker, question);
                free(question);
        }
        return NULL;
}

int tk_seeker_new(struct tk_fs *fs, struct fuse_session *session, struct tk_seeker **ret_seeker)
{
        struct tk_seeker *seeker;

        seeker = calloc(1, sizeof(*seeker));
        if (!seeker)
                return -ENOMEM;
        seeker->fs = fs;
        seeker->session = session;
        seeker->last = &seeker->first;
        pthread_mutex_init(&seeker->kernel_lock, NULL);
        pthread_mutex_init(&seeker->lock, NULL);
        pthread_cond_init(&seeker->asked, NULL);
        if (tk_thread_start(run, seeker, &seeker->thread) < 0) {
                free(seeker);
                return -EAGAIN;
        }
        *ret_seeker = seeker;
        return 0;
}

struct tk_seeker *tk_seeker_free(struct tk_seeker *seeker)
{
        struct question *next;

        if (!seeker)
                return NULL;
        pthread_mutex_lock(&seeker->lock);
        seeker->stop = true;
        pthread_cond_signal(&seeker->asked);
        pthread_mutex_unlock(&seeker->lock);
        pthread_join(seeker->thread, NULL);
        for (struct question *question = seeker->first; question; question = next) {
                next = question->next;
                tk_reply_error(question->req, -EIO);
                free(question);
        }
        pthread_cond_destroy(&seeker->asked);
        pthread_mutex_destroy(&seeker->lock);
        pthread_mutex_destroy(&seeker->kernel_lock);
        free(seeker);
        return NULL;
}

void tk_seeker_ask(struct tk_seeker *seeker, fuse_req_t req, fuse_ino_t ino,
                   struct tk_openfile *file, uint64_t off, int whence)
{
        struct question *question;

        question = calloc(1, sizeof(*question));
        if (!question) {
                tk_reply_error(req, -ENOMEM);
                return;
        }
        *question = (struct question){
                .req = req, .ino = ino, .file = file, .off = off, .whence = whence};
        TK_LOCK_SCOPE(&seeker->lock);
        *seeker->last = question;
        seeker->last = &question->next;
        pthread_cond_signal(&seeker->asked);
}
