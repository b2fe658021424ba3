/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Inode table: counts, removal, renaming, descriptors. Every test runs by file handle,
 * where that is possible, and by place.
 */

#include "support_fs.h"

#include <dirent.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>

static struct tk_test_fs test;
static bool by_place; /* in the second round; without privilege, in both */

static int enter(void **state)
{
        int r = tk_test_dir_enter(state);

        memset(&test, 0, sizeof(test));
        tk_test_fs_start(&test);
        return r;
}

static int leave(void **state)
{
        tk_test_fs_stop(&test);
        return tk_test_dir_leave(state);
}

static struct tk_inode_table *table(void)
{
        return test.fs->inodes;
}

static uint64_t known(void)
{
        return tk_fs_stats(test.fs)->known_inodes;
}

/* Make an empty file; its entry is counted once. */
static struct tk_inode *make_file(const char *name)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = tk_test_create(&test, name, &inode);

        tk_op_release(test.fs, file, O_RDWR);
        return inode;
}

static struct tk_inode *make_dir(struct tk_inode *parent, const char *name)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 022};
        struct tk_entry entry;

        assert_int_equal(tk_op_mkdir(test.fs, parent, name, 0755, &caller, &entry), 0);
        return entry.inode;
}

static struct tk_inode *make_file_in(struct tk_inode *parent, const char *name)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 022};
        struct tk_entry entry;

        assert_int_equal(tk_op_mknod(test.fs, parent, name, S_IFREG | 0644, 0, &caller, &entry), 0);
        return entry.inode;
}

static struct tk_inode *look_up(struct tk_inode *parent, const char *name)
{
        struct tk_entry entry;

        assert_int_equal(tk_op_lookup(test.fs, parent, name, &entry), 0);
        return entry.inode;
}

static void forget(struct tk_inode *inode, uint64_t count)
{
        tk_inode_forget(table(), inode, count);
}

/* What tk_inode_open leads to; 0 and -ESTALE included. */
static int64_t opened_number(struct tk_inode *inode, int flags)
{
        TK_AUTOCLOSE int fd = tk_inode_open(table(), inode, flags);
        struct stat st;

        if (fd < 0)
                return fd;
        assert_int_equal(fstat(fd, &st), 0);
        return (int64_t)st.st_ino;
}

static void check_reaches(struct tk_inode *inode)
{
        assert_int_equal(opened_number(inode, O_PATH | O_NOFOLLOW), tk_inode_number(inode));
}

static unsigned count_descriptors(void)
{
        DIR *dir = opendir("/proc/self/fd");
        unsigned count = 0;

        assert_non_null(dir);
        while (readdir(dir))
                count++;
        closedir(dir);
        return count;
}

static void test_lookup__counts(void **state)
{
        struct tk_inode *inode = make_file("f");
        struct tk_entry entry;

        assert_int_equal(known(), 2);
        for (int i = 0; i < 5; i++)
                assert_ptr_equal(look_up(test.root, "f"), inode);
        tk_inode_ref(table(), inode);
        forget(inode, 6);
        assert_int_equal(known(), 2);
        check_reaches(inode);
        tk_inode_unref(table(), inode);
        assert_int_equal(known(), 1);
        assert_int_equal(tk_op_lookup(test.fs, test.root, "absent", &entry), -ENOENT);
        assert_int_equal(known(), 1);
}

static void test_lookup__hard_links_are_one(void **state)
{
        struct tk_inode *inode = make_file("f");
        struct tk_entry entry;

        assert_int_equal(tk_op_link(test.fs, inode, test.root, "g", &entry), 0);
        assert_ptr_equal(entry.inode, inode);
        assert_ptr_equal(look_up(test.root, "g"), inode);
        forget(inode, 3);
        assert_int_equal(known(), 1);
}

static void test_lookup__many(void **state)
{
        enum { MANY = 3000 };
        struct tk_inode **inodes = calloc(MANY, sizeof(struct tk_inode *));
        unsigned descriptors = count_descriptors();
        char name[32];

        for (int i = 0; i < MANY; i++) {
                snprintf(name, sizeof(name), "%d", i);
                inodes[i] = make_file_in(test.root, name);
        }
        assert_int_equal(known(), MANY + 1);
        assert_int_equal(count_descriptors(), descriptors);
        for (int i = 0; i < MANY; i++) {
                check_reaches(inodes[i]);
                snprintf(name, sizeof(name), "%d", i);
                assert_ptr_equal(look_up(test.root, name), inodes[i]);
                forget(inodes[i], 2);
        }
        assert_int_equal(known(), 1);
        free(inodes);
}

/* Deeper than a path may be long. */
static void test_open__deep(void **state)
{
        enum { DEPTH = 300 };
        struct tk_inode *dirs[DEPTH];
        struct tk_inode *parent = test.root;
        char name[200];
        char below[2 * sizeof(name) + 1];

        memset(name, 'd', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        for (int i = 0; i < DEPTH; i++)
                parent = dirs[i] = make_dir(parent, name);
        for (int i = 0; i < DEPTH; i += 17)
                check_reaches(dirs[i]);
        check_reaches(dirs[DEPTH - 1]);
        /* The parents are kept by their children, in any order of forgetting. */
        for (int i = 0; i < DEPTH; i++)
                forget(dirs[i], 1);
        assert_int_equal(known(), 1);
        /* Too deep for the teardown: taken off from the top. */
        assert_int_equal(chdir("c/root"), 0);
        for (int i = 1; i < DEPTH; i++) {
                snprintf(below, sizeof(below), "%s/%s", name, name);
                assert_int_equal(rename(below, "next"), 0);
                assert_int_equal(rmdir(name), 0);
                assert_int_equal(rename("next", name), 0);
        }
        assert_int_equal(chdir("../.."), 0);
}

static void test_unlink__open_file_lives_on(void **state)
{
        struct tk_inode *inode = NULL;
        struct tk_openfile *file = tk_test_create(&test, "f", &inode);
        struct tk_setattr set = {.what = TK_SETATTR_MODE | TK_SETATTR_SIZE, .mode = 0600};
        struct tk_inode *again;
        struct stat st;

        set.size = 5000;
        assert_int_equal(tk_op_unlink(test.fs, test.root, "f", false), 0);
        assert_int_equal(tk_op_getattr(test.fs, inode, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        assert_int_equal(tk_op_setattr(test.fs, inode, &set, &st), 0);
        assert_int_equal(st.st_size, 5000);
        assert_int_equal(st.st_mode & 07777, 0600);
        check_reaches(inode);
        /* Its name is free: what comes there is another inode. */
        again = make_file("f");
        assert_ptr_not_equal(again, inode);
        check_reaches(again);
        check_reaches(inode);
        forget(again, 1);
        tk_test_close(&test, file, inode);
        assert_int_equal(known(), 1);
}

/* Known, but not open: reached until the kernel forgets it, and no longer. */
static void test_unlink__idle_file(void **state)
{
        unsigned descriptors = count_descriptors();
        struct tk_inode *inode = make_file("f");
        struct stat st;

        assert_int_equal(tk_op_unlink(test.fs, test.root, "f", false), 0);
        assert_int_equal(tk_op_getattr(test.fs, inode, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        check_reaches(inode);
        forget(inode, 1);
        assert_int_equal(count_descriptors(), descriptors);
        assert_int_equal(known(), 1);
}

/*
 * By place, a removed inode must not be found again in a new file at its name that got
 * its number: here, the removal is announced and the file stays.
 */
static void test_unlink__number_used_again(void **state)
{
        TK_AUTOCLOSE int rootfd = tk_inode_open(table(), test.root, O_PATH | O_DIRECTORY);
        struct tk_inode *inode = make_file("f");
        struct tk_removal removal;
        struct tk_inode *again;

        assert_int_equal(tk_inode_removal_begin(table(), rootfd, "f", &removal), 0);
        tk_inode_removal_end(&removal, true);
        again = look_up(test.root, "f");
        assert_ptr_not_equal(again, inode);
        check_reaches(again);
        check_reaches(inode); /* by the descriptor that it kept */
        forget(again, 1);
        forget(inode, 1);
}

static void test_unlink__directory_in_use(void **state)
{
        struct tk_inode *dir = make_dir(test.root, "d");
        struct tk_entry entry;

        assert_int_equal(tk_op_unlink(test.fs, test.root, "d", true), 0);
        check_reaches(dir);
        assert_int_equal(tk_op_lookup(test.fs, dir, "x", &entry), -ENOENT);
        forget(dir, 1);
        assert_int_equal(known(), 1);
}

static void test_unlink__one_of_two_names(void **state)
{
        struct tk_inode *inode = make_file("f");
        struct tk_entry entry;

        assert_int_equal(tk_op_link(test.fs, inode, test.root, "g", &entry), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "f", false), 0);
        check_reaches(inode);
        assert_ptr_equal(look_up(test.root, "g"), inode);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "g", false), 0);
        forget(inode, 3);

        inode = make_file("f");
        assert_int_equal(tk_op_link(test.fs, inode, test.root, "g", &entry), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "g", false), 0);
        check_reaches(inode);
        assert_ptr_equal(look_up(test.root, "f"), inode);
        forget(inode, 3);
        assert_int_equal(known(), 1);
}

/* As git makes its objects: written under one name, linked to another, the first removed. */
static void test_unlink__linked_and_removed_holds_no_descriptor(void **state)
{
        enum { MANY = 60 };
        unsigned descriptors = count_descriptors();
        struct tk_inode *inodes[MANY];
        char name[32];

        for (int i = 0; i < MANY; i++) {
                struct tk_entry entry;

                inodes[i] = make_file("tmp");
                snprintf(name, sizeof(name), "object-%d", i);
                assert_int_equal(tk_op_link(test.fs, inodes[i], test.root, name, &entry), 0);
                assert_int_equal(tk_op_unlink(test.fs, test.root, "tmp", false), 0);
        }
        assert_int_equal(count_descriptors(), descriptors);
        for (int i = 0; i < MANY; i++) {
                check_reaches(inodes[i]);
                forget(inodes[i], 2);
        }
        assert_int_equal(known(), 1);
}

static void test_unlink__refused(void **state)
{
        struct tk_inode *dir = make_dir(test.root, "d");
        struct tk_inode *file = make_file_in(dir, "f");

        assert_int_equal(tk_op_unlink(test.fs, test.root, "d", true), -ENOTEMPTY);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "absent", false), -ENOENT);
        assert_ptr_equal(look_up(test.root, "d"), dir);
        assert_ptr_equal(look_up(dir, "f"), file);
        check_reaches(file);
        forget(file, 2);
        forget(dir, 2);
        assert_int_equal(known(), 1);
}

static void test_rename__everything_below_moves(void **state)
{
        struct tk_inode *a = make_dir(test.root, "a");
        struct tk_inode *b = make_dir(test.root, "b");
        struct tk_inode *sub = make_dir(a, "sub");
        struct tk_inode *file = make_file_in(sub, "f");

        assert_int_equal(tk_op_rename(test.fs, a, "sub", b, "moved", 0), 0);
        check_reaches(sub);
        check_reaches(file);
        assert_ptr_equal(look_up(b, "moved"), sub);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "a", true), 0);
        check_reaches(file);
        forget(a, 1);
        assert_int_equal(tk_op_rename(test.fs, test.root, "b", test.root, "c", 0), 0);
        check_reaches(file);
        forget(sub, 2);
        forget(b, 1);
        check_reaches(file);
        forget(file, 1);
        assert_int_equal(known(), 1);
}

static void test_rename__over_another(void **state)
{
        struct tk_inode *from = make_file("from");
        struct tk_inode *open_victim = NULL;
        struct tk_openfile *file = tk_test_create(&test, "to", &open_victim);
        struct tk_inode *idle_victim;
        struct stat st;

        assert_int_equal(
                tk_op_rename(test.fs, test.root, "from", test.root, "to", RENAME_NOREPLACE),
                -EEXIST);
        check_reaches(open_victim);
        assert_int_equal(tk_op_rename(test.fs, test.root, "from", test.root, "to", 0), 0);
        check_reaches(from);
        check_reaches(open_victim);
        assert_int_equal(tk_op_getattr(test.fs, open_victim, &st), 0);
        assert_int_equal(st.st_nlink, 0);
        assert_ptr_equal(look_up(test.root, "to"), from);

        idle_victim = make_file("other");
        assert_int_equal(tk_op_rename(test.fs, test.root, "to", test.root, "other", 0), 0);
        check_reaches(idle_victim);
        check_reaches(from);
        forget(idle_victim, 1);
        forget(from, 2);
        tk_test_close(&test, file, open_victim);
        assert_int_equal(known(), 1);
}

static void test_rename__exchange(void **state)
{
        struct tk_inode *dir = make_dir(test.root, "d");
        struct tk_inode *inner = make_file_in(dir, "inner");
        struct tk_inode *file = make_file("f");

        assert_int_equal(tk_op_rename(test.fs, test.root, "d", test.root, "f", RENAME_EXCHANGE), 0);
        check_reaches(dir);
        check_reaches(file);
        check_reaches(inner);
        assert_ptr_equal(look_up(test.root, "f"), dir);
        assert_ptr_equal(look_up(test.root, "d"), file);
        forget(inner, 1);
        forget(dir, 2);
        forget(file, 2);
        assert_int_equal(known(), 1);
}

/* A name of the same file: nothing happens, and nothing is lost. */
static void test_rename__onto_itself(void **state)
{
        struct tk_inode *inode = make_file("f");
        struct tk_entry entry;

        assert_int_equal(tk_op_link(test.fs, inode, test.root, "g", &entry), 0);
        assert_int_equal(tk_op_rename(test.fs, test.root, "f", test.root, "g", 0), 0);
        assert_ptr_equal(look_up(test.root, "f"), inode);
        assert_ptr_equal(look_up(test.root, "g"), inode);
        check_reaches(inode);
        forget(inode, 4);
        assert_int_equal(known(), 1);
}

/* A symlink is never followed, whoever put it there. */
static void test_open__never_through_a_symlink(void **state)
{
        struct tk_inode *dir = make_dir(test.root, "d");
        struct tk_inode *file = make_file_in(dir, "f");
        int64_t found;

        assert_int_equal(rename("c/root/d", "c/away"), 0);
        assert_int_equal(symlink("../away", "c/root/d"), 0);
        found = opened_number(file, O_PATH | O_NOFOLLOW);
        if (by_place)
                assert_true(found < 0);
        else
                assert_int_equal(found, tk_inode_number(file));
        assert_int_equal(unlink("c/root/d"), 0);
        assert_int_equal(rename("c/away", "c/root/d"), 0);
        forget(file, 1);
        forget(dir, 1);
}

static void look_up_a_mount(void)
{
        struct tk_inode_table *mounted = NULL;
        struct tk_inode *inode = NULL;
        struct tk_stats stats = {0};
        struct stat st;
        int rootfd;

        TK_CHILD_REQUIRE(unshare(CLONE_NEWNS) == 0);
        TK_CHILD_REQUIRE(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
        TK_CHILD_REQUIRE(mount("none", "c/root/d", "tmpfs", 0, "size=64k") == 0);
        rootfd = open("c/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        TK_CHILD_REQUIRE(tk_inode_table_new(rootfd, &stats, &mounted) == 0);
        TK_CHILD_REQUIRE(fstatat(rootfd, "d", &st, 0) == 0);
        TK_CHILD_REQUIRE(tk_inode_lookup(mounted, tk_inode_root(mounted), rootfd, "d", &st,
                                         &inode) == -EXDEV);
        tk_inode_table_free(mounted);
        close(rootfd);
}

/* The handles of another filesystem would lead to any file of ours. */
static void test_lookup__mounted_below(void **state)
{
        if (geteuid() != 0 || by_place)
                skip();
        assert_int_equal(mkdir("c/root/d", 0755), 0);
        tk_test_in_child(look_up_a_mount);
}

/* Threads: look-ups, forgets, links and removals of the same few names. */
enum { THREADS = 6, ROUNDS = 1500, NAMES = 4 };

static void *names_main(void *context)
{
        struct tk_caller caller = {.uid = geteuid(), .gid = getegid(), .umask = 022};
        unsigned seed = (unsigned)(uintptr_t)context;
        struct tk_entry dir;
        struct tk_entry entry;
        char name[16];
        char other[16];

        for (int i = 0; i < ROUNDS; i++) {
                struct tk_openfile *file;

                seed = seed * 1103515245 + 12345;
                snprintf(name, sizeof(name), "n%u", (seed >> 16) % NAMES);
                snprintf(other, sizeof(other), "n%u", (seed >> 20) % NAMES);
                if (tk_op_lookup(test.fs, test.root, "dir", &dir) < 0)
                        abort();
                switch ((seed >> 24) % 6) {
                case 0:
                        if (tk_op_mknod(test.fs, dir.inode, name, S_IFREG | 0644, 0, &caller,
                                        &entry) == 0)
                                forget(entry.inode, 1);
                        break;
                case 1:
                        (void)!tk_op_unlink(test.fs, dir.inode, name, false);
                        break;
                case 2:
                        (void)!tk_op_rename(test.fs, dir.inode, name, dir.inode, other, 0);
                        break;
                case 3:
                        if (tk_op_lookup(test.fs, dir.inode, name, &entry) == 0) {
                                if (tk_op_open(test.fs, entry.inode, O_RDWR, &file) == 0)
                                        tk_op_release(test.fs, file, O_RDWR);
                                forget(entry.inode, 1);
                        }
                        break;
                case 4:
                        if (tk_op_lookup(test.fs, dir.inode, name, &entry) == 0) {
                                struct tk_entry linked;

                                if (tk_op_link(test.fs, entry.inode, dir.inode, other, &linked) ==
                                    0)
                                        forget(linked.inode, 1);
                                forget(entry.inode, 1);
                        }
                        break;
                default:
                        if (tk_op_lookup(test.fs, dir.inode, name, &entry) == 0) {
                                struct stat st;

                                /* The directory first: its child alone keeps it meanwhile. */
                                forget(dir.inode, 1);
                                (void)!tk_op_getattr(test.fs, entry.inode, &st);
                                forget(entry.inode, 1);
                                continue;
                        }
                }
                forget(dir.inode, 1);
        }
        return NULL;
}

static void test_table__threads(void **state)
{
        pthread_t threads[THREADS];

        assert_int_equal(mkdir("c/root/dir", 0755), 0);
        for (uintptr_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, names_main, (void *)(i + 1)), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        assert_int_equal(known(), 1);
        assert_int_equal(tk_fs_stats(test.fs)->open_files, 0);
}

/* A child is forgotten while its parent is: whoever comes last frees the parent, once. */
static pthread_barrier_t barrier;
static struct tk_inode *pair[2];

static void *forget_main(void *context)
{
        int which = (int)(uintptr_t)context;

        for (int i = 0; i < 4000; i++) {
                pthread_barrier_wait(&barrier);
                forget(pair[which], 1);
                pthread_barrier_wait(&barrier);
        }
        return NULL;
}

static void test_forget__parent_and_child_at_once(void **state)
{
        pthread_t threads[2];

        pthread_barrier_init(&barrier, NULL, 3);
        forget(make_dir(test.root, "d"), 1);
        {
                TK_AUTOCLOSE int fd = open("c/root/d/f", O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

                assert_true(fd >= 0);
        }
        for (uintptr_t i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, forget_main, (void *)i), 0);
        for (int i = 0; i < 4000; i++) {
                pair[0] = look_up(test.root, "d");
                pair[1] = look_up(pair[0], "f");
                pthread_barrier_wait(&barrier);
                pthread_barrier_wait(&barrier);
        }
        for (int i = 0; i < 2; i++)
                pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&barrier);
        assert_int_equal(known(), 1);
}

struct visited {
        struct tk_inode *inode;
        unsigned times;
};

static void note_visit(void *context, struct tk_inode *inode)
{
        struct visited *visited = context;

        for (; visited->inode; visited++)
                visited->times += visited->inode == inode;
}

/* Revocation goes by this: a removed file in use has plaintext in the kernel's cache, too. */
/* Directories in which names were asked for stay open: a few of them, until they are forgotten. */
static void test_dir_get__few_stay_open(void **state)
{
        enum { DIRS = 300, FEW = 64 };
        unsigned descriptors = count_descriptors();
        struct tk_inode *dirs[DIRS];
        char name[16];

        for (int i = 0; i < DIRS; i++) {
                snprintf(name, sizeof(name), "d%d", i);
                dirs[i] = make_dir(test.root, name);
                forget(make_file_in(dirs[i], "f"), 1);
                forget(look_up(dirs[i], "f"), 1);
        }
        assert_true(count_descriptors() <= descriptors + FEW);
        for (int i = 0; i < DIRS; i++)
                forget(dirs[i], 1);
        assert_int_equal(count_descriptors(), descriptors);
}

/* What took a removed directory's name is another one, while the old one is still in use. */
static void test_dir_get__removed_and_made_again(void **state)
{
        struct tk_inode *old = make_dir(test.root, "d");
        struct tk_entry entry;
        struct tk_inode *fresh;

        forget(make_file_in(old, "f"), 1);
        assert_int_equal(tk_op_unlink(test.fs, old, "f", false), 0);
        assert_int_equal(tk_op_unlink(test.fs, test.root, "d", true), 0);
        fresh = make_dir(test.root, "d");
        forget(make_file_in(fresh, "f"), 1);
        assert_int_equal(tk_op_lookup(test.fs, old, "f", &entry), -ENOENT);
        forget(look_up(fresh, "f"), 1);
        forget(old, 1);
        forget(look_up(fresh, "f"), 1);
        forget(fresh, 1);
}

static void test_for_each__removed_ones_too(void **state)
{
        struct tk_inode *removed = NULL;
        struct tk_openfile *file = tk_test_create(&test, "removed", &removed);
        struct tk_inode *idle = make_file("idle");
        struct visited visited[4] = {{.inode = test.root}, {.inode = removed}, {.inode = idle}};

        assert_int_equal(tk_op_unlink(test.fs, test.root, "removed", false), 0);
        tk_inode_for_each(table(), note_visit, visited);
        for (int i = 0; i < 3; i++)
                assert_int_equal(visited[i].times, 1);
        tk_test_close(&test, file, removed);
        forget(idle, 1);
        assert_int_equal(known(), 1);
}

/* Without these, files can't be opened by handle. */
static void give_up_handles(void)
{
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct data[2];

        if (syscall(SYS_capget, &header, data) < 0)
                abort();
        for (int i = 0; i < 2; i++) {
                unsigned capability = i == 0 ? CAP_DAC_READ_SEARCH : CAP_SYS_ADMIN;

                data[capability / 32].effective &= ~(1U << capability % 32);
                data[capability / 32].permitted &= ~(1U << capability % 32);
        }
        if (syscall(SYS_capset, &header, data) < 0)
                abort();
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, enter, leave)
        const struct CMUnitTest tests[] = {
                TEST(test_lookup__counts),
                TEST(test_lookup__hard_links_are_one),
                TEST(test_lookup__many),
                TEST(test_lookup__mounted_below),
                TEST(test_open__deep),
                TEST(test_open__never_through_a_symlink),
                TEST(test_unlink__open_file_lives_on),
                TEST(test_unlink__idle_file),
                TEST(test_unlink__number_used_again),
                TEST(test_unlink__directory_in_use),
                TEST(test_unlink__one_of_two_names),
                TEST(test_unlink__linked_and_removed_holds_no_descriptor),
                TEST(test_unlink__refused),
                TEST(test_rename__everything_below_moves),
                TEST(test_rename__over_another),
                TEST(test_rename__exchange),
                TEST(test_rename__onto_itself),
                TEST(test_dir_get__few_stay_open),
                TEST(test_dir_get__removed_and_made_again),
                TEST(test_for_each__removed_ones_too),
                TEST(test_forget__parent_and_child_at_once),
                TEST(test_table__threads),
        };
        int failed;

        by_place = geteuid() != 0;
        failed = cmocka_run_group_tests_name("inode", tests, NULL, NULL);

        give_up_handles();
        by_place = true;
        return failed + cmocka_run_group_tests_name("inode, by place", tests, NULL, NULL);
}
