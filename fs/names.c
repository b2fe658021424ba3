/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Names, as applications and as the backing directory have them.
 *
 * Everything is on the stack or in the thread's scratch: nothing is allocated for a
 * name. A name has one encoding, and whatever decodes to something that would have
 * been encoded otherwise does not authenticate.
 */

#include "fs/names.h"

#include "base/bytes.h"
#include "crypto/mac.h"
#include "fs/dirkey.h"
#include "fs/fs_internal.h"
#include "fs/scratch.h"
#include "fs/sibling.h"
#include <errno.h>

/* "@" and the base64url of the hash of a ciphertext. */
static int hash_name(const uint8_t *cipher, size_t len, char ret_hashed[TK_NAMES_HASHED_LEN + 1])
{
        uint8_t hash[TK_MAC_LEN];
        int r;

        r = tk_mac_sha256(cipher, len, hash);
        if (r < 0)
                return r;
        ret_hashed[0] = '@';
        tk_base64url_encode(hash, sizeof(hash), ret_hashed + 1);
        return 0;
}

static int encode(struct tk_siv *siv, const char *name, size_t len, struct tk_name *ret_name)
{
        uint8_t cipher[TK_NAMES_CIPHER_MAX];
        int r;

        r = tk_siv_seal(siv, NULL, 0, name, len, cipher);
        if (r < 0)
                return r;
        len += TK_SIV_TAG_LEN;
        ret_name->is_long = len > TK_SIV_TAG_LEN + TK_NAMES_SHORT_MAX;
        if (!ret_name->is_long) {
                tk_base64url_encode(cipher, len, ret_name->backing);
                return 0;
        }
        tk_base64url_encode(cipher, len, ret_name->target);
        return hash_name(cipher, len, ret_name->backing);
}

int tk_names_encode(const struct tk_secret *names, const char *name, size_t len,
                    struct tk_name *ret_name)
{
        struct tk_scratch *scratch;
        int r;

        r = tk_scratch_get(&scratch);
        if (r < 0)
                return r;
        r = tk_siv_set_key(scratch->siv, names);
        if (r == 0)
                r = encode(scratch->siv, name, len, ret_name);
        tk_siv_clear_key(scratch->siv);
        return r;
}

static int to_backing(struct tk_fs *fs, struct tk_inode *parent, int parentfd, const char *name,
                      bool need, struct tk_name *ret_name)
{
        struct tk_dirkey *key = NULL;
        size_t len = strlen(name);
        int r;

        if (len > TK_NAMES_MAX)
                return -ENAMETOOLONG;
        if (!fs->names_encrypted) {
                ret_name->is_long = false;
                memcpy(ret_name->backing, name, len + 1);
                return 0;
        }
        if (need)
                r = tk_dirkey_need(fs, parent, parentfd, &key);
        else
                r = tk_dirkey_get(fs, parent, parentfd, &key);
        if (r < 0)
                return r == -ENODATA ? -ENOENT : r;
        r = tk_names_encode(tk_dirkey_names(key), name, len, ret_name);
        tk_dirkey_put(fs, key);
        return r;
}

int tk_names_find(struct tk_fs *fs, struct tk_inode *parent, int parentfd, const char *name,
                  struct tk_name *ret_name)
{
        return to_backing(fs, parent, parentfd, name, false, ret_name);
}

int tk_names_need(struct tk_fs *fs, struct tk_inode *parent, int parentfd, const char *name,
                  struct tk_name *ret_name)
{
        return to_backing(fs, parent, parentfd, name, true, ret_name);
}

/* Reading ------------------------------------------------------------------------- */

int tk_names_reader_begin(struct tk_names_reader *reader, struct tk_fs *fs,
                          const struct tk_secret *names)
{
        struct tk_scratch *scratch;
        int r;

        *reader = (struct tk_names_reader){.encrypted = fs->names_encrypted};
        if (!reader->encrypted || !names)
                return 0;
        r = tk_scratch_get(&scratch);
        if (r == 0)
                r = tk_siv_set_key(scratch->siv, names);
        if (r == 0)
                reader->siv = scratch->siv;
        return r;
}

void tk_names_reader_end(struct tk_names_reader *reader)
{
        if (reader->siv)
                tk_siv_clear_key(reader->siv);
        reader->siv = NULL;
}

/* The ciphertext of the long name @backing, from its sibling. */
static int read_sibling(int fd, const char *backing, uint8_t cipher[TK_NAMES_CIPHER_MAX],
                        size_t *ret_len)
{
        char target[TK_NAMES_TARGET_MAX + 1];
        char hashed[TK_NAMES_HASHED_LEN + 1];
        int r;

        r = tk_sibling_read(fd, backing, target);
        if (r < 0)
                return r;
        if (tk_base64url_decode(target, cipher, TK_NAMES_CIPHER_MAX, ret_len) < 0)
                return -EBADMSG;
        r = hash_name(cipher, *ret_len, hashed);
        if (r < 0)
                return r;
        return strcmp(hashed, backing) == 0 ? 0 : -EBADMSG;
}

static bool is_name(const char *name, size_t len)
{
        return len > 0 && len <= TK_NAMES_MAX && strlen(name) == len && !strchr(name, '/') &&
               strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

int tk_names_read(struct tk_names_reader *reader, int fd, const char *backing,
                  char ret_name[TK_NAMES_MAX + 1])
{
        uint8_t cipher[TK_NAMES_CIPHER_MAX];
        bool hashed = tk_names_is_hashed(backing);
        size_t len = 0;
        int r;

        if (!reader->encrypted) {
                memcpy(ret_name, backing, strlen(backing) + 1);
                return 0;
        }
        if (!reader->siv)
                return -EBADMSG;
        if (hashed)
                r = read_sibling(fd, backing, cipher, &len);
        else
                r = tk_base64url_decode(backing, cipher, sizeof(cipher), &len) < 0 ? -EBADMSG : 0;
        if (r == 0)
                r = tk_siv_open(reader->siv, NULL, 0, cipher, len, ret_name);
        if (r < 0)
                return r;
        len -= TK_SIV_TAG_LEN;
        ret_name[len] = '\0';
        return is_name(ret_name, len) && hashed == (len > TK_NAMES_SHORT_MAX) ? 0 : -EBADMSG;
}
