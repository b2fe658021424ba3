# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` lays down beside the program.
include(GNUInstallDirs)

# mount(8) looks for it in /sbin only: set this to /usr/sbin if the prefix is another.
set(TK_MOUNT_HELPER_DIR ${CMAKE_INSTALL_FULL_SBINDIR} CACHE PATH
    "Where mount.fuse.turnkeyfs goes, for fstab lines of type fuse.turnkeyfs")

install(PROGRAMS packaging/mount.fuse.turnkeyfs DESTINATION ${TK_MOUNT_HELPER_DIR})

foreach(page IN LISTS TK_MAN_PAGES)
  string(REGEX MATCH "[0-9]$" section ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
