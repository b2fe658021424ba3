/* SPDX-License-Identifier: Apache-2.0 */

/* Encrypted names through the operations: every length and byte, siblings, tampering, races. */

#include "support_fs.h"

#include "fs/dirkey.h"
#include "fs/names.h"
#include "fs/sibling.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/xattr.h>

static struct tk_test_fs test;

static int enter(void **state)
{
        memset(&test, 0, sizeof(test));
        test.names = TK_NAMES_ENCRYPTED;
        return tk_test_dir_enter(state);
}

#define IN_DIR(function) cmocka_unit_test_setup_teardown(function, enter, tk_test_dir_leave)

static struct tk_caller caller(void)
{
        return (struct tk_caller){.uid = geteuid(), .gid = getegid(), .umask = 022};
}

/* A file, made and closed. */
static int make(struct tk_inode *parent, const char *name)
{
        struct tk_caller who = caller();
        struct tk_entry entry;
        int r;

        r = tk_op_mknod(test.fs, parent, name, S_IFREG | 0644, 0, &who, &entry);
        if (r == 0)
                tk_inode_forget(test.fs->inodes, entry.inode, 1);
        return r;
}

/* A new directory, known until forgotten. */
static struct tk_inode *make_dir(struct tk_inode *parent, const char *name)
{
        struct tk_caller who = caller();
        struct tk_entry entry;

        assert_int_equal(tk_op_mkdir(test.fs, parent, name, 0755, &who, &entry), 0);
        return entry.inode;
}

static void forget(struct tk_inode *inode)
{
        tk_inode_forget(test.fs->inodes, inode, 1);
}

static int find(struct tk_inode *parent, const char *name)
{
        struct tk_entry entry;
        int r = tk_op_lookup(test.fs, parent, name, &entry);

        if (r == 0)
                forget(entry.inode);
        return r;
}

/* A descriptor of the directory below, for looking at it. */
static int open_below(struct tk_inode *dir)
{
        int fd = tk_inode_open(test.fs->inodes, dir, O_RDONLY | O_DIRECTORY);

        assert_true(fd >= 0);
        return fd;
}

static struct tk_name name_of(struct tk_inode *dir, const char *name)
{
        struct tk_name stored;
        int fd = open_below(dir);

        assert_int_equal(tk_names_need(test.fs, dir, fd, name, &stored), 0);
        close(fd);
        return stored;
}

struct search {
        const char *name;
        unsigned found;
        unsigned entries;
};

static int look_at(void *context, const struct tk_dir_entry *entry)
{
        struct search *search = context;

        if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
                return 0;
        search->entries++;
        search->found += search->name && strcmp(entry->name, search->name) == 0;
        return 0;
}

/* How many entries are listed, and how many of them are @name (NULL: any). */
static struct search list(struct tk_inode *inode, const char *name)
{
        struct search search = {.name = name};
        struct tk_dir *dir = NULL;

        assert_int_equal(tk_op_opendir(test.fs, inode, &dir), 0);
        assert_int_equal(tk_op_readdir(dir, 0, look_at, &search), 0);
        tk_op_releasedir(dir);
        return search;
}

/* Every long entry has its sibling, and no sibling is without its entry. */
static void check_siblings(struct tk_inode *inode)
{
        int fd = open_below(inode);
        DIR *dir = fdopendir(fd);
        const struct dirent *entry;
        char other[NAME_MAX + sizeof(TK_NAMES_SIBLING_END)];
        struct stat st;

        assert_non_null(dir);
        while ((entry = readdir(dir))) {
                snprintf(other, sizeof(other), "%s", entry->d_name);
                if (tk_names_is_sibling(entry->d_name))
                        other[TK_NAMES_HASHED_LEN] = '\0';
                else if (tk_names_is_hashed(entry->d_name))
                        snprintf(other, sizeof(other), "%s" TK_NAMES_SIBLING_END, entry->d_name);
                assert_int_equal(fstatat(fd, other, &st, AT_SYMLINK_NOFOLLOW), 0);
        }
        closedir(dir);
}

/* A name of @len bytes, told from others by @c. */
static const char *text(size_t len, char c)
{
        static char texts[4][TK_NAMES_MAX + 2];
        static unsigned next;
        char *name = texts[next++ % 4];

        assert_true(len <= TK_NAMES_MAX + 1);
        memset(name, c, len);
        name[len] = '\0';
        return name;
}

static void test_names__every_length_is_found_listed_and_removed(void **state)
{
        tk_test_fs_start(&test);
        for (size_t len = 1; len <= TK_NAMES_MAX; len++) {
                const char *name = text(len, 'n');
                struct tk_name stored = name_of(test.root, name);

                assert_int_equal(stored.is_long, len > TK_NAMES_SHORT_MAX);
                assert_int_equal(find(test.root, name), -ENOENT);
                assert_int_equal(make(test.root, name), 0);
                assert_int_equal(make(test.root, name), -EEXIST);
                assert_int_equal(find(test.root, name), 0);
                assert_int_equal(list(test.root, name).found, 1);
                check_siblings(test.root);
        }
        assert_int_equal(list(test.root, NULL).entries, TK_NAMES_MAX);
        for (size_t len = 1; len <= TK_NAMES_MAX; len++)
                assert_int_equal(tk_op_unlink(test.fs, test.root, text(len, 'n'), false), 0);
        assert_int_equal(make(test.root, text(TK_NAMES_MAX + 1, 'n')), -ENAMETOOLONG);
        assert_int_equal(find(test.root, text(TK_NAMES_MAX + 1, 'n')), -ENAMETOOLONG);
        assert_int_equal(tk_dirkey_is_bare(test.fs->rootfd), 1);
        check_siblings(test.root);
        tk_test_fs_stop(&test);
}

static void test_names__every_byte_is_kept(void **state)
{
        char name[8];

        tk_test_fs_start(&test);
        for (int byte = 1; byte < 256; byte++) {
                if (byte == '/')
                        continue;
                snprintf(name, sizeof(name), "a%cb", byte);
                assert_int_equal(make(test.root, name), 0);
                assert_int_equal(list(test.root, name).found, 1);
        }
        assert_int_equal(list(test.root, NULL).entries, 254);
        tk_test_fs_stop(&test);
}

static void test_names__the_same_name_is_stored_otherwise_in_another_directory(void **state)
{
        struct tk_inode *a;
        struct tk_inode *b;
        struct tk_name in_a;
        struct tk_name in_b;

        tk_test_fs_start(&test);
        a = make_dir(test.root, "a");
        b = make_dir(test.root, "b");
        in_a = name_of(a, "same");
        in_b = name_of(b, "same");
        assert_string_not_equal(in_a.backing, in_b.backing);
        in_b = name_of(a, "same");
        assert_string_equal(in_a.backing, in_b.backing);
        forget(a);
        forget(b);
        tk_test_fs_stop(&test);
}

/* What an entry @name of @dir is called below, moved to @to in @to_dir, lets be seen in @to_dir. */
static unsigned seen_after_move(struct tk_inode *dir, const char *name, struct tk_inode *to_dir,
                                const char *to)
{
        int from_fd = open_below(dir);
        int to_fd = open_below(to_dir);

        assert_int_equal(renameat(from_fd, name, to_fd, to), 0);
        close(from_fd);
        close(to_fd);
        return list(to_dir, NULL).entries;
}

static void test_read__what_does_not_authenticate_is_left_out_and_counted(void **state)
{
        struct tk_inode *a;
        struct tk_inode *b;
        struct tk_name stored;
        char changed[NAME_MAX + 1];

        tk_test_fs_start(&test);
        a = make_dir(test.root, "a");
        b = make_dir(test.root, "b");
        for (int i = 0; i < 3; i++) {
                assert_int_equal(make(a, text(10, (char)('0' + i))), 0);
                assert_int_equal(make(b, text(10, (char)('0' + i))), 0);
        }
        stored = name_of(a, text(10, '0'));
        memcpy(changed, stored.backing, sizeof(changed));
        changed[5] = changed[5] == 'A' ? 'B' : 'A';
        assert_int_equal(seen_after_move(a, stored.backing, a, changed), 2);
        assert_int_equal(test.fs->stats.name_failures, 1);
        stored = name_of(a, text(10, '1'));
        assert_int_equal(seen_after_move(a, stored.backing, b, stored.backing), 3);
        stored = name_of(a, text(10, '2'));
        assert_int_equal(seen_after_move(a, stored.backing, a, "short"), 0);
        assert_int_equal(seen_after_move(a, "short", a, "not base64url!"), 0);
        assert_int_equal(list(b, text(10, '2')).found, 1);
        forget(a);
        forget(b);
        tk_test_fs_stop(&test);
}

static void seal_into(struct tk_inode *dir, const char *plain, size_t len, uint8_t *cipher)
{
        TK_CLEANUP(tk_siv_freep) struct tk_siv *siv = NULL;
        struct tk_dirkey *key = NULL;
        int fd = open_below(dir);

        assert_int_equal(tk_dirkey_need(test.fs, dir, fd, &key), 0);
        assert_int_equal(tk_siv_new(&siv), 0);
        assert_int_equal(tk_siv_set_key(siv, tk_dirkey_names(key)), 0);
        assert_int_equal(tk_siv_seal(siv, NULL, 0, plain, len, cipher), 0);
        tk_dirkey_put(test.fs, key);
        close(fd);
}

/* No such entry can come from us: whoever made it has the key, or took a ciphertext apart. */
static void test_read__texts_that_are_no_names_are_left_out(void **state)
{
        static const struct {
                const char *plain;
                size_t len;
        } bad[] = {{"", 0}, {".", 1}, {"..", 2}, {"a/b", 3}, {"a\0b", 3}};
        uint8_t cipher[TK_NAMES_CIPHER_MAX];
        char backing[NAME_MAX + 1];

        tk_test_fs_start(&test);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                seal_into(test.root, bad[i].plain, bad[i].len, cipher);
                tk_base64url_encode(cipher, bad[i].len + TK_SIV_TAG_LEN, backing);
                close(openat(test.fs->rootfd, backing, O_CREAT | O_WRONLY, 0644));
        }
        assert_int_equal(list(test.root, NULL).entries, 0);
        assert_int_equal(test.fs->stats.name_failures, 5);
        tk_test_fs_stop(&test);
}

/* A short name stored as a long one would be a second entry of that name. */
static void test_read__a_short_name_in_the_long_form_is_left_out(void **state)
{
        uint8_t cipher[TK_NAMES_CIPHER_MAX];
        uint8_t hash[TK_MAC_LEN];
        struct tk_name stored = {.is_long = true, .backing = "@"};

        tk_test_fs_start(&test);
        assert_int_equal(make(test.root, "short"), 0);
        seal_into(test.root, "short", 5, cipher);
        tk_base64url_encode(cipher, 5 + TK_SIV_TAG_LEN, stored.target);
        assert_int_equal(tk_mac_sha256(cipher, 5 + TK_SIV_TAG_LEN, hash), 0);
        tk_base64url_encode(hash, sizeof(hash), stored.backing + 1);
        assert_int_equal(tk_sibling_add(test.fs, test.fs->rootfd, &stored), 0);
        close(openat(test.fs->rootfd, stored.backing, O_CREAT | O_WRONLY, 0644));
        assert_int_equal(list(test.root, NULL).entries, 1);
        assert_int_equal(list(test.root, "short").found, 1);
        tk_test_fs_stop(&test);
}

static void sibling_text(const struct tk_name *name, char text_[TK_NAMES_SIBLING_LEN + 1])
{
        snprintf(text_, TK_NAMES_SIBLING_LEN + 1, "%.*s" TK_NAMES_SIBLING_END,
                 (int)TK_NAMES_HASHED_LEN, name->backing);
}

static void test_sibling__without_it_an_entry_is_found_and_removed_by_name(void **state)
{
        char sibling[TK_NAMES_SIBLING_LEN + 1];
        const char *name = text(200, 'x');
        struct tk_name stored;

        tk_test_fs_start(&test);
        assert_int_equal(make(test.root, name), 0);
        stored = name_of(test.root, name);
        sibling_text(&stored, sibling);
        assert_int_equal(unlinkat(test.fs->rootfd, sibling, 0), 0);
        assert_int_equal(list(test.root, NULL).entries, 0);
        assert_int_equal(find(test.root, name), 0);
        /* Whoever tries to make it again brings the sibling back. */
        assert_int_equal(make(test.root, name), -EEXIST);
        assert_int_equal(list(test.root, name).found, 1);
        assert_int_equal(unlinkat(test.fs->rootfd, sibling, 0), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, name, false), 0);
        assert_int_equal(tk_dirkey_is_bare(test.fs->rootfd), 1);
        tk_test_fs_stop(&test);
}

static void test_sibling__a_wrong_one_is_replaced(void **state)
{
        static const char *const targets[] = {"x", "AAAA", "not base64url!"};
        char sibling[TK_NAMES_SIBLING_LEN + 1];
        const char *name = text(200, 'x');
        struct tk_name stored;

        tk_test_fs_start(&test);
        stored = name_of(test.root, name);
        sibling_text(&stored, sibling);
        for (size_t i = 0; i < 3; i++) {
                assert_int_equal(symlinkat(targets[i], test.fs->rootfd, sibling), 0);
                assert_int_equal(make(test.root, name), 0);
                assert_int_equal(list(test.root, name).found, 1);
                assert_int_equal(unlinkat(test.fs->rootfd, sibling, 0), 0);
                assert_int_equal(symlinkat(targets[i], test.fs->rootfd, sibling), 0);
                assert_int_equal(list(test.root, name).entries, 0);
                assert_int_equal(tk_op_unlink(test.fs, test.root, name, false), 0);
                check_siblings(test.root);
        }
        tk_test_fs_stop(&test);
}

/* The orphan that a crash leaves between the two steps. */
static void make_orphan(struct tk_inode *dir, char c)
{
        struct tk_name stored = name_of(dir, text(200, c));
        int fd = open_below(dir);

        assert_int_equal(tk_sibling_add(test.fs, fd, &stored), 0);
        close(fd);
}

static int rename_to(struct tk_inode *from, const char *name, struct tk_inode *to, const char *new,
                     unsigned flags)
{
        return tk_op_rename(test.fs, from, name, to, new, flags);
}

static void test_orphans__are_not_in_the_way(void **state)
{
        struct tk_inode *dir;

        tk_test_fs_start(&test);
        dir = make_dir(test.root, "d");
        make_orphan(dir, 'x');
        make_orphan(dir, 'y');
        assert_int_equal(list(dir, NULL).entries, 0);
        assert_int_equal(make(dir, text(200, 'x')), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "d", true), -ENOTEMPTY);
        assert_int_equal(list(dir, text(200, 'x')).found, 1);
        assert_int_equal(tk_op_unlink(test.fs, dir, text(200, 'x'), false), 0);
        make_orphan(dir, 'x');
        forget(dir);
        forget(make_dir(test.root, "e"));
        assert_int_equal(rename_to(test.root, "e", test.root, "d", RENAME_NOREPLACE), -EEXIST);
        assert_int_equal(rename_to(test.root, "e", test.root, "d", 0), 0);
        assert_int_equal(list(test.root, "d").entries, 1);
        dir = make_dir(test.root, text(201, 'd'));
        make_orphan(dir, 'z');
        forget(dir);
        assert_int_equal(tk_op_unlink(test.fs, test.root, text(201, 'd'), true), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "d", true), 0);
        assert_int_equal(tk_dirkey_is_bare(test.fs->rootfd), 1);
        tk_test_fs_stop(&test);
}

static const size_t lengths[] = {1, TK_NAMES_SHORT_MAX, TK_NAMES_SHORT_MAX + 1, TK_NAMES_MAX};

enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

/* One rename each way that lengths can be combined, in one directory and between two. */
static void check_renames(struct tk_inode *a, struct tk_inode *b, size_t from_len, size_t to_len)
{
        const char *from = text(from_len, 'f');
        const char *to = text(to_len, 't');

        assert_int_equal(make(a, from), 0);
        assert_int_equal(rename_to(a, from, b, to, RENAME_NOREPLACE), 0);
        assert_int_equal(list(b, to).found, 1);
        assert_int_equal(find(a, from), -ENOENT);
        assert_int_equal(rename_to(a, from, b, to, 0), -ENOENT);
        assert_int_equal(make(a, from), 0);
        assert_int_equal(rename_to(a, from, b, to, RENAME_NOREPLACE), -EEXIST);
        assert_int_equal(rename_to(a, from, b, to, RENAME_EXCHANGE), 0);
        assert_int_equal(list(a, from).found, 1);
        assert_int_equal(list(b, to).found, 1);
        check_siblings(a);
        check_siblings(b);
        assert_int_equal(rename_to(a, from, b, to, 0), 0);
        assert_int_equal(list(b, to).found, 1);
        assert_int_equal(rename_to(a, from, b, to, RENAME_EXCHANGE), -ENOENT);
        check_siblings(a);
        check_siblings(b);
        assert_int_equal(tk_op_unlink(test.fs, b, to, false), 0);
        check_siblings(b);
}

static void test_rename__between_lengths_and_directories(void **state)
{
        struct tk_inode *a;
        struct tk_inode *b;

        tk_test_fs_start(&test);
        a = make_dir(test.root, text(200, 'a'));
        b = make_dir(test.root, "b");
        for (int i = 0; i < LENGTHS; i++)
                for (int k = 0; k < LENGTHS; k++) {
                        check_renames(a, b, lengths[i], lengths[k]);
                        check_renames(a, a, lengths[i], lengths[k]);
                }
        forget(a);
        forget(b);
        tk_test_fs_stop(&test);
}

/* rename(2) of one link over another of the same file does nothing. */
static void test_rename__over_a_link_to_the_same_file_keeps_both(void **state)
{
        struct tk_entry entry;
        struct tk_entry other;

        tk_test_fs_start(&test);
        assert_int_equal(make(test.root, text(200, 'x')), 0);
        assert_int_equal(tk_op_lookup(test.fs, test.root, text(200, 'x'), &entry), 0);
        assert_int_equal(tk_op_link(test.fs, entry.inode, test.root, text(200, 'y'), &other), 0);
        assert_int_equal(tk_op_link(test.fs, entry.inode, test.root, text(200, 'y'), &other),
                         -EEXIST);
        assert_int_equal(rename_to(test.root, text(200, 'x'), test.root, text(200, 'y'), 0), 0);
        assert_int_equal(list(test.root, text(200, 'x')).entries, 2);
        check_siblings(test.root);
        tk_inode_forget(test.fs->inodes, entry.inode, 2);
        tk_test_fs_stop(&test);
}

static void test_names__without_the_directory_record_nothing_is_listed_or_made(void **state)
{
        struct tk_dir *open_dir = NULL;
        struct search search = {0};
        struct tk_inode *dir;
        int fd;

        tk_test_fs_start(&test);
        dir = make_dir(test.root, "d");
        assert_int_equal(make(dir, "lost"), 0);
        tk_dirkey_wipe_all(test.fs);
        fd = open_below(dir);
        assert_int_equal(fremovexattr(fd, "user.turnkey"), 0);
        close(fd);
        assert_int_equal(find(dir, "lost"), -EIO);
        assert_int_equal(make(dir, "new"), -EIO);
        assert_int_equal(tk_op_opendir(test.fs, dir, &open_dir), 0);
        assert_int_equal(tk_op_readdir(open_dir, 0, look_at, &search), -EIO);
        tk_op_releasedir(open_dir);
        /* It breaks nothing but itself. */
        assert_int_equal(list(test.root, "d").found, 1);
        assert_int_equal(rename_to(test.root, "d", test.root, "e", 0), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "e", true), -ENOTEMPTY);
        forget(dir);
        tk_test_fs_stop(&test);
}

enum { THREADS = 6, ROUNDS = 400 };

static void *race(void *context)
{
        uint64_t seed = (uintptr_t)context + 1;

        for (int i = 0; i < ROUNDS; i++) {
                char a[TK_NAMES_MAX + 1];
                char b[TK_NAMES_MAX + 1];

                seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;
                memset(a, (char)('a' + (seed >> 33) % 3), 200);
                memset(b, (char)('a' + (seed >> 40) % 3), 200);
                a[200] = b[200] = '\0';
                switch (seed >> 48 & 3) {
                case 0:
                        (void)!make(test.root, a);
                        break;
                case 1:
                        (void)!tk_op_unlink(test.fs, test.root, a, false);
                        break;
                case 2:
                        (void)!rename_to(test.root, a, test.root, b, 0);
                        break;
                default:
                        (void)!rename_to(test.root, a, test.root, b, RENAME_EXCHANGE);
                        break;
                }
        }
        return NULL;
}

static void test_sibling__none_is_lost_in_a_race(void **state)
{
        pthread_t threads[THREADS];

        tk_test_fs_start(&test);
        for (uintptr_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, race, (void *)i), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        check_siblings(test.root);
        list(test.root, NULL);
        assert_int_equal(test.fs->stats.name_failures, 0);
        tk_test_fs_stop(&test);
}

/* rmdir against making of long names in it: it fails, or nothing was made. */
static void *remove_dir(void *context)
{
        int *ret = context;

        for (int i = 0; i < 50; i++) {
                *ret = tk_op_unlink(test.fs, test.root, "d", true);
                if (*ret == 0)
                        break;
        }
        return NULL;
}

static void test_purge__takes_no_sibling_of_an_entry_that_is_being_made(void **state)
{
        tk_test_fs_start(&test);
        for (int round = 0; round < 100; round++) {
                struct tk_inode *dir = make_dir(test.root, "d");
                pthread_t remover;
                int removed = 0;
                int made;

                assert_int_equal(pthread_create(&remover, NULL, remove_dir, &removed), 0);
                made = make(dir, text(200, 'x'));
                pthread_join(remover, NULL);
                assert_true(made == 0 || removed == 0);
                if (made == 0) {
                        assert_int_equal(list(dir, text(200, 'x')).found, 1);
                        check_siblings(dir);
                        assert_int_equal(tk_op_unlink(test.fs, dir, text(200, 'x'), false), 0);
                        assert_int_equal(tk_op_unlink(test.fs, test.root, "d", true), 0);
                }
                forget(dir);
        }
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                IN_DIR(test_names__every_length_is_found_listed_and_removed),
                IN_DIR(test_names__every_byte_is_kept),
                IN_DIR(test_names__the_same_name_is_stored_otherwise_in_another_directory),
                IN_DIR(test_read__what_does_not_authenticate_is_left_out_and_counted),
                IN_DIR(test_read__texts_that_are_no_names_are_left_out),
                IN_DIR(test_read__a_short_name_in_the_long_form_is_left_out),
                IN_DIR(test_sibling__without_it_an_entry_is_found_and_removed_by_name),
                IN_DIR(test_sibling__a_wrong_one_is_replaced),
                IN_DIR(test_orphans__are_not_in_the_way),
                IN_DIR(test_rename__between_lengths_and_directories),
                IN_DIR(test_rename__over_a_link_to_the_same_file_keeps_both),
                IN_DIR(test_names__without_the_directory_record_nothing_is_listed_or_made),
                IN_DIR(test_sibling__none_is_lost_in_a_race),
                IN_DIR(test_purge__takes_no_sibling_of_an_entry_that_is_being_made),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
