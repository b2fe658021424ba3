/* SPDX-License-Identifier: Apache-2.0 */

/* The comma list of `mount -o`. */

#include "cli/mountopts.h"
#include "tests/unit/support.h"
#include <errno.h>

static void parse(const char *list, struct tk_mountopts *opts)
{
        struct tk_fault fault = {0};

        if (tk_mountopts_parse(list, opts, &fault) < 0)
                fail_msg("'%s': %s", list, fault.text);
}

static void test_mountopts_parse__empty(void **state)
{
        struct tk_mountopts opts;

        parse("", &opts);
        assert_null(opts.config);
        assert_null(opts.kernel);
        assert_false(opts.allow_other || opts.read_only || opts.read_write || opts.nonempty);
        assert_int_equal(opts.threads, 0);
        tk_mountopts_done(&opts);
}

static void test_mountopts_parse__ours(void **state)
{
        struct tk_mountopts opts;

        parse("config=/etc/x=y.conf,allow_other,threads=64,nonempty", &opts);
        assert_string_equal(opts.config, "/etc/x=y.conf");
        assert_true(opts.allow_other);
        assert_true(opts.nonempty);
        assert_int_equal(opts.threads, 64);
        tk_mountopts_done(&opts);
}

static void test_mountopts_parse__last_of_ro_and_rw_counts(void **state)
{
        struct tk_mountopts opts;

        parse("rw,ro", &opts);
        assert_true(opts.read_only && !opts.read_write);
        tk_mountopts_done(&opts);
        parse("ro,rw", &opts);
        assert_true(!opts.read_only && opts.read_write);
        tk_mountopts_done(&opts);
}

static void test_mountopts_parse__kernel_and_dropped(void **state)
{
        struct tk_mountopts opts;

        parse("_netdev,nosuid,nofail,,user,nodev,x-systemd.automount,comment=a b,relatime,noatime",
              &opts);
        assert_string_equal(opts.kernel, "nosuid,nodev,noatime");
        tk_mountopts_done(&opts);
}

/* All that mount(8) calls independent of the filesystem. */
static void test_mountopts_parse__generic(void **state)
{
        struct tk_mountopts opts;

        parse("async,atime,noatime,auto,noauto,defaults,dev,nodev,diratime,nodiratime,dirsync,exec,"
              "noexec,group,nogroup,iversion,noiversion,mand,nomand,_netdev,nofail,relatime,"
              "norelatime,strictatime,nostrictatime,lazytime,nolazytime,suid,nosuid,silent,loud,"
              "owner,noowner,ro,rw,sync,user,nouser,users,nousers,x-gvfs-show,X-mount.mkdir=0755,"
              "x-systemd.automount,x-systemd.mount-timeout=10,comment=x,symfollow",
              &opts);
        tk_mountopts_done(&opts);
        parse("context=a:b:c,rootcontext=d", &opts);
        assert_string_equal(opts.kernel, "context=a:b:c,rootcontext=d");
        tk_mountopts_done(&opts);
}

static void test_mountopts_parse__refused(void **state)
{
        static const struct {
                const char *list;
                const char *names;
        } cases[] = {
                {"ro,bogus", "'bogus'"},
                {"allow_root", "'allow_root'"},
                {"fsname=x", "'fsname=x'"},
                {"subtype=ext4", "'subtype=ext4'"},
                {"ROO", "'ROO'"},
                {"config=", "'config='"},
                {"config=a,config=b", "config"},
                {"threads=", "threads"},
                {"threads=0", "threads=0"},
                {"threads=65", "threads=65"},
                {"threads=-1", "threads=-1"},
                {"threads=1x", "threads=1x"},
                {"remount,ro", "'remount'"},
                {"nosymfollow", "'nosymfollow'"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct tk_mountopts opts;
                struct tk_fault fault = {0};

                assert_int_equal(tk_mountopts_parse(cases[i].list, &opts, &fault), -EINVAL);
                assert_int_equal(fault.kind, TK_FAULT_USAGE);
                if (!strstr(fault.text, cases[i].names))
                        fail_msg("'%s' is not named: %s", cases[i].names, fault.text);
                tk_mountopts_done(&opts);
        }
}

static void test_mountopts_apply__wins_over_the_configuration(void **state)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        struct tk_mountopts opts;
        struct tk_fault fault = {0};

        assert_int_equal(tk_conf_parse("[mount]\nallow_other = no\nread_only = yes\nthreads = 2\n",
                                       "t", &conf, &fault),
                         0);
        parse("", &opts);
        tk_mountopts_apply(&opts, conf);
        assert_true(conf->mount.read_only && !conf->mount.allow_other);
        assert_int_equal(conf->mount.threads, 2);

        parse("rw,allow_other,threads=9", &opts);
        tk_mountopts_apply(&opts, conf);
        assert_true(!conf->mount.read_only && conf->mount.allow_other);
        assert_int_equal(conf->mount.threads, 9);
        tk_mountopts_done(&opts);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_mountopts_parse__empty),
                cmocka_unit_test(test_mountopts_parse__ours),
                cmocka_unit_test(test_mountopts_parse__last_of_ro_and_rw_counts),
                cmocka_unit_test(test_mountopts_parse__kernel_and_dropped),
                cmocka_unit_test(test_mountopts_parse__generic),
                cmocka_unit_test(test_mountopts_parse__refused),
                cmocka_unit_test(test_mountopts_apply__wins_over_the_configuration),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
