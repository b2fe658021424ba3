/* SPDX-License-Identifier: Apache-2.0 */

/* The module that fails as it is told. */

#include "tests/tools/faulty_pkcs11.h"

#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RULES_MAX = 16, FUNCTIONS_MAX = 80, HANG_POLL_US = 10000 };

enum action { FAIL, HANG, HIDE, SAY, LACK, FORK, MASK };

struct rule {
        char function[40];
        enum action action;
        unsigned long number;
        unsigned first;
        unsigned last;
};

static CK_FUNCTION_LIST *real;
static atomic_uint inside; /* calls that hang */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Under lock. */
static struct rule rules[RULES_MAX];
static size_t rule_count;
static struct timespec read_at;
static struct {
        const char *name;
        unsigned calls;
} functions[FUNCTIONS_MAX];

/* Rules --------------------------------------------------------------------- */

static void parse(const char *text)
{
        char action[8];
        const char *line = text;

        rule_count = 0;
        memset(functions, 0, sizeof(functions));
        while (line && *line && rule_count < RULES_MAX) {
                struct rule *rule = &rules[rule_count];

                *rule = (struct rule){.first = 1, .last = ~0U};
                /* NOLINTNEXTLINE(cert-err34-c): a rule that is wrong fails its test */
                if (sscanf(line, "%39s %7s %li %u %u", rule->function, action, &rule->number,
                           &rule->first, &rule->last) >= 2) {
                        rule->action = strcmp(action, "hang") == 0    ? HANG
                                       : strcmp(action, "hide") == 0  ? HIDE
                                       : strcmp(action, "says") == 0  ? SAY
                                       : strcmp(action, "lacks") == 0 ? LACK
                                       : strcmp(action, "forks") == 0 ? FORK
                                       : strcmp(action, "masks") == 0 ? MASK
                                                                      : FAIL;
                        rule_count++;
                }
                line = strchr(line, '\n');
                line = line ? line + 1 : NULL;
        }
}

/* Read the file if it is another one than last time. */
static void refresh(void)
{
        const char *path = getenv("TK_FAULTY_RULES");
        char text[2048];
        struct stat st;
        size_t len;
        FILE *file;

        if (!path || stat(path, &st) < 0 ||
            (st.st_mtim.tv_sec == read_at.tv_sec && st.st_mtim.tv_nsec == read_at.tv_nsec))
                return;
        file = fopen(path, "re");
        if (!file)
                return;
        len = fread(text, 1, sizeof(text) - 1, file);
        (void)fclose(file);
        text[len] = '\0';
        read_at = st.st_mtim;
        parse(text);
}

static unsigned *calls_of(const char *name)
{
        size_t i = 0;

        while (functions[i].name && strcmp(functions[i].name, name) != 0)
                i++;
        functions[i].name = name;
        return &functions[i].calls;
}

unsigned tk_faulty_count(const char *function)
{
        unsigned calls = 0;

        pthread_mutex_lock(&lock);
        for (size_t i = 0; i < FUNCTIONS_MAX && functions[i].name; i++)
                if (!function || strcmp(functions[i].name, function) == 0)
                        calls += functions[i].calls;
        pthread_mutex_unlock(&lock);
        return calls;
}

unsigned tk_faulty_set(const char *text)
{
        unsigned calls = tk_faulty_count(NULL);

        pthread_mutex_lock(&lock);
        parse(text);
        pthread_mutex_unlock(&lock);
        return calls;
}

/* The number of a call: among those of its function, and of all. */
struct number {
        unsigned own;
        unsigned all;
};

static _Thread_local struct number current;

static void count_call(const char *name)
{
        pthread_mutex_lock(&lock);
        refresh();
        current = (struct number){.own = ++*calls_of(name)};
        for (size_t i = 0; functions[i].name; i++)
                current.all += functions[i].calls;
        pthread_mutex_unlock(&lock);
}

static bool applies(const struct rule *rule, const char *name)
{
        bool any = rule->function[0] == '*';
        unsigned number = any ? current.all : current.own;

        return number >= rule->first && number <= rule->last &&
               (any || strcmp(rule->function, name) == 0);
}

/* The first rule with that action for the current call, if there is one. */
static bool find_rule(const char *name, enum action action, struct rule *ret_rule)
{
        bool found = false;

        pthread_mutex_lock(&lock);
        refresh();
        for (size_t i = 0; i < rule_count && !found; i++) {
                found = rules[i].action == action && applies(&rules[i], name);
                *ret_rule = rules[i];
        }
        pthread_mutex_unlock(&lock);
        return found;
}

/* A child that stays for a while, with all that it has inherited. */
static void leave_child(unsigned seconds)
{
        if (fork() == 0) {
                sleep(seconds);
                _exit(0);
        }
}

/* Whether the call is to fail, with *@rv. Hangs if it is to hang. */
static bool interferes(const char *name, CK_RV *rv)
{
        struct rule rule;

        count_call(name);
        inside++;
        while (find_rule(name, HANG, &rule))
                usleep(HANG_POLL_US);
        inside--;
        if (find_rule(name, FORK, &rule))
                leave_child((unsigned)rule.number);
        if (!find_rule(name, FAIL, &rule))
                return false;
        *rv = rule.number;
        return true;
}

/* As modules do that are taken away under a call. */
__attribute__((destructor)) static void unload(void)
{
        if (inside)
                abort();
}

/* What a call that has put out *@len may say instead. */
static CK_RV say(const char *name, CK_RV rv, CK_ULONG *len)
{
        struct rule rule;

        if (rv == CKR_OK && find_rule(name, SAY, &rule))
                *len = rule.number;
        return rv;
}

static bool is_hidden(CK_MECHANISM_TYPE mechanism)
{
        bool hidden = false;

        pthread_mutex_lock(&lock);
        for (size_t i = 0; i < rule_count; i++)
                hidden |= rules[i].action == HIDE && rules[i].number == mechanism;
        pthread_mutex_unlock(&lock);
        return hidden;
}

/* Wrappers ------------------------------------------------------------------ */

#define WRAP(name, parameters, arguments)                                                          \
        static CK_RV wrap_##name parameters                                                        \
        {                                                                                          \
                CK_RV rv;                                                                          \
                                                                                                   \
                return interferes(#name, &rv) ? rv : real->name arguments;                         \
        }
#define WRAP_MECHANISM(name, type, parameters, arguments)                                          \
        static CK_RV wrap_##name parameters                                                        \
        {                                                                                          \
                CK_RV rv;                                                                          \
                                                                                                   \
                if (interferes(#name, &rv))                                                        \
                        return rv;                                                                 \
                return is_hidden(type) ? CKR_MECHANISM_INVALID : real->name arguments;             \
        }

#define WRAP_OUT(name, len, parameters, arguments)                                                 \
        static CK_RV wrap_##name parameters                                                        \
        {                                                                                          \
                CK_RV rv;                                                                          \
                                                                                                   \
                return interferes(#name, &rv) ? rv : say(#name, real->name arguments, len);        \
        }

#define SESSION CK_SESSION_HANDLE s
#define BYTES(name) CK_BYTE_PTR name, CK_ULONG name##_len
#define OUT CK_BYTE_PTR out, CK_ULONG_PTR out_len

WRAP(C_Initialize, (void *args), (args))
/* Done even where it fails: a test that follows begins anew. */
static CK_RV wrap_C_Finalize(void *args)
{
        CK_RV rv = real->C_Finalize(args);
        CK_RV failure;

        return interferes("C_Finalize", &failure) ? failure : rv;
}

WRAP(C_GetInfo, (CK_INFO_PTR info), (info))
WRAP_OUT(C_GetSlotList, count, (CK_BBOOL present, CK_SLOT_ID_PTR list, CK_ULONG_PTR count),
         (present, list, count))
WRAP(C_GetTokenInfo, (CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info), (slot, info))
WRAP_MECHANISM(C_GetMechanismInfo, type,
               (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO_PTR info),
               (slot, type, info))
WRAP(C_OpenSession,
     (CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR ret),
     (slot, flags, app, notify, ret))
WRAP(C_CloseSession, (SESSION), (s))
WRAP(C_CloseAllSessions, (CK_SLOT_ID slot), (slot))
WRAP(C_GetSessionInfo, (SESSION, CK_SESSION_INFO_PTR info), (s, info))

static CK_RV wrap_C_Login(SESSION, CK_USER_TYPE user, BYTES(pin))
{
        struct rule rule;
        CK_RV rv;

        if (interferes("C_Login", &rv))
                return rv;
        rv = real->C_Login(s, user, pin, pin_len);
        return rv != CKR_OK && find_rule("C_Login", MASK, &rule) ? rule.number : rv;
}

WRAP(C_Logout, (SESSION), (s))
WRAP(C_GenerateRandom, (SESSION, BYTES(data)), (s, data, data_len))
WRAP(C_CreateObject, (SESSION, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR ret),
     (s, t, n, ret))
WRAP(C_DestroyObject, (SESSION, CK_OBJECT_HANDLE o), (s, o))
WRAP_OUT(C_GetAttributeValue, &t->ulValueLen,
         (SESSION, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, o, t, n))
WRAP(C_SetAttributeValue, (SESSION, CK_OBJECT_HANDLE o, CK_ATTRIBUTE_PTR t, CK_ULONG n),
     (s, o, t, n))
WRAP(C_FindObjectsInit, (SESSION, CK_ATTRIBUTE_PTR t, CK_ULONG n), (s, t, n))
WRAP_OUT(C_FindObjects, n, (SESSION, CK_OBJECT_HANDLE_PTR o, CK_ULONG max, CK_ULONG_PTR n),
         (s, o, max, n))
WRAP(C_FindObjectsFinal, (SESSION), (s))
WRAP_MECHANISM(C_EncryptInit, m->mechanism, (SESSION, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k),
               (s, m, k))
WRAP_OUT(C_Encrypt, out_len, (SESSION, BYTES(in), OUT), (s, in, in_len, out, out_len))
WRAP_MECHANISM(C_DecryptInit, m->mechanism, (SESSION, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k),
               (s, m, k))
WRAP_OUT(C_Decrypt, out_len, (SESSION, BYTES(in), OUT), (s, in, in_len, out, out_len))
WRAP(C_GenerateKey,
     (SESSION, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR t, CK_ULONG n, CK_OBJECT_HANDLE_PTR ret),
     (s, m, t, n, ret))
WRAP(C_GenerateKeyPair,
     (SESSION, CK_MECHANISM_PTR m, CK_ATTRIBUTE_PTR a, CK_ULONG n, CK_ATTRIBUTE_PTR b, CK_ULONG k,
      CK_OBJECT_HANDLE_PTR pub, CK_OBJECT_HANDLE_PTR priv),
     (s, m, a, n, b, k, pub, priv))
WRAP_OUT(C_WrapKey, out_len,
         (SESSION, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k, CK_OBJECT_HANDLE o, OUT),
         (s, m, k, o, out, out_len))
WRAP_MECHANISM(C_UnwrapKey, m->mechanism,
               (SESSION, CK_MECHANISM_PTR m, CK_OBJECT_HANDLE k, BYTES(in), CK_ATTRIBUTE_PTR t,
                CK_ULONG n, CK_OBJECT_HANDLE_PTR ret),
               (s, m, k, in, in_len, t, n, ret))

static CK_FUNCTION_LIST list;

static void fill_list(void);

static CK_RV own_list(CK_FUNCTION_LIST_PTR_PTR ret_list)
{
        struct rule rule;
        CK_RV rv;

        if (interferes("C_GetFunctionList", &rv))
                return rv;
        fill_list();
        if (find_rule("C_GetFunctionList", SAY, &rule))
                list.version = (CK_VERSION){(CK_BYTE)rule.number, 0};
        *ret_list = find_rule("C_GetFunctionList", LACK, &rule) ? NULL : &list;
        return CKR_OK;
}

static bool is_lacking(const char *name)
{
        bool lacking = false;

        pthread_mutex_lock(&lock);
        for (size_t i = 0; i < rule_count; i++)
                lacking |= rules[i].action == LACK && strcmp(rules[i].function, name) == 0;
        pthread_mutex_unlock(&lock);
        return lacking;
}

#define PUT(name) list.name = is_lacking(#name) ? NULL : wrap_##name

static void fill_list(void)
{
        list = *real;
        list.C_GetFunctionList = own_list;
        PUT(C_Initialize);
        PUT(C_Finalize);
        PUT(C_GetInfo);
        PUT(C_GetSlotList);
        PUT(C_GetTokenInfo);
        PUT(C_GetMechanismInfo);
        PUT(C_OpenSession);
        PUT(C_CloseSession);
        PUT(C_CloseAllSessions);
        PUT(C_GetSessionInfo);
        PUT(C_Login);
        PUT(C_Logout);
        PUT(C_GenerateRandom);
        PUT(C_CreateObject);
        PUT(C_DestroyObject);
        PUT(C_GetAttributeValue);
        PUT(C_SetAttributeValue);
        PUT(C_FindObjectsInit);
        PUT(C_FindObjects);
        PUT(C_FindObjectsFinal);
        PUT(C_EncryptInit);
        PUT(C_Encrypt);
        PUT(C_DecryptInit);
        PUT(C_Decrypt);
        PUT(C_GenerateKey);
        PUT(C_GenerateKeyPair);
        PUT(C_WrapKey);
        PUT(C_UnwrapKey);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR ret_list)
{
        CK_RV (*get)(CK_FUNCTION_LIST_PTR_PTR ret);
        const char *path = getenv("TK_FAULTY_MODULE");
        void *module;

        if (!real) {
                module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
                if (!module)
                        return CKR_GENERAL_ERROR;
                *(void **)&get = dlsym(module, "C_GetFunctionList");
                if (!get || get(&real) != CKR_OK)
                        return CKR_GENERAL_ERROR;
        }
        return own_list(ret_list);
}
