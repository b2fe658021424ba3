# SPDX-License-Identifier: Apache-2.0
# The program: main.c over a library that tests link as well.

add_library(tk_cli STATIC
  cli/args.c cli/bench_place.c cli/bench_rows.c cli/cmd_bench.c cli/cmd_doctor.c cli/cmd_escrow.c cli/cmd_help.c cli/cmd_init.c cli/cmd_key.c cli/cmd_key_readmit.c
  cli/cmd_mount.c cli/cmd_path.c cli/cmd_protector.c
  cli/cmd_reload.c cli/cmd_rotate.c cli/cmd_status.c cli/cmd_umount.c cli/cmd_verify.c cli/cmd_version.c cli/commands.c
  cli/control.c cli/daemon.c cli/doctor.c cli/doctor_machine.c cli/doctor_volume.c cli/fuseconf.c
  cli/guardian.c cli/harden.c cli/harden_calls.c cli/harden_files.c cli/hygiene.c cli/mountinfo.c cli/mountopts.c
  cli/notify.c cli/open.c cli/paths.c
  cli/progress.c cli/provider.c cli/provider_azure.c cli/provider_local.c cli/provider_pkcs11.c cli/reload.c cli/rotation.c
  cli/rotation_status.c cli/secret_source.c
  cli/metrics.c cli/metrics_http.c cli/metrics_text.c cli/serve.c cli/status_text.c cli/text.c cli/tty.c cli/unixsock.c
  cli/verify_live.c cli/verify_report.c cli/verify_wire.c cli/watch.c)
target_link_libraries(tk_cli PUBLIC tk_fs tk_kms tk_conf PkgConfig::JANSSON PRIVATE PkgConfig::SECCOMP)

add_executable(turnkeyfs cli/main.c)
target_link_libraries(turnkeyfs PRIVATE tk_cli)
install(TARGETS turnkeyfs)
