/* SPDX-License-Identifier: Apache-2.0 */

/* reload: before there is a keeper, whose windows it sets, nothing changes, nor is said to. */

#include "support_fs.h"

#include "cli/reload.h"
#include "fs/keeper.h"

static struct tk_test_fs test;
static const struct tk_provider provider = {.name = "fake", .place_name = "key"};

static int enter(void **state)
{
        memset(&test, 0, sizeof(test));
        return tk_test_dir_enter(state);
}

static void write_conf(unsigned grace_s)
{
        FILE *file = fopen("x.conf", "w");

        assert_non_null(file);
        fprintf(file, "[kms]\noutage_grace = %u\n", grace_s);
        assert_int_equal(fclose(file), 0);
}

static void start_keeper(unsigned grace_s)
{
        struct tk_keeper_options options = {
                .lease = {.window_ms = 60000, .grace_ms = (int64_t)grace_s * 1000}};
        struct tk_revoke_kernel kernel = {0}; /* not asked: nothing is revoked */

        assert_int_equal(tk_keeper_new(test.fs, &options, &kernel, &test.fs->keeper), 0);
}

static void test_reload__waits_for_the_keeper(void **state)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        struct tk_mountopts opts = {0};
        struct tk_reload reload = {.path = "x.conf", .opts = &opts};
        struct tk_fault fault = {0};
        json_t *changed = NULL;
        json_t *waiting = NULL;

        tk_test_fs_start(&test);
        write_conf(60);
        assert_int_equal(tk_conf_load("x.conf", &conf, &fault), 0);
        assert_int_equal(tk_rotation_new(test.volume, &provider, &(struct tk_rotation_options){0},
                                         &reload.rotation),
                         0);
        reload.conf = conf;
        reload.fs = test.fs;

        write_conf(7200);
        assert_int_equal(tk_reload(&reload, &changed, &waiting, &fault), -EAGAIN);
        assert_int_equal(fault.kind, TK_FAULT_IN_USE);
        assert_non_null(strstr(fault.text, "try again"));
        assert_int_equal(conf->kms.outage_grace, 60);

        /* As the mount goes on. */
        start_keeper(conf->kms.outage_grace);
        assert_int_equal(tk_reload(&reload, &changed, &waiting, &fault), 0);
        assert_int_equal(json_array_size(changed), 1);
        assert_int_equal(json_array_size(waiting), 0);
        assert_int_equal(conf->kms.outage_grace, 7200);
        json_decref(changed);
        json_decref(waiting);

        test.fs->keeper = tk_keeper_free(test.fs->keeper);
        tk_rotation_free(reload.rotation);
        tk_test_fs_stop(&test);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_reload__waits_for_the_keeper, enter,
                                                tk_test_dir_leave),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
