/* SPDX-License-Identifier: Apache-2.0 */

/* `doctor`: run the checks, print a line for each, exit by the first that failed. */

#include "cli/command.h"
#include "cli/doctor.h"
#include "cli/hygiene.h"
#include "cli/provider.h"
#include <errno.h>
#include <stdio.h>

/* A configuration that can't be read is a finding; the other checks go on with the defaults. */
static int load_conf(struct tk_doctor *doctor, const char *path, struct tk_conf **ret_conf)
{
        struct tk_fault fault = {0};
        int r;

        if (!path)
                return tk_conf_new(ret_conf);
        r = tk_conf_load(path, ret_conf, &fault);
        if (r == 0) {
                tk_doctor_ok(doctor, "configuration", "%s has no mistakes", path);
                return 0;
        }
        tk_doctor_fail_with(doctor, "configuration", r, &fault);
        return tk_conf_new(ret_conf);
}

/* The way to the root key, where it is a long one. */
static void check_provider(struct tk_doctor *doctor)
{
        const struct tk_provider_backend *backend = tk_provider_backend(doctor->conf);
        TK_CLEANUP(tk_freep) char *place = NULL;
        struct tk_fault fault = {0};
        int r;

        tk_provider_check_secrets(doctor->conf, doctor);
        if (!backend->examine)
                return;
        r = backend->locate(doctor->conf, &(struct tk_provider_volume){0}, &place, &fault);
        if (r == 0)
                r = backend->is_interactive(doctor->conf, place, &fault);
        if (r < 0)
                tk_doctor_fail_with(doctor, backend->place_name, r, &fault);
        else if (r > 0)
                tk_doctor_ok(doctor, backend->place_name,
                             "%s wants a secret, which was not asked for: it was not tried", place);
        else
                backend->examine(doctor->conf, place, doctor);
}

int tk_cmd_doctor(const struct tk_args *args, struct tk_fault *fault)
{
        TK_CLEANUP(tk_conf_freep) struct tk_conf *conf = NULL;
        struct tk_doctor doctor = {.cipherdir = args->paths[0]};
        int r;

        r = load_conf(&doctor, args->config, &conf);
        if (r < 0)
                return r;
        doctor.conf = conf;
        r = tk_hygiene_start(conf, fault);
        if (r < 0)
                return r;
        tk_doctor_check_machine(&doctor);
        check_provider(&doctor);
        if (doctor.cipherdir)
                tk_doctor_check_volume(&doctor);

        printf("%u failed, %u warnings\n", doctor.failures, doctor.warnings);
        if (doctor.failures == 0)
                return 0;
        fflush(stdout);
        return tk_fault_set(fault, doctor.first_kind, -EINVAL,
                            "doctor: failed checks: %u, see above", doctor.failures);
}
