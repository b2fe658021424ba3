# SPDX-License-Identifier: Apache-2.0
# An offer: it lies beside the documentation, not in /etc/apparmor.d, so nothing loads it. Which
# directories are encrypted is the machine's own affair: name them below, copy it to
# /etc/apparmor.d/usr.bin.turnkeyfs, and load it with `apparmor_parser -r`.
abi <abi/3.0>,
include <tunables/global>

# Where encrypted directories and their mounts may be.
@{TURNKEYFS_TREES}=/srv

profile turnkeyfs /usr/bin/turnkeyfs flags=(attach_disconnected) {
  include <abstractions/base>
  include <abstractions/nameservice>
  include <abstractions/openssl>
  include <abstractions/ssl_certs>

  capability chown,
  capability dac_override,
  capability dac_read_search,
  capability fowner,
  capability fsetid,
  capability ipc_lock,
  capability lease,
  capability linux_immutable,
  capability mknod,
  capability setfcap,
  capability setgid,
  capability setpcap,
  capability setuid,
  capability sys_admin,
  capability sys_resource,

  # The key management service.
  network inet stream,
  network inet6 stream,
  network inet dgram,
  network inet6 dgram,
  network unix dgram,
  network unix stream,

  mount fstype=fuse.turnkeyfs -> @{TURNKEYFS_TREES}/**,
  mount fstype=fusectl,
  umount @{TURNKEYFS_TREES}/**,
  /dev/fuse rw,
  /dev/cpu_dma_latency rw,

  /usr/bin/turnkeyfs mr,
  /usr/bin/fusermount3 Ux,
  /etc/fuse.conf r,
  /etc/turnkeyfs/** r,
  /var/lib/turnkeyfs/** rwkl,
  /{,var/}run/credentials/** r,
  owner @{PROC}/@{pid}/** r,
  @{PROC}/sys/** r,
  @{PROC}/swaps r,
  @{sys}/fs/fuse/connections/** rw,
  @{sys}/devices/system/cpu/cpuidle/current_driver r,
  @{sys}/module/haltpoll/parameters/guest_halt_poll_ns r,
  @{sys}/class/bdi/** r,
  @{sys}/devices/virtual/bdi/** rw,
  /{,var/}run/systemd/notify w,

  # Metrics, where docs/monitoring.md puts them: [metrics] socket and textfile.
  /{,var/}run/turnkeyfs-*.metrics rw,
  /var/lib/prometheus/node-exporter/ r,
  /var/lib/prometheus/node-exporter/turnkeyfs-*.prom{,.new} rw,

  @{TURNKEYFS_TREES}/ r,
  @{TURNKEYFS_TREES}/** rwkl,

  # PKCS#11: the module, and what its token wants, is to be added.
  /usr/lib/@{multiarch}/pkcs11/*.so mr,
  /etc/pkcs11/** r,
  /usr/share/p11-kit/modules/{,*} r,

  include if exists <local/usr.bin.turnkeyfs>
}
