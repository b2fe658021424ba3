/* SPDX-License-Identifier: Apache-2.0 */

/* INI text: entries, lines, limits. */

#include "base/ini.h"
#include "tests/unit/support.h"
#include <errno.h>

struct log {
        char text[4096];
        int refuse_line; /* answer -EDOM on this line */
};

static int on_entry(void *context, const struct tk_ini_entry *entry)
{
        struct log *log = context;
        size_t used = strlen(log->text);

        if (entry->line == log->refuse_line)
                return -EDOM;
        snprintf(log->text + used, sizeof(log->text) - used, "%d:[%s]%s=%s\n", entry->line,
                 entry->section, entry->name, entry->value);
        return 0;
}

static void assert_parsed(const char *text, const char *wanted)
{
        struct log log = {0};
        int line = -1;

        assert_int_equal(tk_ini_parse(text, on_entry, &log, &line), 0);
        assert_string_equal(log.text, wanted);
        assert_int_equal(line, -1);
}

static void assert_refused(const char *text, int r, int wanted_line)
{
        struct log log = {0};
        int line = -1;

        assert_int_equal(tk_ini_parse(text, on_entry, &log, &line), r);
        assert_int_equal(line, wanted_line);
}

static void test_ini_parse__entries(void **state)
{
        assert_parsed("", "");
        assert_parsed("\n\n# nothing\n; nothing\n[empty]\n", "");
        assert_parsed("[a]\nx = 1\ny=2\n\n[b c]\nx =  two words  \nz =\n",
                      "2:[a]x=1\n3:[a]y=2\n6:[b c]x=two words\n7:[b c]z=\n");
        assert_parsed("[a]\nx = 1", "2:[a]x=1\n");
        assert_parsed("x = 1\n", "1:[]x=1\n");
        assert_parsed("[a]\nx = a=b\n", "2:[a]x=a=b\n");
}

static void test_ini_parse__value_goes_on(void **state)
{
        assert_parsed("[a]\nx = 1\n  2\n\t3\ny = 4\n", "2:[a]x=1\n3:[a]x=2\n4:[a]x=3\n5:[a]y=4\n");
}

static void test_ini_parse__no_ini(void **state)
{
        assert_refused("[a]\nx = 1\nnonsense\ny = 2\n", -EINVAL, 3);
        assert_refused("[a\nx = 1\n", -EINVAL, 1);
}

static void test_ini_parse__callback_ends_it(void **state)
{
        struct log log = {.refuse_line = 3};
        int line = -1;

        assert_int_equal(tk_ini_parse("[a]\nx = 1\ny = 2\nz = 3\n", on_entry, &log, &line), -EDOM);
        assert_int_equal(line, 3);
        assert_string_equal(log.text, "2:[a]x=1\n");
}

/* A line of 198 characters, its name included, and @rest behind it. */
static const char *long_line(const char *rest)
{
        static char text[300];
        char value[197];

        memset(value, 'v', sizeof(value) - 1);
        value[sizeof(value) - 1] = '\0';
        snprintf(text, sizeof(text), "[a]\nx=%s%s", value, rest);
        return text;
}

static void test_ini_parse__line_limit(void **state)
{
        struct log log = {0};
        int line = -1;

        assert_int_equal(tk_ini_parse(long_line("\n"), on_entry, &log, &line), 0);
        assert_int_equal(strlen(log.text), strlen("2:[a]x=\n") + 196);

        assert_refused(long_line("v\n"), -EMSGSIZE, 2);
        assert_refused(long_line("v"), -EMSGSIZE, 2);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                TK_TEST(test_ini_parse__entries),    TK_TEST(test_ini_parse__value_goes_on),
                TK_TEST(test_ini_parse__no_ini),     TK_TEST(test_ini_parse__callback_ends_it),
                TK_TEST(test_ini_parse__line_limit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
