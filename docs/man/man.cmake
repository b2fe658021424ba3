# SPDX-License-Identifier: Apache-2.0
# The manual pages: page.py fills them from the Markdown documents, scdoc makes them. Sets TK_MAN_PAGES.
find_program(TK_SCDOC scdoc)
find_package(Python3 COMPONENTS Interpreter)

set(TK_MAN_PAGES)
if(TK_SCDOC AND Python3_FOUND)
  foreach(name turnkeyfs.1 turnkeyfs.conf.5 mount.fuse.turnkeyfs.8 turnkeyfs-format.7 turnkeyfs-threat-model.7)
    set(page ${CMAKE_BINARY_DIR}/man/${name})
    add_custom_command(
      OUTPUT ${page}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/man
      COMMAND Python3::Interpreter ${CMAKE_SOURCE_DIR}/docs/man/page.py ${CMAKE_SOURCE_DIR}/docs/man/${name}.scd
              ${TK_SCDOC} > ${page}
      DEPENDS docs/man/page.py docs/man/${name}.scd
              docs/cli.md docs/configuration.md docs/format.md docs/threat-model.md
      COMMENT "Manual page ${name}"
      VERBATIM)
    list(APPEND TK_MAN_PAGES ${page})
  endforeach()
  add_custom_target(man ALL DEPENDS ${TK_MAN_PAGES})
else()
  message(STATUS "scdoc or python3 is missing: no manual pages")
endif()
