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

# systemd looks in one place, whatever the prefix; an empty one leaves its files out.
set(TK_SYSTEMD_DIR lib/systemd/system CACHE STRING "Where turnkeyfs@.service goes")
set(TK_BIN ${CMAKE_INSTALL_FULL_BINDIR}/turnkeyfs)
configure_file(packaging/systemd/turnkeyfs@.service.in turnkeyfs@.service @ONLY)
if(TK_SYSTEMD_DIR)
  install(FILES ${CMAKE_BINARY_DIR}/turnkeyfs@.service DESTINATION ${TK_SYSTEMD_DIR})
  install(FILES packaging/systemd/turnkeyfs.tmpfiles DESTINATION lib/tmpfiles.d RENAME turnkeyfs.conf)
endif()

install(FILES packaging/completions/turnkeyfs.bash
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME turnkeyfs)
install(FILES packaging/completions/_turnkeyfs DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES packaging/completions/turnkeyfs.fish
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(DIRECTORY packaging/examples/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES packaging/apparmor.profile DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(DIRECTORY packaging/monitoring DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
