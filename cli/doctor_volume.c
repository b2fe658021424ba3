/* SPDX-License-Identifier: Apache-2.0 */

/* The encrypted directory: its filesystem, its owner, its keys and who uses it. */

#include "cli/doctor.h"
#include "cli/open.h"
#include "cli/provider.h"
#include "cli/serve.h"
#include "cli/text.h"
#include "fs/escrow_note.h"
#include "fs/volume.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>

enum {
        XATTR_LEN = 64,
        FREE_MIN_MIB = 1024,
        FREE_MIN_PERCENT = 5,
        INODES_MIN = 1000,
        ESCROW_DAYS_MAX = 30,
        DAY_S = 24 * 3600,
};

static void check_owner(struct tk_doctor *doctor, int dirfd)
{
        struct stat st;

        if (fstat(dirfd, &st) < 0)
                return;
        if (st.st_uid != geteuid())
                tk_doctor_warn(doctor, "owner", "run doctor and mount as its owner, or chown it",
                               "%s belongs to user %u, not to user %u", doctor->cipherdir,
                               (unsigned)st.st_uid, (unsigned)geteuid());
        else if (st.st_mode & 077)
                tk_doctor_warn(doctor, "owner", "run 'chmod 700' on it",
                               "%s is open to others (mode %04o): they see names and sizes",
                               doctor->cipherdir, (unsigned)st.st_mode & 07777);
        else
                tk_doctor_ok(doctor, "owner", "%s is yours alone", doctor->cipherdir);
}

static void check_filesystem(struct tk_doctor *doctor, int dirfd)
{
        static const struct {
                long magic;
                const char *name;
        } good[] = {
                {EXT4_SUPER_MAGIC, "ext4"}, {XFS_SUPER_MAGIC, "XFS"}, {BTRFS_SUPER_MAGIC, "btrfs"}};
        struct statfs fs;

        if (fstatfs(dirfd, &fs) < 0)
                return;
        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                if ((long)fs.f_type != good[i].magic)
                        continue;
                tk_doctor_ok(doctor, "filesystem", "%s", good[i].name);
                return;
        }
        tk_doctor_warn(doctor, "filesystem", "prefer one of them for what must survive a crash",
                       "type 0x%lx is none of ext4, XFS and btrfs", (unsigned long)fs.f_type);
}

/* A file without a name, or one whose name is removed at once. */
static int open_temporary(int dirfd)
{
        static const char name[] = "turnkeyfs.doctor";
        int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
                return fd;
        fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0)
                unlinkat(dirfd, name, 0);
        return fd;
}

static void check_xattr(struct tk_doctor *doctor, int dirfd)
{
        static const char name[] = "user.turnkey.doctor";
        static const char todo[] = "use a filesystem with user attributes, mounted with them on";
        TK_AUTOCLOSE int fd = open_temporary(dirfd);
        char value[XATTR_LEN] = "turnkeyfs";
        char again[XATTR_LEN + 1] = "";

        if (fd < 0)
                tk_doctor_fail(doctor, TK_FAULT_PERMISSION, "attributes",
                               "free some space, or mount the filesystem for writing",
                               "cannot make a file in %s: %s", doctor->cipherdir, strerror(errno));
        else if (fsetxattr(fd, name, value, sizeof(value), 0) < 0)
                tk_doctor_fail(doctor, TK_FAULT_UNSUPPORTED, "attributes", todo,
                               "cannot set a user attribute of %d bytes: %s", XATTR_LEN,
                               strerror(errno));
        else if (fgetxattr(fd, name, again, sizeof(again)) != XATTR_LEN ||
                 strcmp(value, again) != 0)
                tk_doctor_fail(doctor, TK_FAULT_UNSUPPORTED, "attributes", todo,
                               "a user attribute did not come back as it was set");
        else
                tk_doctor_ok(doctor, "attributes", "user attributes can be set and read");
}

static void check_handles(struct tk_doctor *doctor, int dirfd)
{
        union {
                struct file_handle handle;
                char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
        } u = {.handle.handle_bytes = MAX_HANDLE_SZ};
        TK_AUTOCLOSE int fd = -1;
        int mount_id;

        if (geteuid() != 0)
                return;
        if (name_to_handle_at(dirfd, "", &u.handle, &mount_id, AT_EMPTY_PATH) == 0)
                fd = open_by_handle_at(dirfd, &u.handle, O_PATH | O_CLOEXEC);
        if (fd >= 0)
                tk_doctor_ok(doctor, "file handles", "work");
        else
                tk_doctor_warn(doctor, "file handles",
                               "prefer ext4, XFS or btrfs outside a container",
                               "don't work here (%s): files are found by their names instead",
                               strerror(errno));
}

static void check_space(struct tk_doctor *doctor, int dirfd)
{
        struct statvfs st;
        char size[16];
        uint64_t bytes;

        if (fstatvfs(dirfd, &st) < 0)
                return;
        bytes = (uint64_t)st.f_bavail * st.f_frsize;
        if (bytes >> 20 < FREE_MIN_MIB || st.f_bavail < st.f_blocks / 100 * FREE_MIN_PERCENT)
                tk_doctor_warn(doctor, "free space", "free some", "%s left",
                               tk_text_size(bytes, size));
        else
                tk_doctor_ok(doctor, "free space", "%s", tk_text_size(bytes, size));
        if (st.f_files > 0 && st.f_favail < INODES_MIN)
                tk_doctor_warn(doctor, "free inodes", "remove files, or use another filesystem",
                               "%" PRIu64 " left", (uint64_t)st.f_favail);
}

static void check_unlock(struct tk_doctor *doctor, struct tk_volume *volume)
{
        TK_CLEANUP(tk_open_keys_done) struct tk_open_keys keys = {0};
        struct tk_provider_volume target = tk_open_target(volume);
        struct tk_fault fault = {0};
        int r;

        r = tk_provider_open(doctor->conf, &target, &keys.current, &fault);
        if (r < 0) {
                tk_doctor_fail_with(doctor, tk_provider_backend(doctor->conf)->place_name, r,
                                    &fault);
                return;
        }
        tk_doctor_ok(doctor, keys.current.place_name, "%s opens", keys.current.place);

        r = tk_open_unlock_with(volume, doctor->conf, &keys, &fault);
        if (r < 0)
                tk_doctor_fail_with(doctor, "keys", r, &fault);
        else
                tk_doctor_ok(doctor, "keys", "the volume unlocks, its MAC holds%s",
                             doctor->conf->volume.fingerprint ? ", it is the one that is pinned"
                                                              : "");
        if (r == 0 && tk_volume_is_shared(volume))
                tk_doctor_ok(doctor, "protectors", "%u open the volume, this one is number %u",
                             tk_volume_kek_at(volume, tk_volume_kek_count(volume) - 1).protectors,
                             tk_volume_own_protector(volume));
}

/* Last: an unlocked volume may not outlive the provider that check_unlock opens. */
static void check_keys(struct tk_doctor *doctor, struct tk_volume *volume)
{
        TK_CLEANUP(tk_freep) char *place = NULL;
        struct tk_provider_volume target = tk_open_target(volume);
        struct tk_fault fault = {0};
        const char *what = tk_provider_backend(doctor->conf)->place_name;
        int r;

        r = tk_provider_locate(doctor->conf, &target, &place, &fault);
        if (r == 0)
                r = tk_provider_is_interactive(doctor->conf, place, &fault);
        if (r < 0)
                tk_doctor_fail_with(doctor, what, r, &fault);
        else if (r > 0)
                tk_doctor_ok(doctor, what,
                             "%s wants a secret, which was not asked for: the keys were not tried",
                             place);
        else
                check_unlock(doctor, volume);
}

static void check_use(struct tk_doctor *doctor, struct tk_volume *volume)
{
        struct tk_volume_holder holder = {0};
        const char *why;
        json_t *daemon = tk_serve_ask(volume, &why);
        size_t unclean = tk_serve_unclean_count(volume, daemon);
        int r = tk_volume_holder(volume, &holder);

        json_decref(daemon);

        if (r < 0)
                tk_doctor_fail(doctor, TK_FAULT_PERMISSION, "lock", "run doctor as the owner",
                               "cannot look at the lock: %s", strerror(-r));
        else if (r > 0)
                tk_doctor_ok(doctor, "lock", "in use: %s by process %ld", holder.doing, holder.pid);
        else
                tk_doctor_ok(doctor, "lock", "free");
        if (why)
                tk_doctor_warn(doctor, "status", "see the log of the mount",
                               "the mount does not say how it is: %s", why);
        if (unclean > 0)
                tk_doctor_warn(doctor, "unclean mounts", "run 'turnkeyfs verify' when you can",
                               "%zu mounts ended by a crash or power loss", unclean);
        else
                tk_doctor_ok(doctor, "unclean mounts", "none");
}

/* Without one, a backup that lost its extended attributes is a backup without names. */
static void check_escrow(struct tk_doctor *doctor, struct tk_volume *volume)
{
        static const char todo[] = "run 'turnkeyfs escrow export CIPHERDIR FILE', best before each "
                                   "backup";
        struct tk_escrow_note note;
        int r = tk_escrow_note_read(volume, &note);
        long days = r < 0 ? 0 : (long)((time(NULL) - note.exported) / DAY_S);

        if (r < 0)
                tk_doctor_warn(doctor, "escrow", todo, "none was exported%s",
                               r == -ENOENT ? "" : ", as far as can be told");
        else if (tk_escrow_note_is_outdated(volume, &note))
                tk_doctor_warn(doctor, "escrow", todo,
                               "the last one was exported %ld days ago, before a rotation: it is "
                               "of no use any more",
                               days);
        else if (days > ESCROW_DAYS_MAX)
                tk_doctor_warn(doctor, "escrow", todo, "the last one was exported %ld days ago",
                               days);
        else
                tk_doctor_ok(doctor, "escrow", "exported %ld days ago", days);
}

static void check_volume_file(struct tk_doctor *doctor)
{
        TK_CLEANUP(tk_volume_freep) struct tk_volume *volume = NULL;
        struct tk_fault fault = {0};
        int r;

        r = tk_volume_open(doctor->cipherdir, &volume, &fault);
        if (r < 0) {
                tk_doctor_fail_with(doctor, "volume file", r, &fault);
                return;
        }
        tk_doctor_ok(doctor, "volume file", "parses");
        check_use(doctor, volume);
        check_escrow(doctor, volume);
        check_keys(doctor, volume);
}

void tk_doctor_check_volume(struct tk_doctor *doctor)
{
        TK_AUTOCLOSE int dirfd = open(doctor->cipherdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (dirfd < 0) {
                tk_doctor_fail(doctor,
                               errno == EACCES ? TK_FAULT_PERMISSION : TK_FAULT_NOT_A_VOLUME,
                               "directory", "give the path of an encrypted directory",
                               "cannot open %s: %s", doctor->cipherdir, strerror(errno));
                return;
        }
        check_owner(doctor, dirfd);
        check_filesystem(doctor, dirfd);
        check_xattr(doctor, dirfd);
        check_handles(doctor, dirfd);
        check_space(doctor, dirfd);
        check_volume_file(doctor);
}
