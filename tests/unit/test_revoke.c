/* SPDX-License-Identifier: Apache-2.0 */

/* Revocation: what is refused when, what is wiped, and what can't slip in meanwhile. */

#include "support_fs.h"

#include "fs/content.h"
#include "fs/revoke.h"
#include "fs/rewrap.h"

static struct tk_test_fs test;
static struct tk_inode *inode;
static struct tk_openfile *file;

static int enter(void **state)
{
        memset(&test, 0, sizeof(test));
        return tk_test_dir_enter(state);
}

static void start(void)
{
        uint8_t bytes[5000];

        tk_test_fs_start(&test);
        file = tk_test_create(&test, "f", &inode);
        memset(bytes, 'x', sizeof(bytes));
        assert_int_equal(tk_content_write(test.fs, file, 0, bytes, sizeof(bytes)), 0);
}

static void finish(void)
{
        tk_test_close(&test, file, inode);
        tk_test_fs_stop(&test);
}

static int read_error(void)
{
        const uint8_t *data = NULL;
        ssize_t n = tk_content_read(test.fs, file, 0, 5000, &data);

        if (n < 0)
                return (int)n;
        assert_int_equal(n, 5000);
        assert_int_equal(data[4999], 'x');
        return 0;
}

/* What the gate said each time that an inode was dropped; the first sweep writes back. */
struct sweeps {
        unsigned passed;
        unsigned refused;
};

static void drop(void *context, struct tk_inode *dropped)
{
        struct sweeps *sweeps = context;

        assert_int_equal(tk_revoke_gate(test.fs, false), -EKEYREVOKED);
        if (tk_revoke_gate(test.fs, true) == 0) {
                sweeps->passed++;
                if (dropped == inode)
                        assert_int_equal(tk_content_write(test.fs, file, 4999, (uint8_t[]){'x'}, 1),
                                         0);
        } else {
                sweeps->refused++;
        }
}

static void test_close__writeback_passes_in_the_first_sweep_only(void **state)
{
        struct sweeps sweeps = {0};
        struct tk_revoke_kernel kernel = {.invalidate = drop, .context = &sweeps};
        struct tk_fault fault = {0};

        start();
        assert_int_equal(tk_revoke_gate(test.fs, false), 0);
        tk_revoke_close(test.fs, -EKEYREVOKED, &kernel);
        assert_int_equal(sweeps.passed, 2); /* the root and the file */
        assert_int_equal(sweeps.refused, 2);
        assert_null(file->dek);
        assert_int_equal(read_error(), -EKEYREVOKED);
        tk_revoke_again(test.fs, &kernel);
        assert_int_equal(sweeps.passed, 2);
        assert_int_equal(sweeps.refused, 4);
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), 0);
        assert_int_equal(tk_revoke_gate(test.fs, false), 0);
        assert_int_equal(read_error(), 0);
        finish();
}

static void ignore(void *context, struct tk_inode *dropped)
{
        (void)context;
        (void)dropped;
}

static const struct tk_revoke_kernel no_kernel = {.invalidate = ignore};

static void test_close__a_file_opened_late_keeps_no_key(void **state)
{
        struct tk_openfile *late = NULL;
        struct tk_fault fault = {0};
        struct tk_inode *other;

        start();
        tk_op_release(test.fs, tk_test_create(&test, "late", &other), O_RDWR);
        /* As a request that was let in before: the keyring is still open. */
        test.fs->gate = -EKEYREVOKED;
        assert_int_equal(tk_openfile_get(test.fs, other, true, &late), 0);
        assert_null(late->dek);
        tk_openfile_put(test.fs, late);
        late = tk_test_create(&test, "made", &inode);
        assert_null(late->dek);
        tk_test_close(&test, late, inode);
        test.fs->gate = 0;
        tk_inode_forget(test.fs->inodes, other, 1);
        inode = file->inode;
        tk_revoke_close(test.fs, -EKEYREVOKED, &no_kernel);
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), 0);
        assert_int_equal(read_error(), 0);
        finish();
}

static void test_reopen__refused_leaves_it_closed(void **state)
{
        struct tk_fault fault = {0};

        start();
        tk_revoke_close(test.fs, -EKEYREVOKED, &no_kernel);
        test.fake.refuse = -EKEYREVOKED;
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), -EKEYREVOKED);
        assert_int_equal(fault.kind, TK_FAULT_KEY_REVOKED);
        assert_int_equal(tk_revoke_gate(test.fs, false), -EKEYREVOKED);
        assert_int_equal(read_error(), -EKEYREVOKED);
        test.fake.refuse = 0;
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), 0);
        assert_int_equal(read_error(), 0);
        finish();
}

static void test_close__no_version_comes_or_goes_meanwhile(void **state)
{
        struct tk_fault fault = {0};

        start();
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), 0);
        tk_revoke_close(test.fs, -EKEYREVOKED, &no_kernel);
        assert_int_equal(tk_volume_renew_kek(test.volume, test.kms, true, &fault), -EKEYREVOKED);
        assert_int_equal(fault.kind, TK_FAULT_KEY_REVOKED);
        assert_int_equal(tk_volume_retire_below(test.volume, 2, &fault), -EKEYREVOKED);
        assert_int_equal(tk_volume_active_count(test.volume), 2);
        assert_int_equal(tk_volume_kek_count(test.volume), 2);
        assert_int_equal(tk_revoke_reopen(test.fs, &fault), 0);
        assert_int_equal(tk_rewrap_inode(test.fs, inode), TK_REWRAP_DONE);
        assert_int_equal(tk_volume_retire_below(test.volume, 2, &fault), 0);
        assert_int_equal(tk_volume_active_count(test.volume), 1);
        assert_int_equal(read_error(), 0);
        finish();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(
                        test_close__writeback_passes_in_the_first_sweep_only, enter,
                        tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_close__a_file_opened_late_keeps_no_key, enter,
                                                tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_reopen__refused_leaves_it_closed, enter,
                                                tk_test_dir_leave),
                cmocka_unit_test_setup_teardown(test_close__no_version_comes_or_goes_meanwhile,
                                                enter, tk_test_dir_leave),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
