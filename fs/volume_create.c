/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Making a volume.
 *
 * The volume file is written last: a failure leaves no volume.
 */

#include "fs/volume_internal.h"

#include "crypto/random.h"
#include "fs/journal.h"
#include "fs/volume_key.h"
#include "fs/volume_lock.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static int check_empty(const char *path, int dirfd, struct tk_fault *fault)
{
        int fd = dup(dirfd);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *entry;
        int r = 0;

        if (!dir) {
                r = -errno;
                if (fd >= 0)
                        close(fd);
                return r;
        }
        if (faccessat(dirfd, TK_VOLUME_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                r = tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -EEXIST,
                                 "%s is an encrypted directory already; mount it, or choose "
                                 "another directory",
                                 path);
        while (r == 0 && (entry = readdir(dir))) {
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                if (strcmp(entry->d_name, "lost+found") != 0)
                        r = tk_fault_set(fault, TK_FAULT_NOT_A_VOLUME, -ENOTEMPTY,
                                         "%s is not empty (it holds '%s'); choose an empty or a "
                                         "new directory",
                                         path, entry->d_name);
        }
        closedir(dir);
        return r;
}

/* The directory of a new volume, open, with its sub-directories and its lock file. */
static int make_directory(const char *path, int *ret_dirfd, struct tk_fault *fault)
{
        TK_AUTOCLOSE int dirfd = -1;
        TK_AUTOCLOSE int lockfd = -1;
        int r;

        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno,
                                    "cannot make the directory %s: %s", path, strerror(errno));
        dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno,
                                    "cannot open the directory %s: %s", path, strerror(errno));
        r = check_empty(path, dirfd, fault);
        if (r < 0)
                return r;

        if (fchmod(dirfd, 0700) < 0 || mkdirat(dirfd, "root", 0755) < 0 ||
            mkdirat(dirfd, TK_JOURNAL_DIR, 0700) < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "cannot write into %s: %s",
                                    path, strerror(errno));
        lockfd =
                openat(dirfd, TK_VOLUME_LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (lockfd < 0)
                return tk_fault_set(fault, TK_FAULT_PERMISSION, -errno, "cannot write into %s: %s",
                                    path, strerror(errno));
        *ret_dirfd = TK_TAKE_FD(dirfd);
        return 0;
}

static int fill_new(int dirfd, struct tk_volume_text *text, struct tk_kms *kms,
                    char ret_fingerprint[TK_FINGERPRINT_LEN + 1], struct tk_fault *fault)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *volume_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *mac_key = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *kek = NULL;
        struct tk_volume_text_kek entry;
        struct tk_volume_wrap wrap;
        int r;

        r = tk_random_secret(TK_KEY_LEN, &volume_key);
        if (r < 0)
                return r;
        r = tk_volume_key_derive_mac(volume_key, &mac_key);
        if (r < 0)
                return r;
        r = tk_volume_key_fingerprint(volume_key, ret_fingerprint);
        if (r < 0)
                return r;
        r = tk_volume_make_kek(text, kms, 1, volume_key, &entry, &wrap, &kek, fault);
        if (r < 0)
                return r;
        r = tk_volume_append_kek(text, &entry, &wrap);
        if (r < 0)
                return r;
        return tk_volume_store(dirfd, text, mac_key);
}

int tk_volume_create(const char *path, const struct tk_volume_options *options, struct tk_kms *kms,
                     char ret_fingerprint[TK_FINGERPRINT_LEN + 1], struct tk_fault *fault)
{
        TK_AUTOCLOSE int dirfd = -1;
        struct tk_volume_text text = {.created = (int64_t)time(NULL),
                                      .dek_wrap = options->dek_wrap,
                                      .names = options->names};
        int r;

        r = make_directory(path, &dirfd, fault);
        if (r < 0)
                return r;
        memcpy(text.id, options->id, TK_VOLUME_ID_LEN);
        r = tk_journal_create(dirfd, options->journal_len > 0 ? options->journal_len
                                                              : TK_JOURNAL_LEN_DEFAULT);
        if (r == 0)
                r = fill_new(dirfd, &text, kms, ret_fingerprint, fault);
        tk_volume_text_done(&text);
        if (r < 0) {
                unlinkat(dirfd, TK_VOLUME_LOCK_FILE, 0);
                unlinkat(dirfd, TK_JOURNAL_DIR "/" TK_JOURNAL_NAME, 0);
                unlinkat(dirfd, TK_JOURNAL_DIR, AT_REMOVEDIR);
                unlinkat(dirfd, "root", AT_REMOVEDIR);
                return tk_fault_set(fault, TK_FAULT_INTERNAL, r,
                                    "cannot make the volume file in %s: %s", path, strerror(-r));
        }
        return 0;
}
