/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as the name of an entry below, or as what the sibling of a long one holds. What
 * is read as a name is one, was encrypted under the directory's key, and has no other form.
 *
 * The first byte of the input chooses: a backing name; changes to a good one; the sibling
 * of an entry that has the right hash; a text of any kind, encrypted under the right key,
 * in its short or its long form.
 */

#include "support.h"

#include "base/bytes.h"
#include "crypto/mac.h"
#include "crypto/siv.h"
#include "fs/fs_internal.h"
#include "fs/names.h"
#include "fs/scratch.h"
#include <errno.h>
#include <fcntl.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct {
        struct tk_fs fs; /* of it only whether names are encrypted is asked */
        struct tk_secret *key;
        struct tk_siv *siv;
        struct tk_name good;
        int dirfd;
} names = {.fs = {.names_encrypted = true}};

static void make_good(void)
{
        static const char name[] = "a good name of 24 chars.";

        if (names.key)
                return;
        fuzz_make_dir();
        names.dirfd = open(fuzz.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        require(names.dirfd >= 0);
        require(tk_secret_new(TK_SIV_KEY_LEN, &names.key) == 0);
        memset(tk_secret_bytes_mutable(names.key), 0x17, TK_SIV_KEY_LEN);
        require(tk_siv_new(&names.siv) == 0 && tk_siv_set_key(names.siv, names.key) == 0);
        require(tk_names_encode(names.key, name, sizeof(name) - 1, &names.good) == 0);
}

static bool is_name(const char *name, size_t len)
{
        return len > 0 && len <= TK_NAMES_MAX && !memchr(name, '\0', len) &&
               !memchr(name, '/', len) && !(len == 1 && name[0] == '.') &&
               !(len == 2 && name[0] == '.' && name[1] == '.');
}

/* Read the entry @backing; @target is what its sibling holds (NULL: it has none). */
static int try_entry(const char *backing, const char *target, char ret_name[TK_NAMES_MAX + 1])
{
        char sibling[TK_NAMES_SIBLING_LEN + 1];
        struct tk_names_reader reader;
        struct tk_name again;
        int r;

        if (target) {
                snprintf(sibling, sizeof(sibling), "%s" TK_NAMES_SIBLING_END, backing);
                require(symlinkat(target, names.dirfd, sibling) == 0);
        }
        require(tk_names_reader_begin(&reader, &names.fs, names.key) == 0);
        r = tk_names_read(&reader, names.dirfd, backing, ret_name);
        tk_names_reader_end(&reader);
        if (target)
                require(unlinkat(names.dirfd, sibling, 0) == 0);
        require(r == 0 || r == -EBADMSG ||
                (r == -ENOENT && !target && tk_names_is_hashed(backing)));
        if (r < 0)
                return r;
        require(is_name(ret_name, strlen(ret_name)));
        require(tk_names_encode(names.key, ret_name, strlen(ret_name), &again) == 0);
        require(strcmp(again.backing, backing) == 0);
        require(again.is_long == (target != NULL));
        require(!target || strcmp(again.target, target) == 0);
        return 0;
}

/* @len bytes as far as a directory can have them as a name. */
static bool take_backing(const uint8_t *bytes, size_t len, char ret_backing[NAME_MAX + 1])
{
        size_t count = 0;

        while (count < len && count < NAME_MAX && bytes[count] && bytes[count] != '/') {
                ret_backing[count] = (char)bytes[count];
                count++;
        }
        ret_backing[count] = '\0';
        return count > 0;
}

static void hash_of(const uint8_t *cipher, size_t len, char ret_backing[TK_NAMES_HASHED_LEN + 1])
{
        uint8_t hash[TK_MAC_LEN];

        require(tk_mac_sha256(cipher, len, hash) == 0);
        ret_backing[0] = '@';
        tk_base64url_encode(hash, sizeof(hash), ret_backing + 1);
}

static void try_sibling(const uint8_t *bytes, size_t len)
{
        char backing[TK_NAMES_HASHED_LEN + 1];
        char name[TK_NAMES_MAX + 1];
        uint8_t cipher[1024];
        char target[1024];
        size_t cipher_len = 0;
        size_t count = 0;

        for (; count < len && count + 1 < sizeof(target) && bytes[count]; count++)
                target[count] = (char)bytes[count];
        target[count] = '\0';
        if (count == 0)
                return;
        if (tk_base64url_decode(target, cipher, sizeof(cipher), &cipher_len) < 0)
                cipher_len = 0;
        hash_of(cipher, cipher_len, backing);
        (void)try_entry(backing, target, name);
}

/* A text that whoever has the key could have encrypted. */
static void try_encrypted(const uint8_t *bytes, size_t len, bool as_long)
{
        uint8_t cipher[TK_NAMES_CIPHER_MAX + 64];
        char backing[NAME_MAX + 1];
        char name[TK_NAMES_MAX + 1];
        char target[512];
        bool right;
        int r;

        len = len < TK_NAMES_MAX + 32 ? len : TK_NAMES_MAX + 32;
        if (!as_long && len > TK_NAMES_SHORT_MAX)
                return; /* no backing name is that long */
        require(tk_siv_seal(names.siv, NULL, 0, bytes, len, cipher) == 0);
        tk_base64url_encode(cipher, TK_SIV_TAG_LEN + len, target);
        if (as_long)
                hash_of(cipher, TK_SIV_TAG_LEN + len, backing);
        else
                snprintf(backing, sizeof(backing), "%s", target);
        right = is_name((const char *)bytes, len) && as_long == (len > TK_NAMES_SHORT_MAX);
        r = try_entry(backing, as_long ? target : NULL, name);
        require(r == (right ? 0 : -EBADMSG));
        require(r < 0 || memcmp(name, bytes, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        char backing[NAME_MAX + 1];
        char name[TK_NAMES_MAX + 1];

        make_good();
        if (len < 2)
                return 0;
        switch (*bytes++ % 5) {
        case 0:
                if (take_backing(bytes, len - 1, backing))
                        (void)try_entry(backing, NULL, name);
                break;
        case 1:
                snprintf(backing, sizeof(backing), "%s", names.good.backing);
                for (size_t i = 0; i < len - 1 && backing[i]; i++)
                        backing[i] = (char)(backing[i] ^ bytes[i]);
                if (backing[0] && !strchr(backing, '/'))
                        (void)try_entry(backing, NULL, name);
                break;
        case 2:
                try_sibling(bytes, len - 1);
                break;
        case 3:
                try_encrypted(bytes, len - 1, false);
                break;
        default:
                try_encrypted(bytes, len - 1, true);
                break;
        }
        return 0;
}
