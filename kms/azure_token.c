/* SPDX-License-Identifier: Apache-2.0 */

/* The token that all threads of a mount share. */

#include "kms/azure_token.h"

#include "base/log.h"
#include "base/thread.h"
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

enum {
        EARLY_MS = 5 * 60 * 1000, /* renewed this long before the end, at the latest */
        MARGIN_MS = 10 * 1000,    /* not used any more this long before the end */
        QUICK_AGAIN_MS = 30 * 1000,
};

struct tk_azure_token {
        atomic_uint refs;
        struct tk_secret *header; /* a text */
        int64_t renew_ms;
        int64_t end_ms;
};

struct tk_azure_tokens {
        struct tk_azure_auth *auth;
        const struct tk_azure_net *net;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        /* All below under lock. */
        struct tk_azure_token *current; /* NULL: none */
        bool fetching;                  /* some thread is at it */
        int64_t quick_after_ms;         /* no early renewal before */
        char *claims;                   /* for the next token; NULL: none */
        uint64_t failures;              /* counted, so that waiters see theirs */
        int last_error;
        struct tk_fault last_fault;
};

struct tk_azure_token *tk_azure_token_unref(struct tk_azure_token *token)
{
        if (token && atomic_fetch_sub(&token->refs, 1) == 1) {
                tk_secret_free(token->header);
                free(token);
        }
        return NULL;
}

static struct tk_azure_token *token_ref(struct tk_azure_token *token)
{
        atomic_fetch_add(&token->refs, 1);
        return token;
}

const struct tk_secret *tk_azure_token_header(const struct tk_azure_token *token)
{
        return token->header;
}

int tk_azure_tokens_new(struct tk_azure_auth *auth, const struct tk_azure_net *net,
                        struct tk_azure_tokens **ret_tokens)
{
        struct tk_azure_tokens *tokens = calloc(1, sizeof(*tokens));

        if (!tokens)
                return -ENOMEM;
        tokens->auth = auth;
        tokens->net = net;
        pthread_mutex_init(&tokens->lock, NULL);
        tk_thread_cond_init(&tokens->changed);
        *ret_tokens = tokens;
        return 0;
}

struct tk_azure_tokens *tk_azure_tokens_free(struct tk_azure_tokens *tokens)
{
        if (!tokens)
                return NULL;
        assert(!tokens->fetching);
        tk_azure_token_unref(tokens->current);
        pthread_cond_destroy(&tokens->changed);
        pthread_mutex_destroy(&tokens->lock);
        free(tokens->claims);
        free(tokens);
        return NULL;
}

/* Half of the life or five minutes before its end, whichever is earlier; not at once, though. */
static int64_t renewal_of(int64_t lifetime_ms)
{
        int64_t renew = lifetime_ms / 2;

        if (lifetime_ms - EARLY_MS < renew)
                renew = lifetime_ms - EARLY_MS;
        return renew < lifetime_ms / 4 ? lifetime_ms / 4 : renew;
}

static int token_new(const struct tk_azure_grant *grant, int64_t asked_ms,
                     struct tk_azure_token **ret_token)
{
        struct tk_azure_token *token = calloc(1, sizeof(*token));
        struct tk_text text = {0};
        int64_t lifetime_ms = grant->lifetime_s * 1000;
        int r;

        if (!token)
                return -ENOMEM;
        tk_text_add(&text, "Authorization: Bearer ");
        tk_text_add(&text, tk_text_of(grant->token));
        r = tk_text_take(&text, &token->header);
        if (r < 0) {
                free(token);
                return r;
        }
        atomic_init(&token->refs, 1);
        token->renew_ms = asked_ms + renewal_of(lifetime_ms);
        token->end_ms = asked_ms + lifetime_ms -
                        (lifetime_ms > INT64_C(4) * MARGIN_MS ? MARGIN_MS : lifetime_ms / 4);
        *ret_token = token;
        return 0;
}

/* Get a new one, without the lock. */
static int fetch(struct tk_azure_tokens *tokens, const struct tk_azure_want *want,
                 struct tk_azure_token **ret_token, struct tk_fault *fault)
{
        struct tk_azure_grant grant = {0};
        int64_t asked_ms = tk_azure_net_now(tokens->net);
        int r;

        r = tk_azure_auth_get(tokens->auth, want, &grant, fault);
        if (r == 0)
                r = token_new(&grant, asked_ms, ret_token);
        tk_secret_free(grant.token);
        return r;
}

/*
 * Be the thread that gets the next token. Called and left with the lock; @quick: the
 * current one is still good, so a failure is none.
 */
static int renew(struct tk_azure_tokens *tokens, const struct tk_azure_want *want, bool quick,
                 struct tk_fault *fault)
{
        TK_CLEANUP(tk_freep) char *claims = TK_TAKE(tokens->claims);
        struct tk_azure_want mine = *want;
        struct tk_azure_token *fresh = NULL;
        struct tk_fault one = {0};
        int r;

        mine.claims = claims;
        mine.quick = quick;
        tokens->fetching = true;
        pthread_mutex_unlock(&tokens->lock);
        r = fetch(tokens, &mine, &fresh, &one);
        pthread_mutex_lock(&tokens->lock);
        tokens->fetching = false;
        pthread_cond_broadcast(&tokens->changed);

        if (r == 0) {
                tk_azure_token_unref(tokens->current);
                tokens->current = fresh;
                return 0;
        }
        if (!tokens->claims)
                tokens->claims = TK_TAKE(claims);
        if (quick) {
                tokens->quick_after_ms = tk_azure_net_now(tokens->net) + QUICK_AGAIN_MS;
                tk_log_limited(TK_LOG_WARNING, "azure: the token can't be renewed yet: %s",
                               one.text);
                return 0;
        }
        tokens->failures++;
        tokens->last_error = r;
        tokens->last_fault = one;
        tk_fault_describe(fault, one.kind, "%s", one.text);
        return r;
}

/* Wait for the thread that is at it; with the lock. Its failure is ours. */
static int wait_for_other(struct tk_azure_tokens *tokens, int64_t deadline_ms,
                          struct tk_fault *fault)
{
        int64_t left = deadline_ms - tk_azure_net_now(tokens->net);
        uint64_t failures = tokens->failures;
        struct timespec until = tk_thread_deadline(left > 0 ? left : 0);

        if (left <= 0 ||
            pthread_cond_timedwait(&tokens->changed, &tokens->lock, &until) == ETIMEDOUT)
                return tk_fault_set(fault, TK_FAULT_KMS_UNREACHABLE, -ENOKEY,
                                    "getting a token for the key vault takes too long");
        if (tokens->failures == failures)
                return 0;
        tk_fault_describe(fault, tokens->last_fault.kind, "%s", tokens->last_fault.text);
        return tokens->last_error;
}

int tk_azure_tokens_get(struct tk_azure_tokens *tokens, const struct tk_azure_want *want,
                        struct tk_azure_token **ret_token, struct tk_fault *fault)
{
        TK_LOCK_SCOPE(&tokens->lock);
        for (;;) {
                struct tk_azure_token *current = tokens->current;
                int64_t now = tk_azure_net_now(tokens->net);
                bool good = current && now < current->end_ms;
                int r = 0;

                if (good &&
                    (now < current->renew_ms || tokens->fetching || now < tokens->quick_after_ms)) {
                        *ret_token = token_ref(current);
                        return 0;
                }
                if (tokens->fetching)
                        r = wait_for_other(tokens, want->deadline_ms, fault);
                else
                        r = renew(tokens, want, good, fault);
                if (r < 0)
                        return r;
        }
}

void tk_azure_tokens_reject(struct tk_azure_tokens *tokens, const struct tk_azure_token *token,
                            const char *claims)
{
        TK_LOCK_SCOPE(&tokens->lock);
        if (tokens->current == token)
                tokens->current = tk_azure_token_unref(tokens->current);
        if (claims && claims[0]) {
                free(tokens->claims);
                tokens->claims = strdup(claims);
        }
}
