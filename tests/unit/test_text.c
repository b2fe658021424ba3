/* SPDX-License-Identifier: Apache-2.0 */

/* Foreign bytes for a terminal and for JSON. */

#include "cli/text.h"
#include "tests/unit/support.h"

static void assert_prints(const char *text, const char *want)
{
        TK_CLEANUP(tk_freep) char *printed = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&printed, &len);

        tk_text_print(out, text);
        assert_int_equal(fclose(out), 0);
        assert_string_equal(printed, want);
}

static void test_text_print__cases(void **state)
{
        assert_prints("plain / text", "plain / text");
        assert_prints("", "");
        assert_prints("gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
        assert_prints("a\x1b[31m\x7f\n", "a\\x1b[31m\\x7f\\x0a");
        assert_prints("a\\x", "a\\x5cx");
        assert_prints("\xff\xc3\xbc", "\\xff\\xc3\\xbc");
        assert_prints("\xc2\x9b"
                      "31m\xc2\xa0",
                      "\\xc2\\x9b"
                      "31m\xc2\xa0");
        assert_prints("cut \xc3", "cut \\xc3");
}

static void test_text_json__is_always_a_string(void **state)
{
        static const struct {
                const char *text;
                const char *want;
        } cases[] = {{"a\\b\n", "a\\b\n"}, {"gr\xc3\xbc", "gr\xc3\xbc"}, {"\xff!", "\\xff!"}};

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                json_t *string = tk_text_json(cases[i].text);

                assert_string_equal(json_string_value(string), cases[i].want);
                json_decref(string);
        }
}

static void test_text_size__cases(void **state)
{
        static const struct {
                uint64_t bytes;
                const char *want;
        } cases[] = {{0, "0 B"},
                     {1023, "1023 B"},
                     {1024, "1.0 KiB"},
                     {1536, "1.5 KiB"},
                     {1048576, "1.0 MiB"},
                     {UINT64_C(5) << 40, "5.0 TiB"},
                     {UINT64_MAX, "16.0 EiB"}};
        char out[16];

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                assert_string_equal(tk_text_size(cases[i].bytes, out), cases[i].want);
}

static void test_text_time__cases(void **state)
{
        char out[32];

        assert_string_equal(tk_text_time(0, out), "1970-01-01 00:00:00 UTC");
        assert_string_equal(tk_text_time(1700000000, out), "2023-11-14 22:13:20 UTC");
        assert_non_null(tk_text_time(INT64_MAX, out));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text_print__cases),
                cmocka_unit_test(test_text_json__is_always_a_string),
                cmocka_unit_test(test_text_size__cases),
                cmocka_unit_test(test_text_time__cases),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
