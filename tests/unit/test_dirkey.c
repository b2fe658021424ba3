/* SPDX-License-Identifier: Apache-2.0 */

/* Keys of directories: who has one, who gets one, and how long they are kept. */

#include "support_fs.h"

#include "fs/backing.h"
#include "fs/dirkey.h"
#include "fs/keyattr.h"
#include <pthread.h>
#include <sys/xattr.h>

static struct tk_test_fs test;

static int enter_plain(void **state)
{
        memset(&test, 0, sizeof(test));
        return tk_test_dir_enter(state);
}

static int enter(void **state)
{
        int r = enter_plain(state);

        test.names = TK_NAMES_ENCRYPTED;
        return r;
}

#define IN_DIR(function) cmocka_unit_test_setup_teardown(function, enter, tk_test_dir_leave)
#define IN_PLAIN_DIR(function)                                                                     \
        cmocka_unit_test_setup_teardown(function, enter_plain, tk_test_dir_leave)

/* A directory of the filesystem, known and open. */
struct directory {
        struct tk_inode *inode;
        int fd;
};

/* The directory "c/root/@name", made below the filesystem if it is not there. */
static struct directory find_dir(const char *name)
{
        struct directory dir;
        struct stat st;
        char path[300];

        snprintf(path, sizeof(path), "c/root/%s", name);
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        dir.fd = open(path, O_PATH | O_DIRECTORY);
        assert_true(dir.fd >= 0);
        assert_int_equal(fstat(dir.fd, &st), 0);
        assert_int_equal(
                tk_inode_lookup(test.fs->inodes, test.root, test.fs->rootfd, name, &st, &dir.inode),
                0);
        return dir;
}

static void lose_dir(struct directory *dir)
{
        close(dir->fd);
        tk_inode_forget(test.fs->inodes, dir->inode, 1);
}

static int get(const struct directory *dir, struct tk_dirkey **ret_key)
{
        return tk_dirkey_get(test.fs, dir->inode, dir->fd, ret_key);
}

static int need(const struct directory *dir, struct tk_dirkey **ret_key)
{
        return tk_dirkey_need(test.fs, dir->inode, dir->fd, ret_key);
}

/* The directory's DEK, as the caller of get would have it; freed by the caller. */
static struct tk_secret *dek_of(const struct directory *dir)
{
        struct tk_dirkey *key = NULL;
        struct tk_secret *dek;

        assert_int_equal(need(dir, &key), 0);
        dek = tk_test_secret(tk_secret_bytes(tk_dirkey_dek(key)), TK_KEY_LEN);
        tk_dirkey_put(test.fs, key);
        return dek;
}

static void touch(const char *path)
{
        int fd = open(path, O_CREAT | O_WRONLY, 0644);

        assert_true(fd >= 0);
        close(fd);
}

static void test_get__an_empty_directory_has_no_key_until_one_is_needed(void **state)
{
        struct tk_dirkey *first = NULL;
        struct tk_dirkey *second = NULL;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        assert_int_equal(get(&dir, &first), -ENODATA);
        assert_int_equal(need(&dir, &first), 0);
        assert_int_equal(getxattr("c/root/d", TK_KEYATTR_NAME, NULL, 0), TK_RECORD_LEN);
        assert_int_equal(get(&dir, &second), 0);
        assert_ptr_equal(first, second);
        assert_int_equal(tk_secret_len(tk_dirkey_names(first)), 64);
        tk_dirkey_put(test.fs, first);
        tk_dirkey_put(test.fs, second);
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_mkdir__gives_the_record_and_the_mode(void **state)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 027};
        struct tk_entry entry;

        tk_test_fs_start(&test);
        assert_int_equal(tk_op_mkdir(test.fs, test.root, "made", 01777, &caller, &entry), 0);
        assert_int_equal(entry.st.st_mode & 07777, 01750);
        tk_inode_forget(test.fs->inodes, entry.inode, 1);
        assert_int_equal(tk_op_mkdir(test.fs, test.root, "closed", 0100, &caller, &entry), 0);
        assert_int_equal(entry.st.st_mode & 07777, 0100);
        tk_inode_forget(test.fs->inodes, entry.inode, 1);
        tk_test_fs_stop(&test);
}

static void test_get__the_key_is_the_same_after_a_remount(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *before = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *after = NULL;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        before = dek_of(&dir);
        lose_dir(&dir);
        tk_test_fs_stop(&test);

        tk_test_fs_start(&test);
        dir = find_dir("d");
        after = dek_of(&dir);
        assert_true(tk_secret_equal(before, after));
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_get__entries_without_a_record_are_an_error_that_is_counted(void **state)
{
        struct tk_dirkey *key = NULL;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        touch("c/root/d/entry");
        assert_int_equal(get(&dir, &key), -EIO);
        assert_int_equal(need(&dir, &key), -EIO);
        assert_int_equal(test.fs->stats.record_failures, 2);
        assert_int_equal(getxattr("c/root/d", TK_KEYATTR_NAME, NULL, 0), -1);
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_get__siblings_without_entries_are_no_entries(void **state)
{
        struct tk_dirkey *key = NULL;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        assert_int_equal(
                symlink("AAAA", "c/root/d/@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.name"), 0);
        assert_int_equal(get(&dir, &key), -ENODATA);
        touch("c/root/d/@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert_int_equal(get(&dir, &key), -EIO);
        lose_dir(&dir);
        dir = find_dir("e");
        /* What is no symlink is no sibling. */
        touch("c/root/e/@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.name");
        assert_int_equal(get(&dir, &key), -EIO);
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_need__with_plain_names_a_full_directory_gets_a_record(void **state)
{
        struct tk_dirkey *key = NULL;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        touch("c/root/d/entry");
        assert_int_equal(get(&dir, &key), -ENODATA);
        assert_int_equal(need(&dir, &key), 0);
        assert_null(tk_dirkey_names(key));
        tk_dirkey_put(test.fs, key);
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_get__a_damaged_record_is_neither_used_nor_replaced(void **state)
{
        uint8_t record[TK_RECORD_LEN];
        struct tk_dirkey *key = NULL;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        assert_int_equal(tk_dirkey_make(test.fs, dir.fd), 0);
        assert_int_equal(tk_dirkey_make(test.fs, dir.fd), -EEXIST);
        assert_int_equal(getxattr("c/root/d", TK_KEYATTR_NAME, record, TK_RECORD_LEN),
                         TK_RECORD_LEN);
        for (size_t len = 0; len <= TK_RECORD_LEN; len += 16) {
                record[40] ^= 1;
                assert_int_equal(setxattr("c/root/d", TK_KEYATTR_NAME, record, len, 0), 0);
                record[40] ^= len < TK_RECORD_LEN;
                assert_int_equal(get(&dir, &key), -EIO);
                assert_int_equal(need(&dir, &key), -EIO);
        }
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_get__another_directory_with_the_same_number_is_another(void **state)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *before = NULL;
        TK_CLEANUP(tk_secret_freep) struct tk_secret *after = NULL;
        struct tk_removal removal;
        struct directory dir;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        before = dek_of(&dir);
        assert_int_equal(tk_inode_removal_begin(test.fs->inodes, test.fs->rootfd, "d", &removal),
                         0);
        assert_int_equal(rmdir("c/root/d"), 0);
        tk_inode_removal_end(&removal, true);
        lose_dir(&dir);

        dir = find_dir("d");
        after = dek_of(&dir);
        assert_false(tk_secret_equal(before, after));
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_wipe_all__a_key_in_use_lives_until_it_is_put_back(void **state)
{
        struct tk_dirkey *key = NULL;
        struct directory dir;
        size_t alive;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        alive = tk_secret_alive();
        assert_int_equal(need(&dir, &key), 0);
        assert_int_equal(tk_secret_alive(), alive + 2);
        tk_dirkey_wipe_all(test.fs);
        assert_int_equal(tk_secret_alive(), alive + 2);
        tk_dirkey_put(test.fs, key);
        assert_int_equal(tk_secret_alive(), alive);
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

static void test_get__nothing_is_kept_while_the_mount_is_closed(void **state)
{
        struct tk_dirkey *key = NULL;
        struct directory dir;
        size_t alive;

        tk_test_fs_start(&test);
        dir = find_dir("d");
        alive = tk_secret_alive();
        /* As a request that was let in before: the keyring is still open. */
        test.fs->gate = -EKEYREVOKED;
        assert_int_equal(need(&dir, &key), 0);
        tk_dirkey_put(test.fs, key);
        assert_int_equal(tk_secret_alive(), alive);
        test.fs->gate = 0;
        lose_dir(&dir);
        tk_test_fs_stop(&test);
}

enum { KEPT = 4, DIRECTORIES = 40 };

static void test_get__those_used_longest_ago_make_room(void **state)
{
        struct directory dirs[DIRECTORIES];
        struct tk_dirkeys *keys = NULL;
        struct tk_dirkey *first = NULL;
        struct tk_dirkey *key = NULL;
        size_t alive;
        char name[8];

        tk_test_fs_start(&test);
        tk_dirkeys_free(test.fs->dirkeys);
        assert_int_equal(tk_dirkeys_new(KEPT, &keys), 0);
        test.fs->dirkeys = keys;
        alive = tk_secret_alive();
        for (int i = 0; i < DIRECTORIES; i++) {
                snprintf(name, sizeof(name), "%d", i);
                dirs[i] = find_dir(name);
                assert_int_equal(need(&dirs[i], &key), 0);
                if (i == 0)
                        first = key;
                tk_dirkey_put(test.fs, key);
                /* In use all the time, it stays. */
                assert_int_equal(get(&dirs[0], &key), 0);
                assert_ptr_equal(key, first);
                tk_dirkey_put(test.fs, key);
        }
        assert_int_equal(tk_secret_alive(), alive + 2UL * KEPT);
        for (int i = 0; i < DIRECTORIES; i++)
                lose_dir(&dirs[i]);
        tk_test_fs_stop(&test);
}

enum { THREADS = 8, ROUNDS = 50 };

struct race {
        struct directory dir;
        pthread_barrier_t start;
        struct tk_secret *deks[THREADS];
        atomic_uint next;
};

static void *need_at_once(void *context)
{
        struct race *race = context;
        unsigned i = race->next++;

        pthread_barrier_wait(&race->start);
        race->deks[i] = dek_of(&race->dir);
        return NULL;
}

static void test_need__all_who_need_it_at_once_get_the_same_key(void **state)
{
        pthread_t threads[THREADS];
        struct race race;
        char name[8];

        tk_test_fs_start(&test);
        for (int round = 0; round < ROUNDS; round++) {
                memset(&race, 0, sizeof(race));
                snprintf(name, sizeof(name), "%d", round);
                race.dir = find_dir(name);
                pthread_barrier_init(&race.start, NULL, THREADS);
                for (int i = 0; i < THREADS; i++)
                        assert_int_equal(pthread_create(&threads[i], NULL, need_at_once, &race), 0);
                for (int i = 0; i < THREADS; i++)
                        pthread_join(threads[i], NULL);
                for (int i = 1; i < THREADS; i++)
                        assert_true(tk_secret_equal(race.deks[0], race.deks[i]));
                for (int i = 0; i < THREADS; i++)
                        tk_secret_free(race.deks[i]);
                pthread_barrier_destroy(&race.start);
                lose_dir(&race.dir);
        }
        tk_test_fs_stop(&test);
}

static void *look_until_there_is_one(void *context)
{
        struct directory *dir = context;
        struct tk_dirkey *key;
        int r;

        while ((r = get(dir, &key)) == -ENODATA)
                ;
        if (r == 0)
                tk_dirkey_put(test.fs, key);
        return (void *)(intptr_t)r;
}

/* The record comes before the entry, so that who saw none and then an entry looks again. */
static void test_get__a_record_and_an_entry_that_come_meanwhile_are_no_damage(void **state)
{
        struct directory dir;
        pthread_t thread;
        char name[8];
        char path[300];
        void *r;

        tk_test_fs_start(&test);
        for (int round = 0; round < 40 * ROUNDS; round++) {
                snprintf(name, sizeof(name), "%d", round);
                dir = find_dir(name);
                assert_int_equal(pthread_create(&thread, NULL, look_until_there_is_one, &dir), 0);
                usleep((unsigned)(round % 50));
                assert_int_equal(tk_dirkey_make(test.fs, dir.fd), 0);
                snprintf(path, sizeof(path), "c/root/%s/entry", name);
                assert_int_equal(mknod(path, S_IFREG | 0600, 0), 0);
                pthread_join(thread, &r);
                assert_int_equal((int)(intptr_t)r, 0);
                lose_dir(&dir);
        }
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                IN_DIR(test_get__an_empty_directory_has_no_key_until_one_is_needed),
                IN_DIR(test_mkdir__gives_the_record_and_the_mode),
                IN_DIR(test_get__the_key_is_the_same_after_a_remount),
                IN_DIR(test_get__entries_without_a_record_are_an_error_that_is_counted),
                IN_DIR(test_get__siblings_without_entries_are_no_entries),
                IN_PLAIN_DIR(test_need__with_plain_names_a_full_directory_gets_a_record),
                IN_DIR(test_get__a_damaged_record_is_neither_used_nor_replaced),
                IN_DIR(test_get__another_directory_with_the_same_number_is_another),
                IN_DIR(test_wipe_all__a_key_in_use_lives_until_it_is_put_back),
                IN_DIR(test_get__nothing_is_kept_while_the_mount_is_closed),
                IN_DIR(test_get__those_used_longest_ago_make_room),
                IN_DIR(test_need__all_who_need_it_at_once_get_the_same_key),
                IN_DIR(test_get__a_record_and_an_entry_that_come_meanwhile_are_no_damage),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
