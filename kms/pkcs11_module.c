/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whether a library is a module that can be called.
 *
 * p11-kit takes the list of functions as it is and calls what stands there: a module that
 * leaves one out would take the daemon with it.
 */

#include "kms/pkcs11_internal.h"
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { OLDEST_MAJOR = 2 };

#define ROW(name)                                                                                  \
        {                                                                                          \
#name, offsetof(CK_FUNCTION_LIST, name)                                            \
        }

/* What we call, or p11-kit for us. */
static const struct {
        const char *name;
        size_t offset;
} needed[] = {
        ROW(C_Initialize),        ROW(C_Finalize),
        ROW(C_GetInfo),           ROW(C_GetSlotList),
        ROW(C_GetTokenInfo),      ROW(C_GetMechanismInfo),
        ROW(C_OpenSession),       ROW(C_CloseSession),
        ROW(C_GetSessionInfo),    ROW(C_Login),
        ROW(C_CreateObject),      ROW(C_DestroyObject),
        ROW(C_GetAttributeValue), ROW(C_SetAttributeValue),
        ROW(C_FindObjectsInit),   ROW(C_FindObjects),
        ROW(C_FindObjectsFinal),  ROW(C_EncryptInit),
        ROW(C_Encrypt),           ROW(C_DecryptInit),
        ROW(C_Decrypt),           ROW(C_GenerateKey),
        ROW(C_GenerateKeyPair),   ROW(C_WrapKey),
        ROW(C_UnwrapKey),
};

static bool is_missing(const CK_FUNCTION_LIST *list, size_t offset)
{
        void (*function)(void);

        memcpy(&function, (const char *)list + offset, sizeof(function));
        return !function;
}

static void check_list(const CK_FUNCTION_LIST *list, char *why, size_t size)
{
        if (!list) {
                snprintf(why, size, "it has no list of functions");
                return;
        }
        if (list->version.major < OLDEST_MAJOR) {
                snprintf(why, size, "it is one of PKCS#11 %u.%u, older than 2.0",
                         list->version.major, list->version.minor);
                return;
        }
        for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]) && !why[0]; i++)
                if (is_missing(list, needed[i].offset))
                        snprintf(why, size, "it lacks the function %s", needed[i].name);
}

CK_FUNCTION_LIST *tk_p11_load_module(const char *path, char *why, size_t size)
{
        CK_FUNCTION_LIST *list = NULL;
        CK_C_GetFunctionList get = NULL;
        const char *said;
        void *library;

        why[0] = '\0';
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library)
                *(void **)&get = dlsym(library, "C_GetFunctionList");
        if (get && get(&list) == CKR_OK)
                check_list(list, why, size);
        list = NULL;
        if (!why[0]) {
                list = p11_kit_module_load(path, 0);
                said = list ? NULL : p11_kit_message();
                snprintf(why, size, "%s", said ? said : "it is no PKCS#11 module");
        }
        if (library)
                dlclose(library); /* p11-kit holds it by now */
        return list;
}
