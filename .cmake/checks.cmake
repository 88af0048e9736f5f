# format, format-check and lint: over every source of ours.
file(GLOB AQ_FORMATTED CONFIGURE_DEPENDS
     ir/*.[ch] ir/*/*.[ch] passes/*.[ch] codegen/*.[ch] frontend/*/*.[ch]
     runtime/*.[ch] models/*.[ch] tests/*/*.[ch])
find_program(CLANG_FORMAT NAMES clang-format-14 clang-format)
find_program(CLANG_TIDY NAMES clang-tidy-14 clang-tidy)

if(CLANG_FORMAT)
  add_custom_target(format COMMAND ${CLANG_FORMAT} -i ${AQ_FORMATTED} VERBATIM
    COMMENT "clang-format -i")
  add_custom_target(format-check VERBATIM COMMENT "clang-format --dry-run"
    COMMAND ${CLANG_FORMAT} --dry-run --Werror ${AQ_FORMATTED})
endif()

# One stamp for each source, so that lint runs in parallel and only over what
# changed.
if(CLANG_TIDY)
  file(GLOB AQ_TEST_PARTS CONFIGURE_DEPENDS
       tests/support/*.c tests/parity/*.c tests/bench/*.c tests/cli/program.c)
  set(stamps)
  foreach(source ${AQ_SOURCES} ${AQ_CLI_SOURCES} ${AQ_TESTS} ${AQ_TEST_PARTS})
    file(RELATIVE_PATH stamp ${CMAKE_SOURCE_DIR} ${source})
    string(REPLACE "/" "." stamp ${stamp})
    set(stamp ${CMAKE_BINARY_DIR}/lint/${stamp})
    add_custom_command(OUTPUT ${stamp} VERBATIM
      COMMAND ${CLANG_TIDY} -p ${CMAKE_BINARY_DIR} --quiet
              --extra-arg=-Wno-unknown-warning-option ${source}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/lint
      COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
      DEPENDS ${AQ_HEADERS} ${source} .clang-tidy tests/.clang-tidy
      COMMENT "lint ${source}")
    list(APPEND stamps ${stamp})
  endforeach()
  add_custom_target(lint DEPENDS ${stamps})
endif()
