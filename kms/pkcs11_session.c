/* SPDX-License-Identifier: Apache-2.0 */

/*
 * From the module's path to a session that is logged in.
 *
 * Modules differ in how they notice that a token came back: some only look when they are
 * initialised. So whatever looks like a token that is away makes the next session begin
 * there, once no other session is in use. p11-kit lets several users of a module share its
 * initialisation, and begins it again after a fork. So whoever begins anew makes the others
 * leave, too, such as the provider of a root key that was moved within its token.
 */

#include "base/clock.h"
#include "base/thread.h"
#include "kms/pkcs11_internal.h"
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SLOTS_MAX = 64, SEEN_MAX = 320, WHY_MAX = 256, WAIT_ALONE_MS = 2000, NUMBER_MAX = 32 };

/* Its name, or its number in @number. */
static const char *text_of(CK_RV rv, char number[NUMBER_MAX])
{
        snprintf(number, NUMBER_MAX, "error 0x%lx", (unsigned long)rv);
        return tk_p11_name(rv) ? tk_p11_name(rv) : number;
}

int tk_p11_fail(struct tk_p11_use *use, CK_RV rv, const char *doing)
{
        const struct tk_p11 *p11 = use->p11;
        char number[NUMBER_MAX];

        use->verdict = tk_p11_judge(rv);
        if (use->verdict == TK_P11_GOOD)
                use->verdict = TK_P11_AWAY; /* a good one can't be why something failed */
        tk_fault_describe(&use->job->fault, tk_p11_fault_kind(use->verdict),
                          "the root key %s: the module %s can't %s: %s%s", p11->uri.key_id,
                          p11->module, doing, text_of(rv, number),
                          use->verdict == TK_P11_AWAY || use->verdict == TK_P11_LOST
                                  ? "; check that the token is there and its service runs"
                                  : "");
        return tk_p11_errno(use->verdict);
}

TK_PRINTF(3, 4)
static int fail_login(struct tk_p11_use *use, int r, const char *fmt, ...)
{
        char why[640];
        va_list ap;

        use->verdict = TK_P11_LOGIN;
        va_start(ap, fmt);
        vsnprintf(why, sizeof(why), fmt, ap);
        va_end(ap);
        return tk_fault_set(&use->job->fault, TK_FAULT_PASSPHRASE, r,
                            "cannot log in to the token of the root key %s: %s",
                            use->p11->uri.key_id, why);
}

/* The module ------------------------------------------------------------- */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct tk_p11 *all; /* under all_lock: the providers that have loaded a module */

static void enlist(struct tk_p11 *p11)
{
        TK_LOCK_SCOPE(&all_lock);
        p11->next = all;
        all = p11;
}

static void delist(struct tk_p11 *p11)
{
        struct tk_p11 **at = &all;

        TK_LOCK_SCOPE(&all_lock);
        while (*at != p11)
                at = &(*at)->next;
        *at = p11->next;
}

static int load(struct tk_p11_use *use)
{
        struct tk_p11 *p11 = use->p11;
        char why[WHY_MAX];

        if (p11->functions)
                return 0;
        p11->functions = tk_p11_load_module(p11->module, why, sizeof(why));
        if (p11->functions) {
                enlist(p11);
                return 0;
        }
        use->verdict = TK_P11_AWAY;
        return tk_fault_set(&use->job->fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                            "cannot load the PKCS#11 module %s: %s; check [pkcs11] module, and "
                            "that its package is installed",
                            p11->module, why);
}

static void forget_sessions(struct tk_p11 *p11)
{
        for (unsigned i = 0; i < p11->idle_count; i++)
                p11->functions->C_CloseSession(p11->idle[i]);
        p11->idle_count = 0;
        p11->generation++;
        p11->found = false;
}

/* No session is in use. */
static void leave(struct tk_p11 *p11)
{
        if (!p11->initialized)
                return;
        forget_sessions(p11);
        (void)p11_kit_module_finalize(p11->functions);
        p11->initialized = false;
}

/*
 * The module's other providers, each with its lock held. One that is at work is not among them, as
 * nobody may wait for another one's lock while holding their own: the next failure tries again.
 */
static struct tk_p11 *take_others(const struct tk_p11 *p11)
{
        struct tk_p11 *taken = NULL;

        TK_LOCK_SCOPE(&all_lock);
        for (struct tk_p11 *other = all; other; other = other->next) {
                if (other == p11 || strcmp(other->module, p11->module) != 0 ||
                    pthread_mutex_trylock(&other->connection_lock) != 0)
                        continue;
                other->leaving = taken;
                taken = other;
        }
        return taken;
}

/* Without the list's lock, which other modules' providers need: this one may hang. */
static void make_others_leave(const struct tk_p11 *p11)
{
        struct tk_p11 *next;

        for (struct tk_p11 *other = take_others(p11); other; other = next) {
                next = other->leaving;
                if (other->borrowed == 0)
                        leave(other);
                pthread_mutex_unlock(&other->connection_lock);
        }
}

static bool must_begin_anew(const struct tk_p11 *p11)
{
        return p11->stale && p11->initialized;
}

/*
 * Initialised anew, as soon as no session is in use; if that takes too long, as it is. Then
 * nobody waits for it again until something else fails: a session may hang for ever.
 */
static void leave_if_stale(struct tk_p11 *p11)
{
        unsigned share_ms = p11->deadline_ms / 4;
        struct timespec until =
                tk_thread_deadline(share_ms < WAIT_ALONE_MS ? share_ms : WAIT_ALONE_MS);

        while (must_begin_anew(p11) && p11->borrowed > 0)
                if (pthread_cond_timedwait(&p11->session_back, &p11->connection_lock, &until) != 0)
                        break;
        if (!must_begin_anew(p11))
                return;
        p11->stale = false;
        if (p11->borrowed > 0) {
                forget_sessions(p11);
                return;
        }
        leave(p11);
        make_others_leave(p11);
}

static int initialize(struct tk_p11_use *use)
{
        struct tk_p11 *p11 = use->p11;
        CK_RV rv;
        int r;

        r = load(use);
        if (r < 0)
                return r;
        use->f = p11->functions;
        leave_if_stale(p11);
        if (!p11->initialized) {
                rv = p11_kit_module_initialize(p11->functions);
                if (tk_p11_judge(rv) != TK_P11_GOOD)
                        return tk_p11_fail(use, rv, "be initialised");
                p11->initialized = true;
        }
        return 0;
}

/* The token -------------------------------------------------------------- */

/* Add the label of a token that is not ours to what is said of those that are there. */
static void note(char seen[SEEN_MAX], const CK_TOKEN_INFO *info)
{
        size_t len = strlen(seen);

        snprintf(seen + len, SEEN_MAX - len, "%s'%.*s'", len ? ", " : "",
                 (int)p11_kit_space_strlen(info->label, sizeof(info->label)),
                 (const char *)info->label);
}

static int find_token(struct tk_p11_use *use)
{
        struct tk_p11 *p11 = use->p11;
        CK_SLOT_ID slots[SLOTS_MAX] = {0};
        CK_ULONG count = SLOTS_MAX;
        unsigned matches = 0;
        char seen[SEEN_MAX] = "";
        CK_RV rv;

        if (p11->found)
                return 0;
        rv = use->f->C_GetSlotList(CK_TRUE, slots, &count);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "list its tokens");
        for (CK_ULONG i = 0; i < count && i < SLOTS_MAX; i++) {
                CK_TOKEN_INFO info;

                if (use->f->C_GetTokenInfo(slots[i], &info) != CKR_OK)
                        continue;
                if (p11_kit_uri_match_token_info(p11->uri.token, &info)) {
                        p11->slot = slots[i];
                        matches++;
                } else if (info.flags & CKF_TOKEN_INITIALIZED) {
                        note(seen, &info);
                }
        }
        if (matches > 1)
                return tk_fault_set(&use->job->fault, TK_FAULT_CONFIG, -EINVAL,
                                    "%u tokens match %s; add serial= to [pkcs11] uri", matches,
                                    p11->uri_text);
        if (matches == 0) {
                use->verdict = TK_P11_AWAY;
                return tk_fault_set(&use->job->fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "the token of the root key %s is not there: the module %s has "
                                    "%s%s; plug it in, start its service, or correct [pkcs11] uri",
                                    p11->uri.key_id, p11->module, seen[0] ? "only " : "none", seen);
        }
        p11->found = true;
        return 0;
}

/* The login ------------------------------------------------------------- */

/*
 * By the standard a wrong PIN is CKR_PIN_INCORRECT, and CKR_GENERAL_ERROR or CKR_FUNCTION_FAILED
 * say only that the call could not be done; but some cards say so of a wrong PIN as well. A
 * flag that a wrong PIN sets (CKF_USER_PIN_COUNT_LOW and the like) tells it from a token that
 * is ill. But the standard lets tokens leave these off always, and cards commonly lock at the
 * third try: where they tell nothing, a PIN that has not worked yet is tried twice in all.
 */

enum { TRIES_IN_DOUBT = 2 };

static const CK_FLAGS wrong_pin_flags =
        CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;

/* What the source of the PIN says now, which may have changed. */
static void refresh_pin(struct tk_p11 *p11)
{
        TK_CLEANUP(tk_secret_freep) struct tk_secret *pin = NULL;

        if (!p11->reread || p11->reread(p11->reread_context, &pin) < 0 || !pin)
                return;
        if (p11->pin && tk_secret_equal(pin, p11->pin))
                return;
        p11->pin_fresh = p11->pin_refused;
        p11->pin_refused = false;
        p11->pin_known = false;
        p11->pin_doubt = CKR_OK;
        p11->pin_doubts = 0;
        tk_secret_free(p11->pin);
        p11->pin = TK_TAKE(pin);
}

/* No PIN has: a file has a line too many, or comes from another system. */
static bool has_line_break(const struct tk_secret *pin)
{
        return memchr(tk_secret_bytes(pin), '\n', tk_secret_len(pin)) ||
               memchr(tk_secret_bytes(pin), '\r', tk_secret_len(pin));
}

/* -ENOKEY and a fault if the token can't do either what needs no PIN. */
static int check_health(struct tk_p11_use *use, const CK_TOKEN_INFO *info)
{
        CK_BYTE byte;
        CK_RV rv;

        if (!(info->flags & CKF_RNG) || !use->f->C_GenerateRandom)
                return 0;
        rv = use->f->C_GenerateRandom(use->session, &byte, 1);
        if (tk_p11_judge(rv) != TK_P11_AWAY || rv == CKR_RANDOM_NO_RNG)
                return 0;
        return tk_p11_fail(use, rv, "log in, nor give a random number");
}

/* The kind is that of a wrong PIN: nobody is to start us again, and again, for another try. */
static int put_off(struct tk_p11_use *use)
{
        char number[NUMBER_MAX];
        int r = fail_login(use, -ENOKEY,
                           "%s, which does not say whether the PIN is right; it is tried once "
                           "more, later, and no more then, so as not to lock the token",
                           text_of(use->p11->pin_doubt, number));

        use->verdict = TK_P11_AWAY; /* begin anew, which may help */
        return r;
}

/* Who was let in before is not refused by that: it is an outage. */
static int give_up(struct tk_p11_use *use)
{
        char number[NUMBER_MAX];

        return fail_login(use, use->p11->let_in ? -ENOKEY : -EACCES,
                          "%s, twice, which may mean that the PIN is wrong; it is not tried again, "
                          "so as not to lock the token; correct what [pkcs11] pin names, or start "
                          "again",
                          text_of(use->p11->pin_doubt, number));
}

/* Whether a login may be tried, so that a token is never locked by us. */
static int check_login(struct tk_p11_use *use, const CK_TOKEN_INFO *info)
{
        struct tk_p11 *p11 = use->p11;

        if (info->flags & CKF_USER_PIN_LOCKED)
                return fail_login(use, -EACCES,
                                  "its PIN is locked; its security officer unlocks it");
        if (info->flags & CKF_PROTECTED_AUTHENTICATION_PATH)
                return 0;
        refresh_pin(p11);
        if (!p11->pin)
                return fail_login(use, -EACCES,
                                  "it wants a PIN; say in [pkcs11] pin where that comes from");
        if (has_line_break(p11->pin))
                return fail_login(use, -EACCES,
                                  "the PIN has a line break in it, so it is not tried; let what "
                                  "[pkcs11] pin names have one line, as text of Unix");
        if (p11->pin_refused && p11->pin_doubt != CKR_OK)
                return give_up(use);
        if (p11->pin_refused)
                return fail_login(use, -EACCES,
                                  "the PIN was refused, and is not tried again, so as not to lock "
                                  "the token; correct what [pkcs11] pin names%s",
                                  p11->reread ? "" : ", and start again");
        if (info->flags & CKF_USER_PIN_FINAL_TRY)
                return fail_login(use, -EACCES,
                                  "one more wrong PIN would lock it, so none is tried; log in once "
                                  "with the token's own tools");
        if ((info->flags & CKF_USER_PIN_COUNT_LOW) && !p11->pin_known && !p11->pin_fresh)
                return fail_login(use, -EACCES,
                                  "a wrong PIN was given to it lately, so the one of [pkcs11] pin "
                                  "is not tried; log in once with the right one: pkcs11-tool "
                                  "--module %s --login --list-objects",
                                  p11->module);
        if (p11->pin_doubts > 0 && tk_clock_ms() < p11->pin_again_ms)
                return put_off(use);
        return p11->pin_doubt == CKR_OK ? 0 : check_health(use, info);
}

/* Whether it may be what a token that knows no better says of a wrong PIN. */
static bool may_mean_the_pin(CK_RV rv)
{
        return rv == CKR_GENERAL_ERROR || rv == CKR_FUNCTION_FAILED || rv == CKR_ARGUMENTS_BAD ||
               !tk_p11_name(rv);
}

static void remember_refusal(struct tk_p11 *p11)
{
        p11->pin_refused = true;
        p11->pin_known = false;
        p11->pin_fresh = false;
}

static int refuse_pin(struct tk_p11_use *use, CK_RV rv, bool counted)
{
        char number[NUMBER_MAX];

        remember_refusal(use->p11);
        use->p11->pin_doubt = CKR_OK;
        return fail_login(use, -EACCES, "%s%s%s", text_of(rv, number),
                          counted ? ", and the token has counted a wrong PIN" : "",
                          counted || rv == CKR_PIN_INCORRECT
                                  ? ": the PIN is wrong; it is not tried again, so as not to lock "
                                    "the token; correct what [pkcs11] pin names"
                                  : "");
}

/* A PIN that has not worked yet, and an answer that does not say whether it would. */
static int doubt_pin(struct tk_p11_use *use, const CK_TOKEN_INFO *info, CK_RV rv)
{
        struct tk_p11 *p11 = use->p11;
        int r;

        p11->pin_doubt = rv;
        r = check_health(use, info);
        if (r < 0)
                return r;
        if (++p11->pin_doubts < TRIES_IN_DOUBT) {
                p11->pin_again_ms = tk_clock_ms() + p11->deadline_ms;
                return put_off(use);
        }
        remember_refusal(p11);
        return give_up(use);
}

/* Whether the token tells now, and did not @before, that a wrong PIN was given to it. */
static bool has_counted(struct tk_p11_use *use, const CK_TOKEN_INFO *before)
{
        CK_TOKEN_INFO now;

        return use->f->C_GetTokenInfo(use->p11->slot, &now) == CKR_OK &&
               (now.flags & ~before->flags & wrong_pin_flags);
}

static int do_login(struct tk_p11_use *use, const CK_TOKEN_INFO *info)
{
        struct tk_p11 *p11 = use->p11;
        bool pinpad = info->flags & CKF_PROTECTED_AUTHENTICATION_PATH;
        /* The module does not change it, whatever its type says. */
        CK_UTF8CHAR *pin = pinpad ? NULL : tk_secret_bytes_mutable(p11->pin);
        CK_RV rv = use->f->C_Login(use->session, CKU_USER, pin,
                                   pinpad ? 0 : (CK_ULONG)tk_secret_len(p11->pin));

        if (rv == CKR_OK) {
                p11->pin_known = true;
                p11->pin_fresh = false;
                p11->pin_doubt = CKR_OK;
                p11->pin_doubts = 0;
        }
        if (tk_p11_judge(rv) == TK_P11_GOOD)
                return 0;
        if (tk_p11_judge(rv) == TK_P11_LOGIN)
                return refuse_pin(use, rv, false);
        if (!pinpad && has_counted(use, info))
                return refuse_pin(use, rv, true);
        if (!pinpad && !p11->pin_known && may_mean_the_pin(rv))
                return doubt_pin(use, info, rv);
        return tk_p11_fail(use, rv, "log in");
}

/* All sessions of an application share one login. */
static int log_in(struct tk_p11_use *use)
{
        CK_SESSION_INFO session;
        CK_TOKEN_INFO info;
        CK_RV rv;
        int r;

        rv = use->f->C_GetSessionInfo(use->session, &session);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "say what a session may do");
        if (session.state == CKS_RO_USER_FUNCTIONS || session.state == CKS_RW_USER_FUNCTIONS)
                return 0;
        rv = use->f->C_GetTokenInfo(use->p11->slot, &info);
        if (rv != CKR_OK)
                return tk_p11_fail(use, rv, "describe its token");
        if (!p11_kit_uri_match_token_info(use->p11->uri.token, &info))
                return tk_p11_fail(use, CKR_TOKEN_NOT_PRESENT, "find its token any more");
        if (!(info.flags & CKF_LOGIN_REQUIRED))
                return 0;
        r = check_login(use, &info);
        return r < 0 ? r : do_login(use, &info);
}

/* The pool --------------------------------------------------------------- */

static int open_session(struct tk_p11_use *use)
{
        struct tk_p11 *p11 = use->p11;
        CK_FLAGS flags = CKF_SERIAL_SESSION | (use->writes ? CKF_RW_SESSION : 0);
        CK_RV rv;

        if (!use->writes && p11->idle_count > 0) {
                use->session = p11->idle[--p11->idle_count];
                return 0;
        }
        rv = use->f->C_OpenSession(p11->slot, flags, NULL, NULL, &use->session);
        return rv == CKR_OK ? 0 : tk_p11_fail(use, rv, "open a session");
}

static int borrow(struct tk_p11_use *use)
{
        struct tk_p11 *p11 = use->p11;
        int r;

        TK_LOCK_SCOPE(&p11->connection_lock);
        r = initialize(use);
        if (r == 0)
                r = find_token(use);
        if (r == 0)
                r = open_session(use);
        if (r == 0) {
                use->generation = p11->generation;
                r = log_in(use);
                if (r < 0)
                        use->f->C_CloseSession(use->session);
        }
        if (r < 0) {
                p11->stale |= use->verdict != TK_P11_LOGIN;
                return r;
        }
        p11->let_in = true;
        p11->borrowed++;
        return 0;
}

static void give_back(struct tk_p11_use *use)
{
        struct tk_p11 *p11 = use->p11;
        bool good = use->verdict != TK_P11_LOST && use->verdict != TK_P11_AWAY;

        TK_LOCK_SCOPE(&p11->connection_lock);
        p11->borrowed--;
        if (!good || use->verdict == TK_P11_GONE)
                p11->stale = true;
        if (good && !use->writes && !use->spoiled && use->generation == p11->generation &&
            p11->idle_count < TK_P11_JOBS_MAX)
                p11->idle[p11->idle_count++] = use->session;
        else
                use->f->C_CloseSession(use->session);
        pthread_cond_broadcast(&p11->session_back);
}

static bool may_help_to_retry(const struct tk_p11_use *use)
{
        return !use->changed && (use->verdict == TK_P11_LOST || use->verdict == TK_P11_AWAY ||
                                 use->verdict == TK_P11_GONE);
}

int tk_p11_use(struct tk_p11_job *job, bool writes, int (*op)(struct tk_p11_use *use))
{
        int r = 0;

        for (int attempt = 0; attempt < 2; attempt++) {
                struct tk_p11_use use = {.p11 = job->p11, .job = job, .writes = writes};

                job->fault = (struct tk_fault){0};
                r = borrow(&use);
                if (r == 0) {
                        r = op(&use);
                        give_back(&use);
                }
                if (r == 0 || !may_help_to_retry(&use))
                        break;
        }
        return r;
}

void tk_p11_disconnect(struct tk_p11 *p11)
{
        assert(p11->borrowed == 0);
        if (!p11->functions)
                return;
        delist(p11);
        TK_LOCK_SCOPE(&p11->connection_lock); /* who took it before makes it leave */
        leave(p11);
        /* A detached thread may still be about to leave the module's code. */
        if (!p11->was_late)
                p11_kit_module_release(p11->functions);
        p11->functions = NULL;
}
