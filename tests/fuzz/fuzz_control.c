/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The control socket, from both ends: any bytes as a request to a mount, and any bytes as
 * what a mount answers to us. Paths in requests are translated on a real volume.
 *
 * The first byte of the input chooses.
 */

#include "support.h"

#include "cli/control.h"
#include "cli/serve.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct {
        const uint8_t *answer; /* what the mount says instead of what it means; NULL: that */
        size_t answer_len;
        struct tk_reload reload;
        struct tk_serve serve;
        struct tk_control *control;
} scene;

/* Whether it asks for more than a translation: what that does to a mount is not ours. */
static bool is_order(const char *request)
{
        return strcmp(request, "status") == 0 || strncmp(request, "rotate", 6) == 0;
}

static char *answer(void *context, const char *request)
{
        (void)context;
        require(strlen(request) < TK_CONTROL_REQUEST_MAX);
        if (scene.answer)
                return strndup((const char *)scene.answer, scene.answer_len);
        return is_order(request) ? NULL : tk_serve_answer(&scene.serve, request);
}

static void make_scene(void)
{
        static const struct tk_control_handlers handlers = {.answer = answer,
                                                            .is_slow = tk_serve_is_slow};
        struct tk_fault fault = {0};

        if (!fuzz_mount())
                return;
        /* A mount that has not begun to serve: it refuses to reload. */
        scene.reload = (struct tk_reload){.path = "/etc/turnkeyfs.conf", .fs = fuzz.fs};
        scene.serve = (struct tk_serve){.volume = fuzz.volume,
                                        .fs = fuzz.fs,
                                        .mountpoint = "/mnt",
                                        .reload = &scene.reload};
        require(tk_control_start(tk_volume_dirfd(fuzz.volume), &handlers, &scene.control, &fault) ==
                0);
}

/* An answer is a JSON object, or there is none. */
static void check_answer(const char *text, size_t len)
{
        json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

        require(len == 0 || json_is_object(root));
        json_decref(root);
}

static void ask(const uint8_t *bytes, size_t len)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        char text[64 * 1024];
        size_t got = 0;
        ssize_t n;

        snprintf(address.sun_path, sizeof(address.sun_path), "%s/c/turnkeyfs.sock", fuzz.dir);
        require(fd >= 0);
        require(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
        /* The mount may have had enough before it has read all. */
        (void)!send(fd, bytes, len, MSG_NOSIGNAL);
        (void)shutdown(fd, SHUT_WR);
        while (got < sizeof(text) && (n = recv(fd, text + got, sizeof(text) - got, 0)) > 0)
                got += (size_t)n;
        close(fd);
        check_answer(text, got);
}

/* Each question that we ask of mounts gets @bytes for an answer. */
static void be_answered(const uint8_t *bytes, size_t len)
{
        struct tk_fault fault = {0};
        const char *why = NULL;
        char *path = NULL;
        json_t *status;
        int r;

        scene.answer = bytes;
        scene.answer_len = len;
        status = tk_serve_ask(fuzz.volume, &why);
        require(status ? json_is_object(status) && !why : why != NULL);
        (void)tk_serve_unclean_count(fuzz.volume, status);
        json_decref(status);
        r = tk_serve_ask_path(fuzz.volume, true, "a/b", &path);
        require((r == 0) == (path != NULL) && r <= 0);
        free(path);
        r = tk_serve_ask_rotate(fuzz.volume, NULL, &fault);
        require(r == 0 || (r < 0 && fault.kind != TK_FAULT_NONE && fault.text[0]));
        scene.answer = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
        make_scene();
        if (len < 1)
                return 0;
        if (bytes[0] & 1)
                be_answered(bytes + 1, len - 1);
        else
                ask(bytes + 1, len - 1);
        return 0;
}
