/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Modes lifted for the moment: without privilege, all is rewrapped whatever its mode, and
 * no crash leaves a mode that nobody set.
 */

#include "support_fs.h"

#include "support_steps.h"

#include "fs/content.h"
#include "fs/keyattr.h"
#include "fs/lift.h"
#include "fs/rotate.h"

enum { STEPS_MAX = 300 };

static struct tk_test_fs test;

/* An ordinary user's children ------------------------------------------------- */

static void become_nobody(void)
{
        if (geteuid() == 0) {
                TK_CHILD_REQUIRE(setresgid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0);
                TK_CHILD_REQUIRE(setresuid(TK_TEST_NOBODY, TK_TEST_NOBODY, TK_TEST_NOBODY) == 0);
        }
}

static const struct {
        const char *name;
        mode_t mode;
        size_t size;
} files[] = {
        {"object", 0444, 5000}, {"none", 0, 5000},   {"written", 0200, 5000},
        {"empty", 0400, 0},     {"plain", 0640, 60}, {"setuid", 04555, 60},
};
enum { FILES = sizeof(files) / sizeof(files[0]) };

static void make_file(size_t i)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 0};
        uint8_t bytes[5000];
        struct tk_openfile *file;
        struct tk_entry entry;

        memset(bytes, 'x', sizeof(bytes));
        TK_CHILD_REQUIRE(tk_op_create(test.fs, test.root, files[i].name, files[i].mode, O_RDWR,
                                      &caller, &entry, &file) == 0);
        if (files[i].size)
                TK_CHILD_REQUIRE(tk_content_write(test.fs, file, 0, bytes, files[i].size) == 0);
        /* A write by an application clears set-id bits. */
        TK_CHILD_REQUIRE(real_chmod(file->fd, files[i].mode) == 0);
        tk_test_close(&test, file, entry.inode);
}

/* A directory with a record, as with encrypted names, whose owner may not write it. */
static void make_dir(void)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *dek = NULL;
        struct tk_record record;
        int fd;

        TK_CHILD_REQUIRE(mkdirat(test.fs->rootfd, "dir", 0755) == 0);
        fd = openat(test.fs->rootfd, "dir", O_RDONLY | O_DIRECTORY);
        TK_CHILD_REQUIRE(fd >= 0);
        TK_CHILD_REQUIRE(tk_keyattr_make(test.fs, &dek, &record) == 0);
        TK_CHILD_REQUIRE(tk_keyattr_store(fd, &record) == 0);
        TK_CHILD_REQUIRE(fchmod(fd, 0555) == 0);
        close(fd);
}

static void make_all(void)
{
        become_nobody();
        tk_test_fs_start(&test);
        for (size_t i = 0; i < FILES; i++)
                make_file(i);
        make_dir();
        tk_test_fs_stop(&test);
}

static void check_mode(const char *name, mode_t mode)
{
        struct stat st;

        TK_CHILD_REQUIRE(fstatat(test.fs->rootfd, name, &st, 0) == 0);
        TK_CHILD_REQUIRE((st.st_mode & 07777) == mode);
}

static void check_all(void)
{
        become_nobody();
        tk_test_fs_start(&test);
        for (size_t i = 0; i < FILES; i++) {
                struct tk_openfile *file;
                const uint8_t *data;
                struct tk_entry entry;

                check_mode(files[i].name, files[i].mode);
                TK_CHILD_REQUIRE(tk_op_lookup(test.fs, test.root, files[i].name, &entry) == 0);
                TK_CHILD_REQUIRE((entry.st.st_mode & 07777) == files[i].mode);
                TK_CHILD_REQUIRE(tk_openfile_get(test.fs, entry.inode, false, &file) == 0);
                TK_CHILD_REQUIRE(tk_content_read(test.fs, file, 0, 6000, &data) ==
                                 (ssize_t)files[i].size);
                for (size_t k = 0; k < files[i].size; k++)
                        TK_CHILD_REQUIRE(data[k] == 'x');
                tk_openfile_put(test.fs, file);
                tk_inode_forget(test.fs->inodes, entry.inode, 1);
                check_mode(files[i].name, files[i].mode);
        }
        check_mode("dir", 0555);
        tk_test_fs_stop(&test);
}

static void rotate_all(void)
{
        struct tk_rotate_options options = {.even_if_current = true};
        struct tk_rotate_progress progress = {0};
        struct tk_fault fault = {0};

        become_nobody();
        tk_test_fs_start(&test);
        options.kms = test.kms;
        changes = 0;
        TK_CHILD_REQUIRE(tk_rotate_run(test.fs, &options, &progress, &fault) == 0);
        TK_CHILD_REQUIRE(progress.done);
        TK_CHILD_REQUIRE(progress.rewrapped == FILES + 1);
        TK_CHILD_REQUIRE(progress.failed == 0);
        die_at = 0;
        tk_test_fs_stop(&test);
}

/* Whether a rotation died at change @at. */
static bool rotate_until(unsigned at)
{
        int status = -1;
        pid_t pid;

        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                alarm(120);
                die_at = at;
                rotate_all();
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_true(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == DIED);
        return WEXITSTATUS(status) == DIED;
}

/* Both places of a record are under the newest version, whichever step was the last. */
static void check_records(const char *name, bool has_copy)
{
        uint8_t attribute[TK_RECORD_MAX];
        uint8_t copy[TK_RECORD_LEN];
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "c/root/%s", name);
        fd = open(path, O_RDONLY);
        assert_true(fd >= 0);
        assert_int_equal(fgetxattr(fd, TK_KEYATTR_NAME, attribute, sizeof(attribute)),
                         TK_RECORD_LEN);
        if (has_copy) {
                assert_int_equal(pread(fd, copy, sizeof(copy), 0), TK_RECORD_LEN);
                assert_memory_equal(copy, attribute, TK_RECORD_LEN);
        }
        close(fd);
}

static void test_lift__a_crash_at_any_step_of_a_rotation(void **state)
{
        unsigned at = 1;

        if (geteuid() == 0)
                assert_int_equal(chown(".", TK_TEST_NOBODY, TK_TEST_NOBODY), 0);
        tk_test_in_child(make_all);
        for (; rotate_until(at); at++) {
                assert_true(at < STEPS_MAX);
                tk_test_in_child(check_all);
        }
        tk_test_in_child(check_all);
        for (size_t i = 0; geteuid() == 0 && i < FILES; i++)
                check_records(files[i].name, files[i].size > 0);
        /* All that is lifted is noted, lifted, changed, put back, and its note dropped. */
        assert_true(at > 5 * 5);
        assert_int_equal(rmdir("c/lifted"), 0); /* it is empty */
}

/* Notes --------------------------------------------------------------------- */

static void note(const char *name, mode_t mode, const char *path)
{
        char text[64];
        char number[32];
        struct stat st;

        snprintf(text, sizeof(text), "%04o:%s", mode, path);
        TK_CHILD_REQUIRE(fstatat(AT_FDCWD, name, &st, 0) == 0);
        snprintf(number, sizeof(number), "c/lifted/%llx", (unsigned long long)st.st_ino);
        TK_CHILD_REQUIRE(symlink(text, number) == 0);
}

static mode_t mode_of(const char *path)
{
        struct stat st;

        TK_CHILD_REQUIRE(stat(path, &st) == 0);
        return st.st_mode & 07777;
}

static void plain_file(const char *path, mode_t mode)
{
        int fd = open(path, O_RDWR | O_CREAT, 0600);

        TK_CHILD_REQUIRE(fd >= 0 && fchmod(fd, mode) == 0);
        close(fd);
}

/* Only what is as the daemon left it is put back. */
static void undo_notes(void)
{
        become_nobody();
        umask(0);
        tk_test_fs_start(&test);
        tk_test_fs_stop(&test);
        TK_CHILD_REQUIRE(mkdir("c/lifted", 0700) == 0);
        plain_file("c/root/lifted", 0644);
        plain_file("c/root/back", 0444);
        plain_file("c/root/changed", 0755);
        plain_file("c/root/replaced", 0644);
        plain_file("outside", 0644);
        note("c/root/lifted", 0444, "lifted");
        note("c/root/back", 0444, "back");
        note("c/root/changed", 0444, "changed");
        note("outside", 0444, "replaced"); /* another inode has the name */
        TK_CHILD_REQUIRE(symlink("0444:../outside", "c/lifted/ffff") == 0);
        TK_CHILD_REQUIRE(symlink("nonsense", "c/lifted/zz") == 0);
        tk_test_fs_start(&test);
        tk_test_fs_stop(&test);
        TK_CHILD_REQUIRE(mode_of("c/root/lifted") == 0444);
        TK_CHILD_REQUIRE(mode_of("c/root/back") == 0444);
        TK_CHILD_REQUIRE(mode_of("c/root/changed") == 0755);
        TK_CHILD_REQUIRE(mode_of("c/root/replaced") == 0644);
        TK_CHILD_REQUIRE(mode_of("outside") == 0644);
        TK_CHILD_REQUIRE(readlink("c/lifted/zz", (char[9]){0}, 8) == 8);
}

static void test_lift_undo_all__what_nobody_changed_since(void **state)
{
        if (geteuid() == 0)
                assert_int_equal(chown(".", TK_TEST_NOBODY, TK_TEST_NOBODY), 0);
        tk_test_in_child(undo_notes);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST_IN_DIR(test_lift__a_crash_at_any_step_of_a_rotation),
                TK_TEST_IN_DIR(test_lift_undo_all__what_nobody_changed_since),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
