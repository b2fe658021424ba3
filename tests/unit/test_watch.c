/* SPDX-License-Identifier: Apache-2.0 */

/* What `status --watch` shows: text made of two looks, folded to a width. */

#include "cli/status.h"
#include "cli/watch.h"
#include "tests/unit/support.h"

static void assert_folds(const char *text, unsigned width, unsigned rows, const char *want)
{
        TK_CLEANUP(tk_freep) char *folded = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&folded, &len);

        tk_watch_fold(out, text, width, rows, "|");
        assert_int_equal(fclose(out), 0);
        assert_string_equal(folded, want);
}

static void test_fold__cases(void **state)
{
        assert_folds("", 80, 24, "");
        assert_folds("one\n\ntwo\n", 80, 24, "one||two");
        assert_folds("one\ntwo\nthree\n", 80, 2, "one|two");
        assert_folds("one\n", 80, 0, "");
        /* At a space, if there is one; narrow terminals get little indent. */
        assert_folds("name      some words\n", 14, 24, "name      some|  words");
        assert_folds("name      some words\n", 16, 24, "name      some|  words");
        assert_folds("name      some words\n", 20, 24, "name      some words");
        assert_folds("unbreakable\n", 5, 24, "unbre|  aka|  ble");
        assert_folds("0123456789 0123456789 0123456789 0123456789 0123456789\n", 44, 24,
                     "0123456789 0123456789 0123456789 0123456789|                0123456789");
        /* However narrow, it ends. */
        assert_folds("ab c\n", 1, 24, "a|  b|  c");
        assert_folds("ab c\n", 0, 2, "a|  b");
        /* Characters, not bytes. */
        assert_folds("\xc3\xbc\xc3\xbc\xc3\xbc\n", 3, 24, "\xc3\xbc\xc3\xbc\xc3\xbc");
        assert_folds("\xc3\xbc\xc3\xbc\xc3\xbc\n", 2, 24, "\xc3\xbc\xc3\xbc|  \xc3\xbc");
}

/* What a mount says: @pid, @uptime_s, and how much was read. */
static json_t *make_root(int pid, int uptime_s, int read_bytes, int read_requests)
{
        json_t *daemon = json_pack("{si si ss s{si si} s{si si} s{si si}}",               //
                                   "pid", pid,                                            //
                                   "uptime_s", uptime_s,                                  //
                                   "state", "degraded",                                   //
                                   "lease", "confirmed_ago_s", 7, "left_s", 53,           //
                                   "errors", "io", 3, "space", 0,                         //
                                   "counters", "read_bytes", read_bytes, "read_requests", //
                                   read_requests);

        assert_non_null(daemon);
        return json_pack("{ss s[{si si}] so}", "path", "/srv/\x1b[2J", "kek_versions", "version", 4,
                         "created", 1000, "daemon", daemon);
}

static char *print(const json_t *root, const json_t *last, int64_t gone_s)
{
        struct tk_status_look look = {.root = root,
                                      .last = last,
                                      .apart_ms = 2000,
                                      .gone_s = gone_s,
                                      .now = 1000 + 86461};
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);

        tk_status_print_look(out, &look);
        assert_int_equal(fclose(out), 0);
        return text;
}

static void test_print_look__rates_are_of_the_same_mount(void **state)
{
        json_t *last = make_root(7, 100, 4096, 10);
        json_t *root = make_root(7, 102, 4096 + 2048, 13);
        json_t *other = make_root(8, 1, 1 << 20, 13);
        TK_CLEANUP(tk_freep) char *same = print(root, last, -1);
        TK_CLEANUP(tk_freep) char *first = print(root, NULL, -1);
        TK_CLEANUP(tk_freep) char *changed = print(other, last, -1);

        assert_non_null(strstr(same, " 1.0 KiB/s "));
        assert_non_null(strstr(same, " 1.5 requests/s "));
        assert_null(strstr(first, "/s "));
        assert_null(strstr(changed, "/s "));
        json_decref(last);
        json_decref(root);
        json_decref(other);
}

static void test_print_look__says_how_it_is(void **state)
{
        json_t *root = make_root(7, 100, 0, 0);
        TK_CLEANUP(tk_freep) char *text = print(root, NULL, -1);

        assert_non_null(strstr(text, "state           degraded\n"));
        assert_non_null(strstr(text, "given out 7 s ago, 53 s left"));
        assert_non_null(strstr(text, "KEK version 4, 1 d 00:01:01 old"));
        assert_non_null(strstr(text, "errors          io 3\n"));
        assert_null(strchr(text, '\x1b'));
        json_decref(root);
}

static void test_print_look__without_a_mount(void **state)
{
        json_t *root = json_pack("{ss s[{si si}] sn}", "path", "/srv/x", "kek_versions", "version",
                                 4, "created", 1000, "daemon");
        TK_CLEANUP(tk_freep) char *never = print(root, NULL, -1);
        TK_CLEANUP(tk_freep) char *gone = print(root, root, 12);

        assert_non_null(strstr(never, "waiting for a mount"));
        assert_non_null(strstr(gone, "the mount ended 12 s ago; waiting for another"));
        json_decref(root);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_fold__cases),
                cmocka_unit_test(test_print_look__rates_are_of_the_same_mount),
                cmocka_unit_test(test_print_look__says_how_it_is),
                cmocka_unit_test(test_print_look__without_a_mount),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
