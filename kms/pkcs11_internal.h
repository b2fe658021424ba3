/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * The provider's state, its jobs and its sessions, which the pkcs11_*.c share.
 *
 * A module's call can't be cancelled, so no caller makes one: each provider call is a job
 * in a thread of its own (pkcs11_job.c), which the caller waits for until the deadline. A
 * job that is late keeps its thread and what it borrowed, and frees them when it comes
 * back. Within a job, sessions come from one small pool (pkcs11_session.c).
 */

#include "kms/kms_admin.h"
#include "kms/pkcs11.h"
#include "kms/pkcs11_uri.h"
#include "kms/pkcs11_verdict.h"

enum {
        TK_P11_JOBS_MAX = 4, /* at the same time, and so of sessions */
        TK_P11_VERSIONS_MAX = 256,
};

struct tk_p11 {
        char *module;
        char *uri_text;
        struct tk_p11_uri uri;
        unsigned deadline_ms;
        bool expiry_revokes;
        int (*reread)(void *context, struct tk_secret **ret_pin);
        void (*reread_free)(void *context);
        void *reread_context;

        pthread_mutex_t jobs_lock;
        pthread_cond_t job_ended;
        unsigned jobs; /* under jobs_lock: threads that have not come back */
        unsigned late; /* under jobs_lock: those that nobody waits for any more */
        bool was_late; /* under jobs_lock: there was one; the module stays loaded */
        bool answered; /* under jobs_lock: a job came back in time */

        /* Under connection_lock, which is held across calls: for jobs only. */
        pthread_mutex_t connection_lock;
        pthread_cond_t session_back;
        CK_FUNCTION_LIST *functions; /* NULL: not loaded */
        struct tk_p11 *next;         /* under a lock of the list: who has loaded a module, too */
        struct tk_p11 *leaving;      /* who else is made to leave with it */
        bool initialized;
        bool stale; /* to be initialised again */
        bool found; /* the token */
        CK_SLOT_ID slot;
        CK_SESSION_HANDLE idle[TK_P11_JOBS_MAX];
        unsigned idle_count;
        unsigned borrowed;     /* sessions */
        unsigned generation;   /* of the sessions: those of an earlier one are dropped */
        struct tk_secret *pin; /* NULL: none */
        CK_RV pin_doubt;       /* an answer that left open whether it is right; CKR_OK: none */
        int64_t pin_again_ms;  /* after the first of these: when it may be tried once more */
        unsigned pin_doubts;   /* how many, by a token that was well otherwise */
        bool pin_known;        /* it was accepted before */
        bool pin_refused;      /* it was refused: never again */
        bool pin_fresh;        /* typed just now, or changed since it was refused */
        bool let_in;           /* there was a session that was logged in, by whatever PIN */
        char proven[TK_KMS_VERSION_MAX + TK_KMS_ALGORITHM_MAX]; /* version and way that work */
};

/* Jobs ------------------------------------------------------------------- */

/* One version of the root key, as it is in the token. */
struct tk_p11_version {
        CK_OBJECT_HANDLE handle;
        CK_OBJECT_CLASS class; /* CKO_SECRET_KEY: AES; CKO_PRIVATE_KEY: RSA */
        uint8_t id[TK_P11_ID_MAX];
        size_t id_len;
        unsigned bits;
        bool renamed; /* its label says that it is disabled */
        bool encrypt, decrypt, wrap, unwrap;
        bool sensitive, extractable, always_authenticate;
        int64_t start, end; /* Unix seconds; 0: none */
};

struct tk_p11_versions {
        struct tk_p11_version *list; /* oldest first */
        size_t count;
        size_t unnamed; /* keys of the label that have no usable CKA_ID */
};

/* For doctor: what was seen on the way. */
struct tk_p11_about {
        CK_INFO module;
        CK_TOKEN_INFO token;
};

/* What is asked and what came out. The job owns it all. */
struct tk_p11_job {
        int (*run)(struct tk_p11 *p11, struct tk_p11_job *job);
        struct tk_p11 *p11;
        char version[TK_KMS_VERSION_MAX];
        struct tk_kms_wrap wrap;
        struct tk_secret *key;
        struct tk_kms_key_spec spec;
        bool enabled;
        unsigned deadline_ms; /* 0: that of the provider */
        struct tk_p11_versions versions;
        struct tk_p11_about about;
        struct tk_fault fault;
        int r;
        bool ended; /* under jobs_lock */
        bool late;  /* under jobs_lock: nobody waits; the thread frees it */
};

TK_MUST_USE int tk_p11_job_new(int (*run)(struct tk_p11 *p11, struct tk_p11_job *job),
                               struct tk_p11_job **ret_job);
struct tk_p11_job *tk_p11_job_free(struct tk_p11_job *job);
TK_DEFINE_CLEANUP(struct tk_p11_job *, tk_p11_job_free)

/*
 * Run *@job in a thread and wait for it. Returns its result and its fault. If it is late, or
 * too many are: -ENOKEY with a fault, and *@job is NULL.
 */
TK_MUST_USE int tk_p11_job_run(struct tk_p11 *p11, struct tk_p11_job **job, struct tk_fault *fault);

/*
 * Disconnect from the module. False: it hangs, now or in an earlier job, so *@p11 is left to
 * it, and the process will end without the handlers of exit(3).
 */
TK_MUST_USE bool tk_p11_end(struct tk_p11 *p11);

/* The module: in jobs only -------------------------------------------------- */

/* Its functions, by p11-kit; NULL and why not. */
CK_FUNCTION_LIST *tk_p11_load_module(const char *path, char *why, size_t size);

/* Sessions: in jobs only ---------------------------------------------------- */

/* A session in use, logged in. */
struct tk_p11_use {
        struct tk_p11 *p11;
        struct tk_p11_job *job;
        CK_FUNCTION_LIST *f;
        CK_SESSION_HANDLE session;
        unsigned generation;
        bool writes;                 /* CKF_RW_SESSION; not from the pool */
        bool changed;                /* something may have been changed: not to be done twice */
        bool spoiled;                /* something is left in the session: not to be used again */
        enum tk_p11_verdict verdict; /* of what failed */
        CK_RV said;                  /* by the attribute that failed last */
};

/*
 * Call @op with a session. What a lost session, a token that was away or a key that was not
 * seen may explain is tried once more, with the module initialised anew.
 */
TK_MUST_USE int tk_p11_use(struct tk_p11_job *job, bool writes, int (*op)(struct tk_p11_use *use));

/* Describe that @doing failed with @rv; remembers the verdict. Returns the errno. */
TK_MUST_USE int tk_p11_fail(struct tk_p11_use *use, CK_RV rv, const char *doing);

/* Close all, and unload the module. No other job runs. */
void tk_p11_disconnect(struct tk_p11 *p11);

/* Keys ------------------------------------------------------------------- */

#define TK_P11_DISABLED ".disabled" /* behind the label of a version that is */
#define TK_P11_DELETED ".deleted"   /* behind that of one that was deleted */

/* All versions with the label and @suffixes (".disabled" counts as disabled), oldest first. */
TK_MUST_USE int tk_p11_find_all(struct tk_p11_use *use, struct tk_p11_versions *ret_versions);
void tk_p11_versions_done(struct tk_p11_versions *versions);

/* The version @text, enabled or not. If it is not there: -EKEYREVOKED and a fault. */
TK_MUST_USE int tk_p11_find_any(struct tk_p11_use *use, const char *text,
                                struct tk_p11_version *ret_version);

/* The same, and if it is disabled: -EKEYREVOKED and a fault, too. */
TK_MUST_USE int tk_p11_find_one(struct tk_p11_use *use, const char *text,
                                struct tk_p11_version *ret_version);

/* Handles of the objects of @class and exactly this label and id (NULL: any id). */
TK_MUST_USE int tk_p11_find_objects(struct tk_p11_use *use, CK_OBJECT_CLASS class,
                                    const char *suffix, const uint8_t *id, size_t id_len,
                                    CK_OBJECT_HANDLE *ret_handles, size_t max, size_t *ret_count);

/* CKA_ID in hexadecimal. */
void tk_p11_version_text(const struct tk_p11_version *version, char text[TK_KMS_VERSION_MAX]);
/* Not disabled. */
bool tk_p11_is_enabled(const struct tk_p11_version *version);
bool tk_p11_is_within_dates(const struct tk_p11_version *version, int64_t now);
/* < 0: @a is older. By CKA_START_DATE, then CKA_ID. */
int tk_p11_compare(const struct tk_p11_version *a, const struct tk_p11_version *b);
/* The newest that is enabled and within its dates; NULL: none is. */
const struct tk_p11_version *tk_p11_newest(const struct tk_p11_versions *versions, int64_t now);

/* One attribute of at most @max bytes into @value. Returns its length, 0 if there is none. */
size_t tk_p11_attribute(struct tk_p11_use *use, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                        void *value, size_t max);

/* Ways of wrapping --------------------------------------------------------- */

/* Wrap @plain by @version in the first way that works; sets algorithm and blob. */
TK_MUST_USE int tk_p11_wrap_by(struct tk_p11_use *use, const struct tk_p11_version *version,
                               const struct tk_secret *plain, struct tk_kms_wrap *wrap);

/* What @wrap holds, in the way that it names. */
TK_MUST_USE int tk_p11_unwrap_by(struct tk_p11_use *use, const struct tk_kms_wrap *wrap,
                                 struct tk_secret **ret_plain);

/* Whether the way @wrap names is known and its blob has the length of that. -ENOTSUP, -EBADMSG. */
TK_MUST_USE int tk_p11_check_blob(const struct tk_p11 *p11, const struct tk_kms_wrap *wrap,
                                  struct tk_fault *fault);

/* What an AES key of this token needs: CKA_WRAP and CKA_UNWRAP, or CKA_ENCRYPT and -DECRYPT. */
enum tk_p11_usage { TK_P11_NO_AES, TK_P11_BY_ENCRYPT, TK_P11_BY_WRAP };
enum tk_p11_usage tk_p11_aes_usage(struct tk_p11_use *use);

/* Whether the token has @mechanism with all of @flags. A token that is away: see the verdict. */
bool tk_p11_has_mechanism(struct tk_p11_use *use, CK_MECHANISM_TYPE mechanism, CK_FLAGS flags);

extern const struct tk_kms_admin tk_p11_admin;

/* As tk_kms_pkcs11_open, and the state behind the provider, which is the provider's. */
TK_MUST_USE int tk_p11_open(const struct tk_kms_pkcs11_options *options, struct tk_p11 **ret_p11,
                            struct tk_kms **ret_kms, struct tk_fault *fault);
